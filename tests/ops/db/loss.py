from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import loss

from .row import Constant, Op, Sample, Wrong


def reduced(values: Any, reduction: str, divisor: float | None = None) -> Any:
    values = np.asarray(values)
    if reduction == "none":
        return values
    total = math.fsum(values.reshape(-1).tolist())
    count = values.size if divisor is None else divisor
    return np.asarray(total if reduction == "sum" else total / count if count else math.nan)


def squares(x: Any, y: Any, reduction: str = "mean") -> Any:
    return reduced(np.array([(a - b) ** 2 for a, b in zip(x.flat, y.flat, strict=True)]).reshape(x.shape), reduction)


def likelihood(x: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Any:
    losses, weights = np.zeros(target.shape), 0.0
    for place in np.ndindex(target.shape):
        label = int(target[place])
        if label != ignore_index:
            factor = 1.0 if weight is None else float(weight[label])
            at = (label,) if x.ndim == 1 else (place[0], label, *place[1:])
            losses[place], weights = -factor * float(x[at]), weights + factor
    return reduced(losses, reduction, weights)


def entropy(
    x: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """The target as a distribution over the classes, whatever it was given as; then the sum of -p log q."""
    dim = 0 if x.ndim == 1 else 1
    logits = np.moveaxis(x, dim, -1).astype(np.float64)
    log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    classes = logits.shape[-1]
    hard = target.dtype.kind != "f"
    losses, divisor = np.zeros(logits.shape[:-1]), 0.0
    for place in np.ndindex(losses.shape):
        if hard and target[place] == ignore_index:
            continue
        if hard:
            p = [1.0 if c == target[place] else 0.0 for c in range(classes)]
            divisor += 1.0 if weight is None else float(weight[target[place]])
        else:
            p = np.moveaxis(target, dim, -1)[place].tolist()
            divisor += 1.0
        p = [v * (1 - label_smoothing) + label_smoothing / classes for v in p]
        w = [1.0] * classes if weight is None else weight.tolist()
        losses[place] = -math.fsum(p[c] * w[c] * log_q[(*place, c)] for c in range(classes))
    return reduced(losses, reduction, divisor)


def pairs(rng: np.random.Generator) -> Iterator[Sample]:
    for reduction in ("mean", "sum", "none"):
        for size in ((2, 3), (), (0,)):
            yield Sample(rng.standard_normal(size), rng.standard_normal(size), reduction=reduction)


def labels(rng: np.random.Generator, *size: int) -> Any:
    return rng.integers(0, 4, size)


def classified(smoothing: bool) -> Any:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        def draw(*size: int) -> Any:
            return rng.standard_normal(size)

        weight = Constant(rng.uniform(0.5, 2.0, 4))
        extras: list[dict[str, Any]] = [
            {},
            {"weight": weight},
            {"ignore_index": 2},
            {"weight": weight, "ignore_index": 1},
        ]
        if smoothing:
            extras += [{**extra, "label_smoothing": 0.2} for extra in extras]
        for extra in extras:
            yield Sample(draw(2, 4), np.array([1, 2]), **extra)
            yield Sample(draw(2, 4), np.array([1, 2]), reduction="none", **extra)
        for extra in extras[-2:]:
            yield Sample(draw(3, 4), np.array([1, 2, 3]), reduction="sum", **extra)
            yield Sample(draw(2, 4, 2), labels(rng, 2, 2), **extra)
        yield Sample(draw(4), np.array(3))
        yield Sample(draw(4), np.array(3), reduction="none")
        yield Sample(draw(2, 4), np.array([-100, -100]), reduction="sum")
        yield Sample(draw(0, 4), np.zeros(0, np.int64), reduction="sum")
        yield Sample(draw(2, 4, 1, 2), labels(rng, 2, 1, 2))
        if smoothing:
            p = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
            for reduction in ("mean", "sum", "none"):
                yield Sample(draw(2, 4), p, reduction=reduction)
            yield Sample(draw(2, 4), p, weight, label_smoothing=0.1)
            yield Sample(draw(4), p[0])
            yield Sample(draw(2, 4, 2), np.stack([p, p[::-1]], 2), reduction="mean")
            yield Sample(draw(0, 4), np.zeros((0, 4)), reduction="none")

    return samples


X = np.zeros((3, 4))
OUT = r"Target 4 is out of bounds: there are 4 classes, 0 to 3"

ROWS = [
    Op(
        loss.mse_loss,
        squares,
        pairs,
        (
            Wrong(ValueError, r"the input \[2\] and the target \[3\] differ in shape", np.zeros(2), np.zeros(3)),
            Wrong(ValueError, "'max' is not a valid value for reduction", np.zeros(2), np.zeros(2), "max"),
        ),
        ("Sub", "Mul", "Mean", "Sum"),
        dtypes="promotes as sub and mul do",
    ),
    Op(
        loss.nll_loss,
        likelihood,
        classified(False),
        (
            Wrong(ValueError, r"Expected input batch_size \(3\) to match target batch_size \(2\)", X, np.array([0, 1])),
            Wrong(IndexError, OUT, X, np.array([0, 4, 1])),
            Wrong(IndexError, "Target -1 is out of bounds", X, np.array([0, -1, 1])),
            Wrong(RuntimeError, "expected a target of class indices", X, np.zeros(3)),
            Wrong(ValueError, "'avg' is not a valid value for reduction", X, np.zeros(3, int), None, -100, "avg"),
        ),
        ("Gather", "ScatterAdd", "Where"),
        dtypes="takes class indices; test_floats_stay",
    ),
    Op(
        loss.cross_entropy,
        entropy,
        classified(True),
        (
            Wrong(IndexError, OUT, X, np.array([0, 4, 1])),
            Wrong(ValueError, "probability targets need the shape of the input", X, np.zeros(3)),
            Wrong(RuntimeError, "either for all 4 classes", X, np.zeros(3, int), np.ones(3)),
            Wrong(
                RuntimeError,
                "label_smoothing must be between 0.0 and 1.0. Got: 2.0",
                X,
                np.zeros(3, int),
                label_smoothing=2.0,
            ),
        ),
        ("LogSoftmax", "Gather"),
        dtypes="takes class indices; test_floats_stay",
    ),
]
FAMILY = loss
EXEMPT: list[Any] = []

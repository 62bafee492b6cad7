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


def margins(rng: np.random.Generator) -> Iterator[Sample]:
    for extra in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"p": 2}, {"margin": 0.3}):
        yield Sample(rng.standard_normal((3, 4)), np.array([1, 3, 0]), **extra)
    weight = Constant(rng.uniform(0.5, 2.0, 4))
    yield Sample(rng.standard_normal((2, 4)), np.array([2, 1]), weight=weight)
    yield Sample(rng.standard_normal((2, 4)), np.array([2, 1]), 2, 0.5, weight, reduction="none")
    yield Sample(rng.standard_normal(4), np.array(2))
    yield Sample(rng.standard_normal(4), np.array([2]), reduction="none")
    yield Sample(np.zeros((0, 4)), np.zeros(0, np.int64), reduction="none")


def margin(x: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean") -> Any:
    rows, losses = np.atleast_2d(x), []
    for row, label in zip(rows, np.atleast_1d(target).tolist(), strict=True):
        terms = [max(0.0, margin - row[label] + v) ** p for c, v in enumerate(row.tolist()) if c != label]
        losses.append(sum(terms) * (1.0 if weight is None else weight[label]) / len(row))
    return reduced(np.reshape(losses, target.shape), reduction)


def several_labels(rng: np.random.Generator) -> Iterator[Sample]:
    target = np.array([[0, 2, -1, 1], [3, -1, 0, 0], [-1, 1, 1, 1], [2, 1, 3, 0], [1, 1, -1, -1]])
    for reduction in ("mean", "sum", "none"):
        yield Sample(rng.standard_normal((5, 4)), target, reduction=reduction)
    yield Sample(rng.standard_normal(4), target[0], reduction="none")
    yield Sample(np.zeros((0, 4)), np.zeros((0, 4), np.int64), reduction="none")


def several(x: Any, target: Any, reduction: str = "mean") -> Any:
    losses = []
    for row, labels in zip(np.atleast_2d(x).tolist(), np.atleast_2d(target).tolist(), strict=True):
        right = labels[: labels.index(-1)] if -1 in labels else labels
        wrong = [c for c in range(len(row)) if c not in right]
        losses.append(sum(max(0.0, 1 - row[i] + row[j]) for i in right for j in wrong) / len(row))
    return reduced(np.reshape(losses, x.shape[:-1]), reduction)


def soft(rng: np.random.Generator) -> Iterator[Sample]:
    weight = rng.uniform(0.5, 2.0, 4)
    for extra in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"weight": weight}):
        yield Sample(rng.standard_normal((3, 4)), rng.uniform(0, 1, (3, 4)), **extra)
    yield Sample(rng.standard_normal((2, 3, 2)), rng.uniform(0, 1, 2), reduction="none")
    yield Sample(rng.standard_normal(4), rng.uniform(0, 1, 4), reduction="none")
    yield Sample(np.zeros((0, 4)), np.zeros((0, 4)), reduction="sum")


def soft_margin(x: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Any:
    p = 1 / (1 + np.exp(-x))
    terms = -(target * np.log(p) + (1 - target) * np.log(1 - p)) * (1.0 if weight is None else weight)
    return reduced(terms.sum(-1) / x.shape[-1], reduction)


X = np.zeros((3, 4))
LABELS = np.array([0, 1, 2])
OUT = r"Target 4 is out of bounds: there are 4 classes, 0 to 3"
LEGACY = r"size_average and reduce are deprecated and not supported: pass reduction='sum' instead"
NO_0D = {"0-d": "it takes a dimension of classes"}


def wrong_reduction(*args: Any) -> Wrong:
    return Wrong(ValueError, "'avg' is not a valid value for reduction: one of", *args, reduction="avg")


ROWS = [
    Op(
        loss.nll_loss,
        likelihood,
        classified(False),
        (
            Wrong(ValueError, r"Expected input batch_size \(3\) to match target batch_size \(2\)", X, np.array([0, 1])),
            Wrong(
                RuntimeError, r"Expected target size \[2, 4\], got \[2, 5\]", np.zeros((2, 3, 4)), np.zeros((2, 5), int)
            ),
            Wrong(ValueError, "one sample and needs one class", np.zeros(4), LABELS),
            Wrong(ValueError, "Expected 1 or more dimensions", np.zeros(()), np.array(0)),
            Wrong(IndexError, OUT, X, np.array([0, 4, 1])),
            Wrong(IndexError, "Target -1 is out of bounds", X, np.array([0, -1, 1])),
            Wrong(RuntimeError, "expected a target of class indices", X, np.zeros(3)),
            Wrong(RuntimeError, r"either for all 4 classes or no classes .* shape: \[3\]", X, LABELS, np.ones(3)),
            Wrong(ValueError, LEGACY, X, LABELS, size_average=False),
            Wrong(ValueError, "pass reduction='none'", X, LABELS, reduce=False),
            wrong_reduction(X, LABELS),
        ),
        ("NllLoss", "NllLossAdjoint"),
        dtypes="takes class indices; test_floats_stay",
        torch="nll_loss",
    ),
    Op(
        loss.cross_entropy,
        entropy,
        classified(True),
        (
            Wrong(IndexError, OUT, X, np.array([0, 4, 1])),
            Wrong(ValueError, r"Expected input batch_size \(3\) to match target batch_size \(2\)", X, np.zeros(2)),
            Wrong(RuntimeError, "expected a target of class indices", X, np.zeros(3)),
            Wrong(RuntimeError, "Expected floating point type for target with class prob", X, np.zeros((3, 4), int)),
            Wrong(RuntimeError, "ignore_index is not supported for floating point", X, X, ignore_index=1),
            Wrong(RuntimeError, "either for all 4 classes", X, LABELS, np.ones(3)),
            Wrong(
                RuntimeError, "label_smoothing must be between 0.0 and 1.0. Got: 2.0", X, LABELS, label_smoothing=2.0
            ),
            Wrong(ValueError, LEGACY, X, LABELS, size_average=False),
            wrong_reduction(X, LABELS),
        ),
        ("LogSoftmax", "NllLoss"),
        dtypes="takes class indices; test_floats_stay",
        torch="cross_entropy",
    ),
    Op(
        loss.multi_margin_loss,
        margin,
        margins,
        (
            Wrong(ValueError, "only p == 1 and p == 2 supported, not 3", X, LABELS, 3),
            Wrong(ValueError, r"weight must be one-dimensional, .* \[4, 1\]", X, LABELS, weight=np.ones((4, 1))),
            Wrong(RuntimeError, r"inconsistent weight size, expected 4 but got \[3\]", X, LABELS, weight=np.ones(3)),
            Wrong(RuntimeError, "target out of range: 4 with 4 classes", X, np.array([0, 4, 1])),
            Wrong(RuntimeError, r"Expected target size \[3\], but got \[2\]", X, np.array([0, 1])),
            Wrong(RuntimeError, "expected an int64 target, got float64", X, np.zeros(3)),
            Wrong(RuntimeError, r"non-empty vector or matrix .* got: \[1, 3, 4\]", X[None], LABELS),
            Wrong(ValueError, LEGACY, X, LABELS, size_average=False),
            wrong_reduction(X, LABELS),
        ),
        ("Gather", "Relu", "Where"),
        dtypes="takes class indices; test_floats_stay",
        torch="multi_margin_loss",
    ),
    Op(
        loss.multilabel_margin_loss,
        several,
        several_labels,
        (
            Wrong(RuntimeError, r"inconsistent target size: \[3\] for input of size: \[3, 4\]", X, LABELS),
            Wrong(RuntimeError, "target out of range: 4 with 4 classes", X, np.full((3, 4), 4)),
            Wrong(RuntimeError, "target out of range: -2", X, np.full((3, 4), -2)),
            Wrong(RuntimeError, "expected an int64 target, got float64", X, X),
            Wrong(RuntimeError, r"non-empty vector or matrix .* got: \[\]", np.zeros(()), np.array(0)),
            Wrong(ValueError, LEGACY, X, X, size_average=False),
            wrong_reduction(X, X),
        ),
        ("Gather", "Relu", "Where"),
        dtypes="takes class indices; test_floats_stay",
        torch="multilabel_margin_loss",
        lacks=NO_0D,
    ),
    Op(
        loss.multilabel_soft_margin_loss,
        soft_margin,
        soft,
        (
            Wrong(IndexError, "the last dimension is that of the classes", np.zeros(()), np.zeros(())),
            Wrong(RuntimeError, "do not broadcast", X, np.zeros(3)),
            Wrong(ValueError, LEGACY, X, X, size_average=False),
            wrong_reduction(X, X),
        ),
        ("LogSigmoid", "Mul"),
        dtypes="promotes as mul does",
        torch="multilabel_soft_margin_loss",
        lacks=NO_0D,
    ),
]
FAMILY = loss
EXEMPT: list[Any] = []

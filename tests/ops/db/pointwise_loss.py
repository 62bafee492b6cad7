from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import pointwise_loss as losses

from .loss import LEGACY, reduced
from .row import Constant, Op, Sample, Wrong

SIZES: tuple[tuple[int, ...], ...] = ((2, 3), (), (0,))
REDUCTIONS = ("mean", "sum", "none")


def termwise(term: Callable[..., float], **defaults: Any) -> Callable[..., Any]:
    """The reference of a loss that is ``term`` of each pair of numbers, and of the options."""

    def loss(x: Any, y: Any, reduction: str = "mean", weight: Any = None, **options: Any) -> Any:
        x, y = np.broadcast_arrays(x, y)
        terms = [term(float(a), float(b), **{**defaults, **options}) for a, b in zip(x.flat, y.flat, strict=True)]
        values = np.reshape(terms, x.shape) * (1.0 if weight is None else weight)
        return reduced(values, reduction)

    return loss


def weighted_mean(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The mean of mse_loss and l1_loss is over the sum of the weights."""

    def reference(x: Any, y: Any, reduction: str = "mean", weight: Any = None) -> Any:
        if weight is None or reduction != "mean":
            return loss(x, y, reduction, weight)
        return loss(x, y, "sum", weight) / math.fsum(weight.flat)

    return reference


def pairs(*options: dict[str, Any], weight: bool = False, draw: Any = None, target: Any = None) -> Any:
    """Samples of two tensors: each reduction, each of the options, and a weight of their shape."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        def normal(size: tuple[int, ...]) -> Any:
            return rng.standard_normal(size)

        first = (lambda size: draw(rng, size)) if draw else normal
        second = (lambda size: target(rng, size)) if target else first
        for size in SIZES:
            for reduction in REDUCTIONS if size != (0,) else ("sum", "none"):
                yield Sample(first(size), second(size), reduction=reduction)
        for option in options:
            yield Sample(first((2, 3)), second((2, 3)), reduction="sum", **option)
            yield Sample(first((4,)), second((4,)), reduction="none", **option)
        for reduction in REDUCTIONS if weight else ():
            yield Sample(first((2, 2)), second((2, 2)), weight=rng.uniform(0.5, 2, (2, 2)), reduction=reduction)

    return samples


def between(low: float, high: float) -> Any:
    return lambda rng, size: rng.uniform(low, high, size)


def ones(rng: np.random.Generator, size: tuple[int, ...]) -> Any:
    return np.asarray(rng.choice([-1, 1], size))


def huber(a: float, b: float, delta: float = 1.0) -> float:
    d = abs(a - b)
    return d * d / 2 if d < delta else delta * (d - delta / 2)


def cross_entropy(p: float, t: float) -> float:
    return -t * max(-100.0, math.log(p) if p else -math.inf) - (1 - t) * max(
        -100.0, math.log(1 - p) if p < 1 else -math.inf
    )


def logits(x: Any, y: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = 1.0) -> Any:
    p = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    values = -(pos_weight * y * np.log(p) + (1 - y) * np.log(1 - p)) * (1.0 if weight is None else weight)
    return reduced(values, reduction)


def logit_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from pairs(target=between(0.05, 0.95))(rng)
    for reduction in REDUCTIONS:
        x, y = rng.standard_normal((2, 3)), rng.uniform(0, 1, (2, 3))
        weight, factor = Constant(rng.uniform(0.5, 2, 3)), Constant(rng.uniform(0.5, 4, 3))
        yield Sample(x, y, weight, reduction=reduction)
        yield Sample(x, y, pos_weight=factor, reduction=reduction)
        yield Sample(x, y, weight, reduction=reduction, pos_weight=Constant(np.array(2.5)))


def probability_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from pairs(draw=between(0.05, 0.95))(rng)
    for reduction in REDUCTIONS:
        x, y = rng.uniform(0.1, 0.9, (2, 3)), rng.uniform(0, 1, (2, 3))
        yield Sample(x, y, weight=Constant(rng.uniform(0.5, 2, 3)), reduction=reduction)
    yield Sample(Constant(np.array([0.0, 1.0, 0.5, 0.0])), Constant(np.array([1.0, 0.3, 1.0, 0.0])), reduction="none")


def divergence(x: Any, y: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    y = np.exp(y) if log_target else y
    values = np.where(y > 0, y * (np.log(np.where(y > 0, y, 1)) - x), 0)
    return (
        reduced(values, "sum") / (x.shape[0] if x.ndim else 1)
        if reduction == "batchmean"
        else reduced(values, reduction)
    )


def divergence_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for size in SIZES:
        for reduction in ("sum", "none", *(("batchmean",) if size != (0,) else ())):
            yield Sample(rng.standard_normal(size), rng.uniform(0.1, 1, size), reduction=reduction)
    yield Sample(rng.standard_normal((3, 2)), rng.standard_normal((3, 2)), reduction="batchmean", log_target=True)
    yield Sample(rng.standard_normal(3), rng.uniform(0.1, 1, (2, 3)), reduction="none")
    yield Sample(rng.standard_normal(3), Constant(np.array([0.0, 1.0, 0.0])), reduction="none")


def poisson(a: float, b: float, log_input: bool = True, full: bool = False, eps: float = 1e-8) -> float:
    value = math.exp(a) - b * a if log_input else a - b * math.log(a + eps)
    return value + (b * math.log(b) - b + 0.5 * math.log(2 * math.pi * b) if full and b > 1 else 0.0)


def poisson_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from pairs({"full": True}, target=between(0, 4))(rng)
    yield from pairs({"full": True, "log_input": False}, {"log_input": False, "eps": 0.1}, draw=between(0.1, 3))(rng)


def gaussian(x: Any, y: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> Any:
    var = np.maximum(np.asarray(var, np.float64), eps)
    var = var[..., None] if var.ndim == x.ndim - 1 and var.ndim else var
    density = np.exp(-((x - y) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var)
    return reduced(-np.log(density) - (0.0 if full else 0.5 * np.log(2 * np.pi)), reduction)


def gaussian_samples(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    for reduction in REDUCTIONS:
        yield Sample(draw(2, 3), draw(2, 3), rng.uniform(0.5, 2, (2, 3)), reduction=reduction)
    yield Sample(draw(2, 3), draw(2, 3), rng.uniform(0.5, 2, 2), full=True)
    yield Sample(draw(2, 3), draw(2, 3), rng.uniform(0.5, 2, (2, 1)), reduction="none")
    yield Sample(draw(2, 3), draw(3), 1.5)
    yield Sample(draw(), draw(), rng.uniform(0.5, 2, ()))
    yield Sample(draw(0), draw(0), np.ones(0), reduction="sum")
    yield Sample(draw(3), draw(3), Constant(np.array([0.0, 0.1, 1.0])), eps=0.25, reduction="none")


A, B = np.zeros((2, 3)), np.zeros((2, 3))
INTEGERS = np.zeros(2, np.int64)
SHAPES = "size of tensor a|do not broadcast"


def refused(*more: Wrong, legacy: bool = True) -> tuple[Wrong, ...]:
    """What all losses refuse, and ``more``."""
    old = (Wrong(ValueError, LEGACY, A, B, size_average=False), Wrong(ValueError, "'mean' instead", A, B, reduce=True))
    return (
        Wrong(ValueError, "'avg' is not a valid value for reduction: one of none, mean, sum", A, B, reduction="avg"),
        *(old if legacy else ()),
        *more,
    )


def not_integers(name: str) -> Wrong:
    return Wrong(RuntimeError, f"{name} is not defined for int64 tensors", INTEGERS, INTEGERS)


WEIGHT = Wrong(ValueError, r"must have the same size, but they are \[3\] and \[2, 3\]", A, B, weight=np.zeros(3))

ROWS = [
    Op(
        losses.mse_loss,
        weighted_mean(termwise(lambda a, b: (a - b) ** 2)),
        pairs(weight=True),
        refused(WEIGHT, not_integers("mse_loss")),
        ("MseLoss", "Mean", "Sum"),
        dtypes="floating point only; test_losses_promote",
        torch="mse_loss",
    ),
    Op(
        losses.l1_loss,
        weighted_mean(termwise(lambda a, b: abs(a - b))),
        pairs(weight=True),
        refused(WEIGHT),
        ("Sub", "Abs"),
        dtypes="promotes as sub does",
        torch="l1_loss",
    ),
    Op(
        losses.smooth_l1_loss,
        termwise(lambda a, b, beta=1.0: huber(a, b, beta) / beta if beta else abs(a - b)),
        pairs({"beta": 0.4}, {"beta": 0.0}),
        refused(
            Wrong(RuntimeError, "does not support negative values for beta. Got: -1", A, B, beta=-1),
            not_integers("smooth_l1_loss"),
        ),
        ("HuberLoss", "Clamp", "Abs"),
        dtypes="floating point only; test_losses_promote",
        torch="smooth_l1_loss",
    ),
    Op(
        losses.huber_loss,
        termwise(huber),
        pairs({"delta": 0.4}, weight=True),
        refused(
            WEIGHT,
            Wrong(RuntimeError, "does not support non-positive values for delta. Got: 0", A, B, delta=0),
            not_integers("huber_loss"),
            legacy=False,
        ),
        ("HuberLoss", "Clamp"),
        dtypes="floating point only; test_losses_promote",
        torch="huber_loss",
    ),
    Op(
        losses.binary_cross_entropy,
        termwise(cross_entropy),
        probability_samples,
        refused(
            Wrong(ValueError, r"the target size \(torch.Size\(\[3\]\)\) is different", A, np.zeros(3)),
            Wrong(RuntimeError, "all elements of input should be between 0 and 1", A + 1.1, B),
            Wrong(RuntimeError, "all elements of target should be between 0 and 1", A, B - 0.1),
            Wrong(RuntimeError, "found dtype int64 of the target but expected float64", A, np.zeros((2, 3), np.int64)),
            Wrong(RuntimeError, r"weight of shape \[5, 2, 3\] is not broadcastable", A, B, np.ones((5, 2, 3))),
        ),
        ("BinaryCrossEntropy",),
        dtypes="floating point only; test_losses_promote",
        torch="binary_cross_entropy",
        tolerance=(1e-12, 1e-4),
    ),
    Op(
        losses.binary_cross_entropy_with_logits,
        logits,
        logit_samples,
        refused(
            Wrong(ValueError, r"Target size \(torch.Size\(\[3\]\)\) must be the same as input size", A, np.zeros(3)),
            not_integers("binary_cross_entropy_with_logits"),
            Wrong(RuntimeError, r"weight of shape \[5, 2, 3\] is not broadcastable", A, B, np.ones((5, 2, 3))),
            Wrong(RuntimeError, "pos_weight of shape .* is not broadcast", A, B, pos_weight=np.ones((5, 2, 3))),
        ),
        ("BinaryCrossEntropyWithLogits",),
        dtypes="floating point only; test_losses_promote",
        torch="binary_cross_entropy_with_logits",
    ),
    Op(
        losses.soft_margin_loss,
        termwise(lambda a, b: math.log(1 + math.exp(-a * b))),
        pairs(target=ones),
        refused(Wrong(RuntimeError, SHAPES, A, np.zeros(2))),
        ("LogSigmoid",),
        dtypes="promotes as mul does",
        torch="soft_margin_loss",
    ),
    Op(
        losses.kl_div,
        divergence,
        divergence_samples,
        (
            *refused(Wrong(RuntimeError, SHAPES, A, np.zeros(2), reduction="sum"))[1:],
            Wrong(ValueError, "'avg' is not a valid .* one of none, mean, sum, batchmean", A, B, reduction="avg"),
        ),
        ("Xlogy", "Exp"),
        dtypes="promotes as mul does",
        torch="kl_div",
    ),
    Op(
        losses.poisson_nll_loss,
        termwise(poisson),
        poisson_samples,
        refused(Wrong(RuntimeError, SHAPES, A, np.zeros(2))),
        ("Exp", "Log", "Where"),
        dtypes="promotes as mul does",
        torch="poisson_nll_loss",
    ),
    Op(
        losses.gaussian_nll_loss,
        gaussian,
        gaussian_samples,
        (
            Wrong(ValueError, r"var is of incorrect size: \[2, 2\] for an input \[2, 3\]", A, B, np.ones((2, 2))),
            Wrong(ValueError, r"var is of incorrect size: \[\]", A, B, np.ones(())),
            Wrong(ValueError, "var has negative entry", A, B, -1.0),
            Wrong(ValueError, "'avg' is not a valid value for reduction", A, B, 1.0, reduction="avg"),
        ),
        ("Log", "Clone"),
        dtypes="promotes as sub and div do",
        torch="gaussian_nll_loss",
    ),
]
FAMILY = losses
EXEMPT: list[Any] = []

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import activation

from .elementwise import FLAGS, INTEGERS, one
from .row import Exempt, Op, Sample, Samples, Wrong


def each(function: Callable[..., float]) -> Callable[..., Any]:
    """A reference from a function of a Python number and the op's further arguments."""

    def reference(x: Any, *args: Any, **kwargs: Any) -> Any:
        values = [function(v, *args, **kwargs) for v in x.reshape(-1).tolist()]
        return np.array(values, np.float64).reshape(x.shape)

    return reference


def then(samples: Samples, *more: Sample) -> Samples:
    def both(rng: np.random.Generator) -> Iterator[Sample]:
        yield from samples(rng)
        yield from more

    return both


X = np.array([[-2.5, -0.6, 0.2], [0.7, 1.4, 6.0]])
# where a naive formula overflows, and values about it
FAR = np.array([-800.0, -90.0, -30.0, 0.0, 30.0, 90.0, 800.0])
SMOOTH = then(one(0.0, 4.0), Sample(FAR))


def refused(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(TypeError, rf"{name}\(\): argument 'input' must be Tensor, not float", 1.0),
        Wrong(RuntimeError, f"{name} is not defined for int64 tensors; convert the input with .float()", INTEGERS),
        Wrong(RuntimeError, f"{name} is not defined for bool tensors", FLAGS),
    )


def log_of_1_plus_exp(x: float) -> float:
    return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))


def softplus(x: float, beta: float = 1.0, threshold: float = 20.0) -> float:
    return x if beta * x > threshold else log_of_1_plus_exp(beta * x) / beta


def logistic(x: float) -> float:
    return (1 + math.tanh(x / 2)) / 2


def gelu(x: float, approximate: str = "none") -> float:
    if approximate == "none":
        return 0.5 * x * math.erfc(-x / math.sqrt(2))
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def not_bool(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(TypeError, rf"{name}\(\): argument 'input' must be Tensor, not float", 1.0),
        Wrong(RuntimeError, f"{name} is not defined for bool tensors", FLAGS),
    )


def gates(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 6)))
    yield Sample(rng.standard_normal((4, 3)), 0)
    yield Sample(rng.standard_normal((2, 4, 3)), dim=1)
    yield Sample(np.concatenate([np.ones(FAR.size), FAR]))
    yield Sample(np.zeros((2, 0)))
    yield Sample(np.zeros((0, 4)), 1)


def gated(x: Any, dim: int = -1) -> Any:
    moved = np.moveaxis(x, dim, 0)
    half = len(moved) // 2
    out = [moved[i] * (1 + np.tanh(moved[half + i] / 2)) / 2 for i in range(half)]
    return np.moveaxis(np.array(out).reshape(half, *moved.shape[1:]), 0, dim)


ROWS = [
    Op(
        activation.logsigmoid,
        each(lambda x: -log_of_1_plus_exp(-x)),
        SMOOTH,
        refused("logsigmoid"),
        ("LogSigmoid", "Sigmoid"),
        dtypes="only floating",
    ),
    Op(
        activation.softplus,
        each(softplus),
        then(SMOOTH, Sample(X, 2.0), Sample(X, beta=0.5, threshold=1.0), Sample(FAR, threshold=1e6), Sample(X, -1.5)),
        refused("softplus"),
        ("Softplus", "Sigmoid"),
        # PyTorch's own formula overflows beyond a threshold that lets it
        torch=lambda torch, x, beta=1.0, threshold=20.0: torch.nn.functional.softplus(x, beta, min(threshold, 40.0)),
        dtypes="only floating",
    ),
    Op(
        activation.gelu,
        each(gelu),
        then(SMOOTH, Sample(X, approximate="tanh"), Sample(FAR, approximate="tanh"), Sample(X, approximate="none")),
        (
            *refused("gelu"),
            Wrong(RuntimeError, "approximate argument must be either none or tanh, not 'erf'", X, approximate="erf"),
        ),
        ("Gelu", "Erfc", "Exp", "Sigmoid", "Clamp"),
        dtypes="only floating",
    ),
    Op(
        activation.silu,
        each(lambda x: x * logistic(x)),
        SMOOTH,
        refused("silu"),
        ("Silu", "Sigmoid"),
        dtypes="only floating",
    ),
    Op(
        activation.mish,
        each(lambda x: x * math.tanh(log_of_1_plus_exp(x))),
        SMOOTH,
        refused("mish"),
        ("Mish", "Softplus", "Tanh"),
        dtypes="only floating",
    ),
    Op(
        activation.tanhshrink,
        each(lambda x: x - math.tanh(x)),
        SMOOTH,
        not_bool("tanhshrink"),
        ("Tanhshrink", "Tanh"),
        dtypes="floating, not bool",
    ),
    Op(
        activation.softsign,
        each(lambda x: x / (1 + abs(x))),
        then(one(0.1, 4.0), Sample(FAR[FAR != 0])),
        not_bool("softsign"),
        ("Softsign", "Abs"),
        dtypes="floating, not bool",
    ),
    Op(
        activation.glu,
        gated,
        gates,
        (
            Wrong(TypeError, r"glu\(\): argument 'input' must be Tensor, not float", 1.0),
            Wrong(RuntimeError, "glu is not defined for int64 tensors", np.zeros((2, 4), np.int64)),
            Wrong(RuntimeError, "glu does not support scalars because halving size must be even", np.array(1.0)),
            Wrong(RuntimeError, "Halving dimension must be even, but dimension 1 is size 3", np.zeros((2, 3))),
            Wrong(RuntimeError, "Halving dimension must be even, but dimension 0 is size 3", np.zeros((3, 2)), -2),
            Wrong(IndexError, r"expected to be in range of \[-2, 1\], but got 2", np.zeros((2, 4)), 2),
        ),
        ("Glu", "Narrow", "Sigmoid"),
        dtypes="only floating",
        lacks={"0-d": "there is no dimension to halve"},
    ),
]
FAMILY = activation
EXEMPT = [
    Exempt(activation.gumbel_softmax, "random; test_gumbel_softmax"),
]

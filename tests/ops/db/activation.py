from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import activation

from .elementwise import FLAGS, INTEGERS, one
from .row import Op, Sample, Samples, Wrong


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


def relu6(x: float) -> float:
    return min(max(x, 0.0), 6.0)


def limited(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    limits = [x.dtype.type(limit) for limit in (min_val, max_val)]  # for integers without their fraction
    return np.array([sorted((v, *limits))[1] for v in x.reshape(-1)], x.dtype).reshape(x.shape)


def beside_kinks(rng: np.random.Generator) -> Iterator[Sample]:
    """Of all three pieces of ``hardsigmoid`` and its relatives, 0.3 at least from the joints."""
    for size in ((2, 3), (), (4,), (0,), (2, 0, 3)):
        yield Sample(rng.choice([-4.5, 0.0, 4.5], size) + rng.uniform(-1.2, 1.2, size))


def with_limits(rng: np.random.Generator) -> Iterator[Sample]:
    yield from one(0.2, 0.8)(rng)
    yield from one(1.2, 4.0)(rng)
    yield Sample(X, -0.5, 0.5)
    yield Sample(X, min_val=1.0, max_val=8.0)
    yield Sample(INTEGERS, -2.7, 3)


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
        activation.leaky_relu,
        each(lambda x, negative_slope=0.01: x * (1 if x > 0 else negative_slope)),
        then(one(0.1, 2.0), Sample(X, 0.3), Sample(X, negative_slope=-0.5)),
        refused("leaky_relu"),
        ("LeakyRelu",),
        dtypes="only floating",
    ),
    Op(
        activation.elu,
        each(lambda x, alpha=1.0: x if x > 0 else alpha * math.expm1(x)),
        then(one(0.1, 3.0), Sample(X, 0.7), Sample(X, alpha=-1.5), Sample(FAR[FAR != 0])),
        refused("elu"),
        ("Elu", "Exp"),
        dtypes="only floating",
    ),
    Op(
        activation.selu,
        each(lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))),
        then(one(0.1, 3.0), Sample(FAR[FAR != 0])),
        refused("selu"),
        ("Elu",),
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
        ("Gelu", "Erfc", "Exp", "Sigmoid"),
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
        activation.hardtanh,
        limited,
        with_limits,
        (
            Wrong(TypeError, r"hardtanh\(\): argument 'input' must be Tensor, not float", 1.0),
            Wrong(ValueError, "min_val cannot be greater than max_val, but they are 2.0 and 1.0", X, 2.0),
            Wrong(RuntimeError, "Bool inputs not supported for hardtanh", FLAGS),
            Wrong(RuntimeError, "unsigned type .uint8. with negative limits", np.ones(3, np.uint8)),
        ),
        ("Hardtanh",),
        dtypes="signed",
    ),
    Op(
        activation.hardsigmoid,
        each(lambda x: relu6(x + 3) / 6),
        beside_kinks,
        refused("hardsigmoid"),
        ("Hardsigmoid",),
        dtypes="only floating",
        # PyTorch keeps 1/6 in float32 in the gradient of float64 too
        tolerance=(1e-9, 2e-5),
    ),
    Op(
        activation.hardswish,
        each(lambda x: x * relu6(x + 3) / 6),
        beside_kinks,
        refused("hardswish"),
        ("Hardswish",),
        dtypes="only floating",
    ),
]
FAMILY = activation
EXEMPT: list[Any] = []

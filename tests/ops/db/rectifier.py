from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import rectifier

from .activation import FAR, X, each, refused, then
from .elementwise import FLAGS, INTEGERS, away, ints, one
from .row import Op, Sample, Wrong


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


def whole_or_not(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda x: np.array([function(v) for v in x.reshape(-1).tolist()], x.dtype).reshape(x.shape)


def thresholded(x: Any, threshold: float, value: float) -> Any:
    number = float if x.dtype.kind == "f" else int  # for integers without their fraction
    return whole_or_not(lambda v: number(value) if v <= number(threshold) else v)(x)


def channels(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(away(rng, (2, 3)), away(rng, (3,)))
    yield Sample(away(rng, (2, 3, 2)), away(rng, (3,)))
    yield Sample(away(rng, (2, 3, 2, 2)), away(rng, (1,)))
    yield Sample(away(rng, (4,)), away(rng, (1,)))
    yield Sample(away(rng, (4,)), away(rng, ()))
    yield Sample(away(rng, ()), away(rng, (1,)))
    yield Sample(np.zeros((2, 0)), away(rng, (1,)))
    yield Sample(np.zeros((0, 3, 2)), away(rng, (3,)))


def channelwise(x: Any, weight: Any) -> Any:
    slopes = np.ones_like(x)
    for index in np.ndindex(x.shape):
        slopes[index] = 1 if x[index] > 0 else weight.reshape(-1)[index[1] if weight.size > 1 else 0]
    return x * slopes


def with_steps(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(X, 0.1, 20.0)
    yield Sample(X, threshold=-1.0, value=-7.5)
    yield Sample(INTEGERS, 1, 20)
    yield Sample(INTEGERS, 1.9, 20.7)
    yield Sample(np.array(0.5), 1, 2)
    yield Sample(np.zeros((2, 0)), 1, 2)
    yield Sample(np.array([np.nan, 1.0], np.float32), 1.0, 2.0)


ROWS = [
    Op(
        rectifier.leaky_relu,
        each(lambda x, negative_slope=0.01: x * (1 if x > 0 else negative_slope)),
        then(one(0.1, 2.0), Sample(X, 0.3), Sample(X, negative_slope=-0.5), Sample(X, 0.0)),
        refused("leaky_relu"),
        ("LeakyRelu",),
        dtypes="only floating",
    ),
    Op(
        rectifier.rrelu,
        each(lambda x, lower=1 / 8, upper=1 / 3, training=False: x * (1 if x > 0 else (lower + upper) / 2)),
        then(one(0.1, 2.0), Sample(X, 0.3, 0.5), Sample(X, 0.25, 0.25, True), Sample(X, lower=-0.5)),
        (
            *refused("rrelu"),
            Wrong(RuntimeError, "less than or equal to the upper bound, but they are 0.5 and 0.25", X, 0.5, 0.25),
            Wrong(RuntimeError, "rrelu: upper bound must be finite, got inf", X, 0.5, math.inf),
            Wrong(RuntimeError, "rrelu: lower bound must be finite, got nan", X, math.nan),
        ),
        ("LeakyRelu", "Mul"),
        dtypes="only floating",
    ),
    Op(
        rectifier.prelu,
        channelwise,
        channels,
        (
            Wrong(TypeError, r"prelu\(\): argument 'input' must be Tensor, not float", 1.0, np.ones(1)),
            Wrong(TypeError, r"prelu\(\): argument 'weight' must be Tensor, not float", X, 0.25),
            Wrong(RuntimeError, "prelu is not defined for int64 tensors", INTEGERS, ints(1)),
            Wrong(RuntimeError, "Type promoting not supported. Got float64 and int64", X, ints(1)),
            Wrong(RuntimeError, "`weight` to be a scalar or 1D tensor, but got: ndim = 2", X, np.ones((1, 1))),
            Wrong(RuntimeError, "parameter numbers = 2 and channel size = 3", X, np.ones(2)),
            Wrong(RuntimeError, "parameter numbers = 3 and channel size = 1", X[0], np.ones(3)),
        ),
        ("Prelu",),
        dtypes="takes two tensors of one dtype",
    ),
    Op(
        rectifier.elu,
        each(lambda x, alpha=1.0: x if x > 0 else alpha * math.expm1(x)),
        then(one(0.1, 3.0), Sample(X, 0.7), Sample(X, alpha=-1.5), Sample(FAR[FAR != 0])),
        refused("elu"),
        ("Elu", "Exp"),
        dtypes="only floating",
    ),
    Op(
        rectifier.selu,
        each(lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))),
        then(one(0.1, 3.0), Sample(FAR[FAR != 0])),
        refused("selu"),
        ("Elu",),
        dtypes="only floating",
    ),
    Op(
        rectifier.celu,
        each(lambda x, alpha=1.0: x if x > 0 else alpha * math.expm1(x / alpha)),
        then(one(0.1, 3.0), Sample(X, 0.5), Sample(X, alpha=4.0), Sample(FAR[FAR != 0])),
        (*refused("celu"), Wrong(RuntimeError, "ZeroDivisionError: alpha cannot be 0 for CELU", X, 0.0)),
        ("Elu", "Exp"),
        dtypes="only floating",
    ),
    Op(
        rectifier.hardtanh,
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
        rectifier.relu6,
        whole_or_not(lambda v: min(max(v, 0), 6)),
        then(then(one(0.2, 5.0), Sample(X + 4.5)), Sample(INTEGERS), Sample(np.array([3, 200], np.uint8))),
        (
            Wrong(TypeError, "argument 'input' must be Tensor, not float", 1.0),
            Wrong(RuntimeError, "Bool inputs not supported for relu6", FLAGS),
        ),
        ("Hardtanh",),
        dtypes="not bool",
    ),
    Op(
        rectifier.hardsigmoid,
        each(lambda x: relu6(x + 3) / 6),
        beside_kinks,
        refused("hardsigmoid"),
        ("Hardsigmoid",),
        dtypes="only floating",
        # PyTorch keeps 1/6 in float32 in the gradient of float64 too
        tolerance=(1e-9, 2e-5),
    ),
    Op(
        rectifier.hardswish,
        each(lambda x: x * relu6(x + 3) / 6),
        beside_kinks,
        refused("hardswish"),
        ("Hardswish",),
        dtypes="only floating",
    ),
    Op(
        rectifier.threshold,
        thresholded,
        with_steps,
        (
            Wrong(TypeError, r"threshold\(\): argument 'input' must be Tensor, not float", 1.0, 0.0, 0.0),
            Wrong(RuntimeError, "threshold is not defined for bool tensors", FLAGS, 0, 1),
        ),
        ("Threshold",),
        dtypes="takes two numbers; test_threshold_keeps_the_dtype",
    ),
    Op(
        rectifier.hardshrink,
        each(lambda x, lambd=0.5: x if abs(x) > lambd else 0.0),
        then(one(0.6, 3.0), Sample(X, 0.3), Sample(X, lambd=2.0), Sample(X, 0)),
        refused("hardshrink"),
        ("Hardshrink",),
        dtypes="only floating",
    ),
    Op(
        rectifier.softshrink,
        each(lambda x, lambd=0.5: math.copysign(max(abs(x) - lambd, 0.0), x)),
        then(one(0.6, 3.0), Sample(X, 0.3), Sample(X, lambd=2.0), Sample(X, 0)),
        (
            *refused("softshrink"),
            Wrong(RuntimeError, "lambda must be in range", X, -0.1),
            Wrong(RuntimeError, "found nan", X, math.nan),
        ),
        ("Softshrink",),
        dtypes="only floating",
    ),
]
FAMILY = rectifier
EXEMPT: list[Any] = []

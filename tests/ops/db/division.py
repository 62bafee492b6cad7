from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import division

from .elementwise import FLAGS, INTEGERS, NOTHING, SHAPES, elements, ints, two
from .row import Op, Sample, Wrong


def quotients(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two()(rng)
    for mode in ("floor", "trunc"):
        yield Sample(NINES, np.array([4.0, -4.0, 2.5]), rounding_mode=mode)
        yield Sample(INTEGERS, ints(2, -2, 3), rounding_mode=mode)
        yield Sample(INTEGERS, -3, rounding_mode=mode)
        yield Sample(np.array(-7), np.array(2), rounding_mode=mode)
        yield Sample(NOTHING, 2.0, rounding_mode=mode)


# no quotient of these is near a whole number, where finite differences would see the jump
NINES = np.array([[9.0, -9.0, 9.0], [-9.0, 9.5, -9.5]])


def numbers(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(NINES, np.array([4.0, -4.0, 2.5]))
    yield Sample(NINES, -2.5)
    yield Sample(9.0, np.array([4.0, -4.0, 2.5]))
    yield Sample(INTEGERS, ints(2, -2, 3))
    yield Sample(INTEGERS, np.array([[2], [-3]]))
    yield Sample(-7, ints(2, -2, 3))
    yield Sample(np.array(-7.5), np.array(2.0))
    yield Sample(np.zeros((0, 3)), np.ones(3))
    yield Sample(np.array([-128, 127, -1], np.int8), np.array([-1, -1, 127], np.int8))


def exact(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """From a function of Python numbers, which for integers has to stay exact; the result keeps the narrower dtype."""

    def reference(a: Any, b: Any, **unused: Any) -> Any:
        arrays = [np.asarray(x) for x in (a, b)]
        pairs = np.broadcast(*arrays)
        dtype = next(x.dtype for x, given in zip(arrays, (a, b), strict=True) if isinstance(given, np.ndarray))
        out = [function(x.item(), y.item()) for x, y in pairs]
        if dtype.kind == "f":
            return np.array(out, dtype).reshape(pairs.shape)
        return np.array(out, np.int64).astype(dtype).reshape(pairs.shape)

    return reference


def quotient(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        return elements(lambda x, y: x / y)(a, b)
    return exact((lambda x, y: x // y) if rounding_mode == "floor" else truncated)(a, b)


def truncated(x: Any, y: Any) -> Any:
    return int(abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1)


def rest_of_truncation(x: Any, y: Any) -> Any:
    return math.fmod(x, y)


def pairs_of_integers(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(INTEGERS, ints(6, 4, 0))
    yield Sample(np.array(-12), np.array(18))
    yield Sample(np.zeros((0, 3), np.int64), ints(1, 2, 3))
    yield Sample(np.array([6, 200], np.uint8), np.array([4, 150], np.uint8))


def by_zero(**more: Any) -> tuple[Wrong, ...]:
    return (
        Wrong(RuntimeError, "ZeroDivisionError", INTEGERS, ints(1, 0, 2), **more),
        Wrong(RuntimeError, "ZeroDivisionError", INTEGERS, 0, **more),
        Wrong(RuntimeError, "is not defined for two bool tensors", FLAGS, FLAGS, **more),
    )


def needs_grad(x: Any) -> bool:
    return getattr(x, "requires_grad", False)


ROWS = [
    Op(
        division.div,
        quotient,
        quotients,
        (
            Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
            Wrong(RuntimeError, "one of None, 'trunc', or 'floor' but found 'up'", 1.0, np.ones(2), rounding_mode="up"),
            *by_zero(rounding_mode="floor"),
            *by_zero(rounding_mode="trunc"),
        ),
        ("Div", "DivFloor", "DivTrunc", "Zeros"),
        dtypes="common, floating",
        broadcasts=True,
    ),
    Op(
        division.floor_divide,
        exact(lambda x, y: x // y),
        numbers,
        (Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)), *by_zero()),
        ("FloorDivide",),
        differentiable=False,
        dtypes="common, not bool",
        broadcasts=True,
    ),
    Op(
        division.remainder,
        exact(lambda x, y: x % y),
        numbers,
        (Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)), *by_zero()),
        ("Remainder", "DivFloor"),
        # of a number by a tensor PyTorch has no derivative
        torch=lambda torch, a, b: torch.remainder(torch.as_tensor(a) if needs_grad(b) else a, b),
        dtypes="common, not bool",
        broadcasts=True,
    ),
    Op(
        division.fmod,
        exact(rest_of_truncation),
        numbers,
        (Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)), *by_zero()),
        ("Fmod", "DivTrunc"),
        # which takes no number first
        torch=lambda torch, a, b: torch.fmod(torch.as_tensor(a) if np.ndim(b) else a, b),
        dtypes="common, not bool",
        broadcasts=True,
    ),
    *(
        Op(
            getattr(division, name),
            exact(function),
            pairs_of_integers,
            (
                Wrong(RuntimeError, f"{name} is not defined for float64 tensors", np.ones(2), ints(1, 2)),
                Wrong(RuntimeError, f"{name} is not defined for bool tensors", FLAGS, FLAGS),
                Wrong(TypeError, rf"{name}\(\): argument 'other' \(position 2\) must be Tensor, not int", INTEGERS, 2),
                Wrong(RuntimeError, SHAPES, ints(1, 2, 3), ints(1, 2)),
            ),
            (name.capitalize(),),
            differentiable=False,
            dtypes="common, only integers",
            broadcasts=True,
        )
        for name, function in {"gcd": math.gcd, "lcm": math.lcm}.items()
    ),
]
FAMILY = division
EXEMPT: list[Any] = []

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import comparison

from .elementwise import FLAGS, INTEGERS, NOTHING, SHAPES, away, ints
from .row import Op, Sample, Wrong


def logical(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands: np.asarray(function(*operands), dtype=np.bool_)


def equal_ones(rng: np.random.Generator) -> Iterator[Sample]:
    """Some elements equal, as comparisons need."""
    a = away(rng, (2, 3))
    b = np.where(FLAGS, a, away(rng, (2, 3)))
    yield Sample(a, b)
    yield Sample(a, 0.5)
    yield Sample(np.float64(0.5) + np.zeros(()), np.array(0.5))
    yield Sample(np.zeros((0, 3)), np.zeros(3))
    yield Sample(INTEGERS, ints(3, 0, -5))


def bits(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(INTEGERS, ints(6, 3, -1))
    yield Sample(FLAGS, FLAGS[::-1].copy())
    yield Sample(INTEGERS, 5)
    yield Sample(np.array(5), np.array(3))
    yield Sample(np.zeros((0, 3), np.int64), ints(1, 2, 3))


def shifts(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(INTEGERS, ints(1, 3, 0))
    yield Sample(INTEGERS, 2)
    yield Sample(5, ints(1, 2, 0))
    yield Sample(FLAGS, 3)
    yield Sample(np.array(-5), np.array(1))
    yield Sample(ints(7, -7, 7, -7), ints(-1, 64, 1000, -5))
    yield Sample(np.zeros((0, 3), np.int64), ints(1, 2, 3))


def shifted(step: Callable[[int, int], int], beyond: Callable[[int], int]) -> Callable[..., Any]:
    """From a function of Python integers: ``step`` for a shift within the 64 bits, else ``beyond``."""

    def reference(a: Any, b: Any) -> Any:
        pairs = np.broadcast(np.asarray(a), np.asarray(b))
        out = [step(int(x), int(y)) if 0 <= y < 64 else beyond(int(x)) for x, y in pairs]
        return np.array(out, np.int64).reshape(pairs.shape)

    return reference


def not_finite(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(np.array([[1.0, np.nan, -np.inf], [np.inf, -0.0, -3.0]]))
    yield Sample(np.array(np.nan))
    yield Sample(NOTHING)
    yield Sample(INTEGERS)
    yield Sample(FLAGS)
    yield Sample(np.array([0, 255], np.uint8))


def truths(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(np.array([[0.0, 1.5, np.nan], [-0.0, -2.0, 0.0]]), np.array([0.0, 2.0, 0.0]))
    yield Sample(INTEGERS, FLAGS)
    yield Sample(np.array(0.5), np.array(0))
    yield Sample(NOTHING, np.zeros((2, 1, 1)))


def truth(function: Callable[[bool, bool], bool]) -> Callable[..., Any]:
    def reference(a: Any, b: Any) -> Any:
        pairs = np.broadcast(a, b)
        return np.array([function(bool(x), bool(y)) for x, y in pairs], np.bool_).reshape(pairs.shape)

    return reference


def nearby(rng: np.random.Generator) -> Iterator[Sample]:
    a = away(rng, (2, 3))
    yield Sample(a, a + 1e-7 * np.array([[0.0, 1.0, 1000.0], [0.1, -100.0, -1.0]]))
    yield Sample(a, np.float64(0.5) + np.zeros(3), 0.5, 0.25)
    edges = np.array([np.nan, np.inf, -np.inf, np.inf, 1.0])
    yield Sample(edges, np.array([np.nan, np.inf, np.inf, 1.0, 1.0]))
    yield Sample(edges, np.array([np.nan, np.inf, np.inf, 1.0, 1.0]), equal_nan=True, atol=np.inf)
    yield Sample(INTEGERS, ints(3, -3, 1), rtol=0.2, atol=0)
    yield Sample(INTEGERS, ints(3, -3, 1), rtol=0, atol=1)
    yield Sample(INTEGERS, ints(3, -3, 1), rtol=0, atol=0)
    yield Sample(FLAGS, FLAGS[::-1].copy())
    yield Sample(np.array([250, 3], np.uint8), np.array([2, 5], np.uint8), atol=5)
    yield Sample(np.array(1.0), np.array(1.0))
    yield Sample(NOTHING, NOTHING)


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    def one(x: float, y: float) -> bool:
        if x != x or y != y:
            return equal_nan and x != x and y != y
        return x == y or (abs(x - y) <= atol + abs(rtol * y) and abs(x - y) != np.inf)

    pairs = np.broadcast(a, b)
    return np.array([one(float(x), float(y)) for x, y in pairs], np.bool_).reshape(pairs.shape)


ROWS = [
    *(
        Op(
            getattr(comparison, name),
            logical(function),
            equal_ones,
            (Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),),
            (name.capitalize(),),
            differentiable=False,
            dtypes="common to bool",
            broadcasts=True,
        )
        for name, function in {
            "eq": lambda a, b: ~np.asarray((a < b) | (a > b)),
            "ne": lambda a, b: (a < b) | (a > b),
            "lt": lambda a, b: a - b < 0,
            "le": lambda a, b: a - b <= 0,
            "gt": lambda a, b: a - b > 0,
            "ge": lambda a, b: a - b >= 0,
        }.items()
    ),
    Op(
        comparison.isclose,
        close,
        nearby,
        (
            Wrong(RuntimeError, "float64 did not match int64", np.zeros(2), ints(1, 2)),
            Wrong(RuntimeError, "rtol must be greater than or equal to zero, but got -1", np.ones(2), np.ones(2), -1),
            Wrong(RuntimeError, "atol must be greater than or equal to zero", np.ones(2), np.ones(2), atol=np.nan),
            Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
            Wrong(TypeError, r"argument 'other' \(position 2\) must be Tensor, not float", np.zeros(3), 1.0),
        ),
        ("Isclose",),
        differentiable=False,
        dtypes="takes two tensors of one dtype",
        broadcasts=True,
    ),
    *(
        Op(
            getattr(comparison, f"bitwise_{name}"),
            function,
            bits,
            (
                Wrong(
                    RuntimeError,
                    f"bitwise_{name} is not defined for floating-point tensors",
                    np.zeros(3),
                    np.zeros(3),
                ),
                Wrong(RuntimeError, SHAPES, ints(1, 2, 3), ints(1, 2)),
            ),
            (f"Bitwise{name.capitalize()}",),
            differentiable=False,
            dtypes="common, not floating",
            broadcasts=True,
        )
        for name, function in {
            "and": lambda a, b: a & b,
            "or": lambda a, b: a | b,
            "xor": lambda a, b: (a | b) & ~(a & b),
        }.items()
    ),
    Op(
        comparison.bitwise_not,
        lambda x: x ^ (True if x.dtype == bool else -1),
        lambda rng: iter([Sample(INTEGERS), Sample(FLAGS), Sample(np.array(4)), Sample(np.zeros((2, 0), np.int64))]),
        (
            Wrong(RuntimeError, "not defined for floating-point tensors", np.zeros(3)),
            Wrong(TypeError, "argument 'input' must be Tensor, not int", 3),
        ),
        ("BitwiseNot",),
        differentiable=False,
        dtypes="not floating",
    ),
    Op(
        comparison.bitwise_left_shift,
        shifted(lambda a, b: a * 2**b, lambda a: 0),
        shifts,
        (
            Wrong(RuntimeError, "bitwise_left_shift is not defined for floating-point tensors", np.zeros(3), 1),
            Wrong(RuntimeError, "bitwise_left_shift is not defined for two bool tensors", FLAGS, FLAGS),
            Wrong(RuntimeError, SHAPES, ints(1, 2, 3), ints(1, 2)),
        ),
        ("BitwiseLeftShift",),
        differentiable=False,
        dtypes="common, only integers",
        broadcasts=True,
    ),
    Op(
        comparison.bitwise_right_shift,
        shifted(lambda a, b: a // 2**b, lambda a: -1 if a < 0 else 0),
        shifts,
        (
            Wrong(RuntimeError, "bitwise_right_shift is not defined for floating-point tensors", ints(1, 2), 1.0),
            Wrong(RuntimeError, "bitwise_right_shift is not defined for two bool tensors", FLAGS, True),
            Wrong(RuntimeError, SHAPES, ints(1, 2, 3), ints(1, 2)),
        ),
        ("BitwiseRightShift",),
        differentiable=False,
        dtypes="common, only integers",
        broadcasts=True,
    ),
    *(
        Op(
            getattr(comparison, f"logical_{name}"),
            truth(function),
            truths,
            (
                Wrong(TypeError, rf"logical_{name}\(\): argument 'other' \(position 2\)", np.zeros(3), 1),
                Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
            ),
            (f"Logical{name.capitalize()}",),
            differentiable=False,
            dtypes="common to bool",
            broadcasts=True,
        )
        for name, function in {
            "and": lambda a, b: a and b,
            "or": lambda a, b: a or b,
            "xor": lambda a, b: a is not b,
        }.items()
    ),
    *(
        Op(
            getattr(comparison, name),
            logical(function),
            not_finite,
            (Wrong(TypeError, r"\(\): argument 'input' must be Tensor, not float", 1.0),),
            (primitive,),
            differentiable=False,
            dtypes="to bool",
        )
        for name, primitive, function in (
            ("isnan", "Isnan", lambda x: x != x),
            ("isinf", "Isinf", lambda x: (x == np.inf) | (x == -np.inf)),
            ("isfinite", "Isfinite", lambda x: (x > -np.inf) & (x < np.inf)),
            ("isposinf", "Isposinf", lambda x: ~np.isfinite(x) & (x > 0)),
            ("isneginf", "Isneginf", lambda x: ~np.isfinite(x) & (x < 0)),
            ("isreal", "Isreal", lambda x: (x == x) | True),
            ("signbit", "Signbit", lambda x: np.copysign(1.0, x.astype(np.float64)) < 0),
            ("logical_not", "LogicalNot", lambda x: x == 0),
        )
    ),
]
FAMILY = comparison
EXEMPT: list[Any] = []

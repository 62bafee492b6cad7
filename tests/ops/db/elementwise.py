from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import elementwise

from .row import Exempt, Op, Sample, Samples, Wrong

NOTHING = np.zeros((2, 0, 3))
INTEGERS = np.array([[3, -2, 0], [1, 7, -5]])
FLAGS = np.array([[True, False, True], [False, False, True]])


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def away(rng: np.random.Generator, size: tuple[int, ...], low: float = 0.3, high: float = 2.0) -> Any:
    """Of either sign and at least ``low`` from 0, where many derivatives jump."""
    return rng.uniform(low, high, size) * rng.choice([-1.0, 1.0], size)


def one(low: float, high: float, signed: bool = True) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size in ((2, 3), (), (4,), (0,), (2, 0, 3)):
            yield Sample(away(rng, size, low, high) if signed else rng.uniform(low, high, size))

    return samples


def two(low: float = 0.3, high: float = 2.0, signed: bool = True, numbers: bool = True) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        def draw(size: tuple[int, ...]) -> Any:
            return away(rng, size, low, high) if signed else rng.uniform(low, high, size)

        for a, b in (((2, 3), (2, 3)), ((), ()), ((0,), (0,)), ((2, 0), (1, 1))):
            yield Sample(draw(a), draw(b))
        if numbers:
            yield Sample(draw((3,)), 2)
            yield Sample(draw((3,)), 0.75)
            yield Sample(1.5, draw((3,)))

    return samples


def elements(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reference from a function of Python numbers, element by element."""

    def reference(*operands: Any) -> Any:
        arrays = np.broadcast_arrays(*operands)
        out = [function(*(x.item() for x in values)) for values in zip(*(a.reshape(-1) for a in arrays), strict=True)]
        return np.array(out, type(out[0]) if out and isinstance(out[0], bool) else np.float64).reshape(arrays[0].shape)

    return reference


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


def pow_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(0.4, 2.0, signed=False, numbers=False)(rng)
    for exponent in (2, 3, 0, 1, -1, 0.5, 2.5, -2.0):
        yield Sample(rng.uniform(0.4, 2.0, (3,)), exponent)
    yield Sample(2, away(rng, (3,)))
    yield Sample(0.5, away(rng, ()))


def limits(rng: np.random.Generator) -> Iterator[Sample]:
    x = np.array([[-2.0, -0.7, 0.1], [0.4, 0.9, 3.0]])
    yield Sample(x, -0.5, 0.5)
    yield Sample(x, min=0.0)
    yield Sample(x, max=0.6)
    yield Sample(x, 2.0, -2.0)
    yield Sample(np.array(5.0), 0, 1)
    yield Sample(NOTHING, 0, 1)


def choices(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(FLAGS, away(rng, (2, 3)), away(rng, (2, 3)))
    yield Sample(FLAGS, away(rng, (3,)), away(rng, (2, 1)))
    yield Sample(FLAGS, away(rng, (2, 3)), 0.5)
    yield Sample(FLAGS, -1.0, away(rng, ()))
    yield Sample(np.array(True), away(rng, ()), away(rng, ()))
    yield Sample(np.zeros((2, 0, 3), bool), NOTHING, NOTHING)


def bits(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(INTEGERS, ints(6, 3, -1))
    yield Sample(FLAGS, FLAGS[::-1].copy())
    yield Sample(INTEGERS, 5)
    yield Sample(np.array(5), np.array(3))
    yield Sample(np.zeros((0, 3), np.int64), ints(1, 2, 3))


def not_finite(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(np.array([[1.0, np.nan, -np.inf], [np.inf, 0.0, -3.0]]))
    yield Sample(np.array(np.nan))
    yield Sample(NOTHING)
    yield Sample(INTEGERS)


def sizes(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(away(rng, (3, 1)), (2, 3, 4))
    yield Sample(away(rng, ()), (2, 2))
    yield Sample(away(rng, ()), ())
    yield Sample(NOTHING, (5, 2, 0, 3))
    yield Sample(away(rng, (1, 3)), (0, 3))


def expansions(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(away(rng, (3, 1)), 2, 3, 4)
    yield Sample(away(rng, (3, 1)), (-1, 4))
    yield Sample(away(rng, ()), (2,))
    yield Sample(np.zeros((0, 1)), -1, 3)


def conversions(rng: np.random.Generator) -> Iterator[Sample]:
    for size in ((2, 3), (), (0,)):
        yield Sample(away(rng, size), np.dtype(np.float64))
        yield Sample(away(rng, size), dtype=np.dtype(np.float32))
        yield Sample(away(rng, size), np.dtype(np.int32))
    yield Sample(INTEGERS, np.dtype(np.float64))
    yield Sample(away(rng, (2,)), "cpu")


def converted(x: Any, dtype: Any = None) -> Any:
    return x if isinstance(dtype, str) else x.astype(dtype)


def torch_expand(torch: Any, x: Any, *size: Any) -> Any:
    return x.expand(*size)


SHAPES = "do not broadcast"

ROWS = [
    # two operands
    Op(
        elementwise.add,
        lambda a, b, alpha=1: a + alpha * b,
        lambda rng: [*two()(rng), Sample(away(rng, (2,)), away(rng, (3, 1)), alpha=-0.5)],
        (
            Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
            Wrong(TypeError, "expected a Tensor or a number, not str", np.zeros(3), "1"),
        ),
        ("Add", "SumToSize"),
        dtypes="common",
        broadcasts=True,
    ),
    Op(
        elementwise.sub,
        lambda a, b, alpha=1: a - alpha * b,
        lambda rng: [*two()(rng), Sample(away(rng, (2,)), away(rng, (3, 1)), alpha=3)],
        (
            Wrong(RuntimeError, SHAPES, np.zeros((2, 3)), np.zeros(2)),
            Wrong(RuntimeError, "two bool tensors is not supported", FLAGS, FLAGS),
        ),
        ("Sub", "Neg"),
        dtypes="common, not bool",
        broadcasts=True,
    ),
    Op(
        elementwise.mul,
        elements(lambda a, b: a * b),
        two(),
        (Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),),
        ("Mul",),
        dtypes="common",
        broadcasts=True,
    ),
    Op(
        elementwise.div,
        elements(lambda a, b: a / b),
        two(),
        (Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),),
        ("Div",),
        dtypes="common, floating",
        broadcasts=True,
    ),
    Op(
        elementwise.pow,
        elements(math.pow),
        pow_samples,
        (
            Wrong(RuntimeError, "Integers to negative integer powers are not allowed", INTEGERS, -1),
            Wrong(RuntimeError, SHAPES, np.ones(3), np.ones(2)),
        ),
        ("Pow",),
        dtypes="common",
        broadcasts=True,
    ),
    Op(
        elementwise.maximum,
        elements(max),
        two(numbers=False),
        (Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),),
        ("Maximum",),
        dtypes="common",
        broadcasts=True,
    ),
    Op(
        elementwise.minimum,
        elements(min),
        two(numbers=False),
        (Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),),
        ("Minimum",),
        dtypes="common",
        broadcasts=True,
    ),
    # one operand
    Op(
        elementwise.neg,
        elements(lambda x: -x),
        one(0.1, 2.0),
        (Wrong(RuntimeError, "on a bool tensor is not supported", FLAGS),),
        ("Neg",),
        dtypes="not bool",
    ),
    Op(
        elementwise.abs,
        elements(abs),
        one(0.1, 2.0),
        (Wrong(TypeError, r"abs\(\): argument 'input' must be Tensor, not int", 3),),
        ("Abs", "Sign"),
        dtypes="same",
    ),
    Op(
        elementwise.sign,
        elements(lambda x: (x > 0) - (x < 0)),
        one(0.1, 2.0),
        (Wrong(TypeError, "must be Tensor, not float", 3.0),),
        ("Sign",),
    ),
    Op(
        elementwise.exp,
        elements(math.exp),
        one(0.1, 2.0),
        (Wrong(TypeError, r"exp\(\): argument 'input' must be Tensor", 1.0),),
        ("Exp",),
        dtypes="floating",
    ),
    Op(
        elementwise.log,
        elements(math.log),
        one(0.2, 3.0, signed=False),
        (Wrong(TypeError, r"log\(\): argument 'input' must be Tensor", 1.0),),
        ("Log",),
        dtypes="floating",
    ),
    Op(
        elementwise.sqrt,
        elements(math.sqrt),
        one(0.2, 3.0, signed=False),
        (Wrong(TypeError, r"sqrt\(\): argument 'input' must be Tensor", 1.0),),
        ("Sqrt",),
        dtypes="floating",
    ),
    Op(
        elementwise.sin,
        elements(math.sin),
        one(0.0, 7.0),
        (Wrong(TypeError, r"sin\(\): argument 'input' must be Tensor", 1.0),),
        ("Sin", "Cos"),
        dtypes="floating",
    ),
    Op(
        elementwise.cos,
        elements(math.cos),
        one(0.0, 7.0),
        (Wrong(TypeError, r"cos\(\): argument 'input' must be Tensor", 1.0),),
        ("Cos", "Sin"),
        dtypes="floating",
    ),
    Op(
        elementwise.tanh,
        elements(math.tanh),
        one(0.0, 3.0),
        (Wrong(TypeError, r"tanh\(\): argument 'input' must be Tensor", 1.0),),
        ("Tanh",),
        dtypes="floating",
    ),
    Op(
        elementwise.sigmoid,
        elements(lambda x: 1 / (1 + math.exp(-x))),
        one(0.0, 9.0),
        (Wrong(TypeError, r"sigmoid\(\): argument 'input' must be Tensor", 1.0),),
        ("Sigmoid",),
        dtypes="floating",
    ),
    Op(
        elementwise.relu,
        elements(lambda x: x if x > 0 else 0.0),
        one(0.1, 2.0),
        (
            Wrong(TypeError, r"relu\(\): argument 'input' must be Tensor", 1.0),
            Wrong(RuntimeError, "Boolean inputs not supported for relu", FLAGS),
        ),
        ("Relu",),
        dtypes="not bool",
    ),
    Op(
        elementwise.square,
        elements(lambda x: x * x),
        one(0.1, 2.0),
        (Wrong(TypeError, "expected a Tensor or a number, not str", "1"),),
        ("Pow",),
        dtypes="as with an int",
    ),
    Op(
        elementwise.clone,
        lambda x: x,
        one(0.1, 2.0),
        (Wrong(TypeError, r"clone\(\): argument 'input' must be Tensor", 1.0),),
        ("Clone",),
    ),
    Op(
        elementwise.clamp,
        lambda x, min=-math.inf, max=math.inf: (
            np.array([max if v > max else min if v < min else v for v in x.reshape(-1).tolist()], np.float64).reshape(
                x.shape
            )
            if min <= max
            else np.full(x.shape, max)
        ),
        limits,
        (Wrong(RuntimeError, "At least one of 'min' or 'max' must not be None", np.zeros(2)),),
        ("Clamp",),
        dtypes="clamp takes its limits as numbers; test_promotion_of_clamp",
    ),
    Op(
        elementwise.where,
        lambda condition, a, b: np.where(condition, a, b),
        choices,
        (
            Wrong(RuntimeError, "expected condition to be a boolean tensor, but got float64", np.zeros(2), 1.0, 2.0),
            Wrong(RuntimeError, "expected condition to be a boolean tensor, but got bool", True, np.zeros(2), 2.0),
            Wrong(RuntimeError, r"the shapes \[2, 3\], \[2\], \[2\]", FLAGS, np.zeros(2), np.zeros(2)),
        ),
        ("Where",),
        dtypes="the condition comes first; test_promotion_of_where",
    ),
    # copies and shapes
    Op(
        elementwise.broadcast_to,
        lambda x, size: x * np.ones(size),
        sizes,
        (
            Wrong(RuntimeError, "expanded size of the tensor", np.zeros(3), (2,)),
            Wrong(RuntimeError, "expanded size of the tensor", np.zeros((2, 3)), (3,)),
        ),
        ("Expand", "SumToSize"),
        dtypes="takes a size; test_views_keep_the_dtype",
    ),
    Op(
        elementwise.expand,
        lambda x, *size: x * np.ones([n if n != -1 else 1 for n in (size if len(size) > 1 else size[0])]),
        expansions,
        (
            Wrong(RuntimeError, "must be greater or equal to the number of dimensions", np.zeros((2, 3)), 3),
            Wrong(RuntimeError, "expanded size", np.zeros(3), -1, 3),
        ),
        ("Expand",),
        torch=torch_expand,
        dtypes="takes a size; test_views_keep_the_dtype",
    ),
    Op(
        elementwise.to,
        converted,
        conversions,
        (Wrong(RuntimeError, "device 'cuda' does not exist here", np.zeros(2), "cuda"),),
        ("ToCopy",),
        torch=lambda torch, x, *args, **kwargs: x.to(*args, **kwargs),
        dtypes="takes the dtype as an argument",
        tolerance=(1e-7, 1e-7),
    ),
    # no gradient
    *(
        Op(
            getattr(elementwise, name),
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
    *(
        Op(
            getattr(elementwise, f"bitwise_{name}"),
            function,
            bits,
            (
                Wrong(RuntimeError, "not defined for floating-point tensors", np.zeros(3), np.zeros(3)),
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
        elementwise.bitwise_not,
        lambda x: x ^ (True if x.dtype == bool else -1),
        lambda rng: iter([Sample(INTEGERS), Sample(FLAGS), Sample(np.array(4)), Sample(np.zeros((2, 0), np.int64))]),
        (Wrong(RuntimeError, "not defined for floating-point tensors", np.zeros(3)),),
        ("BitwiseNot",),
        differentiable=False,
        dtypes="not floating",
    ),
    *(
        Op(
            getattr(elementwise, name),
            logical(function),
            not_finite,
            (Wrong(TypeError, rf"{name}\(\): argument 'input' must be Tensor", 1.0),),
            (name.capitalize(),),
            differentiable=False,
            dtypes="to bool",
        )
        for name, function in {
            "isnan": lambda x: x != x,
            "isinf": lambda x: (x == np.inf) | (x == -np.inf),
            "isfinite": lambda x: (x > -np.inf) & (x < np.inf),
        }.items()
    ),
]
FAMILY = elementwise
EXEMPT = [
    Exempt(elementwise.sum_to, "the adjoint of broadcasting, for VJPs; every row that broadcasts uses it"),
]

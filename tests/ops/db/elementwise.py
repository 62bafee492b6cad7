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


def with_alpha(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two()(rng)
    yield Sample(away(rng, (2,)), away(rng, (3, 1)), alpha=-0.5)
    yield Sample(away(rng, (2,)), away(rng, (3, 1)), alpha=3)
    yield Sample(away(rng, (3,)), INTEGERS, alpha=2.5)
    yield Sample(INTEGERS, ints(4, 5, 6), alpha=2)


def torch_rsub(torch: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    if isinstance(a, (int, float)) and not isinstance(a, bool):  # takes no number first
        a = torch.as_tensor(a, dtype=b.dtype if b.is_floating_point() or isinstance(a, int) else None)
    return torch.rsub(a, b, alpha=alpha)


def choices(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(FLAGS, away(rng, (2, 3)), away(rng, (2, 3)))
    yield Sample(FLAGS, away(rng, (3,)), away(rng, (2, 1)))
    yield Sample(FLAGS, away(rng, (2, 3)), 0.5)
    yield Sample(FLAGS, -1.0, away(rng, ()))
    yield Sample(np.array(True), away(rng, ()), away(rng, ()))
    yield Sample(np.zeros((2, 0, 3), bool), NOTHING, NOTHING)
    yield Sample(FLAGS, 1, 2)
    yield Sample(FLAGS, INTEGERS, 7)
    yield Sample(FLAGS)
    yield Sample(INTEGERS)
    yield Sample(np.array(True))
    yield Sample(np.array([0.0, -1.5, np.nan], np.float32))


def chosen(condition: Any, a: Any = None, b: Any = None) -> Any:
    if a is None:
        return tuple(np.argwhere(np.atleast_1d(condition)).T)
    return np.where(condition, a, b)


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


def summations(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 1, 3))
    for size in ((1, 3), (2, 1, 1), (3,), (1,), (2, 1, 3)):
        yield Sample(x, *size)
    yield Sample(x, ())
    yield Sample(np.asarray(rng.standard_normal(())), ())
    yield Sample(np.zeros((0, 3)), 3)


def summed_to(x: Any, *size: Any) -> Any:
    """Element by element, each added where broadcasting would have read it."""
    shape = size[0] if size and isinstance(size[0], tuple) else size
    out = np.zeros(shape)
    for place in np.ndindex(x.shape):
        target = place[x.ndim - len(shape) :]
        out[tuple(0 if n == 1 else i for i, n in zip(target, shape, strict=True))] += x[place]
    return out


ROWS = [
    # two operands
    Op(
        elementwise.add,
        lambda a, b, alpha=1: a + alpha * b,
        with_alpha,
        (
            Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
            Wrong(TypeError, "expected a Tensor or a number, not str", np.zeros(3), "1"),
            Wrong(RuntimeError, "alpha must not be a floating point number, but it is 1.5", INTEGERS, 2, alpha=1.5),
            Wrong(RuntimeError, "Boolean alpha only supported for Boolean results", INTEGERS, 2, alpha=True),
            Wrong(TypeError, "argument 'alpha' must be Number, not str", INTEGERS, 2, alpha="2"),
        ),
        ("Add", "SumToSize", "Times"),
        dtypes="common",
        broadcasts=True,
    ),
    *(
        Op(
            op,
            function,
            with_alpha,
            (
                Wrong(RuntimeError, SHAPES, np.zeros((2, 3)), np.zeros(2)),
                Wrong(RuntimeError, "two bool tensors is not supported", FLAGS, FLAGS),
                Wrong(RuntimeError, "with a bool tensor is not supported", np.ones(3), FLAGS),
                Wrong(RuntimeError, "with a bool tensor is not supported", FLAGS, 1.5),
                Wrong(RuntimeError, "alpha must not be a floating point number", INTEGERS, INTEGERS, alpha=1.0),
            ),
            ("Sub", "Neg"),
            torch=torch_function,
            dtypes="common, not bool",
            broadcasts=True,
        )
        for op, function, torch_function in (
            (elementwise.sub, lambda a, b, alpha=1: a - alpha * b, ""),
            (elementwise.rsub, lambda a, b, alpha=1: b - alpha * a, torch_rsub),
        )
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
    # one operand
    Op(
        elementwise.neg,
        elements(lambda x: -x),
        one(0.1, 2.0),
        (
            Wrong(RuntimeError, "on a bool tensor is not supported", FLAGS),
            Wrong(TypeError, r"neg\(\): argument 'input' must be Tensor, not int", 3),
        ),
        ("Neg",),
        dtypes="not bool",
    ),
    Op(
        elementwise.positive,
        lambda x: x,
        one(0.1, 2.0),
        (
            Wrong(RuntimeError, "operator, on a bool tensor is not supported", FLAGS),
            Wrong(TypeError, r"positive\(\): argument 'input' must be Tensor, not int", 3),
        ),
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
        ("Sign", "Zeros"),
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
        elementwise.clone,
        lambda x: x,
        one(0.1, 2.0),
        (Wrong(TypeError, r"clone\(\): argument 'input' must be Tensor", 1.0),),
        ("Clone",),
    ),
    Op(
        elementwise.where,
        chosen,
        choices,
        (
            Wrong(RuntimeError, "expected condition to be a boolean tensor, but got float64", np.zeros(2), 1.0, 2.0),
            Wrong(RuntimeError, "expected condition to be a boolean tensor, but got bool", True, np.zeros(2), 2.0),
            Wrong(RuntimeError, r"the shapes \[2, 3\], \[2\], \[2\]", FLAGS, np.zeros(2), np.zeros(2)),
            Wrong(TypeError, "a condition alone, or with both input and other", FLAGS, np.zeros(2)),
            Wrong(TypeError, r"where\(\): argument 'condition' must be Tensor, not bool", True),
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
            Wrong(RuntimeError, r"the number of sizes provided \(1\) must be greater", np.zeros((2, 3)), (3,)),
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
        elementwise.sum_to_size,
        summed_to,
        summations,
        (Wrong(RuntimeError, r"size \[2\] is not expandable to size \[2, 3\]", np.zeros((2, 3)), 2),),
        ("SumToSize", "Expand"),
        torch=lambda torch, x, *size: x.sum_to_size(*size),
        dtypes="takes a size; integers stay what they are",
    ),
    Op(
        elementwise.to,
        converted,
        conversions,
        (Wrong(RuntimeError, "device 'cuda' does not exist here", np.zeros(2), "cuda"),),
        ("ToCopy", "ToIntegral"),
        torch=lambda torch, x, *args, **kwargs: x.to(*args, **kwargs),
        dtypes="takes the dtype as an argument",
        tolerance=(1e-7, 1e-7),
    ),
]
FAMILY = elementwise
EXEMPT = [
    Exempt(elementwise.sum_to, "the adjoint of broadcasting, for VJPs; every row that broadcasts uses it"),
]

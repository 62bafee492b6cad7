from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import fused

from .elementwise import FLAGS, INTEGERS, SHAPES, away, ints
from .row import Op, Sample, Wrong


def triples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(away(rng, (2, 3)), away(rng, (2, 3)), away(rng, (2, 3)))
    yield Sample(away(rng, (3,)), away(rng, (2, 1)), away(rng, (1, 3)), value=-0.5)
    yield Sample(away(rng, (2, 3)), away(rng, ()), away(rng, (3,)), value=2)
    yield Sample(away(rng, ()), away(rng, ()), away(rng, ()), value=np.float64(0.25))
    yield Sample(np.zeros((0, 3)), np.zeros((1, 3)), np.ones(3))


def products(rng: np.random.Generator) -> Iterator[Sample]:
    yield from triples(rng)
    yield Sample(INTEGERS, ints(2, 3, 4), np.array([[5], [-1]]), value=2)
    yield Sample(INTEGERS, ints(2, 3, 4), ints(1, 1, -1), value=2.75)
    yield Sample(np.array([3, 250], np.uint8), np.array([2, 4], np.uint8), np.array([1, 2], np.uint8), value=-1)


def product(x: Any, a: Any, b: Any, value: Any = 1) -> Any:
    value = value if x.dtype.kind == "f" else int(value)
    cells = [v + value * p * q for v, p, q in np.broadcast(x.astype(object), a.astype(object), b.astype(object))]
    shape = np.broadcast_shapes(x.shape, a.shape, b.shape)
    return (np.array(cells, np.float64) if x.dtype.kind == "f" else np.array(cells, np.int64).astype(x.dtype)).reshape(
        shape
    )


def ways(rng: np.random.Generator) -> Iterator[Sample]:
    for weight in (0.0, 0.25, 0.75, 1.0, -0.5, 2):
        yield Sample(away(rng, (2, 3)), away(rng, (3,)), weight)
    yield Sample(away(rng, (2, 1)), away(rng, (3,)), np.array([0.1, 0.6, 1.5]))
    yield Sample(away(rng, (2,)), away(rng, (2,)), np.array(0.7))
    yield Sample(away(rng, (2,)), away(rng, (2,)), np.array(1))
    yield Sample(away(rng, ()), away(rng, ()), 0.5)
    yield Sample(np.zeros((0, 3)), np.zeros(3), 0.5)


def takes_tensors(op: Callable[..., Any]) -> tuple[Wrong, ...]:
    name = op.__name__
    return (
        Wrong(TypeError, rf"{name}\(\): argument 'tensor2' must be Tensor, not float", np.ones(2), np.ones(2), 2.0),
        Wrong(TypeError, "argument 'value' must be Number, not str", np.ones(2), np.ones(2), np.ones(2), value="1"),
        Wrong(RuntimeError, f"{name} is not defined for bool tensors", FLAGS, FLAGS, FLAGS),
        Wrong(RuntimeError, rf"{name}: the shapes \[3\], \[3\], \[2\] {SHAPES}", np.ones(3), np.ones(3), np.ones(2)),
    )


ROWS = [
    Op(
        fused.addcmul,
        product,
        products,
        takes_tensors(fused.addcmul),
        ("Addcmul",),
        dtypes="takes three tensors; test_promotion_of_three",
    ),
    Op(
        fused.addcdiv,
        lambda x, a, b, value=1: product(x, a, 1 / b, value),
        triples,
        (
            *takes_tensors(fused.addcdiv),
            Wrong(RuntimeError, "addcdiv does not divide integers, int64 by bool", np.ones((2, 3)), INTEGERS, FLAGS),
        ),
        ("Addcdiv",),
        dtypes="takes three tensors; test_promotion_of_three",
    ),
    Op(
        fused.lerp,
        lambda a, b, weight: (1 - weight) * a + weight * b,
        ways,
        (
            Wrong(RuntimeError, "lerp is not defined for int64 tensors", INTEGERS, INTEGERS, 0.5),
            Wrong(RuntimeError, "expected dtype float64 for `end` but got dtype int64", np.ones(2), ints(1, 2), 0.5),
            Wrong(RuntimeError, "dtype float64 for `weight` but got dtype int64", np.ones(2), np.ones(2), ints(1, 2)),
            Wrong(TypeError, r"lerp\(\): argument 'end' must be Tensor, not float", np.ones(2), 1.0, 0.5),
            Wrong(TypeError, "argument 'weight' must be Number or Tensor, not str", np.ones(2), np.ones(2), "1"),
            Wrong(RuntimeError, rf"lerp: the shapes \[3\], \[2\] {SHAPES}", np.ones(3), np.ones(2), 0.5),
        ),
        ("Lerp", "LerpBy"),
        dtypes="takes tensors of one dtype",
    ),
]
FAMILY = fused
EXEMPT: list[Any] = []

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import floating

from .elementwise import FLAGS, INTEGERS, NOTHING, SHAPES, away, elements, ints, two
from .row import Constant, Op, Sample, Wrong

INF = math.inf


def signs(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(numbers=False)(rng)
    yield Sample(away(rng, (2, 3)), -2)
    yield Sample(away(rng, (4,)), Constant(np.array([0.0, -0.0, -INF, INF])))
    yield Sample(away(rng, (2,)), ints(-3, 0))


def exponents(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(numbers=False)(rng)
    yield Sample(away(rng, (2, 3)), ints(3, 0, -4))
    yield Sample(np.array([3, 250], np.uint8), np.array([0.5, -1.5]))
    yield Sample(np.array(1.5), np.array(10))


def torch_ldexp(torch: Any, x: Any, e: Any) -> Any:
    # whose derivative raises 2 to a negative integer power among integers, which gives 0
    if getattr(x, "requires_grad", False):
        return x * torch.exp2(e.to(torch.promote_types(x.dtype, e.dtype)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the memory of its own intermediate result
        return torch.ldexp(x, e)


def holes(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(away(rng, (2, 3)))
    # a finite difference from infinity is NaN, so these are not differentiated
    edges = np.array([[np.nan, INF, -INF], [0.0, -0.0, 2.5]], np.float32)
    for options in ({}, {"nan": 1.0, "posinf": 2.0, "neginf": -3.0}, {"nan": None, "neginf": 4}):
        yield Sample(edges, **options)
    yield Sample(INTEGERS, 1.5)
    yield Sample(FLAGS)
    yield Sample(np.array(2.0))
    yield Sample(NOTHING)


def filled(x: Any, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    largest = float(np.finfo(x.dtype).max) if x.dtype.kind == "f" else 0.0
    instead = {INF: largest if posinf is None else posinf, -INF: -largest if neginf is None else neginf}
    values = [(nan or 0.0) if v != v else instead.get(v, v) for v in x.reshape(-1).tolist()]
    return np.array(values, x.dtype).reshape(x.shape)


def steps(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(numbers=False)(rng)
    yield Sample(np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, -1.0, 2.0, 0.0]))


def no_numbers(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(TypeError, rf"{name}\(\): argument 'other' \(position 2\) must be Tensor, not float", np.ones(3), 1.0),
        Wrong(RuntimeError, SHAPES, np.ones(3), np.ones(2)),
    )


ROWS = [
    Op(
        floating.copysign,
        elements(math.copysign),
        signs,
        (
            Wrong(RuntimeError, SHAPES, np.ones(3), np.ones(2)),
            Wrong(TypeError, r"copysign\(\): argument 'input' must be Tensor, not float", 1.0, np.ones(3)),
        ),
        ("Copysign", "Zeros"),
        dtypes="common, floating",
        broadcasts=True,
    ),
    Op(
        floating.ldexp,
        elements(lambda x, e: x * 2.0**e),
        exponents,
        no_numbers("ldexp"),
        ("Ldexp",),
        torch=torch_ldexp,
        dtypes="common, floating",
        broadcasts=True,
    ),
    Op(
        floating.nextafter,
        elements(math.nextafter),
        steps,
        (*no_numbers("nextafter"), Wrong(RuntimeError, "nextafter is not defined for int64", INTEGERS, INTEGERS)),
        ("Nextafter", "Zeros"),
        dtypes="common, only floating",
        broadcasts=True,
    ),
    Op(
        floating.nan_to_num,
        filled,
        holes,
        (Wrong(TypeError, r"nan_to_num\(\): argument 'input' must be Tensor, not float", 1.0),),
        ("NanToNum", "Isfinite"),
    ),
]
FAMILY = floating
EXEMPT: list[Any] = []

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import power

from .elementwise import INTEGERS, SHAPES, away, elements, ints, one, two
from .row import Exempt, Op, Sample, Wrong


def pow_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(0.4, 2.0, signed=False, numbers=False)(rng)
    for exponent in (2, 3, 0, 1, -1, 0.5, 2.5, -2.0):
        yield Sample(rng.uniform(0.4, 2.0, (3,)), exponent)
    yield Sample(2, away(rng, (3,)))
    yield Sample(0.5, away(rng, ()))
    yield Sample(away(rng, (3,)), 2.0)
    yield Sample(away(rng, (3,)), ints(2, 3, -1))


def integer_powers(rng: np.random.Generator) -> Iterator[Sample]:
    yield from pow_samples(rng)
    yield Sample(INTEGERS, ints(2, 0, 3))
    yield Sample(2, ints(0, 5, 10))
    yield Sample(INTEGERS, 3)


def powers(a: Any, b: Any) -> Any:
    out = elements(math.pow)(a, b)
    whole = all(np.asarray(x).dtype.kind in "iu" for x in (a, b))
    return out.astype(np.int64) if whole else out


ROWS = [
    Op(
        power.pow,
        powers,
        integer_powers,
        (
            Wrong(RuntimeError, "Integers to negative integer powers are not allowed", INTEGERS, -1),
            Wrong(RuntimeError, SHAPES, np.ones(3), np.ones(2)),
        ),
        ("Pow",),
        dtypes="common",
        broadcasts=True,
    ),
    Op(
        power.square,
        elements(lambda x: x * x),
        one(0.1, 2.0),
        (Wrong(TypeError, r"square\(\): argument 'input' must be Tensor, not str", "1"),),
        ("Pow",),
        dtypes="as with an int",
    ),
    Op(
        power.float_power,
        elements(math.pow),
        pow_samples,
        (
            Wrong(RuntimeError, SHAPES, np.ones(3), np.ones(2)),
            Wrong(TypeError, "expected a Tensor or a number, not str", np.ones(3), "1"),
        ),
        ("Pow", "ToCopy"),
        dtypes="common to float64",
        broadcasts=True,
    ),
]
FAMILY = power
EXEMPT = [
    Exempt(power.float_power_, "an in-place form with a check of its own; test_float_power_in_place"),
]

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import scan

from .reduction import INTEGERS, distinct, out_of_range
from .row import Op, Sample, Wrong

TAKES_DIM = "takes dim; test_dtypes_of_scans"


def running(function: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    """A reference from a function of an element and all before it."""

    def reference(x: Any, dim: int, dtype: Any = None) -> Any:
        lines = np.moveaxis(x, dim, -1) if x.ndim else x.reshape(1)
        kind = dtype or (x.dtype if x.dtype.kind == "f" else np.int64)
        out = np.zeros(lines.shape, kind)
        for place in np.ndindex(lines.shape):
            out[place] = function([v.item() for v in lines[place[:-1]][: place[-1] + 1]])
        return np.moveaxis(out, -1, dim) if x.ndim else out.reshape(())

    return reference


def last_place(function: Callable[[list[Any]], Any]) -> Callable[[list[Any]], int]:
    return lambda values: max(i for i, v in enumerate(values) if v == function(values))


def lines(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (2, 3, 2))
    for dim in (0, 1, -1):
        yield Sample(x, dim)
    yield Sample(distinct(rng, ()), 0)
    yield Sample(np.zeros((0, 3)), 0)
    yield Sample(np.zeros((0, 3)), 1)


def numbers(rng: np.random.Generator) -> Iterator[Sample]:
    yield from lines(rng)
    yield Sample(INTEGERS, 1)
    yield Sample(INTEGERS > 0, 0)
    yield Sample(INTEGERS, 0, dtype=np.dtype(np.float64))


def products(rng: np.random.Generator) -> Iterator[Sample]:
    yield from numbers(rng)
    x = distinct(rng, (3, 4))
    x[0, 1] = x[2, 0] = x[2, 2] = 0.0
    yield Sample(x, 0)
    yield Sample(x, 1)
    yield Sample(np.array(0.0), 0)


def logarithms(rng: np.random.Generator) -> Iterator[Sample]:
    yield from lines(rng)
    yield Sample(distinct(rng, (5,)) * 40.0, 0)


def _log_of_sum(values: list[float]) -> float:
    peak = max(values)
    return peak + math.log(math.fsum(math.exp(v - peak) for v in values))


ROWS = [
    Op(
        scan.cumsum,
        running(math.fsum),
        numbers,
        (out_of_range(), Wrong(TypeError, "'dim' .*must be int, not tuple", np.zeros((2, 3)), (0, 1))),
        ("Cumsum",),
        dtypes=TAKES_DIM,
    ),
    Op(
        scan.cumprod,
        running(math.prod),
        products,
        (out_of_range(), Wrong(TypeError, "'dim' .*must be int, not NoneType", np.zeros((2, 3)), None)),
        ("Cumprod", "LinearRecurrence", "Shift"),
        dtypes=TAKES_DIM,
    ),
    *(
        Op(
            getattr(scan, f"cum{name}"),
            lambda x, dim, function=function: (
                running(function)(x, dim, x.dtype),
                running(last_place(function))(x, dim, np.int64),
            ),
            lambda rng: [*lines(rng), Sample(INTEGERS, 1), Sample(np.array([2, 2, 1, 3, 1, 3]), 0)],
            (out_of_range(),),
            (f"Cum{name}", f"Argcum{name}", "RunningExtremumAdjoint"),
            dtypes=TAKES_DIM,
        )
        for name, function in {"max": max, "min": min}.items()
    ),
    Op(
        scan.logcumsumexp,
        running(_log_of_sum),
        logarithms,
        (out_of_range(), Wrong(NotImplementedError, "not implemented for int64", INTEGERS, 0)),
        ("Logcumsumexp", "LinearRecurrence", "Exp"),
        dtypes=TAKES_DIM,
    ),
]
FAMILY = scan
EXEMPT: list[Any] = []

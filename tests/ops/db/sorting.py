from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import sorting

from .reduction import INTEGERS, distinct, out_of_range
from .row import Op, Sample, Wrong


def ordered(x: Any, dim: int = -1, descending: bool = False, stable: Any = None) -> Any:
    """Values and places, by Python's stable sort of each line."""
    if not x.ndim:
        return x, np.zeros((), np.int64)
    rows = np.moveaxis(x, dim, -1)
    places = np.zeros(rows.shape, np.int64)
    for place in np.ndindex(rows.shape[:-1]):
        row = rows[place].tolist()
        places[place] = sorted(range(len(row)), key=lambda i: row[i], reverse=descending)
    places = np.moveaxis(places, -1, dim)
    return np.take_along_axis(x, places, dim), places


def best(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    values, places = ordered(x, dim, largest)
    if not x.ndim:
        return values, places
    cut = (slice(None),) * (dim % x.ndim) + (slice(0, k),)
    return values[cut], places[cut]


def unsorted(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 4, 2))
    yield Sample(x)
    yield Sample(x, 0)
    yield Sample(x, 1, True)
    yield Sample(x, dim=-2, descending=True, stable=True)
    yield Sample(INTEGERS, 1)
    yield Sample(np.array([[3, 0, 3, 7, 0]], np.uint8), descending=True)
    yield Sample(np.array([True, False, True]), 0)
    yield Sample(distinct(rng, ()))
    yield Sample(distinct(rng, ()), 0, True)
    yield Sample(np.zeros((0, 3)))
    yield Sample(np.zeros((0, 3)), 0)


def some(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 5))
    yield Sample(x, 2)
    yield Sample(x, 2, 0)
    yield Sample(x, 3, 1, False)
    yield Sample(x, 5)
    wide = distinct(rng, (2, 12))
    yield Sample(wide, 2)
    yield Sample(wide, 2, -1, False)
    yield Sample(wide.T.copy(), 2, 0)
    yield Sample(wide, 1, 1, True, False)
    yield Sample(np.array([[3, 0, 7]], np.uint8), 2)
    yield Sample(distinct(rng, ()), 1)
    yield Sample(np.zeros((0, 3)), 1)
    yield Sample(distinct(rng, (3,)), 0)


ROWS = [
    Op(
        sorting.sort,
        ordered,
        unsorted,
        (out_of_range(), Wrong(TypeError, "'dim' .*must be int, not bool", np.zeros((2, 3)), True)),
        ("Sort", "Argsort", "PickAdjoint"),
        dtypes="same",
    ),
    Op(
        sorting.argsort,
        lambda *args, **kwargs: ordered(*args, **kwargs)[1],
        unsorted,
        (out_of_range(),),
        ("Argsort",),
        differentiable=False,
        dtypes="to int64",
    ),
    Op(
        sorting.msort,
        lambda x: ordered(x, 0)[0],
        lambda rng: iter(
            [
                Sample(distinct(rng, (3, 2))),
                Sample(INTEGERS),
                Sample(distinct(rng, ())),
                Sample(np.zeros((0, 3))),
            ]
        ),
        (Wrong(TypeError, r"msort\(\): argument 'input' \(position 1\) must be Tensor, not int", 1),),
        ("Sort",),
        dtypes="same",
    ),
    Op(
        sorting.topk,
        best,
        some,
        (
            Wrong(RuntimeError, "selected index k out of range", np.zeros((2, 3)), 4),
            Wrong(RuntimeError, "selected index k out of range", np.zeros((2, 3)), -1),
            Wrong(RuntimeError, "does not support bool", np.zeros((2, 3), bool), 1),
            Wrong(TypeError, "'k' .*must be int, not float", np.zeros((2, 3)), 1.0),
            out_of_range(1),
        ),
        ("Topk", "Argtopk", "PickAdjoint"),
        dtypes="takes k; test_topk_orders_every_dtype",
    ),
]
FAMILY = sorting
EXEMPT: list[Any] = []

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import counting

from .reduction import INTEGERS, OUT_OF_RANGE
from .row import Op, Sample, Wrong

EMPTY = np.zeros((0, 3))
REPEATED = np.array([[3, 1, 2, 1], [3, 1, 2, 1], [0, 1, 2, 3]])
LONG = np.zeros(0, np.int64)
TEXT = "its arguments decide; test_dtypes_of_counts"


def _slices(x: Any, dim: int | None) -> list[Any]:
    """What is compared: elements, or slices of ``dim`` as tuples."""
    if dim is None:
        return x.ravel().tolist()
    return [tuple(np.take(x, i, dim).ravel().tolist()) for i in range(x.shape[dim])]


def _asked(values: Any, inverse: Any, counts: Any, return_inverse: bool, return_counts: bool) -> Any:
    found = [values]
    found += [np.asarray(inverse, np.int64)] if return_inverse else []
    found += [np.asarray(counts, np.int64)] if return_counts else []
    return tuple(found) if len(found) > 1 else values


def distinct_values(
    x: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: Any = None
) -> Any:
    items = _slices(x, dim)
    seen: list[Any] = []
    for item in items:  # NaN is never found, and so is new each time
        if not any(item == other for other in seen):
            seen.append(item)
    seen.sort(key=lambda v: (v != v, v))
    inverse = [seen.index(item) for item in items]
    places = [items.index(item) for item in seen]
    values = np.array(seen, x.dtype) if dim is None else np.take(x, places, dim)
    shape = x.shape if dim is None else (len(items),)
    counts = [inverse.count(i) for i in range(len(seen))]
    return _asked(values, np.array(inverse).reshape(shape), counts, return_inverse, return_counts)


def runs(x: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None) -> Any:
    items = _slices(x, dim)
    groups = [list(group) for _, group in itertools.groupby(range(len(items)), key=lambda i: items[i])]
    places = [group[0] for group in groups]
    values = x.ravel()[places] if dim is None else np.take(x, np.array(places, np.int64), dim)
    inverse = [number for number, group in enumerate(groups) for _ in group]
    shape = x.shape if dim is None else (len(items),)
    return _asked(values, np.array(inverse).reshape(shape), list(map(len, groups)), return_inverse, return_counts)


def repetitions(rng: np.random.Generator) -> Iterator[Sample]:
    both = {"return_inverse": True, "return_counts": True}
    yield Sample(REPEATED)
    yield Sample(REPEATED, **both)
    yield Sample(REPEATED, return_counts=True)
    yield Sample(REPEATED, dim=0, **both)
    yield Sample(REPEATED, dim=-1, **both)
    yield Sample(REPEATED * 0.5, **both)
    yield Sample(REPEATED.reshape(3, 2, 2), dim=0, return_inverse=True)
    yield Sample(np.array([True, True, False]), **both)
    yield Sample(np.array(2.5), **both)
    yield Sample(EMPTY, **both)
    yield Sample(EMPTY, dim=0, **both)


def members(x: Any, y: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    known = np.asarray(y).ravel().tolist()
    out = [(v in known) != invert for v in np.asarray(x).ravel().tolist()]
    return np.array(out, bool).reshape(np.shape(x))


def counts(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    out = np.zeros(max([minlength, *(v + 1 for v in x.tolist())]), np.int64 if weights is None else weights.dtype)
    for i, v in enumerate(x.tolist()):
        out[v] += 1 if weights is None else weights[i]
    return out


def bins_of(x: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    values = x.ravel().tolist()
    low, high = (np.min(values), np.max(values)) if min == max and values else (min, max)
    low, high = (low - 1, high + 1) if low == high else (low, high)
    out = np.zeros(bins)
    for v in values:
        if low <= v <= high:
            out[bins - 1 if v == high else math.floor((v - low) / (high - low) * bins)] += 1
    return out


def before(
    sequence: Any, values: Any, out_int32: bool = False, right: bool = False, side: Any = None, sorter: Any = None
) -> Any:
    x = np.asarray(values)
    out = np.zeros(x.shape, np.int32 if out_int32 else np.int64)
    if sorter is not None:
        sequence = np.take_along_axis(sequence, sorter, -1)
    for place in np.ndindex(x.shape):
        line = sequence if sequence.ndim == 1 else sequence[place[:-1]]
        out[place] = sum(1 for v in line if (v <= x[place] if right or side == "right" else v < x[place]))
    return out


def places(rng: np.random.Generator) -> Iterator[Sample]:
    line = np.array([1, 3, 3, 5])
    lines = np.array([[1, 3, 3, 5], [2, 4, 6, 8]])
    values = np.array([[0, 3, 9], [4, 8, 2]])
    yield Sample(line, values)
    yield Sample(line, values, right=True)
    yield Sample(line * 0.5, values * 0.5, side="right", right=True)
    yield Sample(lines, values)
    yield Sample(lines * 0.5, values * 0.5, side="right", out_int32=True)
    yield Sample(lines[:, None], values[:, None])
    yield Sample(line[::-1].copy(), values, sorter=np.array([3, 2, 1, 0]))
    yield Sample(lines[:, ::-1].copy(), values, sorter=np.array([[3, 2, 1, 0]] * 2), side="left")
    yield Sample(line, np.array(4))
    yield Sample(line, 3)
    yield Sample(line * 1.0, 3.5)
    yield Sample(LONG, values)
    yield Sample(line, LONG)
    yield Sample(np.zeros((2, 0)), values * 1.0)


ROWS = [
    Op(
        counting.unique,
        distinct_values,
        repetitions,
        (
            Wrong(IndexError, OUT_OF_RANGE, np.zeros((2, 3)), dim=2),
            Wrong(IndexError, "has no dimensions", np.zeros(()), dim=0),
            Wrong(RuntimeError, "0 sized dimensions", EMPTY, dim=1),
            Wrong(TypeError, "must be Tensor", 1),
        ),
        ("Unique",),
        differentiable=False,
        dtypes="same",
    ),
    Op(
        counting.unique_consecutive,
        runs,
        repetitions,
        (
            Wrong(IndexError, OUT_OF_RANGE, np.zeros((2, 3)), dim=2),
            Wrong(RuntimeError, "0 sized dimensions", EMPTY, dim=1),
        ),
        differentiable=False,
        dtypes="same",
    ),
    Op(
        counting.isin,
        members,
        lambda rng: iter(
            [
                Sample(REPEATED, np.array([3, 0])),
                Sample(REPEATED, np.array([[3, 0]]), invert=True),
                Sample(np.array([1, 2]), np.array([2, 5]), assume_unique=True),
                Sample(REPEATED * 0.5, 1),
                Sample(2, REPEATED),
                Sample(np.array(2), REPEATED),
                Sample(REPEATED, np.array([1.5, 2.0])),
                Sample(np.array([math.nan, 1.0]), np.array([math.nan])),
                Sample(EMPTY, np.array([1])),
                Sample(REPEATED, LONG),
            ]
        ),
        (
            Wrong(RuntimeError, "Unsupported input type.*bool", np.array([True]), np.array([True])),
            Wrong(TypeError, "must be a Tensor", 1, 1),
            Wrong(TypeError, "'test_elements' must be Tensor or Number, not list", np.array([1]), [1]),
        ),
        differentiable=False,
        dtypes="bool, of all but bools; test_dtypes_of_counts",
    ),
    Op(
        counting.bincount,
        counts,
        lambda rng: iter(
            [
                Sample(np.array([1, 1, 4])),
                Sample(np.array([1, 1, 4], np.uint8), minlength=7),
                Sample(np.array([1, 1, 4]), np.array([0.5, 1.0, 2.0])),
                Sample(np.array([1, 1, 4]), weights=np.array([0.5, 1.0, 2.0]), minlength=6),
                Sample(LONG),
                Sample(LONG, minlength=2),
            ]
        ),
        (
            Wrong(RuntimeError, "1-d non-negative", np.array([1, -1])),
            Wrong(RuntimeError, "1-d non-negative", np.array([[1]])),
            Wrong(RuntimeError, "same length", np.array([1, 1]), np.array([1.0])),
            Wrong(RuntimeError, "minlength should be >= 0", np.array([1]), minlength=-1),
            Wrong(NotImplementedError, "not implemented for float64", np.array([1.0])),
        ),
        differentiable=False,
        dtypes=TEXT,
        lacks={"0-d": "it takes vectors; the number of a 0-d tensor is refused like that of a matrix"},
    ),
    Op(
        counting.histc,
        bins_of,
        lambda rng: iter(
            [
                Sample(np.array([[0.1, 1.0, 2.3], [3.1, 4.7, 5.0]]), 3),
                Sample(np.array([0.1, 1.0, 2.3, 3.1, 4.7, 5.0]), 4, 1, 3),
                Sample(np.array([0.0, 0.25, 0.5, 1.0]), 4, 0, 1),
                Sample(np.array([1.0, 1.0]), 3),
                Sample(np.array([math.nan, 0.5, math.inf]), 2, 0.0, 1.0),
                Sample(rng.uniform(size=50)),
                Sample(np.array(3.0), 3),
                Sample(EMPTY, 3),
            ]
        ),
        (
            Wrong(RuntimeError, "bins must be > 0", np.zeros(3), 0),
            Wrong(RuntimeError, "max must be larger than min", np.zeros(3), 3, 4, 1),
            Wrong(RuntimeError, "is not finite", np.array([1.0, math.nan]), 3),
            Wrong(RuntimeError, "is not finite", np.zeros(3), 3, 0, math.inf),
            Wrong(TypeError, "'bins' .*must be int, not float", np.zeros(3), 2.5),
            Wrong(NotImplementedError, "not implemented for int64", INTEGERS, 3),
        ),
        differentiable=False,
        dtypes="integers are not implemented; test_dtypes_of_counts",
    ),
    Op(
        counting.searchsorted,
        before,
        places,
        (
            Wrong(RuntimeError, "side can only be", np.array([1]), np.array([1]), side="x"),
            Wrong(RuntimeError, "opposites", np.array([1]), np.array([1]), side="left", right=True),
            Wrong(RuntimeError, "positive dimension", np.array(1), np.array([1])),
            Wrong(RuntimeError, "scalar only when", np.array([[1]]), 1),
            Wrong(RuntimeError, "first N-1 dimensions", np.array([[1], [2]]), np.array([1])),
            Wrong(RuntimeError, "same size", np.array([1, 2]), 1, sorter=np.array([0])),
            Wrong(RuntimeError, "long dtype", np.array([1, 2]), 1, sorter=np.array([0.0, 1.0])),
            Wrong(RuntimeError, "out of range", np.array([1, 2]), 1, sorter=np.array([0, 2])),
            Wrong(TypeError, "'sorted_sequence' .*must be Tensor", [1], 1),
        ),
        differentiable=False,
        dtypes="int64, or int32 where asked for; test_dtypes_of_counts",
    ),
    Op(
        counting.bucketize,
        lambda x, boundaries, out_int32=False, right=False: before(boundaries, x, out_int32, right),
        lambda rng: iter(
            [
                Sample(np.array([[1, 2], [3, 6]]), np.array([1, 3, 5])),
                Sample(np.array([1.0, 2.0, 3.0]), np.array([1, 3, 5]), right=True, out_int32=True),
                Sample(2, np.array([1, 3, 5])),
                Sample(np.array(5), np.array([1, 3, 5])),
                Sample(EMPTY, np.array([1.0, 3.0])),
            ]
        ),
        (
            Wrong(RuntimeError, "must be 1 dimension", np.array([1]), np.array([[1]])),
            Wrong(TypeError, "'boundaries' .*must be Tensor, not list", np.array([1]), [1]),
        ),
        differentiable=False,
        dtypes="int64, or int32 where asked for; test_dtypes_of_counts",
    ),
]
FAMILY = counting
EXEMPT: list[Any] = []

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import indexing

from .row import Exempt, Op, Sample, Wrong

FLAGS = np.array([True, False, True])


def _positions(part: Any, n: int) -> list[int]:
    if isinstance(part, slice):
        return list(range(n))[part]
    if isinstance(part, int):
        return [range(n)[part]]
    values = np.asarray(part)
    return [i for i in range(n) if values[i]] if values.dtype == bool else [range(n)[i] for i in values.tolist()]


def picked(x: Any, index: Any) -> Any:
    """One dimension after the other, element by element. Of lists and arrays there is at most one in these samples."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if Ellipsis in [part for part in parts if not isinstance(part, np.ndarray)]:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (x.ndim - used)
    parts += [slice(None)] * (x.ndim - sum(part is not None for part in parts))
    real = [part for part in parts if part is not None]
    places = [_positions(part, n) for part, n in zip(real, x.shape, strict=True)]
    out = np.empty([len(p) for p in places], x.dtype)
    for place in np.ndindex(out.shape):
        out[place] = x[tuple(p[i] for p, i in zip(places, place, strict=True))]
    shape, rest = [], iter(zip(real, out.shape, strict=True))
    for part in parts:
        if part is None:
            shape.append(1)
        else:
            kind, n = next(rest)
            if not isinstance(kind, int):
                shape.append(n)
    return out.reshape(shape)


def indices(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    for index in (
        1,
        -1,
        (0, 2),
        slice(1, 3),
        (slice(None), slice(None, None, 2)),
        (..., 1),
        (None, 2),
        (slice(0, 0), 1),
        np.array([2, 0, 2]),
        [1, 1, -1],
        (slice(None), np.array([3, 0])),
        (FLAGS, 1),
        FLAGS,
        np.array([], np.int64),
        ...,
    ):
        yield Sample(x, index)
    yield Sample(rng.standard_normal((3,)), 1)
    yield Sample(rng.standard_normal(()), ...)
    yield Sample(rng.standard_normal(()), None)
    yield Sample(np.zeros((0, 3)), (slice(None), 1))


def along(x: Any, dim: int, index: Any) -> Any:
    out = np.empty(index.shape, x.dtype)
    for place in np.ndindex(index.shape):
        source = list(place)
        if source:
            source[dim] = index[place]
        out[place] = x[tuple(source)]
    return out


def gathers(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([[2, 0, 1, 1], [0, 0, 2, 2]]))
    yield Sample(x, 1, np.array([[3, 3], [0, 1], [2, 0]]))
    yield Sample(x, -1, np.array([[3], [1]]))
    yield Sample(x, 0, np.zeros((0, 4), np.int64))
    yield Sample(np.zeros((0, 3)), 1, np.zeros((0, 2), np.int64))
    yield Sample(rng.standard_normal(()), 0, np.array(0))


ROWS = [
    Op(
        indexing.getitem,
        picked,
        indices,
        (
            Wrong(IndexError, "index 3 is out of bounds", np.zeros((3, 4)), 3),
            Wrong(IndexError, "too many indices", np.zeros((3, 4)), (0, 0, 0)),
            Wrong(IndexError, "must be long, int, byte or bool", np.zeros((3, 4)), np.zeros(2)),
            Wrong(IndexError, "boolean index did not match", np.zeros((4, 3)), FLAGS),
            Wrong(ValueError, "step must be greater than zero", np.zeros(3), slice(None, None, -1)),
        ),
        ("Index", "IndexPut"),
        torch=lambda torch, x, index: x[index],
        dtypes="takes an index; test_views_keep_the_dtype",
    ),
    Op(
        indexing.gather,
        along,
        gathers,
        (
            Wrong(RuntimeError, "same number of dimensions", np.zeros((3, 4)), 0, np.array([1])),
            Wrong(RuntimeError, "index 3 is out of bounds for dimension 0 with size 3", np.zeros(3), 0, np.array([3])),
            Wrong(RuntimeError, "index -1 is out of bounds for dimension 0", np.zeros(3), 0, np.array([-1])),
            Wrong(RuntimeError, "Expected dtype int64 for index", np.zeros(3), 0, np.zeros(2)),
            Wrong(RuntimeError, "Size does not match at dimension 1", np.zeros((2, 1)), 0, np.array([[0, 0]])),
            Wrong(IndexError, "Dimension out of range", np.zeros(3), 1, np.array([0])),
        ),
        ("Gather", "ScatterAdd"),
        dtypes="takes an index; test_views_keep_the_dtype",
    ),
]
FAMILY = indexing
EXEMPT = [Exempt(indexing.array_index, "translates an index; getitem's row and the tests of setitem use it")]

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import slices

from .row import Op, Sample, Wrong
from .shape import DIM

INDEX = "takes an index; test_new_places_keep_the_dtype"


def slices_at(x: Any, dim: int, index: Any) -> Any:
    if not x.ndim:
        return x
    parts = [x[(slice(None),) * (dim % x.ndim) + (slice(i, i + 1),)] for i in index.reshape(-1)]
    return np.concatenate(parts, axis=dim) if parts else x[(slice(None),) * (dim % x.ndim) + (slice(0),)]


def selections(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([2, 0, 2, 2]))
    yield Sample(x, -1, np.array([1, 3], np.int32))
    yield Sample(rng.standard_normal((2, 3, 2)), 1, np.array([2, 2, 0]))
    yield Sample(x, 0, np.array(1))
    yield Sample(x, 0, np.zeros(0, np.int64))
    yield Sample(np.zeros((0, 3)), 1, np.array([2, 2]))
    yield Sample(rng.standard_normal(()), 0, np.array([0]))


def one_by_one(x: Any, dim: int, index: Any, source: Any, add: float | None = None) -> Any:
    """One slice after the other; with ``add`` so often added."""
    out = np.array(x)
    whole = out.reshape(1) if not x.ndim else out
    for number, place in enumerate(index.reshape(-1).tolist()):
        at = (slice(None),) * (dim % whole.ndim) + (place,)
        new = np.moveaxis(source, dim, 0)[number] if np.ndim(source) else source
        whole[at] = new if add is None else whole[at] + add * new
    return out


def additions(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([2, 0, 2, 2]), rng.standard_normal((4, 4)))
    yield Sample(x, 1, np.array([3, 0], np.int32), rng.standard_normal((3, 2)))
    yield Sample(x, -2, np.array([1, 1]), rng.standard_normal((2, 4)), alpha=-1.5)
    yield Sample(rng.standard_normal((2, 3, 2)), 1, np.array([0]), rng.standard_normal((2, 1, 2)), alpha=2)
    yield Sample(rng.standard_normal(4), 0, np.array(3), rng.standard_normal(1))
    yield Sample(rng.standard_normal(()), 0, np.array([0]), rng.standard_normal(()))
    yield Sample(x, 0, np.zeros(0, np.int64), np.zeros((0, 4)))
    yield Sample(np.zeros((0, 3)), 1, np.array([2, 2]), np.zeros((0, 2)))


def replacements(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([2, 0]), rng.standard_normal((2, 4)))
    yield Sample(x, -1, np.array([3, 0, 1]), rng.standard_normal((3, 3)))
    yield Sample(rng.standard_normal((2, 3, 2)), 1, np.array([0]), rng.standard_normal((2, 1, 2)))
    yield Sample(rng.standard_normal(4), 0, np.array(3), rng.standard_normal(1))
    yield Sample(rng.standard_normal(()), 0, np.array([0]), rng.standard_normal(()))
    yield Sample(x, 0, np.zeros(0, np.int64), np.zeros((0, 4)))
    yield Sample(np.zeros((0, 3)), 1, np.array([2]), np.zeros((0, 1)))


def fillings(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([2, 0, 2]), 1.5)
    yield Sample(x, 1, np.array([-1, 0]), 0.5)
    yield Sample(x, -1, np.array([1, 1, 2]), rng.standard_normal(()))
    yield Sample(x, 0, np.array(1), -2)
    yield Sample(x, 0, np.zeros(0, np.int64), 1.0)
    yield Sample(rng.standard_normal(()), 0, np.array([0]), 1.0)
    yield Sample(np.zeros((0, 3)), 1, np.array([2]), 1.0)


X, ONES = np.zeros((3, 2)), np.ones((1, 2))
ROWS = [
    Op(
        slices.index_select,
        slices_at,
        selections,
        (
            Wrong(IndexError, "index out of range in self: 3", X, 0, np.array([3])),
            Wrong(IndexError, "index out of range in self: -1", X, 1, np.array([-1])),
            Wrong(IndexError, "supposed to be a vector", X, 0, np.array([[1]])),
            Wrong(IndexError, DIM, X, 2, np.array([1])),
            Wrong(RuntimeError, "Expected dtype int32 or int64 for index", np.zeros(3), 0, np.array([1], np.uint8)),
            Wrong(RuntimeError, r"can have only 1 value, got 2 value\(s\)", np.zeros(()), 0, np.array([0, 0])),
        ),
        ("IndexSelect", "IndexSelectAdjoint"),
        dtypes=INDEX,
    ),
    Op(
        slices.index_add,
        lambda x, dim, index, source, alpha=1: one_by_one(x, dim, index, source, add=alpha),
        additions,
        (
            Wrong(RuntimeError, "index 3 is out of bounds for dimension 0 with size 3", X, 0, np.array([3]), ONES),
            Wrong(RuntimeError, "index -1 is out of bounds", X, 0, np.array([-1]), ONES),
            Wrong(RuntimeError, "Expected dtype int32/int64 for index", X, 0, np.array([0.0]), ONES),
            Wrong(RuntimeError, "must have the same scalar type", X, 0, np.array([0]), np.ones((1, 2), np.int64)),
            Wrong(RuntimeError, r"Number of indices \(2\) should be equal", X, 0, np.array([0, 1]), ONES),
            Wrong(RuntimeError, "source tensor shape must match self", X, 0, np.array([0]), np.ones((1, 3))),
            Wrong(RuntimeError, "source tensor shape must match self", np.zeros(3), 0, np.array(0), np.ones(())),
            Wrong(IndexError, "supposed to be a vector", X, 0, np.array([[0]]), ONES),
            Wrong(IndexError, DIM, X, 2, np.array([0]), ONES),
            Wrong(TypeError, r"'source' \(position 4\) must be Tensor", X, 0, np.array([0]), 1.0),
        ),
        ("IndexAdd", "IndexSelect", "IndexSelectAdjoint"),
        dtypes=INDEX,
    ),
    Op(
        slices.index_copy,
        one_by_one,
        replacements,
        (
            Wrong(IndexError, "index 3 is out of bounds for dimension 0 with size 3", X, 0, np.array([3]), ONES),
            Wrong(IndexError, "index -1 is out of bounds", X, 0, np.array([-1]), ONES),
            Wrong(RuntimeError, "Expected a long tensor for index", X, 0, np.array([0], np.int32), ONES),
            Wrong(RuntimeError, "expected to have the same dtype", X, 0, np.array([0]), np.ones((1, 2), np.int64)),
            Wrong(IndexError, r"Number of indices \(2\) should be equal", X, 0, np.array([0, 1]), ONES),
            Wrong(RuntimeError, "must have same slice shapes", X, 0, np.array([0]), np.ones((1, 3))),
            Wrong(IndexError, "their dimensionality must match", X, 0, np.array([0]), np.ones(2)),
            Wrong(IndexError, "should have dimension 1 or 0", X, 0, np.array([[0]]), ONES),
            Wrong(IndexError, DIM, X, 2, np.array([0]), ONES),
            Wrong(TypeError, r"'source' \(position 4\) must be Tensor", X, 0, np.array([0]), 1.0),
        ),
        ("IndexCopy", "IndexFill", "IndexSelect"),
        dtypes=INDEX,
    ),
    Op(
        slices.index_fill,
        one_by_one,
        fillings,
        (
            Wrong(IndexError, "index 3 is out of bounds for dimension 0 with size 3", X, 0, np.array([3]), 1.0),
            Wrong(IndexError, "index -4 is out of bounds", X, 0, np.array([-4]), 1.0),
            Wrong(IndexError, "Expected dtype int64 for index", X, 0, np.array([0], np.int32), 1.0),
            Wrong(RuntimeError, "has to be a vector/scalar", X, 0, np.array([[0]]), 1.0),
            Wrong(RuntimeError, "0-dimensional value tensor", X, 0, np.array([0]), np.ones(1)),
            Wrong(RuntimeError, "uint8 without overflow", np.zeros(3, np.uint8), 0, np.array([0]), 300),
            Wrong(IndexError, DIM, X, 2, np.array([0]), 1.0),
            Wrong(TypeError, r"'value' \(position 4\) must be Number, not str", X, 0, np.array([0]), "a"),
        ),
        ("IndexFill", "IndexSelect"),
        dtypes=INDEX,
    ),
]
FAMILY = slices
EXEMPT: list[Any] = []

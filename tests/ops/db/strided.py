from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import strided

from .row import Exempt, Op, Sample, Wrong
from .shape import DIM, SCALAR, calls, method


def by_strides(x: Any, size: Any, stride: Any, offset: int = 0) -> Any:
    """From the elements in the order of memory, which is row-major in these samples."""
    memory = [x[place] for place in np.ndindex(x.shape)]
    out = np.empty(size, x.dtype)
    for place in np.ndindex(*size):
        out[place] = memory[offset + sum(i * step for i, step in zip(place, stride, strict=True))]
    return out


def windows(x: Any, dim: int, size: int, step: int) -> Any:
    if not x.ndim:
        return np.array([x[()]] * size)
    starts = range(0, x.shape[dim] - size + 1, step)
    taken = [np.moveaxis(np.take(x, range(a, a + size), axis=dim), dim, -1) for a in starts]
    return np.stack(taken, axis=dim % x.ndim)


def patterns(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, (2, 2), (4, 1))
    yield Sample(x, (4, 3), (1, 4))  # the transpose
    yield Sample(x, (2, 3), (1, 1), 2)  # overlapping
    yield Sample(x, [2, 2], [0, 5], 1)  # repeated
    yield Sample(x, (), (), 7)
    yield Sample(x, (3,), (2,), storage_offset=None)
    yield Sample(x, (0, 2), (1, 1))
    yield Sample(np.zeros((0, 3)), (2, 0), (1, 1))
    yield Sample(rng.standard_normal(()), (1, 1), (1, 1))
    yield Sample(rng.standard_normal(()), (3,), (0,))


X = np.zeros((2, 3))
ROWS = [
    Op(
        strided.as_strided,
        lambda x, size, stride, offset=0, storage_offset=0: by_strides(x, size, stride, offset),
        patterns,
        (
            Wrong(RuntimeError, r"storage offset 6, .* out of bounds for storage of size 48", X, (1,), (1,), 6),
            Wrong(RuntimeError, "requiring a storage size of 56", X, (3, 2), (2, 2)),
            Wrong(RuntimeError, "Negative strides are not supported", X, (2,), (-1,), 3),
            Wrong(RuntimeError, "mismatch in length of strides and shape", X, (2, 2), (1,)),
            Wrong(RuntimeError, "negative dimension", X, (-2,), (1,)),
            Wrong(RuntimeError, "invalid storage offset -1", X, (2,), (1,), -1),
            Wrong(TypeError, "'stride' must be tuple of ints", X, (2,), (1.5,)),
        ),
        ("AsStrided", "IndexSelect", "IndexSelectAdjoint"),
        dtypes="takes a size; test_views_keep_the_dtype",
        lacks={"layouts": "it looks at memory, not at elements; test_as_strided_of_a_view"},
    ),
    Op(
        strided.unfold,
        windows,
        calls(
            ((5,), 0, 2, 1),
            ((7,), 0, 3, 2),
            ((2, 5), 1, 3, 1),
            ((5, 2), -2, 2, 3),
            ((2, 5, 2), 1, 5, 1),
            ((4,), 0, 0, 1),
            ((4,), 0, 4, 7),
            ((0, 3), 1, 2, 1),
            (SCALAR, 0, 1, 1),
        ),
        (
            Wrong(RuntimeError, "maximum size for tensor at dimension 1 is 3 but size is 4", X, 1, 4, 1),
            Wrong(RuntimeError, "maximum size for tensor at dimension 0 is 1 but size is 2", np.zeros(()), 0, 2, 1),
            Wrong(RuntimeError, "step is 0 but must be > 0", X, 1, 2, 0),
            Wrong(RuntimeError, "size is -1 but must be >= 0", X, 1, -1, 1),
            Wrong(IndexError, DIM, X, 2, 1, 1),
        ),
        ("Unfold", "UnfoldAdjoint"),
        torch=method("unfold"),
        dtypes="takes a window; test_views_keep_the_dtype",
    ),
]
FAMILY = strided
EXEMPT = [Exempt(strided.storage_offset, "gives a number; test_storage_offset")]

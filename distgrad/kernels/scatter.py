"""Adding, multiplying or comparing values into places of an array that may be named several times.

``np.add.at`` does the same. It is fast for flat arrays of one dtype and slow for everything else, so wide rows are
added one by one, narrow ones element by element in a flattened array. Where no place is named twice an ordinary
assignment is faster still. Every way adds in the order of the values, so that results do not depend on the memory
layout of what comes in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Beyond this many elements a row, adding whole rows is faster than naming each element.
_WIDE = 192
# Elements that are named at a time; their positions take 8 bytes each.
_CHUNK = 1 << 20


def are_distinct(places: Array, size: int) -> bool:
    """Whether no number below ``size`` appears twice among ``places``, (m,) integers in [0, size)."""
    if places.size > size:
        return False
    seen = np.zeros(size, np.bool_)
    seen[places] = True
    return int(np.count_nonzero(seen)) == places.size


def add_rows(out: Array, places: Array, rows: Array) -> None:
    """``out[places[i]] += rows[i]`` for every i in turn, in place.

    Args:
        out: (n, w), C-contiguous.
        places: (m,) integers in [0, n), repeated or not.
        rows: (m, w), in the dtype of ``out``.
    """
    width = out.shape[1]
    if not width or not places.size:
        return
    if are_distinct(places, len(out)):
        out[places] += rows
    elif width == 1:
        np.add.at(out.reshape(-1), places, rows.ravel())
    elif width > _WIDE:
        for place, row in zip(places.tolist(), rows, strict=True):
            out[place] += row
    else:
        flat, within, step = out.reshape(-1), np.arange(width), max(_CHUNK // width, 1)
        for start in range(0, places.size, step):
            named = places[start : start + step, None] * width + within
            np.add.at(flat, named.ravel(), rows[start : start + step].ravel())


def add_rows_reference(out: Array, places: Array, rows: Array) -> None:
    """``add_rows``, one element after the other."""
    for i, place in enumerate(places.tolist()):
        for j in range(out.shape[1]):
            out[place, j] = out[place, j] + rows[i, j]


def add_at(shape: tuple[int, ...], index: tuple[Any, ...], values: Array, base: Array | None = None) -> Array:
    """A copy of ``base``, or zeros without it, after ``out[index] += values`` with every repetition counted.

    Args:
        shape: of the result, whose dtype is that of ``values``.
        index: one entry for each of the leading dimensions: a slice that takes all, or an integer array; at least one
            array. The arrays broadcast against each other and hold numbers in [0, length of their dimension).
        values: of the shape that indexing with ``index`` gives.
        base: what is added to, of ``shape``.
    """
    arrays = [d for d, part in enumerate(index) if not isinstance(part, slice)]
    order = [*arrays, *(d for d in range(len(shape)) if d not in arrays)]
    named = np.broadcast_arrays(*(index[d] for d in arrays))
    picked = named[0].ndim
    # NumPy puts the picked dimensions where the first array stands, or first when slices lie between the arrays.
    together = arrays[-1] - arrays[0] == len(arrays) - 1
    front = arrays[0] if together else 0
    rows = np.moveaxis(values, range(front, front + picked), range(picked)) if front else values
    count = int(np.prod([shape[d] for d in arrays], dtype=np.int64))
    width = int(np.prod([shape[d] for d in order[len(arrays) :]], dtype=np.int64))
    places = np.zeros(named[0].shape, np.int64)
    for part, d in zip(named, arrays, strict=True):
        places = places * shape[d] + part
    out = np.zeros((count, width), values.dtype)
    if base is not None:
        out[...] = base.transpose(order).reshape(count, width)
    add_rows(out, places.reshape(-1), np.ascontiguousarray(rows).reshape(places.size, width))
    return np.ascontiguousarray(out.reshape([shape[d] for d in order]).transpose(np.argsort(order)))


def add_at_reference(shape: tuple[int, ...], index: tuple[Any, ...], values: Array, base: Array | None = None) -> Array:
    """``add_at`` by ``np.add.at``."""
    out = np.zeros(shape, values.dtype) if base is None else base.copy()
    np.add.at(out, index, values)
    return out

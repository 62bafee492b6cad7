"""Linear maps along single dimensions: interpolation, and padding with the input's own values.

Such an operation is separable: the same few weighted source pixels for every row, then for every column. Its adjoint is
made of the transposed maps, so that one function is both and any order of derivative.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.layout import empty_hwnc, is_hwnc_alone, runs
from distgrad.kernels.precision import half_in_single

Array: TypeAlias = NDArray[Any]
Indices: TypeAlias = NDArray[np.intp]

# Planes are taken through all dimensions a block at a time, so that what lies between two of them stays in cache.
_BLOCK_BYTES = 1 << 20


class LinearMap:
    """A sparse matrix ``(rows, columns)`` that maps vectors of ``columns`` to vectors of ``rows``.

    Args:
        shape: ``(rows, columns)``.
        row: Of each entry.
        column: Of each entry.
        weight: Of each entry; None where all are one.
    """

    def __init__(self, shape: tuple[int, int], row: Indices, column: Indices, weight: Array | None = None) -> None:
        self.shape = shape
        self.row = row
        self.column = column
        self.weight = weight

    @property
    def T(self) -> LinearMap:
        """The transpose."""
        return LinearMap(self.shape[::-1], self.column, self.row, self.weight)

    @functools.cached_property
    def taps(self) -> list[tuple[Indices | None, Indices, Array | None]]:
        """The entries in groups, of each row at most one in each: rows (None: all of them), columns, weights."""
        order = np.lexsort((self.column, self.row))
        row = self.row[order]
        number = np.arange(len(row)) - np.searchsorted(row, row)  # of an entry within its row
        order = order[np.argsort(number, kind="stable")]
        taps: list[tuple[Indices | None, Indices, Array | None]] = []
        for group in np.split(order, np.cumsum(np.bincount(number))[:-1]) if len(order) else ():
            rows = None if len(group) == self.shape[0] else self.row[group]
            taps.append((rows, self.column[group], None if self.weight is None else self.weight[group]))
        return taps

    def dense(self) -> Array:
        """As a matrix."""
        matrix = np.zeros(self.shape)
        np.add.at(matrix, (self.row, self.column), 1.0 if self.weight is None else self.weight)
        return matrix


@half_in_single
def resample(input: Array, maps: Sequence[LinearMap | None]) -> Array:
    """Apply ``maps[i]`` along the ``i``-th of the last ``len(maps)`` dimensions; None leaves a dimension as it is.

    Args:
        input: ``(..., *sizes)``; of floating point unless all weights are one.
        maps: Of shapes ``(new size, size)``.

    Returns:
        ``(..., *new sizes)``, of the input's dtype; row-major, but images in HWNC order stay in that.
    """
    if len(maps) == 2 and is_hwnc_alone(input):
        return _of_pixels(input, maps)
    lead = input.ndim - len(maps)
    sizes = tuple(n if m is None else m.shape[0] for n, m in zip(input.shape[lead:], maps, strict=True))
    output = np.empty((*input.shape[:lead], *sizes), input.dtype)
    if not output.size:
        return output
    count = math.prod(input.shape[:lead])
    planes, results = input.reshape(count, *input.shape[lead:]), output.reshape(count, *sizes)
    # first the dimensions that shrink most, so that the rest has less to do
    axes = [axis for axis, m in enumerate(maps, start=1) if m is not None]
    axes.sort(key=lambda axis: results.shape[axis] / max(1, planes.shape[axis]))
    largest = max(math.prod(planes.shape[1:]), math.prod(sizes))
    step = max(1, _BLOCK_BYTES // (largest * input.itemsize))
    for first in range(0, count, step):
        block = planes[first : first + step]
        for axis in axes:
            along = maps[axis - 1]
            assert along is not None
            block = _apply(along, block, axis)
        results[first : first + step] = block
    return output


def resample_reference(input: Array, maps: Sequence[LinearMap | None]) -> Array:
    """``resample`` by dense matrices; the tests' reference."""
    for axis, along in enumerate(maps, start=input.ndim - len(maps)):
        if along is not None:
            input = np.moveaxis(np.tensordot(input, along.dense(), (axis, 1)), -1, axis)
    return input


def _of_pixels(input: Array, maps: Sequence[LinearMap | None]) -> Array:
    """``resample`` of (N, C, H, W) in HWNC order: along rows and columns of runs."""
    n, c, h, w = input.shape
    pixels = runs(input.transpose(2, 3, 0, 1))
    sizes = tuple(size if m is None else m.shape[0] for size, m in zip((h, w), maps, strict=True))
    output = empty_hwnc((n, c, *sizes), input.dtype)
    results = runs(output.transpose(2, 3, 0, 1))
    # first the dimension that shrinks most, so that the rest has less to do
    for axis in sorted((0, 1), key=lambda axis: sizes[axis] / (h, w)[axis]):
        along = maps[axis]
        if along is not None:
            pixels = _apply(along, pixels, axis)
    results[...] = pixels
    return output


def _apply(along: LinearMap, block: Array, axis: int) -> Array:
    shape = (*block.shape[:axis], along.shape[0], *block.shape[axis + 1 :])
    behind = (1,) * (block.ndim - axis - 1)
    result: Array | None = None
    for rows, columns, weights in along.taps:
        part = block.take(columns, axis)
        if weights is not None:
            part *= weights.astype(block.dtype, copy=False).reshape(-1, *behind)
        if rows is None:
            result = part if result is None else np.add(result, part, out=result)
            continue
        if result is None:
            result = np.zeros(shape, block.dtype)
        result[(slice(None),) * axis + (rows,)] += part
    return np.zeros(shape, block.dtype) if result is None else result

"""Sums over some dimensions of an array, fast and exact whichever dimensions these are.

NumPy adds neighbours in pairs, with an error that hardly grows with their number, but begins anew with each row, which
is slow for short ones. Everything else it adds slab after slab into one result: the error of a float32 sum over 1e6
rows is then some 1e-5 of it. Here rows are products with a vector of ones, of which BLAS makes the most, in pieces
short enough to be exact; and slabs are folded: blocks of them are added first, each block as one wide row, the sums of
the blocks likewise, until few are left.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]

_add: Any = np.add.reduce

_SMALL = 256  # arrays of at most so many elements are left to NumPy,
_FEW = 64  # and sums of so few that nothing is lost, where the array is no longer than
_MODEST = 1 << 14  # elements
_CHAIN = 32  # so many slabs are added one after another
_WIDE = 1 << 14  # elements of a row of slabs, which is read and written again and again: within the first caches
_PIECE = 128  # elements of a row that are one scalar product


def sum_over(input: FloatArray, axes: tuple[int, ...], keepdims: bool = False, dtype: Any = None) -> Any:
    """The sum over ``axes``.

    Args:
        input: any dtype and memory layout.
        axes: which dimensions to sum over, none of them negative or twice.
        keepdims: keep them with length 1.
        dtype: in which to add, and of the result; that of ``input`` without it. float16 is added in float32.

    Returns:
        A C-contiguous array of ``dtype``; a NumPy scalar where no dimension is left.
    """
    dtype = input.dtype if dtype is None else np.dtype(dtype)
    whole = input.size <= _SMALL and len(axes) == input.ndim and not keepdims
    if whole and dtype is input.dtype and dtype.char in "fd":
        return _add(input, None)  # of a small loss, without further questions
    if dtype == np.float16:
        return sum_over(input, axes, keepdims, np.float32).astype(dtype)
    if dtype.kind != "f" or input.size <= _SMALL or not axes or _few(input, axes):
        every = None if len(axes) == input.ndim else axes  # which NumPy is told sooner than all axes
        total = _add(input, axis=every, dtype=dtype, keepdims=keepdims)
        return total if total.flags.c_contiguous else np.ascontiguousarray(total)
    x = input.astype(dtype, copy=False)
    total = _in_order(x, axes) if x.flags.c_contiguous else _out_of_order(x, axes)
    shape = [1 if d in axes else n for d, n in enumerate(x.shape) if keepdims or d not in axes]
    return total.reshape(shape)[()]


def _few(x: FloatArray, axes: tuple[int, ...]) -> bool:
    return x.size <= _MODEST and math.prod([x.shape[d] for d in axes]) <= _FEW


def _out_of_order(x: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """Of elements that lie in another order, are repeated, or have gaps between them; the sums are in order."""
    repeated = [d for d, n in enumerate(x.shape) if x.strides[d] == 0 and n != 1]
    if repeated:
        once = x[tuple(slice(0, 1) if d in repeated else slice(None) for d in range(x.ndim))]
        total = sum_over(once, axes, keepdims=True) * x.dtype.type(math.prod(x.shape[d] for d in repeated if d in axes))
        return np.broadcast_to(total, [1 if d in axes else n for d, n in enumerate(x.shape)]).copy()
    order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))
    total = _in_order(np.ascontiguousarray(x.transpose(order)), tuple(order.index(d) for d in axes))
    kept = [d for d in order if d not in axes]
    return np.ascontiguousarray(total.reshape([x.shape[d] for d in kept]).transpose(np.argsort(kept)))


def _in_order(x: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """Of a C-contiguous array; the sums are in order, in no particular shape."""
    # Neighbouring dimensions that are both summed over, or both kept, are one.
    runs = [
        (summed, math.prod(x.shape[d] for d in dims))
        for summed, dims in itertools.groupby(range(x.ndim), lambda d: d in axes)
    ]
    while runs:
        summed, length = runs.pop()
        if summed:
            before = math.prod(n for _, n in runs)
            x = x.reshape(before, length, -1)
            x = _rows(x[:, :, 0]) if x.shape[2] == 1 else _slabs(x)
    return x


def _rows(x: FloatArray) -> FloatArray:
    """(n, m) to (n,)."""
    length = x.shape[1]
    if length <= _PIECE:
        return x @ np.ones(length, x.dtype)
    whole = length // _PIECE * _PIECE
    total = _rows(x[:, :whole].reshape(len(x), -1, _PIECE) @ np.ones(_PIECE, x.dtype))
    return total if whole == length else total + _rows(x[:, whole:])


def _slabs(x: FloatArray) -> FloatArray:
    """(n, m, k) to (n, k)."""
    rows, length, width = x.shape
    if length <= _CHAIN:
        return x.sum(axis=1)  # type: ignore[no-any-return]
    wide = max(1, min(length // _CHAIN, _WIDE // width))
    whole = length // (wide * _CHAIN) * (wide * _CHAIN)
    blocks = x[:, :whole].reshape(rows, -1, _CHAIN, wide * width).sum(axis=2)
    total = _slabs(blocks.reshape(rows, -1, width))
    return total if whole == length else total + _slabs(x[:, whole:])


def sum_over_reference(input: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """``sum_over`` with the dimensions kept, exactly rounded in float64 by ``math.fsum``."""
    out = np.empty([1 if d in axes else n for d, n in enumerate(input.shape)])
    for place in np.ndindex(out.shape):
        out[place] = math.fsum(input[tuple(slice(None) if d in axes else i for d, i in enumerate(place))].ravel())
    return out

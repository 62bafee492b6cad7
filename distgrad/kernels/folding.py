"""im2col and its adjoint col2im, of whole batches: PyTorch's ``unfold`` and ``fold``.

The convolutions have their own, which never hold more than a block of columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.window import overlap, window_count

Array: TypeAlias = NDArray[Any]
Pair: TypeAlias = tuple[int, int]


def unfold(input: Array, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Array:
    """The pixels under each tap of each window as columns, zero where a tap lies in the padding.

    Args:
        input: ``(N, C, H, W)``, of any dtype.
        kernel_size: Taps of a window.
        dilation: Step between the taps of a window, in pixels.
        padding: Zeros added on both sides.
        stride: Step between windows, in pixels.

    Returns:
        ``(N, C*kh*kw, windows)``, of the input's dtype; windows row by row.
    """
    n, c, h, w = input.shape
    sizes = _windows((h, w), kernel_size, dilation, padding, stride)
    columns = np.zeros((n, c, *kernel_size, *sizes), input.dtype)
    for tap, windows, pixels in _taps((h, w), sizes, kernel_size, dilation, padding, stride):
        columns[(slice(None), slice(None), *tap, *windows)] = input[(slice(None), slice(None), *pixels)]
    return columns.reshape(n, c * math.prod(kernel_size), math.prod(sizes))


def fold(input: Array, output_size: Pair, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Array:
    """Add the columns' entries to the pixels that ``unfold`` would take them from: its adjoint.

    Args:
        input: ``(N, C*kh*kw, windows)``, of any dtype.
        output_size: ``(H, W)``.
        kernel_size: As in ``unfold``.
        dilation: As in ``unfold``.
        padding: As in ``unfold``.
        stride: As in ``unfold``.

    Returns:
        ``(N, C, H, W)``, of the input's dtype.
    """
    sizes = _windows(output_size, kernel_size, dilation, padding, stride)
    n, c = len(input), input.shape[1] // math.prod(kernel_size)
    columns = input.reshape(n, c, *kernel_size, *sizes)
    output = np.zeros((n, c, *output_size), input.dtype)
    for tap, windows, pixels in _taps(output_size, sizes, kernel_size, dilation, padding, stride):
        output[(slice(None), slice(None), *pixels)] += columns[(slice(None), slice(None), *tap, *windows)]
    return output


def unfold_reference(input: Array, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Array:
    """``unfold`` one window at a time; the tests' reference."""
    padded = np.pad(input, ((0, 0), (0, 0), *((p, p) for p in padding)))
    sizes = _windows(input.shape[2:], kernel_size, dilation, padding, stride)
    columns = []
    for place in np.ndindex(sizes):
        rows, cols = (
            slice(at * s, at * s + d * (k - 1) + 1, d)
            for at, s, d, k in zip(place, stride, dilation, kernel_size, strict=True)
        )
        columns.append(padded[:, :, rows, cols].reshape(len(input), input.shape[1] * math.prod(kernel_size)))
    return np.stack(columns, axis=-1)


def _windows(size: tuple[int, ...], kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Pair:
    rows, cols = map(window_count, size, kernel_size, stride, padding, dilation)
    return rows, cols


def _taps(
    size: Pair, sizes: Pair, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair
) -> Iterator[tuple[Pair, tuple[slice, slice], tuple[slice, slice]]]:
    """Each tap of a window, the windows in which it is no padding, and its pixels there."""
    for i, j in np.ndindex(kernel_size):
        rows, pixel_rows = overlap(sizes[0], i * dilation[0] - padding[0], stride[0], size[0])
        cols, pixel_cols = overlap(sizes[1], j * dilation[1] - padding[1], stride[1], size[1])
        yield (i, j), (rows, cols), (pixel_rows, pixel_cols)

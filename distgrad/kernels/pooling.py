"""Pooling over the last two dimensions of ``(N, C, H, W)``, and its adjoints.

Max pooling returns where each maximum was, after which its derivative and every higher one are a scatter or a gather;
average pooling is linear, so its derivative is its adjoint. Windows, ties and NaN follow PyTorch's ``max_pool2d`` and
``avg_pool2d``. Sizes are ``(vertical, horizontal)`` pairs.

Where a maximum was is its pixel's number ``y*W + x`` in the plane, in the smallest unsigned dtype that holds all of
them, its *index*; or the number of its tap in the window, its *place*, a byte for nearly every window: places are kept
until the backward pass.

Images in HWNC order are left to ``pixel_pooling``, and their results are in that order too; others are row-major.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels import pixel_pooling
from distgrad.kernels.layout import as_hwnc, empty_hwnc, is_hwnc
from distgrad.kernels.pixel_pooling import Window, place_dtype
from distgrad.kernels.precision import half_in_single
from distgrad.kernels.window import overlap, window_count

FloatArray: TypeAlias = NDArray[Any]
IndexArray: TypeAlias = NDArray[np.integer[Any]]
Pair: TypeAlias = tuple[int, int]
Shape4: TypeAlias = tuple[int, int, int, int]

# Max pooling goes over its input twice for each tap, a block of planes at a time, so that it finds it in cache. On
# 32x64x112x112 float32, kernel 3, stride 2, one Zen 3 core: 172 ms by blocks of 256 KiB, 126 by 1 MiB, 135 by 4 MiB.
_BLOCK_BYTES = 1 << 20


def pool2d_output_shape(
    input_shape: tuple[int, ...], kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Shape4:
    """Return ``(N, C, Ho, Wo)`` for an input ``(N, C, H, W)``, by PyTorch's rule (see ``window.window_count``).

    A window larger than the padded input gives ``Ho <= 0`` or ``Wo <= 0``, which the caller has to refuse.
    """
    out_h, out_w = map(window_count, input_shape[2:], kernel_size, stride, padding, dilation, (ceil_mode,) * 2)
    return input_shape[0], input_shape[1], out_h, out_w


def index_dtype(pixels: int) -> np.dtype[Any]:
    """The smallest unsigned dtype that numbers so many pixels."""
    return np.min_scalar_type(max(pixels - 1, 0))


def max_pool2d(
    input: FloatArray, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[FloatArray, IndexArray]:
    """Maximum of each window, and where it was.

    Of equal maxima the first in row-major order is chosen; a NaN beats every number, and a later NaN an earlier one.
    Padding is never chosen, not even over ``-inf``.

    Args:
        input: ``(N, C, H, W)``, of any dtype but bool.
        kernel_size: Taps of a window.
        stride: Step between windows, in input pixels.
        padding: Pixels by which the first window may stand out of the input. Every window must touch the input, which
            PyTorch's limit of half a kernel ensures.
        dilation: Step between the taps of a window, in input pixels.
        ceil_mode: Whether to keep a last window that stands out of the padded input.

    Returns:
        The maxima ``(N, C, Ho, Wo)``, of the input's dtype, and their indices, of the same shape.
    """
    output, places = max_pool2d_places(input, kernel_size, stride, padding, dilation, ceil_mode)
    return output, place_indices(places, input.shape, Window(kernel_size, stride, padding, dilation))


def max_pool2d_places(
    input: FloatArray, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[FloatArray, IndexArray]:
    """As ``max_pool2d``, but the places of the maxima, of ``pixel_pooling.place_dtype``, instead of their indices."""
    n, c, _, w = input.shape
    shape = pool2d_output_shape(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    out_h, out_w = shape[2:]
    window = Window(kernel_size, stride, padding, dilation)
    if has_runs(input):
        output, places = empty_hwnc(shape, input.dtype), empty_hwnc(shape, place_dtype(window.taps()))
        pixel_pooling.max_pool(_pixels(input), _pixels(output), window, _pixels(places))
        return output, places
    output, places = np.empty(shape, input.dtype), np.empty(shape, place_dtype(window.taps()))
    planes, values, ranks = (array.reshape(n * c, *array.shape[2:]) for array in (input, output, places))

    # Columns are split by their phase within a horizontal stride, so that one tap of a row of windows is one contiguous
    # run: comparing it is 7 times faster than with a stride.
    taps = []
    for i, j in np.ndindex(kernel_size):
        rows, input_rows = overlap(out_h, i * dilation[0] - padding[0], stride[0], input.shape[2])
        shift, phase = divmod(j * dilation[1] - padding[1], stride[1])
        cols, phase_cols = overlap(out_w, shift, 1, -(-(w - phase) // stride[1]))
        taps.append(((slice(None), rows, cols), phase, (slice(None), input_rows, phase_cols)))
    # The first tap has the highest rank, so the highest rank among the taps that hold the maximum is that of the first.
    # Ranks are bytes, where that suffices, because each tap takes two passes over them.
    rank_of = np.arange(len(taps), 0, -1).astype(places.dtype)
    lowest = -np.inf if input.dtype.kind == "f" else np.iinfo(input.dtype).min

    for block in _blocks(planes):
        best, best_rank = values[block], ranks[block]
        best.fill(lowest)
        phases = [np.ascontiguousarray(planes[block, :, phase :: stride[1]]) for phase in range(stride[1])]
        for windows, phase, pixels in taps:
            np.maximum(best[windows], phases[phase][pixels], out=best[windows])
        best_rank.fill(0)
        for rank, (windows, phase, pixels) in zip(rank_of, taps, strict=True):
            is_best = np.equal(phases[phase][pixels], best[windows]).view(np.uint8)
            np.maximum(best_rank[windows], is_best * rank, out=best_rank[windows])
        if np.isnan(best).any():
            for rank, (windows, phase, pixels) in zip(rank_of, taps, strict=True):
                np.copyto(best_rank[windows], rank, where=np.isnan(phases[phase][pixels]))
        np.subtract(rank_of[0], best_rank, out=best_rank)
    return output, places


def max_pool2d_values(
    input: FloatArray, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> FloatArray:
    """As ``max_pool2d``, but the maxima alone, which take a third of the time, of an input in HWNC order."""
    output = empty_hwnc(
        pool2d_output_shape(input.shape, kernel_size, stride, padding, dilation, ceil_mode), input.dtype
    )
    pixel_pooling.max_pool(_pixels(input), _pixels(output), Window(kernel_size, stride, padding, dilation))
    return output


def place_indices(places: IndexArray, input_shape: tuple[int, ...], window: Window) -> IndexArray:
    """The indices of what lies at ``places``, (N, C, Ho, Wo), of windows over ``input_shape``; in the same order."""
    (h, w), (out_h, out_w) = input_shape[2:], places.shape[2:]
    dtype = index_dtype(h * w)
    (step_y, step_x), (pad_y, pad_x), dilation = window.stride, window.padding, window.dilation
    offsets = [i * dilation[0] * w + j * dilation[1] for i, j in np.ndindex(window.kernel_size)]
    corners = (np.arange(out_h)[:, None] * step_y - pad_y) * w + np.arange(out_w) * step_x - pad_x
    # A corner in the padding may be negative; unsigned numbers wrap around there and back with the offset.
    found: IndexArray = np.array(offsets, np.int64).astype(dtype)[places]
    found += corners.astype(dtype)
    return found


def max_pool2d_adjoint(
    grad: FloatArray, places: IndexArray, input_shape: tuple[int, ...], window: Window, hwnc: bool = False
) -> FloatArray:
    """Add each value to the pixel that was its window's maximum: the gradient of ``max_pool2d_places``.

    Args:
        grad: ``(N, C, Ho, Wo)``, of floating point.
        places: ``(N, C, Ho, Wo)``, from ``max_pool2d_places``.
        input_shape: ``(N, C, H, W)``.
        window: As there.
        hwnc: Whether to give the result in HWNC order, as its input was, else row-major.

    Returns:
        ``(N, C, H, W)``, of the grad's dtype.
    """
    if not hwnc:
        return max_pool2d_scatter(grad, place_indices(places, input_shape, window), input_shape)
    output = empty_hwnc(input_shape, grad.dtype)
    pixel_pooling.max_pool_backward(as_hwnc(grad), as_hwnc(places), _pixels(output), window)
    return output


def max_pool2d_at(input: FloatArray, places: IndexArray, window: Window) -> FloatArray:
    """Pick the pixels at ``places``: the adjoint of ``max_pool2d_adjoint``."""
    return max_pool2d_gather(input, place_indices(places, input.shape, window))


def max_pool2d_scatter(values: FloatArray, indices: IndexArray, input_shape: tuple[int, ...]) -> FloatArray:
    """Add each value to its place in a plane of zeros: the adjoint of max pooling for the windows' chosen pixels.

    Args:
        values: ``(N, C, Ho, Wo)``, of floating point.
        indices: ``(N, C, Ho, Wo)``, from ``max_pool2d`` or ``adaptive_max_pool2d``.
        input_shape: ``(N, C, H, W)``.

    Returns:
        ``(N, C, H, W)``, of the values' dtype.
    """
    n, c, h, w = input_shape
    output = np.zeros(input_shape, values.dtype)
    planes = output.reshape(n * c, h * w)
    windows = values.shape[2] * values.shape[3]
    values, indices = values.reshape(n * c, windows), indices.reshape(n * c, windows)
    for block in _blocks(planes):
        plane = np.arange(len(planes[block]))[:, None]
        np.add.at(planes[block].reshape(-1), (indices[block] + plane * (h * w)).reshape(-1), values[block].reshape(-1))
    return output


def max_pool2d_gather(input: FloatArray, indices: IndexArray) -> FloatArray:
    """Pick the pixels that max pooling chose: the adjoint of ``max_pool2d_scatter``.

    Args:
        input: ``(N, C, H, W)``, of any dtype.
        indices: ``(N, C, Ho, Wo)``, from ``max_pool2d`` or ``adaptive_max_pool2d``.

    Returns:
        ``(N, C, Ho, Wo)``, of the input's dtype.
    """
    n, c, h, w = input.shape
    windows = indices.shape[2] * indices.shape[3]
    output = np.empty(indices.shape, input.dtype)
    planes, places, values = (
        input.reshape(n * c, h * w),
        indices.reshape(n * c, windows),
        output.reshape(n * c, windows),
    )
    for block in _blocks(planes):
        values[block] = np.take_along_axis(planes[block], places[block].astype(np.intp), axis=1)
    return output


def max_unpool2d(values: FloatArray, indices: IndexArray, output_size: Pair) -> FloatArray:
    """Write each value to its place in a plane of zeros; of several for one place the last stays.

    Args:
        values: ``(N, C, H, W)``, of any dtype.
        indices: ``(N, C, H, W)``, numbers of pixels in the output's planes.
        output_size: ``(Ho, Wo)``.

    Returns:
        ``(N, C, Ho, Wo)``, of the values' dtype.
    """
    n, c, h, w = values.shape
    output = np.zeros((n, c, *output_size), values.dtype)
    planes = output.reshape(n * c, math.prod(output_size))
    values, indices = values.reshape(n * c, h * w), indices.reshape(n * c, h * w)
    for block in _blocks(planes):
        np.put_along_axis(planes[block], indices[block].astype(np.intp), values[block], axis=1)
    return output


@half_in_single
def avg_pool2d(
    input: FloatArray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
) -> FloatArray:
    """Mean of each window.

    Args:
        input: ``(N, C, H, W)``, float32 or float64.
        kernel_size: Pixels of a window.
        stride: Step between windows.
        padding: Zeros added on both sides, at most half of ``kernel_size``.
        ceil_mode: Whether to keep a last window that stands out of the padded input.
        count_include_pad: Whether the mean counts the padding's zeros. What a window of ``ceil_mode`` covers beyond the
            padding is never counted.
        divisor: What to divide each sum by instead of the number of pixels.

    Returns:
        ``(N, C, Ho, Wo)``, of the input's dtype.
    """
    n, c, _, w = input.shape
    shape = pool2d_output_shape(input.shape, kernel_size, stride, padding, (1, 1), ceil_mode)
    out_h, out_w = shape[2:]
    divisors = _divisors(input.shape, shape, kernel_size, stride, padding, count_include_pad, divisor, input.dtype)
    if has_runs(input):
        output = empty_hwnc(shape, input.dtype)
        window = Window(kernel_size, stride, padding)
        pixel_pooling.avg_pool(_pixels(input), _pixels(output), window, divisors)
        return output
    # A box filter is separable: sum down the columns, then along the rows.
    partial = np.zeros((n, c, out_h, w), input.dtype)
    for windows, pixels in _taps(input.shape[2], out_h, kernel_size[0], stride[0], padding[0]):
        partial[:, :, windows] += input[:, :, pixels]
    output = np.zeros(shape, input.dtype)
    for windows, pixels in _taps(w, out_w, kernel_size[1], stride[1], padding[1]):
        output[..., windows] += partial[..., pixels]
    output /= divisors
    return output


@half_in_single
def avg_pool2d_adjoint(
    grad: FloatArray,
    input_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
    hwnc: bool = False,
) -> FloatArray:
    """Spread each window's value evenly over its pixels: the adjoint, and so the gradient, of ``avg_pool2d``.

    Args:
        grad: ``(N, C, Ho, Wo)``, float32 or float64.
        input_shape: ``(N, C, H, W)``.
        kernel_size: As in ``avg_pool2d``.
        stride: As in ``avg_pool2d``.
        padding: As in ``avg_pool2d``.
        ceil_mode: As in ``avg_pool2d``.
        count_include_pad: As in ``avg_pool2d``.
        divisor: As in ``avg_pool2d``.
        hwnc: Whether to give the result in HWNC order, as its input was, else row-major.

    Returns:
        ``(N, C, H, W)``, of the grad's dtype.
    """
    n, c, h, w = input_shape
    shape = pool2d_output_shape(input_shape, kernel_size, stride, padding, (1, 1), ceil_mode)
    out_h, out_w = shape[2:]
    divisors = _divisors(input_shape, shape, kernel_size, stride, padding, count_include_pad, divisor, grad.dtype)
    if hwnc:
        output = empty_hwnc(input_shape, grad.dtype)
        window = Window(kernel_size, stride, padding)
        pixel_pooling.avg_pool_backward(as_hwnc(grad), _pixels(output), window, divisors)
        return output
    share = grad / divisors
    partial = np.zeros((n, c, out_h, w), grad.dtype)
    for windows, pixels in _taps(w, out_w, kernel_size[1], stride[1], padding[1]):
        partial[..., pixels] += share[..., windows]
    output = np.zeros((n, c, h, w), grad.dtype)
    for windows, pixels in _taps(h, out_h, kernel_size[0], stride[0], padding[0]):
        output[:, :, pixels] += partial[:, :, windows]
    return output


def max_pool2d_reference(
    input: FloatArray, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[FloatArray, IndexArray]:
    """``max_pool2d`` one window and one pixel at a time; the tests' reference."""
    shape = pool2d_output_shape(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    output, indices = np.empty(shape, input.dtype), np.full(shape, -1, np.int64)
    h, w = input.shape[2:]
    for n, c, oy, ox in np.ndindex(shape):
        for i, j in np.ndindex(kernel_size):
            y, x = oy * stride[0] - padding[0] + i * dilation[0], ox * stride[1] - padding[1] + j * dilation[1]
            if 0 <= y < h and 0 <= x < w:
                pixel = input[n, c, y, x]
                if indices[n, c, oy, ox] < 0 or pixel > output[n, c, oy, ox] or np.isnan(pixel):
                    output[n, c, oy, ox], indices[n, c, oy, ox] = pixel, y * w + x
    return output, indices


def avg_pool2d_reference(
    input: FloatArray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
) -> FloatArray:
    """``avg_pool2d`` one window at a time; the tests' reference."""
    shape = pool2d_output_shape(input.shape, kernel_size, stride, padding, (1, 1), ceil_mode)
    output = np.empty(shape, input.dtype)
    (h, w), (ph, pw) = input.shape[2:], padding
    padded = np.pad(input, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    real = np.pad(np.ones((h, w)), ((ph, ph), (pw, pw)), constant_values=float(count_include_pad))
    for y, x in np.ndindex(shape[2:]):
        rows = slice(y * stride[0], y * stride[0] + kernel_size[0])
        cols = slice(x * stride[1], x * stride[1] + kernel_size[1])
        output[:, :, y, x] = padded[:, :, rows, cols].sum(axis=(2, 3)) / (divisor or real[rows, cols].sum())
    return output


def _blocks(planes: FloatArray) -> Iterator[slice]:
    """Cut the first dimension into pieces of about ``_BLOCK_BYTES``."""
    count = max(1, _BLOCK_BYTES // max(1, math.prod(planes.shape[1:]) * planes.itemsize))
    for first in range(0, len(planes), count):
        yield slice(first, first + count)


def has_runs(images: NDArray[Any]) -> bool:
    """Whether images are in HWNC order; of what is row-major as well, a pixel or a plane, the planes are faster."""
    return is_hwnc(images) and not images.flags.c_contiguous


def _pixels(images: NDArray[Any]) -> NDArray[Any]:
    """A view (H, W, N, C)."""
    return images.transpose(2, 3, 0, 1)


def _taps(size: int, count: int, kernel_size: int, stride: int, padding: int) -> Iterator[tuple[slice, slice]]:
    """For each tap of ``count`` windows along a dimension: the windows in which it is no padding, its pixels there."""
    for tap in range(kernel_size):
        yield overlap(count, tap - padding, stride, size)


def _divisors(
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool,
    divisor: int | None,
    dtype: np.dtype[Any],
) -> FloatArray:
    """What ``avg_pool2d`` divides each sum by: ``(Ho, Wo)``, or one number for all."""
    if divisor is not None:
        return np.asarray(divisor, dtype)
    lengths: list[NDArray[np.int64]] = []
    for size, count, k, s, p in zip(input_shape[2:], output_shape[2:], kernel_size, stride, padding, strict=True):
        margin = p if count_include_pad else 0
        first = np.arange(count) * s - p
        lengths.append(np.minimum(first + k, size + margin) - np.maximum(first, -margin))
    return (lengths[0][:, None] * lengths[1]).astype(dtype)

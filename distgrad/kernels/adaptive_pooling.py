"""Adaptive pooling of ``(N, C, H, W)``: as many windows as are asked for, which cover the input.

Windows, ties and NaN follow PyTorch's ``adaptive_max_pool2d`` and ``adaptive_avg_pool2d``; indices and memory order are
those of ``kernels.pooling``.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.layout import empty_hwnc, zeros_hwnc
from distgrad.kernels.pixel_pooling import mean_of_pixels
from distgrad.kernels.pooling import has_runs, index_dtype
from distgrad.kernels.precision import half_in_single

FloatArray: TypeAlias = NDArray[Any]
IndexArray: TypeAlias = NDArray[np.integer[Any]]
Pair: TypeAlias = tuple[int, int]


def adaptive_max_pool2d(input: FloatArray, output_size: Pair) -> tuple[FloatArray, IndexArray]:
    """Maximum of each of ``output_size`` windows that cover the input, those of ``adaptive_avg_pool2d``; ties and NaN
    as in ``max_pool2d``.

    Args:
        input: ``(N, C, H, W)``, of floating point.
        output_size: ``(Ho, Wo)``.

    Returns:
        The maxima ``(N, C, Ho, Wo)``, of the input's dtype, and their indices, of the same shape.
    """
    n, c, h, w = input.shape
    out_h, out_w = output_size
    # Along the rows first: of the rows that hold the maximum the first one decides, and in it the first column.
    best, column = np.empty((n, c, h, out_w), input.dtype), np.empty((n, c, h, out_w), np.intp)
    for x, cols in enumerate(_adaptive_windows(w, out_w)):
        found = _last_nan_or_first_maximum(input[..., cols])
        best[..., x] = np.take_along_axis(input[..., cols], found[..., None], axis=3)[..., 0]
        np.add(found, cols.start, out=column[..., x])
    output, indices = np.empty((n, c, *output_size), input.dtype), np.empty((n, c, *output_size), index_dtype(h * w))
    for y, rows in enumerate(_adaptive_windows(h, out_h)):
        found = _last_nan_or_first_maximum(best[:, :, rows].swapaxes(2, 3))[:, :, None]
        output[:, :, y] = np.take_along_axis(best[:, :, rows], found, axis=2)[:, :, 0]
        chosen = np.take_along_axis(column[:, :, rows], found, axis=2)
        indices[:, :, y] = ((found + rows.start) * w + chosen)[:, :, 0]
    return output, indices


@half_in_single
def adaptive_avg_pool2d(input: FloatArray, output_size: Pair) -> FloatArray:
    """Mean of each of ``output_size`` windows that cover the input: rows ``floor(y*H/Ho)`` to ``ceil((y+1)*H/Ho)``.

    Args:
        input: ``(N, C, H, W)``, float32 or float64.
        output_size: ``(Ho, Wo)``.

    Returns:
        ``(N, C, Ho, Wo)``, of the input's dtype.
    """
    n, c, h, w = input.shape
    empty = empty_hwnc if has_runs(input) else np.empty
    if output_size == (1, 1) and has_runs(input):
        return mean_of_pixels(input.transpose(2, 3, 0, 1))[:, :, None, None]
    output = empty((n, c, *output_size), input.dtype)
    if output_size == (1, 1):
        input.reshape(n, c, h * w).mean(axis=2, out=output.reshape(n, c))
        return output
    partial = empty((n, c, output_size[0], w), input.dtype)
    for y, rows in enumerate(_adaptive_windows(h, output_size[0])):
        input[:, :, rows].mean(axis=2, out=partial[:, :, y])
    for x, cols in enumerate(_adaptive_windows(w, output_size[1])):
        partial[..., cols].mean(axis=3, out=output[..., x])
    return output


@half_in_single
def adaptive_avg_pool2d_adjoint(grad: FloatArray, input_shape: tuple[int, ...], hwnc: bool = False) -> FloatArray:
    """Spread each window's value evenly over its pixels: the adjoint, and so the gradient, of ``adaptive_avg_pool2d``.

    Args:
        grad: ``(N, C, Ho, Wo)``, float32 or float64.
        input_shape: ``(N, C, H, W)``.
        hwnc: Whether to give the result in HWNC order, as its input was, else row-major.

    Returns:
        ``(N, C, H, W)``, of the grad's dtype.
    """
    n, c, h, w = input_shape
    out_h, out_w = grad.shape[2:]
    zeros = zeros_hwnc if hwnc else np.zeros
    if (out_h, out_w) == (1, 1):
        output = (empty_hwnc if hwnc else np.empty)(input_shape, grad.dtype)
        np.copyto(output, grad / (h * w))
        return output
    output = zeros(input_shape, grad.dtype)
    partial = zeros((n, c, out_h, w), grad.dtype)
    for x, cols in enumerate(_adaptive_windows(w, out_w)):
        partial[..., cols] += grad[..., x : x + 1] / (cols.stop - cols.start)
    for y, rows in enumerate(_adaptive_windows(h, out_h)):
        output[:, :, rows] += partial[:, :, y : y + 1] / (rows.stop - rows.start)
    return output


def adaptive_max_pool2d_reference(input: FloatArray, output_size: Pair) -> tuple[FloatArray, IndexArray]:
    """``adaptive_max_pool2d`` one window and one pixel at a time; the tests' reference."""
    (h, w), (out_h, out_w) = input.shape[2:], output_size
    output = np.empty((*input.shape[:2], out_h, out_w), input.dtype)
    indices = np.full(output.shape, -1, np.int64)
    for n, c, oy, ox in np.ndindex(output.shape):
        for y in range(math.floor(oy * h / out_h), math.ceil((oy + 1) * h / out_h)):
            for x in range(math.floor(ox * w / out_w), math.ceil((ox + 1) * w / out_w)):
                pixel = input[n, c, y, x]
                if indices[n, c, oy, ox] < 0 or pixel > output[n, c, oy, ox] or np.isnan(pixel):
                    output[n, c, oy, ox], indices[n, c, oy, ox] = pixel, y * w + x
    return output, indices


def adaptive_avg_pool2d_reference(input: FloatArray, output_size: Pair) -> FloatArray:
    """``adaptive_avg_pool2d`` one window at a time; the tests' reference."""
    (h, w), (out_h, out_w) = input.shape[2:], output_size
    output = np.empty((*input.shape[:2], out_h, out_w), input.dtype)
    for y, x in np.ndindex(output_size):
        rows = slice(math.floor(y * h / out_h), math.ceil((y + 1) * h / out_h))
        cols = slice(math.floor(x * w / out_w), math.ceil((x + 1) * w / out_w))
        output[:, :, y, x] = input[:, :, rows, cols].mean(axis=(2, 3))
    return output


def _last_nan_or_first_maximum(windows: FloatArray) -> NDArray[np.intp]:
    """Where along the last dimension ``max_pool2d`` would find the maximum."""
    found: NDArray[np.intp] = windows.argmax(axis=-1)
    if np.isnan(np.take_along_axis(windows, found[..., None], axis=-1)).any():
        is_nan = np.isnan(windows)
        last = windows.shape[-1] - 1 - is_nan[..., ::-1].argmax(axis=-1)
        found = np.where(is_nan.any(axis=-1), last, found)
    return found


def _adaptive_windows(size: int, count: int) -> list[slice]:
    return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]

"""Batch normalization (Ioffe and Szegedy, 2015) of ``(N, C, *spatial)`` over every dimension but ``C``.

Results have the memory order of the input if that is HWNC (or a matrix), and are row-major otherwise. In HWNC order the
work is ``fused_norm``'s, a piece of memory at a time, whose sums are in the input's dtype within a piece and in float64
between them; here, for all other orders, everything is summed in float64. Half precision is computed in float32, and
its statistics are float32 too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels import fused_norm
from distgrad.kernels.layout import as_hwnc, is_hwnc

FloatArray: TypeAlias = NDArray[Any]

# Each pass goes through several operations a block of images at a time, so that all but the first find it in cache.
_BLOCK_BYTES = 1 << 20


def batch_norm_statistics(input: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and biased variance of each channel: ``var = mean((x - mean)**2)``.

    Args:
        input: ``(N, C, *spatial)``, float16, float32 or float64.

    Returns:
        Two float64 arrays ``(C,)``; zeros for an empty batch.
    """
    pixels = _pixels(_single(input))
    if pixels is not None:
        return fused_norm.channel_statistics(pixels)[:2]
    x = _three_d(input)
    count = max(1, x.shape[0] * x.shape[2])
    mean, var = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for block in _blocks(x):
        mean += x[block].sum(axis=(0, 2), dtype=np.float64)
    mean /= count
    for block in _blocks(x):
        centred = np.subtract(x[block], mean[:, None])
        var += np.einsum("ncs,ncs->c", centred, centred)
    var /= count
    return mean, var


def batch_norm_train(
    input: FloatArray, weight: FloatArray | None, bias: FloatArray | None, eps: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Normalize by the batch's own statistics: ``(x - mean) / sqrt(var + eps) * weight + bias``, with biased ``var``.

    Args:
        input: ``(N, C, *spatial)``, float16, float32 or float64.
        weight: ``(C,)``, or None for ones.
        bias: ``(C,)``, or None for zeros.
        eps: Added to the variance.

    Returns:
        The output, of the input's shape and dtype; ``mean``, ``invstd = 1 / sqrt(var + eps)`` and ``var``, ``(C,)``, in
        the dtype of the computation. An empty batch has mean 0 and variance 0.
    """
    mean, var = batch_norm_statistics(input)
    return batch_norm_normalize(input, mean, var, weight, bias, eps)


def batch_norm_normalize(
    input: FloatArray,
    mean: NDArray[np.float64],
    var: NDArray[np.float64],
    weight: FloatArray | None,
    bias: FloatArray | None,
    eps: float,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """``batch_norm_train`` by the statistics of a batch that ``input`` is only a part of.

    Args:
        input: ``(N, C, *spatial)``, float16, float32 or float64.
        mean: ``(C,)``, of the whole batch.
        var: ``(C,)``, likewise, biased.
        weight: ``(C,)``, or None for ones.
        bias: ``(C,)``, or None for zeros.
        eps: Added to the variance.

    Returns:
        As ``batch_norm_train``.
    """
    single = _single(input)
    invstd = inverse_deviation(var, eps)
    pixels = _pixels(single)
    if pixels is not None:
        dtype = single.dtype
        output = _normalized(single, pixels, *fused_norm.coefficients(mean, invstd, weight, bias, dtype))
        output = output.astype(input.dtype, copy=False)
        return output, mean.astype(dtype), invstd.astype(dtype), var.astype(dtype)
    x = _three_d(single)
    output = np.empty(x.shape, x.dtype)
    scale = invstd if weight is None else invstd * weight
    rounded_mean = mean.astype(x.dtype)
    # The mean's rounding error goes into the shift, or it would weigh in where the mean is large beside the deviation.
    shift = (rounded_mean - mean) * scale if bias is None else (rounded_mean - mean) * scale + bias
    center, scale, shift = (v.astype(x.dtype)[:, None] for v in (mean, scale, shift))
    for block in _blocks(x):
        np.subtract(x[block], center, out=output[block])
        output[block] *= scale
        output[block] += shift
    output = output.reshape(input.shape).astype(input.dtype, copy=False)
    return output, rounded_mean, invstd.astype(x.dtype), var.astype(x.dtype)


def move_statistics(
    running_mean: FloatArray, running_var: FloatArray, mean: FloatArray, var: FloatArray, count: int, momentum: float
) -> None:
    """Moves the running statistics towards those of a batch, in place; the variance towards the unbiased one.

    Args:
        running_mean: ``(C,)``, written.
        running_var: ``(C,)``, written.
        mean: ``(C,)``, of the batch.
        var: ``(C,)``, likewise, biased.
        count: Elements a channel of the batch; an empty batch has no statistics and moves nothing.
        momentum: How far, 0 to 1.
    """
    if count > 0:
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (count / (count - 1)) - running_var)


def batch_norm_eval(
    input: FloatArray,
    weight: FloatArray | None,
    bias: FloatArray | None,
    running_mean: FloatArray,
    running_var: FloatArray,
    eps: float,
) -> FloatArray:
    """Normalize by given statistics: ``x * scale + shift``, one multiplication and one addition an element.

    ``scale = weight / sqrt(running_var + eps)`` and ``shift = bias - running_mean * scale`` are computed in float64 and
    rounded once, so with the unit roundoff ``u`` (2**-24 for float32) the error is at most
    ``u * (3 * |x * scale| + 2 * |shift|)`` to first order.

    Args:
        input: ``(N, C, *spatial)``, float16, float32 or float64.
        weight: ``(C,)``, or None for ones.
        bias: ``(C,)``, or None for zeros.
        running_mean: ``(C,)``.
        running_var: ``(C,)``.
        eps: Added to the variance.

    Returns:
        The output, of the input's shape and dtype.
    """
    scale = inverse_deviation(running_var.astype(np.float64), eps)
    if weight is not None:
        scale = scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    single = _single(input)
    pixels = _pixels(single)
    if pixels is not None:
        return _normalized(single, pixels, scale, shift).astype(input.dtype, copy=False)
    x = _three_d(single)
    output = np.empty(x.shape, x.dtype)
    scale, shift = scale.astype(x.dtype)[:, None], shift.astype(x.dtype)[:, None]
    for block in _blocks(x):
        np.multiply(x[block], scale, out=output[block])
        output[block] += shift
    return output.reshape(input.shape).astype(input.dtype, copy=False)


def batch_norm_scale(grad_output: FloatArray, scale: FloatArray) -> FloatArray:
    """``grad_output * scale``: the gradient of ``batch_norm_eval``'s output with respect to its input.

    Args:
        grad_output: ``(N, C, *spatial)``, float16, float32 or float64.
        scale: ``(C,)``, ``weight / sqrt(running_var + eps)``.

    Returns:
        An array of ``grad_output``'s shape and dtype.
    """
    single = _single(grad_output)
    pixels = _pixels(single)
    output: FloatArray
    if pixels is not None:
        output = np.empty_like(single)
        fused_norm.scale_gradient(pixels, scale, _as_pixels(output))
        return output.astype(grad_output.dtype, copy=False)
    g = _three_d(single)
    output = np.multiply(g, scale.astype(g.dtype)[:, None])
    return output.reshape(grad_output.shape).astype(grad_output.dtype, copy=False)


def batch_norm_train_backward(
    grad_output: FloatArray,
    input: FloatArray,
    weight: FloatArray | None,
    mean: FloatArray,
    invstd: FloatArray,
    needs: tuple[bool, bool, bool],
) -> tuple[FloatArray | None, FloatArray | None, FloatArray | None]:
    """Gradients of ``batch_norm_train``'s output, through the batch's statistics too.

    With ``xhat = (x - mean) * invstd``, ``M`` elements a channel and sums over them: ``grad_bias = sum(g)``,
    ``grad_weight = sum(g * xhat)``, ``grad_input = weight * invstd * (g - grad_bias / M - xhat * grad_weight / M)``
    (Ioffe and Szegedy, 2015, section 3, gathered).

    Args:
        grad_output: ``(N, C, *spatial)``, float16, float32 or float64.
        input: What ``batch_norm_train`` was given, of the same shape and dtype.
        weight: ``(C,)``, or None for ones.
        mean: ``(C,)``, from ``batch_norm_train``.
        invstd: ``(C,)``, from ``batch_norm_train``.
        needs: Which of the three gradients to compute.

    Returns:
        ``grad_input``, of the input's shape and dtype; ``grad_weight`` and ``grad_bias``, ``(C,)``, in the dtype of the
        computation; None for those not needed.
    """
    needs_input, needs_weight, needs_bias = needs
    dtype = _single(input).dtype
    if not (needs_input or needs_weight):
        return None, None, _channel_sums(grad_output, input).astype(dtype) if needs_bias else None
    grad_output = _in_order_of(input, grad_output)
    grad_sum, grad_dot = batch_norm_backward_sums(grad_output, input, mean, invstd)
    grad_input: FloatArray | None = None
    if needs_input:
        count = input.size // input.shape[1]
        grad_input = batch_norm_backward_input(grad_output, input, weight, mean, invstd, grad_sum, grad_dot, count)
    grad_weight = (grad_dot * invstd).astype(dtype) if needs_weight else None
    return grad_input, grad_weight, grad_sum.astype(dtype) if needs_bias else None


def batch_norm_backward_sums(
    grad_output: FloatArray, input: FloatArray, mean: FloatArray, invstd: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the gradients of ``batch_norm_train`` need to know of a batch; those of its parts add up.

    Args:
        grad_output: ``(N, C, *spatial)``, float16, float32 or float64.
        input: What was normalized, of the same shape and dtype.
        mean: ``(C,)``, from ``batch_norm_train``.
        invstd: ``(C,)``, from ``batch_norm_train``.

    Returns:
        ``sum(g)`` and ``sum(g * (x - mean))``, float64 ``(C,)``.
    """
    single = _single(input)
    pixels = _pixels(single)
    center = mean.astype(np.float64)
    if pixels is not None:
        g = _as_pixels(_in_order_of(single, grad_output))
        centered = fused_norm.far_mean(center * invstd, 1)
        return fused_norm.masked_gradient_sums(g, pixels, center, centered=centered)
    x, g = _three_d(single), _three_d(_single(grad_output))
    grad_sum, grad_dot = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for block in _blocks(x):
        grad_sum += g[block].sum(axis=(0, 2), dtype=np.float64)
        grad_dot += np.einsum("ncs,ncs->c", np.subtract(x[block], center[:, None]), g[block], dtype=np.float64)
    return grad_sum, grad_dot


def batch_norm_backward_input(
    grad_output: FloatArray,
    input: FloatArray,
    weight: FloatArray | None,
    mean: FloatArray,
    invstd: FloatArray,
    grad_sum: NDArray[np.float64],
    grad_dot: NDArray[np.float64],
    count: float,
) -> FloatArray:
    """``scale * (g - grad_sum / count - (x - mean) * invstd**2 * grad_dot / count)`` with ``scale = weight * invstd``.

    Args:
        grad_output: ``(N, C, *spatial)``, float16, float32 or float64.
        input: What was normalized, of the same shape and dtype.
        weight: ``(C,)``, or None for ones.
        mean: ``(C,)``, from ``batch_norm_train``.
        invstd: ``(C,)``, from ``batch_norm_train``.
        grad_sum: ``(C,)``, over the whole batch, from ``batch_norm_backward_sums``.
        grad_dot: ``(C,)``, likewise.
        count: Elements a channel of the whole batch.

    Returns:
        The gradient of the input, of its shape and dtype.
    """
    single = _single(input)
    pixels = _pixels(single)
    inverse = invstd.astype(np.float64)
    slope = inverse * inverse * grad_dot / max(1, count)
    level = grad_sum / max(1, count)
    scale = inverse if weight is None else inverse * weight
    output: FloatArray
    if pixels is not None:
        output = np.empty_like(single)
        g = _as_pixels(_in_order_of(single, grad_output))
        center = mean.astype(np.float64)
        centered = fused_norm.far_mean(center * inverse, 1)
        fused_norm.normalize_backward(g, pixels, scale, center, level, slope, _as_pixels(output), centered=centered)
        return output.astype(input.dtype, copy=False)
    x, g = _three_d(single), _three_d(_single(grad_output))
    slope, level, scale, center = (v.astype(x.dtype)[:, None] for v in (slope, level, scale, mean))
    output = np.empty(x.shape, x.dtype)
    for block in _blocks(x):
        out = output[block]
        np.subtract(x[block], center, out=out)
        out *= slope
        np.subtract(g[block], out, out=out)
        out -= level
        out *= scale
    return output.reshape(input.shape).astype(input.dtype, copy=False)


def batch_norm_train_reference(
    input: FloatArray, weight: FloatArray | None, bias: FloatArray | None, eps: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """``batch_norm_train`` one channel at a time; the tests' reference."""
    output = np.empty(input.shape, input.dtype)
    mean, invstd, var = (np.empty(input.shape[1], input.dtype) for _ in range(3))
    for c in range(input.shape[1]):
        x = input[:, c]
        mean[c], var[c] = x.mean(), x.var()
        invstd[c] = 1 / np.sqrt(x.var() + eps)
        output[:, c] = (x - mean[c]) * invstd[c]
        output[:, c] *= 1 if weight is None else weight[c]
        output[:, c] += 0 if bias is None else bias[c]
    return output, mean, invstd, var


def batch_norm_eval_reference(
    input: FloatArray,
    weight: FloatArray | None,
    bias: FloatArray | None,
    running_mean: FloatArray,
    running_var: FloatArray,
    eps: float,
) -> FloatArray:
    """``batch_norm_eval`` one channel at a time; the tests' reference."""
    output = np.empty(input.shape, input.dtype)
    for c in range(input.shape[1]):
        output[:, c] = (input[:, c] - running_mean[c]) / np.sqrt(running_var[c] + eps)
        output[:, c] *= 1 if weight is None else weight[c]
        output[:, c] += 0 if bias is None else bias[c]
    return output


def _single(array: FloatArray) -> FloatArray:
    """Half precision as float32, in the same memory order."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _three_d(array: FloatArray) -> FloatArray:
    """``(N, C, *spatial)`` as ``(N, C, S)``."""
    return array.reshape(*array.shape[:2], math.prod(array.shape[2:]))


def _pixels(array: FloatArray) -> FloatArray | None:
    """A view (H, W, N, C) of what has contiguous runs of all images' channels: images in HWNC order, and matrices."""
    if array.ndim == 4 and is_hwnc(array):
        return _as_pixels(array)
    if array.ndim == 2 and array.flags.c_contiguous and array.size:
        return _as_pixels(array)
    return None


def _as_pixels(array: FloatArray) -> FloatArray:
    return array.transpose(2, 3, 0, 1) if array.ndim == 4 else array[None, None]


def _normalized(
    array: FloatArray, pixels: FloatArray, scale: FloatArray, shift: FloatArray, center: FloatArray | None = None
) -> FloatArray:
    output = np.empty_like(array)  # in its memory order
    fused_norm.normalize(pixels, scale, shift, _as_pixels(output), center=center)
    return output


def _in_order_of(input: FloatArray, grad_output: FloatArray) -> FloatArray:
    """The gradient in single precision and, where the work goes by pixels, in the memory order of ``input``."""
    single = _single(grad_output)
    if _pixels(input) is None:
        return single
    return as_hwnc(single).transpose(2, 3, 0, 1) if input.ndim == 4 else np.ascontiguousarray(single)


def _channel_sums(grad_output: FloatArray, input: FloatArray) -> NDArray[np.float64]:
    """``sum(g)`` alone."""
    if _pixels(_single(input)) is not None:
        return fused_norm.channel_sums(_as_pixels(_in_order_of(input, grad_output)))
    g = _three_d(_single(grad_output))
    total = np.zeros(g.shape[1])
    for block in _blocks(g):
        total += g[block].sum(axis=(0, 2), dtype=np.float64)
    return total


def _blocks(x: FloatArray) -> Iterator[slice]:
    """Cut the batch into pieces of about ``_BLOCK_BYTES``."""
    count = max(1, _BLOCK_BYTES // max(1, math.prod(x.shape[1:]) * x.itemsize))
    for first in range(0, len(x), count):
        yield slice(first, first + count)


def inverse_deviation(var: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    """``1 / sqrt(var + eps)``, and 0 where both are 0, as in PyTorch: a constant channel normalizes to its bias."""
    positive = var + eps != 0
    return np.divide(1.0, np.sqrt(var + eps), out=np.zeros(len(var)), where=positive)

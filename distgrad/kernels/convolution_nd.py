"""Convolution over one, two or three dimensions, by way of the two-dimensional kernels.

A row is an image of height 1. Each output plane of a volume is a two-dimensional convolution of the input planes under
its taps, which lie one after another as further channels.

The arguments are those of ``convolution.conv2d``, ``conv2d_input`` and ``conv2d_weight`` with as many numbers in
``stride``, ``padding`` and ``dilation`` as there are dimensions behind the channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.convolution import Pair, conv2d, conv2d_input, conv2d_weight
from distgrad.kernels.precision import half_in_single
from distgrad.kernels.window import overlap, window_count

FloatArray: TypeAlias = NDArray[Any]
Lengths: TypeAlias = tuple[int, ...]

# The planes under the taps of one output plane are copied together for so many images at once as fit in this.
_BLOCK_BYTES = 4 << 20


@half_in_single
def conv(
    input: FloatArray,
    weight: FloatArray,
    stride: Lengths,
    padding: Lengths,
    dilation: Lengths,
    groups: int,
    bias: FloatArray | None = None,
) -> FloatArray:
    """Convolve ``(N, C, *size)`` with ``(K, C/groups, *kernel_size)`` and add ``(K,)``: ``(N, K, *output size)``."""
    pairs = _pairs(stride, padding, dilation)
    if len(stride) == 1:
        return conv2d(_row(input), _row(weight), *pairs, groups, bias)[:, :, 0]
    if len(stride) == 2:
        return conv2d(input, weight, *pairs, groups, bias)
    sizes = map(window_count, input.shape[2:], weight.shape[2:], stride, padding, dilation)
    output = np.empty((len(input), len(weight), *sizes), input.dtype)
    for z, taps, planes in _output_planes(output, weight.shape, input.shape, stride, padding, dilation):
        if taps.start == taps.stop:
            output[:, :, z] = 0
            continue
        kernel = _as_channels(weight[:, :, taps])
        for images in _image_blocks(input[:, :, planes]):
            output[images, :, z] = conv2d(_as_channels(input[images, :, planes]), kernel, *pairs, groups)
    return biased(output, bias)


@half_in_single
def conv_input(
    grad_output: FloatArray,
    weight: FloatArray,
    input_shape: tuple[int, ...],
    stride: Lengths,
    padding: Lengths,
    dilation: Lengths,
    groups: int,
) -> FloatArray:
    """Gradient of ``conv`` with respect to its input, of ``input_shape``: the transposed convolution."""
    pairs = _pairs(stride, padding, dilation)
    if len(stride) == 1:
        shape = (*input_shape[:2], 1, *input_shape[2:])
        return conv2d_input(_row(grad_output), _row(weight), shape, *pairs, groups)[:, :, 0]
    if len(stride) == 2:
        return conv2d_input(grad_output, weight, input_shape, *pairs, groups)
    grad_input = np.zeros(input_shape, grad_output.dtype)
    for z, taps, planes in _output_planes(grad_output, weight.shape, input_shape, stride, padding, dilation):
        if taps.start == taps.stop:
            continue
        kernel = _as_channels(weight[:, :, taps])
        for images in _image_blocks(grad_input[:, :, planes]):
            target = grad_input[images, :, planes]
            shape = (len(target), target.shape[1] * target.shape[2], *target.shape[3:])
            part = conv2d_input(grad_output[images, :, z], kernel, shape, *pairs, groups)
            target += part.reshape(target.shape)
    return grad_input


@half_in_single
def conv_weight(
    input: FloatArray,
    grad_output: FloatArray,
    weight_shape: tuple[int, ...],
    stride: Lengths,
    padding: Lengths,
    dilation: Lengths,
    groups: int,
) -> FloatArray:
    """Gradient of ``conv`` with respect to its weight, of ``weight_shape``."""
    pairs = _pairs(stride, padding, dilation)
    if len(stride) == 1:
        shape = (*weight_shape[:2], 1, *weight_shape[2:])
        return conv2d_weight(_row(input), _row(grad_output), shape, *pairs, groups)[:, :, 0]
    if len(stride) == 2:
        return conv2d_weight(input, grad_output, weight_shape, *pairs, groups)
    grad_weight = np.zeros(weight_shape, input.dtype)
    for z, taps, planes in _output_planes(grad_output, weight_shape, input.shape, stride, padding, dilation):
        if taps.start == taps.stop:
            continue
        target = grad_weight[:, :, taps]
        shape = (len(target), target.shape[1] * target.shape[2], *target.shape[3:])
        for images in _image_blocks(input[:, :, planes]):
            x, g = _as_channels(input[images, :, planes]), grad_output[images, :, z]
            target += conv2d_weight(x, g, shape, *pairs, groups).reshape(target.shape)
    return grad_weight


def conv_reference(
    input: FloatArray, weight: FloatArray, stride: Lengths, padding: Lengths, dilation: Lengths, groups: int
) -> FloatArray:
    """``conv`` as its definition reads, one window at a time; the tests' reference."""
    sizes = tuple(map(window_count, input.shape[2:], weight.shape[2:], stride, padding, dilation))
    output = np.zeros((len(input), len(weight), *sizes), input.dtype)
    padded = np.pad(input, ((0, 0), (0, 0), *((p, p) for p in padding)))
    per_group = weight.shape[1]
    for k, *place in np.ndindex(output.shape[1:]):
        first = k // (len(weight) // groups) * per_group
        window = tuple(
            slice(at * s, at * s + d * (size - 1) + 1, d)
            for at, s, d, size in zip(place, stride, dilation, weight.shape[2:], strict=True)
        )
        products = padded[:, first : first + per_group, *window] * weight[k]
        output[:, k, *place] = products.sum(axis=tuple(range(1, input.ndim)))
    return output


def biased(output: FloatArray, bias: FloatArray | None) -> FloatArray:
    """``output``, (N, K, *size), after ``bias``, (K,), was added to it in place."""
    if bias is not None:
        output += bias.reshape(-1, *(1,) * (output.ndim - 2))
    return output


def _pairs(*arguments: Lengths) -> tuple[Pair, Pair, Pair]:
    """Stride, padding and dilation of the last two dimensions; a row is as if one pixel high."""
    pairs = ((neutral, *lengths)[-2:] for neutral, lengths in zip((1, 0, 1), arguments, strict=True))
    stride, padding, dilation = ((vertical, horizontal) for vertical, horizontal in pairs)
    return stride, padding, dilation


def _row(array: FloatArray) -> FloatArray:
    """View ``(N, C, L)`` as ``(N, C, 1, L)``."""
    return array[:, :, None]


def _as_channels(planes: FloatArray) -> FloatArray:
    """``(N, C, D, H, W)`` as ``(N, C*D, H, W)``."""
    n, c, d, h, w = planes.shape
    return planes.reshape(n, c * d, h, w)


def _output_planes(
    output: FloatArray,
    weight_shape: tuple[int, ...],
    input_shape: tuple[int, ...],
    stride: Lengths,
    padding: Lengths,
    dilation: Lengths,
) -> Iterator[tuple[int, slice, slice]]:
    """For each plane of the output: its number, the taps that do not lie in the padding, the input planes there."""
    for z in range(output.shape[2]):
        taps, planes = overlap(weight_shape[2], z * stride[0] - padding[0], dilation[0], input_shape[2])
        yield z, taps, planes


def _image_blocks(planes: FloatArray) -> Iterator[slice]:
    """Cut the first dimension into pieces of about ``_BLOCK_BYTES``."""
    count = max(1, _BLOCK_BYTES * len(planes) // max(1, planes.nbytes))
    for first in range(0, len(planes), count):
        yield slice(first, first + count)

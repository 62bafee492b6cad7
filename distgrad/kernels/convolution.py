"""2-d convolution (cross-correlation, as PyTorch's ``conv2d``) and its adjoints.

The three functions are the three partial derivatives of one trilinear form,
``<conv2d(x, w), g> == <x, conv2d_input(g, w)> == <w, conv2d_weight(x, g)>``, so a VJP of any of them, of any order, is
again one of the three.

Throughout: ``N`` images, ``C`` channels in, ``K`` channels out, ``G`` groups, kernel ``kh x kw``, input ``H x W``,
output ``Ho x Wo``. ``stride``, ``padding`` and ``dilation`` are ``(vertical, horizontal)`` pairs.

Arguments may lie in memory in any order. A convolution with enough work runs by a plan (``convolution_choice``) and
gives images in HWNC order (``layout``); a small one, where the calls cost more than the arithmetic, and one of integers
run through ``im2col`` and give C-contiguous images. A weight's gradient is always C-contiguous.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad import backends
from distgrad.kernels import im2col
from distgrad.kernels.convolution_choice import choose
from distgrad.kernels.convolution_plan import ConvolutionPlan, ConvolutionShape
from distgrad.kernels.kept_weights import kept
from distgrad.kernels.layout import empty_hwnc
from distgrad.kernels.window import window_count
from distgrad.kernels.workspace import workspace

FloatArray: TypeAlias = NDArray[Any]
Pair: TypeAlias = tuple[int, int]
Shape4: TypeAlias = tuple[int, int, int, int]

# A convolution with fewer multiplications than this runs through im2col. Measured on one Zen 5 core, in microseconds,
# im2col / plan: 64 / 133 at 2^20.8, 180 / 130 at 2^22.2, 690 / 340 at 2^25.2 multiplications.
_SMALL = 1 << 22
# The same for a depthwise convolution: 69 / 108 at 2^17.2, 251 / 177 at 2^19.2.
_SMALL_DEPTHWISE = 3 << 17


def conv2d_output_shape(
    input_shape: tuple[int, ...], weight_shape: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair
) -> Shape4:
    """Return ``(N, K, Ho, Wo)`` for an input ``(N, C, H, W)`` and a weight ``(K, C/groups, kh, kw)``.

    ``Ho = floor((H + 2*padding - dilation*(kh - 1) - 1) / stride) + 1``, as in PyTorch's ``Conv2d``. A kernel larger
    than the padded input gives ``Ho <= 0`` or ``Wo <= 0``, which the caller has to refuse.
    """
    out_h, out_w = map(window_count, input_shape[2:], weight_shape[2:], stride, padding, dilation)
    return input_shape[0], weight_shape[0], out_h, out_w


def conv2d(
    input: FloatArray,
    weight: FloatArray,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    bias: FloatArray | None = None,
) -> FloatArray:
    """Convolve: ``output[n,k,y,x] = sum over c,i,j of weight[k,c,i,j] * padded[n, c, y*sh + i*dh, x*sw + j*dw]``.

    Args:
        input: ``(N, C, H, W)``, float32 or float64.
        weight: ``(K, C/groups, kh, kw)``, of the same dtype.
        stride: Step between windows, in input pixels.
        padding: Zeros added on both sides, in input pixels.
        dilation: Step between the taps of a window, in input pixels.
        groups: Output channels ``g*K/G .. (g+1)*K/G`` see input channels ``g*C/G .. (g+1)*C/G`` only.
        bias: ``(K,)``, added to every pixel.

    Returns:
        ``(N, K, Ho, Wo)``, of the inputs' dtype.
    """
    plan = _plan(input, weight.shape, input.shape, stride, padding, dilation, groups)
    if plan is None:
        output = im2col.conv2d(input, weight, stride, padding, dilation, groups)
        if bias is not None:
            output += bias.reshape(-1, 1, 1)
        return output
    s = plan.shape
    output = empty_hwnc((s.n, s.k, s.out_h, s.out_w), input.dtype)
    packed = kept(weight, plan, "forward", lambda: plan.pack(weight))
    plan.forward(input.transpose(2, 3, 0, 1), packed, output.transpose(2, 3, 0, 1), workspace(), bias)
    return output


def conv2d_input(
    grad_output: FloatArray,
    weight: FloatArray,
    input_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> FloatArray:
    """Gradient of ``conv2d`` with respect to its input: the transposed convolution of ``grad_output`` with ``weight``.

    Input pixels that no window covers, such as last rows that a stride leaves over, get zero.

    Args:
        grad_output: ``(N, K, Ho, Wo)``, float32 or float64.
        weight: ``(K, C/groups, kh, kw)``, of the same dtype.
        input_shape: ``(N, C, H, W)``; the output's shape alone does not tell it where ``stride > 1``.
        stride: As in ``conv2d``.
        padding: As in ``conv2d``.
        dilation: As in ``conv2d``.
        groups: As in ``conv2d``.

    Returns:
        ``(N, C, H, W)``, of the inputs' dtype.
    """
    plan = _plan(grad_output, weight.shape, input_shape, stride, padding, dilation, groups)
    if plan is None:
        return im2col.conv2d_input(grad_output, weight, input_shape, stride, padding, dilation, groups)
    grad_input = empty_hwnc(input_shape, grad_output.dtype)
    into = grad_input.transpose(2, 3, 0, 1)
    plan.backward(None, grad_output.transpose(2, 3, 0, 1), weight, into, None, workspace())
    return grad_input


def conv2d_weight(
    input: FloatArray,
    grad_output: FloatArray,
    weight_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> FloatArray:
    """Gradient of ``conv2d`` with respect to its weight: the correlation of ``input`` with ``grad_output``.

    Args:
        input: ``(N, C, H, W)``, float32 or float64.
        grad_output: ``(N, K, Ho, Wo)``, of the same dtype.
        weight_shape: ``(K, C/groups, kh, kw)``.
        stride: As in ``conv2d``.
        padding: As in ``conv2d``.
        dilation: As in ``conv2d``.
        groups: As in ``conv2d``.

    Returns:
        ``(K, C/groups, kh, kw)``, of the inputs' dtype; zeros for an empty batch.
    """
    plan = _plan(input, weight_shape, input.shape, stride, padding, dilation, groups)
    if plan is None:
        return im2col.conv2d_weight(input, grad_output, weight_shape, stride, padding, dilation, groups)
    grad_weight = np.empty(weight_shape, input.dtype)
    weight = np.broadcast_to(input.dtype.type(), weight_shape)  # its values do not matter here
    x, grad = input.transpose(2, 3, 0, 1), grad_output.transpose(2, 3, 0, 1)
    plan.backward(x, grad, weight, None, grad_weight, workspace())
    return grad_weight


def _plan(
    operand: FloatArray,
    weight_shape: tuple[int, ...],
    input_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> ConvolutionPlan | None:
    """How to compute it; None for the simple way."""
    if operand.dtype.char not in "fd":
        return None
    n, c, h, w = input_shape
    k, per_group, kh, kw = weight_shape
    # an upper bound of the multiplications, sooner than a shape is made
    least = min(_SMALL, _SMALL_DEPTHWISE) if groups == c > 1 else _SMALL
    if n * h * w * k * per_group * kh * kw < least * stride[0] * stride[1]:
        return None
    shape = ConvolutionShape(n, c, h, w, k, kh, kw, stride, padding, dilation, groups, operand.dtype)
    return choose(shape, backends.convolution)


def conv2d_reference(
    input: FloatArray, weight: FloatArray, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> FloatArray:
    """``conv2d`` as its definition reads, one window at a time; the tests' reference."""
    shape = conv2d_output_shape(input.shape, weight.shape, stride, padding, dilation)
    output = np.zeros(shape, input.dtype)
    padded = np.pad(input, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    channels_out, channels_in, kh, kw = weight.shape
    for k, y, x in np.ndindex(shape[1:]):
        first = k // (channels_out // groups) * channels_in
        rows = slice(y * stride[0], y * stride[0] + dilation[0] * (kh - 1) + 1, dilation[0])
        cols = slice(x * stride[1], x * stride[1] + dilation[1] * (kw - 1) + 1, dilation[1])
        output[:, k, y, x] = (padded[:, first : first + channels_in, rows, cols] * weight[k]).sum(axis=(1, 2, 3))
    return output

"""Batch normalization with what surrounds it, in HWNC order: the fewest passes over memory, each in pieces in cache.

Arrays are (H, W, N, C) with contiguous runs of ``N*C`` numbers; rows and pixels may have gaps, so that a block of
rows, a sub-batch, or the output of ``layout.as_hwnc`` can be given. float32 and float64. Values a channel are (C,).

A training step asks for, in this order: ``ChannelStatistics`` while a convolution's rows are in cache,
``normalize`` with the activation and the residual addition; backward ``masked_gradient_sums``, then
``normalize_backward``. With frozen statistics it is ``normalize`` and ``scale_gradient``.

An *activation* is None, ``"relu"``, or a pair ``(low, high)`` of limits, as in ``hardtanh``. Its gradient is 0 at the
limits, as PyTorch's is, and where the output is NaN it passes.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.jit import channels
from distgrad.kernels.lines import LineSums, pieces, tiled
from distgrad.kernels.workspace import Workspace, workspace

FloatArray: TypeAlias = NDArray[Any]
Doubles: TypeAlias = NDArray[np.float64]
Activation: TypeAlias = Literal["relu"] | tuple[float, float] | None

# How many times its deviation a channel's mean may be before it is subtracted ahead of everything else. Below, leaving
# that pass out costs at most so many times the rounding error of one operation.
_FAR = 4.0
_WORDS = {4: np.int32, 8: np.int64}


class ChannelStatistics:
    """Mean and variance of each channel, of blocks that are added while they are in cache.

    Sums are of the distances from a pivot, so that nothing is lost where the mean is large beside the deviation: the
    mean of the first piece, or 0 where the deviation is about as large as that. A piece is summed in its dtype, the
    pieces in float64. The same blocks in the same order give the same bits.

    Args:
        channels: C.
        dtype: of the blocks, float32 or float64.
        space: scratch memory; the thread's without it.
    """

    def __init__(self, channels: int, dtype: np.dtype[Any] | type, space: Workspace | None = None) -> None:
        self.channels = channels
        self.dtype = np.dtype(dtype)
        self.count = 0
        self._space = space
        self._pivot: FloatArray | None = None  # (C,)
        self._row: FloatArray | None = None  # the pivot as a line
        self._sum, self._square = LineSums(channels), LineSums(channels)

    def add(self, block: FloatArray) -> None:
        """Counts the pixels of ``block``, (rows, W, N, C)."""
        if channels.takes(block):
            self._count_compiled(block)
            self.count += block.size // self.channels
            return
        space = self._space or workspace()
        scratch = None
        for (lines,) in pieces(block):
            if scratch is None or scratch.shape != lines.shape:
                scratch = space.get("norm: distances", lines.shape, self.dtype)
            self._count(lines, scratch)
            if self._pivot is None:
                self._pivot = self._choose_pivot(lines.size // self.channels, self._sum.total(), self._square.total())
                if self._pivot.any():
                    self._sum, self._square = LineSums(self.channels), LineSums(self.channels)
                    self._count(lines, scratch)
        self.count += block.size // self.channels

    def _count_compiled(self, block: FloatArray) -> None:
        if self._pivot is None:
            part = block[:1] if channels.takes(block[:1]) else block
            total, square = channels.run("statistics", (part,), (None,))
            self._pivot = self._choose_pivot(part.size // self.channels, total, square)
        total, square = channels.run("statistics", (block,), (self._pivot if self._pivot.any() else None,))
        self._sum.add_total(total)
        self._square.add_total(square)

    def _count(self, lines: FloatArray, scratch: FloatArray) -> None:
        if self._pivot is not None and self._pivot.any():
            if self._row is None or len(self._row) != lines.shape[-1]:
                self._row = tiled(self._pivot, lines.shape[-1], self.dtype)
            lines = np.subtract(lines, self._row, out=scratch)
        self._sum.add(lines)
        self._square.add(np.multiply(lines, lines, out=scratch))

    def _choose_pivot(self, count: int, total: Doubles, squares: Doubles) -> FloatArray:
        """From the sums of one piece. That its variance may be inexact does not matter for the comparison."""
        mean = total / count
        square = np.square(mean)
        far = square > _FAR * _FAR * (squares / count - square)
        return np.where(far, mean, 0).astype(self.dtype)

    def result(self) -> tuple[Doubles, Doubles, int]:
        """The mean and the biased variance, float64 (C,), and how many pixels they are of; zeros without any."""
        if self._pivot is None:
            return np.zeros(self.channels), np.zeros(self.channels), 0
        offset = self._sum.total() / self.count
        var = np.maximum(self._square.total() / self.count - offset * offset, 0)
        return self._pivot + offset, var, self.count


def channel_statistics(x: FloatArray, space: Workspace | None = None) -> tuple[Doubles, Doubles, int]:
    """``ChannelStatistics`` of one array (H, W, N, C)."""
    statistics = ChannelStatistics(x.shape[3], x.dtype, space)
    statistics.add(x)
    return statistics.result()


def channel_sums(x: FloatArray) -> Doubles:
    """The sum of each channel of (H, W, N, C): float64 (C,), of pieces that are summed in the dtype of ``x``."""
    total = LineSums(x.shape[3])
    for (lines,) in pieces(x):
        total.add(lines)
    return total.total()


def far_mean(mean: NDArray[Any], deviation: NDArray[Any] | float) -> bool:
    """Whether the mean of some channel is so large beside its deviation that it has to be subtracted first."""
    return bool((np.abs(mean) > _FAR * deviation).any())


def coefficients(
    mean: Doubles,
    invstd: Doubles,
    weight: NDArray[Any] | None,
    bias: NDArray[Any] | None,
    dtype: np.dtype[Any] | type,
) -> tuple[Doubles, Doubles, Doubles | None]:
    """What ``normalize`` takes for ``(z - mean) * invstd * weight + bias``.

    Args:
        mean: (C,).
        invstd: (C,), ``1 / sqrt(var + eps)``.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        dtype: of what will be normalized.

    Returns:
        ``scale``, ``shift`` and ``center``, the mean as ``dtype`` knows it, or None where it need not be subtracted
        first. What rounding takes from the mean is in the shift.
    """
    scale = invstd if weight is None else invstd * weight
    center = mean.astype(dtype).astype(np.float64) if far_mean(mean * invstd, 1) else None
    shift = -(mean if center is None else mean - center) * scale
    return scale, shift if bias is None else shift + bias, center


# Forward --------------------------------------------------------------------------------------------------------------


def normalize(
    z: FloatArray,
    scale: NDArray[Any],
    shift: NDArray[Any],
    out: FloatArray,
    *,
    center: NDArray[Any] | None = None,
    residual: FloatArray | None = None,
    activation: Activation = None,
    space: Workspace | None = None,
) -> None:
    """``out = activation((z - center) * scale + shift + residual)``, in one pass over memory.

    Args:
        z: (H, W, N, C).
        scale: (C,).
        shift: (C,).
        out: of the shape and dtype of ``z``; may be ``z`` itself, or ``residual``.
        center: (C,), what to subtract first; without it one operation less.
        residual: what to add before the activation, of the shape and dtype of ``z``.
        activation: None, ``"relu"`` or limits ``(low, high)``.
        space: scratch memory, needed where ``out`` is ``residual``; the thread's without it.
    """
    if channels.takes(z, out, residual):
        channels.run("normalize", (z, out, residual), (scale, shift, center), limits=_numbers(activation))
        return
    rows: tuple[Any, ...] | None = None
    overwritten = residual is not None and np.may_share_memory(out, residual)
    for lines, into, extra in pieces(z, out, residual):
        if rows is None:
            length = lines.shape[-1]
            rows = tuple([None if v is None else tiled(v, length, z.dtype) for v in (scale, shift, center)])
            limits = _limits(activation, length, z.dtype)
        factor, offset, middle = rows
        if overwritten:
            extra = _copy_of(extra, space or workspace())
        if middle is not None:
            lines = np.subtract(lines, middle, out=into)
        np.multiply(lines, factor, out=into)
        np.add(into, offset, out=into)
        if extra is not None:
            np.add(into, extra, out=into)
        _apply(limits, into)


def add_activate(out: FloatArray, residual: FloatArray | None, activation: Activation) -> None:
    """``out = activation(out + residual)`` in place: what a convolution does with each finished block of rows.

    Args:
        out: (rows, W, N, C).
        residual: the same rows of what to add, or None.
        activation: None, ``"relu"`` or limits ``(low, high)``.
    """
    limits = None
    for into, extra in pieces(out, residual):
        limits = limits or _limits(activation, into.shape[-1], out.dtype)
        if extra is not None:
            np.add(into, extra, out=into)
        _apply(limits, into)


def _copy_of(lines: FloatArray, space: Workspace) -> FloatArray:
    scratch = space.get("norm: residual", lines.shape, lines.dtype)
    np.copyto(scratch, lines)
    return scratch


def _limits(activation: Activation, length: int, dtype: np.dtype[Any]) -> tuple[FloatArray | None, FloatArray | None]:
    """Limits as rows: NumPy's maximum with a row is 2.5 times as fast as with a number."""
    if activation is None:
        return None, None
    if activation == "relu":
        return np.zeros(length, dtype), None
    low, high = activation
    return np.full(length, low, dtype), np.full(length, high, dtype)


def _numbers(activation: Activation) -> tuple[float, float] | None:
    """The limits of an activation, of which the second may be infinite."""
    return (0.0, np.inf) if activation == "relu" else activation


def _apply(limits: tuple[FloatArray | None, FloatArray | None], lines: FloatArray) -> None:
    low, high = limits
    if low is not None:
        np.maximum(lines, low, out=lines)
    if high is not None:
        np.minimum(lines, high, out=lines)


# Backward -------------------------------------------------------------------------------------------------------------


def masked_gradient_sums(
    grad: FloatArray,
    z: FloatArray,
    mean: NDArray[Any],
    out: FloatArray | None = None,
    *,
    output: FloatArray | None = None,
    activation: Activation = None,
    centered: bool = True,
    space: Workspace | None = None,
) -> tuple[Doubles, Doubles]:
    """The gradient through the activation, and the sums that the gradients of batch normalization are made of.

    Args:
        grad: (H, W, N, C), of ``activation(bn(z) + residual)``.
        z: what was normalized.
        mean: (C,), in float64 if more than the dtype of ``z`` is known of it.
        out: where to write ``g``, the gradient before the activation (and so that of the residual); may be ``grad``.
            Not needed without an activation.
        output: the activation's result; not needed without an activation.
        activation: None, ``"relu"`` or limits ``(low, high)``.
        centered: whether the mean is subtracted from ``z`` element by element; without it one operation less, good
            where ``far_mean`` says no.
        space: scratch memory; the thread's without it.

    Returns:
        ``sum(g)`` and ``sum(g * (z - mean))``, float64 (C,).

    Raises:
        ValueError: an activation without ``output`` or ``out``.
    """
    if activation is not None and (output is None or out is None):
        raise ValueError("masked_gradient_sums: an activation needs its output and an array for the masked gradient")
    count = grad.shape[3]
    subtracted = mean.astype(z.dtype).astype(np.float64) if centered else np.zeros(count)
    into_out, of_output = (out, output) if activation is not None else (None, None)
    if channels.takes(grad, z, into_out, of_output):
        total, product = channels.run(
            "masked sums",
            (grad, z, into_out, of_output),
            (subtracted if centered else None,),
            limits=_numbers(activation),
        )
        return total, product - (mean - subtracted) * total
    sums, products = LineSums(count), LineSums(count)
    space = space or workspace()
    scratch = passes = np.empty(0)
    row: FloatArray | None = None
    for g, x, into, y in pieces(grad, z, out, output):
        if scratch.shape != x.shape:
            scratch = space.get("norm: products", x.shape, x.dtype)
            passes = space.get("norm: mask", x.shape, np.bool_)
        if activation is not None:
            g = _mask(g, y, activation, into, passes, space)
        if centered:
            row = tiled(subtracted, x.shape[-1], z.dtype) if row is None else row
            np.subtract(x, row, out=scratch)
            x = scratch
        np.multiply(x, g, out=scratch)
        sums.add(g)
        products.add(scratch)
    total = sums.total()
    return total, products.total() - (mean - subtracted) * total


def normalize_backward(
    grad: FloatArray,
    z: FloatArray,
    scale: NDArray[Any],
    mean: NDArray[Any],
    level: NDArray[Any],
    slope: NDArray[Any],
    out: FloatArray,
    *,
    centered: bool = True,
    space: Workspace | None = None,
) -> None:
    """``out = scale * (grad - level - (z - mean) * slope)``, in one pass: the gradient of what was normalized.

    With ``M`` pixels and the sums of ``masked_gradient_sums``, ``level = sum(g) / M`` and
    ``slope = sum(g * (z - mean)) * invstd**2 / M`` (Ioffe and Szegedy, 2015, section 3, gathered).

    Args:
        grad: (H, W, N, C), the gradient before the activation.
        z: what was normalized.
        scale: (C,), ``weight * invstd``.
        mean: (C,).
        level: (C,).
        slope: (C,).
        out: of the shape and dtype of ``z``; may be ``grad`` or ``z``.
        centered: as in ``masked_gradient_sums``.
        space: scratch memory; the thread's without it.
    """
    middle = mean.astype(z.dtype).astype(np.float64) if centered else np.zeros(z.shape[3])
    values = (scale, level - (mean - middle) * slope, slope, middle)
    if channels.takes(grad, z, out):
        channels.run("normalize backward", (grad, z, out), values if centered else (*values[:3], None))
        return
    space = space or workspace()
    shared = np.may_share_memory(out, grad)
    rows: tuple[FloatArray, ...] | None = None
    part = None
    for g, x, into in pieces(grad, z, out):
        if rows is None:
            rows = tuple([tiled(v, x.shape[-1], z.dtype) for v in values])
        factor, offset, tilt, subtracted = rows
        if not shared:
            part = into
        elif part is None or part.shape != x.shape:
            part = space.get("norm: products", x.shape, x.dtype)
        if centered:
            x = np.subtract(x, subtracted, out=part)
        np.multiply(x, tilt, out=part)
        np.add(part, offset, out=part)
        np.subtract(g, part, out=part)
        np.multiply(part, factor, out=into)


def scale_gradient(
    grad: FloatArray,
    scale: NDArray[Any],
    out: FloatArray,
    *,
    output: FloatArray | None = None,
    activation: Activation = None,
    masked: FloatArray | None = None,
    space: Workspace | None = None,
) -> None:
    """``out = scale * g`` with the gradient ``g`` before the activation: that of normalizing by given statistics.

    Args:
        grad: (H, W, N, C), of ``activation(z * scale + shift + residual)``.
        scale: (C,).
        out: of the shape and dtype of ``grad``; may be ``grad``.
        output: the activation's result; not needed without an activation.
        activation: None, ``"relu"`` or limits ``(low, high)``.
        masked: where to write ``g`` itself, for the residual; may be ``grad``, not ``out``.
        space: scratch memory; the thread's without it.

    Raises:
        ValueError: an activation without ``output``.
    """
    if activation is not None and output is None:
        raise ValueError("scale_gradient: an activation needs its output")
    of_output = output if activation is not None else None
    if channels.takes(grad, out, of_output, masked):
        channels.run("scale", (grad, out, of_output, masked), (scale,), limits=_numbers(activation))
        return
    space = space or workspace()
    row: FloatArray | None = None
    passes = np.empty(0)
    for g, into, y, kept in pieces(grad, out, output, masked):
        row = tiled(scale, g.shape[-1], grad.dtype) if row is None else row
        if activation is not None:
            if passes.shape != g.shape:
                passes = space.get("norm: mask", g.shape, np.bool_)
            g = _mask(g, y, activation, into if kept is None else kept, passes, space)
        elif kept is not None and masked is not grad:
            np.copyto(kept, g)
        np.multiply(g, row, out=into)


def mask_gradient(
    grad: FloatArray, output: FloatArray, activation: Activation, out: FloatArray, space: Workspace | None = None
) -> None:
    """``out = grad`` where the activation passes it, else 0. All (H, W, N, C); ``out`` may be ``grad``."""
    if activation is not None and channels.takes(grad, output, out):
        channels.run("mask", (grad, output, out), (), limits=_numbers(activation))
        return
    space = space or workspace()
    for g, y, into in pieces(grad, output, out):
        _mask(g, y, activation, into, space.get("norm: mask", y.shape, np.bool_), space)


def _mask(
    g: FloatArray, y: FloatArray, activation: Activation, out: FloatArray, passes: NDArray[Any], space: Workspace
) -> FloatArray:
    """Bits of the gradient, and words of ones or zeros: infinities and NaN pass or vanish, as in PyTorch."""
    if activation is None:
        np.copyto(out, g)
        return out
    low, high = (0.0, None) if activation == "relu" else activation
    # "not below or at", so that a NaN passes
    np.less_equal(y, y.dtype.type(low), out=passes)
    if high is not None:
        beyond = space.get("norm: second mask", y.shape, np.bool_)
        np.greater_equal(y, y.dtype.type(high), out=beyond)
        np.logical_or(passes, beyond, out=passes)
    words = passes.view(np.int8)
    np.subtract(words, np.int8(1), out=words)  # -1, all ones, where the gradient passes
    word = _WORDS[g.itemsize]
    np.bitwise_and(g.view(word), words, out=out.view(word))
    return out


# References of the tests ----------------------------------------------------------------------------------------------


def channel_statistics_reference(x: FloatArray) -> tuple[Doubles, Doubles, int]:
    """``channel_statistics`` in two passes over the whole array, in float64."""
    pixels = x.reshape(-1, x.shape[3]).astype(np.float64)
    return pixels.mean(axis=0), pixels.var(axis=0), len(pixels)


def normalize_reference(
    z: FloatArray, scale: Any, shift: Any, center: Any = None, residual: Any = None, activation: Activation = None
) -> FloatArray:
    """What ``normalize`` writes, one operation at a time over the whole array, in float64."""
    out: FloatArray = (z.astype(np.float64) - (0 if center is None else center)) * scale + shift
    out = out if residual is None else out + residual
    if activation is not None:
        out = np.maximum(out, 0) if activation == "relu" else np.clip(out, *activation)
    return out


def mask_gradient_reference(grad: FloatArray, output: FloatArray, activation: Activation) -> FloatArray:
    """What ``mask_gradient`` writes, by ``np.where``."""
    if activation is None:
        return grad
    blocked = output <= 0 if activation == "relu" else (output <= activation[0]) | (output >= activation[1])
    out: FloatArray = np.where(blocked, 0, grad)
    return out


def normalize_backward_reference(
    grad: FloatArray, z: FloatArray, weight: Any, eps: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of ``(z - mean) * invstd * weight + bias`` for ``z``, weight and bias, in float64, by definition."""
    mean, var, count = channel_statistics_reference(z)
    invstd = 1 / np.sqrt(var + eps)
    g, xhat = grad.astype(np.float64), (z - mean) * invstd
    by_bias, by_weight = (v.sum(axis=(0, 1, 2)) for v in (g, g * xhat))
    return weight * invstd * (g - by_bias / count - xhat * by_weight / count), by_weight, by_bias

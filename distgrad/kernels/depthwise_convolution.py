"""Depthwise convolution in HWNC order: each channel has kernels of its own, nothing is summed over channels.

There is no GEMM in it. The windows are a view of the image in which pixels appear as often as windows see them, and
``np.einsum`` multiplies it by one row of weights for each tap, repeated for every image, and sums over the taps, on
runs of all channels of some images. That is one pass; multiplications and additions of whole arrays would be two. The
gradient of the input is the same for each phase of the pixels by the stride, as in ``direct_convolution``.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .convolution_plan import ConvolutionPlan, ConvolutionShape, Epilogue, Finish
from .direct_convolution import DIRECT_ERROR, phase_axis
from .gather import Axis, Segment, window_view
from .jit import depthwise
from .jit.machine import lanes, machine
from .layout import copy_to_hwnc
from .workspace import Workspace

FloatArray: TypeAlias = NDArray[Any]

# Bytes of a block of the result.
_BLOCK_BYTES = 1 << 21
# Numbers in a run: the row of the result that all taps are added to, and the rows of weights, stay in cache.
_RUN = 1 << 12
# Windows whose products are added one after another in the weight's gradient: few enough for float32.
_SUMMED_WINDOWS = 512


class DepthwisePlan(ConvolutionPlan):
    """Multiplications and additions of runs; any number ``K/C`` of kernels a channel.

    Args:
        shape: what to prepare for.

    Raises:
        ValueError: a shape whose groups have more than one input channel.
    """

    name = "depthwise"
    error = DIRECT_ERROR

    def __init__(self, shape: ConvolutionShape) -> None:
        if shape.groups != shape.c:
            raise ValueError(
                f"a depthwise convolution has as many groups as channels, not groups={shape.groups} for C={shape.c}; "
                "use DirectPlan"
            )
        self.shape = s = shape
        self.kernels = s.k // s.c
        self._axes = (
            Axis(s.out_h, -s.padding[0], s.stride[0], s.kh, s.dilation[0], s.h),
            Axis(s.out_w, -s.padding[1], s.stride[1], s.kw, s.dilation[1], s.w),
        )

    def pack(self, weight: FloatArray) -> FloatArray:
        """(K/C, kh, kw, C)."""
        s = self.shape
        return np.ascontiguousarray(weight.reshape(s.c, self.kernels, s.kh, s.kw).transpose(1, 2, 3, 0))

    def forward(
        self,
        x: FloatArray,
        packed: FloatArray,
        out: FloatArray,
        space: Workspace,
        bias: FloatArray | None = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        """See ``ConvolutionPlan.forward``."""
        if not out.size:
            return
        s = self.shape
        x = _runs_of(x, "depthwise input", space)
        if (period := self._period(x)) is not None:
            self._forward_compiled(x, packed[0], out, period, bias, epilogue)
            return
        for images, rows in self._blocks(s.out_h, s.out_w, out.itemsize):
            for kernel in range(self.kernels):
                target = _runs(out[rows, :, images]) if self.kernels == 1 else None
                result = target
                if result is None:
                    shape = (rows.stop - rows.start, s.out_w, (images.stop - images.start) * s.c)
                    result = space.get("depthwise result", shape, out.dtype)
                start = None if bias is None else bias[kernel :: self.kernels]
                _accumulate(self._axes, x[:, :, images], packed[kernel], result, rows, space, start, False)
                if target is None:
                    part = out[rows, :, images, kernel :: self.kernels]
                    np.copyto(part, result.reshape(part.shape))
            if epilogue is not None:
                epilogue(rows, images)

    def _period(self, images: FloatArray) -> int | None:
        """The numbers of a row of values a channel where compiled kernels take it: one kernel a channel."""
        if self.kernels > 1 or machine() is None or images.dtype not in (np.float32, np.float64):
            return None
        period = lcm(self.shape.c, lanes(images.dtype))
        return period if self.shape.n * self.shape.c % period == 0 else None

    def _forward_compiled(
        self,
        x: FloatArray,
        taps: FloatArray,
        out: FloatArray,
        period: int,
        bias: FloatArray | None,
        epilogue: Epilogue | None,
    ) -> None:
        repeat = period // self.shape.c
        weights, start = np.tile(taps, repeat), None if bias is None else np.tile(bias, repeat)
        finish = epilogue if isinstance(epilogue, Finish) else None
        if finish is None or finish.residual is None or finish.residual.strides == finish.out.strides:
            residual, limits = (None, None) if finish is None else (finish.residual, finish.limits)
            if epilogue is None or finish is not None:
                depthwise.correlate(self._axes, x, weights, out, slice(0, len(out)), start, residual, limits)
                return
        assert epilogue is not None
        step = max(1, _BLOCK_BYTES // max(1, out[0].size * out.itemsize))
        for first in range(0, len(out), step):
            rows = slice(first, min(first + step, len(out)))
            depthwise.correlate(self._axes, x, weights, out, rows, start)
            epilogue(rows, slice(0, out.shape[2]))

    def backward(
        self,
        x: FloatArray | None,
        grad: FloatArray,
        weight: FloatArray,
        grad_x: FloatArray | None,
        grad_weight: FloatArray | None,
        space: Workspace,
    ) -> None:
        """See ``ConvolutionPlan.backward``."""
        packed = self.pack(weight)
        if grad_weight is not None and x is None:
            raise ValueError("the gradient of a convolution's weight needs the input x, which is None")
        grad_taps = np.zeros_like(packed)
        for kernel in range(self.kernels if grad.size else 0):
            g = grad[..., kernel :: self.kernels] if self.kernels > 1 else grad
            g = _runs_of(g, "depthwise gradient", space)
            if grad_x is not None and grad_x.size:
                self._backward_input(g, packed[kernel], grad_x, space, add=kernel > 0)
            if grad_weight is not None and x is not None and x.size:
                self._backward_weight(_runs_of(x, "depthwise input", space), g, grad_taps[kernel], space)
        if grad_x is not None and not grad.size:
            grad_x[...] = 0
        if grad_weight is not None:
            s = self.shape
            by_channel = grad_weight.reshape(s.c, self.kernels, s.kh, s.kw)
            np.copyto(by_channel, grad_taps.transpose(3, 0, 1, 2))

    def _backward_input(self, g: FloatArray, taps: FloatArray, grad_x: FloatArray, space: Workspace, add: bool) -> None:
        s = self.shape
        for row in range(s.stride[0]):
            for col in range(s.stride[1]):
                phase = grad_x[row :: s.stride[0], col :: s.stride[1]]
                if not phase.size:
                    continue
                vertical = phase_axis(row, s.h, s.kh, s.stride[0], s.padding[0], s.dilation[0], s.out_h)
                horizontal = phase_axis(col, s.w, s.kw, s.stride[1], s.padding[1], s.dilation[1], s.out_w)
                if vertical is None or horizontal is None:
                    if not add:
                        phase[...] = 0
                    continue
                axes = vertical[1], horizontal[1]
                of_phase = taps[vertical[0]][:, horizontal[0]]
                if (period := self._period(g)) is not None:
                    repeated = np.tile(of_phase, period // s.c)
                    depthwise.correlate(axes, g, repeated, phase, slice(0, len(phase)))
                    continue
                for images, rows in self._blocks(axes[0].count, axes[1].count, g.itemsize):
                    target = _runs(phase[rows, :, images])
                    _accumulate(axes, g[:, :, images], of_phase, target, rows, space, None, add)

    def _backward_weight(self, x: FloatArray, g: FloatArray, grad_taps: FloatArray, space: Workspace) -> None:
        s = self.shape
        if (period := self._period(g)) is not None:
            sums = np.zeros((s.kh, s.kw, period), g.dtype)
            depthwise.add_products(self._axes, x, g, sums)
            grad_taps += sums.reshape(s.kh, s.kw, -1, s.c).sum(axis=2)
            return
        for images, rows in self._blocks(s.out_h, s.out_w, g.itemsize, _SUMMED_WINDOWS):
            for part, to_rows, to_cols, height, width in _windows(self._axes, x[:, :, images], rows):
                if not part.size:
                    continue
                products = space.get("depthwise products", (*part.shape[2:4], part.shape[4]), g.dtype)
                np.einsum("hwijr,hwr->ijr", part, _runs(g[rows, :, images])[to_rows, to_cols], out=products)
                grad_taps[height, width] += products.reshape(*products.shape[:2], -1, s.c).sum(axis=2)

    def _blocks(
        self, height: int, width: int, itemsize: int, windows: int | None = None
    ) -> Iterator[tuple[slice, slice]]:
        """Images and rows of a result of (height, width, N, C); of about ``windows`` windows at most."""
        s = self.shape
        images = max(1, min(s.n, _RUN // s.c))
        row_bytes = max(1, width * images * s.c * itemsize)
        rows = max(1, min(height, _BLOCK_BYTES // row_bytes))
        if windows is not None:
            rows = max(1, min(rows, windows // max(1, width)))
        for image in range(0, s.n, images):
            for row in range(0, height, rows):
                yield slice(image, min(s.n, image + images)), slice(row, min(height, row + rows))


def _accumulate(
    axes: tuple[Axis, Axis],
    source: FloatArray,
    taps: FloatArray,
    target: FloatArray,
    rows: slice,
    space: Workspace,
    start: FloatArray | None,
    add: bool,
) -> None:
    """``target = start + sum over taps of source * tap`` for these rows; without ``start`` from 0, or added to.

    Args:
        axes: where the windows' taps are in ``source``, vertically and horizontally.
        source: (H, W, images, C), ``images*C`` contiguous.
        taps: (taps, taps, C).
        target: (rows, columns, images*C).
        rows: which of the vertical windows.
        space: scratch memory.
        start: (C,) or None.
        add: to what ``target`` holds.
    """
    images, channels = source.shape[2:]
    weights = np.empty((*taps.shape[:2], images, channels), taps.dtype)
    weights[...] = taps[:, :, None]
    weights = weights.reshape(*taps.shape[:2], -1)
    for pixels, to_rows, to_cols, height, width in _windows(axes, source, rows):
        part = target[to_rows, to_cols]
        result = space.get("depthwise part", part.shape, part.dtype) if add else part
        if pixels.size:
            np.einsum("hwijr,ijr->hwr", pixels, weights[height, width], out=result)
        else:
            result[...] = 0
        if add:
            np.add(part, result, out=part)
    if start is not None:
        np.add(target, np.tile(start, images), out=target)


def _windows(
    axes: tuple[Axis, Axis], source: FloatArray, rows: slice
) -> Iterator[tuple[FloatArray, slice, slice, slice, slice]]:
    """The pixels under the windows of these rows, by the taps that they see.

    Yields:
        A view (rows, columns, taps, taps, images*C), the rows (counted from the first of ``rows``) and columns of its
        windows, and the vertical and horizontal taps.
    """
    vertical, horizontal = axes
    run, item = source.shape[2] * source.shape[3], source.itemsize
    columns = horizontal.segments()
    for found in vertical.segments():
        top, bottom = max(found.first, rows.start), min(found.last, rows.stop)
        if top >= bottom:
            continue
        segment = Segment(top, bottom, found.tap, found.tap_end)
        for cols in columns:
            view = window_view(source, axes, segment, cols, (run,), (item,))
            to_rows, to_cols = slice(top - rows.start, bottom - rows.start), slice(cols.first, cols.last)
            yield view, to_rows, to_cols, slice(found.tap, found.tap_end), slice(cols.tap, cols.tap_end)


def _runs(pixels: FloatArray) -> FloatArray:
    """View (H, W, N, C), ``N*C`` contiguous, as (H, W, N*C)."""
    h, w, n, c = pixels.shape
    return pixels.reshape(h, w, n * c)


def _runs_of(pixels: FloatArray, use: str, space: Workspace) -> FloatArray:
    """(H, W, N, C) with contiguous runs of ``N*C``: itself, or a copy in scratch memory."""
    _, _, n, c = pixels.shape
    item = pixels.itemsize
    if (c == 1 or pixels.strides[3] == item) and (n == 1 or pixels.strides[2] == c * item):
        return pixels
    copy = space.get(use, pixels.shape, pixels.dtype)
    copy_to_hwnc(pixels.transpose(2, 3, 0, 1), copy)
    return copy

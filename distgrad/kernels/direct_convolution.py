"""Direct convolution in HWNC order: the pixels under a block of windows are gathered, then multiplied by the weights.

Forward, ``(windows, kh*kw*C) @ (kh*kw*C, K)`` for blocks of windows that stay in cache. The gradient of the input is
convolutions of the output's gradient: one for each of the ``sh * sw`` phases of the input's pixels, those with the same
remainder of their row and column by the stride, because exactly the same taps reach all pixels of a phase. So nothing
is ever added up. The gradient of the weight is ``(K, windows) @ (windows, kh*kw*C)``, summed over the blocks.
"""

from __future__ import annotations

from functools import partial
from math import gcd
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .convolution_plan import ConvolutionPlan, ConvolutionShape, Epilogue
from .gather import Axis, Block, Gather, matrix
from .kept_weights import kept
from .layout import copy_to_hwnc
from .small_products import Cut, cut, multiply, pack, sum_of_products
from .workspace import Workspace

FloatArray: TypeAlias = NDArray[Any]

# Bytes of the columns of a block. Smaller ones stay in the second-level cache, but what they gain is less than what
# each block costs in calls (3x3, stride 2, 64 to 128 channels, 32x56x56, forward: 20.3, 19.5 and 18.0 ms with 256 KiB,
# 512 KiB and 2 MiB).
_COLUMN_BYTES = 2 << 20
# Bytes of the pixels of a block where they are multiplied in place.
_PIXEL_BYTES = 1 << 19
# For the weights' gradient, where each block adds to all of it.
_WEIGHT_BYTES = 4 << 20
# rms error of float32, relative to the result's rms.
DIRECT_ERROR = 1.5e-7


class _Phase(NamedTuple):
    """Input pixels with one remainder of their row and column by the stride."""

    row: int
    col: int
    taps: tuple[slice, slice]
    gather: Gather | None  # None where no window reaches them


class DirectPlan(ConvolutionPlan):
    """im2col and GEMM, for any kernel, stride, padding, dilation and number of groups.

    Args:
        shape: what to prepare for.
    """

    name = "direct"
    error = DIRECT_ERROR

    def __init__(self, shape: ConvolutionShape) -> None:
        self.shape = s = shape
        self._gather = Gather(
            Axis(s.out_h, -s.padding[0], s.stride[0], s.kh, s.dilation[0], s.h),
            Axis(s.out_w, -s.padding[1], s.stride[1], s.kw, s.dilation[1], s.w),
            s.n,
            s.c,
            s.groups,
        )
        self._cut = cut(self._gather.inner, s.k // s.groups)
        self._phases = tuple(self._phase(row, col) for row in range(s.stride[0]) for col in range(s.stride[1]))

    def _phase(self, row: int, col: int) -> _Phase:
        s = self.shape
        vertical = phase_axis(row, s.h, s.kh, s.stride[0], s.padding[0], s.dilation[0], s.out_h)
        horizontal = phase_axis(col, s.w, s.kw, s.stride[1], s.padding[1], s.dilation[1], s.out_w)
        if vertical is None or horizontal is None:
            return _Phase(row, col, (slice(0), slice(0)), None)
        gather = Gather(vertical[1], horizontal[1], s.n, s.k, s.groups)
        return _Phase(row, col, (vertical[0], horizontal[0]), gather)

    def pack(self, weight: FloatArray) -> FloatArray:
        """(G, K/G/n, kh*kw*C/G, n): see ``small_products``."""
        s = self.shape
        by_group = weight.reshape(s.groups, s.k // s.groups, s.c // s.groups, s.kh, s.kw)
        return pack(by_group.transpose(0, 3, 4, 2, 1), self._cut.columns)

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
        if out.size:
            x = contiguous_channels(x, "direct input", space)
            _correlate(self._gather, self._cut, x, packed, out, space, bias, epilogue)

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
        if grad.size:
            grad = contiguous_channels(grad, "direct gradient", space)
        if grad_x is not None and grad_x.size:
            self._backward_input(grad, weight, grad_x, space)
        if grad_weight is not None:
            if x is None:
                raise ValueError("the gradient of a convolution's weight needs the input x, which is None")
            if grad.size and x.size:
                x = contiguous_channels(x, "direct input", space)
                self._backward_weight(x, grad, grad_weight, space)
            else:
                grad_weight[...] = 0

    def _backward_input(self, grad: FloatArray, weight: FloatArray, grad_x: FloatArray, space: Workspace) -> None:
        s = self.shape
        by_group = weight.reshape(s.groups, s.k // s.groups, s.c // s.groups, s.kh, s.kw)
        for phase in self._phases:
            target = grad_x[phase.row :: s.stride[0], phase.col :: s.stride[1]]
            if not target.size:
                continue
            if phase.gather is None:
                target[...] = 0
                continue
            how = cut(phase.gather.inner, s.c // s.groups)
            packed = kept(weight, self, (phase.row, phase.col), partial(_pack_taps, by_group, phase, how.columns))
            _correlate(phase.gather, how, grad, packed, target, space, None, None)

    def _backward_weight(self, x: FloatArray, grad: FloatArray, grad_weight: FloatArray, space: Workspace) -> None:
        s, gather, dtype = self.shape, self._gather, grad.dtype
        per_group = s.k // s.groups
        total = space.get("direct total", (s.groups, per_group, gather.inner), dtype)
        views = gather.views(x)
        elements = max(_WEIGHT_BYTES // dtype.itemsize, s.k * gather.inner)
        first = True
        for images, rows, parts in gather.blocks(elements):
            for cols in parts:
                block = Block(rows, cols, images)
                columns = _columns(gather, views, block, x, space)
                g = grad[rows, cols, images]
                flat = matrix(g)
                if flat is None:
                    flat = space.get("direct product", (block.windows, s.k), dtype)
                    np.copyto(flat.reshape(g.shape), g)
                # (G, K/G, windows) @ (G, windows, kh*kw*C/G) -> (G, K/G, kh*kw*C/G)
                of_group = flat.reshape(block.windows, s.groups, per_group).transpose(1, 0, 2)
                sum_of_products(of_group, columns, total, not first, space)
                first = False
        # (G, K/G, kh, kw, C/G) -> (G, K/G, C/G, kh, kw)
        result = total.reshape(s.groups, per_group, s.kh, s.kw, s.c // s.groups).transpose(0, 1, 4, 2, 3)
        np.copyto(grad_weight.reshape(result.shape), result)


def _pack_taps(by_group: FloatArray, phase: _Phase, columns: int) -> FloatArray:
    # (G, K/G, C/G, taps, taps) -> (G, taps, taps, K/G, C/G)
    return pack(by_group[:, :, :, phase.taps[0], phase.taps[1]].transpose(0, 3, 4, 1, 2), columns)


def phase_axis(
    first: int, size: int, taps: int, stride: int, padding: int, dilation: int, windows: int
) -> tuple[slice, Axis] | None:
    """Which windows reach the pixels ``first + q*stride``, and by which taps; None if none does.

    Window ``o`` reaches pixel ``y`` by tap ``i`` if ``o*stride - padding + i*dilation == y``. So the taps of a phase
    are every ``stride/gcd(stride, dilation)``-th, and as the taps count up the windows count down.
    """
    reached = [i for i in range(taps) if (first + padding - i * dilation) % stride == 0]
    if not reached:
        return None
    between = stride // gcd(stride, dilation)
    last = reached[-1]
    count = len(range(first, size, stride))
    axis = Axis(
        count=count,
        start=(first + padding - last * dilation) // stride,
        step=1,
        taps=len(reached),
        dilation=between * dilation // stride,
        size=windows,
    )
    # from the last tap down to the first
    stop = reached[0] - between
    return slice(last, stop if stop >= 0 else None, -between), axis


def contiguous_channels(pixels: FloatArray, use: str, space: Workspace) -> FloatArray:
    """(H, W, N, C) with contiguous channels: itself, or a copy in scratch memory."""
    if pixels.strides[3] == pixels.itemsize or pixels.shape[3] == 1:
        return pixels
    copy = space.get(use, pixels.shape, pixels.dtype)
    copy_to_hwnc(pixels.transpose(2, 3, 0, 1), copy)
    return copy


def _columns(gather: Gather, views: list[Any], block: Block, source: FloatArray, space: Workspace) -> FloatArray:
    """The matrix of a block, (G, windows, taps * C/G): a view of the image where a window is a pixel."""
    if gather.is_identity:
        flat = matrix(source[block.rows, block.cols, block.images])
        if flat is not None:
            return flat.reshape(block.windows, gather.groups, gather.inner).transpose(1, 0, 2)
    columns = space.get("direct columns", (gather.groups, block.windows, gather.inner), source.dtype)
    gather.fill(views, block, columns)
    return columns


def _correlate(
    gather: Gather,
    how: Cut,
    source: FloatArray,
    packed: FloatArray,
    out: FloatArray,
    space: Workspace,
    bias: FloatArray | None,
    epilogue: Epilogue | None,
) -> None:
    """``out = gathered(source) @ packed + bias``.

    Args:
        gather: the windows.
        how: the cut that ``packed`` was made for.
        source: (H, W, N, C), C contiguous.
        packed: (G, panels, taps * C/G, n).
        out: (rows, columns, N, K), ``N*K`` contiguous.
        space: scratch memory.
        bias: (K,) or None.
        epilogue: called when rows are complete.
    """
    dtype, k, groups = out.dtype, out.shape[3], gather.groups
    views = gather.views(source)
    size = _PIXEL_BYTES if gather.is_identity else max(_COLUMN_BYTES, packed.nbytes)
    for images, rows, parts in gather.blocks(size // dtype.itemsize, k):
        count = images.stop - images.start
        bias_run = None if bias is None else np.tile(bias, count)
        for cols in parts:
            block = Block(rows, cols, images)
            columns = _columns(gather, views, block, source, space)
            target = out[rows, cols, images]
            flat = matrix(target)
            product = flat if flat is not None else space.get("direct product", (block.windows, k), dtype)
            # (G, windows, taps*C/G) @ (G, taps*C/G, K/G) -> (G, windows, K/G)
            by_group = product.reshape(block.windows, groups, k // groups).transpose(1, 0, 2)
            multiply(columns, packed, by_group, how.rows)
            if flat is not None and bias_run is None:
                continue
            runs = product.reshape(block.shape[0], block.shape[1], count * k)
            into = target.reshape(runs.shape)
            if bias_run is None:
                np.copyto(into, runs)
            else:
                np.add(runs, bias_run, out=into)
        if epilogue is not None:
            epilogue(rows, images)

"""2-d convolution and its adjoints by im2col and GEMM over NCHW arrays: what small convolutions and integers take.

Few operations whatever the shape, and C-contiguous results. ``convolution`` has the definitions; for everything large
it takes the plans of ``convolution_choice`` instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.window import overlap, window_count

FloatArray: TypeAlias = NDArray[Any]
Pair: TypeAlias = tuple[int, int]

# Columns are built and multiplied a block at a time, so that memory does not grow with the batch and a block is still
# in cache when the GEMM reads it. Measured over all convolutions of ResNet-18 (batch 32 of 224x224, float32, one Zen 3
# core with 512 KiB of L2 and 32 MiB of shared L3), forward / input / weight, in seconds: 2.7 / 3.4 / 2.1 with blocks of
# 512 KiB, 2.3 / 2.6 / 2.1 with 1 MiB, 2.1 / 2.4 / 2.1 with 4 MiB, 2.1 / 2.4 / 2.2 with 16 MiB. The 7x7 maps lose most
# by small blocks, because a GEMM packs, or adds to, the whole weight once a block: so a block is never smaller than it.
_BLOCK_BYTES = 4 << 20


def conv2d(
    input: FloatArray, weight: FloatArray, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> FloatArray:
    """See ``convolution.conv2d``."""
    sizes = map(window_count, input.shape[2:], weight.shape[2:], stride, padding, dilation)
    output = np.empty((len(input), len(weight), *sizes), input.dtype)
    if _is_pointwise(weight.shape, stride, padding):
        # (G, K/G, C/G) @ (N, G, C/G, H*W) -> (N, G, K/G, H*W)
        np.matmul(_kernel_matrix(weight, groups), _pixel_matrix(input, groups), out=_pixel_matrix(output, groups))
        return output
    window = _Window(input.shape, weight.shape, output.shape, stride, padding, dilation, output.dtype)
    kernel = _kernel_matrix(weight, groups)
    for block in window.blocks():
        columns = window.unfold(input, block).reshape(groups, kernel.shape[2], block.pixels)
        # (G, K/G, C/G*kh*kw) @ (G, C/G*kh*kw, pixels) -> (G, K/G, pixels)
        if block.images == 1:
            np.matmul(kernel, columns, out=block.matrix(output, groups))
        else:
            product = window.scratch("product", (groups, kernel.shape[1], block.pixels))
            np.matmul(kernel, columns, out=product)
            target = block.channels_first(output)
            target[...] = product.reshape(target.shape)
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
    """See ``convolution.conv2d_input``."""
    kernel = _kernel_matrix(weight, groups).transpose(0, 2, 1)
    if _is_pointwise(weight.shape, stride, padding):
        grad_input = np.empty(input_shape, grad_output.dtype)
        # (G, C/G, K/G) @ (N, G, K/G, H*W) -> (N, G, C/G, H*W)
        np.matmul(kernel, _pixel_matrix(grad_output, groups), out=_pixel_matrix(grad_input, groups))
        return grad_input
    reach = tuple(d * (size - 1) for d, size in zip(dilation, weight.shape[2:], strict=True))
    # At stride 1 this is a convolution with the flipped kernel, and reading columns is cheaper than adding them up (140
    # ms against 188 ms for 32x64x56x56), unless there are more of them or flipping the weight outweighs it.
    if (
        stride == (1, 1)
        and padding[0] <= reach[0]
        and padding[1] <= reach[1]
        and weight.shape[0] <= input_shape[1]
        and weight.size <= grad_output.size
    ):
        rest = reach[0] - padding[0], reach[1] - padding[1]
        return conv2d(grad_output, _flipped(weight, groups), stride, rest, dilation, groups)
    grad_input = np.zeros(input_shape, grad_output.dtype)
    window = _Window(input_shape, weight.shape, grad_output.shape, stride, padding, dilation, grad_input.dtype)
    for block in window.blocks():
        # (G, C/G*kh*kw, K/G) @ (G, K/G, pixels) -> (G, C/G*kh*kw, pixels)
        columns = window.scratch("columns", (groups, kernel.shape[1], block.pixels))
        np.matmul(kernel, block.matrix(grad_output, groups), out=columns)
        window.fold_into(grad_input, columns, block)
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
    """See ``convolution.conv2d_weight``."""
    grad_weight = np.zeros(weight_shape, input.dtype)
    total = _kernel_matrix(grad_weight, groups)
    window = _Window(input.shape, weight_shape, grad_output.shape, stride, padding, dilation, total.dtype)
    for block in window.blocks():
        columns = window.unfold(input, block).reshape(groups, total.shape[2], block.pixels)
        # (G, K/G, pixels) @ (G, pixels, C/G*kh*kw) -> (G, K/G, C/G*kh*kw)
        part = window.scratch("product", total.shape)
        np.matmul(block.matrix(grad_output, groups), columns.transpose(0, 2, 1), out=part)
        total += part
    return grad_weight


def _is_pointwise(weight_shape: tuple[int, ...], stride: Pair, padding: Pair) -> bool:
    return tuple(weight_shape[2:]) == stride == (1, 1) and padding == (0, 0)


def _kernel_matrix(weight: FloatArray, groups: int) -> FloatArray:
    """View ``(K, C/G, kh, kw)`` as ``(G, K/G, C/G*kh*kw)``."""
    k, c, kh, kw = weight.shape
    return weight.reshape(groups, k // groups, c * kh * kw)


def _flipped(weight: FloatArray, groups: int) -> FloatArray:
    """Turn ``(K, C/G, kh, kw)`` by 180 degrees and swap the channels within each group: ``(C, K/G, kh, kw)``."""
    k, c, kh, kw = weight.shape
    grouped = weight[:, :, ::-1, ::-1].reshape(groups, k // groups, c, kh, kw)
    return grouped.swapaxes(1, 2).reshape(groups * c, k // groups, kh, kw)


def _pixel_matrix(images: FloatArray, groups: int) -> FloatArray:
    """View ``(N, C, H, W)`` as ``(N, G, C/G, H*W)``."""
    n, c, h, w = images.shape
    return images.reshape(n, groups, c // groups, h * w)


@dataclass(frozen=True)
class _Block:
    """The output pixels that one GEMM computes: rows ``[row, row + rows)`` of images ``[image, image + images)``."""

    image: int
    images: int
    row: int
    rows: int
    width: int

    @property
    def pixels(self) -> int:
        return self.images * self.rows * self.width

    def channels_first(self, output: FloatArray) -> FloatArray:
        """View the block of ``(N, K, Ho, Wo)`` as ``(K, images, rows, Wo)``."""
        images = slice(self.image, self.image + self.images)
        return output[images, :, self.row : self.row + self.rows].transpose(1, 0, 2, 3)

    def matrix(self, output: FloatArray, groups: int) -> FloatArray:
        """The block of ``(N, K, Ho, Wo)`` as ``(G, K/G, pixels)``: of one image a view, of several a copy."""
        return self.channels_first(output).reshape(groups, output.shape[1] // groups, self.pixels)


class _Window:
    """im2col and its adjoint, col2im, for one convolution.

    Both go in two steps, through strips that hold the windows' columns but not yet their rows, ``(C, kw, phases,
    images, strip rows, Wo)``: input row ``y*sh + i*dh`` is row ``y + (i*dh)//sh`` of phase ``(i*dh) % sh``.
    Horizontally, where the runs are short and strided, the input is so read ``kw`` times instead of ``kh*kw`` times;
    vertically, one tap of all windows is one contiguous run of rows. Padding exists only as zeros in the strips.

    The arrays of a block lie in memory that the next block uses again: what ``unfold`` returns is overwritten by its
    next call.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        dtype: np.dtype[Any],
    ) -> None:
        self.dtype = dtype
        self._memory: dict[str, FloatArray] = {}
        self.images, self.channels, self.height, self.width = input_shape
        self.kh, self.kw = weight_shape[2:]
        self.weight_size = math.prod(weight_shape)
        self.out_h, self.out_w = output_shape[2:]
        self.stride, self.padding, self.dilation = stride, padding, dilation
        offsets = [i * dilation[0] for i in range(self.kh)]
        self.phases = sorted({offset % stride[0] for offset in offsets})
        # For each vertical tap: its phase, and its first row in the strips of that phase.
        self.taps = [(self.phases.index(offset % stride[0]), offset // stride[0]) for offset in offsets]
        self.extra_rows = offsets[-1] // stride[0]

    def scratch(self, use: str, shape: tuple[int, ...]) -> FloatArray:
        """An array with any content, in the memory that was last given for the same use if it is large enough."""
        size = math.prod(shape)
        memory = self._memory.get(use)
        if memory is None or memory.size < size:
            memory = self._memory[use] = np.empty(size, self.dtype)
        return memory[:size].reshape(shape)

    def blocks(self) -> Iterator[_Block]:
        """Cut the output into blocks whose columns take about ``_BLOCK_BYTES``, or the weight's bytes if more."""
        itemsize = self.dtype.itemsize
        # Of a small input the blocks would be what the peak of a training step is made of: half as large then.
        input_bytes = self.images * self.channels * self.height * self.width * itemsize
        block_bytes = min(_BLOCK_BYTES, max(_BLOCK_BYTES // 2, input_bytes))
        row_bytes = max(1, self.channels * self.kh * self.kw * self.out_w * itemsize)
        rows_at_once = max(1, max(block_bytes, self.weight_size * itemsize) // row_bytes)
        images = max(1, rows_at_once // self.out_h)
        rows = min(rows_at_once, self.out_h)
        for image in range(0, self.images, images):
            for row in range(0, self.out_h, rows):
                yield _Block(image, min(images, self.images - image), row, min(rows, self.out_h - row), self.out_w)

    def unfold(self, input: FloatArray, block: _Block) -> FloatArray:
        """im2col: ``(C, kh, kw, images, rows, Wo)``, the input pixel under each tap of each of the block's windows."""
        strips = self.scratch("strips", self._strips_shape(block))
        for strip, rows, cols, source in self._overlaps(strips, input, block):
            strip[:, :, rows, cols] = source
            strip[:, :, : rows.start] = 0
            strip[:, :, rows.stop :] = 0
            strip[..., : cols.start] = 0
            strip[..., cols.stop :] = 0
        if self.kh == 1:
            return strips
        columns = self.scratch("columns", self._columns_shape(block))
        for i, (phase, first) in enumerate(self.taps):
            columns[:, i] = strips[:, :, phase, :, first : first + block.rows]
        return columns

    def fold_into(self, grad_input: FloatArray, columns: FloatArray, block: _Block) -> None:
        """col2im, the adjoint of ``unfold``: add to each input pixel the columns' entries that it was copied to."""
        columns = columns.reshape(self._columns_shape(block))
        if self.kh == 1:
            strips = columns.reshape(self._strips_shape(block))
        else:
            strips = self.scratch("strips", self._strips_shape(block))
            strips.fill(0)
            for i, (phase, first) in enumerate(self.taps):
                strips[:, :, phase, :, first : first + block.rows] += columns[:, i]
        for strip, rows, cols, target in self._overlaps(strips, grad_input, block):
            target += strip[:, :, rows, cols]

    def _columns_shape(self, block: _Block) -> tuple[int, ...]:
        return self.channels, self.kh, self.kw, block.images, block.rows, self.out_w

    def _strips_shape(self, block: _Block) -> tuple[int, ...]:
        return self.channels, self.kw, len(self.phases), block.images, block.rows + self.extra_rows, self.out_w

    def _overlaps(
        self, strips: FloatArray, images: FloatArray, block: _Block
    ) -> Iterator[tuple[FloatArray, slice, slice, FloatArray]]:
        """Pair each strip with the pixels it holds, for each horizontal tap and phase.

        Yields the strip ``(C, images, strip rows, Wo)``, its rows and its columns that are no padding, and the same
        pixels in ``images``, as a view ``(C, images, rows, columns)``.
        """
        channels_first = images[block.image : block.image + block.images].transpose(1, 0, 2, 3)
        strip_rows = block.rows + self.extra_rows
        for j in range(self.kw):
            start = j * self.dilation[1] - self.padding[1]
            cols, image_cols = overlap(self.out_w, start, self.stride[1], self.width)
            for index, phase in enumerate(self.phases):
                start = block.row * self.stride[0] + phase - self.padding[0]
                rows, image_rows = overlap(strip_rows, start, self.stride[0], self.height)
                yield strips[:, j, index], rows, cols, channels_first[:, :, image_rows, image_cols]

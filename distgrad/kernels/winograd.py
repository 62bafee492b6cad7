"""3x3 convolutions by Winograd's algorithm, for images in HWNC order.

A tile of ``m x m`` outputs takes ``(m+2)^2`` products instead of ``9 m^2``. Each of them is one entry of the
transformed tile, at one *point* of the plane, times one of the transformed weight; so over all tiles, images and
channels they are one GEMM for each point. The transforms are products with matrices of 4 to 13 rows, along the height
and along the width one after the other, on runs of ``N*C`` contiguous numbers: ``np.matmul`` does them in strided
views, without a copy.

Borders take no copies either. The rows of a tile that lie in the padding are left out of its matrix; columns of padding
are zeros in the scratch memory between the two transforms. A last tile of fewer outputs uses fewer points.

The price is rounding. Root mean square error of float32 against float64, relative to the result's root mean square, the
worst of the forward pass and both gradients over 16 to 512 channels, 7x7 to 56x56 pixels, normally distributed numbers
and their positive parts (im2col there: 3.1e-7); in float64 it is 2e9 times less:

======  =======  =======  =======  =======  =======
stride  F(2x2)   F(3x3)   F(4x4)   F(5x5)   F(6x6)
======  =======  =======  =======  =======  =======
1       5.0e-7   8.1e-7   2.0e-6   4.3e-6   4.9e-6
2       3.3e-7   3.9e-7   5.9e-7   1.5e-6   2.8e-6
======  =======  =======  =======  =======  =======
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .convolution_plan import ConvolutionPlan, ConvolutionShape, Epilogue, Finish, FloatArray
from .jit import weight_transform
from .jit.machine import machine
from .jit.winograd_passes import WinogradPasses
from .winograd_backward import accumulate_weight, finish_weight, scatter_input
from .winograd_tiles import (
    Tiling,
    channel_block,
    multiply,
    padded,
    pixel_runs,
    transform,
    transform_height,
    transform_input,
    windows,
)
from .workspace import Workspace

# By stride and tile: bounds of the error; the docstring has what was measured.
_ERRORS = {
    (1, 2): 8e-7,
    (1, 3): 1e-6,
    (1, 4): 2.5e-6,
    (1, 5): 5e-6,
    (1, 6): 6e-6,
    (2, 2): 4e-7,
    (2, 3): 5e-7,
    (2, 4): 8e-7,
    (2, 5): 2e-6,
    (2, 6): 3.5e-6,
}

# The transformed tiles of a block take about this much, so that most of them are in the second-level cache (measured
# with 1 MiB of it) when the GEMM reads them; or this multiple of the transformed weight, which each block reads once in
# the forward pass, and in the backward pass also adds to.
_BLOCK_BYTES = 2 << 20
_FORWARD_SHARE = 0.5
_BACKWARD_SHARE = 1.5


class WinogradPlan(ConvolutionPlan):
    """A 3x3 convolution of stride 1 or 2, one group, no dilation, by tiles of ``tile x tile`` outputs.

    Args:
        shape: what to convolve.
        tile: outputs of a tile in each dimension, 2..6.

    Raises:
        ValueError: a shape or a tile that the algorithm is not for.
    """

    def __init__(self, shape: ConvolutionShape, tile: int) -> None:
        if not takes(shape) or (shape.stride[0], tile) not in _ERRORS:
            raise ValueError(
                "WinogradPlan takes 3x3 kernels of stride 1 or 2, padding 0 to 2, no dilation, one group, and tiles of "
                f"2 to 6; got {shape}, tile={tile}"
            )
        self.shape = shape
        self.name = f"winograd F({tile}x{tile})" + (" stride 2" if shape.stride[0] == 2 else "")
        self.error = _ERRORS[shape.stride[0], tile]
        stride, dtype = shape.stride[0], shape.dtype
        self.rows = Tiling(shape.h, shape.out_h, shape.padding[0], tile, stride, dtype)
        self.columns = Tiling(shape.w, shape.out_w, shape.padding[1], tile, stride, dtype)
        g = self.rows.full.g
        self._g = np.kron(g, g).astype(dtype)  # (a*b, 9)
        self._plane = len(g), len(g)
        self._adds_bias = bool((self.rows.full.at[:, 0] == 1).all() and (self.columns.full.at[:, 0] == 1).all())
        self._passes = WinogradPasses(self.rows, self.columns)
        self._forward_block = self._block(_FORWARD_SHARE)
        self._backward_block = self._block(_BACKWARD_SHARE)

    def _block(self, share: float) -> tuple[int, int]:
        """Images and tile rows to transform and multiply at once, for tiles of ``share`` times the weight's bytes."""
        n, c, k = self.shape.n, self.shape.c, self.shape.k
        entries = len(self._g) * self.shape.dtype.itemsize
        row_of_image = entries * self.columns.count * max(c, k)
        units = max(1, max(_BLOCK_BYTES, int(share * entries * c * k)) // row_of_image)
        blocks = -(-n // units)
        images = -(-n // blocks) if blocks else 1
        return images, max(1, min(self.rows.count, units // images))

    def pack(self, weight: FloatArray) -> FloatArray:
        """The transformed weight ``G g G^T``: (a, b, K/block, C, block)."""
        return self._transform_weight(weight.transpose(1, 0, 2, 3), Workspace(limit=0))

    def _transform_weight(self, weight: FloatArray, space: Workspace) -> FloatArray:
        """(inner, outer, 3, 3) as (a, b, outer/block, inner, block)."""
        inner, outer = weight.shape[:2]
        block = channel_block(inner, outer)
        blocks = (outer // block, inner, block)
        size, points = inner * outer, len(self._g)
        packed = padded(space, "winograd u", (points,), size, weight.dtype)
        if weight_transform.takes(block, weight):
            packed = packed.reshape(*self._plane, *blocks)
            weight_transform.transform_weight(weight, self.rows.full.g, packed)
            return packed
        taps = space.get("winograd taps", (3, 3, *blocks), weight.dtype)
        np.copyto(taps, weight.reshape(inner, outer // block, block, 3, 3).transpose(3, 4, 1, 0, 2))
        # (a*b, 9) @ (9, outer*inner) -> (a*b, outer*inner)
        transform(self._g, taps.reshape(9, size), packed)
        return packed.reshape(*self._plane, *blocks)

    def forward(
        self,
        x: FloatArray,
        packed: FloatArray,
        out: FloatArray,
        space: Workspace,
        bias: FloatArray | None = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        """As ``ConvolutionPlan.forward``."""
        shape, rows = self.shape, self.rows
        across = self.columns.presence(0, self.columns.count)
        for begin, end in _blocks(shape.n, self._forward_block[0]):
            images, count = slice(begin, end), end - begin
            pixels = self._runs("winograd x", x, images, space)
            results = self._runs("", out, images, space)
            for first, stop in _blocks(rows.count, self._forward_block[1]):
                tiles = self._transform_input(pixels, first, stop, space)
                products = self._points("winograd m", stop - first, count, shape.k, space)
                multiply(tiles, packed, products, rows.presence(first, stop), across, count)
                if self._finish(products, first, stop, results, bias, epilogue, images, space):
                    continue
                if bias is not None and self._adds_bias:
                    products[0, 0] += bias
                self._transform_output(products, first, stop, results, space)
                finished = slice(first * rows.tile, min(stop * rows.tile, shape.out_h))
                if bias is not None and not self._adds_bias:
                    results[finished] += np.tile(bias, count)
                if epilogue is not None:
                    epilogue(finished, images)

    def backward(
        self,
        x: FloatArray | None,
        grad: FloatArray,
        weight: FloatArray,
        grad_x: FloatArray | None,
        grad_weight: FloatArray | None,
        space: Workspace,
    ) -> None:
        """As ``ConvolutionPlan.backward``: the exact adjoint. Both gradients share ``A grad A^T``."""
        if x is None and grad_weight is not None:
            raise ValueError(
                "WinogradPlan.backward: the gradient of the weight, grad_weight, needs the input x, not None"
            )
        rows, columns = self.rows, self.columns
        across = columns.presence(0, columns.count)
        # Deep layers have large weights and one block of pixels: there the weight's gradient is finished before the
        # weight is transformed, in the memory that it leaves.
        single = self.shape.n <= self._backward_block[0] and rows.count <= self._backward_block[1]
        if grad_x is not None and not single:
            packed = self._transform_weight(weight, space)
        if grad_weight is not None:
            sums = self._weight_sums("winograd u" if single else "winograd sums", space)
        begun = False
        for begin, end in _blocks(self.shape.n, self._backward_block[0]):
            images, count = slice(begin, end), end - begin
            grads = self._runs("winograd grad", grad, images, space)
            if x is not None and grad_weight is not None:
                pixels = self._runs("winograd x", x, images, space)
            if grad_x is not None:
                targets = self._runs("", grad_x, images, space)
                compiled = self._in_one_pass(targets.shape[2])
                if not compiled:
                    ring = self._ring(count, space)
            for first, stop in _blocks(rows.count, self._backward_block[1]):
                tiles = self._transform_gradient(grads, first, stop, space)
                down = rows.presence(first, stop)
                if grad_weight is not None:
                    inputs = self._transform_input(pixels, first, stop, space)
                    accumulate_weight(inputs, tiles, sums, down, across, count, not begun, space)
                    begun = True
                    if single:
                        self._finish_weight(sums, grad_weight, space)
                if grad_x is not None:
                    if single:
                        packed = self._transform_weight(weight, space)
                    if compiled:
                        products = self._points("winograd ring", stop - first, count, self.shape.c, space)
                        multiply(tiles, packed, products, down, across, count)
                        aside = space.get("winograd aside", (targets.shape[2],), targets.dtype)
                        self._passes.scatter(products, targets, first, stop, aside)
                        continue
                    multiply(tiles, packed, ring[1:].transpose(1, 2, 0, 3, 4), down, across, count)
                    flat = ring.reshape(*ring.shape[:3], columns.count, -1)
                    scatter_input(flat, rows, columns, first, stop, targets, space)
                    if stop < rows.count:
                        ring[0] = ring[stop - first]
        if grad_weight is not None:
            if not begun:
                grad_weight[...] = 0
            elif not single:
                self._finish_weight(sums, grad_weight, space)

    def _finish_weight(self, sums: FloatArray, grad_weight: FloatArray, space: Workspace) -> None:
        """The weight's gradient from that of its transform."""
        if weight_transform.takes(sums.shape[4], by_inner := grad_weight.transpose(1, 0, 2, 3)):
            weight_transform.gather_weight(sums, self.rows.full.g, by_inner)
        else:
            finish_weight(sums, self._g, grad_weight, space)

    def _in_one_pass(self, run: int) -> bool:
        """Whether compiled transforms take runs of this length."""
        return self.shape.stride == (1, 1) and machine() is not None and self._passes.takes(run)

    def _finish(
        self,
        products: FloatArray,
        first: int,
        stop: int,
        out: FloatArray,
        bias: FloatArray | None,
        epilogue: Epilogue | None,
        images: slice,
        space: Workspace,
    ) -> bool:
        """The output's transform with all that follows, compiled; False if that is not possible."""
        run = out.shape[2]
        if not self._in_one_pass(run):
            return False
        finish = epilogue if isinstance(epilogue, Finish) else None
        residual = None
        if finish is not None and finish.residual is not None:
            residual = self._runs("winograd residual", finish.residual, images, space)
        row = None if bias is None else np.tile(bias, run // len(bias))
        self._passes.output(products, out, first, stop, row, residual, None if finish is None else finish.limits)
        if epilogue is not None and finish is None:
            epilogue(slice(first * self.rows.tile, min(stop * self.rows.tile, self.shape.out_h)), images)
        return True

    def _transform_input(self, x: FloatArray, first: int, stop: int, space: Workspace) -> FloatArray:
        """``B^T x B`` of tile rows ``first..stop``: (H, W, N*C) to (a, b, t, w*N, C)."""
        rows, columns, run = self.rows, self.columns, x.shape[2]
        if self._in_one_pass(run):
            tiles = self._points("winograd v", stop - first, run // self.shape.c, self.shape.c, space)
            self._passes.input(x, tiles, first, stop)
            return tiles
        half = self._half(stop - first, columns.span, run, space)
        left = columns.padding
        right = left + columns.used
        half[:, :, :left] = 0
        half[:, :, right:] = 0
        for row in range(first, stop):
            pixels, taken = rows.window(row)
            matrices = rows.matrices(row)
            # (a, h) @ (h, W*N*C) -> (a, W*N*C)
            target = half[row - first, : matrices.points, left:right]
            transform_input(rows, matrices, taken, x[pixels, : columns.used], target, transform_height)
        tiles = self._points("winograd v", stop - first, run // self.shape.c, self.shape.c, space)
        spread = self._spread(tiles, run)
        for t, down in rows.groups(first, stop):
            for w, matrices in columns.groups(0, columns.count):
                source = windows(half, w.start * columns.step, w.stop - w.start, columns.step, matrices.points)
                # (b, b) @ (t, a, w, b, N*C) -> (t, a, w, b, N*C)
                target = spread[t, : down.points, w, : matrices.points]
                every = slice(0, matrices.points)
                transform_input(
                    columns, matrices, every, _lines(source[t, : down.points]), _lines(target), _along_width
                )
        return tiles

    def _transform_output(self, products: FloatArray, first: int, stop: int, out: FloatArray, space: Workspace) -> None:
        """``A^T m A`` of tile rows ``first..stop``: (a, b, t, w*N, K) into (Ho, Wo, N*K)."""
        rows, columns, run = self.rows, self.columns, out.shape[2]
        half = self._half(stop - first, columns.out, run, space)
        spread = self._spread(products, run)
        for t, down in rows.groups(first, stop):
            for w, matrices in columns.groups(0, columns.count):
                a, b = down.points, matrices.points
                # (m, b) @ (t, a, w, b, N*K) -> (t, a, w, m, N*K)
                transform(matrices.at, spread[t, :a, w, :b], self._outputs_of(half[t, :a], w, matrices.outputs))
        for row in range(first, stop):
            matrices = rows.matrices(row)
            # (m, a) @ (a, Wo*N*K) -> (m, Wo*N*K)
            transform_height(matrices.at, half[row - first, : matrices.points], out[rows.outputs(row)])

    def _transform_gradient(self, grad: FloatArray, first: int, stop: int, space: Workspace) -> FloatArray:
        """``A grad A^T``, the adjoint of ``_transform_output``: (Ho, Wo, N*K) to (a, b, t, w*N, K)."""
        rows, columns, run = self.rows, self.columns, grad.shape[2]
        if self._in_one_pass(run):
            tiles = self._points("winograd m", stop - first, run // self.shape.k, self.shape.k, space)
            self._passes.gradient(grad, tiles, first, stop)
            return tiles
        half = self._half(stop - first, columns.out, run, space)
        for row in range(first, stop):
            matrices = rows.matrices(row)
            # (a, m) @ (m, Wo*N*K) -> (a, Wo*N*K)
            transform_height(matrices.a, grad[rows.outputs(row)], half[row - first, : matrices.points])
        tiles = self._points("winograd m", stop - first, run // self.shape.k, self.shape.k, space)
        spread = self._spread(tiles, run)
        for t, down in rows.groups(first, stop):
            for w, matrices in columns.groups(0, columns.count):
                a, b = down.points, matrices.points
                # (b, m) @ (t, a, w, m, N*K) -> (t, a, w, b, N*K)
                transform(matrices.a, self._outputs_of(half[t, :a], w, matrices.outputs), spread[t, :a, w, :b])
        return tiles

    def _outputs_of(self, half: FloatArray, tiles: slice, outputs: int) -> FloatArray:
        """The outputs of some tile columns of (t, a, Wo, run): (t, a, w, outputs, run)."""
        start, count = tiles.start * self.columns.tile, tiles.stop - tiles.start
        t, a, _, run = half.shape
        return half[:, :, start : start + count * outputs].reshape(t, a, count, outputs, run)

    def _spread(self, tiles: FloatArray, run: int) -> FloatArray:
        """(a, b, t, w*N, C) as the transform along the width sees it: (t, a, w, b, N*C)."""
        a, b, t = tiles.shape[:3]
        return tiles.reshape(a, b, t, self.columns.count, run).transpose(2, 0, 3, 1, 4)

    def _half(self, tile_rows: int, width: int, run: int, space: Workspace) -> FloatArray:
        """Scratch between the transforms along the height and along the width: (t, a, width, run)."""
        lead = (tile_rows, self._plane[0])
        return padded(space, "winograd half", lead, width * run, self.shape.dtype).reshape(*lead, width, run)

    def _points(self, use: str, tile_rows: int, images: int, channels: int, space: Workspace) -> FloatArray:
        """Scratch for transformed tiles: (a, b, t, w*N, channels)."""
        shape = (*self._plane, tile_rows, self.columns.count * images, channels)
        return padded(space, use, self._plane, math.prod(shape[2:]), self.shape.dtype).reshape(shape)

    def _ring(self, images: int, space: Workspace) -> FloatArray:
        """Scratch for the gradients of a block of transformed tile rows and the one before: (1 + t, a, b, w*N, C)."""
        lead = (1 + self._backward_block[1], *self._plane)
        shape = (*lead, self.columns.count * images, self.shape.c)
        return padded(space, "winograd ring", lead, math.prod(shape[3:]), self.shape.dtype).reshape(shape)

    def _weight_sums(self, use: str, space: Workspace) -> FloatArray:
        """Scratch for the gradient of the transformed weight: (a, b, K/block, C, block); zero where no tile comes."""
        c, k = self.shape.c, self.shape.k
        block = channel_block(c, k)
        sums = padded(space, use, self._plane, k * c, self.shape.dtype)
        if any(tiling.count == 1 and tiling.last is not tiling.full for tiling in (self.rows, self.columns)):
            sums.fill(0)
        return sums.reshape(*self._plane, k // block, c, block)

    def _runs(self, use: str, images: FloatArray, part: slice, space: Workspace) -> FloatArray:
        """Some images of (H, W, N, C) as (H, W, N*C); if they do not lie so, as a copy in the scratch for ``use``."""
        return pixel_runs(images, part, lambda shape: space.get(use, shape, images.dtype))


def _blocks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """``range(count)`` in blocks: their first and the one after their last."""
    for first in range(0, count, size):
        yield first, min(first + size, count)


def _lines(tiles: FloatArray) -> FloatArray:
    """(t, a, w, b, run) as (b, t, a, w, run)."""
    return tiles.transpose(3, 0, 1, 2, 4)


def _along_width(matrix: FloatArray, source: FloatArray, target: FloatArray) -> None:
    """``transform`` of ``_lines``."""
    transform(matrix, source.transpose(1, 2, 3, 0, 4), target.transpose(1, 2, 3, 0, 4))


def takes(shape: ConvolutionShape) -> bool:
    """Whether Winograd's algorithm, as it is here, computes this convolution."""
    return (
        (shape.kh, shape.kw, shape.groups, shape.dilation) == (3, 3, 1, (1, 1))
        and shape.stride in ((1, 1), (2, 2))
        and max(shape.padding) <= 2
        and min(shape.c, shape.k, shape.out_h, shape.out_w) > 0
        and shape.dtype in (np.float32, np.float64)
    )


@dataclass(frozen=True)
class _Costs:
    """Seconds that a convolution takes: by im2col and GEMM, and by Winograd's algorithm.

    Attributes:
        direct_call: of a call.
        direct_product: for each product of the definition.
        direct_pixel: for each entry of the columns.
        direct_output: for each entry of the output.
        direct_weight: for each entry of the weight.
        call: of a call.
        row: for each tile row.
        ragged: if the last tiles are smaller.
        product: for each product.
        weight: for each entry of the transformed weight.
        into: for each point of the input and each row of the matrices that transform it.
        out_of: the same for the output.
    """

    direct_call: float
    direct_product: float
    direct_pixel: float
    direct_output: float
    direct_weight: float
    call: float
    row: float
    ragged: float
    product: float
    weight: float
    into: float
    out_of: float


# Fitted to the times of 399 shapes on one Zen 5 core: strides 1 and 2, 1 to 32 images of 2x2 to 56x56, 3 to 512
# channels. What these estimates choose takes 1.9 and 1.6 % longer than the best, in the geometric mean; always im2col,
# 38 and 28 %.
_FROZEN = _Costs(77e-6, 8.0e-12, 62e-12, 187e-12, 61e-12, 24e-6, 9.4e-6, 34e-6, 10.0e-12, 51e-12, 40e-12, 31e-12)
_TRAINING = _Costs(
    238e-6, 20.3e-12, 413e-12, 1900e-12, 978e-12, 62e-6, 35e-6, 88e-6, 30.2e-12, 1110e-12, 182e-12, 101e-12
)
# F(6x6) is never better by more than 8 %, and its error is the largest.
_TILES = (2, 3, 4, 5)
# At stride 1, of tiles whose estimates differ by less than this factor the smallest is taken: it rounds least.
_TIE = 1.08


# The same of compiled direct products, which read pixels where they lie; for the forward pass, and for all three.
_COMPILED = _Costs(40e-6, 8.2e-12, 0.0, 0.0, 61e-12, 24e-6, 9.4e-6, 34e-6, 10.0e-12, 51e-12, 40e-12, 31e-12)
_COMPILED_TRAINING = _Costs(
    150e-6, 27e-12, 0.0, 0.0, 600e-12, 62e-6, 35e-6, 88e-6, 30.2e-12, 1110e-12, 182e-12, 101e-12
)


def best_tile(shape: ConvolutionShape, frozen: bool = False, compiled: bool = False) -> int | None:
    """The tile that is fastest for a convolution, or None where computing it directly is faster.

    Args:
        shape: of the convolution.
        frozen: count the forward pass alone, with a weight that was packed before; otherwise packing, the forward pass
            and both gradients.
        compiled: computing it directly means by compiled products.
    """
    if compiled and shape.stride != (1, 1):
        return None
    if not takes(shape) or shape.n == 0 or shape.out_h * shape.out_w == 1:
        return None
    costs = {
        (False, False): _TRAINING,
        (False, True): _FROZEN,
        (True, False): _COMPILED_TRAINING,
        (True, True): _COMPILED,
    }[compiled, frozen]
    outputs = shape.n * shape.out_h * shape.out_w
    direct = (
        costs.direct_call
        + costs.direct_product * shape.multiplications
        + costs.direct_pixel * outputs * 9 * shape.c
        + costs.direct_output * outputs * shape.k
        + costs.direct_weight * 9 * shape.c * shape.k
    )
    winograd = {tile: _winograd_seconds(shape, tile, costs) for tile in _TILES}
    least = min(winograd.values())
    if least >= direct:
        return None
    tie = _TIE if shape.stride[0] == 1 else 1.0
    return next(tile for tile in _TILES if winograd[tile] <= tie * least)


def _winograd_seconds(shape: ConvolutionShape, tile: int, costs: _Costs) -> float:
    """An estimate."""
    stride = shape.stride[0]
    overlap = 3 - stride  # points of a line beyond ``stride`` for each output
    tiles = -(-shape.out_h // tile), -(-shape.out_w // tile)
    line = stride * tile + overlap
    points = math.prod(
        overlap * count + stride * out for count, out in zip(tiles, (shape.out_h, shape.out_w), strict=True)
    )
    return (
        costs.call
        + costs.row * tiles[0]
        + (costs.ragged if shape.out_h % tile or shape.out_w % tile else 0)
        + costs.product * shape.n * points * shape.c * shape.k
        + costs.weight * line**2 * shape.c * shape.k
        + shape.n * points * (tile + overlap) * (costs.into * shape.c + costs.out_of * shape.k)
    )

"""Convolution of images with few channels by compiled products: ``stem_convolution``, its reference, without strips.

Some pictures at a time are copied into planes with a border of zeros, which stay in the second-level cache; every
product then reads its pixels there. The rows of a product are neighbouring windows, its taps single numbers. For the
gradient of the weight the rows are the taps beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .convolution_plan import ConvolutionPlan, ConvolutionShape, Epilogue, Finish
from .direct_convolution import DirectPlan, contiguous_channels
from .jit.machine import lanes, machine
from .jit.outer_products import outer_products
from .jit.tile_transform import address
from .jit.window_products import GROUP, TapTable, Tile, rows_of, window_products
from .stem_convolution import StemPlan
from .workspace import Workspace

FloatArray: TypeAlias = NDArray[Any]

# Bytes of the pictures that are copied together, and of the output between two calls of an epilogue.
_PICTURE_BYTES = 1 << 19
_BLOCK_BYTES = 1 << 20
# Windows of a tile (7x7, in GFLOP/s: 219 with 12, 223 with 8, 221 with 14 at 224x224; 197, 212 and 183 at 64x64).
_ROWS = 8
# Taps side by side whose sums fit the registers.
_MOST_TAPS = 12


class CompiledStemPlan(ConvolutionPlan):
    """Products of pixels in planes; for one group and output channels that fill vectors.

    Args:
        shape: what to prepare for.

    Raises:
        ValueError: a shape that it is not for, or no compiler.
    """

    name = "compiled stem"
    error = 3.5e-7

    def __init__(self, shape: ConvolutionShape) -> None:
        if not takes(shape):
            raise ValueError(f"CompiledStemPlan needs llvmlite, one group, and channels in vectors; got {shape}")
        self.shape = s = shape
        self._vectors = next(v for v in (2, 3, 1) if s.k % (v * lanes(s.dtype)) == 0)
        # what the windows read, borders included
        self._height = (s.out_h - 1) * s.stride[0] + (s.kh - 1) * s.dilation[0] + 1
        self._width = (s.out_w - 1) * s.stride[1] + (s.kw - 1) * s.dilation[1] + 1
        self._reference: ConvolutionPlan = StemPlan(shape) if s.dilation[0] == 1 else DirectPlan(shape)

    def pack(self, weight: FloatArray) -> FloatArray:
        """(panels, C*kh*kw, vectors * lanes)."""
        s = self.shape
        panel = self._vectors * lanes(s.dtype)
        by_panel = weight.reshape(s.k // panel, panel, s.c * s.kh * s.kw)
        return np.ascontiguousarray(by_panel.transpose(0, 2, 1))

    def forward(
        self,
        x: FloatArray,
        packed: FloatArray,
        out: FloatArray,
        space: Workspace,
        bias: FloatArray | None = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        """See ``ConvolutionPlan.forward``; ``x`` is read fastest where the columns of an image are contiguous."""
        if not out.size:
            return
        s = self.shape
        finish = epilogue if isinstance(epilogue, Finish) else None
        extra = None if finish is None else finish.residual
        if finish is not None and extra is not None and extra.strides != finish.out.strides:
            finish, extra = None, None
        limits = None if finish is None else finish.limits
        start = np.zeros(s.k, s.dtype) if bias is None else bias
        for images, planes in self._planes(x, space):
            count = images.stop - images.start
            target = out[:, :, images]
            more = 0 if extra is None else address(extra[:, :, images])
            pieces, taps = _windows(s, self._vectors, count, planes.strides, target.strides[:3])
            step = max(1, min(s.out_h, _BLOCK_BYTES // (s.out_w * count * s.k * s.dtype.itemsize)))
            step = step if epilogue is not None and finish is None else s.out_h
            for first in range(0, s.out_h, step):
                last = min(first + step, s.out_h)
                for tile, windows in pieces:
                    each = len(windows) // s.out_h
                    window_products(tile, s.dtype, True, extra is not None, limits)(
                        address(planes), address(packed), address(target), address(windows) + 32 * each * first,
                        each * (last - first), len(packed), packed[0].nbytes, address(taps.table), 1, address(start),
                        more,
                    )  # fmt: skip
                if epilogue is not None and finish is None:
                    epilogue(slice(first, last), images)

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
        s = self.shape
        if grad_x is not None:
            self._reference.backward(None, grad, weight, grad_x, None, space)
        if grad_weight is None:
            return
        if x is None:
            raise ValueError("the gradient of a convolution's weight needs the input x, which is None")
        if not grad.size or s.kw > _MOST_TAPS:
            self._reference.backward(x, grad, weight, None, grad_weight, space)
            return
        grad = contiguous_channels(grad, "compiled gradient", space)
        item = s.dtype.itemsize
        total = space.get("compiled total", (s.c, s.kh, s.kw, s.k), s.dtype)
        total.fill(0)
        sums = outer_products(Tile(s.kw, self._vectors, s.dilation[1] * item, s.k * item), s.dtype)
        panels = s.k // (self._vectors * lanes(s.dtype))
        for images, planes in self._planes(x, space):
            part = grad[:, :, images]
            jobs, pairs = _jobs(s, images.stop - images.start, planes.strides, part.strides[:3])
            sums(
                address(planes), address(part), address(total), address(jobs), len(jobs), address(pairs),
                s.out_w, s.stride[1] * item, part.strides[1], s.kh, s.dilation[0] * planes.strides[2], panels,
            )  # fmt: skip
        np.copyto(grad_weight, total.transpose(3, 0, 1, 2))

    def _planes(self, x: FloatArray, space: Workspace) -> Iterator[tuple[slice, FloatArray]]:
        """Some images at a time, (images, C, height, width) with borders of zeros."""
        s = self.shape
        each = s.c * self._height * self._width * s.dtype.itemsize
        together = max(1, _PICTURE_BYTES // each)
        top, left = s.padding
        bottom, right = min(self._height, top + s.h), min(self._width, left + s.w)
        planes = space.get("compiled planes", (together, s.c, self._height, self._width), s.dtype)
        planes[:, :, :top] = 0
        planes[:, :, bottom:] = 0
        planes[:, :, top:bottom, :left] = 0
        planes[:, :, top:bottom, right:] = 0
        for first in range(0, s.n, together):
            images = slice(first, min(first + together, s.n))
            source = x[: bottom - top, : right - left, images].transpose(2, 3, 0, 1)
            np.copyto(planes[: len(source), :, top:bottom, left:right], source)
            yield images, planes[: len(source)]


def takes(shape: ConvolutionShape) -> bool:
    """Whether compiled products compute this convolution of few channels."""
    if machine() is None or shape.groups != 1 or shape.dtype not in (np.float32, np.float64):
        return False
    return shape.c * shape.kh * shape.kw <= GROUP and shape.k > 0 and shape.k % lanes(shape.dtype) == 0


@lru_cache(maxsize=256)
def _windows(
    s: ConvolutionShape, vectors: int, images: int, strides: tuple[int, ...], out_strides: tuple[int, ...]
) -> tuple[list[tuple[Tile, NDArray[np.int64]]], TapTable]:
    """The tables of ``window_products``: the same number of windows for each row of the output, row after row."""
    of_image, of_plane, of_row, item = strides
    line = vectors * lanes(s.dtype) * item
    taps = [
        (channel * of_plane + i * s.dilation[0] * of_row + j * s.dilation[1] * item, number * line)
        for number, (channel, i, j) in enumerate(np.ndindex(s.c, s.kh, s.kw))
    ]
    table = TapTable([taps], 1)
    found: dict[int, list[tuple[int, int, int, int]]] = {}
    for row in range(s.out_h):
        for image in range(images):
            col = 0
            for count in rows_of(s.out_w, vectors, _ROWS):
                at = image * of_image + row * s.stride[0] * of_row + col * s.stride[1] * item
                to = row * out_strides[0] + col * out_strides[1] + image * out_strides[2]
                found.setdefault(count, []).append((at, to, *table.spans[0]))
                col += count
    step, out_step = s.stride[1] * item, out_strides[1]
    return [(Tile(count, vectors, step, out_step), np.array(rows, np.int64)) for count, rows in found.items()], table


@lru_cache(maxsize=256)
def _jobs(
    s: ConvolutionShape, images: int, strides: tuple[int, ...], grad_strides: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tables of ``outer_products``: for some rows of windows at a time, every channel."""
    of_image, of_plane, of_row, item = strides
    together = max(1, GROUP // s.out_w)
    rows = [(image, row) for image in range(images) for row in range(s.out_h)]
    jobs: list[tuple[int, int, int]] = []
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(rows), together):
        for channel in range(s.c):
            first = len(pairs)
            for image, row in rows[start : start + together]:
                at = image * of_image + channel * of_plane + row * s.stride[0] * of_row
                pairs.append((at, row * grad_strides[0] + image * grad_strides[2]))
            jobs.append((16 * first, 16 * len(pairs), channel * s.kh * s.kw * s.k * item))
    return np.array(jobs, np.int64).reshape(-1, 3), np.array(pairs, np.int64).reshape(-1, 2)

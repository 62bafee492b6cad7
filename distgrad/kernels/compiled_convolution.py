"""Direct convolution by compiled products, in HWNC order: nothing is gathered, pixels are multiplied where they lie.

The forward pass and the gradient of the input are ``jit.window_products``, the latter once for each phase of the
input's pixels by the stride, as in ``direct_convolution``, whose plan is the reference. The gradient of the weight is
``jit.outer_products``. The rows of a product are the images at one pixel; with few images, neighbouring pixels of one.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .convolution_plan import ConvolutionPlan, ConvolutionShape, Epilogue, Finish
from .direct_convolution import DirectPlan, contiguous_channels, phase_axis
from .gather import Axis, Segment
from .jit.machine import lanes, machine
from .jit.outer_products import outer_products, window_jobs
from .jit.tile_transform import address
from .jit.window_products import GROUP, TapTable, Tile, rows_of, window_products
from .kept_weights import kept
from .workspace import Workspace

FloatArray: TypeAlias = NDArray[Any]
Axes: TypeAlias = tuple[Axis, Axis]
Strides: TypeAlias = tuple[int, int, int]

# Images from which on the rows of a product are images.
_IMAGES = 4
# Bytes of the output of a block of rows, after which the epilogue finds it in cache.
_BLOCK_BYTES = 1 << 20
_STEP = 4  # channels that the products take at once
# Weights of a tap up to which the pixels of a job, and the sums, stay in the second-level cache: beyond, columns and a
# GEMM are faster (3x3, stride 2, 64 to 128, 128 to 256, 256 to 512 channels: 207, 203, 154 GFLOP/s against 114, 168,
# 191).
_LARGEST_WEIGHT = 1 << 16
# Windows whose products are summed before they are added to a weight's gradient: they stay in cache for all taps.
_SUMMED = 96


class _Piece(NamedTuple):
    """Windows of one size of tile, in the order of the output's rows.

    Attributes:
        tile: rows and vectors, and the bytes between rows.
        windows: (windows, 4), see ``window_products``.
        starts: the first window of each row of the output, and one after the last.
    """

    tile: Tile
    windows: NDArray[np.int64]
    starts: list[int]


class CompiledPlan(ConvolutionPlan):
    """Products of pixels where they lie; for one group and channels that fill vectors.

    Args:
        shape: what to prepare for.

    Raises:
        ValueError: a shape that it is not for, or no compiler.
    """

    name = "compiled direct"
    error = 3.5e-7

    def __init__(self, shape: ConvolutionShape) -> None:
        if not takes(shape):
            raise ValueError(f"CompiledPlan needs llvmlite, one group, and channels in vectors; got {shape}")
        self.shape = s = shape
        self._axes = (
            Axis(s.out_h, -s.padding[0], s.stride[0], s.kh, s.dilation[0], s.h),
            Axis(s.out_w, -s.padding[1], s.stride[1], s.kw, s.dilation[1], s.w),
        )
        self._reference = DirectPlan(s)
        self._weight_apart = s.c * s.k > _LARGEST_WEIGHT

    def pack(self, weight: FloatArray) -> FloatArray:
        """(panels, kh*kw, C, vectors * lanes)."""
        return _panels(weight.transpose(2, 3, 1, 0))

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
            x = contiguous_channels(x, "compiled input", space)
            _correlate(self._axes, x, packed, out, bias, epilogue)

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
        if grad_weight is not None and x is None:
            raise ValueError("the gradient of a convolution's weight needs the input x, which is None")
        if grad.size:
            grad = contiguous_channels(grad, "compiled gradient", space)
        if grad_x is not None and grad_x.size:
            self._backward_input(grad, weight, grad_x)
        if grad_weight is not None and x is not None:
            if self._weight_apart:
                self._reference.backward(x, grad, weight, None, grad_weight, space)
            elif grad.size and x.size:
                self._backward_weight(contiguous_channels(x, "compiled input", space), grad, grad_weight, space)
            else:
                grad_weight[...] = 0

    def _backward_input(self, grad: FloatArray, weight: FloatArray, grad_x: FloatArray) -> None:
        s = self.shape
        for row in range(s.stride[0]):
            vertical = phase_axis(row, s.h, s.kh, s.stride[0], s.padding[0], s.dilation[0], s.out_h)
            for col in range(s.stride[1]):
                horizontal = phase_axis(col, s.w, s.kw, s.stride[1], s.padding[1], s.dilation[1], s.out_w)
                target = grad_x[row :: s.stride[0], col :: s.stride[1]]
                if not target.size:
                    continue
                if vertical is None or horizontal is None or not grad.size:
                    target[...] = 0
                    continue
                packed = kept(weight, self, (row, col), partial(_panels_of_taps, weight, vertical[0], horizontal[0]))
                _correlate((vertical[1], horizontal[1]), grad, packed, target, None, None)

    def _backward_weight(self, x: FloatArray, grad: FloatArray, grad_weight: FloatArray, space: Workspace) -> None:
        s, dtype = self.shape, grad.dtype
        total = space.get("compiled total", (s.kh, s.kw, s.c, s.k), dtype)
        total.fill(0)
        vectors = _vectors(s.k, dtype)
        rows = _weight_rows(s.c)
        tile = Tile(rows, vectors, dtype.itemsize, s.k * dtype.itemsize)
        together = max(1, _SUMMED // s.n)
        jobs, pairs = window_jobs(self._axes, together, s.c * s.k * dtype.itemsize, x.strides[:2], grad.strides[:2])
        panel = vectors * lanes(dtype)
        outer_products(tile, dtype)(
            address(x), address(grad), address(total), address(jobs), len(jobs), address(pairs),
            s.n, x.strides[2], grad.strides[2], s.c // rows, rows * dtype.itemsize, s.k // panel,
        )  # fmt: skip
        np.copyto(grad_weight, total.transpose(3, 2, 0, 1))


def takes(shape: ConvolutionShape) -> bool:
    """Whether compiled products compute this convolution."""
    if machine() is None or shape.groups != 1 or shape.dtype not in (np.float32, np.float64):
        return False
    width = lanes(shape.dtype)
    return min(shape.c, shape.k) > 0 and shape.c % width == 0 and shape.k % width == 0


def _vectors(width: int, dtype: np.dtype[Any]) -> int:
    """Of a panel, for so many channels of the output."""
    return next(v for v in (2, 3, 1) if width % (v * lanes(dtype)) == 0)


def _weight_rows(channels: int) -> int:
    """Channels of the input that the weight's gradient takes at once."""
    return next(rows for rows in (12, 8, 4, 1) if channels % rows == 0)


def _inner(channels: int) -> int:
    """Channels that are summed at once: a divisor."""
    return next(n for n in range(min(channels, GROUP), 0, -1) if channels % n == 0 and n % _STEP == 0)


def _panels(weight: FloatArray) -> FloatArray:
    """(taps, taps, inner, width) as (width / panel, taps, inner, panel)."""
    down, across, inner, width = weight.shape
    panel = _vectors(width, weight.dtype) * lanes(weight.dtype)
    out = np.empty((width // panel, down, across, inner, panel), weight.dtype)
    for number in range(len(out)):
        np.copyto(out[number], weight[..., number * panel : (number + 1) * panel])
    return out.reshape(len(out), down * across, inner, panel)


def _panels_of_taps(weight: FloatArray, down: slice, across: slice) -> FloatArray:
    return _panels(weight[:, :, down][:, :, :, across].transpose(2, 3, 0, 1))


def _correlate(
    axes: Axes,
    source: FloatArray,
    packed: FloatArray,
    out: FloatArray,
    bias: FloatArray | None,
    epilogue: Epilogue | None,
) -> None:
    """``out = windows of source @ packed + bias``, and the epilogue.

    Args:
        axes: where the windows' taps are.
        source: (H, W, N, C), C contiguous.
        packed: (panels, taps, C, panel).
        out: (rows, columns, N, K), K contiguous.
        bias: (K,) or None.
        epilogue: as in ``ConvolutionPlan.forward``.
    """
    dtype = out.dtype
    finish = epilogue if isinstance(epilogue, Finish) else None
    extra = None if finish is None else finish.residual
    if finish is not None and extra is not None and (extra.strides != finish.out.strides):
        finish, extra = None, None
    channels = source.shape[3]
    vectors = packed.shape[3] // lanes(dtype)
    pieces, taps = _windows(
        axes, source.shape[2], channels, vectors, dtype.itemsize, source.strides[:3], out.strides[:3]
    )
    start = np.zeros(out.shape[3], dtype) if bias is None else bias
    limits = None if finish is None else finish.limits
    step = max(1, min(len(out), _BLOCK_BYTES // max(1, out[0].size * dtype.itemsize)))
    for first in range(0, len(out), step):
        last = min(first + step, len(out))
        for piece in pieces:
            product = window_products(piece.tile, dtype, False, extra is not None, limits)
            begin, end = piece.starts[first], piece.starts[last]
            product(
                address(source), address(packed), address(out), address(piece.windows) + 32 * begin, end - begin,
                len(packed), packed[0].nbytes, address(taps.table), _inner(channels), address(start),
                0 if extra is None else address(extra),
            )  # fmt: skip
        if epilogue is not None and finish is None:
            epilogue(slice(first, last), slice(0, out.shape[2]))


@lru_cache(maxsize=1024)
def _windows(
    axes: Axes, images: int, channels: int, vectors: int, item: int, strides: Strides, out_strides: Strides
) -> tuple[list[_Piece], TapTable]:
    """The tables of ``window_products`` for all windows of an image.

    Args:
        axes: where the windows' taps are.
        images: ``N``.
        channels: ``C``.
        vectors: of a panel.
        item: bytes of a float.
        strides: of the source's rows, pixels and images, in bytes.
        out_strides: the same of the output.
    """
    vertical, horizontal = axes
    rows_found, cols_found = vertical.segments(), horizontal.segments()
    inner = _inner(channels)
    tap_bytes = channels * vectors * lanes(np.dtype(f"f{item}")) * item
    lists = [
        _taps(axes, rows, cols, channels, inner, tap_bytes, item, strides) for rows in rows_found for cols in cols_found
    ]
    taps = TapTable(lists, inner)
    by_images = images >= _IMAGES
    row_step, out_step = (strides[2], out_strides[2]) if by_images else (horizontal.step * strides[1], out_strides[1])
    found: dict[int, list[list[tuple[int, int, int, int]]]] = {}
    for i, rows in enumerate(rows_found):
        for row in range(rows.first, rows.last):
            here: dict[int, list[tuple[int, int, int, int]]] = {}
            of_row = (vertical.start + row * vertical.step) * strides[0]
            for j, cols in enumerate(cols_found):
                span = taps.spans[i * len(cols_found) + j]
                for col, image, count in _starts(cols, images, vectors, by_images):
                    at = of_row + (horizontal.start + col * horizontal.step) * strides[1] + image * strides[2]
                    to = row * out_strides[0] + col * out_strides[1] + image * out_strides[2]
                    here.setdefault(count, []).append((at, to, *span))
            for count, windows in here.items():
                found.setdefault(count, [[] for _ in range(vertical.count)])[row] = windows
    pieces = []
    for count, by_row in found.items():
        starts = [0, *np.cumsum([len(windows) for windows in by_row]).tolist()]
        table = np.array([window for windows in by_row for window in windows], np.int64).reshape(-1, 4)
        pieces.append(_Piece(Tile(count, vectors, row_step, out_step), table, starts))
    return pieces, taps


def _starts(cols: Segment, images: int, vectors: int, by_images: bool) -> list[tuple[int, int, int]]:
    """Tiles of the windows of a segment in one row: their first column, first image, and rows."""
    found = []
    if by_images:
        for col in range(cols.first, cols.last):
            image = 0
            for count in rows_of(images, vectors):
                found.append((col, image, count))
                image += count
        return found
    for image in range(images):
        col = cols.first
        for count in rows_of(cols.last - cols.first, vectors):
            found.append((col, image, count))
            col += count
    return found


def _taps(
    axes: Axes, rows: Segment, cols: Segment, channels: int, inner: int, tap_bytes: int, item: int, strides: Strides
) -> list[tuple[int, int]]:
    """The taps that windows of these segments see: distances in the source and in a panel of the weight."""
    vertical, horizontal = axes
    per_channel = tap_bytes // channels
    return [
        (
            i * vertical.dilation * strides[0] + j * horizontal.dilation * strides[1] + channel * item,
            (i * horizontal.taps + j) * tap_bytes + channel * per_channel,
        )
        for i in range(rows.tap, rows.tap_end)
        for j in range(cols.tap, cols.tap_end)
        for channel in range(0, channels, inner)
    ]

"""How Winograd's tiles cover an image, and the products that all of its transforms are made of.

Names of dimensions: tile rows ``t`` and tile columns ``w``; points ``a`` down and ``b`` across; images ``N``, channels
``C`` in and ``K`` out, of which a *run* ``N*C`` or ``N*K`` is contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .convolution_plan import FloatArray
from .winograd_matrices import TileMatrices, tile_matrices
from .workspace import Workspace

# Runs longer than this are transformed in pieces that stay in the first-level cache with all rows of the matrix.
_LONGEST_PIECE = 768
_PIECE = 512

# OpenBLAS multiplies matrices as they lie, without packing them, where the product of the three sizes is at most this.
# It is faster so, by up to a half; the weight is cut into blocks of channels, and the tiles into rows, to stay below.
_UNPACKED = 1_000_000
_CHANNEL_BLOCKS = (64, 48, 32, 56, 40, 60, 50, 52, 44, 36, 28, 24)
_FEWEST_ROWS = 16

# Lines of a page, which is the period of the first-level cache, and how far apart the rows of a matrix are in it.
_LINES = 64
_LINES_APART = 11


@dataclass(frozen=True)
class Tiling:
    """The tiles along one dimension of an image. All but the last have ``tile`` outputs.

    Attributes:
        size: pixels of the input.
        out: pixels of the output.
        padding: zeros on each side of the input.
        tile: outputs of a full tile.
        stride: of the convolution.
        dtype: of the images.
    """

    size: int
    out: int
    padding: int
    tile: int
    stride: int
    dtype: np.dtype[Any]

    @cached_property
    def count(self) -> int:
        """Tiles."""
        return -(-self.out // self.tile)

    @cached_property
    def step(self) -> int:
        """Input pixels from one tile to the next."""
        return self.tile * self.stride

    @cached_property
    def full(self) -> TileMatrices:
        """The matrices of all tiles but the last."""
        return tile_matrices(self.tile, self.stride, self.tile, self.dtype)

    @cached_property
    def last(self) -> TileMatrices:
        """The matrices of the last tile."""
        return tile_matrices(self.tile, self.stride, self.out - (self.count - 1) * self.tile, self.dtype)

    @cached_property
    def span(self) -> int:
        """Pixels that the tiles read together, padding included."""
        return (self.count - 1) * self.step + self.last.points

    @cached_property
    def used(self) -> int:
        """Pixels of the input that the tiles read; a stride may leave some over."""
        return min(self.size, self.span - self.padding)

    def groups(self, first: int, stop: int) -> list[tuple[slice, TileMatrices]]:
        """Tiles ``first..stop`` as at most two groups that share their matrices; slices start from ``first``."""
        if self.last is self.full or stop < self.count:
            return [(slice(0, stop - first), self.full)]
        full = stop - 1 - first
        ragged = [(slice(full, full + 1), self.last)]
        return [(slice(0, full), self.full), *ragged] if full else ragged

    def presence(self, first: int, stop: int) -> list[tuple[slice, int]]:
        """The points, and how many of the tiles ``first..stop`` use them: those before a ragged last one, or all."""
        groups = self.groups(first, stop)
        if len(groups) == 1:
            return [(slice(0, groups[0][1].points), stop - first)]
        few = groups[1][1].points
        return [(slice(0, few), stop - first), (slice(few, self.full.points), stop - first - 1)]

    def matrices(self, index: int) -> TileMatrices:
        """The matrices of one tile."""
        return self.last if index == self.count - 1 else self.full

    def window(self, index: int) -> tuple[slice, slice]:
        """The input pixels under a tile, and which of the tile's pixels they are: those outside the padding."""
        start = index * self.step - self.padding
        low, high = max(0, -start), min(self.matrices(index).points, self.size - start)
        return slice(start + low, start + high), slice(low, high)

    def outputs(self, index: int) -> slice:
        """The output pixels of a tile."""
        return slice(index * self.tile, min((index + 1) * self.tile, self.out))


@cache
def overlap(tiling: Tiling, index: int) -> tuple[slice, FloatArray]:
    """How the gradient of the input comes from tiles: the adjoint of reading overlapping windows, without additions.

    Returns:
        The input pixels from the first of tile ``index`` up to the first of the next tile (after the last tile: up to
        its last), and the matrix (pixels, products) that gives their gradient from the products of the tile before, if
        there is one, followed by those of the tile itself.
    """
    full, own = tiling.full, tiling.matrices(index)
    start = index * tiling.step - tiling.padding
    pixels = own.points if index == tiling.count - 1 else tiling.step
    matrix = own.b[:pixels]
    if index:
        before = np.zeros((pixels, full.points), tiling.dtype)
        shared = full.points - tiling.step
        before[:shared] = full.b[tiling.step :]
        matrix = np.hstack([before, matrix])
    low, high = max(0, -start), min(pixels, tiling.size - start)
    matrix = np.ascontiguousarray(matrix[low:high])
    matrix.flags.writeable = False
    return slice(start + low, start + high), matrix


def transform(matrix: FloatArray, source: FloatArray, target: FloatArray) -> None:
    """``target[..., i, :] = sum over j of matrix[i, j] * source[..., j, :]``, in pieces of the last dimension.

    Args:
        matrix: (I, J).
        source: (..., J, run), the last dimension contiguous.
        target: (..., I, run), the last dimension contiguous.
    """
    run = source.shape[-1]
    if run <= _LONGEST_PIECE:
        # (I, J) @ (..., J, run)
        np.matmul(matrix, source, out=target)
        return
    for start, count, size in _pieces(run):
        stop = start + count * size
        # (I, J) @ (..., count, J, size)
        np.matmul(
            matrix,
            source[..., start:stop].reshape(*source.shape[:-1], count, size).swapaxes(-3, -2),
            out=target[..., start:stop].reshape(*target.shape[:-1], count, size).swapaxes(-3, -2),
        )


@lru_cache(maxsize=4096)
def _pieces(run: int) -> tuple[tuple[int, int, int], ...]:
    """A run as (start, count, size): pieces of equal size, then what remains of it."""
    size = -(-run // -(-run // _PIECE))
    size = -(-size // 16) * 16
    count, rest = divmod(run, size)
    pieces = ((0, count, size),)
    return (*pieces, (count * size, 1, rest)) if rest else pieces


@cache
def channel_block(inner: int, outer: int) -> int:
    """How many of the ``outer`` channels one GEMM computes from ``inner`` ones; a divisor."""
    largest = min(_CHANNEL_BLOCKS[0] if inner <= 256 else 32, _UNPACKED // (_FEWEST_ROWS * inner))
    if outer <= largest:
        return outer
    return next((size for size in _CHANNEL_BLOCKS if size <= largest and outer % size == 0), outer)


@lru_cache(maxsize=4096)
def row_split(rows: int, rest: int) -> int:
    """How many of the rows one GEMM takes, if the product of its two other sizes is ``rest``: a divisor of ``rows``."""
    most = _UNPACKED // rest
    if rows <= most:
        return rows
    return next((size for size in range(most, _FEWEST_ROWS - 1, -1) if rows % size == 0), rows)


def multiply(
    source: FloatArray,
    packed: FloatArray,
    target: FloatArray,
    rows: list[tuple[slice, int]],
    columns: list[tuple[slice, int]],
    images: int,
) -> None:
    """The products at every point: ``target[a, b] = source[a, b] @ weight[a, b]``.

    Args:
        source: (a, b, t, w*N, C).
        packed: (a, b, K/block, C, block), the transformed weight.
        target: (a, b, t, w*N, K).
        rows: points down and the tile rows that use them, as from ``Tiling.presence``.
        columns: points across and the tile columns that use them.
        images: ``N``.
    """
    c, k, block = source.shape[-1], target.shape[-1], packed.shape[-1]
    for a, t in rows:
        for b, w in columns:
            left, result = merged(source[a, b, :t, : w * images], target[a, b, :t, : w * images])
            count = left.shape[3]
            part = row_split(count, c * block)
            lead = (*left.shape[:3], count // part, part)
            # (a, b, 1, t, parts, part, C) @ (a, b, K/block, 1, 1, C, block) -> (a, b, K/block, t, parts, part, block)
            np.matmul(
                left.reshape(*lead, c)[:, :, None],
                packed[a, b, :, None, None],
                out=result.reshape(*lead, k // block, block).transpose(0, 1, 5, 2, 3, 4, 6),
            )


def merged(*arrays: FloatArray) -> list[FloatArray]:
    """Each (a, b, t, rows, channels) as (a, b, 1, t*rows, channels), if all of them lie so."""
    if arrays[0].shape[2] == 1 or any(array.strides[2] != array.shape[3] * array.strides[3] for array in arrays):
        return list(arrays)
    return [array.reshape(*array.shape[:2], 1, -1, array.shape[4]) for array in arrays]


def transform_height(matrix: FloatArray, source: FloatArray, target: FloatArray) -> None:
    """``transform`` of whole rows of pixels: (I, J) with (J, W, run) to (I, W, run).

    What lies along the width takes no part, so that where pixels are contiguous the run is the whole row.
    """
    _, width, run = source.shape
    if all(images.strides[1] == run * images.itemsize for images in (source, target)):
        transform(matrix, source.reshape(-1, width * run), target.reshape(-1, width * run))
    else:
        transform(matrix, source.swapaxes(0, 1), target.swapaxes(0, 1))


def transform_input(
    tiling: Tiling,
    matrices: TileMatrices,
    taken: slice,
    source: FloatArray,
    target: FloatArray,
    apply: Callable[[FloatArray, FloatArray, FloatArray], None],
) -> None:
    """``B^T`` of tiles, of whose pixels those outside ``taken`` are zero.

    Args:
        tiling: along the transformed dimension.
        matrices: of the tiles.
        taken: the pixels of a tile that ``source`` has.
        source: (pixels, ...).
        target: (points, ...).
        apply: ``transform_height``, or another that takes a matrix, (pixels, ...) and (points, ...).
    """
    if tiling.stride == 1:
        apply(matrices.bt[:, taken], source, target)
        return
    low, high = taken.start, taken.stop
    even, odd = low + low % 2, low + 1 - low % 2
    apply(matrices.bt_even[:, even // 2 : (high + 1) // 2], source[even - low :: 2], target[::2])
    target[1:low:2] = 0
    np.copyto(target[odd:high:2], source[odd - low :: 2])
    target[odd + 2 * len(source[odd - low :: 2]) :: 2] = 0


def windows(images: FloatArray, first: int, count: int, step: int, size: int) -> FloatArray:
    """Overlapping windows of (..., W, run), one each ``step`` pixels from ``first``: (..., count, size, run)."""
    *lead, pixel, item = images.strides
    shape = (*images.shape[:-2], count, size, images.shape[-1])
    return as_strided(images[..., first:, :], shape, (*lead, step * pixel, pixel, item))


def padded(space: Workspace, use: str, lead: tuple[int, ...], size: int, dtype: np.dtype[Any]) -> FloatArray:
    """Scratch (*lead, size) whose last dimension alone is contiguous: what a transform reads or writes together, one
    element of each of the leading entries, is spread over the sets of the caches."""
    line = 64 // dtype.itemsize
    lines = -(-size // line)
    lines += (_LINES_APART - lines) % _LINES
    return space.get(use, (*lead, lines * line), dtype)[..., :size]


def pixel_runs(images: FloatArray, part: slice, scratch: Callable[[tuple[int, ...]], FloatArray]) -> FloatArray:
    """Some of the images of (H, W, N, C) as (H, W, N*C): a view where their order allows it, else a copy in scratch."""
    chosen = images[:, :, part]
    h, w, n, c = chosen.shape
    item = images.itemsize
    if (c == 1 or chosen.strides[3] == item) and (n == 1 or chosen.strides[2] == c * item):
        return chosen.reshape(h, w, n * c)
    copy = scratch((h, w, n, c))
    np.copyto(copy, chosen)
    return copy.reshape(h, w, n * c)

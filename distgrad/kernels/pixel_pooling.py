"""Pooling in HWNC order: rows of pixels against rows of pixels, each pixel a contiguous run of ``N*C`` numbers.

Arrays are (H, W, N, C) with contiguous runs; rows and pixels may have gaps, so that results can be written into a part
of something else. A block of windows is pooled down the columns first, then along the rows, while its pixels are in the
second-level cache. Where a maximum was is kept as its *place*: the number ``i*kw + j`` of its tap (i, j) in the window,
a byte for nearly every window, from which the gradient needs no scattered access: it goes tap by tap.

``kernels.pooling`` has the same functions of (N, C, H, W) in any order, and the references that both are held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.jit import max_pooling
from distgrad.kernels.layout import runs
from distgrad.kernels.window import overlap
from distgrad.kernels.workspace import Workspace, workspace

FloatArray: TypeAlias = NDArray[Any]
Pair: TypeAlias = tuple[int, int]
# Which windows (or pixels) of a block a tap belongs to, and which pixels (or windows) of the array these are.
Reach: TypeAlias = tuple[slice, slice]

# Of the pixels that a block of windows reads. 3x3 windows with stride 2 over 112x112x16x64 float32 take 7.1 ms in
# blocks of 512 KiB, 6.5 of 1 MiB, 5.8 of 2 MiB, 4.7 of 4 MiB, for which the third-level cache has to be large.
_BLOCK_BYTES = 1 << 21
_WORDS = {2: np.int16, 4: np.int32, 8: np.int64}


class Window(NamedTuple):
    """Size of a window, step between windows, pixels around the image, step between taps; (vertical, horizontal)."""

    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)

    def taps(self) -> int:
        """Pixels of a window."""
        return self.kernel_size[0] * self.kernel_size[1]


def place_dtype(taps: int) -> np.dtype[Any]:
    """The smallest unsigned dtype that numbers the taps of a window, and one more."""
    return np.min_scalar_type(taps)


# Maxima ---------------------------------------------------------------------------------------------------------------


def max_pool(
    x: FloatArray, out: FloatArray, window: Window, places: NDArray[Any] | None = None, space: Workspace | None = None
) -> None:
    """Writes the maximum of each window, and where it was; ties and NaN as in ``pooling.max_pool2d``.

    Args:
        x: (H, W, N, C), of any dtype but bool.
        out: (Ho, Wo, N, C), of the dtype of ``x``.
        window: which pixels; every window must touch the image.
        places: (Ho, Wo, N, C), of ``place_dtype(window.taps())``; None to leave them out.
        space: scratch memory; the thread's without it.
    """
    if not x.size:
        return
    space = space or workspace()
    pixels, maxima = runs(x), runs(out)
    kept = None if places is None else runs(places)
    if max_pooling.takes(pixels, kept):
        max_pooling.max_pool(pixels, maxima, kept, tuple(window))
        return
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    for block, rows, cols in _blocks(maxima.shape, pixels, window):
        best = maxima[block]
        _reduced(np.maximum, lowest, pixels, best, rows, cols, space)
        if kept is not None:
            _find(pixels, best, kept[block], rows, cols, space)


def _find(
    pixels: FloatArray,
    best: FloatArray,
    places: NDArray[Any],
    rows: list[Reach],
    cols: list[Reach],
    space: Workspace,
) -> None:
    """Which tap of each window of a block is the maximum.

    The first tap has the highest rank, so the highest rank among those that hold the maximum is that of the first. Only
    a NaN does not equal itself, and leaves rank 0; there the last one is looked for.
    """
    taps = len(rows) * len(cols)
    places.fill(0)
    for tap, (ours, theirs) in enumerate(_products(rows, cols)):
        mine = best[ours]
        equal = space.get("pool: equal", mine.shape, np.bool_)
        np.equal(pixels[theirs], mine, out=equal)
        ranks = equal.view(np.uint8)
        if places.dtype != np.uint8:
            ranks = space.get("pool: ranks", mine.shape, places.dtype)
        np.multiply(equal.view(np.uint8), places.dtype.type(taps - tap), out=ranks)
        np.maximum(places[ours], ranks, out=places[ours])
    if not places.all():
        for tap, (ours, theirs) in enumerate(_products(rows, cols)):
            np.copyto(places[ours], taps - tap, where=np.isnan(pixels[theirs]))
    np.subtract(places.dtype.type(taps), places, out=places)


def max_pool_backward(
    grad: FloatArray, places: NDArray[Any], grad_x: FloatArray, window: Window, space: Workspace | None = None
) -> None:
    """Writes each window's gradient to the pixel that was its maximum, summed where several windows have chosen one.

    Args:
        grad: (Ho, Wo, N, C), of floating point.
        places: (Ho, Wo, N, C), from ``max_pool``.
        grad_x: (H, W, N, C), of the dtype of ``grad``; all of it is written.
        window: as in ``max_pool``.
        space: scratch memory; the thread's without it.
    """
    if not grad_x.size:
        return
    space = space or workspace()
    given, kept = runs(grad), runs(places)
    if max_pooling.takes(given, kept):
        max_pooling.max_pool_backward(given, kept, runs(grad_x), tuple(window))
        return
    bits = given.view(_WORDS[grad.itemsize])

    def add(tap: int, windows: tuple[slice, slice], target: FloatArray, first: bool) -> None:
        passes = space.get("pool: equal", target.shape, np.bool_)
        np.equal(kept[windows], kept.dtype.type(tap), out=passes)
        words = passes.view(np.int8)
        np.negative(words, out=words)  # all ones where the gradient passes
        chosen = target if first else space.get("pool: chosen", target.shape, target.dtype)
        np.bitwise_and(bits[windows], words, out=chosen.view(bits.dtype))
        if not first:
            np.add(target, chosen, out=target)

    _spread(add, given.shape, runs(grad_x), window)


# Means ----------------------------------------------------------------------------------------------------------------


def avg_pool(
    x: FloatArray, out: FloatArray, window: Window, divisors: FloatArray, space: Workspace | None = None
) -> None:
    """Writes the sum of each window divided by its divisor.

    Args:
        x: (H, W, N, C), of floating point.
        out: (Ho, Wo, N, C), of the dtype of ``x``.
        window: which pixels; those outside the image count as zeros.
        divisors: (Ho, Wo), or a single number for all windows, in the dtype of ``x``.
        space: scratch memory; the thread's without it.
    """
    if not x.size:
        return
    space = space or workspace()
    pixels, means = runs(x), runs(out)
    for block, rows, cols in _blocks(means.shape, pixels, window):
        _reduced(np.add, 0, pixels, means[block], rows, cols, space)
        means[block] /= divisors[block][:, :, None] if divisors.ndim else divisors


def avg_pool_backward(grad: FloatArray, grad_x: FloatArray, window: Window, divisors: FloatArray) -> None:
    """Spreads each window's gradient evenly over its pixels: the adjoint of ``avg_pool``.

    Args:
        grad: (Ho, Wo, N, C), of floating point.
        grad_x: (H, W, N, C), of the dtype of ``grad``; all of it is written.
        window: as in ``avg_pool``.
        divisors: as in ``avg_pool``.
    """
    if not grad_x.size:
        return
    share = runs(grad) / (divisors[:, :, None] if divisors.ndim else divisors)

    def add(tap: int, windows: tuple[slice, slice], target: FloatArray, first: bool) -> None:
        if first:
            np.copyto(target, share[windows])
        else:
            np.add(target, share[windows], out=target)

    _spread(add, share.shape, runs(grad_x), window)


def mean_of_pixels(x: FloatArray) -> FloatArray:
    """The mean over height and width: (H, W, N, C) to (N, C), in the dtype of ``x``.

    Rows are products with a vector of ones, and so are their sums: the rounding error grows with the larger side only.
    """
    h, w, n, c = x.shape
    rows = np.ones(w, x.dtype) @ runs(x)  # (W) @ (H, W, N*C)
    total: FloatArray = np.ones(h, x.dtype) @ rows  # (H) @ (H, N*C)
    total /= h * w
    return total.reshape(n, c)


# Blocks and taps ------------------------------------------------------------------------------------------------------


def _blocks(
    shape: tuple[int, ...], pixels: FloatArray, window: Window
) -> Iterator[tuple[tuple[slice, slice], list[Reach], list[Reach]]]:
    """Blocks of the windows ``shape``, (Ho, Wo, run), and for each vertical and each horizontal tap its reach."""
    pixel = shape[2] * pixels.itemsize
    steps = _steps(shape, window.stride, window.kernel_size, pixels.shape[1], pixel)
    for block in _cut(shape, steps):
        reaches = []
        for axis, part in enumerate(block):
            stride, padding, dilation = window.stride[axis], window.padding[axis], window.dilation[axis]
            first = part.start * stride - padding
            reaches.append(
                [
                    overlap(part.stop - part.start, first + tap * dilation, stride, pixels.shape[axis])
                    for tap in range(window.kernel_size[axis])
                ]
            )
        yield block, reaches[0], reaches[1]


def _steps(shape: tuple[int, ...], stride: Pair, kernel_size: Pair, width: int, pixel: int) -> Pair:
    """How many rows and columns of windows read pixels of ``_BLOCK_BYTES``."""
    row = max(1, width * pixel)
    rows = (_BLOCK_BYTES // row - kernel_size[0]) // stride[0] + 1
    if rows > 0:
        return rows, max(1, shape[1])
    return 1, max(1, _BLOCK_BYTES // max(1, kernel_size[0] * stride[1] * pixel))


def _cut(shape: tuple[int, ...], steps: Pair) -> Iterator[tuple[slice, slice]]:
    for row in range(0, shape[0], steps[0]):
        for column in range(0, shape[1], steps[1]):
            yield slice(row, min(row + steps[0], shape[0])), slice(column, min(column + steps[1], shape[1]))


def _products(rows: list[Reach], cols: list[Reach]) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For each tap in row-major order: its windows in the block, and its pixels."""
    for our_rows, their_rows in rows:
        for our_cols, their_cols in cols:
            yield (our_rows, our_cols), (their_rows, their_cols)


def _reduced(
    operation: np.ufunc,
    neutral: float,
    pixels: FloatArray,
    out: FloatArray,
    rows: list[Reach],
    cols: list[Reach],
    space: Workspace,
) -> None:
    """``out`` as the reduction of the windows of a block, down the columns first."""
    used = [theirs for _, theirs in cols if theirs.stop > theirs.start]
    first, last = min(part.start for part in used), max(part.stop for part in used)
    if len(rows) == 1 and _is_whole(rows[0][0], len(out)):
        columns = pixels[rows[0][1], first:last]
    else:
        columns = space.get("pool: columns", (len(out), last - first, out.shape[2]), out.dtype)
        _fold(operation, neutral, [((ours,), pixels[theirs, first:last]) for ours, theirs in rows], columns)
    parts: list[Any] = []
    for ours, theirs in cols:
        shifted = slice(theirs.start - first, theirs.stop - first, theirs.step)
        parts.append(((slice(None), ours), columns[:, shifted] if theirs.stop > theirs.start else columns[:, :0]))
    _fold(operation, neutral, parts, out)


def _fold(
    operation: np.ufunc, neutral: float, parts: list[tuple[tuple[slice, ...], FloatArray]], out: FloatArray
) -> None:
    """Reduces parts, each with its place in ``out``; those that fill it come first and save a pass over it."""
    ordered = sorted(parts, key=lambda part: part[1].shape != out.shape)
    whole = sum(part[1].shape == out.shape for part in parts)
    if whole > 1:
        operation(ordered[0][1], ordered[1][1], out=out)
    elif whole:
        np.copyto(out, ordered[0][1])
    else:
        out.fill(neutral)
    for place, values in ordered[min(whole, 2) :]:
        operation(out[place], values, out=out[place])


def _is_whole(part: slice, length: int) -> bool:
    return bool(part.start == 0 and part.stop == length)


def _spread(
    add: Callable[[int, tuple[slice, slice], FloatArray, bool], None],
    windows: tuple[int, ...],
    out: FloatArray,
    window: Window,
) -> None:
    """The adjoint of reading windows: each pixel of ``out`` gets what its windows send it.

    Pixels are taken apart by their phases within a stride: for those of one phase a tap is one slice of windows. The
    first tap that reaches all of them writes, so that ``out`` need not be cleared.

    Args:
        add: called with a tap, its windows, their pixels in ``out``, and whether to write rather than to add.
        windows: (Ho, Wo, run).
        out: (H, W, run).
        window: the windows.
    """
    steps = _steps(out.shape, (1, 1), (0, 1), out.shape[1], out.shape[2] * out.itemsize)
    for block in _cut(out.shape, steps):
        phases = [
            [_phase(axis, phase, part, windows[axis], window) for phase in range(window.stride[axis])]
            for axis, part in enumerate(block)
        ]
        for rows, row_taps in phases[0]:
            for cols, col_taps in phases[1]:
                plane = out[rows, cols]
                if not plane.size:
                    continue
                taps = [
                    (i * window.kernel_size[1] + j, (ours, our_cols), (theirs, their_cols))
                    for i, (ours, theirs) in row_taps
                    for j, (our_cols, their_cols) in col_taps
                ]
                whole = [tap for tap in taps if plane[tap[1]].shape == plane.shape]
                if not whole:
                    plane.fill(0)
                for tap in whole + [tap for tap in taps if tap not in whole]:
                    number, ours_, theirs_ = tap
                    add(number, theirs_, plane[ours_], tap is (whole[0] if whole else None))


def _phase(axis: int, phase: int, part: slice, count: int, window: Window) -> tuple[slice, list[tuple[int, Reach]]]:
    """The pixels of a block whose number has the remainder ``phase``, and the taps that read them, with their reach."""
    stride, padding, dilation = window.stride[axis], window.padding[axis], window.dilation[axis]
    first = part.start + (phase - part.start) % stride
    pixels = slice(first, part.stop, stride)
    length = len(range(first, part.stop, stride))
    taps = []
    for tap in range(window.kernel_size[axis]):
        ahead = first + padding - tap * dilation
        if ahead % stride == 0:
            taps.append((tap, overlap(length, ahead // stride, 1, count)))
    return pixels, taps

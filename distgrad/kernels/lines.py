"""Images in HWNC order as lines: rows of whole pixels, long enough for one operation each, few enough for a cache.

What works channel by channel on (H, W, N, C) arrays (a scale, a sum) sees them as ``lines``: views whose last dimension
holds ``m`` numbers, a multiple of C, so that a value a channel is one row of ``m`` numbers, repeated (``tiled``). Short
runs are joined and long ones cut, as far as the memory of all the arrays allows it without a copy; pieces of them go
through several operations while they are in the second-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[Any]

# Numbers in a line. NumPy takes some 50 ns to begin a line, a float32 line of this length takes 800 ns.
_LINE = 1 << 13
# Bytes of each array in a piece. On 28x28x16x128 float32, forward and backward gain 5 to 30 % over half of it, whose
# calls weigh more; with twice as much three arrays no longer fit a second-level cache of 1 MiB, and nothing is gained.
_PIECE_BYTES = 1 << 18


def pieces(*arrays: FloatArray | None) -> Iterator[tuple[Any, ...]]:
    """Cuts arrays at the same places.

    Args:
        arrays: (H, W, N, C), all of one shape, each with contiguous runs of ``N*C`` numbers; rows and pixels may have
            gaps. None stands for an array that is not there.

    Yields:
        For each piece a tuple of views ``(..., m)``, all of one shape, with None for None; together they are the
        arrays, in the order of memory. ``m`` is a multiple of C and the same for all pieces.

    Raises:
        ValueError: the shapes differ, or a run is not contiguous.
    """
    given = [array for array in arrays if array is not None]
    shape = given[0].shape
    if any(array.shape != shape for array in given):
        raise ValueError(f"the arrays must have one shape (H, W, N, C), not {[array.shape for array in given]}")
    if not given[0].size:
        return
    views = iter(_as_lines(given))
    whole = [None if array is None else next(views) for array in arrays]
    found = next(array for array in whole if array is not None)
    for index in _cuts(found.shape, _PIECE_BYTES // found.itemsize):
        yield tuple([None if array is None else array[index] for array in whole])


def tiled(values: NDArray[Any], length: int, dtype: np.dtype[Any] | type) -> FloatArray:
    """A value for each channel, (C,), as a row for a line of ``length`` numbers."""
    out = np.empty((length // len(values), len(values)), dtype)
    out[...] = values
    return out.reshape(length)


class LineSums:
    """The sum of each channel over pieces, which are added while they are in cache.

    A product with ones is 1.4 times as fast as ``np.add.reduce``. Numbers are added in their own dtype, at most some
    thousands of them, as sums of sums, so that the error grows with the root of the number of lines in a piece only;
    what comes of that is added in float64. The same pieces in the same order give the same bits.

    Args:
        channels: C.
    """

    _ROWS = 16  # sums of so many pieces are kept as they are

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._total = np.zeros(channels)
        self._rows = np.empty((0, 0))
        self._used = 0

    def add(self, lines: FloatArray) -> None:
        """Counts one piece, ``(..., m)``."""
        if self._rows.shape[1] != lines.shape[-1]:
            self._gather()
            self._rows = np.empty((self._ROWS, lines.shape[-1]), lines.dtype)
        elif self._used == self._ROWS:
            self._gather()
        row = self._rows[self._used]
        self._used += 1
        if lines.ndim == 2:
            np.matmul(_ones(len(lines), lines.dtype), lines, out=row)  # (k) @ (k, m)
        elif lines.ndim == 1:
            row[...] = lines
        else:
            sums = _ones(lines.shape[-2], lines.dtype) @ lines  # (k) @ (..., k, m)
            np.add.reduce(sums, axis=tuple(range(sums.ndim - 1)), out=row)

    def add_total(self, sums: NDArray[np.float64]) -> None:
        """Counts what was summed elsewhere, (C,)."""
        self._total += sums

    def total(self) -> NDArray[np.float64]:
        """The sums so far, (C,)."""
        self._gather()
        return self._total

    def _gather(self) -> None:
        rows = self._rows[: self._used]
        if self._used:
            line = _ones(self._used, rows.dtype) @ rows  # (rows) @ (rows, m)
            line = line.reshape(-1, self._channels)
            self._total += _ones(len(line), line.dtype) @ line  # (times) @ (times, C)
        self._used = 0


@lru_cache(maxsize=256)
def _ones(count: int, dtype: np.dtype[Any]) -> FloatArray:
    ones = np.ones(count, dtype)
    ones.flags.writeable = False
    return ones


def _as_lines(arrays: Sequence[FloatArray]) -> list[FloatArray]:
    """Views of one shape ``(..., m)``, without dimensions of length 1 before the last two."""
    h, w, n, c = arrays[0].shape
    try:
        views = [np.reshape(array, (h, w, n * c), copy=False) for array in arrays]
    except ValueError:
        raise ValueError(
            f"the last two dimensions of every (H, W, N, C) array must be contiguous; their strides are "
            f"{[array.strides for array in arrays]} at shape {arrays[0].shape}"
        ) from None
    run = n * c
    joins_pixels = w == 1 or all(view.strides[1] == run * view.itemsize for view in views)
    joins_rows = h == 1 or all(view.strides[0] == w * view.strides[1] for view in views)
    shape: tuple[int, ...]
    if joins_pixels and (h == 1 or all(view.strides[0] == w * run * view.itemsize for view in views)):
        shape = _split(h * w * n, c)
    elif joins_pixels:
        shape = (h, *_split(w * n, c))
    elif joins_rows and w > 1:
        shape = (h * w, *_split(n, c))
    else:
        shape = (h, w, *_split(n, c))
    shape = (*[length for length in shape[:-1] if length > 1], shape[-1])
    return [np.reshape(view, shape, copy=False) for view in views]


@lru_cache(maxsize=1024)
def _split(count: int, channels: int) -> tuple[int, int]:
    """``count`` times C numbers as lines: how many, and of what length."""
    limit = max(1, min(count, _LINE // channels))
    times = next(times for times in range(limit, 0, -1) if count % times == 0)
    return count // times, times * channels


def _cuts(shape: tuple[int, ...], size: int) -> Iterator[tuple[Any, ...]]:
    """Indices of pieces of at most ``size`` numbers, unless one line has more: lines are not cut."""
    if len(shape) == 1:
        yield (slice(None),)
        return
    inner = math.prod(shape[1:])
    if inner <= size or len(shape) == 2:
        step = max(1, size // inner)
        for first in range(0, shape[0], step):
            yield (slice(first, first + step),)
    else:
        for place in range(shape[0]):
            for rest in _cuts(shape[1:], size):
                yield (place, *rest)

"""Gathering the pixels under the windows of a convolution, in HWNC order: im2col, one block of windows at a time.

A window sees fewer taps at a border than in the middle. Along one dimension, neighbouring windows that see the same
taps are a segment; where a segment of rows meets one of columns, all their pixels are one strided view of the image,
so a block of windows is copied in one operation for each pair of segments, and zeros are written for the taps that lie
in the padding. No image is ever copied into a larger one with a border.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[Any]

# The channels under one tap are copied as one element of so many bytes: NumPy's loop over elements costs less than
# beginning anew with each run of floats (13 against 8 to 11 Gelem/s for runs of 32 to 128 float32).
_LEAST_RUN_BYTES = 16


class Segment(NamedTuple):
    """Windows ``[first, last)`` all see exactly the taps ``[tap, tap_end)``."""

    first: int
    last: int
    tap: int
    tap_end: int


@dataclass(frozen=True)
class Axis:
    """Windows along one dimension: tap ``t`` of window ``o`` is at ``start + o*step + t*dilation``.

    Attributes:
        count: how many windows.
        start: where tap 0 of window 0 is; less than 0 in the padding.
        step: from window to window.
        taps: how many taps a window has.
        dilation: from tap to tap.
        size: pixels of the image; what is not in ``[0, size)`` is zero.
    """

    count: int
    start: int
    step: int
    taps: int
    dilation: int
    size: int

    def segments(self) -> tuple[Segment, ...]:
        """The windows in order, cut where the taps change that they see."""
        found: list[Segment] = []
        for window in range(self.count):
            at = self.start + window * self.step
            first = max(0, -(at // self.dilation))
            last = min(self.taps, (self.size - 1 - at) // self.dilation + 1)
            if first >= last:
                first = last = 0
            if found and found[-1][2:] == (first, last):
                found[-1] = Segment(found[-1].first, window + 1, first, last)
            else:
                found.append(Segment(window, window + 1, first, last))
        return tuple(found)

    @property
    def is_identity(self) -> bool:
        """Window ``o`` is pixel ``o``."""
        return (self.start, self.step, self.taps, self.count) == (0, 1, 1, self.size)


class Block(NamedTuple):
    """Windows that are gathered together."""

    rows: slice
    cols: slice
    images: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, columns, images)."""
        return self.rows.stop - self.rows.start, self.cols.stop - self.cols.start, self.images.stop - self.images.start

    @property
    def windows(self) -> int:
        """How many rows the matrix of the block has."""
        rows, cols, images = self.shape
        return rows * cols * images


class Gather:
    """The windows of one convolution over (H, W, N, C).

    Args:
        vertical: the windows along the height.
        horizontal: along the width.
        images: ``N``.
        channels: ``C``.
        groups: into which the channels are split.
    """

    def __init__(self, vertical: Axis, horizontal: Axis, images: int, channels: int, groups: int) -> None:
        self.vertical, self.horizontal = vertical, horizontal
        self.images, self.groups, self.per_group = images, groups, channels // groups
        self.taps = vertical.taps * horizontal.taps
        self.inner = self.taps * self.per_group
        self._pairs = [(rows, cols) for rows in vertical.segments() for cols in horizontal.segments()]
        self.is_identity = vertical.is_identity and horizontal.is_identity

    def blocks(self, elements: int, width_out: int = 0) -> Iterator[tuple[slice, slice, list[slice]]]:
        """Cuts the windows into blocks whose columns take about ``elements``: images, rows, and columns of those.

        A block of whole images is one matrix in place, as its rows are: images are split only where the windows at one
        place, of all images, are too many. ``width_out`` counts instead of a window's elements where it is more.
        """
        height, width = self.vertical.count, self.horizontal.count
        of_window = max(1, self.inner * self.groups, width_out)
        windows = max(1, elements // of_window)
        images = min(self.images, windows)
        rows = cols = 1
        if images == self.images:
            cols = min(width, max(1, windows // self.images))
            if cols == width:
                rows = min(height, max(1, windows // (self.images * width)))
        parts = [slice(at, min(width, at + cols)) for at in _starts(width, cols)]
        for image in _starts(self.images, images):
            for row in _starts(height, rows):
                yield slice(image, min(self.images, image + images)), slice(row, min(height, row + rows)), parts

    def views(self, source: FloatArray) -> list[tuple[Segment, Segment, FloatArray]]:
        """For each pair of segments the pixels that their windows see.

        Args:
            source: (H, W, N, C), C contiguous.

        Returns:
            Triples of the rows, the columns, and a view (rows, columns, N, taps, taps, G), whose elements are the
            channels of a group.
        """
        tail = self.images, self.groups, self.per_group
        _, _, of_image, item = source.strides
        strides = of_image, self.per_group * item, item
        found = []
        for rows, cols in self._pairs:
            view = window_view(source, (self.vertical, self.horizontal), rows, cols, tail, strides)
            found.append((rows, cols, as_elements(view.transpose(0, 1, 4, 2, 3, 5, 6))))
        return found

    def fill(self, views: list[tuple[Segment, Segment, FloatArray]], block: Block, columns: FloatArray) -> None:
        """Copies the pixels under the windows of ``block``.

        Args:
            views: from ``views``.
            block: which windows.
            columns: (G, windows, taps * C/G), contiguous. Overwritten.
        """
        groups = self.groups
        into = columns.reshape(
            groups, *block.shape, self.vertical.taps, self.horizontal.taps, self.per_group
        ).transpose(1, 2, 3, 4, 5, 0, 6)
        into = as_elements(into)
        zero = np.zeros((), into.dtype)
        for rows, cols, view in views:
            top, bottom = max(rows.first, block.rows.start), min(rows.last, block.rows.stop)
            left, right = max(cols.first, block.cols.start), min(cols.last, block.cols.stop)
            if top >= bottom or left >= right:
                continue
            to_rows = slice(top - block.rows.start, bottom - block.rows.start)
            to_cols = slice(left - block.cols.start, right - block.cols.start)
            height, width = slice(rows.tap, rows.tap_end), slice(cols.tap, cols.tap_end)
            if view.size:
                place = slice(top - rows.first, bottom - rows.first), slice(left - cols.first, right - cols.first)
                np.copyto(into[to_rows, to_cols, :, height, width], view[(*place, block.images)])
            if rows.tap:
                np.copyto(into[to_rows, to_cols, :, : rows.tap], zero)
            if rows.tap_end < self.vertical.taps:
                np.copyto(into[to_rows, to_cols, :, rows.tap_end :], zero)
            if cols.tap:
                np.copyto(into[to_rows, to_cols, :, height, : cols.tap], zero)
            if cols.tap_end < self.horizontal.taps:
                np.copyto(into[to_rows, to_cols, :, height, cols.tap_end :], zero)


def window_view(
    source: FloatArray,
    axes: tuple[Axis, Axis],
    rows: Segment,
    cols: Segment,
    tail: tuple[int, ...],
    tail_strides: tuple[int, ...],
) -> FloatArray:
    """The pixels that the windows of a segment of rows and one of columns see.

    Args:
        source: (H, W, ...).
        axes: the windows along the height and the width.
        rows: a segment of the first.
        cols: a segment of the second.
        tail: how what lies at a pixel is to be seen.
        tail_strides: its strides, in bytes.

    Returns:
        A view (rows, columns, taps, taps, *tail) that must not be written; of no taps where one of them has none.
    """
    vertical, horizontal = axes
    taps = rows.tap_end - rows.tap, cols.tap_end - cols.tap
    shape = rows.last - rows.first, cols.last - cols.first, *taps, *tail
    if 0 in taps:
        return np.empty((*shape[:2], 0, 0, *tail), source.dtype)
    top = vertical.start + rows.first * vertical.step + rows.tap * vertical.dilation
    left = horizontal.start + cols.first * horizontal.step + cols.tap * horizontal.dilation
    of_row, of_pixel = source.strides[:2]
    windows = vertical.step * of_row, horizontal.step * of_pixel
    strides = *windows, vertical.dilation * of_row, horizontal.dilation * of_pixel, *tail_strides
    return as_strided(source[top:, left:], shape, strides, writeable=False)


def _starts(count: int, step: int) -> range:
    return range(0, count, max(1, step))


def as_elements(pixels: FloatArray) -> FloatArray:
    """(..., C) with contiguous channels as (...), each element all the channels; short runs stay as they are."""
    size = pixels.shape[-1] * pixels.itemsize
    if size < _LEAST_RUN_BYTES:
        return pixels
    return pixels.view(np.dtype(("V", size)))[..., 0]


def matrix(pixels: FloatArray) -> FloatArray | None:
    """View (rows, columns, N, K) as (rows * columns * N, K), or None where gaps make that impossible."""
    rows, cols, images, k = pixels.shape
    of_row, of_pixel, of_image, _ = pixels.strides
    if images == 1:
        of_image = of_pixel
    if (cols > 1 and of_pixel != images * of_image) or (rows > 1 and of_row != cols * images * of_image):
        return None
    return pixels.reshape(rows * cols * images, k)

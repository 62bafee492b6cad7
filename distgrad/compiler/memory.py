"""Memory of a plan: each array goes back when nobody refers to it any more, and the next one takes its place.

Liveness is not computed but observed: a plan drops its references at the last use of a value, views and gradients hold
theirs, and the memory of what is gone is free at once. Free neighbours are joined, and a request takes the smallest
free place that is large enough, so that a plan that runs again and again settles in the memory that its largest moment
needs, without a page fault.
"""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections import deque
from typing import Any

import numpy as np

from ..autograd.tensor import Array

_ALIGNMENT = 64  # bytes: a cache line, and the width of the widest vector register
# Bytes asked from the system at once, at least. They are addresses only: a page becomes memory when it is first
# written, and what is free behind the last array never is. In one long piece there is no end that stays over.
_CHUNK = 1 << 30


class _Lease:
    """A piece of a pool's memory; an array made of it refers to it, and when the last one is gone it goes back."""

    __slots__ = ("__array_interface__", "_chunk", "_pool", "_size", "_start")

    def __init__(self, pool: Pool, chunk: int, start: int, size: int, interface: dict[str, Any]) -> None:
        self._pool, self._chunk, self._start, self._size = pool, chunk, start, size
        self.__array_interface__ = interface

    def __del__(self) -> None:
        self._pool._returned.append((self._chunk, self._start, self._size))


class Pool:
    """Memory for the arrays of one plan's runs. Threads may share it."""

    def __init__(self) -> None:
        self._chunks: list[Array] = []
        self._reached: list[int] = []  # of each chunk the bytes up to the highest place that was ever used
        self._free: list[tuple[int, int, int]] = []  # (chunk, start, size), sorted: neighbours lie side by side
        self._returned: deque[tuple[int, int, int]] = deque()  # appended to by whoever drops the last reference
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that have been used at least once."""
        return sum(self._reached)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A row-major array with any content, aligned to 64 bytes."""
        dtype = np.dtype(dtype)
        size = max(1, -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT)) * _ALIGNMENT
        with self._lock:
            chunk, start = self._take(size)
        interface = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (self._chunks[chunk].ctypes.data + start, False),
            "version": 3,
        }
        return np.asarray(_Lease(self, chunk, start, size, interface))

    def empty_hwnc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of ``shape`` (N, C, H, W) in HWNC order, with any content."""
        n, c, h, w = shape
        return self.empty((h, w, n, c), dtype).transpose(2, 3, 0, 1)

    def trim(self) -> None:
        """Gives the memory back to the system, if none of it is in use."""
        with self._lock:
            self._collect()
            if self._free == [(number, 0, chunk.size) for number, chunk in enumerate(self._chunks)]:
                self._chunks, self._reached, self._free = [], [], []

    def _take(self, size: int) -> tuple[int, int]:
        self._collect()
        fitting = [piece for piece in self._free if piece[2] >= size]
        if not fitting:
            memory = np.empty(max(size, _CHUNK) + _ALIGNMENT, np.uint8)
            shift = -memory.ctypes.data % _ALIGNMENT
            self._chunks.append(memory[shift : shift + max(size, _CHUNK)])
            self._reached.append(0)
            fitting = [(len(self._chunks) - 1, 0, max(size, _CHUNK))]
            self._free.append(fitting[0])
        piece = min(fitting, key=_size)
        self._free.remove(piece)
        chunk, start, length = piece
        if length > size:
            insort(self._free, (chunk, start + size, length - size))
        self._reached[chunk] = max(self._reached[chunk], start + size)
        return chunk, start

    def _collect(self) -> None:
        """Takes back what has been dropped, and joins it with its neighbours."""
        while self._returned:
            insort(self._free, self._returned.popleft())
        joined: list[tuple[int, int, int]] = []
        for chunk, start, size in self._free:
            if joined and joined[-1][0] == chunk and joined[-1][1] + joined[-1][2] == start:
                joined[-1] = (chunk, joined[-1][1], joined[-1][2] + size)
            else:
                joined.append((chunk, start, size))
        self._free = joined


def _size(piece: tuple[int, int, int]) -> int:
    return piece[2]

"""Buffers, such as running statistics, when a step has several slices: each starts from the same, and all count."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from ..autograd import Tensor
from .communicator import Array, Communicator
from .tree_sum import TreeSum


class SliceBuffers:
    """What forward passes over the slices of one step make of buffers, as if there had been one pass over all.

    Every slice finds the buffers as they were at the beginning of the step, ``B``, and leaves its own ``B_v``. After
    the step they are ``B + sum_v n_v / N (B_v - B)`` with ``n_v`` of ``N`` samples in slice ``v``, summed in float64
    through the tree. For a running mean with momentum that is one update by the mean over all samples, for a running
    variance one by the weighted mean of the slices' variances; what no slice changes stays as it is, to the bit. A
    buffer that is not of floating point, such as a counter of batches, takes the value that the first slice that
    changed it gave it. Slices without samples do not count.

    Args:
        buffers: those that may change.
        tree: whose leaves are the slices.
    """

    def __init__(self, buffers: Sequence[Tensor], tree: TreeSum) -> None:
        self._real = [buffer for buffer in buffers if buffer.dtype.kind == "f"]
        self._other = [buffer for buffer in buffers if buffer.dtype.kind != "f"]
        self._tree = tree
        count = sum(buffer.numel() for buffer in self._real)
        self._slots: list[Array] = [np.zeros(count) for _ in range(tree.slots)]
        self._delta = np.zeros(count)
        self._start: list[Array] = []
        self._changed: list[tuple[int, bytes] | None] = []

    def begin(self, number: int) -> None:
        """Before the forward pass over this rank's ``number``-th slice of the step."""
        if number == 0:
            self._start = [_values(buffer).copy() for buffer in (*self._real, *self._other)]
            self._changed = [None] * len(self._other)
        else:
            self._restore()

    def _restore(self) -> None:
        for buffer, start in zip((*self._real, *self._other), self._start, strict=True):
            _values(buffer)[...] = start
            buffer._changed()

    def collect(self, number: int, samples: int) -> None:
        """After the forward pass over the ``number``-th slice, which had ``samples`` samples."""
        if samples == 0:
            self._delta[...] = 0
        else:
            end = 0
            for buffer, start in zip(self._real, self._start, strict=False):
                begin, end = end, end + start.size
                part = self._delta[begin:end].reshape(start.shape)
                np.subtract(_values(buffer), start, out=part, dtype=np.float64)
            self._delta *= samples
            for place, (buffer, start) in enumerate(zip(self._other, self._start[len(self._real) :], strict=True)):
                values = _values(buffer)
                if self._changed[place] is None and not np.array_equal(values, start):
                    self._changed[place] = self._tree.leaves[number], values.tobytes()
        self._tree.add(number, self._delta, self._slots)

    def combine(self, communicator: Communicator, total: int) -> None:
        """After the last slice, on all ranks: what the buffers are after the step. A collective."""
        if self._real:
            self._tree.finish(self._slots, self._delta, communicator, divisor=total)
        first = self._first_changes(communicator) if self._other else []
        self._restore()
        end = 0
        for buffer in self._real:
            begin, end = end, end + buffer.numel()
            values = _values(buffer)
            values[...] = values + self._delta[begin:end].reshape(values.shape)
        for buffer, change in zip(self._other, first, strict=True):
            if change:
                values = _values(buffer)
                values[...] = np.frombuffer(change, values.dtype).reshape(values.shape)

    def _first_changes(self, communicator: Communicator) -> list[bytes]:
        """Of each other buffer, what the first virtual rank that changed it made of it; empty where none did."""
        mine = b"".join(
            struct.pack("<qq", -1, 0) if change is None else struct.pack("<qq", change[0], len(change[1])) + change[1]
            for change in self._changed
        )
        first = [(len(self._tree.owners), b"")] * len(self._other)
        for text in communicator.all_gather_bytes(mine):
            start = 0
            for place in range(len(self._other)):
                virtual, length = struct.unpack_from("<qq", text, start)
                start += 16 + length
                if 0 <= virtual < first[place][0]:
                    first[place] = virtual, text[start - length : start]
        return [value for _, value in first]


def _values(buffer: Tensor) -> Array:
    return buffer.detach().numpy()

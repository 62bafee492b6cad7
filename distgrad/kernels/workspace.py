"""Scratch memory of kernels: owned by somebody, used again, bounded, and reported.

A kernel asks for an array by what it is for and gets memory that the last call for the same use has left, grown where
needed. An owner is a compiled plan, or a thread that computes eagerly; nothing is shared between two of them, so that
neither two models nor two threads can write over each other's scratch.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What an owner keeps between calls at most. A request beyond it is served, and forgotten when the call is over.
DEFAULT_LIMIT = 256 << 20


class Workspace:
    """Named scratch arrays with any content.

    Args:
        limit: bytes to keep at most between uses.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self._memory: dict[str, NDArray[np.uint8]] = {}
        _ALL.add(self)

    def get(self, use: str, shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> NDArray[Any]:
        """An array of ``shape``, aligned to 64 bytes, in the memory that was last given for ``use``.

        What an earlier call with the same ``use`` has returned is overwritten through it.
        """
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        memory = self._memory.get(use)
        if memory is None or memory.size < size:
            self._memory.pop(use, None)  # freed before its successor is made
            raw = np.empty(size + 64, np.uint8)
            shift = -raw.ctypes.data % 64
            memory = raw[shift : shift + size]
            if self.nbytes + size <= self.limit:
                self._memory[use] = memory
        return memory[:size].view(dtype).reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept now."""
        return sum(memory.size for memory in self._memory.values())

    def clear(self) -> None:
        """Gives the memory back."""
        self._memory.clear()


_ALL: weakref.WeakSet[Workspace] = weakref.WeakSet()
_of_thread = threading.local()


def workspace() -> Workspace:
    """The workspace of this thread, for operations outside a plan."""
    found: Workspace | None = getattr(_of_thread, "workspace", None)
    if found is None:
        found = _of_thread.workspace = Workspace()
    return found


def scratch_bytes() -> int:
    """Bytes of scratch memory that all workspaces of the process keep now."""
    return sum(space.nbytes for space in list(_ALL))

"""A world of one rank: every collective is done before it begins."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from .communicator import (
    Array,
    ReduceOp,
    check_all_to_all,
    check_broadcast,
    check_color,
    check_gather,
    check_gather_into,
    check_reduce,
    check_start,
)


class Done:
    """Work that was done when it was started."""

    def test(self) -> bool:
        """True."""
        return True

    def wait(self) -> None:
        """Returns."""


class SingleCommunicator:
    """One process on its own, with the protocol and the checks of :class:`~distgrad.distributed.Communicator`."""

    backend = "single"
    rank = 0
    world_size = 1
    local_rank = 0
    local_world_size = 1
    concurrent = True

    @property
    def hostname(self) -> str:
        """The name of this host."""
        return socket.gethostname()

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Leaves ``array`` as it is, after the checks."""
        check_reduce(array, op)

    def start_all_reduce(self, array: Array, op: ReduceOp = "sum") -> Done:
        """Leaves ``array`` as it is, after the checks."""
        check_start(array, op)
        return Done()

    def broadcast(self, array: Array, src: int = 0) -> None:
        """Leaves ``array`` as it is, after the checks."""
        check_broadcast(array, src, self.world_size)

    def all_gather(self, array: Array) -> Array:
        """A copy of ``array`` with a leading dimension of 1."""
        check_gather(array)
        return array[None].copy()

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """``[data]``."""
        return [bytes(data)]

    def all_gather_into(self, flat: Array, counts: Sequence[int]) -> None:
        """Leaves ``flat`` as it is, after the checks."""
        check_gather_into(flat, counts, 1)

    def all_to_all(
        self, send: Array, send_counts: Sequence[int], receive: Array, receive_counts: Sequence[int]
    ) -> None:
        """Copies ``send`` to ``receive``, after the checks."""
        check_all_to_all(send, send_counts, receive, receive_counts, 1)
        receive[...] = send

    def barrier(self) -> None:
        """Returns."""

    def split(self, color: int | None, key: int | None = None) -> SingleCommunicator | None:
        """A world of one rank again, or None."""
        check_color(color)
        return None if color is None else SingleCommunicator()

    def duplicate(self) -> SingleCommunicator:
        """A world of one rank again."""
        return SingleCommunicator()

    def shared_arrays(self, count: int, dtype: npt.DTypeLike) -> list[Array]:
        """One array of zeros."""
        return [np.zeros(count, dtype=dtype)]

    def free(self) -> None:
        """Returns."""

    def abort(self, code: int = 1) -> NoReturn:
        """Ends this process with ``code``, by SystemExit."""
        sys.exit(code)

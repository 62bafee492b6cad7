"""A world of one rank: every collective is done before it begins."""

from __future__ import annotations

import socket
import sys
from typing import NoReturn

from .communicator import Array, ReduceOp, check_broadcast, check_gather, check_reduce


class SingleCommunicator:
    """One process on its own, with the protocol and the checks of :class:`~distgrad.distributed.Communicator`."""

    backend = "single"
    rank = 0
    world_size = 1
    local_rank = 0
    local_world_size = 1

    @property
    def hostname(self) -> str:
        """The name of this host."""
        return socket.gethostname()

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Leaves ``array`` as it is, after the checks."""
        check_reduce(array, op)

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

    def barrier(self) -> None:
        """Returns."""

    def abort(self, code: int = 1) -> NoReturn:
        """Ends this process with ``code``, by SystemExit."""
        sys.exit(code)

"""Two levels: ranks of one host add up through shared memory, and only what is added up goes between hosts.

With ``L`` ranks on each host a flat sum may send each number over the network up to ``L`` times. Here each rank adds up
one ``L``-th of its host's gradients and exchanges it with its counterparts on the other hosts, all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import CommunicationError
from .exchange import each_block, pieces_of
from .report import Report, all_reduce_bytes, communicator_of, sum_error
from .state import HookState

if TYPE_CHECKING:
    from ..bucket import GradBucket
    from ..communicator import Array, Communicator


class HierarchicalState(HookState):
    """What :func:`hierarchical_hook` needs: groups of ranks, and memory that the ranks of a host share.

    Both are made in the first step, on all ranks together: ``2 * chunk_mb`` MiB of shared memory a rank.

    Args:
        communicator: as in ``HookState``.
        chunk_mb: MiB of a bucket that go through the shared memory at a time.
        hosts: which host each rank is on, in rank order, any numbers that are not negative; None: by host name. It may
            be finer, such as the sockets of a host.

    Raises:
        ValueError: ``chunk_mb`` is not positive.
    """

    def __init__(
        self, communicator: Communicator | None = None, chunk_mb: float = 4.0, hosts: Sequence[int] | None = None
    ) -> None:
        super().__init__(communicator)
        if not chunk_mb > 0:
            raise ValueError(f"HierarchicalState: chunk_mb is {chunk_mb}, must be above 0")
        self.chunk_bytes = max(64, int(chunk_mb * (1 << 20)) // 64 * 64)
        self.hosts = None if hosts is None else [int(host) for host in hosts]
        self._levels: _Levels | None = None

    def levels(self) -> _Levels:
        """The groups and their memory; a collective the first time."""
        if self._levels is None:
            self._levels = _Levels(communicator_of(self), self.hosts, self.chunk_bytes)
        return self._levels

    def free(self) -> None:
        """Gives groups and shared memory back; a collective."""
        levels, self._levels = self._levels, None
        if levels is not None:
            levels.free()


class _Levels:
    """The ranks of this host, and those of other hosts that this rank exchanges its piece with.

    Attributes:
        host: the ranks of this host.
        lane: the ranks that sum the same piece, one a host; None where this rank has no piece, or there is one host.
        lanes: how many pieces there are: as many as the smallest host has ranks.
        hosts: how many hosts there are.
        alone: whether each host has one rank, so that there is one level only.
        areas: twice the memory of each rank of the host, as bytes. A chunk is written into one area while slower ranks
            may still read the chunk before it in the other.
        turn: which area is next.
    """

    def __init__(self, communicator: Communicator, hosts: list[int] | None, chunk_bytes: int) -> None:
        size = communicator.world_size
        if hosts is None:
            names = communicator.all_gather_bytes(communicator.hostname.encode())
            hosts = [names.index(name) for name in names]
        if len(hosts) != size or min(hosts) < 0:
            raise ValueError(
                f"HierarchicalState: hosts is {hosts} for {size} ranks; there must be one number a rank, none negative"
            )
        mine = hosts[communicator.rank]
        self.hosts = len(set(hosts))
        self.lanes = min(hosts.count(host) for host in set(hosts))
        self.alone = self.hosts == size
        host = communicator.split(mine)
        if host is None:
            raise CommunicationError("split has given this rank no group although it asked for one")
        self.host: Communicator = host
        wanted = host.rank if self.hosts > 1 and host.rank < self.lanes else None
        self.lane = communicator.split(wanted, mine)
        shared = host.shared_arrays(2 * chunk_bytes, np.uint8)
        self.areas = [[memory[:chunk_bytes] for memory in shared], [memory[chunk_bytes:] for memory in shared]]
        self.turn = 0

    def free(self) -> None:
        self.areas = []
        if self.lane is not None:
            self.lane.free()
        self.host.free()


def hierarchical_hook(state: HierarchicalState, bucket: GradBucket) -> Report:
    """Sums the bucket over all ranks in two levels; nothing is compressed.

    A chunk of the bucket at a time: each rank writes it into its shared memory; ``barrier`` of the host; each rank adds
    up its piece over the ranks of its host, in rank order, and the rank with the same place on every host sums it with
    the others by ``all_reduce``; ``barrier`` of the host; each rank reads all pieces. The next chunk goes to the other
    half of the memory, so that two barriers a chunk are enough: who enters the first barrier of a chunk has read the
    chunk before it, whose memory is written again only after that barrier.

    On hosts with different numbers of ranks there are as many pieces as the smallest has ranks.

    The error bound, element by element and relative to ``sum_r |g_r|``, is that of a sum in any order:
    ``gamma(N - 1)`` (see :func:`~distgrad.distributed.comm_hooks.report.sum_error`). Bytes are those between hosts.

    Args:
        state: the ranks.
        bucket: this rank's gradients, already weighted; holds the sum over all ranks afterwards.
    """
    communicator = communicator_of(state)
    buffer, size = bucket.buffer(), communicator.world_size
    if size == 1:
        return Report(0, 0.0)
    levels = state.levels()
    if levels.alone and levels.lane is not None:
        levels.lane.all_reduce(buffer)
        return Report(all_reduce_bytes(buffer.size, buffer.itemsize, size), sum_error(size, buffer.dtype))
    length = state.chunk_bytes // buffer.itemsize
    sent = 0
    for start in range(0, buffer.size, length):
        sent += _exchange(levels, buffer[start : start + length])
    return Report(sent, sum_error(size, buffer.dtype))


def _exchange(levels: _Levels, chunk: Array) -> int:
    """Sums ``(n,)`` numbers that fit an area; the bytes that this rank sends to other hosts."""
    host = levels.host
    area = [memory[: chunk.nbytes].view(chunk.dtype) for memory in levels.areas[levels.turn]]
    levels.turn = 1 - levels.turn
    counts = pieces_of(chunk.size, levels.lanes)
    starts = [sum(counts[:lane]) for lane in range(levels.lanes)]
    area[host.rank][...] = chunk
    host.barrier()
    sent = 0
    if host.rank < levels.lanes:
        # Into this rank's own memory, of which nobody else reads this piece before the next barrier.
        start, count = starts[host.rank], counts[host.rank]
        _add_up([memory[start : start + count] for memory in area], area[host.rank][start : start + count])
        if levels.lane is not None:
            levels.lane.all_reduce(area[host.rank][start : start + count])
            sent = all_reduce_bytes(count, chunk.itemsize, levels.hosts)
    host.barrier()
    for lane, (start, count) in enumerate(zip(starts, counts, strict=True)):
        chunk[start : start + count] = area[lane][start : start + count]
    return sent


def _add_up(terms: list[Array], out: Array) -> None:
    """The sum of ``terms`` in their order, ``out`` being one of them."""
    for block in each_block(out.size):
        total = terms[0][block] + terms[1][block] if len(terms) > 1 else terms[0][block]
        for term in terms[2:]:
            total += term[block]
        out[block] = total

"""Virtual ranks: a fixed number of ranks over any number of real ones, on which results then do not depend.

Each real rank plays a run of the virtual ranks, as threads that meet at every collective. What the virtual ranks of one
real rank bring is joined there, and with that of the others in an order that only the number of virtual ranks decides
(:mod:`distgrad.distributed.tree_sum`). Code that is deterministic on ``V`` ranks, such as a communication hook with a
memory of its own on each, thereby leaves the same bits on 1, 2, 3 or ``V`` real ranks.
"""

from __future__ import annotations

import itertools
import json
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import CommunicationError
from .communicator import (
    UFUNCS,
    Array,
    Communicator,
    ReduceOp,
    check_all_to_all,
    check_broadcast,
    check_color,
    check_gather,
    check_gather_into,
    check_reduce,
    check_start,
)
from .single import Done
from .tree_sum import TreeSum, owners_of

R = TypeVar("R")

_LOOK_UP = 0.2  # seconds after which a virtual rank that waits looks whether another one has failed


class _Family:
    """What the virtual ranks of one real rank share, in all of their groups: the first failure."""

    failure: str | None = None


class _Group:
    """The virtual ranks of one communicator, and those of them that this real rank plays."""

    def __init__(self, inner: Communicator, owners: Sequence[int], family: _Family) -> None:
        self.inner = inner
        self.family = family
        self._changed = threading.Condition()  # a group of its own may wait for other real ranks, and block no other
        self.tree = TreeSum(owners, inner.rank)
        self.mine = self.tree.leaves
        self.size = len(owners)
        self.played = [[v for v, owner in enumerate(owners) if owner == rank] for rank in range(inner.world_size)]
        self.by_owner = list(itertools.chain.from_iterable(self.played))  # virtual ranks in the order of real ones
        self._come: dict[int, tuple[str, Any]] = {}
        self._meetings = 0
        self._result: Any = None

    def meet(self, rank: int, call: str, payload: Any, compute: Callable[[list[Any]], R]) -> R:
        """Brings ``payload``; the last of this real rank's virtual ranks computes with all of them, in rising order."""
        family = self.family
        with self._changed:
            meeting = self._meetings
            self._come[rank] = call, payload
            if len(self._come) == len(self.mine):
                come = [self._come[v] for v in self.mine]
                self._come = {}
                different = next((v for v, (name, _) in zip(self.mine, come, strict=True) if name != come[0][0]), None)
                if different is not None:
                    family.failure = (
                        f"virtual ranks do not agree: {self.mine[0]} called {come[0][0]}, but {different} called "
                        f"{come[self.mine.index(different)][0]}; all must make the same calls in the same order"
                    )
                    raise CommunicationError(family.failure)
                self._result = compute([given for _, given in come])
                self._meetings += 1
                self._changed.notify_all()
            while self._meetings == meeting:
                self._changed.wait(_LOOK_UP)
                if self._meetings == meeting and family.failure is not None:
                    raise CommunicationError(f"{family.failure}, which broke virtual rank {rank} in {call}")
            result: R = self._result  # of this meeting: the next one ends only after this virtual rank has come to it
        return result

    def in_order(self, rows: Sequence[Any]) -> list[Any]:
        """What the virtual ranks have, by virtual rank, from ``rows`` in the order of ``by_owner``."""
        ordered: list[Any] = [None] * self.size
        for virtual, row in zip(self.by_owner, rows, strict=True):
            ordered[virtual] = row
        return ordered


class VirtualCommunicator:
    """What one virtual rank holds, with the protocol of :class:`~distgrad.distributed.Communicator`.

    Each virtual rank counts as a host of its own, whatever lies where: ``local_world_size`` is 1. A reduction goes
    through the tree of :mod:`~distgrad.distributed.tree_sum`; ``min`` and ``max`` give +0 for any zero.
    ``start_all_reduce`` is done when it returns. Made by :func:`virtual_communicators`.
    """

    backend = "virtual"
    concurrent = False
    local_rank = 0
    local_world_size = 1

    def __init__(self, group: _Group, rank: int) -> None:
        self._group = group
        self.rank = rank
        self.world_size = group.size
        self.hostname = f"virtual{rank}"

    @property
    def local_members(self) -> tuple[int, ...]:
        """The virtual ranks of this communicator that the same real rank plays, this one among them."""
        return self._group.mine

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Combines ``array`` over all virtual ranks in place; see :class:`~distgrad.distributed.Communicator`."""
        check_reduce(array, op)
        group = self._group

        def compute(arrays: list[Array]) -> Array:
            ufunc = UFUNCS[op]
            slots: list[Array] = [np.empty(array.size, array.dtype) for _ in range(group.tree.slots)]
            with np.errstate(all="ignore"):  # as MPI does: an overflow is a value, not a warning
                for leaf, values in enumerate(arrays):
                    group.tree.add(leaf, values.reshape(-1), slots, ufunc)
                group.tree.finish(slots, slots[0], group.inner, ufunc=ufunc)
            if op in ("min", "max") and array.dtype.kind == "f":
                slots[0] += 0.0  # which zero wins depends on where in a vector register it lies
            return slots[0].reshape(array.shape)

        array[...] = group.meet(self.rank, f"all_reduce({array.shape}, {array.dtype}, {op})", array, compute)

    def start_all_reduce(self, array: Array, op: ReduceOp = "sum") -> Done:
        """``all_reduce``, done when it returns; see :class:`~distgrad.distributed.Communicator`."""
        check_start(array, op)
        self.all_reduce(array, op)
        return Done()

    def broadcast(self, array: Array, src: int = 0) -> None:
        """Copies virtual rank ``src``'s values in place; see :class:`~distgrad.distributed.Communicator`."""
        check_broadcast(array, src, self.world_size)
        group = self._group

        def compute(arrays: list[Array]) -> Array:
            sent = arrays[group.mine.index(src)] if src in group.mine else arrays[0]
            values = sent.copy()
            group.inner.broadcast(values, group.tree.owners[src])
            return values

        values = group.meet(self.rank, f"broadcast({array.shape}, {array.dtype}, {src})", array, compute)
        if self.rank != src:
            array[...] = values

    def all_gather(self, array: Array) -> Array:
        """A new array ``(world_size, *array.shape)``; see :class:`~distgrad.distributed.Communicator`."""
        check_gather(array)
        gathered = np.empty((self.world_size, array.size), array.dtype)
        gathered[self.rank] = array.reshape(-1)
        self.all_gather_into(gathered.reshape(-1), [array.size] * self.world_size)
        return gathered.reshape(self.world_size, *array.shape)

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """What each virtual rank passed; see :class:`~distgrad.distributed.Communicator`."""
        group = self._group

        def compute(given: list[bytes]) -> list[bytes]:
            packed = b"".join(struct.pack("<q", len(one)) + one for one in given)
            rows: list[bytes] = []
            for text in group.inner.all_gather_bytes(packed):
                start = 0
                while start < len(text):
                    (length,) = struct.unpack_from("<q", text, start)
                    rows.append(text[start + 8 : start + 8 + length])
                    start += 8 + length
            return group.in_order(rows)

        return list(group.meet(self.rank, "all_gather_bytes", bytes(data), compute))

    def all_gather_into(self, flat: Array, counts: Sequence[int]) -> None:
        """Each virtual rank's part to all, in place; see :class:`~distgrad.distributed.Communicator`."""
        check_gather_into(flat, counts, self.world_size)
        group = self._group
        bounds = [0, *itertools.accumulate(counts)]

        def compute(arrays: list[Array]) -> Array:
            places = [0, *itertools.accumulate(counts[v] for v in group.by_owner)]
            packed = np.empty_like(flat)
            parts = group.in_order([packed[a:b] for a, b in itertools.pairwise(places)])
            for v, array in zip(group.mine, arrays, strict=True):
                parts[v][...] = array[bounds[v] : bounds[v + 1]]
            group.inner.all_gather_into(packed, [sum(counts[v] for v in played) for played in group.played])
            return np.concatenate(parts)

        flat[...] = group.meet(self.rank, f"all_gather_into({flat.dtype}, {list(counts)})", flat, compute)

    def all_to_all(
        self, send: Array, send_counts: Sequence[int], receive: Array, receive_counts: Sequence[int]
    ) -> None:
        """A part to and from each virtual rank; see :class:`~distgrad.distributed.Communicator`."""
        check_all_to_all(send, send_counts, receive, receive_counts, self.world_size)
        group = self._group

        def compute(given: list[tuple[list[Array], list[int]]]) -> list[Array]:
            outgoing = [[parts[w] for parts, _ in given for w in played] for played in group.played]
            lengths = [[expected[v] for v in played for _, expected in given] for played in group.played]
            incoming = np.empty(sum(map(sum, lengths)), send.dtype)
            group.inner.all_to_all(
                np.concatenate([part for parts in outgoing for part in parts]),
                [sum(part.size for part in parts) for parts in outgoing],
                incoming,
                [sum(row) for row in lengths],
            )
            # rows: for each virtual rank that sends, in the order of by_owner, one part for each virtual rank here
            flat = np.split(incoming, np.cumsum([length for row in lengths for length in row])[:-1])
            rows = group.in_order([flat[i : i + len(given)] for i in range(0, len(flat), len(given))])
            return [np.concatenate([row[number] for row in rows]) for number in range(len(given))]

        parts = np.split(send, np.cumsum(send_counts)[:-1])
        payload = (parts, list(receive_counts))
        received = group.meet(self.rank, f"all_to_all({send.dtype})", payload, compute)
        receive[...] = received[group.mine.index(self.rank)]

    def barrier(self) -> None:
        """Returns on no virtual rank before every one has called it."""
        self._group.meet(self.rank, "barrier", None, lambda _: self._group.inner.barrier())

    def split(self, color: int | None, key: int | None = None) -> VirtualCommunicator | None:
        """The virtual ranks that pass the same ``color``; see :class:`~distgrad.distributed.Communicator`."""
        check_color(color)
        group = self._group

        def compute(wanted: list[tuple[int | None, int]]) -> dict[int, VirtualCommunicator]:
            texts = group.inner.all_gather_bytes(json.dumps(wanted).encode())
            everybody = group.in_order([pair for text in texts for pair in json.loads(text)])
            made: dict[int, VirtualCommunicator] = {}
            for chosen in sorted({c for c, _ in everybody if c is not None}):
                members = [v for _, v in sorted((k, v) for v, (c, k) in enumerate(everybody) if c == chosen)]
                real = sorted({group.tree.owners[v] for v in members})
                inner = group.inner.split(0 if group.inner.rank in real else None)
                if inner is not None:
                    part = _Group(inner, [real.index(group.tree.owners[v]) for v in members], group.family)
                    made |= {members[v]: VirtualCommunicator(part, v) for v in part.mine}
            return made

        made = group.meet(self.rank, "split", (color, self.rank if key is None else key), compute)
        return made.get(self.rank)

    def duplicate(self) -> VirtualCommunicator:
        """The same virtual ranks once more; see :class:`~distgrad.distributed.Communicator`."""
        old = self._group
        group = old.meet(
            self.rank, "duplicate", None, lambda _: _Group(old.inner.duplicate(), old.tree.owners, old.family)
        )
        return VirtualCommunicator(group, self.rank)

    def shared_arrays(self, count: int, dtype: npt.DTypeLike) -> list[Array]:
        """One array of zeros, where there is one virtual rank; each is a host of its own."""
        if self.world_size > 1:
            raise CommunicationError(
                f"shared_arrays: each of the {self.world_size} virtual ranks counts as a host of its own: split the "
                "communicator by host before"
            )
        return [np.zeros(count, dtype=dtype)]

    def free(self) -> None:
        """A collective; see :class:`~distgrad.distributed.Communicator`."""
        self._group.meet(self.rank, "free", None, lambda _: self._group.inner.free())

    def abort(self, code: int = 1) -> NoReturn:
        """Ends all real ranks with ``code``."""
        self._group.inner.abort(code)


def virtual_communicators(inner: Communicator, virtual_ranks: int) -> list[VirtualCommunicator]:
    """The communicators of those of ``virtual_ranks`` virtual ranks that this real rank plays, in rising order.

    Args:
        inner: of the real ranks; used as it is, so pass a ``duplicate`` where another thread uses it too.
        virtual_ranks: how many there are on all real ranks together.

    Raises:
        ValueError: fewer virtual ranks than real ones.
    """
    group = _Group(inner, owners_of(virtual_ranks, inner.world_size), _Family())
    return [VirtualCommunicator(group, rank) for rank in group.mine]


def run_virtual(
    communicators: Sequence[VirtualCommunicator], function: Callable[[int, VirtualCommunicator], R]
) -> list[R]:
    """Calls ``function(number, communicator)`` for each of ``communicators``, in threads that may meet in collectives.

    Args:
        communicators: what :func:`virtual_communicators` gave.
        function: what one virtual rank does; ``number`` counts those of this real rank from 0.

    Returns:
        The results in the order of ``communicators``. An exception of one virtual rank breaks the waits of the others
        and is raised here.
    """
    if len(communicators) == 1:
        return [function(0, communicators[0])]
    family = communicators[0]._group.family
    family.failure = None
    results: dict[int, R] = {}
    first: list[BaseException] = []

    def body(number: int) -> None:
        communicator = communicators[number]
        try:
            results[number] = function(number, communicator)
        except BaseException as error:
            first.append(error)
            if family.failure is None:
                family.failure = f"virtual rank {communicator.rank} failed with {type(error).__name__}: {error}"

    threads = [
        threading.Thread(target=body, args=(number,), name=f"virtual rank {communicator.rank}", daemon=True)
        for number, communicator in enumerate(communicators)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if first:
        raise first[0]
    return [results[number] for number in range(len(communicators))]

"""N ranks as N threads of one process: the same protocol without MPI, for tests and for simulating a schedule.

Each collective is a meeting: every rank brings what it wants to do, the last to arrive checks that all want the same
and computes the result in rank order, and each rank takes it away. A rank that fails, or ends while others wait for it,
or does not come in time, breaks the meeting with an error that names it.
"""

from __future__ import annotations

import contextvars
import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from .. import tracing
from ..errors import CommunicationError
from ..ops.random import default_generator, replace_default
from . import process_group
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
from .monitored import MonitoredCommunicator

R = TypeVar("R")

# (rank, sequence) -> seconds that the rank waits before it enters its sequence-th collective, counted from 0.
Delay = Callable[[int, int], float]


class _Call(NamedTuple):
    """What a rank wants to do; all ranks must want the same."""

    name: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    op: str | None = None
    src: int | None = None

    def __str__(self) -> str:
        given = zip(self._fields[1:], self[1:], strict=True)
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in given if value is not None)})"


class _Meeting:
    """One collective: who has come, with what, and what came of it. ``changed`` shares the lock of the world."""

    def __init__(self, lock: threading.RLock) -> None:
        self.changed = threading.Condition(lock)
        self.calls: dict[int, _Call] = {}
        self.payloads: dict[int, Any] = {}
        self.done = False
        self.result: Any = None
        self.error: str | None = None


class _World:
    """What all ranks of a run share. ``lock`` guards all of it; ``condition`` tells when a rank fails or ends."""

    def __init__(self, size: int, timeout: float, delay: Delay | None, ranks_per_host: int) -> None:
        self.size = size
        self.timeout = timeout
        self.delay = delay
        self.ranks_per_host = ranks_per_host
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)
        self.open: set[_Meeting] = set()
        self.failure: tuple[int | None, str] | None = None  # the first rank that failed (None: no rank), and a clause
        self.ended: set[int] = set()

    def host_of(self, rank: int) -> int:
        return rank // self.ranks_per_host

    def fail(self, rank: int | None, clause: str) -> bool:
        """Breaks all waits; returns whether ``rank`` is the one that failed first."""
        with self.lock:
            if self.failure is None:
                self.failure = (rank, clause)
            self._tell()
            return self.failure[0] == rank

    def end(self, rank: int) -> None:
        """Notes that the rank takes part in no further collective."""
        with self.lock:
            self.ended.add(rank)
            self._tell()

    def _tell(self) -> None:
        self.condition.notify_all()
        for meeting in self.open:
            meeting.changed.notify_all()


class _Group:
    """The ranks of one communicator: ``members`` are their numbers in the world."""

    def __init__(self, world: _World, members: Sequence[int]) -> None:
        self.world = world
        self.members = tuple(members)
        self._meetings: dict[int, _Meeting] = {}

    def arrive(
        self, rank: int, sequence: int, call: _Call, payload: Any, compute: Callable[[list[Any]], Any]
    ) -> _Meeting:
        """Brings what ``rank`` wants to do; the last to come does it."""
        world = self.world
        seconds = 0.0 if world.delay is None else world.delay(self.members[rank], sequence)
        with world.lock:
            if seconds > 0:  # with the lock released, and no longer than there is something to wait for
                world.condition.wait_for(lambda: world.failure is not None, seconds)
            meeting = self._meetings.get(sequence)
            if meeting is None:
                meeting = self._meetings[sequence] = _Meeting(world.lock)
                world.open.add(meeting)
            meeting.calls[rank], meeting.payloads[rank] = call, payload
            if len(meeting.calls) == len(self.members):
                # The last to come needs no entry for others any more: whoever is inside holds the meeting itself.
                del self._meetings[sequence]
                world.open.discard(meeting)
                meeting.error = _disagreement(meeting.calls, sequence)
                if meeting.error is None:
                    try:
                        meeting.result = compute([meeting.payloads[r] for r in range(len(self.members))])
                    except CommunicationError as error:  # every rank is told
                        meeting.error = str(error)
                meeting.payloads.clear()
                meeting.done = True
                meeting.changed.notify_all()
        return meeting

    def leave(self, rank: int, sequence: int, call: _Call, meeting: _Meeting) -> Any:
        """Waits until all have come, and takes the result away."""
        world = self.world
        with world.lock:
            in_time = meeting.changed.wait_for(
                lambda: meeting.done or world.failure is not None or bool(self._gone(meeting)), world.timeout
            )
            if not meeting.done:
                raise CommunicationError(self._why_broken(rank, sequence, call, meeting, in_time))
        if meeting.error is not None:
            raise CommunicationError(meeting.error)
        return meeting.result

    def _gone(self, meeting: _Meeting) -> list[int]:
        """Those that have ended without coming."""
        return [r for r, member in enumerate(self.members) if member in self.world.ended and r not in meeting.calls]

    def _why_broken(self, rank: int, sequence: int, call: _Call, meeting: _Meeting, in_time: bool) -> str:
        where = f"rank {rank} in {call}, collective {sequence}"
        if self.world.failure is not None:
            return f"{self.world.failure[1]}, which broke {where}"
        if in_time:
            return (
                f"{_names(self._gone(meeting))} ended without joining {where}; every rank must make the same calls in "
                "the same order"
            )
        missing = _names([r for r in range(len(self.members)) if r not in meeting.calls])
        return f"{missing} did not join {where}, within {self.world.timeout:g} s"


class _Started:
    """A collective that this rank has joined without waiting for the others."""

    def __init__(self, finish: Callable[[], None], meeting: _Meeting) -> None:
        self._finish: Callable[[], None] | None = finish
        self._meeting = meeting

    def test(self) -> bool:
        """Whether all ranks have come."""
        if self._finish is None:
            return True
        if not self._meeting.done:
            return False
        self.wait()
        return True

    def wait(self) -> None:
        """Returns when all ranks have come."""
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()


class ThreadCommunicator:
    """What one rank-thread holds; made by :func:`run`. Reductions are done in rank order.

    Ranks that disagree in collective, shape, dtype, ``op`` or ``src`` all raise a CommunicationError that names both
    calls. ``abort`` breaks the waits of the other ranks and raises SystemExit.
    """

    backend = "threads"
    concurrent = True

    def __init__(self, group: _Group, rank: int) -> None:
        self._group = group
        self._sequence = 0
        self.rank = rank
        self.world_size = len(group.members)
        world = group.world
        host = world.host_of(group.members[rank])
        neighbours = [r for r, member in enumerate(group.members) if world.host_of(member) == host]
        self.local_rank = neighbours.index(rank)
        self.local_world_size = len(neighbours)
        self.hostname = socket.gethostname() if world.ranks_per_host >= world.size else f"host{host}"

    def _start(
        self, call: _Call, payload: Any, compute: Callable[[list[Any]], Any]
    ) -> tuple[_Meeting, Callable[[], Any]]:
        """Comes to the next meeting; what is given besides waits for it and takes its result away."""
        sequence = self._sequence
        self._sequence += 1
        meeting = self._group.arrive(self.rank, sequence, call, payload, compute)
        return meeting, lambda: self._group.leave(self.rank, sequence, call, meeting)

    def _meet(self, call: _Call, payload: Any, compute: Callable[[list[Any]], Any]) -> Any:
        return self._start(call, payload, compute)[1]()

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Combines ``array`` over all ranks in place; see :class:`~distgrad.distributed.Communicator`."""
        check_reduce(array, op)
        call = _Call("all_reduce", array.shape, str(array.dtype), op=op)
        array[...] = self._meet(call, array, _reduction(op))

    def start_all_reduce(self, array: Array, op: ReduceOp = "sum") -> _Started:
        """``all_reduce`` that returns at once; see :class:`~distgrad.distributed.Communicator`."""
        check_start(array, op)
        call = _Call("all_reduce", array.shape, str(array.dtype), op=op)
        meeting, result = self._start(call, array, _reduction(op))

        def finish() -> None:
            array[...] = result()

        return _Started(finish, meeting)

    def broadcast(self, array: Array, src: int = 0) -> None:
        """Copies rank ``src``'s values into ``array`` in place; see :class:`~distgrad.distributed.Communicator`."""
        check_broadcast(array, src, self.world_size)
        call = _Call("broadcast", array.shape, str(array.dtype), src=src)
        values = self._meet(call, array, lambda arrays: arrays[src].copy())
        if self.rank != src:
            array[...] = values

    def all_gather(self, array: Array) -> Array:
        """A new array ``(world_size, *array.shape)``; see :class:`~distgrad.distributed.Communicator`."""
        check_gather(array)
        gathered: Array = self._meet(_Call("all_gather", array.shape, str(array.dtype)), array, np.stack)
        return gathered.copy()  # each rank its own

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """What each rank passed, in rank order; see :class:`~distgrad.distributed.Communicator`."""
        return list(self._meet(_Call("all_gather_bytes"), bytes(data), list))

    def all_gather_into(self, flat: Array, counts: Sequence[int]) -> None:
        """Each rank's part to all, in place; see :class:`~distgrad.distributed.Communicator`."""
        check_gather_into(flat, counts, self.world_size)
        bounds = [0, *itertools.accumulate(counts)]

        def compute(arrays: list[Array]) -> Array:
            parts = [array[bounds[rank] : bounds[rank + 1]] for rank, array in enumerate(arrays)]
            return np.concatenate(parts)

        flat[...] = self._meet(_Call(f"all_gather_into {list(counts)}", flat.shape, str(flat.dtype)), flat, compute)

    def all_to_all(
        self, send: Array, send_counts: Sequence[int], receive: Array, receive_counts: Sequence[int]
    ) -> None:
        """A part to and from each rank; see :class:`~distgrad.distributed.Communicator`."""
        check_all_to_all(send, send_counts, receive, receive_counts, self.world_size)
        given = (np.split(send.copy(), np.cumsum(send_counts)[:-1]), list(receive_counts))

        def compute(given: list[tuple[list[Array], list[int]]]) -> list[list[Array]]:
            for rank, (_, expected) in enumerate(given):
                for other, (parts, _) in enumerate(given):
                    if parts[rank].size != expected[other]:
                        raise CommunicationError(
                            f"all_to_all: rank {other} sends {parts[rank].size} elements to rank {rank}, which expects "
                            f"{expected[other]}"
                        )
            return [[parts[rank] for parts, _ in given] for rank in range(len(given))]

        rows = self._meet(_Call("all_to_all", None, str(send.dtype)), given, compute)
        receive[...] = np.concatenate(rows[self.rank])

    def barrier(self) -> None:
        """Returns on no rank before every rank has called it."""
        self._meet(_Call("barrier"), None, lambda _: None)

    def split(self, color: int | None, key: int | None = None) -> ThreadCommunicator | None:
        """The ranks that pass the same ``color``; see :class:`~distgrad.distributed.Communicator`."""
        check_color(color)
        group = self._group

        def compute(wanted: list[tuple[int | None, int]]) -> dict[int, tuple[_Group, int]]:
            places: dict[int, tuple[_Group, int]] = {}
            for chosen in {colour for colour, _ in wanted if colour is not None}:
                ranks = sorted((k, r) for r, (c, k) in enumerate(wanted) if c == chosen)
                made = _Group(group.world, [group.members[r] for _, r in ranks])
                places |= {r: (made, place) for place, (_, r) in enumerate(ranks)}
            return places

        place = self._meet(_Call("split"), (color, self.rank if key is None else key), compute).get(self.rank)
        return None if place is None else ThreadCommunicator(*place)

    def duplicate(self) -> ThreadCommunicator:
        """The same ranks once more; see :class:`~distgrad.distributed.Communicator`."""
        group: _Group = self._meet(_Call("duplicate"), None, lambda _: _Group(self._group.world, self._group.members))
        return ThreadCommunicator(group, self.rank)

    def shared_arrays(self, count: int, dtype: npt.DTypeLike) -> list[Array]:
        """Memory of the host, an array a rank; see :class:`~distgrad.distributed.Communicator`."""
        if self.local_world_size != self.world_size:
            raise CommunicationError(
                f"shared_arrays: the {self.world_size} ranks are not all on one host ({self.local_world_size} are on "
                f"{self.hostname}): split the communicator by host before"
            )
        numbers = np.dtype(dtype)
        arrays: list[Array] = self._meet(
            _Call("shared_arrays", (count,), str(numbers)),
            None,
            lambda ranks: [np.zeros(count, numbers) for _ in ranks],
        )
        return list(arrays)

    def free(self) -> None:
        """A collective, as with MPI; there is nothing to give back."""
        self._meet(_Call("free"), None, lambda _: None)

    def abort(self, code: int = 1) -> NoReturn:
        """Breaks the waits of all other ranks and ends this one with SystemExit."""
        world = self._group.world
        world.fail(self._group.members[self.rank], f"rank {self._group.members[self.rank]} called abort({code})")
        sys.exit(code)


def _reduction(op: ReduceOp) -> Callable[[list[Array]], Array]:
    def compute(arrays: list[Array]) -> Array:
        total = arrays[0].copy()
        with np.errstate(all="ignore"):  # as MPI does: an overflow is a value, not a warning
            for other in arrays[1:]:
                UFUNCS[op](total, other, out=total)
        return total

    return compute


def run(
    world_size: int,
    function: Callable[..., R],
    *args: Any,
    timeout: float = 60.0,
    delay: Delay | None = None,
    ranks_per_host: int | None = None,
    watch: float = 0.0,
    check: bool = False,
) -> list[R]:
    """Calls ``function(*args)`` on ``world_size`` ranks, each a thread of this process.

    Inside, ``distgrad.distributed.rank()`` and all other functions of that module act for the rank that calls them.
    Threads that a rank starts of its own do not inherit this.

    Args:
        world_size: how many ranks.
        function: what each rank does.
        args: its arguments, the same objects on every rank.
        timeout: seconds that a rank waits in one collective for the others.
        delay: ``delay(rank, sequence)`` gives the seconds that a rank waits before it enters its ``sequence``-th
            collective, counted from 0; by it a test forces a schedule.
        ranks_per_host: pretend that every so many ranks share a host, named "host0", "host1", …; default: all on one.
        watch: seconds that a collective may take before the watchdog ends the run; 0: there is none.
        check: whether ranks compare what they are about to do before each collective.

    Returns:
        What each rank returned, in rank order.

    Raises:
        ValueError: ``world_size`` or ``ranks_per_host`` below 1.
        BaseException: the exception of the rank that failed first. The other ranks end with a CommunicationError that
            names it, at their next collective.
    """
    if world_size < 1:
        raise ValueError(f"threads.run: world_size is {world_size}, must be at least 1")
    if ranks_per_host is not None and ranks_per_host < 1:
        raise ValueError(f"threads.run: ranks_per_host is {ranks_per_host}, must be at least 1")
    world = _World(world_size, timeout, delay, ranks_per_host or world_size)
    group = _Group(world, range(world_size))
    results: dict[int, R] = {}
    first: list[BaseException] = []
    watching: list[MonitoredCommunicator] = []

    def broken(report: str) -> None:
        world.fail(None, report)

    def watched(rank: int) -> Communicator:
        communicator = ThreadCommunicator(group, rank)
        if not (watch or check) or world_size == 1:
            return communicator
        monitored = MonitoredCommunicator(communicator, end=broken, threads=(threading.get_ident(),))
        watching.append(monitored)
        monitored.configure(watch, check)
        return monitored

    def body(rank: int) -> None:
        replace_default(default_generator.clone_state())  # as each process has its own
        tracing.record_apart()
        try:
            with process_group.use(watched(rank)):
                results[rank] = function(*args)
        except BaseException as error:
            if world.fail(rank, f"rank {rank} failed with {type(error).__name__}: {error}"):
                first.append(error)
        finally:
            world.end(rank)

    # Daemons: a rank that is stuck outside of any collective must not keep the interpreter from exiting.
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(body, rank), name=f"rank {rank}", daemon=True)
        for rank in range(world_size)
    ]
    for thread in threads:
        thread.start()
    try:
        _join(world, threads)
    except BaseException:  # Ctrl-C in the thread that waits for all
        world.fail(None, "the run was interrupted")
        raise
    finally:
        for monitored in watching:
            monitored.stop()
    if first:
        raise first[0]
    if world.failure is not None:  # the SystemExit of an abort() was caught by the rank itself
        raise CommunicationError(f"{world.failure[1]}, which ended the run")
    return [results[rank] for rank in range(world_size)]


def _join(world: _World, threads: Sequence[threading.Thread]) -> None:
    """Waits for all ranks; once one has failed, for the others no longer than ``timeout``."""
    deadline: float | None = None
    with world.condition:
        while len(world.ended) < world.size:
            if deadline is None and world.failure is not None:
                deadline = time.monotonic() + world.timeout
            if deadline is not None and time.monotonic() >= deadline:
                return
            world.condition.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    for thread in threads:
        thread.join()


def _disagreement(calls: dict[int, _Call], sequence: int) -> str | None:
    for rank in range(1, len(calls)):
        if calls[rank] != calls[0]:
            return (
                f"ranks do not agree on collective {sequence}: rank 0 called {calls[0]}, but rank {rank} called "
                f"{calls[rank]}; every rank must make the same calls in the same order"
            )
    return None


def _names(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"

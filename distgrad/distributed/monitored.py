"""A communicator that is watched: every collective is logged, and a hang or a mismatch is reported instead of endured.

``distgrad.distributed.init`` puts it around MPI. A collective costs about 1.5 microseconds more. With ``check`` (or
``DISTGRAD_CHECK=1`` in the environment, as PyTorch's ``TORCH_DISTRIBUTED_DEBUG=DETAIL``) all ranks compare what they
are about to do before each collective, so that a mismatch is an exception on every rank and nothing is sent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import CommunicationError, ConfigError
from .collective_log import CollectiveLog, Record
from .communicator import Array, Communicator, ReduceOp, Work
from .watchdog import DEFAULT_LIMIT, Watchdog

TIMEOUT_VARIABLE = "DISTGRAD_TIMEOUT"
CHECK_VARIABLE = "DISTGRAD_CHECK"

ABORT_TIME = 3.0  # seconds that the communicator has to end the job, before this process ends by itself

_REFUSED = (TypeError, ValueError)  # what the checks of arguments raise, before anything is sent


def monitor(
    communicator: Communicator,
    timeout: float | None = None,
    check: bool | None = None,
    *,
    end: Callable[[str], None] | None = None,
    threads: tuple[int, ...] | None = None,
) -> Communicator:
    """``communicator``, watched. A collective.

    Args:
        communicator: the ranks; one alone is given back as it is.
        timeout: seconds that a collective may take; 0: no limit and no watchdog; None: what ``DISTGRAD_TIMEOUT`` says,
            or 600.
        check: whether ranks compare before each collective; None: what ``DISTGRAD_CHECK`` says, or False.
        end: what ends the job, given the report; default: ``communicator.abort(1)``, and where that does not work,
            the end of this process.
        threads: identifiers of the threads of this rank, the main one first; default: all of the process.

    Raises:
        ConfigError: an environment variable that is no number.
        ValueError: a negative ``timeout``.
    """
    if communicator.world_size == 1:
        return communicator
    limit = _timeout_of_environment() if timeout is None else timeout
    wanted = os.environ.get(CHECK_VARIABLE, "0") not in ("", "0") if check is None else check
    watched = MonitoredCommunicator(communicator, end=end, threads=threads)
    watched.configure(limit, wanted)
    return watched


def _timeout_of_environment() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else DEFAULT_LIMIT
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ConfigError(f"{TIMEOUT_VARIABLE} is {text!r}, must be a number of seconds; 0 turns the watchdog off")
    return seconds


class MonitoredCommunicator:
    """Logs each collective and hands it on to ``inner``; see :class:`~distgrad.distributed.Communicator`.

    Groups made by ``split`` and ``duplicate`` are monitored too, by the same watchdog.

    Args:
        inner: what carries the messages.
        name: for reports.
        members: the ranks of the world that belong to it; default: it is the world.
        end, threads: see :func:`monitor`.
        root: the communicator that this group was made of, and whose watchdog is its own.

    Attributes:
        inner: as given.
        log: what this rank has done on it.
    """

    def __init__(
        self,
        inner: Communicator,
        name: str = "world",
        members: Sequence[int] | None = None,
        *,
        end: Callable[[str], None] | None = None,
        threads: tuple[int, ...] | None = None,
        root: MonitoredCommunicator | None = None,
    ) -> None:
        self.inner = inner
        self.backend: str = inner.backend
        self.rank: int = inner.rank
        self.world_size: int = inner.world_size
        self.local_rank: int = inner.local_rank
        self.local_world_size: int = inner.local_world_size
        self.hostname: str = inner.hostname
        self.concurrent: bool = inner.concurrent
        self.log = CollectiveLog(name, tuple(range(inner.world_size) if members is None else members))
        self._root = self if root is None else root
        self._logs: weakref.WeakSet[CollectiveLog] = weakref.WeakSet() if root is None else root._logs
        self._logs.add(self.log)
        self._watchdog: Watchdog | None = None  # of the root
        self._end = self._abort_somehow if end is None else end
        self._threads = threads
        self._checker: Communicator | None = None
        self._children = 0

    @property
    def watchdog(self) -> Watchdog | None:
        """That of the world and all of its groups; None: there is none."""
        return self._root._watchdog

    def configure(self, timeout: float | None = None, check: bool | None = None) -> None:
        """Changes the limit, or whether calls are compared. A collective.

        Args:
            timeout: seconds, the same on all ranks, for this communicator and all that it was made of or that were made
                of it; 0: no limit; None: as it is.
            check: for this communicator, and groups that will be made of it; None: as it is.

        Raises:
            ValueError: a negative ``timeout``.
        """
        if timeout is not None:
            if not timeout >= 0:
                raise ValueError(f"configure: timeout is {timeout}, must be a number of seconds; 0 is no limit")
            limit = timeout or math.inf
            if self.watchdog is not None:
                self.watchdog.limit = limit
            elif limit < math.inf:
                self._root._watchdog = watchdog = Watchdog(self._root.inner, limit, self._end, self._threads)
                for log in list(self._logs):
                    watchdog.watch(log)
        if check and self._checker is None:
            self._checker = self.inner.duplicate()
        elif check is False and self._checker is not None:
            self._checker.free()
            self._checker = None

    def stop(self) -> None:
        """Ends the watchdog of the world and all of its groups; the communicators go on without."""
        watchdog, self._root._watchdog = self._root._watchdog, None
        if watchdog is not None:
            watchdog.stop()

    # ---- Collectives

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Combines ``array`` over all ranks in place; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("all_reduce", array, "" if op == "sum" else f"op={op}")
        try:
            self.inner.all_reduce(array, op)
        except _REFUSED:
            self.log.retract(record)
            raise
        finally:
            self.log.leave(record)

    def start_all_reduce(self, array: Array, op: ReduceOp = "sum") -> Work:
        """``all_reduce`` that returns at once; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("start_all_reduce", array, "" if op == "sum" else f"op={op}")
        try:
            work = self.inner.start_all_reduce(array, op)
        except BaseException as error:
            if isinstance(error, _REFUSED):
                self.log.retract(record)
            self.log.leave(record)
            raise
        record.started()
        return _MonitoredWork(work, self.log, record)

    def broadcast(self, array: Array, src: int = 0) -> None:
        """Copies rank ``src``'s values into ``array`` in place; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("broadcast", array, f"src={src}")
        try:
            self.inner.broadcast(array, src)
        except _REFUSED:
            self.log.retract(record)
            raise
        finally:
            self.log.leave(record)

    def all_gather(self, array: Array) -> Array:
        """A new array ``(world_size, *array.shape)``; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("all_gather", array)
        try:
            return self.inner.all_gather(array)
        except _REFUSED:
            self.log.retract(record)
            raise
        finally:
            self.log.leave(record)

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """What each rank passed, in rank order; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("all_gather_bytes")
        try:
            return self.inner.all_gather_bytes(data)
        except _REFUSED:
            self.log.retract(record)
            raise
        finally:
            self.log.leave(record)

    def all_gather_into(self, flat: Array, counts: Sequence[int]) -> None:
        """Each rank's part to all, in place; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("all_gather_into", flat)
        try:
            self.inner.all_gather_into(flat, counts)
        except _REFUSED:
            self.log.retract(record)
            raise
        finally:
            self.log.leave(record)

    def all_to_all(
        self, send: Array, send_counts: Sequence[int], receive: Array, receive_counts: Sequence[int]
    ) -> None:
        """A part to and from each rank; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("all_to_all")
        try:
            self.inner.all_to_all(send, send_counts, receive, receive_counts)
        except _REFUSED:
            self.log.retract(record)
            raise
        finally:
            self.log.leave(record)

    def barrier(self) -> None:
        """Returns on no rank before every rank has called it."""
        record = self._enter("barrier")
        try:
            self.inner.barrier()
        finally:
            self.log.leave(record)

    # ---- Groups

    def split(self, color: int | None, key: int | None = None) -> MonitoredCommunicator | None:
        """The ranks that pass the same ``color``; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("split")
        try:
            group = self.inner.split(color, key)
            self._children += 1
            if group is None:
                return None
            world_rank = self.log.members[self.rank]
            members = group.all_gather(np.array(world_rank, dtype=np.int64)).tolist()
        except _REFUSED:
            self.log.retract(record)
            raise
        finally:
            self.log.leave(record)
        return self._watch(group, f"{self.log.name}/split {self._children} color {color}", members)

    def duplicate(self) -> MonitoredCommunicator:
        """The same ranks once more; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("duplicate")
        try:
            group = self.inner.duplicate()
        finally:
            self.log.leave(record)
        self._children += 1
        return self._watch(group, f"{self.log.name}/duplicate {self._children}", self.log.members)

    def _watch(self, group: Communicator, name: str, members: Sequence[int]) -> MonitoredCommunicator:
        watched = MonitoredCommunicator(group, name, members, end=self._end, threads=self._threads, root=self._root)
        if self.watchdog is not None:
            self.watchdog.watch(watched.log)
        if self._checker is not None:
            watched.configure(check=True)
        return watched

    def shared_arrays(self, count: int, dtype: npt.DTypeLike) -> list[Array]:
        """Memory of the host, an array a rank; see :class:`~distgrad.distributed.Communicator`."""
        record = self.log.enter("shared_arrays", np.dtype(dtype), count)
        try:
            self._compare(record)
            return self.inner.shared_arrays(count, dtype)
        finally:
            self.log.leave(record)

    def free(self) -> None:
        """Frees the communicator and its shared memory; see :class:`~distgrad.distributed.Communicator`."""
        record = self._enter("free")
        try:
            self.configure(check=False)
            self.inner.free()
        finally:
            self.log.leave(record)
        self._logs.discard(self.log)
        if self.watchdog is not None:
            self.watchdog.forget(self.log)

    def abort(self, code: int = 1) -> NoReturn:
        """Ends all ranks with ``code``; the watchdogs of the others are told that there is nothing to report."""
        if self.watchdog is not None:
            self.watchdog.leave()
        self.inner.abort(code)

    def _abort_somehow(self, report: str) -> None:
        """Ends the job from a thread of the watchdog, while the others may be stuck in MPI or hold its locks."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            # the clock that needs no interpreter lock: MPI_Abort may keep it and never return
            faulthandler.dump_traceback_later(ABORT_TIME, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115
        with contextlib.suppress(Exception):
            self.inner.abort(1)
        os._exit(1)

    # ---- Before each collective

    def _enter(self, operation: str, array: Any = None, detail: str = "") -> Record:
        if isinstance(array, np.ndarray):
            record = self.log.enter(operation, array.dtype, array.size, detail)
        else:
            record = self.log.enter(operation, None, None, detail)
        if self._checker is not None:
            self._compare(record)
        return record

    def _compare(self, record: Record) -> None:
        """Raises on every rank unless all are about to do the same."""
        if self._checker is None:
            return
        try:
            signatures = self._checker.all_gather(np.array(record.signature, dtype=np.uint64))
            if (signatures == signatures[0]).all():
                return
            mine = json.dumps([record.call, record.site, record.label]).encode()
            calls = [json.loads(text) for text in self._checker.all_gather_bytes(mine)]
        except BaseException:
            self.log.leave(record)
            raise
        self.log.leave(record)
        other = next((r for r, call in enumerate(calls) if call[0] != calls[0][0]), None)
        where = f"as collective #{record.sequence} of {self.log.name}"
        if other is None:
            raise CommunicationError(
                f"the ranks are all about to call {record.call} at {record.site}, {where}, but have not made the same "
                "calls before; compare them from the beginning, with DISTGRAD_CHECK=1"
            )
        members = self.log.members
        raise CommunicationError(
            f"rank {members[0]} called {calls[0][0]} at {calls[0][1]} but rank {members[other]} called "
            f"{calls[other][0]} at {calls[other][1]}, {where}; every rank must make the same calls in the same order"
        )


class _MonitoredWork:
    """Work that tells the log when its rank waits for it, and when it is done."""

    def __init__(self, work: Work, log: CollectiveLog, record: Record) -> None:
        self._work = work
        self._log = log
        self._record = record

    def test(self) -> bool:
        """Whether it is done."""
        if self._work.test():
            if self._record.left is None:
                self._log.leave(self._record)
            return True
        self._record.asked(time.monotonic())
        return False

    def wait(self) -> None:
        """Returns when it is done."""
        self._record.asked(math.inf)
        self._work.wait()
        if self._record.left is None:
            self._log.leave(self._record)

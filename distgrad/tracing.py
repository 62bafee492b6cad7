"""What happened when: spans of time that the rooms mark, kept in memory while somebody records, and free otherwise.

Code says ``with tracing.span("forward"): ...`` wherever an interval is worth seeing. As long as nobody records, that is
one test and a shared object that does nothing. ``start`` begins a recording and ``stop`` ends it and gives the events;
:class:`distgrad.observe.Timeline` does both on all ranks and writes what browsers draw.

All threads of a process write into one buffer of bounded length, whose oldest events give way. Threads that are ranks
(:func:`distgrad.distributed.threads.run`) say so with ``record_apart``: each of them then has a recording of its own,
together with the threads that got a copy of its context (:mod:`contextvars`).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, TypeAlias

Category: TypeAlias = Literal["compute", "communication", "wait", "data", "other"]

DEFAULT_LIMIT = 200_000  # events, about 50 MB

clock = time.monotonic_ns  # of the host: the same for all of its processes


class Track(NamedTuple):
    """A thread, as the events know it.

    Attributes:
        number: unique among all threads that this process has had, unlike an operating system's.
        name: the thread's name when it first did something that was recorded.
    """

    number: int
    name: str


class Event(NamedTuple):
    """One span, or one moment.

    Attributes:
        name: what it was.
        category: what kind of thing: "compute", "communication", "wait", "data" or "other".
        track: the thread.
        start: ns of :data:`clock`.
        end: ns of :data:`clock`; None for a moment.
        arguments: what else was said about it; numbers and text.
    """

    name: str
    category: Category
    track: Track
    start: int
    end: int | None
    arguments: dict[str, Any]


class Recording(NamedTuple):
    """What ``stop`` gives.

    Attributes:
        events: in the order in which they ended.
        dropped: how many older ones had to give way.
        main: the thread that called ``start``.
    """

    events: list[Event]
    dropped: int
    main: Track


class _Recorder:
    """The events of one recording."""

    def __init__(self, limit: int) -> None:
        self.events: deque[Event] = deque(maxlen=limit)  # whose append is atomic, and drops the oldest
        self.counter = itertools.count(1)  # whose next is atomic, too
        self.main = _this_track()

    def add(self, event: Event) -> None:
        next(self.counter)
        self.events.append(event)


class _Nothing:
    """What ``span`` gives while nobody records."""

    __slots__ = ()

    # A function in C that takes anything and gives something false costs half of what one in Python does.
    __enter__ = __exit__ = staticmethod("".format)


class _Span:
    """A span that is being measured."""

    __slots__ = ("_arguments", "_category", "_name", "_recorder", "_start")

    def __init__(self, recorder: _Recorder, name: str, category: Category, arguments: dict[str, Any]) -> None:
        self._recorder, self._name, self._category, self._arguments = recorder, name, category, arguments

    def __enter__(self) -> None:
        self._start = clock()

    def __exit__(self, *_: object) -> None:
        end = clock()
        self._recorder.add(Event(self._name, self._category, _this_track(), self._start, end, self._arguments))


_NOTHING = _Nothing()
_any = False  # whether anybody records: all that is looked at while nobody does
_recorders: dict[object, _Recorder] = {}  # of each owner; None: the process
_owner: ContextVar[object] = ContextVar("owner of events", default=None)
_lock = threading.Lock()
_numbers = itertools.count()
_local = threading.local()


def span(name: str, category: Category = "compute", **arguments: Any) -> _Nothing | _Span:
    """Marks what is done inside a ``with`` as one event, also when it raises.

    Args:
        name: what it is, such as "forward".
        category: "compute", "communication" (bytes are on their way), "wait" (this thread can do nothing until others
            have), "data" (getting the next batch) or "other".
        arguments: numbers and text to show with it, such as ``bytes=n``.
    """
    if not _any:
        return _NOTHING
    recorder = _recorders.get(_owner.get())
    return _NOTHING if recorder is None else _Span(recorder, name, category, arguments)


def instant(name: str, category: Category = "other", **arguments: Any) -> None:
    """Marks this moment; arguments as for :func:`span`."""
    if not _any:
        return
    recorder = _recorders.get(_owner.get())
    if recorder is not None:
        recorder.add(Event(name, category, _this_track(), clock(), None, arguments))


def is_recording() -> bool:
    """Whether events of this thread are kept."""
    return _any and _owner.get() in _recorders


def record_apart() -> None:
    """Gives this thread, and those that get a copy of its context from now on, recordings of their own."""
    _owner.set(object())


def start(limit: int = DEFAULT_LIMIT) -> None:
    """Begins to record what this process does, or what belongs to this thread after ``record_apart``.

    Args:
        limit: how many events are kept; older ones give way to newer ones, and are counted.

    Raises:
        RuntimeError: that is recorded already.
        ValueError: ``limit`` below 1.
    """
    global _any
    if limit < 1:
        raise ValueError(f"tracing.start: limit is {limit}, must be at least 1")
    owner, recorder = _owner.get(), _Recorder(limit)
    with _lock:
        if owner in _recorders:
            raise RuntimeError("tracing.start: a recording is going on already; call tracing.stop() first")
        _recorders[owner] = recorder
        _any = True


def stop() -> Recording:
    """Ends the recording; spans that are still open are not in it.

    Raises:
        RuntimeError: there is none.
    """
    global _any
    with _lock:
        recorder = _recorders.pop(_owner.get(), None)
        _any = bool(_recorders)
    if recorder is None:
        raise RuntimeError("tracing.stop: nothing is recorded; call tracing.start() first")
    events = list(recorder.events)
    return Recording(events, next(recorder.counter) - 1 - len(events), recorder.main)


def _this_track() -> Track:
    track: Track | None = getattr(_local, "track", None)
    if track is None:
        with _lock:
            number = next(_numbers)
        track = _local.track = Track(number, threading.current_thread().name)
    return track

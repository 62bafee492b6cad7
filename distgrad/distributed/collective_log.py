"""What a rank has done on a communicator: a light log of its collectives, which the watchdog reads and compares.

Every collective has a number, counted from 0 on each communicator, and a signature: a hash over everything that has to
be the same on all ranks, from the first collective on. Two ranks whose signatures after the same number of collectives
differ have not done the same, even if nothing hung. A second hash also covers the lines of the program: ranks may reach
the same collective on different lines (rank 0 sends what the others receive), so a difference there alone is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

CAPACITY = 1024  # collectives that a log remembers

_MASK = (1 << 64) - 1
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that no step of the hash loses bits: 2**64 divided by the golden ratio

# Marks of the signature are kept at the last few multiples of 16, 64, 256, ...: two ranks that are looked at at
# different moments, thousands of collectives apart, still have one in common.
_MARK_EVERY = 16
_MARKS_A_LEVEL = 4
_LEVELS = 16

_SURE = 0.05  # seconds after which arguments have been checked

_KEPT = (
    4096  # lines and calls that are remembered; a program has fewer, and one that makes up code must not fill memory
)

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LAUNCH = os.path.join(_PACKAGE, "launch") + os.sep


class _Local(threading.local):
    label = ""


_local = _Local()
_now = time.monotonic


@contextlib.contextmanager
def labelled(text: str) -> Iterator[None]:
    """Inside, collectives of this thread carry ``text`` in the log, and so in the watchdog's report.

    Args:
        text: what is sent, for people: "bucket 2, layer3.0.conv1.weight". It need not be the same on all ranks.
    """
    before = _local.label
    _local.label = text
    try:
        yield
    finally:
        _local.label = before


class Call(NamedTuple):
    """A collective as a line of the program calls it, the same each time that it does.

    Attributes:
        text: what is called, "all_reduce(float32, 100)"; the same on all ranks.
        digest: a hash of it.
        site: the line of the program, "train.py:12".
        site_digest: a hash of that; 0: it is no line of the user's, but one of a thread of distgrad's own.
        code: where the line is; kept, so that its id stays its own.
    """

    text: str
    digest: int
    site: str
    site_digest: int
    code: CodeType


class Record:
    """One collective of one rank.

    Attributes:
        sequence: its number on the communicator, from 0.
        made: what was called, and where.
        label: the text of ``labelled``, or "".
        signature: the hash over the calls up to this one.
        lines: the hash over the calls and lines up to this one.
        entered: when it was called, by ``time.monotonic``.
        left: when it was done; None: not yet.
        waiting: since when the rank waits for it; None: it was started, and the rank goes on with something else.
        polled: when ``Work.test`` last asked for it; infinity: the rank is inside, and does nothing else.
    """

    __slots__ = ("entered", "label", "left", "lines", "made", "polled", "sequence", "signature", "waiting")

    def __init__(self, sequence: int, made: Call, label: str, signature: int, lines: int, entered: float) -> None:
        self.sequence = sequence
        self.made = made
        self.label = label
        self.signature = signature
        self.lines = lines
        self.entered = entered
        self.left: float | None = None
        self.waiting: float | None = entered
        self.polled = math.inf

    @property
    def call(self) -> str:
        """What was called, "all_reduce(float32, 100)"."""
        return self.made.text

    @property
    def site(self) -> str:
        """The line of the program, "train.py:12"."""
        return self.made.site

    @property
    def of_user(self) -> bool:
        """Whether that is a line of the user's, not of a thread of distgrad's."""
        return self.made.site_digest != 0

    def started(self) -> None:
        """The collective goes on by itself; from now on the rank waits for it when it says so."""
        self.waiting, self.polled = None, 0.0

    def asked(self, polled: float) -> None:
        """The rank asks whether it is done, or (``polled`` is infinity) waits for it."""
        if self.waiting is None:
            self.waiting = time.monotonic()
        self.polled = polled

    def waited(self, now: float, patience: float) -> float | None:
        """Seconds that the rank has waited for it, or None: it does something else, or has left.

        Args:
            now: by ``time.monotonic``.
            patience: seconds without a ``test`` after which the rank counts as busy with something else.
        """
        if self.left is not None or self.waiting is None or now - self.polled > patience:
            return None
        return now - self.waiting


class CollectiveLog:
    """The last collectives of one rank on one communicator. One thread writes, any thread reads.

    Args:
        name: of the communicator, the same on all of its ranks: "world", "world/duplicate 1".
        members: the ranks of the world that belong to it, in order.
        capacity: how many collectives are remembered.

    Attributes:
        sequence: the number of the next collective.
        signature: the hash over all calls so far; ``lines``: over calls and lines.
        pending: collectives that were entered and not left, by number.
    """

    def __init__(self, name: str, members: tuple[int, ...], capacity: int = CAPACITY) -> None:
        self.name = name
        self.members = members
        self.sequence = 0
        self.signature = 0
        self.lines = 0
        self.pending: dict[int, Record] = {}
        self._ring: list[Record | None] = [None] * capacity
        self._marks: dict[int, list[tuple[int, int, int]]] = {}

    def enter(self, operation: str, dtype: Any = None, size: int | None = None, detail: str = "") -> Record:
        """Notes that this rank calls a collective.

        Args:
            operation: the method.
            dtype: of the elements, where all ranks have to pass the same; None: of no meaning here.
            size: their number, where all ranks have to pass the same.
            detail: what else has to be the same: the reduction, the source.

        Returns:
            The record, for ``leave``.
        """
        made = _call(sys._getframe(1), operation, dtype, size, detail)
        sequence = self.sequence
        signature = ((self.signature ^ made.digest) * _FACTOR + 1) & _MASK
        lines = ((self.lines ^ made.digest ^ made.site_digest) * _FACTOR + 1) & _MASK
        record = Record(sequence, made, _local.label, signature, lines, _now())
        self._ring[sequence % len(self._ring)] = record
        self.pending[sequence] = record
        self.signature, self.lines = signature, lines
        if not sequence % _MARK_EVERY:
            self._mark(sequence, signature, lines)
        self.sequence = sequence + 1  # last: whoever reads it finds the record
        return record

    def leave(self, record: Record) -> None:
        """Notes that the collective is done."""
        record.left = _now()
        self.pending.pop(record.sequence, None)

    def retract(self, record: Record) -> None:
        """Forgets the last collective: its arguments were refused before anything was sent."""
        self.pending.pop(record.sequence, None)
        if record.sequence != self.sequence - 1:
            return
        before = self.record(record.sequence - 1)
        self.sequence = record.sequence
        self.signature, self.lines = (0, 0) if before is None else (before.signature, before.lines)
        self._ring[record.sequence % len(self._ring)] = None
        for marks in self._marks.values():
            if marks and marks[-1][0] == record.sequence:
                marks.pop()

    def record(self, sequence: int) -> Record | None:
        """The collective of that number, if it is still remembered."""
        found = self._ring[sequence % len(self._ring)] if sequence >= 0 else None
        return found if found is not None and found.sequence == sequence else None

    @property
    def last(self) -> Record | None:
        """The collective that was entered last."""
        return self.record(self.sequence - 1)

    def recent(self, count: int | None = None) -> list[Record]:
        """The last ``count`` collectives (default: all that are remembered), the oldest first."""
        end = self.sequence
        start = max(0, end - (len(self._ring) if count is None else min(count, len(self._ring))))
        return [record for sequence in range(start, end) if (record := self.record(sequence)) is not None]

    def marks(self) -> list[tuple[int, int, int]]:
        """(number, signature, lines) after some collectives, in order; the newest if it is sure not to be retracted."""
        found = {mark for level in list(self._marks.values()) for mark in level}
        found.update((record.sequence, record.signature, record.lines) for record in self.recent(_MARKS_A_LEVEL))
        last = self.last
        if last is not None and last.left is None and time.monotonic() - last.entered < _SURE:
            found.discard((last.sequence, last.signature, last.lines))
        return sorted(found)

    def _mark(self, sequence: int, signature: int, lines: int) -> None:
        distance = _MARK_EVERY
        for level in range(_LEVELS):
            if sequence % distance:
                return
            # replaced, not changed: another thread may be reading it
            self._marks[level] = [*self._marks.get(level, [])[1 - _MARKS_A_LEVEL :], (sequence, signature, lines)]
            distance *= 4


# ---- Calls, each looked up once. The hashes are the same in every process, unlike those of Python.

_calls: dict[tuple[int, int, str, Any, int | None, str], Call] = {}
_users: dict[str, bool] = {}  # whether a file is the user's, by name


def _call(frame: FrameType, operation: str, dtype: Any, size: int | None, detail: str) -> Call:
    """The call that ``frame``, below the communicator, makes.

    Its line is that of the innermost frame outside of the package, or in the recipe in ``launch``. In a thread of
    distgrad's own there is none; there it is the line that called the communicator.
    """
    at: FrameType | None = frame
    while at is not None:
        path = at.f_code.co_filename
        users = _users.get(path)
        if users is None:
            users = _is_users(path)
        if users:
            break
        at = at.f_back
    chosen = _innermost(frame) if at is None else at
    code = chosen.f_code
    key = (id(code), chosen.f_lasti, operation, dtype, size, detail)
    found = _calls.get(key)
    if found is None:
        # elements meet as numbers, whatever the order of their bytes
        numbers = dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype
        parts = [str(part) for part in (numbers, size, detail or None) if part is not None]
        text = f"{operation}({', '.join(parts)})"
        site = f"{os.path.basename(code.co_filename)}:{chosen.f_lineno}"
        found = Call(text, _digest(text), site, 0 if at is None else _digest(site), code)
        if len(_calls) >= _KEPT:
            _calls.clear()
        _calls[key] = found
    return found


def _innermost(frame: FrameType) -> FrameType:
    """The frame that called the communicator, of one that belongs to it."""
    at: FrameType | None = frame
    while at is not None:
        if at.f_code.co_filename != frame.f_code.co_filename:
            return at
        at = at.f_back
    return frame


def _is_users(path: str) -> bool:
    found = path != threading.__file__ and (not path.startswith(_PACKAGE) or path.startswith(_LAUNCH))
    if len(_users) >= _KEPT:
        _users.clear()
    _users[path] = found
    return found


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

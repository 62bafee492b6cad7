"""What a rank has done on a communicator: a light log of its collectives, which the watchdog reads and compares.

Every collective has a number, counted from 0 on each communicator, and a signature: a hash over everything that has to
be the same on all ranks, from the first collective on. Two ranks whose signatures after the same number of collectives
differ have not done the same, even if nothing hung. A second hash also covers the lines of the program: ranks may reach
the same collective on different lines (rank 0 sends what the others receive), so a difference there alone is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

CAPACITY = 1024  # collectives that a log remembers

_MASK = (1 << 64) - 1
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that no step of the hash loses bits: 2**64 divided by the golden ratio

# Marks of the signature are kept at the last few multiples of 16, 64, 256, ...: two ranks that are looked at at
# different moments, thousands of collectives apart, still have one in common.
_MARK_EVERY = 16
_MARKS_A_LEVEL = 4
_LEVELS = 16

_KEPT = 4096  # lines and calls that are remembered; a program has fewer, and one that makes up code must not fill memory

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LAUNCH = os.path.join(_PACKAGE, "launch") + os.sep
_THREADING = threading.__file__

_local = threading.local()


@contextlib.contextmanager
def labelled(text: str) -> Iterator[None]:
    """Inside, collectives of this thread carry ``text`` in the log, and so in the watchdog's report.

    Args:
        text: what is sent, for people: "bucket 2, layer3.0.conv1.weight". It need not be the same on all ranks.
    """
    before = getattr(_local, "label", "")
    _local.label = text
    try:
        yield
    finally:
        _local.label = before


class Record:
    """One collective of one rank.

    Attributes:
        sequence: its number on the communicator, from 0.
        call: what was called, "all_reduce(float32, 100)"; the same on all ranks.
        site: the line of the program, "train.py:12".
        label: the text of ``labelled``, or "".
        signature: the hash over the calls up to this one.
        lines: the hash over the calls and lines up to this one.
        entered: when it was called, by ``time.monotonic``.
        left: when it was done; None: not yet.
        waiting: since when the rank has done nothing but wait for it; None: it was started and the rank goes on.
        polled: when ``Work.test`` last asked for it; 0: never.
    """

    __slots__ = ("call", "entered", "label", "left", "lines", "polled", "sequence", "signature", "site", "waiting")

    def __init__(self, sequence: int, call: str, site: str, label: str, signature: int, lines: int) -> None:
        self.sequence = sequence
        self.call = call
        self.site = site
        self.label = label
        self.signature = signature
        self.lines = lines
        self.entered = time.monotonic()
        self.left: float | None = None
        self.waiting: float | None = None
        self.polled = 0.0

    @property
    def name(self) -> str:
        """The collective for people: "all_reduce #412 (bucket 2, layer3.0.conv1.weight)"."""
        operation = self.call.partition("(")[0]
        return f"{operation} #{self.sequence}" + (f" ({self.label})" if self.label else "")


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
        site, of_site = _site(sys._getframe(1))
        call, of_call = _call(operation, dtype, size, detail)
        sequence = self.sequence
        signature = ((self.signature ^ of_call) * _FACTOR + 1) & _MASK
        lines = ((self.lines ^ of_call ^ of_site) * _FACTOR + 1) & _MASK
        record = Record(sequence, call, site, getattr(_local, "label", ""), signature, lines)
        record.waiting = record.entered
        self._ring[sequence % len(self._ring)] = record
        self.pending[sequence] = record
        self.signature, self.lines = signature, lines
        if not sequence % _MARK_EVERY:
            self._mark(sequence, signature, lines)
        self.sequence = sequence + 1  # last: whoever reads it finds the record
        return record

    def leave(self, record: Record) -> None:
        """Notes that the collective is done."""
        record.left = time.monotonic()
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
        """(number, signature, lines) after some collectives, the last one among them."""
        found = {mark for level in list(self._marks.values()) for mark in level}
        found.update((record.sequence, record.signature, record.lines) for record in self.recent(_MARKS_A_LEVEL))
        return sorted(found)

    def _mark(self, sequence: int, signature: int, lines: int) -> None:
        distance = _MARK_EVERY
        for level in range(_LEVELS):
            if sequence % distance:
                return
            # replaced, not changed: another thread may be reading it
            self._marks[level] = [*self._marks.get(level, [])[1 - _MARKS_A_LEVEL :], (sequence, signature, lines)]
            distance *= 4


# ---- Calls and lines, each looked up once. The hashes are the same in every process, unlike those of Python.

_calls: dict[tuple[str, Any, int | None, str], tuple[str, int]] = {}
_sites: dict[tuple[int, int], tuple[str, int, CodeType]] = {}  # the code is kept, so that its id stays its own


def _call(operation: str, dtype: Any, size: int | None, detail: str) -> tuple[str, int]:
    key = (operation, dtype, size, detail)
    found = _calls.get(key)
    if found is None:
        parts = [str(part) for part in (dtype, size, detail or None) if part is not None]
        text = f"{operation}({', '.join(parts)})"
        found = text, _digest(text)
        if len(_calls) >= _KEPT:
            _calls.clear()
        _calls[key] = found
    return found


def _site(frame: FrameType) -> tuple[str, int]:
    """The user's line: of the innermost frame outside of the package, or of the recipe in ``launch``.

    A thread of distgrad's own has none; there it is the innermost line below the communicator.
    """
    at: FrameType | None = frame
    fallback = frame
    while at is not None:
        path = at.f_code.co_filename
        if not path.startswith(_PACKAGE) or path.startswith(_LAUNCH):
            if path != _THREADING:
                break
        elif fallback is frame and path != frame.f_code.co_filename:
            fallback = at
        at = at.f_back
    chosen = fallback if at is None else at
    key = (id(chosen.f_code), chosen.f_lasti)
    found = _sites.get(key)
    if found is None:
        text = f"{os.path.basename(chosen.f_code.co_filename)}:{chosen.f_lineno}"
        found = text, _digest(text), chosen.f_code
        if len(_sites) >= _KEPT:
            _sites.clear()
        _sites[key] = found
    return found[0], found[1]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

"""Metrics as JSON lines: one object a record, appended and complete at any moment, without repeats after a resume.

Floats that are not finite, which JSON does not have, are the texts ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, as in
Protocol Buffers' JSON mapping; pandas and most readers turn them back into numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import DistgradError

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsLog:
    """An append-only log of metrics. Ranks other than 0 write nothing.

    Args:
        path: the file, usually ``runs/NAME/metrics.jsonl``; its folder is made.
        rank: this process's rank.
        resume_step: ``None`` starts the log anew. A step keeps what was recorded up to and including that step, and
            drops later records and a last line that a killed process left torn: a resumed run will write them again.
            So write all records of a step before its checkpoint.

    Raises:
        DistgradError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, rank: int = 0, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None
        if rank != 0:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            os.ftruncate(self._descriptor, 0 if resume_step is None else self._end_of(resume_step))
        except OSError as error:
            self.close()
            raise self._cannot_write(error) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record; it is in the operating system's hands when this returns.

        Args:
            record: JSON's values and NumPy scalars; ``"step"``, an integer, says which records a resume keeps.

        Raises:
            DistgradError: the disk is full or the like; the log ends with the previous record.
            TypeError: a value that JSON has no form for.
        """
        if self._descriptor is None:
            return
        line = json.dumps(_plain(record), allow_nan=False).encode() + b"\n"
        end = os.fstat(self._descriptor).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            os.ftruncate(self._descriptor, end)
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Closes the file; closing twice is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_of(self, step: int) -> int:
        """Bytes up to the first record that is later than ``step`` or not whole."""
        end = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            record = _parse(line)
            if record is None or record.get("step", step) > step:
                break
            end += len(line)
        return end

    def _cannot_write(self, error: OSError) -> DistgradError:
        return DistgradError(f"cannot write {self.path}: {error.strerror}. Make room or make the place writable.")


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All whole records of a log, in order; a torn line at its end, of a killed or still writing process, is left out.

    Raises:
        DistgradError: the file cannot be read, or a line before the last is not a record.
    """
    try:
        lines = Path(path).read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise DistgradError(f"cannot read {path}: {error.strerror}.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise DistgradError(f"{path}, line {number}, is not a record: {line[:60]!r}. Remove the line.")
    return records


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return {key: _number(value) for key, value in record.items()} if isinstance(record, dict) else None


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _number(entry) for key, entry in value.items()}
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """NumPy scalars to Python's, floats that are not finite to text."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value

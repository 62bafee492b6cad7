"""Rows of numbers on disk by key: written once, read by every process of the host through the page cache.

    FOLDER/lock             its users hold it shared, so that nobody removes the folder under them
    FOLDER/0f3a91c2.rows    a header, then records of one size: key, checksum, values

A record counts when its checksum fits its key and values, and not before: what a killed writer left half done, what
another process is just writing and what a disk has garbled are alike not there. So nothing needs to be renamed or
flushed, and several writers need not know of each other: each appends to a file that it alone has locked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

KEY_BYTES = 32
_CHECK_BYTES = 16
_LINE = 64  # records begin and end at cache lines
_HEADER_BYTES = 512
_MAGIC = b"distgrad rows 1\n"
_SUFFIX = ".rows"
_LOCK = "lock"
_DOOMED = ".removed-"


class Places(NamedTuple):
    """Where rows lie: for each key the number of its source (-1: it is not there) and the row in it."""

    source: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Whether each key has its row."""
        return self.source >= 0


class FeatureStore:
    """Rows of one shape and dtype by 32-byte keys, in one folder that several processes may use at once.

    Without a folder, or where it cannot be written to, rows are kept in this process's memory: a warning says so once,
    and everything goes on. A row that is damaged on disk is not found, and may be added again.

    Args:
        folder: where the files are; made if it is missing. None: memory only.
        shape: of one row.
        dtype: of the values.

    Attributes:
        folder: the folder; None from the moment on that it turns out to be unusable for reading too.
        shape: of one row.
        dtype: of the values.
    """

    def __init__(self, folder: Path | None, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        self.folder = folder
        self.shape = tuple(int(side) for side in shape)
        self.dtype = np.dtype(dtype)
        values = int(np.prod(self.shape, dtype=np.int64))
        padded = -(-(values * self.dtype.itemsize) // _LINE) * _LINE
        self._record = np.dtype(
            {
                "names": ["key", "check", "values"],
                "formats": [f"V{KEY_BYTES}", f"V{_CHECK_BYTES}", (self.dtype, self.shape)],
                "offsets": [0, KEY_BYTES, _LINE],
                "itemsize": _LINE + padded,
            }
        )
        self._sources: list[Array] = []  # of records (n,), or of values (n, *shape) in memory
        self._known: dict[bytes, tuple[int, int]] = {}
        self._writer: int | None = None
        self._writer_end = 0
        self._writable = folder is not None
        self._shared: int | None = None
        if folder is not None:
            try:
                self._shared = _use(folder)
            except OSError as error:
                self.folder = None
                self._cannot_write(folder, error)

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the files back; closing twice is fine. Rows cannot be read any more."""
        for descriptor in (self._writer, self._shared):
            if descriptor is not None:
                os.close(descriptor)  # and with it the lock
        self._writer = self._shared = None
        self._sources.clear()
        self._known.clear()

    def locate(self, keys: Sequence[bytes]) -> Places:
        """Where the rows of ``keys`` are, as far as ``look_for`` and ``add`` have made them known."""
        nowhere = (-1, -1)
        found = [self._known.get(key, nowhere) for key in keys]
        pairs = np.array(found, dtype=np.int64).reshape(len(found), 2)
        return Places(pairs[:, 0].astype(np.int32), pairs[:, 1])

    def look_for(self, keys: Iterable[bytes]) -> None:
        """Searches the files for the rows of ``keys`` that are not known yet, those that others have added included."""
        wanted = {key for key in keys if key not in self._known}
        if self.folder is None or not wanted:
            return
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.suffix == _SUFFIX)
        except OSError as error:
            self._cannot_write(self.folder, error)
            return
        for path in paths:
            # A file that cannot be read, or that is no file of ours, has no rows.
            with contextlib.suppress(OSError, ValueError):
                self._search(path, wanted)

    def _search(self, path: Path, wanted: set[bytes]) -> None:
        with open(path, "rb") as file:
            if file.read(_HEADER_BYTES) != self._header():
                return
            count = (os.fstat(file.fileno()).st_size - _HEADER_BYTES) // self._record.itemsize
            if count <= 0:
                return
            records = np.memmap(file, self._record, "r", _HEADER_BYTES, (count,)).view(np.ndarray)
        keys = records["key"].tobytes()
        number = len(self._sources)
        for row in range(count):
            key = keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]
            if key in wanted and _check(key, records["values"][row]) == records["check"][row].tobytes():
                self._known[key] = (number, row)
                wanted.discard(key)
                if number == len(self._sources):
                    self._sources.append(records)

    def add(self, keys: Sequence[bytes], values: Array) -> None:
        """Adds the rows ``values`` (n, *shape) under ``keys``: on disk, or in memory where that fails.

        Rows that went to the disk are known after the next ``look_for``.

        Raises:
            ValueError: another shape or dtype, or keys of another length.
        """
        if values.shape != (len(keys), *self.shape) or values.dtype != self.dtype:
            raise ValueError(
                f"FeatureStore.add: {len(keys)} rows of {self.shape} {self.dtype} are needed, got an array "
                f"{values.shape} {values.dtype}"
            )
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"FeatureStore.add: keys have {KEY_BYTES} bytes, got {sorted({len(key) for key in keys})}")
        if not len(keys):
            return
        if self._writable and self._write(keys, values):
            return
        self.keep(keys, values)

    def keep(self, keys: Sequence[bytes], values: Array) -> None:
        """Adds the rows ``values`` (n, *shape) under ``keys`` in memory only."""
        number = len(self._sources)
        self._sources.append(np.array(values))
        self._known.update((key, (number, row)) for row, key in enumerate(keys))

    def _write(self, keys: Sequence[bytes], values: Array) -> bool:
        """Appends records to this process's file; False, after a warning, where the operating system refuses."""
        records = np.zeros(len(keys), self._record)
        records["key"] = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")
        records["values"] = values
        checks = b"".join(_check(key, row) for key, row in zip(keys, records["values"], strict=True))
        records["check"] = np.frombuffer(checks, f"V{_CHECK_BYTES}")
        assert self.folder is not None
        try:
            if self._writer is None:
                self._writer, self._writer_end = self._own_file(self.folder)
            rest = records.view(np.uint8).data
            written = 0
            while rest:
                written = os.pwrite(
                    self._writer, rest, self._writer_end + len(records) * self._record.itemsize - len(rest)
                )
                rest = rest[written:]
        except OSError as error:
            if self._writer is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._writer, self._writer_end)  # a full disk gets its bytes back
            self._cannot_write(self.folder, error)
            return False
        self._writer_end += len(records) * self._record.itemsize
        return True

    def _own_file(self, folder: Path) -> tuple[int, int]:
        """A file that this process alone appends to, locked, and where its whole records end."""
        for path in sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX):
            with contextlib.suppress(OSError):  # not ours to write, or a file system without locks: take another one
                descriptor = _locked(path, os.O_RDWR, fcntl.LOCK_EX)
                if descriptor is None:
                    continue
                with contextlib.ExitStack() as otherwise:
                    otherwise.callback(os.close, descriptor)
                    if os.pread(descriptor, _HEADER_BYTES, 0) != self._header():
                        path.unlink()  # no use to anybody; whoever has it mapped keeps it
                        continue
                    count = (os.fstat(descriptor).st_size - _HEADER_BYTES) // self._record.itemsize
                    # A record that a killed writer did not finish goes; whole ones, which others may have mapped, stay.
                    end = _HEADER_BYTES + count * self._record.itemsize
                    os.ftruncate(descriptor, end)
                    otherwise.pop_all()
                    return descriptor, end
        path = folder / f"{secrets.token_hex(8)}{_SUFFIX}"
        unnamed = path.with_suffix(".new")  # until it is locked and has its header, nobody else may take it up
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.pwrite(descriptor, self._header(), 0) < _HEADER_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            unnamed.rename(path)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                unnamed.unlink()
            raise
        return descriptor, _HEADER_BYTES

    def _header(self) -> bytes:
        what = {"shape": list(self.shape), "dtype": self.dtype.str, "record": self._record.itemsize}
        return (_MAGIC + json.dumps(what).encode() + b"\n").ljust(_HEADER_BYTES, b"\0")

    def rows(self, places: Places) -> Array:
        """The rows at ``places`` as a new array (n, *shape).

        Raises:
            KeyError: one of them is not there.
        """
        if len(places.source) and int(places.source.min()) < 0:
            raise KeyError("FeatureStore.rows: a row that was not found was asked for; locate and compute it first")
        out = np.empty((len(places.source), *self.shape), self.dtype)
        sources = np.unique(places.source).tolist()
        for number in sources:
            values = self._sources[number]
            if values.dtype.names is not None:
                values = values["values"]
            if len(sources) == 1:
                only: Array = values[places.row]
                return only
            mine = places.source == number
            out[mine] = values[places.row[mine]]
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of the files in the folder, 0 without one."""
        return 0 if self.folder is None else folder_bytes(self.folder)

    def _cannot_write(self, folder: Path, error: OSError) -> None:
        if self._writable:
            warnings.warn(
                f"the feature cache {folder} cannot be used ({error.strerror}): features are kept in memory and a "
                "later run computes them again. Make room, or choose another place with --features.folder.",
                stacklevel=4,
            )
        self._writable = False


def _check(key: bytes, values: Array) -> bytes:
    digest = hashlib.blake2b(key, digest_size=_CHECK_BYTES)
    digest.update(values.data)
    return digest.digest()


def _locked(path: Path, flags: int, lock: int) -> int | None:
    """A descriptor of ``path`` with ``lock``; None where somebody else holds it, or has just removed the file."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _use(folder: Path) -> int | None:
    """Makes ``folder`` and holds it against removal; None where it can only be read or has no locks."""
    for _ in range(100):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = _locked(folder / _LOCK, os.O_RDWR | os.O_CREAT, fcntl.LOCK_SH)
        except (FileNotFoundError, FileExistsError):
            if folder.exists() and not folder.is_dir():
                raise
            descriptor = None  # removed between two of these lines
        except OSError:
            if os.access(folder, os.R_OK | os.X_OK):
                return None
            raise
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.utime(descriptor)  # the last use, for make_room
            return descriptor
        time.sleep(0.02)  # whoever is removing it
    raise OSError(errno.EAGAIN, "it is removed again and again")


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of rows in ``folder`` and below it."""
    total = 0
    for path in folder.glob(f"**/*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def make_room(root: Path, limit: int) -> list[Path]:
    """Removes folders of rows below ``root``, the longest unused first, until the rest has at most ``limit`` bytes.

    Folders that any process uses stay, so that the limit may be exceeded while they do.

    Args:
        root: holds the folders.
        limit: bytes.

    Returns:
        What was removed.
    """
    ages = {}
    for lock in root.glob(f"[!.]*/{_LOCK}"):
        with contextlib.suppress(OSError):
            ages[lock.parent] = lock.stat().st_mtime_ns
    sizes = {folder: folder_bytes(folder) for folder in ages}
    excess = sum(sizes.values()) - limit
    removed = []
    for folder in sorted(ages, key=ages.__getitem__):
        if excess <= 0:
            break
        with contextlib.suppress(OSError):
            descriptor = _locked(folder / _LOCK, os.O_RDWR, fcntl.LOCK_EX)
            if descriptor is None:
                continue
            try:
                # First the name goes, so that nobody begins to use what is half removed.
                doomed = folder.with_name(f"{_DOOMED}{secrets.token_hex(8)}")
                folder.rename(doomed)
            finally:
                os.close(descriptor)
            removed.append(folder)
            excess -= sizes[folder]
    for doomed in root.glob(f"{_DOOMED}*"):  # those that a killed process left, too
        shutil.rmtree(doomed, ignore_errors=True)
    return removed

"""Decoded photos kept on disk as bytes, so that no later epoch, run or rank decodes them again.

An entry's name is a digest of the photo's file and of everything that decides what becomes of it. A file that is
replaced has another digest, so nothing is ever out of date; a photo that lies in two folders has one entry. An entry
appears whole or not at all, by renaming, so any number of ranks and runs may use one folder at the same time; two that
decode the same photo write the same bytes. What a crash or a bad disk has spoilt fails its checksum and is made anew.

Entries are read rather than mapped. A mapped file keeps a descriptor open for every photo of the batches in the making,
and one that shrinks under its reader, as on a network file system, kills the process. The pages that the system keeps
of a file are the same for both and for all ranks of a host.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import time
import uuid
import warnings
import zlib
from io import BufferedReader
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distgrad.errors import DataError

_MAGIC = b"dgphoto1"
_HEADER = struct.Struct(
    "<8sIIIII"
)  # magic, height, width, channels, checksum of the pixels, checksum of what is before
_UNFINISHED = ".unfinished-"
_DAY = 86_400.0


class PhotoCache:
    """A folder of decoded photos: uint8 arrays (H, W, C) of any size.

    An entry takes H * W * C bytes and 28 more: 150 KB at 224 x 224. Nothing is ever deleted; remove the folder to get
    the space back.

    Args:
        folder: where the entries are; made where it does not exist.

    Attributes:
        hits: entries found by this object.
        misses: entries looked for in vain, spoilt ones included.
        spoilt: entries found damaged.

    Raises ``DataError`` where the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"the photo cache {str(self.folder)!r} cannot be made ({error.strerror}): choose another folder"
            ) from error
        self.hits = self.misses = self.spoilt = 0
        self._lock = threading.Lock()
        self._writes = True
        self._remove_unfinished()

    def key(self, content: bytes, settings: str) -> str:
        """The name of the entry for a file's ``content``, treated as ``settings`` say."""
        digest = hashlib.blake2b(digest_size=20)
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
        digest.update(settings.encode())
        return digest.hexdigest()

    def get(self, key: str) -> npt.NDArray[np.uint8] | None:
        """The photo under ``key``, (H, W, C); None where there is none or it is damaged."""
        try:
            with open(self._path(key), "rb") as file:
                photo = _read(file)
        except OSError:
            photo = None
        except ValueError:
            photo = None
            with self._lock:
                self.spoilt += 1
        with self._lock:
            if photo is None:
                self.misses += 1
            else:
                self.hits += 1
        return photo

    def put(self, key: str, photo: npt.NDArray[np.uint8]) -> None:
        """Keeps ``photo``, (H, W, C), under ``key``.

        A disk that is full or read-only is no reason to stop training: a warning says so once, and nothing more is
        written.
        """
        if not self._writes:
            return
        pixels = np.ascontiguousarray(photo, np.uint8)
        head = _HEADER.pack(_MAGIC, *pixels.shape, zlib.crc32(pixels.data), 0)
        head = head[:-4] + zlib.crc32(head[:-4]).to_bytes(4, "little")
        path = self._path(key)
        unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(exist_ok=True)
            try:
                with open(unfinished, "wb") as file:
                    file.write(head)
                    file.write(pixels.data)
                os.replace(unfinished, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    unfinished.unlink()
                raise
        except OSError as error:
            with self._lock:
                first, self._writes = self._writes, False
            if first:
                warnings.warn(
                    f"the photo cache {str(self.folder)!r} takes no more entries ({error.strerror}): photos that are "
                    "not in it are decoded every time. Make room there, or choose another folder",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _remove_unfinished(self) -> None:
        """Removes what processes that were killed while they wrote have left; those at work are younger."""
        for path in self.folder.glob(f"??/{_UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _DAY:
                    path.unlink()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r}: {self.hits} hits, {self.misses} misses)"


def _read(file: BufferedReader) -> npt.NDArray[np.uint8]:
    """The photo in an open entry; ``ValueError`` where it is not whole."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise ValueError("the head is cut short")
    magic, height, width, channels, checksum, of_head = _HEADER.unpack(head)
    if magic != _MAGIC or of_head != zlib.crc32(head[:-4]):
        raise ValueError("the head is damaged")
    pixels = np.empty((height, width, channels), np.uint8)
    if file.readinto(pixels.reshape(-1).data) != pixels.size or zlib.crc32(pixels.data) != checksum:
        raise ValueError("the pixels are cut short or damaged")
    return pixels

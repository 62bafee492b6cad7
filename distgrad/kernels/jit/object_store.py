"""Compiled functions on disk, so that a process does not compile what an earlier one has.

A function takes 20 to 80 ms to write and compile, and 1 ms from here. It is known by a hash of all that it depends on;
with it lies a hash of its content, and what does not match is compiled again. A file appears whole or not at all;
without a place to write to, nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

# Files beyond this number are removed, the ones that were used longest ago first.
_MOST_FILES = 2000
_DIGEST = 32


def cache_folder() -> Path:
    """``$DISTGRAD_HOME/jit``, by default under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    home = os.environ.get("DISTGRAD_HOME")
    if home:
        return Path(home).expanduser() / "jit"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "distgrad" / "jit"


class ObjectStore:
    """Files of compiled functions.

    Args:
        folder: where they are; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tidied = False

    def read(self, key: str) -> bytes | None:
        """The function of this key; None where there is none, or where the file is damaged or somebody else's."""
        path = self._folder / f"{key}.o"
        try:
            if os.name == "posix" and path.stat().st_uid not in (os.getuid(), 0):
                return None
            content = path.read_bytes()
        except OSError:
            return None
        digest, data = content[:_DIGEST], content[_DIGEST:]
        return data if hashlib.sha256(data).digest() == digest else None

    def write(self, key: str, data: bytes) -> None:
        """Keeps a function, if possible."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                os.replace(name, self._folder / f"{key}.o")
            except OSError:
                os.unlink(name)
                raise
            if not self._tidied:
                self._tidied = True
                self._remove_oldest()

    def _remove_oldest(self) -> None:
        files = list(self._folder.glob("*.o"))
        if len(files) > _MOST_FILES:
            files.sort(key=lambda path: path.stat().st_mtime)
            for path in files[: len(files) - _MOST_FILES // 2]:
                path.unlink(missing_ok=True)

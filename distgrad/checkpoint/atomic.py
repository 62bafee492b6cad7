"""Files and folders that appear whole or not at all, also when the process is killed or the machine loses power.

The order is always the same: write beside the target, flush to the disk (``fsync``), rename over it, flush the folder
that holds the name. ``rename`` replaces a file or a symbolic link atomically, but not a folder that has content; so a
checkpoint gets a folder of its own, and a symbolic link that is replaced says which one counts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

TEMPORARY = ".tmp-"  # such names are leftovers of a killed process: never read, removed by the next writer

# What the operating system says when there is no room: disk, quota, `ulimit -f`.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def temporary(path: Path) -> Path:
    """The name beside ``path`` under which it is prepared."""
    return path.with_name(f"{TEMPORARY}{path.name}")


def write_folder(directory: Path, files: Mapping[str, bytes]) -> None:
    """Makes ``directory`` with ``files`` in it, atomically; ``directory`` must not exist.

    Raises:
        OSError: from the operating system; nothing is left behind.
    """
    prepared = temporary(directory)
    remove(prepared)
    prepared.mkdir()
    try:
        for name, content in files.items():
            _write(prepared / name, content)
        _flush_folder(prepared)
        os.rename(prepared, directory)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            remove(prepared)
        raise
    _flush_folder(directory.parent)


def write_file(path: Path, content: bytes) -> None:
    """Writes or replaces one file, atomically.

    Raises:
        OSError: from the operating system; a file that was there is untouched and nothing is left behind.
    """
    prepared = temporary(path)
    remove(prepared)
    try:
        _write(prepared, content)
        os.rename(prepared, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            remove(prepared)
        raise
    _flush_folder(path.parent)


def point(link: Path, target: str) -> None:
    """Makes ``link`` a symbolic link to ``target`` (relative to the link's folder), replacing a link atomically.

    Where a copy of the run has a folder in the link's place (``scp -r`` follows links), the folder gives way.

    Raises:
        OSError: from the operating system; a link that was there is untouched.
    """
    if link.is_dir() and not link.is_symlink():
        discard(link)
    prepared = temporary(link)
    remove(prepared)
    os.symlink(target, prepared)
    try:
        os.rename(prepared, link)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            remove(prepared)
        raise
    _flush_folder(link.parent)


def discard(directory: Path) -> None:
    """Removes a folder so that it is never seen half removed: it loses its name first."""
    doomed = temporary(directory)
    remove(doomed)
    os.rename(directory, doomed)
    remove(doomed)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all in it; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        # Without it a full disk may show only after the rename, and a power cut may leave an empty file.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)

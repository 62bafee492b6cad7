"""Memory that the processes of one host share: a file that all of them map and that has no name any more.

Not a window of MPI: that is memory for remote access first, and which of a library's transports can give it differs
from machine to machine. A mapped file is the same everywhere, and is gone when the last process that maps it is.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import CommunicationError
from .communicator import Array, Communicator

LINE = 64  # bytes of a cache line; the memory of each rank begins on one of its own
IN_MEMORY = Path("/dev/shm")  # a file system that never writes to a disk


def map_shared(host: Communicator, count: int, dtype: npt.DTypeLike) -> list[Array]:
    """Of each rank of ``host`` an array ``(count,)`` of zeros that all of them read and write. A collective.

    Args:
        host: ranks that are all on one host.
        count: elements for each rank, the same on every rank.
        dtype: of the elements.

    Raises:
        CommunicationError: on every rank, if one cannot map the memory (no room in /dev/shm and the temporary folder).
    """
    numbers = np.dtype(dtype)
    stride = -(-max(1, count * numbers.itemsize) // LINE) * LINE
    octets = stride * host.world_size
    made = _make(octets) if host.rank == 0 else {}
    made = json.loads(host.all_gather_bytes(json.dumps(made).encode())[0])
    problem, memory = made.get("problem"), None
    if problem is None:
        try:
            with open(made["path"], "r+b") as file:
                memory = mmap.mmap(file.fileno(), octets)
        except OSError as error:
            problem = str(error)
    problems = [text.decode() for text in host.all_gather_bytes((problem or "").encode())]
    if host.rank == 0 and "path" in made:
        os.unlink(made["path"])
    failed = next((rank for rank, text in enumerate(problems) if text), None)
    if failed is not None or memory is None:
        raise CommunicationError(
            f"rank {failed} cannot map {octets} bytes of memory that the {host.world_size} ranks of {host.hostname} "
            f"share: {problems[failed or 0]}. Make room in /dev/shm (docker run --shm-size) or name another "
            "folder by TMPDIR."
        )
    whole = np.frombuffer(memory, dtype=np.uint8)
    parts = (whole[rank * stride : rank * stride + count * numbers.itemsize] for rank in range(host.world_size))
    return [part.view(numbers) for part in parts]


def _make(octets: int) -> dict[str, str]:
    """A file of so many zero bytes that are really there: its path, or the problem."""
    problem = ""
    for folder in (IN_MEMORY, Path(tempfile.gettempdir())):
        try:
            number, path = tempfile.mkstemp(prefix="distgrad-", dir=folder)
        except OSError as error:
            problem = str(error)
            continue
        try:
            os.posix_fallocate(number, 0, octets)  # a file that is only promised would be a SIGBUS later
            return {"path": path}
        except OSError as error:
            problem = f"{folder}: {os.strerror(error.errno or errno.EIO)}"
            os.unlink(path)
        finally:
            os.close(number)
    return {"problem": problem}

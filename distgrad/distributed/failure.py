"""When one rank fails, all end: its failure is printed once, with its rank, and the job ends with a non-zero status.

Without this a rank that raises leaves the others waiting in a collective for ever, and ``MPI_Finalize`` would make even
the failed rank wait for them. Two entrances: ``install`` (by ``init`` under MPI) catches what nobody else has caught,
and ``guard`` around a program's main function also sees ``sys.exit``, which Python hides from an excepthook.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn

from ..errors import DistgradError
from .communicator import Communicator
from .environment import detect

# A failure that all ranks share (a wrong config) should be printed by rank 0 alone: the others give it this long, in
# seconds, to end the job, and the last of them half as much again. Its abort reaches them within about 0.3 s; but ranks
# start at different times, and on a busy machine one is behind the others.
HEAD_START = 1.0

# mpirun announces the abort by another way than it forwards what ranks print: seconds for the message to come first.
DRAIN = 0.05

INTERRUPTED = 130  # the shell's status for a program ended by Ctrl-C

_job: Communicator | None = None
_previous: tuple[Callable[..., object], Callable[..., object]] | None = None


def install(communicator: Communicator) -> None:
    """From now on an exception that nobody catches, in any thread of this process, ends all ranks.

    Args:
        communicator: the one to abort. Installing again replaces it.
    """
    global _job, _previous
    if _previous is None:
        _previous = (sys.excepthook, threading.excepthook)
    _job = communicator
    sys.excepthook = _on_uncaught
    threading.excepthook = _on_uncaught_in_thread


def uninstall() -> None:
    """Puts back the hooks that were there before ``install``."""
    global _job, _previous
    if _previous is not None:
        sys.excepthook, threading.excepthook = _previous
    _job = _previous = None


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Around the main function of a program that runs on all ranks: however one rank fails inside, all end.

    An exception is printed once with its rank and its traceback; a ``DistgradError`` as its message alone, unless the
    environment variable ``DISTGRAD_TRACEBACK`` is set to something other than 0; ``sys.exit`` with a status other than
    0 and Ctrl-C (status 130) end all ranks too. In a single process the same is printed without a rank, and SystemExit
    is raised with the status; a bug keeps Python's own traceback. Inside a thread (a rank of ``threads.run``) it does
    nothing: exceptions belong to whoever started the thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit as leaving:
        if _job is None or leaving.code is None or leaving.code == 0:
            raise
        _end(leaving)
    except BaseException as error:
        if _identity() is None and not isinstance(error, DistgradError | KeyboardInterrupt):
            raise
        _end(error)


def describe(error: BaseException) -> str:
    """What is printed about ``error``, without a newline at its end: a sentence for the user, or the traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        return f"exited with status {error.code}" if isinstance(error.code, int) else str(error.code)
    if isinstance(error, DistgradError) and os.environ.get("DISTGRAD_TRACEBACK", "0") in ("", "0"):
        return "\n".join([f"error: {error}", *getattr(error, "__notes__", ())])
    return "".join(traceback.format_exception(error)).rstrip("\n")


def _status(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code & 0xFF or 1  # what a process can report; 256 must not look like success
    return 1


def _identity() -> tuple[int, int, str] | None:
    """Rank, world size and host; None for a process on its own."""
    if _job is not None:
        return _job.rank, _job.world_size, _job.hostname
    launcher = detect()
    if launcher is None or launcher.rank is None:
        return None
    return launcher.rank, launcher.world_size or launcher.rank + 1, os.uname().nodename


def _end(error: BaseException) -> NoReturn:
    """Prints ``error`` unless another rank ends the job first, and ends it."""
    identity = _identity()
    prefix = ""
    if identity is not None:
        rank, world_size, host = identity
        prefix = f"[rank {rank} on {host}] "
        if rank > 0:
            time.sleep(HEAD_START * (1 + 0.5 * rank / world_size))
    with contextlib.suppress(Exception):  # a closed stream must not keep the other ranks alive
        sys.stdout.flush()
        sys.stderr.write(f"{prefix}{describe(error)}\n")  # one write, so that ranks do not mix their lines
        sys.stderr.flush()
    if _job is not None:
        time.sleep(DRAIN)
        _job.abort(_status(error))
    raise SystemExit(_status(error)) from None


def _on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _end(error)


def _on_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _end(args.exc_value)

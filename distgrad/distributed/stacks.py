"""Where the threads of a rank are: for people, for the watchdog, and of a process whose interpreter answers no more.

A process that holds its interpreter lock in C, or is stopped, cannot say where it is. Another process of the same user
on the same host can find out: the system tells its state, and a signal makes ``faulthandler``, which needs no lock,
write the stacks into memory that both can read.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Iterable
from types import FrameType
from typing import NamedTuple

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PACKAGE = os.path.dirname(os.path.dirname(_HERE)) + os.sep
_LAUNCH = os.path.join(_PACKAGE, "launch") + os.sep
_LIBRARIES = tuple(
    {os.path.abspath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)

_MEMORY_NAME = "distgrad-stacks"  # other processes check it before they send the signal, which would end a stranger

_STATES = {"T": "stopped by a signal", "t": "stopped by a debugger", "D": "in a system call"}


def position(frame: FrameType | None) -> str:
    """The line that ``frame`` is at, "loader.py:88 (__next__), called from train.py:20 (main)".

    Frames of the standard library, of installed packages and of ``distgrad.distributed`` are left out as long as there
    is another; the caller is the innermost frame outside of distgrad, and is left out where it is the same.
    """
    first = own = None
    innermost = frame
    while frame is not None:
        path = frame.f_code.co_filename
        in_package = path.startswith(_PACKAGE)
        if first is None and not path.startswith(_HERE) and (in_package or not _is_library(path)):
            first = frame
        if not _is_library(path) and (not in_package or path.startswith(_LAUNCH)):
            own = frame
            break
        frame = frame.f_back
    if first is None:
        first = innermost
    if first is None:
        return "an unknown place"
    return _place(first) if own is None or own is first else f"{_place(first)}, called from {_place(own)}"


def _is_library(path: str) -> bool:
    return path.startswith("<") or (path.startswith(_LIBRARIES) and not path.startswith(_PACKAGE))


def _place(frame: FrameType) -> str:
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} ({frame.f_code.co_name})"


def position_of(thread: int) -> str:
    """Where the thread of that identifier is; see :func:`position`."""
    return position(sys._current_frames().get(thread))


def stacks(threads: Iterable[int] | None = None) -> str:
    """The Python stacks of threads, as a traceback shows them.

    Args:
        threads: their identifiers; default: all of this process but those of the watchdog.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    chosen = list(threads) if threads is not None else [i for i in frames if "watchdog" not in names.get(i, "")]
    main = threading.main_thread().ident
    texts = []
    for identifier in sorted(chosen, key=lambda i: i != main):
        frame = frames.get(identifier)
        lines = "".join(traceback.format_stack(frame)) if frame is not None else "  (it has ended)\n"
        texts.append(f"thread {names.get(identifier, identifier)}:\n{lines}")
    return "".join(texts)


# ---- Of a process that does not answer


class Readable(NamedTuple):
    """What another process needs to look at this one.

    Attributes:
        pid: of the process.
        file: descriptor of the memory that its stacks are written to; -1: there is none.
        number: the signal that makes it do so.
    """

    pid: int
    file: int
    number: int


class Seen(NamedTuple):
    """What could be found out about a process.

    Attributes:
        state: a clause, "is stopped by a signal"; "" if the system says nothing remarkable.
        place: "train.py:20 (step)", or "".
        stack: what faulthandler wrote, or "".
    """

    state: str
    place: str
    stack: str


_readable: Readable | None = None


def make_readable() -> Readable:
    """Prepares this process to be looked at; again: what was prepared."""
    global _readable
    if _readable is None or _readable.pid != os.getpid():
        file, number = -1, 0
        with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):  # not Linux; no such signal
            number = signal.SIGRTMIN + 9
            if signal.getsignal(number) == signal.SIG_DFL:
                file = os.memfd_create(_MEMORY_NAME)
                faulthandler.register(number, file=file, all_threads=True, chain=False)
        _readable = Readable(os.getpid(), file, number)
    return _readable


def look_at(process: Readable, patience: float = 0.5) -> Seen:
    """What can be found out about another process of this user on this host.

    Args:
        process: what it said about itself.
        patience: seconds that its stacks may take.
    """
    if process.pid == os.getpid():  # ranks are threads
        return Seen("", "", "")
    state = _state(process.pid)
    if state == "":  # of a container that has the same host name, and numbers of its own
        return Seen("", "", "")
    if state in ("Z", "X"):
        return Seen("is dead", "", "")
    clause = f"is {_STATES[state]}" if state in _STATES else ""
    path = f"/proc/{process.pid}/fd/{process.file}"
    try:
        if process.file < 0 or state in ("T", "t") or _MEMORY_NAME not in os.readlink(path):
            return Seen(clause, "", "")
        before = os.stat(path).st_size
        os.kill(process.pid, process.number)
        text, deadline = "", time.monotonic() + patience
        while time.monotonic() < deadline:
            time.sleep(0.02)
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(before)
                written = file.read()
            if written and written == text:
                break
            text = written
    except OSError:
        return Seen(clause, "", "")
    return Seen(clause, _place_in(text), text.rstrip("\n"))


def _state(pid: int) -> str:
    """One letter, as ``ps`` shows it; "" if there is no such process, "?" where the system does not tell."""
    if not os.path.isdir("/proc/self"):
        return "?"
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
    except (OSError, IndexError):
        return "?"


def _place_in(text: str) -> str:
    """The line that the thread holding the lock is at; of the main thread, if none is marked."""
    threads = re.split(r"\n\n", text)
    current = [thread for thread in threads if thread.startswith("Current thread")] or threads[-1:]
    lines = re.findall(r'File "(.*)", line (\d+) in (\S+)', "\n".join(current))
    chosen = next((line for line in lines if not _is_library(line[0]) and not line[0].startswith(_HERE)), None)
    if chosen is None and lines:
        chosen = lines[0]
    return "" if chosen is None else f"{os.path.basename(chosen[0])}:{chosen[1]} ({chosen[2]})"

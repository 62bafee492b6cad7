"""Where threads are, and where a process is that does not answer."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import distgrad
from distgrad.distributed.stacks import Readable, Seen, look_at, make_readable, position, position_of, stacks

pytestmark = pytest.mark.timeout(60)


def test_the_position_is_the_users_line_not_that_of_the_library() -> None:
    waiting: queue.Queue[None] = queue.Queue()
    started = threading.Event()

    def consume() -> None:
        started.set()
        waiting.get()  # deep inside queue.py and threading.py

    worker = threading.Thread(target=consume, name="consumer", daemon=True)
    worker.start()
    started.wait(10)
    time.sleep(0.05)
    assert worker.ident is not None
    source = Path(__file__).read_text().splitlines()
    number = next(n for n, line in enumerate(source, 1) if line.endswith("# deep inside queue.py and threading.py"))
    assert position_of(worker.ident) == f"test_stacks.py:{number} (consume)"
    text = stacks([worker.ident])
    assert text.startswith("thread consumer:\n") and "waiting.get()" in text and "in wait" in text
    everything = stacks()
    assert everything.startswith("thread MainThread:\n") and "thread consumer:" in everything
    waiting.put(None)
    worker.join(10)
    assert position_of(worker.ident) == position(None) == "an unknown place"
    assert "(it has ended)" in stacks([worker.ident])


def test_inside_the_package_the_caller_is_named_too() -> None:
    """As for a loader that is waited for: its line, and the one of the program that called it."""
    import distgrad.registry as inside

    frames: list[str] = []
    scope = {"__name__": "distgrad.made_up"}
    path = str(Path(inside.__file__).with_name("made_up.py"))
    exec(compile("def __next__(look):\n    look()\n", path, "exec"), scope)
    scope["__next__"](lambda: frames.append(position(sys._getframe(1))))  # type: ignore[operator]
    (found,) = frames
    assert found.startswith("made_up.py:2 (__next__), called from test_stacks.py:")


# ---- Another process

CHILD = """
import json, signal, sys, time
from distgrad.distributed.stacks import make_readable
print(json.dumps(make_readable()), flush=True)
def hold():
    sum(range(10**12))
def nap():
    time.sleep(60)
{what}()
"""


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.wait()


def start(children: list[subprocess.Popen[str]], what: str, tmp_path: Path) -> Readable:
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(what=what))
    root = str(Path(distgrad.__file__).parent.parent)
    child = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    children.append(child)
    assert child.stdout is not None
    readable = Readable(*json.loads(child.stdout.readline()))
    time.sleep(0.2)
    return readable


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the stacks of another process can be seen on Linux only")
def test_a_process_that_holds_its_lock_or_is_stopped_or_dead(
    children: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    readable = start(children, "hold", tmp_path)
    for _ in range(2):  # again: only what is new
        seen = look_at(readable, patience=5.0)
        assert seen.state == "" and seen.place == "child.py:6 (hold)"
        assert seen.stack.count("in hold") == 1 and "most recent call first" in seen.stack
    os.kill(readable.pid, signal.SIGSTOP)
    time.sleep(0.1)
    assert look_at(readable) == Seen("is stopped by a signal", "", "")
    os.kill(readable.pid, signal.SIGKILL)
    time.sleep(0.1)
    assert look_at(readable) == Seen("is dead", "", "")  # a zombie
    children[0].wait()
    assert look_at(readable) == Seen("", "", "")  # nothing is known about a number that nobody has


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the stacks of another process can be seen on Linux only")
def test_no_signal_to_a_stranger(children: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    """A number that another process has by now, or one of another container: the signal would end it."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    children.append(stranger)  # type: ignore[arg-type]
    assert look_at(Readable(stranger.pid, 1, make_readable().number)) == Seen("", "", "")
    assert look_at(Readable(stranger.pid, 77, make_readable().number)) == Seen("", "", "")
    time.sleep(0.1)
    assert stranger.poll() is None


def test_this_process_is_prepared_once() -> None:
    first = make_readable()
    assert make_readable() is first and first.pid == os.getpid()
    assert look_at(first) == Seen("", "", "")  # ranks that are threads of one process

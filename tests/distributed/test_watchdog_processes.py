"""Processes that are stuck, stopped or killed under a real mpirun: who is named, where, and that the job ends.

Few jobs, since each takes seconds: several ranks are broken in one, each in its own way.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import distgrad

pytestmark = pytest.mark.timeout(60)

Runner = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAM = """
import os, signal, time
import numpy as np
from distgrad import distributed
from distgrad.distributed.collective_log import labelled

distributed.init()
rank = distributed.rank()

def sleep():
    time.sleep(60)  # sleep

def hold():
    sum(range(10**12))  # hold

def stop():
    os.kill(os.getpid(), signal.SIGSTOP)  # stop

def kill():
    time.sleep(0.5)  # the others wait by now, and it has told where it is
    os.kill(os.getpid(), signal.SIGKILL)  # kill

def other():
    distributed.all_reduce(np.ones(100, dtype=np.int32))  # other

for step in range(400):
    with labelled(f"step {step}"):
        fault = FAULTS.get(rank) if step == 10 else None
        if fault is not None:
            globals()[fault]()
        if fault != "other":
            distributed.all_reduce(np.ones(100, dtype=np.float32))  # right
    if step >= 10:
        time.sleep(0.01)
"""


@pytest.fixture
def run(run_ranks: Runner, tmp_path: Path) -> Runner:
    def run(ranks: int, faults: dict[int, str], **environ: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "train.py"
        script.write_text(f"FAULTS = {faults}\n{PROGRAM.lstrip()}")
        root = str(Path(distgrad.__file__).parent.parent)
        started = time.monotonic()
        done = run_ranks(ranks, script, timeout=40, PYTHONPATH=root, **environ)
        assert time.monotonic() - started < 30
        return done

    return run


def place(comment: str, function: str = "") -> str:
    """The line of train.py with that comment."""
    lines = ["FAULTS", *PROGRAM.lstrip().splitlines()]
    (number,) = [n for n, line in enumerate(lines, 1) if line.endswith(f"# {comment}")]
    return f"train.py:{number}" + (f" ({function or comment})" if function != "-" else "")


def test_a_sleeping_a_stopped_and_a_stuck_process(run: Runner) -> None:
    done = run(4, {1: "sleep", 2: "hold", 3: "stop"}, DISTGRAD_TIMEOUT="1")
    assert done.returncode != 0
    printed = done.stderr
    assert "all_reduce #10 (step 10) of world, all_reduce(float32, 100), has outlasted its limit of 1 s" in printed
    missing = r"rank {} on \S+ has not entered all_reduce #10 \(step 10\)"
    assert re.search(missing.format(1) + f"; it is in {re.escape(place('sleep'))}", printed)
    assert re.search(
        missing.format(2)
        + r": it seems to hold the interpreter lock and has not answered for [\d.]+ s; it was last seen in "
        f"{re.escape(place('hold'))}",
        printed,
    )
    assert re.search(missing.format(3) + r": it is stopped by a signal and has not answered", printed)
    assert f"rank 0 waits in it at {place('right', '-')}" in printed
    for rank in (0, 1):  # those that answer print their stacks
        assert re.search(rf"\[rank {rank} on [^\]]+\] watchdog: where this rank is", printed)
    assert re.search(r"\[rank 2 on \S+\] does not answer; its stacks, as another process could see them:\n", printed)
    assert f'File "{place("hold", "-").partition(":")[0]}' in printed or "in hold" in printed


def test_rank_0_is_stuck_and_the_others_find_out(run: Runner) -> None:
    done = run(3, {0: "hold"}, DISTGRAD_TIMEOUT="1")
    assert done.returncode != 0
    printed = done.stderr
    assert re.search(r"\[rank 1 on [^\]]+\] watchdog: all_reduce #10 \(step 10\) of world, .* outlasted", printed)
    assert f"rank 1 waits in it at {place('right', '-')}" in printed
    assert re.search(r"rank 0 on \S+, which judges, has not answered for [\d.]+ s; it seems to hold the", printed)
    assert f"interpreter lock in {place('hold')}" in printed
    for rank in (1, 2):
        assert re.search(rf"\[rank {rank} on [^\]]+\] watchdog: where this rank is", printed)


def test_a_process_that_is_killed(run: Runner) -> None:
    done = run(3, {2: "kill"}, DISTGRAD_TIMEOUT="1.5")
    assert done.returncode != 0
    assert re.search(
        r"\[rank 0 on [^\]]+\] watchdog: rank 2 on \S+ is dead: its process has ended without a word"
        rf".* in {re.escape(place('the others wait by now, and it has told where it is', 'kill'))}",
        done.stderr,
    )


def test_a_mismatch_that_mpi_swallows_is_found_in_passing(run: Runner) -> None:
    """int32 and float32 of the same size: MPI adds up the bits, and every rank goes on with garbage."""
    done = run(3, {2: "other"}, DISTGRAD_TIMEOUT="5")
    assert done.returncode != 0
    assert (
        f"rank 0 called all_reduce(float32, 100) at {place('right', '-')} but rank 2 called all_reduce(int32, 100) at "
        f"{place('other', '-')}, as collective #10" in done.stderr
    )

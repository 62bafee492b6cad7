"""One rank fails and the whole job ends: programs under a real mpirun, judged by what they print and their status."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import distgrad
from distgrad import distributed
from distgrad.distributed import failure, threads
from distgrad.errors import ConfigError, DistgradError

pytestmark = pytest.mark.timeout(60)

Runner = Callable[..., "subprocess.CompletedProcess[str]"]

WITH_INIT = """
import sys, threading
import numpy as np
from distgrad import distributed
from distgrad.distributed import failure
from distgrad.errors import ConfigError
distributed.init()
rank = distributed.rank()
distributed.barrier()
"""


@pytest.fixture
def run_script(run_ranks: Runner, tmp_path: Path) -> Runner:
    def run(ranks: int, program: str, **environ: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "program.py"
        script.write_text(program)
        # The package that is being tested, whether or not it is installed.
        return run_ranks(ranks, script, timeout=50, PYTHONPATH=str(Path(distgrad.__file__).parent.parent), **environ)

    return run


def lines_of_ranks(done: subprocess.CompletedProcess[str]) -> list[str]:
    # Open MPI ends its own announcements with a NUL, which then begins our line.
    return [line.strip("\0") for line in done.stderr.splitlines() if "[rank " in line]


def test_a_rank_that_raises_prints_its_traceback_once_and_ends_all(run_script: Runner) -> None:
    """The others wait in an all-reduce, or compute without end, and are ended there."""
    done = run_script(
        3,
        WITH_INIT
        + """
def step():
    raise ValueError("boom on one rank")
print("said before", flush=False)
if rank == 1:
    step()
while rank == 2:
    pass
distributed.all_reduce(np.zeros(3))
""",
    )
    assert done.returncode != 0
    (line,) = lines_of_ranks(done)
    assert line.startswith("[rank 1 on ") and line.endswith("] Traceback (most recent call last):")
    assert done.stderr.count("Traceback") == 1 and done.stderr.count("ValueError: boom on one rank") == 1
    assert "in step" in done.stderr
    assert "said before" in done.stdout  # what rank 1 had printed is not lost


def test_an_error_that_all_ranks_share_is_printed_by_rank_0_without_traceback(run_script: Runner) -> None:
    done = run_script(3, WITH_INIT + "raise ConfigError('run.toml: lr is -1, must be above 0')")
    assert done.returncode != 0
    # on a busy machine the watchdog of another rank may also say that rank 0 has gone
    (line,) = [line for line in lines_of_ranks(done) if "watchdog:" not in line]
    assert line.startswith("[rank 0 on ") and line.endswith("] error: run.toml: lr is -1, must be above 0")
    assert "Traceback" not in done.stderr


def test_an_exception_in_a_thread_ends_all(run_script: Runner) -> None:
    done = run_script(
        2,
        WITH_INIT
        + """
if rank == 1:
    worker = threading.Thread(target=lambda: 1 // 0)
    worker.start()
distributed.barrier()
distributed.barrier()
""",
    )
    assert done.returncode != 0
    (line,) = lines_of_ranks(done)
    assert line.startswith("[rank 1 on ") and "ZeroDivisionError" in done.stderr


def test_guard_ends_all_ranks_when_one_exits(run_script: Runner) -> None:
    done = run_script(
        2,
        WITH_INIT
        + """
with failure.guard():
    if rank == 1:
        sys.exit(3)
    distributed.barrier()
""",
    )
    assert done.returncode == 3
    (line,) = lines_of_ranks(done)
    assert line.startswith("[rank 1 on ") and line.endswith("] exited with status 3")


def test_guard_before_init_names_the_rank_and_ends_all(run_script: Runner) -> None:
    done = run_script(
        3,
        """
import os
from distgrad import distributed
from distgrad.distributed import failure
from distgrad.errors import ConfigError
with failure.guard():
    if os.environ["OMPI_COMM_WORLD_RANK"] == "2":
        raise ConfigError("no such config")
    distributed.init()  # waits for all ranks
""",
    )
    assert done.returncode != 0
    (line,) = lines_of_ranks(done)
    assert line.startswith("[rank 2 on ") and line.endswith("] error: no such config")


def test_a_job_that_ends_well_ends_with_0(run_script: Runner) -> None:
    done = run_script(
        3,
        WITH_INIT
        + """
with failure.guard():
    total = np.array([rank + 1.0])
    distributed.all_reduce(total)
    sys.exit(0 if total[0] == 6 else 9)
""",
    )
    assert (done.returncode, lines_of_ranks(done)) == (0, [])


def test_abort_gives_the_job_its_status(run_script: Runner) -> None:
    done = run_script(2, WITH_INIT + "distributed.abort(5) if rank == 1 else distributed.barrier()")
    assert done.returncode == 5


def test_guard_in_a_single_process(run_script: Runner) -> None:
    def guarded(statement: str) -> subprocess.CompletedProcess[str]:
        return run_script(
            1,
            f"""
import sys
from distgrad.distributed import failure
from distgrad.errors import ConfigError
with failure.guard():
    {statement}
""",
        )

    done = guarded("raise ConfigError('lr is -1')")
    assert (done.returncode, done.stderr) == (1, "error: lr is -1\n")
    done = guarded("raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    done = guarded("raise ValueError('a bug')")
    assert done.returncode == 1 and done.stderr.startswith("Traceback") and "[rank" not in done.stderr
    done = guarded("sys.exit(7)")
    assert (done.returncode, done.stderr) == (7, "")
    assert guarded("pass").returncode == 0


# ---- Without mpirun: a communicator that only notes how it was aborted


class Noted(distributed.SingleCommunicator):
    world_size = 2

    def __init__(self) -> None:
        self.codes: list[int] = []

    def abort(self, code: int = 1) -> None:  # type: ignore[override]
        self.codes.append(code)


@pytest.fixture
def noted() -> Iterator[Noted]:
    communicator = Noted()
    failure.install(communicator)
    yield communicator
    failure.uninstall()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("x"), 1),
        (DistgradError("x"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(2), 2),
        (SystemExit(256), 1),
        (SystemExit("no"), 1),
    ],
)
def test_status_of_the_job(noted: Noted, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, failure.guard():
        raise error
    assert noted.codes == [code] and ended.value.code == code
    assert capsys.readouterr().err.startswith(f"[rank 0 on {noted.hostname}] ")


@pytest.mark.parametrize("status", [None, 0])
def test_leaving_with_success_is_no_failure(noted: Noted, status: int | None) -> None:
    with pytest.raises(SystemExit), failure.guard():
        raise SystemExit(status)
    assert noted.codes == []


def test_hooks_are_put_back() -> None:
    before = (sys.excepthook, threading.excepthook)
    failure.install(Noted())
    failure.install(Noted())
    assert sys.excepthook is not before[0] and threading.excepthook is not before[1]
    failure.uninstall()
    assert (sys.excepthook, threading.excepthook) == before
    failure.uninstall()
    assert (sys.excepthook, threading.excepthook) == before


@pytest.mark.parametrize("shown", ["", "0", "1"])
def test_what_is_printed(monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    monkeypatch.setenv("DISTGRAD_TRACEBACK", shown)
    error = ConfigError("lr is -1")
    error.add_note("in run.toml, line 3")
    if shown == "1":
        assert failure.describe(error).endswith("distgrad.errors.ConfigError: lr is -1\nin run.toml, line 3")
    else:
        assert failure.describe(error) == "error: lr is -1\nin run.toml, line 3"
    assert failure.describe(ValueError("a bug")) == "ValueError: a bug"
    assert failure.describe(SystemExit("no space")) == "no space"
    assert failure.describe(SystemExit(2)) == "exited with status 2"
    assert failure.describe(KeyboardInterrupt()) == "interrupted"


def test_guard_leaves_exceptions_of_simulated_ranks_alone() -> None:
    def body() -> None:
        with failure.guard():
            raise ConfigError("lr is -1")

    with pytest.raises(ConfigError, match="lr is -1"):
        threads.run(2, body)

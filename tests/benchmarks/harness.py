"""What the benchmarks share: libraries measured against each other in processes that take turns.

A benchmark is a script beside this file. Its ``subjects(library)`` gives the cases of one library as ``Case`` objects;
``Worker`` runs that in a process of its own, with one thread and pinned to one core, and keeps it alive, imported and
warm. ``compare`` lets the workers measure in turn, round after round, so that a change of the machine's speed meets
all of them, and gives the ratio within each round: its median and quartiles.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in THREADS} | {"CPU_COUNT": "1"}  # the last is tinygrad's
LONG = 0.1  # seconds of a run from which on cold caches at its start do not matter
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # the library chooses its own kernels
DISTRIBUTIONS = ("distgrad", "numpy", "torch", "autograd", "mygrad", "tinygrad")


class Unavailable(Exception):
    """A library cannot be measured here; the message says why."""


@dataclass
class Case:
    """One thing to measure, made by a library.

    Args:
        run: does it once.
        operations: how many operations that is; times are given for one of them.
        values: what ``run`` computes, as nested lists, to be equal among the libraries; None where there is nothing.
    """

    run: Callable[[], Any]
    operations: int = 1
    values: Callable[[], list[Any]] | None = None


@dataclass
class Timing:
    """One measurement: seconds for one ``run``, on the clock and on the processor."""

    wall: float
    cpu: float


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a process that is measured: one thread, and nothing that turns a library's own choices off."""
    return {name: value for name, value in os.environ.items() if name not in UNSET} | ONE_THREAD | dict(environ or {})


class Worker:
    """A process that has one library imported and measures its cases when it is told to.

    Args:
        script: the benchmark whose ``subjects`` it calls.
        library: what it passes to ``subjects``.
        core: the core that it is pinned to, where the system can do that; None leaves it free.
        environ: variables set before Python starts, besides ``ONE_THREAD``; those of ``UNSET`` are taken away.

    Raises:
        Unavailable: by the first request, where ``subjects`` raised it or ImportError.
    """

    def __init__(
        self, script: Path, library: str, core: int | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._command = [sys.executable, __file__, str(script), library, "" if core is None else str(core)]
        self._environment = environment(environ)
        self.cases: dict[str, int] = {}  # and how many operations each is
        self.process = self._launch()

    def _launch(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True, env=self._environment)

    def start(self) -> None:
        """Waits until the library is imported and fills ``cases``."""
        answer = self._read(600)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        self.cases = answer["cases"]

    def ask(self, request: str, case: str, *arguments: Any, limit: float = 600) -> Any:
        """Sends one request and waits for its answer.

        Raises:
            Unavailable: the worker failed at it, took longer than ``limit`` seconds or is gone.
        """
        pipe = self.process.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps([request, case, *arguments]) + "\n")
            pipe.flush()
        except OSError as error:
            raise Unavailable(f"its process is gone ({error})") from None
        answer = self._read(limit)
        if "failed" in answer:
            raise Unavailable(answer["failed"])
        return answer["answer"]

    def _read(self, limit: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        watch = threading.Timer(limit, self.process.kill)
        watch.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            status = self.process.wait()
            raise Unavailable(f"not finished in {limit:.0f} s" if status == -9 else f"its process ended with {status}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def time(self, case: str, number: int, warm: bool = True) -> Timing:
        """Runs ``case`` ``number`` times, after once for the caches where it is to be ``warm``; seconds for one."""
        return Timing(*self.ask("time", case, number, warm))

    def revive(self) -> None:
        """Starts the process anew where it has ended, such as by a limit; ``cases`` stays as it is."""
        if self.process.poll() is not None:
            self.stop()
            self.process = self._launch()
            self._read(600)

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def serve(script: Path, library: str, core: str) -> None:
    """What a worker runs: answers one line of JSON for each that comes in."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    if core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    try:
        cases: dict[str, Case] = load(script).subjects(library)
    except (ImportError, Unavailable) as error:
        missing = isinstance(error, ModuleNotFoundError) and not library.startswith("distgrad")
        reason = "not installed" if missing else str(error)
        answer(unavailable=reason)
        return
    answer(cases={name: case.operations for name, case in cases.items()})
    for line in sys.stdin:
        request, name, *arguments = json.loads(line)
        try:
            answer(answer=_REQUESTS[request](cases[name], *arguments))
        except Exception as error:
            answer(failed=f"{type(error).__name__}: {error}".splitlines()[0])


def load(script: Path) -> ModuleType:
    """The module of the benchmark at ``script``."""
    sys.path.insert(0, str(script.parent))
    specification = importlib.util.spec_from_file_location(script.stem, script)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[script.stem] = module
    specification.loader.exec_module(module)
    return module


def _values(case: Case) -> list[Any] | None:
    return None if case.values is None else case.values()


def _calibrate(case: Case, seconds: float) -> tuple[int, float]:
    """How many runs take about ``seconds``, after what the first ones have to set up, and the seconds of one run."""
    case.run()
    number, taken = 1, 0.0
    while True:
        taken = _time(case, number, number > 1)[0] * number
        if taken >= seconds / 4 or number >= 1 << 20:
            return max(1, round(number * seconds / taken)), taken / number
        number *= 4


def _time(case: Case, number: int, warm: bool) -> tuple[float, float]:
    run = case.run
    if warm:
        run()  # brings code and data back into the caches, which another process has used meanwhile
    repeats = [None] * number
    cpu = time.process_time()
    wall = time.perf_counter()
    for _ in repeats:
        run()
    return (time.perf_counter() - wall) / number, (time.process_time() - cpu) / number


def _run(case: Case) -> Any:
    return case.run()


_REQUESTS: dict[str, Callable[..., Any]] = {"run": _run, "values": _values, "calibrate": _calibrate, "time": _time}


# ------------------------------------------------------------------------------------------------------- the comparison


@dataclass
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of ``values``, at least one."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def scaled(self, factor: float) -> Spread:
        """All three times ``factor``."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}-{self.high:.3g}]"


@dataclass
class Result:
    """What ``compare`` found for one case: seconds an operation of each library, and the ratio of ours to theirs."""

    case: str
    operations: int
    seconds: dict[str, Spread] = field(default_factory=dict)
    ratio: dict[str, Spread] = field(default_factory=dict)  # of the first library to each other one
    times: dict[str, list[float]] = field(default_factory=dict)  # seconds of one run in each round
    skipped: dict[str, str] = field(default_factory=dict)
    busy: float = 1.0  # the share of the time on the clock in which the processor worked for the workers


def compare(
    workers: Mapping[str, Worker],
    case: str,
    *,
    rounds: int = 15,
    seconds: float = 0.02,
    clock: str = "cpu",
    patience: float = 60,
) -> Result:
    """Measures ``case`` in all ``workers``, in turn.

    Args:
        workers: by library; the first one is ours.
        case: the case's name; a worker that lacks it is left out.
        rounds: how often each is measured.
        seconds: how long one measurement takes, as far as whole runs allow.
        clock: "wall", or "cpu" for the processor's time, which other programs on the machine disturb less.
        patience: seconds that the set-up of a library may take, such as compiling, before it is left out.
    """
    ours, *others = workers
    operations = workers[ours].cases[case]
    result = Result(case, operations)
    numbers: dict[str, int] = {}
    long: dict[str, float] = {}
    for library, worker in workers.items():
        if case not in worker.cases:
            continue
        try:
            numbers[library], long[library] = worker.ask("calibrate", case, seconds, limit=patience)
        except Unavailable as error:
            result.skipped[library] = str(error)
            worker.revive()
    taken: dict[str, list[Timing]] = {library: [] for library in numbers}
    order = list(numbers)
    for _ in range(rounds):
        for library in order:
            warm = long[library] < LONG
            taken[library].append(workers[library].time(case, numbers[library], warm))
        order = order[1:] + order[:1]  # nobody always comes after the same neighbour
    times = {library: [getattr(timing, clock) for timing in timings] for library, timings in taken.items()}
    result.times = times
    for library, values in times.items():
        result.seconds[library] = Spread.of(values).scaled(1 / operations)
    for library in [other for other in others if other in times and ours in times]:
        result.ratio[library] = Spread.of([a / b for a, b in zip(times[ours], times[library], strict=True)])
    shares = [timing.cpu / timing.wall for timings in taken.values() for timing in timings]
    result.busy = statistics.median(shares) if shares else 1.0
    return result


def disagreement(reference: Any, other: Any, relative: float, absolute: float) -> str:
    """Where two nested lists of numbers differ, in words; empty where they do not."""

    def flat(value: Any, place: str) -> Iterable[tuple[str, float]]:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from flat(item, f"{place}[{index}]")
        else:
            yield place, value

    left, right = list(flat(reference, "")), list(flat(other, ""))
    if [place for place, _ in left] != [place for place, _ in right]:
        return f"{len(left)} and {len(right)} numbers, or another nesting"
    for (place, a), (_, b) in zip(left, right, strict=True):
        if not math.isclose(a, b, rel_tol=relative, abs_tol=absolute):
            return f"{a!r} and {b!r} at {place}"
    return ""


def start(script: Path, libraries: Sequence[str], **options: Any) -> tuple[dict[str, Worker], dict[str, str]]:
    """Workers for ``libraries`` on the last core that this process may use, and for which it cannot be done, why."""
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    workers, unavailable = {}, {}
    for library in libraries:
        worker = Worker(script, library, core, **options)
        try:
            worker.start()
        except Unavailable as error:
            unavailable[library] = str(error)
            worker.stop()
        else:
            workers[library] = worker
    return workers, unavailable


# ------------------------------------------------------------------------------------------------------ what is written


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    versions = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def heading(text: str) -> None:
    """Prints the machine below a title."""
    here = machine()
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    print(f"{text}\n{here['processor']}, {here['cores']} cores; Python {here['python']}, {versions}\n", flush=True)


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Writes ``content`` and the machine to ``path``; does nothing without one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), **content}, indent=1, default=asdict) + "\n")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


if __name__ == "__main__":
    from harness import serve  # not this module's own: a benchmark's Unavailable is that of the module ``harness``

    serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

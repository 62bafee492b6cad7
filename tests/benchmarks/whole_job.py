"""The whole job, from files to a checkpoint: ResNet-18 finetuned with a frozen backbone, on two ranks of one thread.

``mpirun -n 2 distgrad finetune configs/resnet18_frozen.toml`` beside a PyTorch DistributedDataParallel script
(``torch_ddp.py``), without and with feature caching of its own, in turn. All read the same photos, preprocess them
alike, without augmentation, take the same optimizer steps in another order of photos, validate and write a checkpoint
after every epoch. distgrad starts with an empty feature cache each time. Time on the clock from the command to its end,
and of the processors beside it; the accuracies at the end must agree within a point.

    python tests/benchmarks/whole_job.py                        ten epochs: most of the time is PyTorch without caching
    python tests/benchmarks/whole_job.py --plain-epochs 3       PyTorch without caching for three epochs, scaled to ten
    python tests/benchmarks/whole_job.py --peers caching        only the peer with caching

The photos and the pretrained values are looked for in $DISTGRAD_ASSETS, else in ../shared/assets.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import contest
import harness
from harness import Spread, Unavailable
from report import OUTPUT, Report, Row

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
DISTGRAD, PLAIN, CACHING = "distgrad", "torch", "torch, caching"
GOALS = {PLAIN: 15.0, CACHING: 1.6}
TOLERANCE = 0.01  # of the accuracies: ten photos of a thousand
LIMIT = 3600  # seconds of one job
# Open MPI as root in a container, with more ranks than cores, and no rank pinned to a core that others use too.
MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
}


@dataclass
class Job:
    """What one run of the job took: seconds on the clock, of the processors, until training began and of each epoch."""

    seconds: float
    cpu: float
    start_up: float
    epochs: list[float]
    accuracy: float
    images: int  # training and validation photos that one epoch sees

    def scaled(self, epochs: int) -> Job:
        """The same with ``epochs`` epochs, each as long as the mean of those after the first (or of the only one)."""
        more = epochs - len(self.epochs)
        if more <= 0:
            return self
        later = self.epochs[1:] or self.epochs
        each = sum(later) / len(later)
        rest = more * each
        cpu = self.cpu * (1 + rest / self.seconds)
        return Job(self.seconds + rest, cpu, self.start_up, self.epochs + [each] * more, self.accuracy, self.images)


@dataclass
class Finished:
    """A command that ended well: what it took, and the moments at which it printed each line."""

    seconds: float
    cpu: float
    lines: list[tuple[float, str]] = field(default_factory=list)


def run(commands: list[list[str]], environments: list[dict[str, str]], folder: Path) -> Finished:
    """Runs commands at the same time, to their end; the lines are the first one's.

    Raises:
        Unavailable: one of them failed.
    """
    before = os.times()
    start = time.perf_counter()
    processes = []
    for index, (command, environment) in enumerate(zip(commands, environments, strict=True)):
        with open(folder / f"errors-{index}", "w") as errors:
            output = subprocess.PIPE if index == 0 else subprocess.DEVNULL
            processes.append(
                subprocess.Popen(command, stdout=output, stderr=errors, text=True, env=environment, cwd=ROOT)
            )
    assert processes[0].stdout is not None
    try:
        lines = [(time.perf_counter() - start, line.rstrip()) for line in processes[0].stdout]
        status = [process.wait(LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    seconds, after = time.perf_counter() - start, os.times()
    if any(status):
        failed = next(index for index, code in enumerate(status) if code)
        tail = (folder / f"errors-{failed}").read_text().strip().splitlines()[-5:]
        raise Unavailable(f"{commands[failed][:4]} ended with {status[failed]}: {' | '.join(tail)}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Finished(seconds, cpu, lines)


def job(finished: Finished, accuracy: float, images: int) -> Job:
    """Start-up ends with the first line, an epoch with a line that begins with "epoch"."""
    ends = [moment for moment, line in finished.lines if line.startswith("epoch ")]
    ready = finished.lines[0][0]
    epochs = [end - start for start, end in zip([ready, *ends], ends, strict=False)]
    return Job(finished.seconds, finished.cpu, ready, epochs, accuracy, images)


def distgrad_job(arguments: Any, data: Path, images: int, folder: Path) -> Job:
    """The recipe under mpirun, as a user starts it."""
    program = [str(Path(sys.executable).parent / "distgrad")]
    if not Path(program[0]).exists():
        program = [sys.executable, "-m", "distgrad.launch.cli"]
    settings = {
        "run.output": folder / "runs",
        "run.name": "job",
        "data.train": data / "train",
        "data.val": data / "val",
        "data.augment": "false",
        "data.image_size": arguments.size,
        "data.batch_size": arguments.batch,
        "train.epochs": arguments.epochs,
        "features.folder": folder / "features",
    }
    command = [shutil.which("mpirun", path=_path()) or "mpirun", "-n", str(arguments.ranks), *program, "finetune"]
    command += ["configs/resnet18_frozen.toml"]
    command += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    environment = harness.environment(contest.KEEP | {"PATH": _path(), "DISTGRAD_ASSETS": str(arguments.assets)})
    environment = {**MPI, **environment, "DISTGRAD_HOME": str(arguments.output.resolve() / "weights")}
    finished = run([command], [environment], folder)
    metrics = [json.loads(line) for line in (folder / "runs" / "job" / "metrics.jsonl").read_text().splitlines()]
    return job(finished, metrics[-1]["val_accuracy"], images)


def torch_job(arguments: Any, data: Path, images: int, folder: Path, caching: bool, epochs: int) -> Job:
    """The script's processes, over gloo on this host."""
    weights = arguments.assets / "weights" / "resnet18_imagenet1k_v1.pth"
    command = [sys.executable, str(FOLDER / "torch_ddp.py"), "--data", str(data), "--weights", str(weights)]
    command += ["--output", str(folder), "--epochs", str(epochs), "--batch", str(arguments.batch)]
    command += ["--size", str(arguments.size), *(["--cache"] if caching else [])]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": str(arguments.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = range(arguments.ranks)
    environments = [harness.environment(contest.KEEP | place | {"RANK": str(rank)}) for rank in ranks]
    finished = run([command] * arguments.ranks, environments, folder)
    found = json.loads((folder / "result.json").read_text())
    return job(finished, found["accuracy"], images)


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def subset(source: Path, photos: int, folder: Path) -> Path:
    """A folder with links to the first ``photos`` training photos a class and half as many to validate."""
    for part, count in (("train", photos), ("val", (photos + 1) // 2)):
        for path in sorted((source / part).iterdir()):
            (folder / part / path.name).mkdir(parents=True)
            for photo in sorted(path.iterdir())[:count]:
                (folder / part / path.name / photo.name).symlink_to(photo.resolve())
    return folder


def compare(arguments: Any) -> int:
    """Runs the jobs in turn, prints and writes; 1 where accuracies differ."""
    report = Report("whole_job", f"The whole job: how many times as fast as PyTorch, {arguments.ranks} ranks")
    data = arguments.assets / "datasets" / "imagenette"
    if not data.exists():
        report.note(f"skipped: there is no {data}; name the folder with --assets or DISTGRAD_ASSETS")
        return report.finish(arguments.output)
    names = [DISTGRAD, *({"caching": CACHING, "plain": PLAIN}[peer] for peer in arguments.peers)]
    jobs: dict[str, list[Job]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.photos:
            data = subset(data, arguments.photos, Path(temporary, "photos"))
        images = sum(len(list((data / part).glob("*/*"))) for part in ("train", "val"))
        for number in range(arguments.rounds):
            for name in names:
                if name == PLAIN and number:
                    continue  # once: it takes minutes
                folder = Path(temporary, f"{name}-{number}")
                folder.mkdir()
                try:
                    found = measure(name, arguments, data, images, folder)
                except Unavailable as error:
                    report.note(f"skipped: {name}: {error}")
                    continue
                jobs[name].append(found)
                report.note(describe(name, found, arguments))
                shutil.rmtree(folder)
    for name in names[1:]:
        if not jobs[name] or not jobs[DISTGRAD]:
            continue
        ours, theirs = jobs[DISTGRAD], jobs[name]
        remark = ""
        if len(theirs[0].epochs) == arguments.epochs:
            apart = max(abs(a.accuracy - b.accuracy) for a in ours for b in theirs)
            if apart > arguments.tolerance:
                report.fail(f"accuracies of distgrad and {name} differ by {apart:.3f}, over {arguments.tolerance}")
                continue
        else:
            remark = f", scaled from {len(theirs[0].epochs)} of {arguments.epochs} epochs, accuracies not compared"
            theirs = [one.scaled(arguments.epochs) for one in theirs]
        by_clock = {
            "on the clock": Spread.of([b.seconds / a.seconds for a in ours for b in theirs]),
            "in processor time": Spread.of([b.cpu / a.cpu for a in ours for b in theirs]),
        }
        chosen, other = by_clock if arguments.clock == "wall" else reversed(by_clock)
        detail = f"{chosen}; {other} {by_clock[other]}; seconds {seconds(ours)} / {seconds(theirs)}{remark}"
        report.add(Row(f"distgrad beside {name}", by_clock[chosen], GOALS[name], detail))
    return report.finish(arguments.output, jobs={name: [vars(one) for one in found] for name, found in jobs.items()})


def seconds(jobs: list[Job]) -> str:
    """The middle one's seconds and the range."""
    return str(Spread.of([one.seconds for one in jobs]))


def measure(name: str, arguments: Any, data: Path, images: int, folder: Path) -> Job:
    """One run of one job."""
    if name == DISTGRAD:
        return distgrad_job(arguments, data, images, folder)
    epochs = arguments.epochs if name == CACHING else arguments.plain_epochs or arguments.epochs
    return torch_job(arguments, data, images, folder, name == CACHING, epochs)


def describe(name: str, found: Job, arguments: Any) -> str:
    """A line about one run."""
    epochs = " ".join(f"{epoch:.2f}" for epoch in found.epochs)
    rate = found.images * len(found.epochs) / found.seconds
    return (
        f"{name:15} {found.seconds:7.2f} s ({found.cpu:.1f} s of processors): start-up {found.start_up:.2f}, epochs "
        f"{epochs}; {rate:.0f} images/s in all; accuracy {found.accuracy:.4f}"
    )


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    assets = Path(os.environ.get("DISTGRAD_ASSETS") or ROOT.parent / "shared" / "assets")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"for the files ({OUTPUT})")
    parser.add_argument("--assets", type=Path, default=assets, help="folder with datasets/imagenette and weights")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--plain-epochs", type=int, help="of PyTorch without caching, then scaled to --epochs")
    parser.add_argument("--ranks", type=int, default=2, help="default: 2")
    parser.add_argument("--batch", type=int, default=64, help="photos a step, over all ranks (default: 64)")
    parser.add_argument("--size", type=int, default=224, help="pixels a side (default: 224)")
    parser.add_argument("--photos", type=int, help="training photos a class (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of all but PyTorch without caching (default: 3)")
    parser.add_argument("--peers", nargs="*", default=["caching", "plain"], choices=["caching", "plain"])
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="of the accuracies (default: 0.01)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what the figure is of")
    parser.add_argument("--quick", action="store_true", help="a few small photos: whether it works, not how fast")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.epochs, arguments.rounds, arguments.size, arguments.photos = 2, 1, 64, 8
        arguments.tolerance = 0.5  # of forty photos
    arguments.assets = arguments.assets.resolve()
    return compare(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""Program: finetunes with ``distributed.reproducible`` on groups of the ranks it was started on, and prints digests.

    mpirun -n 8 python same_model.py FOLDER

Groups of 1, 2, 3, 5 and 8 ranks train the same recipe, each in a run of its own, and one run is begun on 4 ranks, goes
on on 3 in the middle of an epoch, and ends on 8. Rank 0 of each group prints the run's name and its model's SHA-256.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from distgrad import distributed
from distgrad.distributed import Communicator, data_parallel
from distgrad.distributed.progress import Progress
from distgrad.launch.finetune import finetune
from distgrad.launch.settings import load_settings

CLASSES, TRAIN, VAL = 3, 10, 2  # photos a class; batches of 12, 12 and 6: the last leaves two of eight slices empty

RECIPE = """
[model]
weights = "none"
freeze = {freeze}

[data]
train = "{folder}/photos/train"
val = "{folder}/photos/val"
batch_size = 12
image_size = 33
workers = 0

[optim]
lr = 0.02

[train]
epochs = 1

[distributed]
reproducible = true
"""


def write_photos(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("val", VAL)):
        for label in range(CLASSES):
            place = folder / "photos" / part / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (44, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")


def run(folder: Path, kind: str, name: str, ranks: Communicator, resume: bool, max_steps: int | None) -> None:
    """Trains on ``ranks`` as far as ``max_steps``, and prints what came of it."""
    output = folder / kind / name
    overrides = [] if max_steps is None else ["--train.max_steps", str(max_steps)]
    settings = load_settings(folder / f"{kind}.toml", ["--run.output", str(output), "--run.name", "r", *overrides])
    finetune(settings, ranks, resume=resume)
    if ranks.rank == 0:
        model = (output / "r" / "last" / "model.safetensors").read_bytes()
        records = (output / "r" / "metrics.jsonl").read_text().splitlines()
        loss = records[-1].split('"train_loss": ')[1].split(",")[0]
        print(f"digest {kind} {name} {max_steps} {hashlib.sha256(model).hexdigest()} {loss}", flush=True)


def main() -> None:
    folder = Path(sys.argv[1])
    world = distributed.init()
    # What carries the buckets is found out by a trial, which takes long where eight ranks share few cores.
    data_parallel.choose_progress = lambda *_: Progress("thread", "a test")
    if world.rank == 0:
        write_photos(folder)
        for kind, freeze in (("frozen", "true"), ("full", "false")):
            (folder / f"{kind}.toml").write_text(RECIPE.format(folder=folder, freeze=freeze))
    world.barrier()
    rounds: list[list[tuple[int, str, bool, int | None]]] = [
        [(5, "on5", False, None), (3, "on3", False, None)],
        [(8, "on8", False, None)],
        [(4, "resumed", False, 1), (2, "on2", False, None), (1, "on1", False, None)],
        [(3, "resumed", True, 2)],
        [(8, "resumed", True, None)],
    ]
    for number, groups in enumerate(rounds):
        color = next((i for i in range(len(groups)) if world.rank < sum(size for size, *_ in groups[: i + 1])), None)
        ranks = world.split(color)
        done = folder / f"round{number}"
        if color is not None and ranks is not None:
            _, name, resume, max_steps = groups[color]
            for kind in ("frozen", "full"):
                run(folder, kind, name, ranks, resume, max_steps)
            ranks.free()
        if world.rank == 0:
            done.touch()
        while not done.exists():  # asleep: waiting inside of MPI takes a core
            time.sleep(0.02)
        world.barrier()


if __name__ == "__main__":
    main()

"""``distgrad evaluate RUN DATA``: how good a run's model is on a folder of photos, every photo counted once."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distgrad import blas, distributed, inference_mode
from distgrad.autograd import Tensor
from distgrad.data import ImageFolder
from distgrad.distributed import Communicator
from distgrad.nn import Module
from distgrad.nn import functional as F
from distgrad.observe import Progress
from distgrad.observe.report import percent

from . import recipe, run_folder
from .arguments import at_least
from .inputs import validation_loader


class Evaluation(NamedTuple):
    """Over all photos, each counted once: the mean loss, the part that is right (0 to 1), and how many there are."""

    loss: float
    accuracy: float
    photos: int


def evaluate(
    model: Module, batches: Iterable[tuple[Tensor, Tensor]], ranks: Communicator, *, photos: int, description: str
) -> Evaluation:
    """Evaluates ``model``, shared among the ranks; the result is the same on all of them. A collective.

    Shards may differ in length; sums are reduced, not means, so the result does not depend on how many ranks there are
    (but for the rounding of float64 sums).

    Args:
        model: what to evaluate; its mode is put back afterwards.
        batches: this rank's share, ``(inputs, class indices)``.
        ranks: who shares the work.
        photos: how many there are on all ranks.
        description: what the progress bar says.
    """
    sums = np.zeros(3)  # loss, right, photos
    was_training = model.training
    model.eval()
    with inference_mode(), Progress(photos, description, rank=ranks.rank) as progress:
        for inputs, labels in batches:
            logits = model(inputs)
            right = int((logits.argmax(1) == labels).sum().item())
            sums += F.cross_entropy(logits, labels, reduction="sum").item(), right, len(labels)
            progress.update(len(labels) * ranks.world_size)
    model.train(was_training)
    ranks.all_reduce(sums)
    return Evaluation(float(sums[0] / sums[2]), float(sums[1] / sums[2]), int(sums[2]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of ``distgrad evaluate``."""
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its checkpoints")
    parser.add_argument("data", type=Path, help="folder of photos, one folder a class, named as in training")
    parser.add_argument("--checkpoint", choices=("best", "last"), help="which checkpoint (default: best)")
    parser.add_argument(
        "--batch-size", type=at_least(1), default=64, help="photos a step, over all ranks (default: 64)"
    )
    parser.add_argument(
        "--workers",
        type=at_least(0),
        default=blas.decoding_threads(blas.cores_of_this_process()),
        help="decoding threads a rank (default: one for each four of its cores, here %(default)s)",
    )


def command(arguments: argparse.Namespace) -> None:
    """Runs ``distgrad evaluate``, alone or under mpirun."""
    ranks = distributed.communicator()
    settings, classes, model = run_folder.read(arguments.run, arguments.checkpoint)
    photos = ImageFolder(
        arguments.data,
        transform=recipe.evaluation_transform(settings),
        exif_orientation=settings.data.exif_orientation,
        require_classes=1,
        classes=classes,
        decode=settings.data.decode,
    )
    if settings.data.on_error == "skip":
        recipe.drop_broken(photos, ranks)
    result = evaluate(
        model,
        validation_loader(photos, ranks, batch_size=arguments.batch_size, workers=arguments.workers),
        ranks,
        photos=len(photos),
        description="evaluate",
    )
    if ranks.rank == 0:
        skipped = f", {len(photos.dropped)} skipped" if photos.dropped else ""
        print(f"accuracy {percent(result.accuracy)}, loss {result.loss:.4f} on {result.photos} photos{skipped}")

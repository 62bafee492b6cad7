"""``distgrad evaluate RUN DATA``: how good a run's model is on a folder of photos, every photo counted once."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from distgrad import blas, distributed, inference_mode
from distgrad.autograd import Tensor
from distgrad.data import ImageFolder
from distgrad.distributed import Communicator
from distgrad.metrics import Accuracy, MeanMetric, TopKAccuracy
from distgrad.nn import Module, freeze, unfreeze
from distgrad.nn import functional as F
from distgrad.observe import Progress
from distgrad.observe.report import percent

from . import recipe, run_folder
from .arguments import at_least
from .inputs import Batches, Head, Kept, evaluation_features, validation_loader

TOP = 5


class Evaluation(NamedTuple):
    """Over all photos, each counted once.

    Attributes:
        loss: the mean.
        accuracy: the part that is right, 0 to 1.
        photos: how many there are.
        top5: the part whose class is among the five most likely ones, 0 to 1; None of five classes and fewer.
    """

    loss: float
    accuracy: float
    photos: int
    top5: float | None = None


def evaluate(
    model: Module, batches: Iterable[tuple[Tensor, Tensor]], ranks: Communicator, *, photos: int, description: str
) -> Evaluation:
    """Evaluates ``model``, shared among the ranks; the result is the same on all of them. A collective.

    Shards may differ in length and may be empty: counts are reduced, and an exact sum of losses, so the result depends
    on the photos' logits alone, and not on how many ranks have shared them.

    Args:
        model: what to evaluate; its mode is put back afterwards.
        batches: this rank's share, ``(inputs, class indices)``.
        ranks: who shares the work.
        photos: how many there are on all ranks.
        description: what the progress bar says.
    """
    loss, accuracy, top = MeanMetric(), Accuracy(), TopKAccuracy(TOP)
    was_training = model.training
    model.eval()
    with inference_mode(), Progress(photos, description, rank=ranks.rank) as progress:
        for inputs, labels in batches:
            logits = model(inputs)
            loss.update(F.cross_entropy(logits, labels, reduction="none"))
            accuracy.update(logits, labels)
            if logits.shape[1] > TOP:
                top.update(logits, labels)
            progress.update(len(labels) * ranks.world_size)
    model.train(was_training)
    loss, accuracy, top = loss.reduce(ranks), accuracy.reduce(ranks), top.reduce(ranks)
    return Evaluation(loss.compute(), accuracy.compute(), int(accuracy.total), top.compute() if top.total else None)


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
    parser.add_argument(
        "--features",
        choices=("auto", "off"),
        default="auto",
        help="auto: what a frozen backbone makes of a photo is kept beside the run, as in training; off: compute anew, "
        "with the same result (default: auto)",
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
    batches: Batches
    told = ""
    with contextlib.ExitStack() as resources:
        if settings.model.freeze:
            if arguments.features == "off":
                features = settings.features.model_copy(update={"cache": "off"})
                settings = settings.model_copy(update={"features": features})
            # beside the run where it is now
            beside = run_folder.run_of(arguments.run).resolve().parent / ".features"
            folder = beside if settings.features.folder is None else settings.feature_folder
            unfreeze(freeze(model).fc)
            head = Head(model)
            head.split = recipe.split(settings, model)
            kept = Kept(settings, folder, head.split, ranks, resources)
            batches, told = evaluation_features(
                kept, photos, ranks, batch_size=arguments.batch_size, workers=arguments.workers
            )
            model = head
        else:
            batches = validation_loader(photos, ranks, batch_size=arguments.batch_size, workers=arguments.workers)
        result = evaluate(model, batches, ranks, photos=len(photos), description="evaluate")
    if ranks.rank == 0:
        skipped = f", {len(photos.dropped)} skipped" if photos.dropped else ""
        top = "" if result.top5 is None else f", top 5 {percent(result.top5)}"
        print(f"accuracy {percent(result.accuracy)}{top}, loss {result.loss:.4f} on {result.photos} photos{skipped}")
        if told:
            print(told)

"""``distgrad predict RUN PHOTO...``: the classes that a run's model finds most probable for each photo."""

from __future__ import annotations

import argparse
from pathlib import Path

import distgrad
from distgrad import distributed
from distgrad.data import load_image
from distgrad.nn import functional as F

from . import recipe, run_folder
from .arguments import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of ``distgrad predict``."""
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its checkpoints")
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image files")
    parser.add_argument("--checkpoint", choices=("best", "last"), help="which checkpoint (default: best)")
    parser.add_argument("--top", type=at_least(1), default=5, help="how many classes to show (default: 5)")


def command(arguments: argparse.Namespace) -> None:
    """Runs ``distgrad predict``: for each photo its name, then a line for each class with its probability."""
    if distributed.rank() > 0:  # under mpirun: a few photos are not worth sharing, and one rank prints
        return
    settings, classes, model = run_folder.read(arguments.run, arguments.checkpoint)
    transform = recipe.evaluation_transform(settings)
    model.eval()
    for photo in arguments.photos:
        pixels = transform(load_image(photo, exif_orientation=settings.data.exif_orientation))  # (3, H, W)
        with distgrad.inference_mode():
            probabilities = F.softmax(model(distgrad.from_numpy(pixels[None])), 1)[0]
        found = probabilities.topk(min(arguments.top, len(classes)))
        print(photo)
        for probability, index in zip(found.values.tolist(), found.indices.tolist(), strict=True):
            print(f"  {100 * probability:6.2f} %  {classes[index]}")

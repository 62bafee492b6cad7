"""A tiny folder of photos and a recipe for it that takes a second: a random ResNet-18 at 32 x 32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_photos(folder: Path, classes: tuple[str, ...], each: int, seed: int = 0) -> None:
    """Noise around a colour that says the class."""
    generator = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        colour = np.roll((220, 90, 20), number)
        for index in range(each):
            pixels = np.clip(colour + generator.normal(0, 30, (40, 36, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.jpg", quality=90)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``train`` with 21 photos of three classes, ``val`` with nine."""
    write_photos(tmp_path / "photos" / "train", ("blue", "green", "red"), 7)
    write_photos(tmp_path / "photos" / "val", ("blue", "green", "red"), 3, seed=1)
    return tmp_path / "photos"


@pytest.fixture
def recipe(tmp_path: Path, photos: Path) -> Callable[..., list[str]]:
    """The command line of a run on these photos: three steps an epoch, the last one ragged."""
    config = tmp_path / "tiny.toml"
    config.write_text(
        f"""
[model]
weights = "none"
[data]
train = "{photos}/train"
val = "{photos}/val"
image_size = 32
batch_size = 8
[optim]
lr = 0.05
[train]
epochs = 2
[run]
output = "{tmp_path}/runs"
"""
    )

    def arguments(*more: str) -> list[str]:
        return ["finetune", str(config), *more]

    return arguments

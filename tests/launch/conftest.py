"""A tiny folder of photos and a recipe for it that takes a second: a random ResNet-18 at 32 x 32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgrad import Tensor, nn
from distgrad.launch import recipe as of_the_recipe
from distgrad.models.resnet import BasicBlock


def write_photos(folder: Path, classes: tuple[str, ...], each: int, seed: int = 0) -> None:
    """Noise around a colour that says the class."""
    generator = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        colour = np.roll((220, 90, 20), number)
        for index in range(each):
            pixels = np.clip(colour + generator.normal(0, 30, (40, 36, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.jpg", quality=90)


class SmallNetwork(nn.Module):
    """What a ResNet is made of, with a hundredth of its weights and as many features."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        down = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.blocks = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 16, 2, down))
        self.wide = nn.Sequential(nn.Conv2d(16, 512, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU(inplace=True))
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.blocks(self.bn1(self.conv1(x)).relu()))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process train a network whose checkpoints have 60 kB, not 45 MB."""
    monkeypatch.setattr(of_the_recipe, "architecture", lambda settings, classes: SmallNetwork(classes))


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

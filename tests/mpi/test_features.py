"""Features shared by processes: the same bits as one process computes, through a common disk and without one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distgrad
from distgrad import distributed, nn
from distgrad.compiler import split_frozen
from distgrad.data import ImageFolder, transforms
from distgrad.distributed import Communicator, SingleCommunicator
from distgrad.features import FeatureStore, PhotoFeatures

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120, method="thread")]

SIDE, PHOTOS = 16, 70  # two blocks and a bit
TRANSFORM = transforms.Compose(
    [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
)


@pytest.fixture
def world() -> Communicator:
    return distributed.init()


@pytest.fixture
def folder(world: Communicator) -> Iterator[Path]:
    """The same empty folder on all ranks."""
    with tempfile.TemporaryDirectory() as mine:
        name = world.all_gather_bytes(mine.encode())[0].decode()
        yield Path(name)
        world.barrier()


def network() -> nn.Module:
    distgrad.manual_seed(0)
    frozen = nn.freeze(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()))
    return nn.Sequential(frozen, nn.Linear(8 * 7 * 7, 2)).train()


def features_of(folder: Path, ranks: Communicator, store: FeatureStore | None) -> PhotoFeatures:
    split = split_frozen(network(), distgrad.zeros(1, 3, SIDE, SIDE))
    assert split is not None
    photos = ImageFolder(folder, TRANSFORM)
    return PhotoFeatures(photos, split, ranks, store=store, views=2, seed=4, workers=1)


def values_of(features: PhotoFeatures) -> bytes:
    return b"".join(
        values.numpy().tobytes()
        for epoch in (0, 1)
        for values, _ in features.batches([range(40), [], range(40, PHOTOS)], epoch)
    )


@pytest.mark.parametrize("shared", [True, False], ids=["one disk", "a disk each"])
def test_all_ranks_have_all_features_and_computed_each_once(world: Communicator, folder: Path, shared: bool) -> None:
    if world.rank == 0:
        for number in range(PHOTOS):
            path = folder / "photos" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    world.barrier()
    disk = folder / ("cache" if shared else f"cache{world.rank}")
    computed, got = [], []
    for _ in range(2):
        with FeatureStore(disk, (8 * 7 * 7,), "float32") as store:
            features = features_of(folder / "photos", world, store)
            for epoch in (0, 1):
                missing = features.missing(range(PHOTOS), epoch)
                features.compute(missing, range(PHOTOS), epoch)
            computed.append((features.computed, features.reused))
            got.append(values_of(features))
    streamed = values_of(features_of(folder / "photos", world, None))
    alone = values_of(features_of(folder / "photos", SingleCommunicator(), None))
    world.barrier()
    assert computed == [(2 * PHOTOS, 0), (0, 2 * PHOTOS)]
    assert set(got) == {streamed} == {alone}
    if shared and world.rank == 0:
        rows = sum((path.stat().st_size - 512) // (64 + 1600) for path in disk.glob("*.rows"))
        assert rows == 2 * PHOTOS, "no feature is on the disk twice"

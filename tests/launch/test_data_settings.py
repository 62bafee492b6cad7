"""What [data] says about decoding reaches the photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgrad import distributed
from distgrad.blas import cores_of_this_process, decoding_threads
from launch import recipe
from launch.settings import Settings, load_settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(2):
            image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((300, 200))
            image.save(tmp_path / name / f"{number}.jpg")
    config = tmp_path / "c.toml"
    config.write_text(f'[data]\ntrain = "{tmp_path}/train"\nval = "{tmp_path}/val"\nimage_size = 32\nbatch_size = 2\n')
    return config


def values(settings: Settings) -> list[np.ndarray]:
    return [photos[0][0] for photos in recipe.photos(settings, distributed.communicator())]


def test_decode_and_photo_cache(config: Path, tmp_path: Path) -> None:
    plain = load_settings(config, ["--data.augment", "false"])
    cached = load_settings(config, ["--data.augment", "false", "--data.photo_cache", str(tmp_path / "cache")])
    expected = values(plain)
    for _ in range(2):
        for found, image in zip(values(cached), expected, strict=True):
            np.testing.assert_array_equal(found, image)
        assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 2
    fast = values(load_settings(config, ["--data.augment", "false", "--data.decode", "fast"]))
    assert not np.array_equal(fast[0], expected[0]) and np.abs(fast[0] - expected[0]).mean() < 0.2


def test_decoding_threads(config: Path) -> None:
    assert load_settings(config).data.decoding_threads == decoding_threads(cores_of_this_process())
    assert load_settings(config, ["--data.workers", "0"]).data.decoding_threads == 0

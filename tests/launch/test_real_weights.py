"""The recipe with the real weights on real photos, small: what `distgrad finetune` is for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from distgrad.models.torch_file import load

pytestmark = [pytest.mark.assets, pytest.mark.timeout(240)]

CLI = ("-m", "distgrad.launch.cli")
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "resnet18_frozen.toml"


def test_finetunes_evaluates_and_predicts(
    assets: Path, tmp_path: Path, run_ranks: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for part, each in (("train", 8), ("val", 2)):
        for folder in sorted((assets / "datasets" / "imagenette" / part).iterdir()):
            (tmp_path / part / folder.name).mkdir(parents=True)
            for photo in sorted(folder.iterdir())[:each]:
                shutil.copy(photo, tmp_path / part / folder.name)
    ended = run_ranks(
        2, *CLI, "finetune", CONFIG, "--data.train", tmp_path / "train", "--data.val", tmp_path / "val",
        "--data.image_size", "96", "--data.batch_size", "16", "--train.epochs", "2", "--run.name", "real",
        DISTGRAD_ASSETS=str(assets),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "80 photos of 10 classes, 20 to validate; 2 ranks" in ended.stdout

    run = tmp_path / "runs" / "real"
    original = load(assets / "weights" / "resnet18_imagenet1k_v1.pth")
    trained = load_file(run / "last" / "model.safetensors")
    assert set(trained) == set(original) and len(trained) == 122
    for name, value in trained.items():
        assert name.startswith("fc.") or np.array_equal(value, original[name]), f"{name} was frozen"
    assert trained["fc.weight"].shape == (10, 512)

    evaluated = run_ranks(2, *CLI, "evaluate", run, tmp_path / "val")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "on 20 photos" in evaluated.stdout
    accuracy = float(evaluated.stdout.split("accuracy ")[1].split(" %")[0])
    assert accuracy >= 60, "ten classes that the backbone knows: guessing gives 10 %"

    photo = sorted((tmp_path / "val" / "n02979186").iterdir())[0]
    predicted = run_ranks(1, *CLI, "predict", run, photo)
    assert predicted.returncode == 0, predicted.stderr
    lines = predicted.stdout.splitlines()
    assert len(lines) == 6, "the photo and five classes"
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100.1
    assert all(line.split()[-1].startswith("n0") for line in lines[1:])

"""The pretrained network sees on real photos what PyTorch's sees."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import distgrad
from distgrad.data import transforms
from distgrad.models import ResNet18_Weights, resnet18
from distgrad.models.torch_file import load

pytestmark = [pytest.mark.parity, pytest.mark.assets]


def test_logits_and_top5_equal_pytorchs(
    assets: Path, torch_resnet: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setenv("DISTGRAD_ASSETS", str(assets))
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path))
    preset = ResNet18_Weights.DEFAULT.preprocessing
    transform = transforms.Compose(
        [
            transforms.Resize(preset.resize_size),
            transforms.CenterCrop(preset.crop_size),
            transforms.ToTensor(),
            transforms.Normalize(preset.mean, preset.std),
        ]
    )
    with open(assets / "photos" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    images = np.stack([transform(Image.open(assets / "photos" / row["file"]).convert("RGB")) for row in rows])

    ours = resnet18(weights=ResNet18_Weights.DEFAULT).eval()
    theirs = torch_resnet.resnet18()
    state = load(assets / "weights" / "resnet18_imagenet1k_v1.pth")
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    theirs.eval()
    with distgrad.inference_mode(), torch.inference_mode():
        logits = ours(distgrad.from_numpy(images)).numpy()
        expected = theirs(torch.from_numpy(images)).numpy()

    worst = np.abs(logits - expected).max() / np.abs(expected).max()
    top5 = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    expected_top5 = np.argsort(-expected, axis=1, kind="stable")[:, :5]
    right = int((top5[:, 0] == [int(row["class_index"]) for row in rows]).sum())
    print(f"{len(rows)} photos: logits differ by {worst:.2e} of the largest; {right} right at first guess")
    assert len(rows) == 16
    assert worst <= 1e-4
    assert np.array_equal(top5, expected_top5)
    categories = ResNet18_Weights.DEFAULT.meta["categories"]
    assert categories[int(rows[0]["class_index"])] == rows[0]["name"]
    assert right >= 12

"""Training follows PyTorch's trajectory: same weights, same batches, 20 steps, frozen and full.

Full training with batch statistics amplifies rounding: PyTorch in float32 and PyTorch in float64 are themselves 1e-3
apart after 20 steps at a learning rate of 1e-3 with batches of 16, and 1e-4 at 3e-4 with batches of 32. So full
training is compared in float32 at the latter; in float64, where nothing is amplified far enough to matter, at a rate
that moves it.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn, optim
from distgrad.data import ImageFolder, transforms
from distgrad.models import resnet18
from distgrad.models.torch_file import load

pytestmark = [pytest.mark.parity, pytest.mark.assets]

STEPS, BATCH, SIDE = 20, 32, 64


@pytest.fixture(scope="module")
def batches(assets: Path) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Real photos, 64 x 64, the same for both sides."""
    folder = ImageFolder(
        assets / "datasets" / "imagenette" / "train",
        transforms.Compose(
            [
                transforms.Resize(SIDE),
                transforms.CenterCrop(SIDE),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        ),
    )
    order = np.random.default_rng(0).permutation(len(folder))[: STEPS * BATCH].reshape(STEPS, BATCH)
    samples = [[folder[int(i)] for i in row] for row in order]
    return [(np.stack([x for x, _ in row]), np.array([y for _, y in row])) for row in samples]


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "full"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_follows_pytorch(
    frozen: bool, dtype: str, assets: Path, batches: Any, torch_resnet: ModuleType, record_property: Any
) -> None:
    import torch

    state = load(assets / "weights" / "resnet18_imagenet1k_v1.pth")
    head = np.random.default_rng(1).uniform(-1, 1, (10, 512)) / np.sqrt(512)

    ours = resnet18()
    ours.load_state_dict(state)
    theirs = torch_resnet.resnet18()
    theirs.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    if frozen:
        nn.freeze(ours)
        theirs.requires_grad_(False)
    ours.fc, theirs.fc = nn.Linear(512, 10), torch.nn.Linear(512, 10)
    with distgrad.no_grad(), torch.no_grad():
        ours.fc.weight.copy_(distgrad.tensor(head))
        ours.fc.bias.zero_()
        theirs.fc.weight.copy_(torch.from_numpy(head))
        theirs.fc.bias.zero_()
    ours.to(np.dtype(dtype)).train()
    theirs.to(getattr(torch, dtype))
    theirs.train(not frozen)  # PyTorch has no frozen BatchNorm: evaluation mode is the same thing here

    lr = 0.01 if frozen or dtype == "float64" else 3e-4
    settings = {"lr": lr, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": not frozen}
    our_sgd = optim.SGD([p for p in ours.parameters() if p.requires_grad], **settings)
    their_sgd = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], **settings)
    worst_loss = 0.0
    for images, labels in batches:
        if dtype == "float64":
            images, labels = images[:8], labels[:8]  # enough to be exact on
        x = images.astype(dtype)
        loss = nn.functional.cross_entropy(ours(distgrad.from_numpy(x)), distgrad.from_numpy(labels))
        reference = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(labels))
        for optimizer, value in ((our_sgd, loss), (their_sgd, reference)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        worst_loss = max(worst_loss, abs(loss.item() - reference.item()) / abs(reference.item()))

    worst_name, worst = "", 0.0
    expected = {name: value.numpy() for name, value in theirs.state_dict().items()}
    for name, value in ours.state_dict().items():
        difference = np.linalg.norm((value.numpy() - expected[name]).ravel().astype(np.float64))
        relative = difference / max(np.linalg.norm(expected[name].ravel().astype(np.float64)), 1e-30)
        if relative > worst:
            worst_name, worst = name, relative
    tolerance = 1e-10 if dtype == "float64" else 1e-4 if frozen else 1e-3
    print(f"{'frozen' if frozen else 'full'} {dtype}: loss {worst_loss:.2e}, {worst_name} {worst:.2e} of {tolerance}")
    assert worst_loss <= tolerance
    assert worst <= tolerance, worst_name
    if frozen:
        for name, value in ours.state_dict().items():
            assert name.startswith("fc.") or np.array_equal(value.numpy(), state[name].astype(value.dtype)), name

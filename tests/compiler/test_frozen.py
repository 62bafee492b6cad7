"""A model cut at its frozen features."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import compiler, models, nn

sys.path.insert(0, str(Path(__file__).parent))
from compiled_networks import Mobile, Vgg


def _frozen_resnet(dtype: Any = distgrad.float64) -> Any:
    distgrad.manual_seed(1)
    network = models.resnet.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4).to(dtype)
    nn.freeze(network)
    network.fc = nn.Linear(512, 4).to(dtype)
    return network.train()


def _images(count: int, size: int = 32, dtype: Any = np.float64) -> Any:
    return distgrad.tensor(np.random.default_rng(count).standard_normal((count, 3, size, size)).astype(dtype))


def test_head_of_features_is_the_model() -> None:
    network = _frozen_resnet()
    split = compiler.split_frozen(network, _images(1))
    assert split is not None
    assert split.feature_shape == (512,) and split.feature_dtype == np.float64
    for count in (1, 2, 5, 9):  # other batch sizes than those of the captures
        x = _images(count)
        features = split.features(x)
        assert features.shape == (count, 512) and not features.requires_grad
        out = split.head(features)
        expected = network(x)
        np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-9)
        found = distgrad.autograd.grad((out**2).sum(), list(network.fc.parameters()))
        wanted = distgrad.autograd.grad((expected**2).sum(), list(network.fc.parameters()))
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-8, atol=1e-9)


def test_the_cut_follows_requires_grad() -> None:
    network = _frozen_resnet()
    nn.unfreeze(network.layer4).train()
    split = compiler.split_frozen(network, _images(1))
    # layer4 takes one value twice: its convolution and its downsampling
    assert split is not None and split.feature_shape == (256, 2, 2)
    whole = models.resnet18(num_classes=4)
    assert compiler.split_frozen(whole, _images(1, dtype=np.float32)) is None
    assert compiler.split_frozen(nn.freeze(whole), _images(1, dtype=np.float32)) is None


def test_random_and_moving_parts_are_not_frozen() -> None:
    network = Vgg(0.5)
    nn.freeze(network.features)
    split = compiler.split_frozen(network.train(), distgrad.randn(2, 3, 16, 16))
    assert split is not None and split.feature_shape == (192,)
    features = split.features(distgrad.randn(6, 3, 16, 16))
    first, second = split.head(features), split.head(features)
    assert not (first == second).all()  # dropout draws anew
    moving = Vgg()
    moving.requires_grad_(False)
    moving.classifier.requires_grad_(True)  # PyTorch's meaning: BatchNorm goes on moving
    split = compiler.split_frozen(moving.train(), distgrad.randn(2, 3, 16, 16))
    assert split is not None and split.feature_shape == (12, 8, 8)


def test_digest_changes_exactly_with_the_features() -> None:
    network = _frozen_resnet()

    def digest() -> str:
        split = compiler.split_frozen(network, _images(1))
        assert split is not None
        return split.digest()

    first = digest()
    assert digest() == first
    with distgrad.no_grad():
        network.fc.weight.add_(1)
    assert digest() == first
    with distgrad.no_grad():
        network.layer3[0].bn1.running_mean[5] += 1e-9
    second = digest()
    assert second != first
    with distgrad.no_grad():
        network.conv1.weight[0, 0, 0, 0] += 1e-9
    third = digest()
    assert third not in (first, second)
    network.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    fourth = digest()
    assert fourth not in (first, second, third)
    with distgrad.backends.convolutions("direct"):
        assert digest() != fourth


def test_batch_sizes_that_change_the_operations() -> None:
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)
            self.frozen = nn.freeze(nn.Linear(3, 3))

        def forward(self, x: Any) -> Any:
            x = self.frozen(x)
            for _ in range(x.shape[0] // 4):
                x = x + 1
            return self.fc(x)

    with pytest.raises(compiler.CaptureError, match="batch size"):
        compiler.split_frozen(Uneven(), distgrad.randn(1, 3))
    with pytest.raises(compiler.CaptureError, match="no sample"):
        compiler.split_frozen(Mobile(), distgrad.zeros(0, 3, 16, 16))

"""Networks that the compiler's tests share: of every kind of step, and none that is large."""

from __future__ import annotations

from typing import Any

import numpy as np

import distgrad
from distgrad import Tensor, models, nn


class Vgg(nn.Module):
    """Convolutions with a bias, pooling, a classifier with dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
            nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(12 * 4 * 4, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))


class Inverted(nn.Module):
    """MobileNetV2's block: expansion, depthwise convolution, projection, a residual without activation; ReLU6."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        hidden = 2 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip
        self.same = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.blocks = nn.Sequential(Inverted(8, 1), Inverted(8, 2), Inverted(8, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Words(nn.Module):
    """A transformer of integers."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=dropout, batch_first=True, activation="gelu")
        self.out = nn.Linear(16, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.embedding(x)))


def _images(size: int, dtype: Any, seed: int, batch: int = 5) -> Tensor:
    generator = np.random.default_rng(seed)
    return distgrad.tensor(generator.standard_normal((batch, 3, size, size)).astype(dtype))


def _integers(dtype: Any, seed: int) -> Tensor:
    return distgrad.tensor(np.random.default_rng(seed).integers(0, 11, (5, 6)))


def _resnet() -> nn.Module:
    """Every kind of block that ResNet-18 has."""
    return models.resnet.ResNet(models.resnet.BasicBlock, [2, 1, 1, 1], num_classes=5)


# By name: makes the network, and makes an input from a dtype and a seed.
NETWORKS: dict[str, tuple[Any, Any]] = {
    "resnet": (_resnet, lambda dtype, seed: _images(40, dtype, seed)),
    "resnet of one image": (_resnet, lambda dtype, seed: _images(64, dtype, seed, 1)),
    "bottleneck": (
        lambda: models.resnet.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5),
        lambda dtype, seed: _images(36, dtype, seed),
    ),
    "vgg": (Vgg, lambda dtype, seed: _images(16, dtype, seed)),
    "vgg with dropout": (lambda: Vgg(0.5), lambda dtype, seed: _images(16, dtype, seed)),
    "mobile": (Mobile, lambda dtype, seed: _images(17, dtype, seed)),
    "transformer": (Words, _integers),
    "transformer with dropout": (lambda: Words(0.3), _integers),
    "mlp": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(27, 16), nn.ReLU(inplace=True), nn.Linear(16, 5)),
        lambda dtype, seed: _images(3, dtype, seed),
    ),
}

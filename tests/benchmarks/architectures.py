"""The networks that the benchmarks measure, described once for distgrad and PyTorch.

``build`` takes the library's module, so both run the same code and give their parameters the same names. The networks
follow He et al. (2015), Simonyan and Zisserman (2014), Sandler et al. (2018) and Vaswani et al. (2017); VGG is without
dropout, whose random numbers differ between libraries.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

CLASSES = 10
VOCABULARY, WIDTH, TOKENS = 1000, 128, 64  # of the transformer
FEATURES = 784  # of the perceptron


def build(library: ModuleType, name: str) -> Any:
    """The network ``name`` of ``ARCHITECTURES`` with values that are the same in every library."""
    model = ARCHITECTURES[name](library)
    fill(library, model)
    return model


def inputs(name: str, batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch for the network ``name`` and its labels: photos of ``size`` pixels, rows of features or token numbers."""
    random = np.random.default_rng(1)
    labels = random.integers(0, CLASSES, batch)
    if name == "transformer":
        return random.integers(0, VOCABULARY, (batch, TOKENS)), labels
    shape = (batch, FEATURES) if name == "mlp" else (batch, 3, size, size)
    return random.standard_normal(shape, np.float32), labels


def fill(library: ModuleType, model: Any) -> None:
    """Gives parameters and running statistics values that keep the signal's size and make no two channels equal."""
    random = np.random.default_rng(0)
    with library.no_grad():
        for name, value in model.state_dict().items():
            shape = tuple(value.shape)
            if not shape:
                continue
            if len(shape) > 1:
                fan_in = 1 if "embedding" in name or "position" in name else np.prod(shape[1:])
                array = random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
            elif name.endswith(("weight", "running_var")):
                array = random.uniform(0.5, 1.0, shape)
            else:
                array = random.standard_normal(shape) * 0.1
            value.copy_(library.from_numpy(array.astype(np.float32)))


# ------------------------------------------------------------------------------------------------------------- the nets


def resnet(library: ModuleType, depths: Sequence[int], bottleneck: bool) -> Any:
    """ResNet with basic blocks or bottlenecks."""
    nn = library.nn
    add = _addition(library)

    class Block(nn.Module):
        def __init__(self, inside: int, planes: int, stride: int) -> None:
            super().__init__()
            outside = planes * (4 if bottleneck else 1)
            self.relu = nn.ReLU(inplace=True)
            self.conv1 = nn.Conv2d(
                inside, planes, 1 if bottleneck else 3, 1 if bottleneck else stride, 0 if bottleneck else 1, bias=False
            )
            self.bn1 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, stride if bottleneck else 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            if bottleneck:
                self.conv3 = nn.Conv2d(planes, outside, 1, bias=False)
                self.bn3 = nn.BatchNorm2d(outside)
            self.downsample = None
            if stride != 1 or inside != outside:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
                )

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            if bottleneck:
                y = self.bn3(self.conv3(self.relu(y)))
            return self.relu(add(y, x if self.downsample is None else self.downsample(x)))

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            inside = 64
            for stage, depth in enumerate(depths):
                planes = 64 << stage
                blocks = []
                for number in range(depth):
                    blocks.append(Block(inside, planes, 2 if stage and not number else 1))
                    inside = planes * (4 if bottleneck else 1)
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(inside, CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(library.flatten(self.avgpool(x), 1))

    return ResNet()


def vgg11(library: ModuleType) -> Any:
    """VGG-11: eight 3x3 convolutions with biases, three wide linear layers."""
    nn = library.nn
    layers: list[Any] = []
    inside = 3
    for planes, pool in ((64, 1), (128, 1), (256, 0), (256, 1), (512, 0), (512, 1), (512, 0), (512, 1)):
        layers += [nn.Conv2d(inside, planes, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2, 2)] if pool else []
        inside = planes
    layers += [nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten()]
    layers += [nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(4096, CLASSES))


def mobilenet(library: ModuleType) -> Any:
    """MobileNetV2 at width 1: inverted residuals with depthwise convolutions."""
    nn = library.nn
    add = _addition(library)

    def unit(inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True) -> list:
        conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outside), *([nn.ReLU6(inplace=True)] if relu else [])]

    class Inverted(nn.Module):
        def __init__(self, inside: int, outside: int, stride: int, expand: int) -> None:
            super().__init__()
            hidden = inside * expand
            self.residual = stride == 1 and inside == outside
            self.conv = nn.Sequential(
                *(unit(inside, hidden) if expand != 1 else []),
                *unit(hidden, hidden, 3, stride, hidden),
                *unit(hidden, outside, relu=False),
            )

        def forward(self, x: Any) -> Any:
            return add(self.conv(x), x) if self.residual else self.conv(x)

    layers = unit(3, 32, 3, 2)
    inside = 32
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, outside, depth, stride in plan:
        for number in range(depth):
            layers.append(Inverted(inside, outside, 1 if number else stride, expand))
            inside = outside
    layers += unit(inside, 1280)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(1280, CLASSES))


def transformer(library: ModuleType) -> Any:
    """Two encoder layers over 64 tokens, their mean, a linear layer."""
    nn = library.nn

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.position = nn.Parameter(library.zeros(1, TOKENS, WIDTH))
            layers = [nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True) for _ in range(2)]
            self.layers = nn.Sequential(*layers)
            self.fc = nn.Linear(WIDTH, CLASSES)

        def forward(self, tokens: Any) -> Any:
            return self.fc(self.layers(self.embedding(tokens) + self.position).mean(1))

    return Transformer()


def mlp(library: ModuleType) -> Any:
    """Two hidden layers of 1024."""
    nn = library.nn
    return nn.Sequential(
        nn.Linear(FEATURES, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, CLASSES)
    )


def _addition(library: ModuleType) -> Callable[[Any, Any], Any]:
    # Each in its better way: PyTorch saves memory by adding in place, distgrad would have to keep a version.
    return operator.iadd if library.__name__ == "torch" else operator.add


ARCHITECTURES: dict[str, Callable[[ModuleType], Any]] = {
    "resnet18": lambda library: resnet(library, (2, 2, 2, 2), False),
    "resnet50": lambda library: resnet(library, (3, 4, 6, 3), True),
    "vgg11": vgg11,
    "mobilenet": mobilenet,
    "transformer": transformer,
    "mlp": mlp,
}

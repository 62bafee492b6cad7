"""The ResNets in plain torch.nn with torchvision's attribute names: what distgrad's are compared with.

The names follow torchvision; the computation follows He et al. (2015), the stride of a bottleneck Goyal et al. (2017),
the groups Xie et al. (2017) and the width Zagoruyko and Komodakis (2016).
"""

from __future__ import annotations

import torch
from torch import nn


class BasicBlock(nn.Module):
    growth = 1

    def __init__(self, inplanes: int, planes: int, stride: int, dilation: int, groups: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    growth = 4

    def __init__(self, inplanes: int, planes: int, stride: int, dilation: int, groups: int, width: int) -> None:
        super().__init__()
        inner = planes * width // 64 * groups  # a group has the width of the first stage times what planes have grown
        self.conv1 = nn.Conv2d(inplanes, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, dilation, dilation, groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """``strides`` and ``dilations`` are those of the four stages; a stage's first block has its dilation too."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: list[int],
        num_classes: int,
        groups: int = 1,
        width: int = 64,
        strides: tuple[int, ...] = (1, 2, 2, 2),
        dilations: tuple[tuple[int, int], ...] = ((1, 1),) * 4,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage in range(4):
            planes, blocks = 64 * 2**stage, []
            for number in range(layers[stage]):
                stride = strides[stage] if number == 0 else 1
                made = block(channels, planes, stride, dilations[stage][min(number, 1)], groups, width)
                if number == 0 and (stride != 1 or channels != planes * block.growth):
                    made.downsample = nn.Sequential(
                        nn.Conv2d(channels, planes * block.growth, 1, stride, bias=False),
                        nn.BatchNorm2d(planes * block.growth),
                    )
                blocks.append(made)
                channels = planes * block.growth
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18(num_classes: int = 1000) -> ResNet:
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes)


def resnet34(num_classes: int = 1000) -> ResNet:
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes)


def resnet50(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes)


def resnet101(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes)


def resnet152(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, [3, 8, 36, 3], num_classes)


def resnext50_32x4d(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes, groups=32, width=4)


def wide_resnet50_2(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes, width=128)


def dilated_resnet50(num_classes: int = 1000) -> ResNet:
    """As in DeepLab: the last two stages keep the second's resolution."""
    dilations = ((1, 1), (1, 1), (1, 2), (2, 4))
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes, strides=(1, 2, 1, 1), dilations=dilations)

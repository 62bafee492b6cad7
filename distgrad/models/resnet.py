"""ResNet-18 and ResNet-34 (He et al., "Deep Residual Learning for Image Recognition", 2015).

The attributes have torchvision's names in torchvision's order, so that state dicts fit both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import nn
from ..autograd import Tensor
from ..ops.shape import flatten
from .weights import WEIGHTS, ResNet18_Weights, ResNet34_Weights, WeightsEnum

NormLayer = Callable[[int], nn.Module]


def _conv3x3(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, kernel_size=3, stride=stride, padding=1, bias=False)


def _conv1x1(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, kernel_size=1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the block's input.

    Args:
        inplanes: channels of the input.
        planes: channels of the output.
        stride: of the first convolution.
        downsample: what brings the input to the output's shape; None where it has it.
        norm_layer: makes the normalization of a number of channels, ``nn.BatchNorm2d`` without it.
    """

    expansion: int = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__()
        normalization: NormLayer = norm_layer or nn.BatchNorm2d
        self.conv1 = _conv3x3(inplanes, planes, stride)
        self.bn1 = normalization(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = normalization(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, inplanes, H, W) -> (N, planes, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu(out + identity)
        return activated


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, and a linear classifier: (N, 3, H, W) -> (N, num_classes).

    Args:
        block: the kind of block.
        layers: how many of them each of the four stages has.
        num_classes: outputs of the classifier.
        zero_init_residual: start the last scale of each block at 0, so that it starts as the identity (Goyal et al.,
            2017).
        norm_layer: makes the normalization of a number of channels, ``nn.BatchNorm2d`` without it.

    Convolutions start normal with Kaiming's standard deviation by fan-out, normalizations at scale 1 and shift 0, and
    the classifier as ``nn.Linear`` does.
    """

    def __init__(
        self,
        block: type[BasicBlock],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__()
        self._norm_layer: NormLayer = norm_layer or nn.BatchNorm2d
        self.inplanes = 64
        self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 256, layers[2], stride=2)
        self.layer4 = self._make_layer(block, 512, layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock):
                    nn.init.zeros_(module.bn2.weight)

    def _make_layer(self, block: type[BasicBlock], planes: int, blocks: int, stride: int = 1) -> nn.Sequential:
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(
                _conv1x1(self.inplanes, planes * block.expansion, stride),
                self._norm_layer(planes * block.expansion),
            )
        stage = [block(self.inplanes, planes, stride, downsample, self._norm_layer)]
        self.inplanes = planes * block.expansion
        stage += [block(self.inplanes, planes, norm_layer=self._norm_layer) for _ in range(1, blocks)]
        return nn.Sequential(*stage)

    def forward(self, x: Tensor) -> Tensor:
        """Photos (N, 3, H, W) to logits (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (N, 64, H / 4, W / 4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 512, H / 32, W / 32)
        logits: Tensor = self.fc(flatten(self.avgpool(x), 1))
        return logits


def _verified(weights: WeightsEnum | str | None, kind: type[WeightsEnum]) -> WeightsEnum | None:
    """The member of ``kind`` that was asked for."""
    if isinstance(weights, str):
        weights = WEIGHTS[weights if "." in weights else f"{kind.__name__}.{weights}"]
    if weights is not None and not isinstance(weights, kind):
        raise TypeError(
            f"Invalid Weight class provided; expected {kind.__name__} but received {type(weights).__name__}."
        )
    return weights


def _resnet(layers: Sequence[int], weights: WeightsEnum | None, progress: bool, arguments: dict[str, Any]) -> ResNet:
    if weights is not None:
        classes = len(weights.meta["categories"])
        if arguments.setdefault("num_classes", classes) != classes:
            raise ValueError(
                f"The parameter 'num_classes' expected value {classes} but got {arguments['num_classes']} instead. "
                f"Load the weights with their {classes} classes, then replace the classifier: "
                f"model.fc = nn.Linear(512, {arguments['num_classes']})."
            )
    model = ResNet(BasicBlock, layers, **arguments)
    if weights is not None:
        model.load_state_dict(weights.get_state_dict(progress=progress))
    return model


def resnet18(*, weights: ResNet18_Weights | str | None = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-18: 11.7 million parameters.

    Args:
        weights: pretrained values, a member of ``ResNet18_Weights`` or its name ("DEFAULT"); None for random ones.
        progress: whether to show the progress of a download.
        kwargs: what ``ResNet`` takes.

    Raises:
        TypeError: weights of another model.
        ConfigError: a name that is none of the weights'.
        ValueError: a ``num_classes`` other than that of the weights.
        WeightsError: the weights cannot be found or fetched.
    """
    return _resnet([2, 2, 2, 2], _verified(weights, ResNet18_Weights), progress, kwargs)


def resnet34(*, weights: ResNet34_Weights | str | None = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-34: 21.8 million parameters. Arguments and errors as ``resnet18``."""
    return _resnet([3, 4, 6, 3], _verified(weights, ResNet34_Weights), progress, kwargs)

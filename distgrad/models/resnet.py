"""ResNet, ResNeXt and Wide ResNet, with torchvision's names.

Sources: He et al., "Deep Residual Learning for Image Recognition" (2015), with a bottleneck's stride at its 3x3
convolution instead of its first (Goyal et al., 2017: "v1.5"); Xie et al., "Aggregated Residual Transformations for Deep
Neural Networks" (2017); Zagoruyko and Komodakis, "Wide Residual Networks" (2016). The attributes have torchvision's
names in torchvision's order, so that state dicts fit both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import nn
from ..autograd import Tensor
from ..ops.shape import flatten
from .catalogue import register_model
from .resnet_weights import (
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    ResNet152_Weights,
    ResNeXt50_32X4D_Weights,
    ResNeXt101_32X8D_Weights,
    ResNeXt101_64X4D_Weights,
    Wide_ResNet50_2_Weights,
    Wide_ResNet101_2_Weights,
)
from .weights import WeightsEnum

NormLayer = Callable[[int], nn.Module]


def _conv3x3(in_planes: int, out_planes: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def _conv1x1(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_planes, out_planes, kernel_size=1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the block's input.

    Args:
        inplanes: channels of the input.
        planes: channels of the output.
        stride: of the first convolution.
        downsample: what brings the input to the output's shape; None where it has it.
        groups, base_width, dilation: as ``Bottleneck``, where alone they can be other than 1, 64 and 1.
        norm_layer: makes the normalization of a number of channels, ``nn.BatchNorm2d`` without it.

    Raises:
        ValueError: other ``groups`` or ``base_width``.
        NotImplementedError: another ``dilation``.
    """

    expansion: int = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__()
        if groups != 1 or base_width != 64:
            raise ValueError(
                f"BasicBlock only supports groups=1 and base_width=64, not {groups} and {base_width}: use Bottleneck"
            )
        if dilation > 1:
            raise NotImplementedError(f"Dilation > 1 not supported in BasicBlock, it is {dilation}: use Bottleneck")
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


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution whose result is added to the block's input.

    Args:
        inplanes: channels of the input.
        planes: a quarter of the channels of the output.
        stride: of the 3x3 convolution.
        downsample: what brings the input to the output's shape; None where it has it.
        groups: of the 3x3 convolution.
        base_width: channels of each group, where ``planes`` is 64; more in proportion where it is more.
        dilation: of the 3x3 convolution.
        norm_layer: makes the normalization of a number of channels, ``nn.BatchNorm2d`` without it.
    """

    expansion: int = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__()
        normalization: NormLayer = norm_layer or nn.BatchNorm2d
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = _conv1x1(inplanes, width)
        self.bn1 = normalization(width)
        self.conv2 = _conv3x3(width, width, stride, groups, dilation)
        self.bn2 = normalization(width)
        self.conv3 = _conv1x1(width, planes * self.expansion)
        self.bn3 = normalization(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, inplanes, H, W) -> (N, 4 * planes, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
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
        groups: of the blocks' 3x3 convolutions.
        width_per_group: channels of each group in the first stage, twice as many in each further one.
        replace_stride_with_dilation: for each of the last three stages, whether to dilate its convolutions instead of
            halving height and width, for outputs of a higher resolution; ``Bottleneck`` only.
        norm_layer: makes the normalization of a number of channels, ``nn.BatchNorm2d`` without it.

    Convolutions start normal with Kaiming's standard deviation by fan-out, normalizations at scale 1 and shift 0, and
    the classifier as ``nn.Linear`` does.

    Raises:
        ValueError: ``replace_stride_with_dilation`` of another length than 3; what ``block`` refuses.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__()
        dilate = (False, False, False) if replace_stride_with_dilation is None else replace_stride_with_dilation
        if len(dilate) != 3:
            raise ValueError(
                f"replace_stride_with_dilation should be None or a 3-element tuple, got {replace_stride_with_dilation}"
            )
        self._norm_layer: NormLayer = norm_layer or nn.BatchNorm2d
        self.inplanes = 64
        self.dilation = 1
        self.groups = groups
        self.base_width = width_per_group
        self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], stride=2, dilate=dilate[0])
        self.layer3 = self._make_layer(block, 256, layers[2], stride=2, dilate=dilate[1])
        self.layer4 = self._make_layer(block, 512, layers[3], stride=2, dilate=dilate[2])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                    if last.weight is not None:
                        nn.init.zeros_(last.weight)

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        first_dilation = self.dilation
        if dilate:
            self.dilation *= stride
            stride = 1
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(
                _conv1x1(self.inplanes, planes * block.expansion, stride),
                self._norm_layer(planes * block.expansion),
            )
        shape = (self.groups, self.base_width)
        stage = [block(self.inplanes, planes, stride, downsample, *shape, first_dilation, self._norm_layer)]
        self.inplanes = planes * block.expansion
        stage += [
            block(self.inplanes, planes, 1, None, *shape, self.dilation, self._norm_layer) for _ in range(1, blocks)
        ]
        return nn.Sequential(*stage)

    def forward(self, x: Tensor) -> Tensor:
        """Photos (N, 3, H, W) to logits (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (N, 64, H / 4, W / 4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 512 * expansion, H / 32, W / 32)
        logits: Tensor = self.fc(flatten(self.avgpool(x), 1))
        return logits


def _resnet(
    block: type[BasicBlock | Bottleneck],
    layers: Sequence[int],
    weights: WeightsEnum | None,
    progress: bool,
    arguments: dict[str, Any],
    **fixed: int,
) -> ResNet:
    for name, value in fixed.items():
        if arguments.setdefault(name, value) != value:
            raise ValueError(f"The parameter '{name}' expected value {value} but got {arguments[name]} instead.")
    if weights is not None:
        classes = len(weights.meta["categories"])
        if arguments.setdefault("num_classes", classes) != classes:
            raise ValueError(
                f"The parameter 'num_classes' expected value {classes} but got {arguments['num_classes']} instead. "
                f"Load the weights with their {classes} classes, then replace the classifier: "
                f"model.fc = nn.Linear({512 * block.expansion}, {arguments['num_classes']})."
            )
    model = ResNet(block, layers, **arguments)
    if weights is not None:
        model.load_state_dict(weights.get_state_dict(progress=progress))
    return model


@register_model(ResNet18_Weights)
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
    return _resnet(BasicBlock, [2, 2, 2, 2], ResNet18_Weights.verify(weights), progress, kwargs)


@register_model(ResNet34_Weights)
def resnet34(*, weights: ResNet34_Weights | str | None = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-34: 21.8 million parameters. Arguments and errors as ``resnet18``."""
    return _resnet(BasicBlock, [3, 4, 6, 3], ResNet34_Weights.verify(weights), progress, kwargs)


@register_model(ResNet50_Weights)
def resnet50(*, weights: ResNet50_Weights | str | None = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-50: 25.6 million parameters. Arguments and errors as ``resnet18``."""
    return _resnet(Bottleneck, [3, 4, 6, 3], ResNet50_Weights.verify(weights), progress, kwargs)


@register_model(ResNet101_Weights)
def resnet101(*, weights: ResNet101_Weights | str | None = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-101: 44.5 million parameters. Arguments and errors as ``resnet18``."""
    return _resnet(Bottleneck, [3, 4, 23, 3], ResNet101_Weights.verify(weights), progress, kwargs)


@register_model(ResNet152_Weights)
def resnet152(*, weights: ResNet152_Weights | str | None = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-152: 60.2 million parameters. Arguments and errors as ``resnet18``."""
    return _resnet(Bottleneck, [3, 8, 36, 3], ResNet152_Weights.verify(weights), progress, kwargs)


@register_model(ResNeXt50_32X4D_Weights)
def resnext50_32x4d(
    *, weights: ResNeXt50_32X4D_Weights | str | None = None, progress: bool = True, **kwargs: Any
) -> ResNet:
    """ResNeXt-50 with 32 groups of 4 channels: 25.0 million parameters. Arguments and errors as ``resnet18``."""
    found = ResNeXt50_32X4D_Weights.verify(weights)
    return _resnet(Bottleneck, [3, 4, 6, 3], found, progress, kwargs, groups=32, width_per_group=4)


@register_model(ResNeXt101_32X8D_Weights)
def resnext101_32x8d(
    *, weights: ResNeXt101_32X8D_Weights | str | None = None, progress: bool = True, **kwargs: Any
) -> ResNet:
    """ResNeXt-101 with 32 groups of 8 channels: 88.8 million parameters. Arguments and errors as ``resnet18``."""
    found = ResNeXt101_32X8D_Weights.verify(weights)
    return _resnet(Bottleneck, [3, 4, 23, 3], found, progress, kwargs, groups=32, width_per_group=8)


@register_model(ResNeXt101_64X4D_Weights)
def resnext101_64x4d(
    *, weights: ResNeXt101_64X4D_Weights | str | None = None, progress: bool = True, **kwargs: Any
) -> ResNet:
    """ResNeXt-101 with 64 groups of 4 channels: 83.5 million parameters. Arguments and errors as ``resnet18``."""
    found = ResNeXt101_64X4D_Weights.verify(weights)
    return _resnet(Bottleneck, [3, 4, 23, 3], found, progress, kwargs, groups=64, width_per_group=4)


@register_model(Wide_ResNet50_2_Weights)
def wide_resnet50_2(
    *, weights: Wide_ResNet50_2_Weights | str | None = None, progress: bool = True, **kwargs: Any
) -> ResNet:
    """ResNet-50 with twice as wide 3x3 convolutions: 68.9 million parameters. Arguments and errors as ``resnet18``."""
    found = Wide_ResNet50_2_Weights.verify(weights)
    return _resnet(Bottleneck, [3, 4, 6, 3], found, progress, kwargs, width_per_group=128)


@register_model(Wide_ResNet101_2_Weights)
def wide_resnet101_2(
    *, weights: Wide_ResNet101_2_Weights | str | None = None, progress: bool = True, **kwargs: Any
) -> ResNet:
    """ResNet-101 with twice as wide 3x3 convolutions: 126.9 million parameters.

    Arguments and errors as ``resnet18``.
    """
    found = Wide_ResNet101_2_Weights.verify(weights)
    return _resnet(Bottleneck, [3, 4, 23, 3], found, progress, kwargs, width_per_group=128)

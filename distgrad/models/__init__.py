"""Models with torchvision's names, and their pretrained weights. Adding a model: one file, and its name here."""

from __future__ import annotations

from collections.abc import Callable

from ..nn import Module
from ..registry import Registry
from .resnet import ResNet, resnet18, resnet34
from .weights import ResNet18_Weights, ResNet34_Weights, get_weight

MODELS: Registry[Callable[..., Module]] = Registry("model")
for _builder in (resnet18, resnet34):
    MODELS.register(_builder.__name__)(_builder)

__all__ = [
    "MODELS",
    "ResNet",
    "ResNet18_Weights",
    "ResNet34_Weights",
    "get_weight",
    "resnet18",
    "resnet34",
]

"""Models by name: what there is, filters, builders and weights, as torchvision offers them."""

from __future__ import annotations

import pytest

import distgrad.data
from distgrad import models
from distgrad.errors import ConfigError
from distgrad.models import (
    MODELS,
    ResNet,
    ResNet50_Weights,
    ResNeXt50_32X4D_Weights,
    get_model,
    get_model_builder,
    get_model_weights,
    get_weight,
    list_models,
    resnet18,
    resnet50,
    resnext50_32x4d,
)
from distgrad.models.catalogue import register_model

ALL = [
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext50_32x4d",
    "wide_resnet101_2",
    "wide_resnet50_2",
]


def test_all_models_are_listed_sorted() -> None:
    assert list_models() == list_models(module=models) == list(MODELS) == ALL
    assert list_models(distgrad.data) == []
    assert all(name in models.__all__ and getattr(models, name) is MODELS[name] for name in ALL)


def test_filters() -> None:
    assert list_models(include="resnet*") == ALL[:5]
    assert list_models(include=["wide*", "*32x4d", "wide*"]) == [
        "resnext50_32x4d",
        "wide_resnet101_2",
        "wide_resnet50_2",
    ]
    assert list_models(exclude="*res*") == []
    assert list_models(include="res*", exclude=("*101*", "resnext*")) == [
        "resnet152",
        "resnet18",
        "resnet34",
        "resnet50",
    ]
    assert list_models(include="ResNet*") == []
    assert list_models(include=[], exclude=[]) == ALL


def test_a_model_by_name_takes_arguments() -> None:
    model = get_model("ResNet18", num_classes=3)
    assert isinstance(model, ResNet) and model.fc.out_features == 3
    assert get_model_builder("RESNET50") is resnet50
    with pytest.raises(ConfigError, match=r"unknown model 'resnet19'\. Did you mean 'resnet18'\? There is: resnet101"):
        get_model("resnet19")


def test_weights_of_a_model() -> None:
    assert get_model_weights("resnet50") is get_model_weights(resnet50) is ResNet50_Weights
    assert get_model_weights(resnext50_32x4d) is ResNeXt50_32X4D_Weights
    for name in ALL:
        weights = get_model_weights(name)
        assert get_weight(f"{weights.__name__}.DEFAULT") is weights.DEFAULT
        assert weights.__name__.lower() == f"{name}_weights"
    with pytest.raises(ValueError, match="none of the models' builders"):
        get_model_weights(len)
    with pytest.raises(ConfigError, match="unknown model 'vgg'"):
        get_model_weights("vgg")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="model 'resnet18' is registered twice"):
        register_model(ResNet50_Weights)(resnet18)
    assert get_model_weights("resnet18") is not ResNet50_Weights

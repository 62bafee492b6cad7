from __future__ import annotations

import copy

import numpy as np
import pytest

import distgrad
from distgrad import nn


def convolutional_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 2)
    )


def test_a_frozen_model_neither_learns_nor_moves() -> None:
    model = convolutional_model()
    x = distgrad.randn(3, 1, 4, 4) + 5
    assert nn.freeze(model) is model and nn.is_frozen(model)
    before = {name: value.tolist() for name, value in model.state_dict().items()}
    for train in (model.train, model[1].train, lambda: nn.Sequential(model).train()):
        train()
        assert not any(part.training for part in model.modules())
        out = model(x)
        assert not out.requires_grad and out.grad_fn is None
    assert {name: value.tolist() for name, value in model.state_dict().items()} == before
    assert model(x).tolist() == model(x).tolist()


def test_a_new_head_is_not_frozen() -> None:
    model = nn.freeze(convolutional_model())
    model[5] = nn.Linear(16, 3)
    assert not nn.is_frozen(model) and nn.is_frozen(model[1])
    model.train()
    assert [part.training for part in model] == [False] * 5 + [True]
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["5.weight", "5.bias"]
    model.eval()
    assert not model[5].training
    mean = model[1].running_mean.tolist()
    model.train()
    model(distgrad.randn(3, 1, 4, 4)).sum().backward()
    assert model[1].running_mean.tolist() == mean
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == [
        "5.weight",
        "5.bias",
    ]


def test_unfreeze_a_part() -> None:
    model = nn.freeze(convolutional_model())
    assert nn.unfreeze(model[5]) is model[5]
    assert not nn.is_frozen(model) and not model[5].training
    model.train()
    assert model[5].training and not model[1].training and not model[4].training
    nn.unfreeze(model)
    assert all(part.training for part in model.train().modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_requires_grad_alone_is_pytorchs_freezing() -> None:
    model = convolutional_model().requires_grad_(False)
    assert not nn.is_frozen(model)
    model.train()
    assert model[1].training
    model(distgrad.randn(3, 1, 4, 4) + 5)
    assert np.abs(model[1].running_mean.numpy()).max() > 0


def test_is_frozen_sees_a_parameter_that_learns() -> None:
    model = nn.freeze(convolutional_model())
    next(model.parameters()).requires_grad = True
    assert not nn.is_frozen(model)


def test_a_copy_is_frozen_too() -> None:
    model = copy.deepcopy(nn.freeze(convolutional_model()))
    assert nn.is_frozen(model) and not model.train()[1].training


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Linear(1, 1)])
def test_only_marked_modules_are_frozen(layer: nn.Module) -> None:
    assert not nn.is_frozen(layer)

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import distgrad
from distgrad import nn


def test_initial_values_and_dtype() -> None:
    distgrad.manual_seed(0)
    layer = nn.Linear(100, 400)
    for parameter in (layer.weight, layer.bias):
        values = parameter.detach().numpy()
        assert np.abs(values).max() <= 0.1 and np.abs(values).max() > 0.095 and abs(values.mean()) < 0.01
        assert values.dtype == np.float32
    assert nn.Linear(2, 3, dtype=distgrad.float64).weight.dtype == np.float64
    distgrad.manual_seed(0)
    assert distgrad.equal(nn.Linear(100, 400).weight, layer.weight)


def test_without_bias_and_empty() -> None:
    layer = nn.Linear(3, 2, bias=False)
    assert layer.bias is None and list(layer.state_dict()) == ["weight"]
    assert layer(distgrad.ones(5, 3)).shape == (5, 2)
    assert nn.Linear(0, 2)(distgrad.ones(5, 0)).tolist() == [[0.0, 0.0]] * 5
    assert nn.Linear(3, 0)(distgrad.ones(5, 3)).shape == (5, 0)


def test_identity_takes_anything() -> None:
    x = distgrad.ones(1)
    assert nn.Identity(54, unused=True)(x) is x
    assert repr(nn.Identity(3)) == "Identity()"


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(5, 3), (3,), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_parity(against_torch: Callable[..., None], shape: tuple[int, ...], bias: bool) -> None:
    torch = pytest.importorskip("torch")
    against_torch(nn.Linear(3, 2, bias=bias), torch.nn.Linear(3, 2, bias=bias), shape)

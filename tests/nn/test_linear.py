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


def test_device() -> None:
    assert nn.Linear(2, 3, True, "cpu", distgrad.float64).bias.dtype == np.float64
    with pytest.raises(RuntimeError, match="there is no device 'cuda'"):
        nn.Linear(2, 3, device="cuda")


def test_bilinear_initial_values() -> None:
    distgrad.manual_seed(0)
    layer = nn.Bilinear(100, 5, 40)
    assert layer.weight.shape == (40, 100, 5) and layer.bias.shape == (40,)
    assert 0.095 < np.abs(layer.weight.detach().numpy()).max() <= 0.1
    assert nn.Bilinear(2, 3, 4, bias=False).bias is None
    with pytest.raises(ValueError, match="in1_features must be > 0"):
        nn.Bilinear(0, 2, 3)


@pytest.mark.parity
@pytest.mark.parametrize("lead", [(5,), (), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_bilinear_parity(against_torch: Callable[..., None], lead: tuple[int, ...], bias: bool) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = nn.Bilinear(3, 2, 4, bias=bias), torch.nn.Bilinear(3, 2, 4, bias=bias)
    against_torch(ours, theirs, (*lead, 3), (*lead, 2))

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn

ARGUMENTS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "bias": False, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 2, "padding": "valid"},
    {"kernel_size": 1, "stride": 2, "groups": 2},
    {"kernel_size": 3, "dilation": (1, 2), "groups": 4},
]


def test_initial_values() -> None:
    distgrad.manual_seed(1)
    layer = nn.Conv2d(4, 300, 5, groups=2)
    bound = 1 / np.sqrt(2 * 25)
    for parameter in (layer.weight, layer.bias):
        values = parameter.detach().numpy()
        assert 0.95 * bound < np.abs(values).max() <= bound * (1 + 1e-6) and abs(values.mean()) < 0.1 * bound
    assert layer.weight.shape == (300, 2, 5, 5)
    assert nn.Conv2d(1, 1, 1, dtype=distgrad.float64).bias.dtype == np.float64


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groups": 0}, ValueError, "groups must be a positive integer, got 0"),
        ({"groups": 3}, ValueError, "in_channels must be divisible by groups, got 4 and 3"),
        ({"groups": 4}, ValueError, "out_channels must be divisible by groups, got 6 and 4"),
        ({"padding": "full"}, ValueError, "Invalid padding string 'full'"),
        ({"padding": "same", "stride": 2}, ValueError, "not supported for strided convolutions"),
        ({"padding": -1}, ValueError, "padding must be .* at least 0, not -1"),
        ({"stride": 0}, ValueError, "stride must be .* at least 1, not 0"),
        ({"padding_mode": "reflect"}, NotImplementedError, "'reflect' is not supported: pad the input yourself"),
        ({"padding_mode": "wrong"}, ValueError, "padding_mode must be one of .* got padding_mode='wrong'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.Conv2d(4, 6, 3, **arguments)


@pytest.mark.parity
@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("shape", [(2, 4, 7, 6), (4, 6, 7)])
def test_parity(against_torch: Callable[..., None], arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(nn.Conv2d(4, 8, **arguments), torch.nn.Conv2d(4, 8, **arguments), shape)

from __future__ import annotations

import warnings
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
    {"kernel_size": (2, 4), "padding": "same"},
    {"kernel_size": 2, "padding": "valid"},
    {"kernel_size": 1, "stride": 2, "groups": 2},
    {"kernel_size": 3, "dilation": (1, 2), "groups": 4},
    {"kernel_size": 3, "padding": (2, 1), "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "replicate", "stride": 2},
    {"kernel_size": 3, "padding": (1, 2), "padding_mode": "circular", "groups": 2},
    {"kernel_size": (2, 3), "padding": "same", "padding_mode": "circular"},
    {"kernel_size": 2, "padding": "valid", "padding_mode": "reflect"},
]
ROW_ARGUMENTS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (2,), "stride": 2, "groups": 2, "bias": False},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": 2, "padding_mode": "circular", "dilation": 2},
]
VOLUME_ARGUMENTS: list[dict[str, Any]] = [
    {"kernel_size": (2, 3, 1), "stride": (1, 2, 1), "padding": (1, 1, 0)},
    {"kernel_size": 2, "padding": 1, "padding_mode": "replicate", "groups": 2},
]
TRANSPOSED: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "bias": False},
    {"kernel_size": 2, "groups": 4, "dilation": 2, "output_padding": 1},
]


@pytest.mark.parametrize(("name", "shape", "fan_in"), [("Conv2d", (300, 2, 5, 5), 50), ("Conv1d", (300, 2, 5), 10)])
def test_initial_values(name: str, shape: tuple[int, ...], fan_in: int) -> None:
    distgrad.manual_seed(1)
    layer = getattr(nn, name)(4, 300, 5, groups=2)
    bound = 1 / np.sqrt(fan_in)
    for parameter in (layer.weight, layer.bias):
        values = parameter.detach().numpy()
        assert 0.95 * bound < np.abs(values).max() <= bound * (1 + 1e-6) and abs(values.mean()) < 0.1 * bound
    assert layer.weight.shape == shape
    assert nn.Conv2d(1, 1, 1, dtype=distgrad.float64).bias.dtype == np.float64


def test_initial_values_of_a_transpose() -> None:
    """PyTorch takes the fan-in of the weight as it lies: from the output's channels."""
    distgrad.manual_seed(1)
    layer = nn.ConvTranspose2d(300, 4, 5, groups=2)
    assert layer.weight.shape == (300, 2, 5, 5)
    bound = 1 / np.sqrt(2 * 25)
    assert 0.95 * bound < np.abs(layer.weight.detach().numpy()).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groups": 0}, ValueError, "groups must be a positive integer, got 0"),
        ({"groups": 3}, ValueError, "in_channels must be divisible by groups, got 4 and 3"),
        ({"groups": 4}, ValueError, "out_channels must be divisible by groups, got 6 and 4"),
        ({"padding": "full"}, ValueError, "Invalid padding string 'full'"),
        ({"padding": "same", "stride": 2}, ValueError, "not supported for strided convolutions"),
        ({"padding": -1}, RuntimeError, "padding must be .* at least 0, not -1"),
        ({"stride": 0}, RuntimeError, "stride must be .* at least 1, not 0"),
        ({"dilation": 1.5}, TypeError, "dilation must be an int or a tuple of 2 ints, not 1.5"),
        ({"padding_mode": "wrong"}, ValueError, "padding_mode must be one of .* got padding_mode='wrong'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.Conv2d(4, 6, 3, **arguments)


def test_bad_arguments_of_a_transpose() -> None:
    with pytest.raises(ValueError, match='Only "zeros" padding mode is supported for ConvTranspose2d'):
        nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect")
    with pytest.raises(TypeError, match="padding must be an int or a tuple of ints, not 'same'"):
        nn.ConvTranspose1d(4, 6, 3, padding="same")  # type: ignore[arg-type]
    layer, x = nn.ConvTranspose2d(1, 1, 3, stride=2), distgrad.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"of \(20, 9\), but valid sizes range from \[9, 9\] to \[10, 10\]"):
        layer(x, output_size=(20, 9))
    with pytest.raises(ValueError, match=r"for 4D input, output_size must have 2 or 4 elements \(got 3\)"):
        layer(x, output_size=(1, 9, 9))


@pytest.mark.parity
@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("shape", [(2, 4, 7, 6), (4, 6, 7)])
def test_parity(against_torch: Callable[..., None], arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even")
        against_torch(nn.Conv2d(4, 8, **arguments), torch.nn.Conv2d(4, 8, **arguments), shape)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        *(("Conv1d", arguments, shape) for arguments in ROW_ARGUMENTS for shape in ((2, 4, 9), (4, 8))),
        *(("Conv3d", arguments, shape) for arguments in VOLUME_ARGUMENTS for shape in ((2, 4, 3, 4, 5), (4, 3, 4, 5))),
        *(("ConvTranspose2d", arguments, shape) for arguments in TRANSPOSED for shape in ((2, 4, 3, 4), (4, 3, 2))),
        ("ConvTranspose1d", {"kernel_size": 4, "stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 5)),
        ("ConvTranspose1d", {"kernel_size": 2, "groups": 2, "bias": False}, (4, 5)),
        ("ConvTranspose3d", {"kernel_size": (2, 1, 3), "stride": 2, "output_padding": (1, 0, 1)}, (1, 4, 2, 3, 2)),
    ],
)
def test_parity_of_the_others(
    against_torch: Callable[..., None], name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even")
        against_torch(getattr(nn, name)(4, 8, **arguments), getattr(torch.nn, name)(4, 8, **arguments), shape)


@pytest.mark.parity
@pytest.mark.parametrize("output_size", [(9, 10), (10, 9), (2, 5, 10, 10)])
def test_output_size_of_a_transpose(output_size: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = nn.ConvTranspose2d(3, 5, 3, stride=2), torch.nn.ConvTranspose2d(3, 5, 3, stride=2)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    output, expected = ours(distgrad.tensor(x), output_size), theirs(torch.from_numpy(x), output_size)
    assert output.shape[-2:] == output_size[-2:]
    np.testing.assert_allclose(output.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-5)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import distgrad
from distgrad import nn


def test_relu_in_place_changes_its_input() -> None:
    leaf = distgrad.tensor([-1.0, 2.0], requires_grad=True)
    x = leaf * 1.0
    out = nn.ReLU(inplace=True)(x)
    assert out is x and x.tolist() == [0.0, 2.0]
    out.sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [0.0, 1.0]
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        nn.ReLU(inplace=True)(leaf)
    y = leaf * 1.0
    assert nn.ReLU()(y) is not y and y.tolist() == [-1.0, 2.0]


def test_softmax_without_dim_warns() -> None:
    x = distgrad.randn(2, 3)
    for layer, reference in ((nn.Softmax(), nn.Softmax(1)), (nn.LogSoftmax(), nn.LogSoftmax(1))):
        with pytest.warns(UserWarning, match="Implicit dimension choice for (log_)?softmax"):
            assert layer(x).tolist() == reference(x).tolist()
    with pytest.warns(UserWarning, match="Implicit"):
        assert nn.Softmax()(distgrad.zeros(2, 1, 3)).tolist() == distgrad.full((2, 1, 3), 0.5).tolist()


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ReLU", {}),
        ("ReLU", {"inplace": True}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("Softmax", {"dim": 1}),
        ("Softmax", {"dim": -1}),
        ("LogSoftmax", {"dim": 0}),
        ("LogSigmoid", {}),
        ("SELU", {}),
        ("SiLU", {}),
        ("SiLU", {"inplace": True}),
        ("Mish", {}),
        ("Hardswish", {}),
        ("LeakyReLU", {}),
        ("LeakyReLU", {"negative_slope": 0.2, "inplace": True}),
        ("ELU", {"alpha": 0.7}),
        ("Hardtanh", {"min_val": -0.4, "max_val": 0.6}),
        ("Softplus", {"beta": 2.0, "threshold": 1.5}),
        ("GELU", {}),
        ("GELU", {"approximate": "tanh"}),
        ("ReLU6", {}),
        ("ReLU6", {"inplace": True}),
        ("Threshold", {"threshold": 0.1, "value": 20}),
        ("Threshold", {"threshold": 0.1, "value": 20, "inplace": True}),
        ("CELU", {}),
        ("CELU", {"alpha": 2.0, "inplace": True}),
        ("PReLU", {}),
        ("PReLU", {"num_parameters": 4, "init": 0.1}),
        ("GLU", {}),
        ("GLU", {"dim": 1}),
        ("Hardshrink", {}),
        ("Hardshrink", {"lambd": 0.2}),
        ("Softshrink", {}),
        ("Softshrink", {"lambd": 0.2}),
        ("Tanhshrink", {}),
        ("Softsign", {}),
        ("Softmin", {"dim": 1}),
        ("Softmax2d", {}),
    ],
)
def test_parity(against_torch: Callable[..., None], name: str, arguments: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(getattr(nn, name)(**arguments), getattr(torch.nn, name)(**arguments), (3, 4, 2))


@pytest.mark.parametrize(
    "name",
    ["SELU", "SiLU", "Mish", "Hardsigmoid", "Hardswish", "LeakyReLU", "ELU", "Hardtanh", "ReLU6", "CELU"],
)
def test_inplace_writes_over_the_input(name: str) -> None:
    x = distgrad.linspace(-4, 4, 9)
    expected = getattr(nn, name)()(x)
    assert expected.tolist() != x.tolist()
    assert getattr(nn, name)(inplace=True)(x) is x
    assert x.tolist() == expected.tolist()


def test_hardsigmoid_is_a_third_of_a_line() -> None:
    out = nn.Hardsigmoid()(distgrad.tensor([-4.0, -3.0, 0.0, 1.5, 3.0, 4.0]))
    assert out.tolist() == pytest.approx([0, 0, 0.5, 0.75, 1, 1])


@pytest.mark.parity
@pytest.mark.parametrize("name", ["Hardsigmoid", "Hardswish", "RReLU", "SELU", "Mish"])
def test_text(name: str) -> None:
    torch = pytest.importorskip("torch")
    for inplace in (False, True):
        assert repr(getattr(nn, name)(inplace=inplace)) == repr(getattr(torch.nn, name)(inplace=inplace))


@pytest.mark.parity
def test_every_activation_of_torch_is_there() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.modules.activation
    layers = {name for name in theirs.__all__ if name != "MultiheadAttention"}
    assert layers - set(nn.__all__) == set()


@pytest.mark.parity
def test_rrelu_in_evaluation(against_torch: Callable[..., None]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(nn.RReLU(0.1, 0.4).eval(), torch.nn.RReLU(0.1, 0.4).eval(), (3, 4))


def test_rrelu_in_training_draws_slopes() -> None:
    x = distgrad.full((10000,), -2.0, requires_grad=True)
    distgrad.manual_seed(3)
    out = nn.RReLU(0.25, 0.75)(x)
    out.sum().backward()
    assert x.grad is not None
    assert (out / -2).tolist() == x.grad.tolist()
    assert 0.25 <= x.grad.min().item() < 0.26 and 0.74 < x.grad.max().item() <= 0.75
    assert x.grad.mean().item() == pytest.approx(0.5, abs=0.01)
    distgrad.manual_seed(3)
    assert nn.RReLU(0.25, 0.75)(x).tolist() == out.tolist()
    assert nn.RReLU(0.25, 0.75)(distgrad.tensor([0.5, 3.0])).tolist() == [0.5, 3.0]


def test_prelu_starts_and_starts_again() -> None:
    layer = nn.PReLU(2, init=0.125, dtype=distgrad.float64)
    assert layer.weight.tolist() == [0.125, 0.125] and layer.weight.dtype == distgrad.float64
    with distgrad.no_grad():
        layer.weight.add_(1.0)
    layer.reset_parameters()
    assert layer.weight.tolist() == [0.125, 0.125] and layer.weight.requires_grad
    assert nn.PReLU().weight.dtype == distgrad.float32


def test_wrong_shapes_and_limits() -> None:
    with pytest.raises(ValueError, match="expected input to be 3D or 4D, got 2D"):
        nn.Softmax2d()(distgrad.zeros(2, 3))
    with pytest.raises(ValueError, match=r"max_val \(1\) must be greater than min_val \(1\)"):
        nn.Hardtanh(1, 1)
    with pytest.raises(RuntimeError, match="Halving dimension must be even"):
        nn.GLU()(distgrad.zeros(2, 3))

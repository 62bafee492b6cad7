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
    ],
)
def test_parity(against_torch: Callable[..., None], name: str, arguments: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(getattr(nn, name)(**arguments), getattr(torch.nn, name)(**arguments), (3, 4, 2))


@pytest.mark.parametrize("name", ["SELU", "SiLU", "Mish", "Hardsigmoid", "Hardswish", "LeakyReLU", "ELU", "Hardtanh"])
def test_inplace_writes_over_the_input(name: str) -> None:
    x = distgrad.linspace(-4, 4, 9)
    expected = getattr(nn, name)()(x)
    assert expected.tolist() != x.tolist()
    assert getattr(nn, name)(inplace=True)(x) is x
    assert x.tolist() == expected.tolist()


def test_hardsigmoid_is_a_third_of_a_line() -> None:
    out = nn.Hardsigmoid()(distgrad.tensor([-4.0, -3.0, 0.0, 1.5, 3.0, 4.0]))
    assert out.tolist() == pytest.approx([0, 0, 0.5, 0.75, 1, 1])

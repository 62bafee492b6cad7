from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn

CROSS_ENTROPY: list[dict[str, Any]] = [
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"label_smoothing": 0.1},
    {"weight": True},
    {"weight": True, "label_smoothing": 0.3},
    {"ignore_index": 1, "weight": True, "label_smoothing": 0.3},
    {"ignore_index": 1, "reduction": "none"},
]


def compare_losses(name: str, arguments: dict[str, Any], input: Any, target: Any) -> None:
    torch = pytest.importorskip("torch")
    arguments, other = dict(arguments), dict(arguments)
    if arguments.get("weight"):
        weight = np.linspace(0.5, 2.0, 4)
        arguments["weight"], other["weight"] = distgrad.tensor(weight), torch.tensor(weight)
    ours, theirs = getattr(nn, name)(**arguments), getattr(torch.nn, name)(**other)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    x, y = distgrad.tensor(input, requires_grad=True), torch.tensor(input, requires_grad=True)
    value, expected = ours(x, distgrad.tensor(target)), theirs(y, torch.tensor(target))
    np.testing.assert_allclose(value.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    value.sum().backward()
    expected.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("arguments", CROSS_ENTROPY)
@pytest.mark.parametrize("extra", [(), (3,)])
def test_cross_entropy_of_indices(arguments: dict[str, Any], extra: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    compare_losses("CrossEntropyLoss", arguments, rng.standard_normal((6, 4, *extra)), rng.integers(0, 4, (6, *extra)))


@pytest.mark.parity
@pytest.mark.parametrize("arguments", [a for a in CROSS_ENTROPY if "ignore_index" not in a])
def test_cross_entropy_of_probabilities(arguments: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    compare_losses("CrossEntropyLoss", arguments, rng.standard_normal((6, 4)), rng.dirichlet(np.ones(4), 6))


@pytest.mark.parity
@pytest.mark.parametrize("arguments", [a for a in CROSS_ENTROPY if "label_smoothing" not in a])
def test_nll(arguments: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    compare_losses("NLLLoss", arguments, rng.standard_normal((6, 4)), rng.integers(0, 4, 6))


@pytest.mark.parity
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse(reduction: str) -> None:
    rng = np.random.default_rng(3)
    compare_losses("MSELoss", {"reduction": reduction}, rng.standard_normal((2, 3)), rng.standard_normal((2, 3)))


def test_the_weight_is_a_buffer() -> None:
    loss = nn.CrossEntropyLoss(distgrad.ones(3))
    assert list(loss.state_dict()) == ["weight"] and not list(loss.parameters())
    assert loss.double().weight.dtype == np.float64
    assert not nn.CrossEntropyLoss().state_dict()


def test_bad_reduction() -> None:
    with pytest.raises(ValueError, match="'median' is not a valid value for reduction"):
        nn.MSELoss(reduction="median")(distgrad.ones(1), distgrad.ones(1))

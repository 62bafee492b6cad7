"""Adam: the update against its definition and PyTorch, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad.autograd import Tensor
from distgrad.optim import Adam

SETTINGS: list[dict[str, Any]] = [
    {},
    {"amsgrad": True},
    {"lr": 0.02, "weight_decay": 0.1},
    {"lr": 0.02, "betas": (0.3, 0.5), "eps": 1e-3, "amsgrad": True, "maximize": True},
    {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    {"betas": (0.0, 0.0)},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Algorithm 1 of Kingma and Ba, with the corrected averages written out."""
    o = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0} | options
    beta1, beta2 = o["betas"]
    g = -g if o.get("maximize") else g
    if o.get("decoupled_weight_decay"):
        p = p - o["lr"] * o["weight_decay"] * p
    else:
        g = g + o["weight_decay"] * p
    memory["m"] = beta1 * memory.get("m", 0) + (1 - beta1) * g
    memory["v"] = beta2 * memory.get("v", 0) + (1 - beta2) * g * g
    memory["u"] = np.maximum(memory.get("u", 0), memory["v"])
    second = memory["u"] if o.get("amsgrad") else memory["v"]
    m_hat, v_hat = memory["m"] / (1 - beta1**t), second / (1 - beta2**t)
    return p - o["lr"] * m_hat / (np.sqrt(v_hat) + o["eps"])


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: Adam(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))
    follows_rule(
        lambda tensors: Adam(tensors, **options),
        lambda p, g, s, t: rule(p, g, s, t, **options).astype(np.float32),
        dtype=np.float32,
        tolerance=1e-5,
    )


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("Adam", **options)
    follows_pytorch("Adam", second={"lr": 0.05, "weight_decay": 0.2, "eps": 1e-4}, **options)


def test_state_has_pytorchs_names() -> None:
    param = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    optimizer = Adam([param], amsgrad=True)
    param.grad = Tensor(np.full((2, 3), 2.0, np.float32))
    optimizer.step()
    optimizer.step()
    entry = optimizer.state_dict()["state"][0]
    assert list(entry) == ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
    assert entry["step"].shape == () and entry["step"].dtype == np.float32 and entry["step"].item() == 2
    np.testing.assert_allclose(entry["exp_avg"].numpy(), 2 * (1 - 0.9**2), rtol=1e-6)
    np.testing.assert_allclose(entry["exp_avg_sq"].numpy(), 4 * (1 - 0.999**2), rtol=1e-4)


def test_the_first_step_is_the_learning_rate_whatever_the_gradient() -> None:
    param = Tensor(np.zeros(3), requires_grad=True)
    param.grad = Tensor(np.array([1e-3, -5.0, 1e4]))
    Adam([param], lr=0.25, eps=0).step()
    np.testing.assert_allclose(param._data, [-0.25, 0.25, -0.25], rtol=1e-12)


def test_amsgrad_that_is_turned_on_midway_starts_from_zero() -> None:
    param = Tensor(np.zeros(3), requires_grad=True)
    param.grad = Tensor(np.ones(3))
    optimizer = Adam([param])
    optimizer.step()
    optimizer.param_groups[0]["amsgrad"] = True
    optimizer.step()
    state = optimizer.state[param]
    np.testing.assert_array_equal(state["max_exp_avg_sq"].numpy(), state["exp_avg_sq"].numpy())


def test_a_step_that_was_saved_as_a_number_goes_on() -> None:
    param = Tensor(np.zeros(2), requires_grad=True)
    param.grad = Tensor(np.ones(2))
    optimizer = Adam([param])
    entry = {"step": 7, "exp_avg": np.zeros(2), "exp_avg_sq": np.ones(2)}
    optimizer.load_state_dict({"state": {0: entry}, "param_groups": [{"lr": 0.1, "params": [0]}]})
    optimizer.step()
    assert optimizer.state[param]["step"].item() == 8
    assert optimizer.state[param]["step"].dtype == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.9, 1)}, "betas must be either both floats or both Tensors"),
        ({"betas": (0.9, distgrad.tensor(0.99))}, "betas must be either both floats or both Tensors"),
        (
            {"betas": (distgrad.tensor(0.9), distgrad.tensor([0.9, 0.99]))},
            r"Tensor betas\[1\] must be 1-element, this has the shape \[2\]",
        ),
        ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
        ({"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
        ({"eps": -1e-8}, "Invalid epsilon value: -1e-08"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adam([Tensor(np.ones(1), requires_grad=True)], **options)


def test_betas_may_be_tensors() -> None:
    param = Tensor(np.ones(1), requires_grad=True)
    optimizer = Adam([param], betas=(distgrad.tensor(0.5), distgrad.tensor([0.75])))
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.75)

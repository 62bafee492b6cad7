"""NAdam: the update against its definition and PyTorch, and the product that it keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import NAdam

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.03, "betas": (0.3, 0.6), "eps": 1e-3, "momentum_decay": 0.1},
    {"weight_decay": 0.2, "maximize": True},
    {"weight_decay": 0.2, "decoupled_weight_decay": True, "momentum_decay": 0},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Algorithm 2 of Dozat; the product of the momenta is rounded to float32, as it is kept."""
    o = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "momentum_decay": 4e-3} | options
    beta1, beta2 = o["betas"]
    g = -g if o.get("maximize") else g
    if o.get("decoupled_weight_decay"):
        p = p * (1 - o["lr"] * o["weight_decay"])
    else:
        g = g + o["weight_decay"] * p
    mu, mu_next = (beta1 * (1 - 0.96 ** (i * o["momentum_decay"]) / 2) for i in (t, t + 1))
    memory["product"] = np.float32(memory.get("product", np.float32(1)) * np.float32(mu))
    product = float(memory["product"])
    memory["m"] = beta1 * memory.get("m", 0) + (1 - beta1) * g
    memory["v"] = beta2 * memory.get("v", 0) + (1 - beta2) * g**2
    m_hat = mu_next * memory["m"] / (1 - product * mu_next) + (1 - mu) * g / (1 - product)
    return p - o["lr"] * m_hat / (np.sqrt(memory["v"] / (1 - beta2**t)) + o["eps"])


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: NAdam(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("NAdam", **options)
    follows_pytorch("NAdam", second={"lr": 0.05, "weight_decay": 0.5}, **options)


def test_the_product_keeps_its_dtype_through_a_state_dict() -> None:
    param = Tensor(np.ones(2, np.float16), requires_grad=True)
    param.grad = Tensor(np.ones(2, np.float16))
    optimizer = NAdam([param])
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    entry = optimizer.state[param]
    assert entry["mu_product"].dtype == entry["step"].dtype == np.float32
    assert entry["mu_product"].item() == state["state"][0]["mu_product"].item()
    assert entry["exp_avg"].dtype == np.float16


def test_refuses_a_negative_momentum_decay() -> None:
    with pytest.raises(ValueError, match=r"Invalid momentum_decay value: -0\.1"):
        NAdam([Tensor(np.ones(1), requires_grad=True)], momentum_decay=-0.1)

"""AdamW: decay that the averages do not see, against its definition and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import Adam, AdamW

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.02, "weight_decay": 0.3},
    {"amsgrad": True, "betas": (0.4, 0.8), "eps": 1e-4},
    {"maximize": True, "weight_decay": 0.0},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Algorithm 2 of Loshchilov and Hutter, the decay scaled by the learning rate."""
    o = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2} | options
    beta1, beta2 = o["betas"]
    g = -g if o.get("maximize") else g
    memory["m"] = beta1 * memory.get("m", 0) + (1 - beta1) * g
    memory["v"] = beta2 * memory.get("v", 0) + (1 - beta2) * g**2
    memory["u"] = np.maximum(memory.get("u", 0), memory["v"])
    v_hat = (memory["u"] if o.get("amsgrad") else memory["v"]) / (1 - beta2**t)
    return p - o["lr"] * (memory["m"] / (1 - beta1**t) / (np.sqrt(v_hat) + o["eps"]) + o["weight_decay"] * p)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: AdamW(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("AdamW", **options)
    follows_pytorch("AdamW", second={"lr": 0.05, "weight_decay": 0.5}, **options)


def test_a_state_of_adam_stays_decoupled() -> None:
    param = Tensor(np.ones(1), requires_grad=True)
    optimizer = AdamW([param])
    optimizer.load_state_dict(Adam([param], weight_decay=0.5).state_dict())
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


def test_without_a_gradient_to_speak_of_it_only_shrinks() -> None:
    param = Tensor(np.array([2.0]), requires_grad=True)
    param.grad = Tensor(np.zeros(1))
    AdamW([param], lr=0.1, weight_decay=0.5).step()
    assert param.item() == pytest.approx(2.0 * 0.95)

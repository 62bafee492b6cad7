"""RAdam: the update against its definition and PyTorch, on both sides of the rectification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import RAdam

SETTINGS: list[dict[str, Any]] = [
    {},  # rectified from the sixth step on
    {"lr": 0.03, "betas": (0.3, 0.6), "eps": 1e-3},  # never: the longest average is too short
    {"weight_decay": 0.2, "maximize": True, "betas": (0.9, 0.99)},
    {"weight_decay": 0.2, "decoupled_weight_decay": True},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Algorithm 2 of Liu et al."""
    o = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0} | options
    beta1, beta2 = o["betas"]
    g = -g if o.get("maximize") else g
    if o.get("decoupled_weight_decay"):
        p = p * (1 - o["lr"] * o["weight_decay"])
    else:
        g = g + o["weight_decay"] * p
    memory["m"] = beta1 * memory.get("m", 0) + (1 - beta1) * g
    memory["v"] = beta2 * memory.get("v", 0) + (1 - beta2) * g**2
    m_hat = memory["m"] / (1 - beta1**t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return p - o["lr"] * m_hat
    r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return p - o["lr"] * m_hat * r * np.sqrt(1 - beta2**t) / (np.sqrt(memory["v"]) + o["eps"])


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: RAdam(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("RAdam", **options)
    follows_pytorch("RAdam", second={"lr": 0.05, "weight_decay": 0.5}, **options)


def test_the_first_steps_are_momentum_steps() -> None:
    param = Tensor(np.zeros(2), requires_grad=True)
    param.grad = Tensor(np.array([1.0, -100.0]))
    optimizer = RAdam([param], lr=0.1)
    for _ in range(5):
        optimizer.step()
    np.testing.assert_allclose(param._data, [-0.5, 50.0], rtol=1e-12)
    optimizer.step()
    assert abs(param._data[1] - 50.0) < 0.1, "the sixth is rectified"

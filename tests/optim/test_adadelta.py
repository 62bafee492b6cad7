"""Adadelta: the update against its definition and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import Adadelta

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.5, "rho": 0.6, "eps": 1e-3},
    {"weight_decay": 0.2, "maximize": True},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Algorithm 1 of Zeiler, its steps scaled by ``lr``."""
    o = {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0} | options
    g = (-g if o.get("maximize") else g) + o["weight_decay"] * p
    memory["g"] = o["rho"] * memory.get("g", 0) + (1 - o["rho"]) * g**2
    step = -np.sqrt(memory.get("x", 0) + o["eps"]) / np.sqrt(memory["g"] + o["eps"]) * g
    memory["x"] = o["rho"] * memory.get("x", 0) + (1 - o["rho"]) * step**2
    return p + o["lr"] * step


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: Adadelta(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("Adadelta", **options)
    follows_pytorch("Adadelta", second={"lr": 2.0, "weight_decay": 0.5}, **options)


@pytest.mark.parametrize("rho", [-0.1, 1.1, float("nan")])
def test_refuses(rho: float) -> None:
    with pytest.raises(ValueError, match=f"Invalid rho value: {rho}"):
        Adadelta([Tensor(np.ones(1), requires_grad=True)], rho=rho)

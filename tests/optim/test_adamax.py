"""Adamax: the update against its definition and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.optim import Adamax

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.03, "betas": (0.2, 0.6), "eps": 1e-3},
    {"weight_decay": 0.2, "maximize": True},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Algorithm 2 of Kingma and Ba."""
    o = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0} | options
    beta1, beta2 = o["betas"]
    g = (-g if o.get("maximize") else g) + o["weight_decay"] * p
    memory["m"] = beta1 * memory.get("m", 0) + (1 - beta1) * g
    memory["u"] = np.maximum(beta2 * memory.get("u", 0), np.abs(g) + o["eps"])
    return p - o["lr"] / (1 - beta1**t) * memory["m"] / memory["u"]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: Adamax(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("Adamax", **options)
    follows_pytorch("Adamax", second={"lr": 0.05, "weight_decay": 0.5}, **options)

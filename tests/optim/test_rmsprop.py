"""RMSprop: the update against its definition and PyTorch, centered or not, with momentum or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import RMSprop

SETTINGS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.8},
    {"centered": True, "lr": 0.02, "alpha": 0.7},
    {"centered": True, "momentum": 0.5, "weight_decay": 0.2, "eps": 1e-3, "maximize": True},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Lecture 6e of Hinton; centered as in Graves, equations 38 to 45."""
    o = {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0, "momentum": 0} | options
    g = (-g if o.get("maximize") else g) + o["weight_decay"] * p
    memory["n"] = o["alpha"] * memory.get("n", 0) + (1 - o["alpha"]) * g**2
    memory["g"] = o["alpha"] * memory.get("g", 0) + (1 - o["alpha"]) * g
    variance = memory["n"] - memory["g"] ** 2 if o.get("centered") else memory["n"]
    memory["delta"] = o["momentum"] * memory.get("delta", 0) + g / (np.sqrt(variance) + o["eps"])
    return p - o["lr"] * memory["delta"]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: RMSprop(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    # centered: n - g^2 cancels, which magnifies the rounding of both sides
    tolerance = 1e-10 if options.get("centered") else 1e-12
    follows_pytorch("RMSprop", tolerance=tolerance, **options)
    follows_pytorch("RMSprop", second={"lr": 0.005, "weight_decay": 0.5}, tolerance=tolerance, **options)


def test_state_has_only_what_is_used() -> None:
    def names(**options: Any) -> list[str]:
        param = Tensor(np.ones(2), requires_grad=True)
        param.grad = Tensor(np.ones(2))
        optimizer = RMSprop([param], **options)
        optimizer.step()
        return list(optimizer.state[param])

    assert names() == ["step", "square_avg"]
    assert names(momentum=0.5, centered=True) == ["step", "square_avg", "momentum_buffer", "grad_avg"]


def test_refuses_a_negative_alpha() -> None:
    with pytest.raises(ValueError, match=r"Invalid alpha value: -0\.1"):
        RMSprop([Tensor(np.ones(1), requires_grad=True)], alpha=-0.1)

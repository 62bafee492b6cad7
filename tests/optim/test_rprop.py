"""Rprop: the update against its definition and PyTorch, and what a change of sign does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import Rprop

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.05, "etas": (0.3, 1.5), "step_sizes": (1e-3, 0.1)},
    {"maximize": True},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Element by element, as in Riedmiller and Braun."""
    o = {"lr": 1e-2, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50)} | options
    g = (-g if o.get("maximize") else g).copy()
    size, last = memory.get("size", np.full_like(p, o["lr"])), memory.get("last", np.zeros_like(p))
    same, turned = g * last > 0, g * last < 0
    size = np.clip(np.where(same, size * o["etas"][1], np.where(turned, size * o["etas"][0], size)), *o["step_sizes"])
    memory["size"], memory["last"] = size, np.where(turned, 0, g)
    return p - np.where(turned, 0, np.sign(g) * size)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: Rprop(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("Rprop", **options)
    follows_pytorch("Rprop", second={"lr": 0.02, "etas": (0.4, 1.1)}, **options)


def test_a_change_of_sign_shortens_the_step_and_is_let_pass() -> None:
    param = Tensor(np.zeros(1), requires_grad=True)
    optimizer = Rprop([param], lr=1.0)
    seen = []
    for grad in (5.0, 0.1, -3.0, -3.0, 0.0, -1e-9):
        param.grad = Tensor(np.array([grad]))
        optimizer.step()
        seen.append(param.item())
    np.testing.assert_allclose(seen, [-1.0, -2.2, -2.2, -1.6, -1.6, -1.0])


@pytest.mark.parametrize("etas", [(0.0, 1.2), (1.0, 1.2), (0.5, 1.0), (0.5, 0.9)])
def test_refuses(etas: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=f"Invalid eta values: {etas[0]}, {etas[1]}"):
        Rprop([Tensor(np.ones(1), requires_grad=True)], etas=etas)

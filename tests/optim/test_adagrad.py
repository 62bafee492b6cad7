"""Adagrad: the update against its definition and PyTorch, and a state that is there from the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import Adagrad

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "lr_decay": 0.2, "eps": 1e-3},
    {"initial_accumulator_value": 0.5, "weight_decay": 0.2, "maximize": True},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Equation 1 of Duchi et al., with a diagonal matrix."""
    o = {"lr": 1e-2, "lr_decay": 0, "eps": 1e-10, "weight_decay": 0, "initial_accumulator_value": 0} | options
    g = (-g if o.get("maximize") else g) + o["weight_decay"] * p
    memory["sum"] = memory.get("sum", o["initial_accumulator_value"]) + g**2
    return p - o["lr"] / (1 + (t - 1) * o["lr_decay"]) * g / (np.sqrt(memory["sum"]) + o["eps"])


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: Adagrad(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("Adagrad", **options)
    follows_pytorch("Adagrad", second={"lr": 0.05, "weight_decay": 0.5}, **options)


def test_state_is_there_before_the_first_step() -> None:
    first, second = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    optimizer = Adagrad([first], initial_accumulator_value=0.25)
    entry = optimizer.state_dict()["state"][0]
    assert entry["step"].item() == 0
    np.testing.assert_array_equal(entry["sum"].numpy(), 0.25)
    optimizer.add_param_group({"params": second})  # of a group that is added, from its first step on
    assert list(optimizer.state_dict()["state"]) == [0]
    second.grad = Tensor(np.ones(2))
    optimizer.step()
    np.testing.assert_array_equal(optimizer.state[second]["sum"].numpy(), 1.25)


@pytest.mark.parametrize("name", ["lr_decay", "initial_accumulator_value"])
def test_refuses_a_negative(name: str) -> None:
    with pytest.raises(ValueError, match=f"Invalid {name} value: -1"):
        Adagrad([Tensor(np.ones(1), requires_grad=True)], **{name: -1})

"""ASGD: the update against its definition and PyTorch, and the average that it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import ASGD

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "lambd": 0.3, "alpha": 0.5, "t0": 4},
    {"t0": 0, "weight_decay": 0.2, "maximize": True},
]


def rule(p: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """The recurrences of the docstring; rate and weight are rounded to float32, as they are kept."""
    o = {"lr": 1e-2, "lambd": 1e-4, "alpha": 0.75, "weight_decay": 0} | options
    g = (-g if o.get("maximize") else g) + o["weight_decay"] * p
    eta = np.float64(np.float32(o["lr"] if t == 1 else o["lr"] / (1 + o["lambd"] * o["lr"] * (t - 1)) ** o["alpha"]))
    return p - o["lambd"] * eta * p - eta * g


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: ASGD(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any], follows_pytorch: Callable[..., None]) -> None:
    follows_pytorch("ASGD", **options)
    follows_pytorch("ASGD", second={"lr": 0.05, "weight_decay": 0.5}, **options)


def test_the_average_is_that_of_the_parameters_from_t0_on() -> None:
    param = Tensor(np.zeros(2), requires_grad=True)
    optimizer = ASGD([param], lr=0.1, t0=3)
    seen = []
    for step in range(12):
        param.grad = Tensor(np.random.default_rng(step).standard_normal(2))
        optimizer.step()
        seen.append(param._data.copy())
        average = optimizer.state[param]["ax"].numpy()
        np.testing.assert_allclose(average, seen[-1] if step < 4 else np.mean(seen[4:], axis=0), rtol=1e-6)
    assert list(optimizer.state[param]) == ["step", "eta", "mu", "ax"]

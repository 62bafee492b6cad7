"""LARS: the update against the algorithm as published, what is left out of it, and what that is good for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import LARS

SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 2.0, "momentum": 0.5, "weight_decay": 0.3, "trust_coefficient": 0.02},
    {"momentum": 0, "weight_decay": 0.1, "eps": 0.5, "maximize": True},
    {"exclude_1d": False, "weight_decay": 0.3, "lr": 1.0},
]


def rule(w: Any, g: Any, memory: dict[str, Any], t: int, **options: Any) -> Any:
    """Algorithm 1 of You et al., plain momentum for biases and the like."""
    o = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0, "trust_coefficient": 1e-3, "eps": 1e-8, "exclude_1d": True}
    o |= options
    g = -g if o.get("maximize") else g
    beta, local = o["weight_decay"], 1.0
    if o["exclude_1d"] and w.ndim < 2:
        beta = 0
    else:
        weight, gradient = np.sqrt(np.sum(w**2)), np.sqrt(np.sum(g**2))
        if weight > 0 and gradient > 0:
            local = o["trust_coefficient"] * weight / (gradient + beta * weight + o["eps"])
    memory["v"] = o["momentum"] * memory.get("v", 0) + o["lr"] * local * (g + beta * w)
    return w - memory["v"]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_the_definition(options: dict[str, Any], follows_rule: Callable[..., None]) -> None:
    follows_rule(lambda tensors: LARS(tensors, **options), lambda p, g, s, t: rule(p, g, s, t, **options))
    follows_rule(
        lambda tensors: LARS(tensors, **options),
        lambda p, g, s, t: rule(p.astype(np.float64), g, s, t, **options).astype(np.float32),
        dtype=np.float32,
        tolerance=1e-5,
    )


def stepped(values: Any, grad: Any, **options: Any) -> np.ndarray[Any, Any]:
    param = Tensor(np.array(values, np.float64), requires_grad=True)
    param.grad = Tensor(np.array(grad, np.float64))
    LARS([param], **options).step()
    return param._data


def test_a_matrix_moves_by_the_same_part_of_its_norm_whatever_its_gradient() -> None:
    weight = np.array([[3.0, 0.0], [0.0, 4.0]])
    for scale in (1e-6, 1.0, 1e6):
        moved = weight - stepped(weight, np.full((2, 2), scale), lr=1.0, trust_coefficient=0.01, eps=0)
        np.testing.assert_allclose(moved, 0.01 * 5.0 / 2.0, rtol=1e-12)  # the gradient's direction is 1/2 each


def test_vectors_are_left_out() -> None:
    bias = [1.0, 2.0]
    np.testing.assert_allclose(stepped(bias, [0.5, -0.5], lr=0.1, weight_decay=10.0), [0.95, 2.05])
    np.testing.assert_allclose(stepped(3.0, 1.0, lr=0.1, weight_decay=10.0), 2.9)
    assert not np.allclose(stepped(bias, [0.5, -0.5], lr=0.1, exclude_1d=False), [0.95, 2.05])


def test_a_weight_of_zeros_takes_a_plain_step() -> None:
    np.testing.assert_allclose(stepped(np.zeros((2, 2)), np.ones((2, 2)), lr=0.1), -0.1)


def test_a_gradient_of_zeros_only_decays() -> None:
    np.testing.assert_allclose(stepped(np.ones((2, 2)), np.zeros((2, 2)), lr=0.1, weight_decay=0.5), 0.95)


def test_a_schedule_acts_on_new_steps_only() -> None:
    param = Tensor(np.ones((1, 2)), requires_grad=True)
    optimizer = LARS([param], lr=1.0, momentum=0.5)
    param.grad = Tensor(np.ones((1, 2)))
    optimizer.step()
    moved = 1.0 - param._data
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    np.testing.assert_allclose(param._data, 1.0 - 1.5 * moved, rtol=1e-12)


def test_norms_of_half_precision_do_not_overflow() -> None:
    param = Tensor(np.full((300, 300), 10.0, np.float16), requires_grad=True)
    param.grad = Tensor(np.full((300, 300), 100.0, np.float16))
    LARS([param], lr=1.0, trust_coefficient=0.1).step()
    np.testing.assert_allclose(param._data, 9.0, rtol=2e-3)  # |w| = 3000: 9e6 is beyond float16
    assert param.dtype == np.float16


def test_norms_of_views() -> None:
    values, grad = np.arange(12.0).reshape(3, 4) + 1, np.arange(12.0).reshape(3, 4) - 3
    param = Tensor(values.copy().T, requires_grad=True)
    param.grad = Tensor(grad.T)
    LARS([param], lr=1.0).step()
    np.testing.assert_allclose(param._data.T, stepped(values, grad, lr=1.0), rtol=1e-12)


def test_different_layers_learn_at_one_rate() -> None:
    """Two layers whose gradients differ by five orders of magnitude: no rate of plain descent suits both."""
    scales = (1e3, 1e-2)
    params = [Tensor(np.full((4, 4), 3.0), requires_grad=True) for _ in scales]
    optimizer = LARS(params, lr=1.0, momentum=0.9, trust_coefficient=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        sum((param * param).sum() * scale for param, scale in zip(params, scales, strict=True)).backward()
        optimizer.step()
    for param in params:
        assert np.abs(param._data).max() < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"momentum": -1}, "Invalid momentum value: -1"),
        ({"trust_coefficient": -1}, "Invalid trust_coefficient value: -1"),
        ({"eps": -1}, "Invalid epsilon value: -1"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LARS([Tensor(np.ones(1), requires_grad=True)], **options)

"""ReduceLROnPlateau: PyTorch's decisions on random losses, every rule by itself, state, and errors."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad.autograd import Tensor
from distgrad.optim import SGD
from distgrad.optim.lr_scheduler import ReduceLROnPlateau

SETTINGS: list[dict[str, Any]] = [
    {},
    {"patience": 2, "factor": 0.5},
    {"patience": 1, "mode": "max", "threshold": 0.05},
    {"patience": 1, "threshold_mode": "abs", "threshold": 0.1, "cooldown": 3},
    {"patience": 0, "mode": "max", "threshold_mode": "abs", "threshold": 0.02, "min_lr": [1e-3, 2e-2]},
    {"patience": 0, "min_lr": 1e-4, "eps": 1e-3},
]


def optimizer_of(rates: tuple[float, ...] = (0.1, 0.03)) -> SGD:
    return SGD([{"params": [Tensor(np.zeros(1), requires_grad=True)], "lr": rate} for rate in rates])


def rates_of(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


@pytest.mark.parity
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_follows_pytorch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    ours = optimizer_of()
    theirs = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (0.1, 0.03)])
    schedule = ReduceLROnPlateau(ours, **options)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    generator = np.random.default_rng(3)
    reductions = 0
    for step in range(200):
        loss = 1 / (1 + 0.1 * step) + 0.1 * generator.standard_normal()
        loss = math.nan if step == 50 else loss
        before = rates_of(ours)
        schedule.step(loss)
        reference.step(loss)
        reductions += rates_of(ours) != before
        np.testing.assert_allclose(rates_of(ours), rates_of(theirs), rtol=1e-12, err_msg=f"step {step}")
        assert schedule.get_last_lr() == rates_of(ours)
        for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "in_cooldown"):
            assert getattr(schedule, name) == getattr(reference, name), name
    assert reductions > 0
    other = ReduceLROnPlateau(optimizer_of())
    other.load_state_dict(reference.state_dict())
    assert other.state_dict() == schedule.state_dict()


def run(losses: list[float], **options: Any) -> list[float]:
    optimizer = optimizer_of((1.0,))
    schedule = ReduceLROnPlateau(optimizer, factor=0.5, **options)
    seen = []
    for loss in losses:
        schedule.step(loss)
        seen += rates_of(optimizer)
    return seen


def test_patience() -> None:
    assert run([5, 5, 5, 5, 5, 5], patience=1) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert run([5, 4, 4, 3, 3, 2], patience=1) == [1] * 6


def test_an_improvement_has_to_be_large_enough() -> None:
    assert run([1.0, 0.95, 0.9], patience=0, threshold=0.2) == [1, 0.5, 0.25]
    assert run([1.0, 0.79, 0.6], patience=0, threshold=0.2) == [1, 1, 1]
    assert run([10.0, 9.7, 9.1], patience=0, threshold=0.5, threshold_mode="abs") == [1, 0.5, 0.5]
    assert run([1.0, 1.15, 1.3], patience=0, threshold=0.2, mode="max") == [1, 0.5, 0.5]
    assert run([-1.0, -0.9], patience=0, threshold=0.05, threshold_mode="abs", mode="max") == [1, 1]


def test_cooldown() -> None:
    assert run([5] * 7, patience=0, cooldown=2) == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_floors() -> None:
    assert run([5] * 5, patience=0, min_lr=0.3) == [1, 0.5, 0.3, 0.3, 0.3]
    assert run([5] * 4, patience=0, eps=0.3) == [1, 0.5, 0.5, 0.5], "a reduction by 0.25 is not worth it"


def test_takes_a_tensor_and_an_epoch() -> None:
    schedule = ReduceLROnPlateau(optimizer_of())
    schedule.step(distgrad.tensor(0.5))
    assert schedule.best == 0.5 and schedule.last_epoch == 1
    with pytest.warns(UserWarning, match="deprecated"):
        schedule.step(0.25, 7)
    assert schedule.last_epoch == 7
    with pytest.raises(ValueError, match="only one element tensors"):
        schedule.step(distgrad.tensor([0.5, 0.6]))


def test_resuming_gives_the_same_rates() -> None:
    losses = [1.0, 1.1, 0.9, 0.95, 1.2, 1.0, 1.3, 0.8, 0.9, 1.0, 1.1, 1.2]
    whole = optimizer_of()
    schedule = ReduceLROnPlateau(whole, patience=1, cooldown=1)
    for loss in losses[:5]:
        schedule.step(loss)
    saved = json.loads(json.dumps({"schedule": schedule.state_dict(), "groups": whole.state_dict()}))
    resumed = optimizer_of((9.0, 9.0))
    second = ReduceLROnPlateau(resumed)
    second.load_state_dict(saved["schedule"])
    resumed.load_state_dict(saved["groups"])
    for loss in losses[5:]:
        schedule.step(loss)
        second.step(loss)
        assert rates_of(whole) == rates_of(resumed)
    assert rates_of(whole) != [0.1, 0.03]


def test_groups_that_are_added() -> None:
    def added(**options: Any) -> Any:
        optimizer = optimizer_of((1.0,))
        schedule = ReduceLROnPlateau(optimizer, patience=0, **options)
        optimizer.add_param_group({"params": [Tensor(np.zeros(1), requires_grad=True)], "lr": 4.0})
        schedule.step(1.0)
        schedule.step(1.0)
        return schedule

    assert added(min_lr=0.5).get_last_lr() == [0.5, 0.5]
    with pytest.raises(RuntimeError, match=r"made for 1 parameter groups.* now has 2: set its min_lrs"):
        added(min_lr=[0.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1.0}, "Factor should be < 1.0"),
        ({"mode": "least"}, "mode least is unknown!"),
        ({"threshold_mode": "part"}, "threshold mode part is unknown!"),
        ({"min_lr": [0.1]}, "expected 2 min_lrs, got 1"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReduceLROnPlateau(optimizer_of(), **options)
    with pytest.raises(TypeError, match="str is not an Optimizer"):
        ReduceLROnPlateau("sgd")  # type: ignore[arg-type]

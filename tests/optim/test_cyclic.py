"""CyclicLR and OneCycleLR: PyTorch's rates and momenta, their shapes, state through JSON, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad import optim
from distgrad.autograd import Tensor
from distgrad.optim import lr_scheduler

Factory = Callable[[Any, Any], Any]  # (lr_scheduler module, optimizer) -> schedule

SCHEDULES: dict[str, Factory] = {
    "triangular": lambda m, o: m.CyclicLR(o, 0.01, 0.1, step_size_up=7),
    "triangular2": lambda m, o: m.CyclicLR(o, [0.01, 0.02], [0.1, 0.5], 5, 9, mode="triangular2"),
    "exp_range": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 6, mode="exp_range", gamma=0.99, base_momentum=[0.7, 0.75]),
    "scale_fn-cycle": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 4, scale_fn=lambda cycle: 1 / cycle),
    "scale_fn-iterations": lambda m, o: m.CyclicLR(
        o, 0.01, 0.1, 4, 3, scale_fn=lambda epoch: 0.95**epoch, scale_mode="iterations", max_momentum=0.99
    ),
    "no-momentum": lambda m, o: m.CyclicLR(o, 0.01, 0.1, 4, cycle_momentum=False),
    "after-a-warmup": lambda m, o: m.SequentialLR(
        o, [m.CyclicLR(o, 0.01, 0.1, 4, cycle_momentum=False), m.LinearLR(o, 0.5)], [9]
    ),
    "one": lambda m, o: m.OneCycleLR(o, 0.1, total_steps=60),
    "one-epochs": lambda m, o: m.OneCycleLR(o, [0.1, 0.2], epochs=6, steps_per_epoch=10, anneal_strategy="linear"),
    "one-three": lambda m, o: m.OneCycleLR(
        o, 0.1, 60, pct_start=0.4, three_phase=True, base_momentum=[0.6, 0.7], max_momentum=0.9
    ),
    "one-factors": lambda m, o: m.OneCycleLR(o, 0.1, 60, div_factor=3.0, final_div_factor=7.0, cycle_momentum=False),
    "one-down": lambda m, o: m.OneCycleLR(o, 0.1, 60, pct_start=0.0),
    "one-up": lambda m, o: m.OneCycleLR(o, 0.1, 60, pct_start=1.0),
}
STEPS = 60
each = pytest.mark.parametrize("name", SCHEDULES)


def optimizer_of(kind: str = "SGD", rates: tuple[float, ...] = (0.3, 0.4)) -> Any:
    groups = [{"params": [Tensor(np.zeros(1), requires_grad=True)], "lr": rate} for rate in rates]
    return getattr(optim, kind)(groups)


def seen_in(optimizer: Any) -> list[Any]:
    """Rates and momenta, whichever the optimizer has."""
    keys = ("lr", "momentum", "betas", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")
    return [float(x) for group in optimizer.param_groups for key in keys if key in group for x in np.ravel(group[key])]


@pytest.mark.parity
@each
@pytest.mark.parametrize("kind", ["SGD", "Adam", "RMSprop"])
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_follows_pytorch(name: str, kind: str) -> None:
    torch = pytest.importorskip("torch")
    ours = optimizer_of(kind)
    theirs = getattr(torch.optim, kind)(
        [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (0.3, 0.4)]
    )
    schedule, reference = SCHEDULES[name](lr_scheduler, ours), SCHEDULES[name](torch.optim.lr_scheduler, theirs)
    for step in range(STEPS):
        np.testing.assert_allclose(seen_in(ours), seen_in(theirs), rtol=1e-12, err_msg=f"step {step}")
        assert schedule.get_last_lr() == [group["lr"] for group in ours.param_groups]
        if step + 1 < STEPS:
            schedule.step()
            reference.step()


@each
@pytest.mark.parametrize("at", [0, 1, 13, 31])
def test_resuming_through_json_gives_the_same_rates(name: str, at: int) -> None:
    optimizer = optimizer_of("Adam")
    schedule = SCHEDULES[name](lr_scheduler, optimizer)
    for _ in range(at):
        schedule.step()
    saved = json.loads(json.dumps({"schedule": schedule.state_dict(), "groups": optimizer.state_dict()}))
    resumed = optimizer_of("Adam", (9.0, 9.0))
    second = SCHEDULES[name](lr_scheduler, resumed)
    second.load_state_dict(saved["schedule"])
    resumed.load_state_dict(saved["groups"])
    for _ in range(25):
        assert seen_in(resumed) == seen_in(optimizer)
        schedule.step()
        second.step()


@pytest.mark.parity
@pytest.mark.parametrize("name", ["triangular2", "exp_range", "one-three"])
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_takes_a_state_of_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (0.3, 0.4)])
    reference = SCHEDULES[name](torch.optim.lr_scheduler, theirs)
    for _ in range(11):
        reference.step()
    ours = optimizer_of()
    schedule = SCHEDULES[name](lr_scheduler, ours)
    schedule.load_state_dict(reference.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for _ in range(30):
        schedule.step()
        reference.step()
        np.testing.assert_allclose(seen_in(ours), seen_in(theirs), rtol=1e-12)


def test_a_triangle_is_a_triangle() -> None:
    optimizer = optimizer_of(rates=(1.0,))
    schedule = lr_scheduler.CyclicLR(optimizer, 0.0, 1.0, 4, 2, base_momentum=0.5, max_momentum=0.9)
    rates, momenta = [], []
    for _ in range(13):
        rates += schedule.get_last_lr()
        momenta.append(optimizer.param_groups[0]["momentum"])
        schedule.step()
    triangle = [0, 0.25, 0.5, 0.75, 1, 0.5]
    np.testing.assert_allclose(rates, [*triangle, *triangle, 0], atol=1e-12)
    np.testing.assert_allclose(momenta, 0.9 - 0.4 * np.array(rates), atol=1e-12)


def test_one_cycle_begins_peaks_and_ends_where_it_says() -> None:
    optimizer = optimizer_of(rates=(1.0,))
    schedule = lr_scheduler.OneCycleLR(optimizer, 2.0, total_steps=101, pct_start=30 / 101, div_factor=10.0)
    seen = []
    for _ in range(101):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        schedule.step()
    assert seen[0] == (pytest.approx(0.2), pytest.approx(0.95))
    assert seen[29] == (pytest.approx(2.0), pytest.approx(0.85))
    assert seen[100] == (pytest.approx(0.2 / 1e4), pytest.approx(0.95))
    with pytest.raises(ValueError, match=r"Tried to step 102 times\. The specified number of total steps is 101"):
        schedule.step()


def test_callable_objects_are_saved_by_their_attributes() -> None:
    class Power:
        def __init__(self, base: float) -> None:
            self.base = base

        def __call__(self, cycle: float) -> float:
            return self.base**cycle

    first = lr_scheduler.CyclicLR(optimizer_of(), 0.0, 1.0, 2, scale_fn=Power(0.5))
    state = json.loads(json.dumps(first.state_dict()))
    assert state["_scale_fn_custom"] == {"base": 0.5}
    second = lr_scheduler.CyclicLR(optimizer_of(), 0.0, 1.0, 2, scale_fn=Power(0.9))
    second.load_state_dict(state)
    assert second.scale_fn(3) == 0.125
    plain = lr_scheduler.CyclicLR(optimizer_of(), 0.0, 1.0, 2, scale_fn=lambda cycle: 1.0)
    assert plain.state_dict()["_scale_fn_custom"] is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m, o: m.CyclicLR("sgd", 0.1, 1.0), TypeError, "str is not an Optimizer"),
        (
            lambda m, o: m.CyclicLR(o, 0.1, 1.0, mode="square"),
            ValueError,
            "mode is invalid and scale_fn is None: 'square'",
        ),
        (
            lambda m, o: m.CyclicLR(o, [0.1], 1.0),
            ValueError,
            "base_lr must have the same length as optimizer.param_groups",
        ),
        (lambda m, o: m.CyclicLR(o, 0.1, (1.0, 1, 1)), ValueError, "max_lr has 3 values, param_groups has 2"),
        (lambda m, o: m.CyclicLR(optimizer_of("Adagrad"), 0.1, 1.0), ValueError, "must support momentum or beta1"),
        (lambda m, o: m.OneCycleLR("sgd", 0.1, 5), TypeError, "str is not an Optimizer"),
        (lambda m, o: m.OneCycleLR(o, 0.1), ValueError, r"define either total_steps OR \(epochs AND steps_per_epoch\)"),
        (lambda m, o: m.OneCycleLR(o, 0.1, epochs=3), ValueError, "You must define either total_steps OR"),
        (lambda m, o: m.OneCycleLR(o, 0.1, 0), ValueError, "Expected positive integer total_steps, but got 0"),
        (lambda m, o: m.OneCycleLR(o, 0.1, 2.5), ValueError, "Expected positive integer total_steps, but got 2.5"),
        (
            lambda m, o: m.OneCycleLR(o, 0.1, epochs=3, steps_per_epoch=-1),
            ValueError,
            "Expected positive integer steps_per_epoch, but got -1",
        ),
        (lambda m, o: m.OneCycleLR(o, 0.1, 9, pct_start=1), ValueError, "Expected float between 0 and 1 pct_start"),
        (lambda m, o: m.OneCycleLR(o, 0.1, 9, pct_start=1.5), ValueError, "but got 1.5"),
        (lambda m, o: m.OneCycleLR(o, 0.1, 9, anneal_strategy="exp"), ValueError, "one of 'cos' or 'linear'"),
        (lambda m, o: m.OneCycleLR(optimizer_of("Adagrad"), 0.1, 9), ValueError, "must support momentum or beta1"),
    ],
)
def test_refuses(make: Factory, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(lr_scheduler, optimizer_of())

"""Schedules: PyTorch's values for hundreds of steps, composition, changes by hand, state through JSON, and errors."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.optim import SGD, lr_scheduler

STEPS = 300
BASE = (0.1, 0.03)

Factory = Callable[[Any, Any], Any]  # (lr_scheduler module, optimizer) -> schedule


def optimizer_of(rates: tuple[float, ...] = BASE) -> SGD:
    groups = [{"params": [Tensor(np.zeros(1), requires_grad=True)], "lr": rate} for rate in rates]
    return SGD(groups)


def rates_of(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def warmup_then_cosine(m: Any, o: Any, warmup: int = 20, total: int = 120) -> Any:
    members = [m.LinearLR(o, 0.01, total_iters=warmup), m.CosineAnnealingLR(o, total - warmup, eta_min=1e-4)]
    return m.SequentialLR(o, members, milestones=[warmup])


SCHEDULES: dict[str, Factory] = {
    "step": lambda m, o: m.StepLR(o, 30),
    "step-1": lambda m, o: m.StepLR(o, 1, gamma=0.99),
    "multistep": lambda m, o: m.MultiStepLR(o, [10, 80, 80, 200], gamma=0.3),
    "multistep-0": lambda m, o: m.MultiStepLR(o, [0, 3], gamma=0.5),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.98),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, STEPS),
    "cosine-eta_min": lambda m, o: m.CosineAnnealingLR(o, STEPS - 1, eta_min=1e-3),
    "cosine-beyond": lambda m, o: m.CosineAnnealingLR(o, 37, eta_min=0.01),
    "cosine-beyond-to-0": lambda m, o: m.CosineAnnealingLR(o, 50),
    "cosine-1": lambda m, o: m.CosineAnnealingLR(o, 1, eta_min=0.01),
    "linear": lambda m, o: m.LinearLR(o),
    "linear-down": lambda m, o: m.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=100),
    "linear-slow": lambda m, o: m.LinearLR(o, start_factor=1e-3, end_factor=0.9, total_iters=250),
    "linear-0": lambda m, o: m.LinearLR(o, 0.5, total_iters=0),
    "constant": lambda m, o: m.ConstantLR(o),
    "constant-long": lambda m, o: m.ConstantLR(o, factor=0.2, total_iters=200),
    "lambda": lambda m, o: m.LambdaLR(o, lambda epoch: 0.95**epoch),
    "lambda-each": lambda m, o: m.LambdaLR(o, [lambda epoch: 1 / (1 + epoch), lambda epoch: epoch % 7]),
    "multiplicative": lambda m, o: m.MultiplicativeLR(o, lambda epoch: 0.97 + 0.05 * (epoch % 2)),
    "multiplicative-each": lambda m, o: m.MultiplicativeLR(o, [lambda epoch: 0.99, lambda epoch: 1.001]),
    "polynomial": lambda m, o: m.PolynomialLR(o),
    "polynomial-long": lambda m, o: m.PolynomialLR(o, total_iters=250, power=2.0),
    "polynomial-root": lambda m, o: m.PolynomialLR(o, total_iters=100, power=0.5),
    "restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 10),
    "restarts-longer": lambda m, o: m.CosineAnnealingWarmRestarts(o, 7, T_mult=2, eta_min=0.002),
    "chained": lambda m, o: m.ChainedScheduler(
        [m.ConstantLR(o, 0.5, total_iters=9), m.ExponentialLR(o, 0.97), m.StepLR(o, 11), m.CosineAnnealingLR(o, 40)]
    ),
    "warmup-multiplicative": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=4), m.MultiplicativeLR(o, lambda epoch: 0.9)], [6]
    ),
    "warmup-polynomial": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=10), m.PolynomialLR(o, total_iters=200, power=2.0)], [10]
    ),
    "warmup-restarts": lambda m, o: m.SequentialLR(
        o, [m.ConstantLR(o, 0.1, total_iters=3), m.CosineAnnealingWarmRestarts(o, 20, T_mult=3)], [3]
    ),
    "warmup-cosine": warmup_then_cosine,
    "warmup-cosine-beyond": lambda m, o: warmup_then_cosine(m, o, 5, 25),
    "no-warmup-cosine": lambda m, o: warmup_then_cosine(m, o, 0, 100),
    "warmup-step": lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, total_iters=4), m.StepLR(o, 40)], [4]),
    "warmup-lambda": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=10), m.LambdaLR(o, lambda epoch: 0.9**epoch)], [10]
    ),
    "four": lambda m, o: m.SequentialLR(
        o,
        [
            m.ConstantLR(o, 0.1, total_iters=100),
            m.ExponentialLR(o, 0.9),
            m.MultiStepLR(o, [0, 15], gamma=0.5),
            m.ConstantLR(o, 0.3, total_iters=7),
        ],
        [12, 40, 80],
    ),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_follows_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = (
        optimizer_of(),
        torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in BASE]),
    )
    make = SCHEDULES[name]
    schedule, reference = make(lr_scheduler, ours), make(torch.optim.lr_scheduler, theirs)
    for step in range(STEPS):
        np.testing.assert_allclose(rates_of(ours), rates_of(theirs), rtol=1e-12, atol=1e-15, err_msg=f"step {step}")
        assert schedule.get_last_lr() == rates_of(ours)
        if name != "chained":  # which counts nothing itself
            assert schedule.last_epoch == reference.last_epoch == step
        schedule.step()
        reference.step()


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", [name for name in SCHEDULES if "warmup" not in name and name not in ("chained", "four")]
)
@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.filterwarnings("ignore:step.epoch. is deprecated")
def test_jumps_to_an_epoch_as_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours = optimizer_of()
    theirs = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in BASE])
    make = SCHEDULES[name]
    schedule, reference = make(lr_scheduler, ours), make(torch.optim.lr_scheduler, theirs)
    for epoch in (3, 4, None, 17, 80, None, 0, None, 45):
        if name == "linear-0" and epoch is not None:
            continue  # PyTorch divides by 0
        schedule.step() if epoch is None else schedule.step(epoch)
        reference.step() if epoch is None else reference.step(epoch)
        np.testing.assert_allclose(rates_of(ours), rates_of(theirs), rtol=1e-12, atol=1e-15, err_msg=f"epoch {epoch}")
        assert schedule.last_epoch == reference.last_epoch


@pytest.mark.parity
@pytest.mark.parametrize("mult", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_restarts_go_by_parts_of_an_epoch(mult: int) -> None:
    torch = pytest.importorskip("torch")
    ours = optimizer_of()
    theirs = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in BASE])
    schedule = lr_scheduler.CosineAnnealingWarmRestarts(ours, 5, mult, 1e-3)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, 5, mult, 1e-3)
    for batch in range(300):
        schedule.step(batch / 8)
        reference.step(batch / 8)
        np.testing.assert_allclose(rates_of(ours), rates_of(theirs), rtol=1e-12)
    for name in ("T_0", "T_i", "T_cur", "T_mult", "last_epoch"):
        assert getattr(schedule, name) == getattr(reference, name)


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", ["step", "multistep", "cosine", "linear", "polynomial", "restarts-longer", "warmup-cosine"]
)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_takes_a_state_of_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in BASE])
    reference = SCHEDULES[name](torch.optim.lr_scheduler, theirs)
    for _ in range(11):
        reference.step()
    ours = optimizer_of((9.0, 9.0))
    schedule = SCHEDULES[name](lr_scheduler, ours)
    schedule.load_state_dict(reference.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for _ in range(30):
        schedule.step()
        reference.step()
        np.testing.assert_allclose(rates_of(ours), rates_of(theirs), rtol=1e-12)


@pytest.mark.parity
def test_names_and_arguments_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    assert set(lr_scheduler.__all__) == set(torch.optim.lr_scheduler.__all__)
    for name in lr_scheduler.__all__:
        ours, theirs = (
            inspect.signature(getattr(module, name)).parameters for module in (lr_scheduler, torch.optim.lr_scheduler)
        )
        assert [(p.name, p.default, p.kind) for p in ours.values()] == [
            (p.name, p.default, p.kind) for p in theirs.values()
        ], name


def test_step_of_an_epoch_is_deprecated() -> None:
    optimizer = optimizer_of()
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    with pytest.warns(UserWarning, match=r"step\(epoch\) is deprecated, as in PyTorch: call step\(\)") as caught:
        schedule.step(3)
    assert caught[0].filename == __file__
    assert rates_of(optimizer) == [0.1 * 0.5**3, 0.03 * 0.5**3]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rate_that_is_a_tensor_is_written_to(name: str) -> None:
    numbers = optimizer_of()
    tensors = optimizer_of()
    held = [Tensor(np.array(rate)) for rate in BASE]
    for group, tensor in zip(tensors.param_groups, held, strict=True):
        group["lr"] = tensor
    first, second = SCHEDULES[name](lr_scheduler, numbers), SCHEDULES[name](lr_scheduler, tensors)
    for _ in range(25):
        assert [tensor.item() for tensor in held] == rates_of(numbers) == second.get_last_lr()
        first.step()
        second.step()
    assert all(group["lr"] is tensor for group, tensor in zip(tensors.param_groups, held, strict=True))
    assert all(type(group["initial_lr"]) is float for group in tensors.param_groups)
    json.dumps(second.state_dict())


def test_a_schedule_of_a_users_own() -> None:
    class Halving(lr_scheduler.LRScheduler):
        def get_lr(self) -> list[float]:
            assert self._get_lr_called_within_step
            return [base / 2**self.last_epoch for base in self.base_lrs]

    optimizer = optimizer_of()
    schedule = Halving(optimizer)
    schedule.step()
    assert rates_of(optimizer) == [0.05, 0.015] and not schedule._get_lr_called_within_step
    with pytest.warns(UserWarning, match="deprecated"):
        schedule.step(3)
    assert rates_of(optimizer) == [0.1 / 8, 0.03 / 8]


def test_a_chain_after_a_warmup_starts_from_the_initial_rates() -> None:
    m, optimizer, expected = lr_scheduler, optimizer_of((1.0,)), optimizer_of((1.0,))
    inner = m.ChainedScheduler([m.ExponentialLR(optimizer, 0.9), m.StepLR(optimizer, 3, 0.5)])
    chain = m.ChainedScheduler([inner])
    schedule = m.SequentialLR(optimizer, [m.LinearLR(optimizer, 0.5, total_iters=3), chain], [5])
    for _ in range(5):
        schedule.step()
    plain = [m.ExponentialLR(expected, 0.9), m.StepLR(expected, 3, 0.5)]
    for _ in range(9):
        assert rates_of(optimizer) == rates_of(expected) == schedule.get_last_lr()
        schedule.step()
        for member in plain:
            member.step()


@pytest.mark.parity
@pytest.mark.parametrize(
    "name",
    [
        "step",
        "cosine",
        "linear-slow",
        "exponential",
        "lambda",
        "multistep",
        "constant",
        "multiplicative",
        "polynomial",
        "restarts",
    ],
)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_last_epoch_resumes_as_in_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    makes: dict[str, Any] = {
        "step": lambda m, o, e: m.StepLR(o, 7, last_epoch=e),
        "cosine": lambda m, o, e: m.CosineAnnealingLR(o, 30, last_epoch=e),
        "linear-slow": lambda m, o, e: m.LinearLR(o, 0.1, total_iters=50, last_epoch=e),
        "exponential": lambda m, o, e: m.ExponentialLR(o, 0.9, last_epoch=e),
        "lambda": lambda m, o, e: m.LambdaLR(o, lambda epoch: 0.9**epoch, last_epoch=e),
        "multistep": lambda m, o, e: m.MultiStepLR(o, [3, 14], last_epoch=e),
        "constant": lambda m, o, e: m.ConstantLR(o, 0.5, 12, last_epoch=e),
        "multiplicative": lambda m, o, e: m.MultiplicativeLR(o, lambda epoch: 0.9, last_epoch=e),
        "polynomial": lambda m, o, e: m.PolynomialLR(o, 30, 2.0, last_epoch=e),
        "restarts": lambda m, o, e: m.CosineAnnealingWarmRestarts(o, 12, 2, last_epoch=e),
    }
    ours = optimizer_of()
    theirs = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in BASE])
    for optimizer in (ours, theirs):
        for group in optimizer.param_groups:
            group["initial_lr"], group["lr"] = group["lr"], group["lr"] / 2
    schedule = makes[name](lr_scheduler, ours, 9)
    reference = makes[name](torch.optim.lr_scheduler, theirs, 9)
    for _ in range(60):
        np.testing.assert_allclose(rates_of(ours), rates_of(theirs), rtol=1e-12, atol=1e-15)
        assert schedule.last_epoch == reference.last_epoch
        schedule.step()
        reference.step()


def test_the_first_rate_is_set_when_the_schedule_is_made() -> None:
    optimizer = optimizer_of()
    schedule = lr_scheduler.LinearLR(optimizer, 0.25, total_iters=4)
    assert rates_of(optimizer) == schedule.get_last_lr() == [0.025, 0.0075]
    assert [group["initial_lr"] for group in optimizer.param_groups] == list(BASE)
    assert schedule.last_epoch == 0 and schedule.base_lrs == list(BASE)


def test_a_second_schedule_starts_from_the_initial_rate_of_the_first() -> None:
    optimizer = optimizer_of((0.1,))
    lr_scheduler.ExponentialLR(optimizer, 0.5).step()
    assert rates_of(optimizer) == [0.05]
    assert lr_scheduler.CosineAnnealingLR(optimizer, 10).base_lrs == [0.1]


@pytest.mark.parametrize("period", [1, 2, 10, 90])
def test_cosine_is_the_closed_form(period: int) -> None:
    optimizer = optimizer_of()
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, period, eta_min=0.002)
    for epoch in range(3 * period + 1):
        expected = [0.002 + (base - 0.002) * (1 + math.cos(math.pi * epoch / period)) / 2 for base in BASE]
        np.testing.assert_allclose(rates_of(optimizer), expected, rtol=0, atol=1e-12)
        schedule.step()


def test_warmup_then_cosine_is_what_it_says() -> None:
    optimizer = optimizer_of((1.0,))
    schedule = warmup_then_cosine(lr_scheduler, optimizer, warmup=10, total=30)
    seen = []
    for _ in range(31):
        seen += rates_of(optimizer)
        schedule.step()
    np.testing.assert_allclose(seen[:10], 0.01 + 0.99 * np.arange(10) / 10, rtol=1e-12)
    cosine = 1e-4 + (1 - 1e-4) * (1 + np.cos(np.pi * np.arange(21) / 20)) / 2
    np.testing.assert_allclose(seen[10:], cosine, rtol=0, atol=1e-12)


def test_sequences_nest() -> None:
    m, flat, nested = lr_scheduler, optimizer_of((1.0,)), optimizer_of((1.0,))
    a = m.SequentialLR(
        flat, [m.LinearLR(flat, 0.5, total_iters=2), m.StepLR(flat, 3), m.ExponentialLR(flat, 0.9)], [2, 9]
    )
    inner = m.SequentialLR(nested, [m.LinearLR(nested, 0.5, total_iters=2), m.StepLR(nested, 3)], [2])
    b = m.SequentialLR(nested, [inner, m.ExponentialLR(nested, 0.9)], [9])
    late = optimizer_of((1.0,))
    inner = m.SequentialLR(late, [m.StepLR(late, 3), m.ExponentialLR(late, 0.9)], [7])
    c = m.SequentialLR(late, [m.LinearLR(late, 0.5, total_iters=2), inner], [2])
    for _ in range(20):
        assert rates_of(flat) == rates_of(nested) == rates_of(late)
        for schedule in (a, b, c):
            schedule.step()


def test_a_rate_set_by_hand_is_carried_on_from() -> None:
    optimizer = optimizer_of((1.0,))
    schedule = lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    schedule.step()
    optimizer.param_groups[0]["lr"] = 8.0
    schedule.step()
    assert rates_of(optimizer) == schedule.get_last_lr() == [4.0]


def test_get_last_lr_is_a_copy() -> None:
    schedule = lr_scheduler.StepLR(optimizer_of(), 2)
    schedule.get_last_lr()[0] = 77.0
    assert schedule.get_last_lr() == list(BASE)


@pytest.mark.parametrize("at", [0, 3, 20, 21, 119, 130])
@pytest.mark.parametrize("name", SCHEDULES)
def test_resuming_through_json_gives_the_same_rates(name: str, at: int) -> None:
    make = SCHEDULES[name]
    optimizer = optimizer_of()
    schedule = make(lr_scheduler, optimizer)
    for _ in range(at):
        schedule.step()
    saved = json.loads(json.dumps({"schedule": schedule.state_dict(), "groups": optimizer.state_dict()}))
    resumed = optimizer_of((9.0, 9.0))
    second = make(lr_scheduler, resumed)
    second.load_state_dict(saved["schedule"])
    resumed.load_state_dict(saved["groups"])
    for _ in range(40):
        assert rates_of(resumed) == rates_of(optimizer)
        assert second.get_last_lr() == schedule.get_last_lr()
        assert second.state_dict() == schedule.state_dict()
        schedule.step()
        second.step()


def test_state_is_a_copy_and_takes_arguments_along() -> None:
    schedule = lr_scheduler.StepLR(optimizer_of(), 5)
    state = schedule.state_dict()
    assert state == {"step_size": 5, "gamma": 0.1, "base_lrs": list(BASE), "last_epoch": 0, "_last_lr": list(BASE)}
    state["base_lrs"][0] = 55.0
    assert schedule.base_lrs == list(BASE)
    state["_step_count"] = 1  # PyTorch's further keys do no harm
    state["step_size"] = 3
    schedule.load_state_dict(state)
    assert schedule.step_size == 3 and not hasattr(schedule, "_step_count")


def test_callable_objects_are_saved_by_their_attributes() -> None:
    class Decay:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        def __call__(self, epoch: int) -> float:
            return self.rate**epoch

    first = lr_scheduler.LambdaLR(optimizer_of(), [Decay(0.5), lambda epoch: 1.0])
    state = json.loads(json.dumps(first.state_dict()))
    assert state["lr_lambdas"] == [{"rate": 0.5}, None]
    optimizer = optimizer_of()
    second = lr_scheduler.LambdaLR(optimizer, [Decay(0.9), lambda epoch: 1.0])
    second.load_state_dict(state)
    second.step()
    assert rates_of(optimizer) == [0.05, 0.03]
    assert state["lr_lambdas"] == [{"rate": 0.5}, None]


def test_state_of_another_schedule_changes_nothing() -> None:
    optimizer = optimizer_of()
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 10)
    step = lr_scheduler.StepLR(optimizer_of(), 5)
    step.step()
    with pytest.raises(ValueError, match="not one of CosineAnnealingLR: it lacks T_max, eta_min and has step_size"):
        cosine.load_state_dict(step.state_dict())
    assert cosine.last_epoch == 0
    single = lr_scheduler.StepLR(optimizer_of((0.1,)), 5)
    with pytest.raises(ValueError, match="rates for 1 parameter groups, the optimizer has 2"):
        step.load_state_dict(single.state_dict())

    warm = warmup_then_cosine(lr_scheduler, optimizer)
    warm.step()
    state = warm.state_dict()
    state["_schedulers"].pop()
    with pytest.raises(ValueError, match="has 1 schedules, this one 2"):
        warm.load_state_dict(state)
    state = warm.state_dict()
    state["last_epoch"] = 99
    state["_schedulers"].reverse()
    with pytest.raises(ValueError, match="not one of LinearLR"):
        warm.load_state_dict(state)
    assert warm.last_epoch == 1


def test_a_group_added_later() -> None:
    optimizer = optimizer_of((0.1,))
    relative = lr_scheduler.ExponentialLR(optimizer, 0.5)
    absolute = lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    optimizer.add_param_group({"params": [Tensor(np.zeros(1), requires_grad=True)], "lr": 4.0})
    relative.step()
    assert rates_of(optimizer) == [0.05, 2.0]
    with pytest.raises(ValueError, match="LambdaLR was made for 1 parameter groups, the optimizer now has 2"):
        absolute.step()


def test_constant_zero_comes_back() -> None:
    optimizer = optimizer_of((0.1,))
    schedule = lr_scheduler.ConstantLR(optimizer, 0.0, total_iters=2)
    seen = []
    for _ in range(4):
        seen += rates_of(optimizer)
        schedule.step()
    assert seen == [0.0, 0.0, 0.1, 0.1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m, o: m.StepLR("sgd", 3), TypeError, "str is not an Optimizer"),
        (lambda m, o: m.StepLR(o, 0), ValueError, "step_size is 0"),
        (lambda m, o: m.CosineAnnealingLR(o, 0), ValueError, "T_max is 0"),
        (lambda m, o: m.LinearLR(o, 0.0), ValueError, "Starting multiplicative factor expected to be greater than 0"),
        (lambda m, o: m.LinearLR(o, 1.5), ValueError, "Starting multiplicative factor expected"),
        (lambda m, o: m.LinearLR(o, end_factor=-1), ValueError, "Ending multiplicative factor expected"),
        (lambda m, o: m.ConstantLR(o, 2), ValueError, "Constant multiplicative factor expected to be between 0 and 1"),
        (lambda m, o: m.LambdaLR(o, [len]), ValueError, "Expected 2 lr_lambdas, but got 1"),
        (lambda m, o: m.LambdaLR(o, 0.5), TypeError, "lr_lambda should be a function, but got float"),
        (lambda m, o: m.MultiplicativeLR(o, [len]), ValueError, "Expected 2 lr_lambdas, but got 1"),
        (lambda m, o: m.CosineAnnealingWarmRestarts(o, 0), ValueError, "Expected positive integer T_0, but got 0"),
        (lambda m, o: m.CosineAnnealingWarmRestarts(o, 2.5), ValueError, "Expected positive integer T_0, but got 2.5"),
        (lambda m, o: m.CosineAnnealingWarmRestarts(o, 2, 0), ValueError, "Expected integer T_mult >= 1, but got 0"),
        (lambda m, o: m.CosineAnnealingWarmRestarts(o, 2, 1, "0"), ValueError, "Expected float or int eta_min"),
        (lambda m, o: m.CosineAnnealingWarmRestarts(o, 2).step(-1), ValueError, "Expected non-negative epoch"),
        (lambda m, o: m.ChainedScheduler([]), ValueError, "ChainedScheduler expects at least one scheduler"),
        (
            lambda m, o: m.ChainedScheduler([m.StepLR(o, 3), m.StepLR(optimizer_of(), 3)]),
            ValueError,
            "ChainedScheduler expects all schedulers to belong to the same optimizer, but scheduler StepLR at index 1",
        ),
        (
            lambda m, o: m.SequentialLR(o, [m.ReduceLROnPlateau(o)], []),
            ValueError,
            "SequentialLR does not support `ReduceLROnPlateau`.* at index 0",
        ),
        (lambda m, o: m.SequentialLR(o, [], []), ValueError, "expects at least one scheduler"),
        (lambda m, o: m.SequentialLR(o, [m.StepLR(o, 3)], [3]), ValueError, "expects number of schedulers provided"),
        (lambda m, o: m.SequentialLR(o, [o], []), TypeError, r"schedulers\[0\] is a SGD, not a schedule"),
        (
            lambda m, o: m.SequentialLR(o, [m.StepLR(optimizer_of(), 3)], []),
            ValueError,
            "belong to the same optimizer, but scheduler StepLR at index 0",
        ),
        (
            lambda m, o: m.SequentialLR(o, [m.StepLR(o, 3), m.StepLR(o, 3), m.StepLR(o, 3)], [5, 2]),
            ValueError,
            r"milestones are \[5, 2\]; they must be in increasing order",
        ),
        (
            lambda m, o: m.StepLR(o, 3, last_epoch=4),
            KeyError,
            r"'initial_lr' is not specified in param_groups\[0\] when resuming scheduler with last_epoch >= 0",
        ),
        (lambda m, o: m.LRScheduler(o), NotImplementedError, r"LRScheduler has no get_lr\(\)"),
    ],
)
def test_refuses(make: Factory, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(lr_scheduler, optimizer_of())

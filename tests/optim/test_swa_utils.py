"""Averaged models, fresh BatchNorm statistics and SWALR: PyTorch's values, frozen layers, state, and errors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.autograd import Tensor
from distgrad.optim import SGD, lr_scheduler, swa_utils
from distgrad.optim.swa_utils import SWALR, AveragedModel, update_bn


def network(n: Any = nn) -> Any:
    return n.Sequential(n.Linear(3, 4), n.BatchNorm1d(4), n.ReLU(), n.Linear(4, 2))


def state_for(model: Any, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    return {
        name: generator.uniform(0.5, 1.5, tuple(value.shape)).astype(np.float32)
        if value.ndim
        else np.array(2 * seed + 1)
        for name, value in model.state_dict().items()
    }


def averages(module: Any) -> dict[str, dict[str, Any]]:
    return {
        "default": {},
        "swa": {"multi_avg_fn": module.get_swa_multi_avg_fn()},
        "swa-each": {"avg_fn": module.get_swa_avg_fn()},
        "ema": {"multi_avg_fn": module.get_ema_multi_avg_fn(0.7)},
        "ema-fast": {"multi_avg_fn": module.get_ema_multi_avg_fn(0.2)},
        "ema-each": {"avg_fn": module.get_ema_avg_fn(0.7)},
        "own": {"avg_fn": lambda average, value, number: average * 0.5 + value / (number + 3)},
    }


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "use_buffers"),
    # PyTorch's get_swa_multi_avg_fn refuses counters, which it would have to divide
    [(name, buffers) for name in averages(swa_utils) for buffers in (False, True) if (name, buffers) != ("swa", True)],
)
def test_follows_pytorch(name: str, use_buffers: bool) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = network(), network(torch.nn)
    mine = AveragedModel(ours, use_buffers=use_buffers, **averages(swa_utils)[name])
    reference = torch.optim.swa_utils.AveragedModel(
        theirs, use_buffers=use_buffers, **averages(torch.optim.swa_utils)[name]
    )
    for seed in range(5):
        state = state_for(ours, seed)
        ours.load_state_dict(state)
        theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
        mine.update_parameters(ours)
        reference.update_parameters(theirs)
        assert list(mine.state_dict()) == list(reference.state_dict())
        for key, value in mine.state_dict().items():
            expected = reference.state_dict()[key].numpy()
            assert value.dtype == expected.dtype, key
            np.testing.assert_allclose(value.numpy(), expected, rtol=2e-6, err_msg=f"{key}, update {seed}")


def test_the_default_is_the_mean() -> None:
    model = network()
    averaged = AveragedModel(model)
    states = [state_for(model, seed) for seed in range(4)]
    for state in states:
        model.load_state_dict(state)
        averaged.update_parameters(model)
    assert averaged.n_averaged.item() == 4
    for name, value in averaged.module.named_parameters():
        np.testing.assert_allclose(value.detach().numpy(), np.mean([s[name] for s in states], axis=0), rtol=1e-6)
    for name, value in averaged.module.named_buffers():
        np.testing.assert_array_equal(value.numpy(), states[-1][name])


def test_the_averaged_model_is_a_model_of_its_own() -> None:
    model = network().eval()
    averaged = AveragedModel(model)
    x = distgrad.randn(5, 3)
    np.testing.assert_array_equal(averaged(x).detach().numpy(), model(x).detach().numpy())
    averaged.update_parameters(model)
    before = {name: value.detach().clone() for name, value in averaged.state_dict().items()}
    for parameter in model.parameters():
        parameter._data += 1
    for name, value in averaged.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name].numpy())
    other = AveragedModel(network())
    other.load_state_dict(averaged.state_dict())
    assert other.n_averaged.item() == 1 and list(other.state_dict())[:2] == ["n_averaged", "module.0.weight"]


def test_a_multi_function_gets_one_dtype_at_a_time() -> None:
    seen: list[tuple[set[Any], int, bool]] = []

    def function(averages: Any, values: Any, number: Any) -> None:
        seen.append(({t.dtype for t in (*averages, *values)}, int(number), any(t.requires_grad for t in averages)))

    model = network()
    averaged = AveragedModel(model, multi_avg_fn=function, use_buffers=True)
    averaged.update_parameters(model)
    assert seen == [], "the first update takes the values over"
    averaged.update_parameters(model)
    assert seen == [({np.dtype(np.float32)}, 1, False), ({np.dtype(np.int64)}, 1, False)]


def test_averaged_models_refuse() -> None:
    model = network()
    function = swa_utils.get_ema_avg_fn()
    with pytest.raises(ValueError, match="Only one of avg_fn and multi_avg_fn"):
        AveragedModel(model, avg_fn=function, multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    AveragedModel(model, device="cpu")
    with pytest.raises(ValueError, match="device is 'cuda', but there is only 'cpu'"):
        AveragedModel(model, device="cuda")
    for make in (swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn):
        with pytest.raises(ValueError, match=r"Invalid decay value 1\.5 provided"):
            make(1.5)


# --- BatchNorm ---


def batches(count: int = 4) -> list[np.ndarray[Any, Any]]:
    return [np.random.default_rng(seed).standard_normal((6 + seed, 3)).astype(np.float32) * 2 for seed in range(count)]


@pytest.mark.parity
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [None, list, tuple])
def test_update_bn_follows_pytorch(training: bool, kind: Any) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = network().train(training), network(torch.nn).train(training)
    state = state_for(ours, 3)
    ours.load_state_dict(state)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})

    def loader(make: Any) -> list[Any]:
        return [make(x) if kind is None else kind([make(x), "labels"]) for x in batches()]

    update_bn(loader(Tensor), ours)
    torch.optim.swa_utils.update_bn(loader(torch.tensor), theirs)
    assert ours.training is training and ours[1].momentum == 0.1
    for name, value in ours.named_buffers():
        np.testing.assert_allclose(value.numpy(), theirs.get_buffer(name).numpy(), rtol=1e-5, atol=1e-6)


def test_update_bn_is_the_mean_over_batches() -> None:
    model = nn.BatchNorm1d(3)
    update_bn([Tensor(x) for x in batches()], model)
    assert model.running_mean is not None and model.running_var is not None
    np.testing.assert_allclose(model.running_mean.numpy(), np.mean([x.mean(0) for x in batches()], 0), rtol=1e-5)
    np.testing.assert_allclose(model.running_var.numpy(), np.mean([x.var(0, ddof=1) for x in batches()], 0), rtol=1e-5)


def test_update_bn_leaves_frozen_layers_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    update_bn([Tensor(x) for x in batches()], model)
    nn.freeze(model[0])
    before = {name: value.numpy().copy() for name, value in model.named_buffers()}
    update_bn([Tensor(x + 5) for x in batches()], model)
    after = {name: value.numpy() for name, value in model.named_buffers()}
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == (name.startswith("0.") or "tracked" in name), name


def test_update_bn_puts_everything_back_after_an_error() -> None:
    model = network().eval()

    def loader() -> Any:
        yield Tensor(batches()[0])
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        update_bn(loader(), model)
    assert not model.training and model[1].momentum == 0.1


def test_update_bn_without_a_batchnorm_does_not_touch_the_loader() -> None:
    def loader() -> Any:
        raise AssertionError("asked for a batch")
        yield

    update_bn(loader(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="there is only 'cpu'"):
        update_bn([], nn.Linear(3, 2), device="cuda:0")


# --- SWALR ---


def optimizer_of(rates: tuple[float, ...] = (0.1, 0.03)) -> SGD:
    return SGD([{"params": [Tensor(np.zeros(1), requires_grad=True)], "lr": rate} for rate in rates])


def rates_of(optimizer: Any) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


SCHEDULES: dict[str, Any] = {
    "cos": lambda m, s, o: s.SWALR(o, 0.05),
    "linear": lambda m, s, o: s.SWALR(o, [0.05, 0.5], anneal_epochs=7, anneal_strategy="linear"),
    "at-once": lambda m, s, o: s.SWALR(o, 0.5, anneal_epochs=0),
    "after-exponential": lambda m, s, o: m.SequentialLR(o, [m.ExponentialLR(o, 0.9), s.SWALR(o, 0.05)], [8]),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_swalr_follows_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours = optimizer_of()
    theirs = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (0.1, 0.03)])
    schedule = SCHEDULES[name](lr_scheduler, swa_utils, ours)
    reference = SCHEDULES[name](torch.optim.lr_scheduler, torch.optim.swa_utils, theirs)
    for step in range(40):
        np.testing.assert_allclose(rates_of(ours), rates_of(theirs), rtol=1e-12, err_msg=f"step {step}")
        assert schedule.get_last_lr() == rates_of(ours)
        schedule.step()
        reference.step()
    if name in ("cos", "linear"):
        assert rates_of(ours) == pytest.approx([group["swa_lr"] for group in ours.param_groups])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("at", [0, 3, 9, 15])
def test_swalr_resumes(name: str, at: int) -> None:
    optimizer = optimizer_of()
    schedule = SCHEDULES[name](lr_scheduler, swa_utils, optimizer)
    for _ in range(at):
        schedule.step()
    saved = json.loads(json.dumps({"schedule": schedule.state_dict(), "groups": optimizer.state_dict()}))
    resumed = optimizer_of((9.0, 9.0))
    second = SCHEDULES[name](lr_scheduler, swa_utils, resumed)
    second.load_state_dict(saved["schedule"])
    resumed.load_state_dict(saved["groups"])
    for _ in range(20):
        assert rates_of(resumed) == rates_of(optimizer)
        schedule.step()
        second.step()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"swa_lr": 0.1, "anneal_strategy": "exp"},
            "anneal_strategy must be one of 'cos' or 'linear', instead got exp",
        ),
        ({"swa_lr": 0.1, "anneal_epochs": -1}, "anneal_epochs must be equal or greater than 0, got -1"),
        ({"swa_lr": 0.1, "anneal_epochs": 2.5}, r"anneal_epochs must be equal or greater than 0, got 2\.5"),
        ({"swa_lr": [0.1]}, "swa_lr must have the same length as optimizer.param_groups"),
    ],
)
def test_swalr_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SWALR(optimizer_of(), **arguments)

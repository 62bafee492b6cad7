"""ExponentialMovingAverage: its recurrence, evaluation with the averages in place, state, buffers, and errors."""

from __future__ import annotations

import copy
import tracemalloc
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.autograd import Tensor
from distgrad.checkpoint.encoding import decode, encode
from distgrad.optim import ExponentialMovingAverage
from distgrad.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def network() -> nn.Module:
    distgrad.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def disturb(model: nn.Module, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor._data[...] = generator.uniform(0.5, 1.5, tensor.shape)
        else:
            tensor._data[...] = seed


def values(tensors: Any) -> list[np.ndarray[Any, Any]]:
    return [tensor._data.copy() for tensor in tensors]


def assert_equal(first: Any, second: Any, **tolerance: float) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 0} | tolerance))


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.9, 1.0])
def test_is_the_recurrence(decay: float) -> None:
    model = network()
    average = ExponentialMovingAverage(model.parameters(), decay)
    expected = values(model.parameters())
    for seed in range(5):
        disturb(model, seed)
        average.update()
        expected = [decay * e + (1 - decay) * p._data for e, p in zip(expected, model.parameters(), strict=True)]
    assert average.num_updates == 5
    assert_equal(values(average.shadow_params), expected, rtol=1e-5)
    assert {shadow.dtype for shadow in average.shadow_params} == {np.dtype(np.float32)}


def test_the_first_updates_may_count_for_more() -> None:
    parameter = Tensor(np.zeros(1))
    average = ExponentialMovingAverage([parameter], decay=0.9, use_num_updates=True)
    expected = 0.0
    for update in range(1, 200):
        parameter._data[...] = update
        average.update()
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
        assert average.shadow_params[0].item() == pytest.approx(expected, rel=1e-12)


def test_evaluation_with_the_averages_in_place() -> None:
    model = network().eval()
    average = ExponentialMovingAverage(model, 0.5)
    averaged = values(average.shadow_params)
    disturb(model, 1)
    live, memory = values(model.parameters()), [p._data for p in model.parameters()]
    with average.average_parameters():
        assert_equal(values(model.parameters()), averaged)
    assert_equal(values(model.parameters()), live)
    assert all(p._data is array for p, array in zip(model.parameters(), memory, strict=True))
    with pytest.raises(KeyError, match="while evaluating"), average.average_parameters():
        raise KeyError("while evaluating")
    assert_equal(values(model.parameters()), live)
    assert average.collected_params is None


def test_store_copy_restore() -> None:
    model = network()
    average = ExponentialMovingAverage(model, 0.5)
    averaged = values(average.shadow_params)
    disturb(model, 1)
    live = values(model.parameters())
    average.store()
    average.copy_to()
    assert_equal(values(model.parameters()), averaged)
    average.restore()
    assert_equal(values(model.parameters()), live)
    with pytest.raises(RuntimeError, match=r"no stored parameters to restore: call store\(\) first"):
        average.restore()

    other = network()
    disturb(other, 5)
    average.copy_to(other)
    assert_equal(values(other.parameters()), averaged)
    average.copy_to(other.parameters())
    average.update(list(model.parameters()))
    assert_equal(values(average.shadow_params), [(a + b) / 2 for a, b in zip(averaged, live, strict=True)], rtol=1e-6)


def test_backward_notices_that_the_values_were_exchanged() -> None:
    parameter = Tensor(np.ones(2), requires_grad=True)
    average = ExponentialMovingAverage([parameter], 0.5)
    loss = (parameter * parameter).sum()
    average.copy_to()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    assert parameter.is_leaf and parameter.requires_grad and not average.shadow_params[0].requires_grad


def test_buffers_are_averaged_only_if_asked_for() -> None:
    model = network()
    plain, full = ExponentialMovingAverage(model, 0.5), ExponentialMovingAverage(model, 0.5, use_buffers=True)
    assert len(plain.shadow_params) == 6 and len(full.shadow_params) == 9
    before = values(model.buffers())
    disturb(model, 3)
    after = values(model.buffers())
    full.update()
    plain.update()
    with plain.average_parameters():
        assert_equal(values(model.buffers()), after)
    with full.average_parameters():
        mean, variance, batches = values(model.buffers())
        assert_equal([mean, variance], [(a + b) / 2 for a, b in zip(before[:2], after[:2], strict=True)], rtol=1e-6)
        assert batches == 3 and batches.dtype == np.int64, "a count is taken over, not averaged"


@pytest.mark.parametrize("through_a_file", [False, True])
def test_resuming_gives_the_same_bits(through_a_file: bool) -> None:
    whole = network()
    average = ExponentialMovingAverage(whole, 0.7, use_num_updates=True, use_buffers=True)
    for seed in range(3):
        disturb(whole, seed)
        average.update()
    state = copy.deepcopy(average.state_dict())
    if through_a_file:
        state["shadow_params"] = [tensor.numpy() for tensor in state["shadow_params"]]
        state = decode(*encode(state))
    resumed = ExponentialMovingAverage(whole, 0.1, use_num_updates=True, use_buffers=True)
    resumed.load_state_dict(state)
    for seed in range(3, 6):
        disturb(whole, seed)
        average.update()
        resumed.update()
    assert resumed.decay == 0.7 and resumed.num_updates == 6
    assert_equal(values(resumed.shadow_params), values(average.shadow_params))


def test_is_an_averaged_model_that_starts_one_update_later() -> None:
    model = network()
    other = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    other.update_parameters(model)
    average = ExponentialMovingAverage(model, 0.9)
    for seed in range(4):
        disturb(model, seed)
        average.update()
        other.update_parameters(model)
    assert_equal(values(average.shadow_params), values(other.module.parameters()))


def test_an_update_allocates_nothing_of_a_parameters_size() -> None:
    parameter = Tensor(np.ones(500_000, np.float32))
    average = ExponentialMovingAverage([parameter], 0.9)
    average.update()
    tracemalloc.start()
    try:
        average.update()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000, f"{peak} bytes"


def test_refuses() -> None:
    model = network()
    for decay in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"Invalid decay value {decay} provided"):
            ExponentialMovingAverage(model, decay)
    with pytest.raises(ValueError, match="got no parameters"):
        ExponentialMovingAverage([], 0.5)
    with pytest.raises(ValueError, match="use_buffers=True needs a module"):
        ExponentialMovingAverage(model.parameters(), 0.5, use_buffers=True)
    average = ExponentialMovingAverage(model, 0.5)
    with pytest.raises(ValueError, match="what was given has 2 tensors, the averages are 6"):
        average.copy_to(nn.Linear(3, 4))
    wrong = average.state_dict()
    wrong["shadow_params"][1] = np.zeros(5)
    with pytest.raises(ValueError, match=r"loaded state dict has the shape \[5\] at index 1, the average there \[4\]"):
        average.load_state_dict({**wrong, "num_updates": 99})
    with pytest.raises(ValueError, match=r"not one of ExponentialMovingAverage: it lacks \['num_updates'\]"):
        average.load_state_dict({"decay": 0.5, "shadow_params": []})
    assert average.num_updates == 0

"""Post-local SGD: when ranks talk, to whom, and what their parameters become."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad import distributed, no_grad
from distgrad.autograd import Tensor
from distgrad.distributed import threads
from distgrad.distributed.comm_hooks import (
    PeriodicModelAverager,
    PostLocalSGDOptimizer,
    PostLocalSGDState,
    average_parameters,
    post_localSGD_hook,
)
from distgrad.distributed.communicator import Array
from distgrad.nn.parameter import Parameter
from distgrad.optim import SGD
from distgrad.optim.lr_scheduler import StepLR

from .buckets import bucket_of, run_hook

pytestmark = pytest.mark.timeout(60)


def powers(rank: int, step: int) -> dict[str, Array]:
    return {"w": np.full(3, 10.0**rank)}


def state_of(**options: Any) -> Any:
    return lambda communicator: PostLocalSGDState(communicator, **{"start_localSGD_iter": 1, **options})


def test_all_ranks_first_then_those_of_a_host() -> None:
    outcomes = run_hook(4, post_localSGD_hook, state_of(), powers, steps=3, ranks_per_host=2)
    for rank, outcome in enumerate(outcomes):
        assert outcome.state.iter == 3
        assert [total[0] for total in outcome.sums] == [1111.0] + [2 * (11.0, 1100.0)[rank // 2]] * 2
        assert [report.bytes_sent for report in outcome.reports] == [40, 24, 24]


def test_nobody_later() -> None:
    outcomes = run_hook(3, post_localSGD_hook, state_of(post_local_gradient_allreduce=False), powers, steps=2)
    for rank, outcome in enumerate(outcomes):
        np.testing.assert_array_equal(outcome.sums[1], np.full(3, 3 * 10.0**rank))
        assert outcome.reports[1].bytes_sent == 0


def test_a_subgroup_of_ones_own() -> None:
    def body() -> Array:
        communicator = distributed.communicator()
        state = PostLocalSGDState(communicator, communicator.split(communicator.rank % 2))
        bucket = bucket_of(powers(communicator.rank, 0))
        post_localSGD_hook(state, bucket)
        return bucket.buffer()

    assert [total[0] for total in threads.run(4, body)] == [202.0, 2020.0, 202.0, 2020.0]


@pytest.mark.parametrize("ranks_per_host", [1, 2, 3])
def test_the_average_of_one_local_step_is_the_plain_step(ranks_per_host: int) -> None:
    """With ragged shards, one of them empty, and groups of different sizes."""
    samples = np.array([3, 0, 5, 1, 2])
    own = np.arange(1.0, 6.0)

    def body() -> list[float]:
        communicator = distributed.communicator()
        rank = communicator.rank
        bucket = bucket_of({"w": np.array([own[rank] * samples[rank] / samples.sum()])})
        post_localSGD_hook(PostLocalSGDState(communicator), bucket)
        parameter = Parameter(np.array([7.0]) - 0.1 * bucket.buffer())
        average_parameters([parameter], communicator)
        return parameter.tolist()

    expected = 7.0 - 0.1 * float((own * samples).sum() / samples.sum())
    for values in threads.run(5, body, ranks_per_host=ranks_per_host):
        assert values == pytest.approx([expected])


def test_averages_at_the_right_steps_only() -> None:
    def body() -> tuple[list[float], list[float], float]:
        rank = distributed.rank()
        averager = PeriodicModelAverager(period=3, warmup_steps=2)
        moving, other = Parameter(np.zeros(2)), Parameter(np.zeros((), np.float32))
        frozen = Parameter(np.array([float(rank)]), requires_grad=False)
        seen = []
        for _ in range(9):
            with no_grad():
                moving.add_(float(rank))
                other.add_(2.0 * rank)
            averager.average_parameters([moving, other, frozen])
            seen.append(moving.tolist()[1])
        assert averager.step == 9
        assert other.dtype == np.float32 and other.item() == pytest.approx(2 * seen[-1])
        return seen, moving.tolist(), frozen.item()

    ranks = threads.run(2, body)
    # calls 2, 5, 8 average (counted from 0), each to the mean of what both have walked
    assert ranks[0][0] == [0.0, 0.0, 1.5, 1.5, 1.5, 3.0, 3.0, 3.0, 4.5]
    assert ranks[1][0] == [1.0, 2.0, 1.5, 2.5, 3.5, 3.0, 4.0, 5.0, 4.5]
    assert [rank[2] for rank in ranks] == [0.0, 1.0]


def test_averaging_tells_autograd() -> None:
    def body() -> None:
        parameter = Parameter(np.ones(3))
        loss = (parameter * parameter).sum()
        average_parameters([parameter], distributed.communicator())
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    threads.run(2, body)


def train(optimizer_of: Any, steps: int, warmup: int) -> list[dict[str, Any]]:
    """Each rank walks to a target of its own; the mean of all is the best for all."""

    def body() -> dict[str, Any]:
        communicator = distributed.communicator()
        weight = Parameter(np.zeros(4))
        optimizer = optimizer_of([weight])
        state = PostLocalSGDState(communicator, start_localSGD_iter=warmup, post_local_gradient_allreduce=False)
        for _ in range(steps):
            optimizer.zero_grad()
            ((weight - Tensor(np.arange(4.0) + communicator.rank)) ** 2).sum().backward()
            assert weight.grad is not None
            bucket = bucket_of({"w": weight.grad.numpy() / communicator.world_size})
            post_localSGD_hook(state, bucket)
            weight.grad.numpy()[...] = bucket.buffer()
            optimizer.step()
        return {"weight": weight.detach().numpy().copy(), "state": optimizer.state_dict()}

    return threads.run(3, body)


def test_training_ends_where_plain_training_does() -> None:
    def optimizer_of(params: list[Parameter]) -> PostLocalSGDOptimizer:
        return PostLocalSGDOptimizer(SGD(params, lr=0.05, momentum=0.5), PeriodicModelAverager(4, warmup_steps=10))

    for rank in train(optimizer_of, steps=83, warmup=10):
        # step 82 was averaged: calls 10, 14, ... 82
        np.testing.assert_allclose(rank["weight"], np.arange(4.0) + 1, atol=1e-4)


def test_the_optimizer_is_the_wrapped_one() -> None:
    weight = Parameter(np.ones(2))
    inner = SGD([weight], lr=0.5, momentum=0.9)
    optimizer = PostLocalSGDOptimizer(inner, PeriodicModelAverager(2))
    schedule = StepLR(optimizer, step_size=1, gamma=0.1)
    (weight * 3).sum().backward()
    assert optimizer.step() is None
    schedule.step()
    np.testing.assert_allclose(weight.detach().numpy(), [-0.5, -0.5])
    assert optimizer.param_groups is inner.param_groups and inner.param_groups[0]["lr"] == pytest.approx(0.05)
    assert optimizer.state is inner.state and len(inner.state) == 1
    assert optimizer.defaults is inner.defaults and repr(optimizer) == repr(inner)
    optimizer.zero_grad()
    assert weight.grad is None
    optimizer.add_param_group({"params": [Parameter(np.zeros(1))]})
    assert len(inner.param_groups) == 2
    assert optimizer.step(lambda: Tensor(np.array(4.0))).item() == 4.0
    assert optimizer.averager.step == 2


def test_the_averagers_step_is_in_the_checkpoint() -> None:
    def fresh() -> PostLocalSGDOptimizer:
        return PostLocalSGDOptimizer(SGD([Parameter(np.ones(2))], lr=0.5), PeriodicModelAverager(2))

    optimizer = fresh()
    optimizer.step()
    saved = optimizer.state_dict()
    assert saved["step"] == 1
    other = fresh()
    other.load_state_dict(saved)
    assert other.averager.step == 1
    del saved["step"]
    with pytest.warns(UserWarning, match="Setting step counter to 0"):
        other.load_state_dict(saved)
    assert other.averager.step == 0


def test_the_hooks_step_is_in_the_checkpoint() -> None:
    state = PostLocalSGDState(None, start_localSGD_iter=5)
    state.iter = 4
    other = PostLocalSGDState(None, start_localSGD_iter=5)
    other.load_state_dict(state.state_dict())
    assert other.iter == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PostLocalSGDState(None, start_localSGD_iter=-1), "start_localSGD_iter is -1"),
        (lambda: PeriodicModelAverager(0), "period is 0, must be at least 1"),
        (lambda: PeriodicModelAverager(1, warmup_steps=-1), "warmup_steps is -1"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

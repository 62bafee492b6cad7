"""Data-parallel training over real processes against one process with the whole batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad import distributed, no_grad
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel
from distgrad.errors import CommunicationError
from distgrad.nn.module import Module
from distgrad.nn.parameter import Parameter

# By a thread: a rank that hangs inside of MPI never comes back to Python to see a signal.
pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread"), pytest.mark.usefixtures("world")]

STEPS = 5


class TwoLayers(Module):
    def __init__(self, seed: int, hidden: int = 300) -> None:
        super().__init__()
        generator = np.random.default_rng(seed)
        self.into = Parameter(generator.standard_normal((5, hidden)) * 0.1)
        self.out = Parameter(generator.standard_normal((hidden, 2)) * 0.1)
        self.frozen = Parameter(np.full(5, 1.0 + seed), requires_grad=False)
        self.register_buffer("statistics", Tensor(np.array([float(seed)])))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.frozen @ self.into).tanh() @ self.out


def samples_of(step: int, total: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng([step, 5])
    return generator.standard_normal((total, 5)), generator.standard_normal((total, 2))


def loss_of(prediction: Tensor, target: np.ndarray[Any, Any]) -> Tensor:
    if prediction.shape[0] == 0:
        return prediction.sum() * float("nan")  # the mean over no sample
    return ((prediction - Tensor(target)) ** 2).mean()


def update(model: Module) -> None:
    with no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.detach().numpy()[...] -= 0.1 * parameter.grad.numpy()
                parameter.grad = None


@pytest.mark.parametrize("shards", ["equal", "ragged", "one empty"])
@pytest.mark.parametrize("bucket_cap_mb", [25, 0.001])
def test_ranks_train_like_one_process(world: distributed.Communicator, shards: str, bucket_cap_mb: float) -> None:
    size, rank = world.world_size, world.rank
    counts = {"equal": [3] * size, "ragged": [2 + 3 * r for r in range(size)], "one empty": [4] * (size - 1) + [0]}[
        shards
    ]
    if sum(counts) == 0:
        pytest.skip("a single rank has all samples")
    bounds = np.cumsum([0, *counts])
    alone = TwoLayers(seed=0)
    model = DistributedDataParallel(TwoLayers(seed=rank), bucket_cap_mb=bucket_cap_mb)
    for step in range(STEPS):
        x, y = samples_of(step, sum(counts))
        loss_of(alone(Tensor(x)), y).backward()
        update(alone)
        part = slice(bounds[rank], bounds[rank + 1])
        loss_of(model(Tensor(x[part])), y[part]).backward()
        update(model)
    for (name, expected), value in zip(alone.named_parameters(), model.module.parameters(), strict=True):
        array = value.detach().numpy()
        np.testing.assert_allclose(array, expected.detach().numpy(), rtol=1e-12, atol=1e-14, err_msg=name)
        rows = world.all_gather(array.view(np.int64))
        assert all(np.array_equal(row, rows[0]) for row in rows), f"{name} differs between ranks"


def test_buffers_and_frozen_values_follow_rank_0(world: distributed.Communicator) -> None:
    model = DistributedDataParallel(TwoLayers(seed=world.rank))
    assert model.module.statistics.tolist() == [0.0]
    np.testing.assert_array_equal(model.module.frozen.numpy(), 1.0)
    model.module.statistics.numpy()[...] = world.rank + 2
    model.broadcast_buffers()
    assert model.module.statistics.tolist() == [2.0]


@pytest.mark.mpi(min_size=2)
def test_models_that_differ_are_refused_on_every_rank(world: distributed.Communicator) -> None:
    last = world.world_size - 1
    with pytest.raises(CommunicationError) as refused:
        DistributedDataParallel(TwoLayers(seed=0, hidden=7 if world.rank == last else 6))
    assert f"parameter 'into' has shape [5, 6] on rank 0 but [5, 7] on rank {last}" in str(refused.value)
    assert len(set(world.all_gather_bytes(str(refused.value).encode()))) == 1

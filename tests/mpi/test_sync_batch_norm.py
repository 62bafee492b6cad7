"""Batch normalization over real processes, while gradients are on their way, against one process."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distgrad import distributed, nn, optim
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel, SyncBatchNorm
from distgrad.models.resnet import BasicBlock

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread"), pytest.mark.usefixtures("world")]


def network() -> nn.Module:
    generator = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 2), nn.BatchNorm2d(5, momentum=None), nn.ReLU(), nn.Flatten(),
        nn.Linear(45, 4), nn.BatchNorm1d(4), nn.Linear(4, 2),
    ).double()  # fmt: skip
    for parameter in model.parameters():
        parameter.detach().numpy()[...] = generator.standard_normal(parameter.shape) * 0.4
    return model


def train(model: nn.Module, called: nn.Module, x: np.ndarray, y: np.ndarray) -> None:
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        prediction = called(Tensor(x * (1 + 0.1 * step)))
        loss = ((prediction - Tensor(y)) ** 2).mean() if len(y) else prediction.sum() * math.nan
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(("shards", "bucket_cap_mb"), [("equal", 25), ("ragged", 1e-6), ("one empty", 25)])
def test_ranks_train_like_one_process(world: distributed.Communicator, shards: str, bucket_cap_mb: float) -> None:
    size = world.world_size
    counts = {"equal": [3] * size, "ragged": [2 + 3 * r for r in range(size)], "one empty": [0] + [4] * (size - 1)}[
        shards
    ]
    if sum(counts) == 0:
        pytest.skip("a single rank has all samples")
    generator = np.random.default_rng(1)
    x, y = generator.standard_normal((sum(counts), 2, 6, 6)), generator.standard_normal((sum(counts), 2))
    bounds = np.cumsum([0, *counts])
    mine = slice(bounds[world.rank], bounds[world.rank + 1])

    alone = network()
    train(alone, alone, x, y)
    model = SyncBatchNorm.convert_sync_batchnorm(network())
    train(model, DistributedDataParallel(model, bucket_cap_mb=bucket_cap_mb), x[mine], y[mine])
    for name, expected in alone.state_dict().items():
        array = model.state_dict()[name].numpy()
        np.testing.assert_allclose(array, expected.numpy(), rtol=1e-9, atol=1e-11, err_msg=name)
        rows = world.all_gather(array.reshape(-1).view(np.int64))
        assert all(np.array_equal(row, rows[0]) for row in rows), f"{name} differs between ranks"


def test_a_resnet_gets_the_gradient_of_the_whole_batch(world: distributed.Communicator) -> None:
    """What a ResNet is made of, in the memory order of images, on shards of different sizes."""
    counts = [1 + (r + 1) % 3 for r in range(world.world_size)]
    bounds = np.cumsum([0, *counts])
    mine = slice(bounds[world.rank], bounds[world.rank + 1])
    generator = np.random.default_rng(2)
    x, y = generator.standard_normal((sum(counts), 3, 32, 32)), generator.integers(0, 10, sum(counts))

    def model() -> nn.Module:
        down = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
        stem = nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        blocks = BasicBlock(16, 16), BasicBlock(16, 32, 2, down)
        network = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).double()
        values = np.random.default_rng(3)
        for parameter in network.parameters():
            scale = 1 / math.sqrt(math.prod(parameter.shape[1:])) if parameter.ndim > 1 else 0.5
            parameter.detach().numpy()[...] = scale * values.standard_normal(parameter.shape)
        return network

    def backward(called: nn.Module, part: slice) -> None:
        nn.functional.cross_entropy(called(Tensor(x[part])), Tensor(y[part])).backward()

    alone, shared = model(), SyncBatchNorm.convert_sync_batchnorm(model())
    backward(alone, slice(None))
    backward(DistributedDataParallel(shared), mine)
    for (name, expected), parameter in zip(alone.named_parameters(), shared.parameters(), strict=True):
        scale = abs(expected.grad.numpy()).max()
        np.testing.assert_allclose(parameter.grad.numpy(), expected.grad.numpy(), atol=1e-9 * scale, err_msg=name)
    for name, expected in alone.named_buffers():
        np.testing.assert_allclose(dict(shared.named_buffers())[name].numpy(), expected.numpy(), rtol=1e-9)


def test_halves_of_the_world_normalize_by_themselves(world: distributed.Communicator) -> None:
    half = world.split(world.rank % 2)
    assert half is not None
    layer = SyncBatchNorm(1, communicator=half, momentum=1.0)
    layer(Tensor(np.array([[world.rank], [world.rank + 2.0]], np.float32)))
    members = range(world.rank % 2, world.world_size, 2)
    assert layer.running_mean.tolist() == [1 + sum(members) / len(members)]

"""The same global batches give the same parameters on any number of ranks, a ragged last batch among them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import distributed, nn, optim
from distgrad.data import DataLoader, GlobalBatchSampler, TensorDataset
from distgrad.distributed import Communicator, DistributedDataParallel, SingleCommunicator
from distgrad.models import resnet18

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120, method="thread")]

SAMPLES, BATCH, EPOCHS = 19, 8, 2  # batches of 8, 8 and 3: with four ranks the last leaves one rank without a sample


def mlp() -> nn.Module:
    """A model without batch statistics."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 5))


def frozen_resnet18() -> nn.Module:
    """The recipe's model: everything frozen but a new classifier."""
    model = nn.freeze(resnet18())
    model.fc = nn.Linear(512, 5)
    return model


def train(build: Callable[[], nn.Module], ranks: Communicator) -> dict[str, np.ndarray[Any, Any]]:
    """Two epochs of momentum SGD in float64; the parameters at the end."""
    distgrad.manual_seed(0)
    model = build().double()
    generator = np.random.default_rng(0)
    data = TensorDataset(generator.standard_normal((SAMPLES, 3, 32, 32)), generator.integers(0, 5, SAMPLES))
    sampler = GlobalBatchSampler(data, BATCH, num_replicas=ranks.world_size, rank=ranks.rank, seed=3)
    loader = DataLoader(data, batch_sampler=sampler)
    parallel = DistributedDataParallel(model, ranks)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9, weight_decay=1e-4)
    seen = 0
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        parallel.train()
        for images, labels in loader:
            seen += len(labels)
            loss = nn.functional.cross_entropy(parallel(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    counted = np.array([seen])
    ranks.all_reduce(counted)
    assert counted[0] == EPOCHS * SAMPLES
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("build", [mlp, frozen_resnet18])
def test_parameters_do_not_depend_on_the_number_of_ranks(build: Callable[[], nn.Module]) -> None:
    ranks = distributed.init()
    together = train(build, ranks)
    alone = train(build, SingleCommunicator())

    # first everything that communicates: an assertion that fails on one rank alone must not leave the others waiting
    digests = ranks.all_gather_bytes(hashlib.sha256(b"".join(v.tobytes() for v in together.values())).digest())
    assert len(set(digests)) == 1, "ranks ended with different bits"
    for name, expected in alone.items():
        difference = np.linalg.norm((together[name] - expected).ravel())
        assert difference <= 1e-6 * max(np.linalg.norm(expected.ravel()), 1e-30), name

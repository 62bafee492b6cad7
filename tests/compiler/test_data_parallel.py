"""Compiled modules inside and around DistributedDataParallel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import distributed, optim
from distgrad.distributed import DistributedDataParallel, threads
from distgrad.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from compiled_networks import Vgg

_IMAGES = np.random.default_rng(0).standard_normal((3, 11, 3, 16, 16))
_LABELS = np.random.default_rng(1).integers(0, 5, (3, 11))

distgrad.manual_seed(3)
_STATE = Vgg().double().state_dict()


def _train(wrap: Any) -> list[Any]:
    """Three steps over uneven shards; the parameters at the end."""
    ranks = distributed.communicator()
    network = Vgg().double()
    network.load_state_dict(_STATE)  # the threads share one generator of random numbers
    model = wrap(network, ranks)
    sgd = optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for images, labels in zip(_IMAGES, _LABELS, strict=True):
        mine = slice(ranks.rank, None, ranks.world_size)
        loss = F.cross_entropy(model(distgrad.tensor(images[mine])), distgrad.tensor(labels[mine]))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return [p.detach().numpy().copy() for p in network.parameters()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("order", ["inside", "around"])
def test_same_as_eager(order: str, world_size: int) -> None:
    def wrap(network: Any, ranks: Any) -> Any:
        if order == "inside":
            return DistributedDataParallel(distgrad.compile(network, fullgraph=True), ranks)
        return distgrad.compile(DistributedDataParallel(network, ranks))

    plain = threads.run(world_size, _train, DistributedDataParallel)
    fast = threads.run(world_size, _train, wrap)
    for a, b in zip(plain, fast, strict=True):
        for p, q in zip(a, b, strict=True):
            np.testing.assert_allclose(q, p, rtol=1e-8, atol=1e-10)
    for other in fast[1:]:
        assert all(np.array_equal(p, q) for p, q in zip(fast[0], other, strict=True))


def test_what_is_wrapped_runs_by_plans() -> None:
    def run() -> str:
        network = Vgg()
        model = distgrad.compile(DistributedDataParallel(network))
        model(distgrad.randn(2, 3, 16, 16)).sum().backward()
        assert next(network.parameters()).grad is not None
        return str(model.plans())

    (plans,) = threads.run(1, run)
    assert "batch norm" in plans

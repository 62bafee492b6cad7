"""Optimizer state shared out among real processes: the steps of the optimizer alone, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad import distributed, nn, optim
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel, ZeroRedundancyOptimizer
from distgrad.distributed import zero_redundancy_optimizer as module

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread"), pytest.mark.usefixtures("world")]


def network() -> nn.Module:
    generator = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 2))
    for parameter in model.parameters():
        parameter.detach().numpy()[...] = generator.standard_normal(parameter.shape) * 0.3
    return model


def train(world: distributed.Communicator, shared: bool, steps: range, state: Any = None) -> tuple[Any, Any]:
    """Some steps of data-parallel training on ragged shards."""
    model = network()
    wrapped = DistributedDataParallel(model)
    groups = [{"params": list(model[:2].parameters()), "lr": 0.02}, {"params": list(model[2:].parameters())}]
    optimizer = ZeroRedundancyOptimizer(groups, optim.AdamW) if shared else optim.AdamW(groups)
    if state is not None:
        model.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
    schedule = optim.lr_scheduler.StepLR(optimizer, 2) if state is None else None
    for step in steps:
        generator = np.random.default_rng([step, world.rank])
        x = Tensor(generator.standard_normal((1 + world.rank, 6)).astype(np.float32))
        optimizer.zero_grad()
        (wrapped(x) ** 2).mean().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return model, optimizer


def bits(model: nn.Module) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


@pytest.mark.parametrize("message_bytes", [1000, 16 << 20])
def test_ranks_step_as_the_optimizer_alone(
    world: distributed.Communicator, message_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MESSAGE_BYTES", message_bytes)
    expected, whole = train(world, False, range(5))
    model, optimizer = train(world, True, range(5))
    assert bits(model) == bits(expected)
    assert len(set(world.all_gather_bytes(bits(model)))) == 1
    kept = sum(value.nbytes for entry in optimizer.optim.state.values() for value in entry.values() if value.ndim)
    total = sum(value.nbytes for entry in whole.state.values() for value in entry.values() if value.ndim)
    largest = 2 * max(parameter.nbytes for parameter in model.parameters())
    assert kept <= total / world.world_size + largest, "no rank keeps much more than its share"


def test_a_consolidated_state_is_that_of_the_optimizer_alone(world: distributed.Communicator) -> None:
    _, whole = train(world, False, range(3))
    model, optimizer = train(world, True, range(3))
    last = world.world_size - 1
    optimizer.consolidate_state_dict(to=last)
    text = b""
    if world.rank == last:
        state, expected = optimizer.state_dict(), whole.state_dict()
        assert state["param_groups"] == expected["param_groups"]
        assert state["state"].keys() == expected["state"].keys()
        for number, entry in expected["state"].items():
            for name, value in entry.items():
                np.testing.assert_array_equal(state["state"][number][name].numpy(), value.numpy())
    else:
        with pytest.raises(RuntimeError, match="consolidate_state_dict"):
            optimizer.state_dict()
    assert set(world.all_gather_bytes(text)) == {b""}

    # The optimizer alone writes a checkpoint, a sharded one goes on from it, on every rank with its own part.
    before, optimizer_alone = train(world, False, range(2))
    start = before.state_dict(), optimizer_alone.state_dict()
    expected_model, _ = train(world, False, range(2, 5), start)
    model, _ = train(world, True, range(2, 5), start)
    assert bits(model) == bits(expected_model)

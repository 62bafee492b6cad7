"""Each hook in DistributedDataParallel: training ends where plain training does, on ragged shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel, threads
from distgrad.distributed.comm_hooks import HOOKS, PowerSGDState, TopKState, make, powerSGD_hook, top_k_hook
from distgrad.distributed.communicator import Array
from distgrad.distributed.tree_sum import owners_of
from distgrad.nn import Linear, Module, Sequential, Tanh
from distgrad.nn.functional import mse_loss
from distgrad.optim import SGD

pytestmark = pytest.mark.timeout(60)

SAMPLES = 48
# A hook's options, and how far from plain training its losses may be at the end, relative to what has been learned.
OPTIONS: dict[str, tuple[dict[str, Any], float]] = {
    "all_reduce": ({}, 1e-5),
    "reduce_scatter": ({}, 1e-5),
    "hierarchical": ({}, 1e-5),
    "fp16": ({}, 1e-3),
    "bfloat16": ({}, 1e-2),
    "top_k": ({"density": 0.1}, 0.15),
    "power_sgd": ({"matrix_approximation_rank": 2, "start_powerSGD_iter": 3}, 0.15),
}


def network() -> Module:
    generator = np.random.default_rng(0)
    model = Sequential(Linear(8, 24), Tanh(), Linear(24, 24), Tanh(), Linear(24, 1))
    for parameter in model.parameters():
        parameter.detach().numpy()[...] = generator.standard_normal(parameter.shape) * 0.4
    return model


def shard(rank: int, world_size: int) -> slice:
    """Of different sizes: rank r has r + 1 shares."""
    bounds = [SAMPLES * r * (r + 1) // (world_size * (world_size + 1)) for r in range(world_size + 1)]
    return slice(bounds[rank], bounds[rank + 1])


def train(name: str | None, steps: int = 60, options: dict[str, Any] | None = None) -> tuple[float, list[Array], Any]:
    model = DistributedDataParallel(network(), bucket_cap_mb=0.001)
    if name is not None:
        model.register_comm_hook(*make(name, **(options or {})))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.5)
    generator = np.random.default_rng(3)
    x = generator.standard_normal((SAMPLES, 8)).astype(np.float32)
    y = np.sin(x.sum(1, keepdims=True))
    own = shard(distributed.rank(), distributed.world_size())
    for _ in range(steps):
        optimizer.zero_grad()
        mse_loss(model(Tensor(x[own])), Tensor(y[own])).backward()
        optimizer.step()
    loss = mse_loss(model.module(Tensor(x)), Tensor(y)).item()
    return loss, [p.detach().numpy().copy() for p in model.parameters()], model


def test_there_are_options_for_every_hook() -> None:
    """Post-local SGD needs an optimizer that averages: test_post_local_sgd.py."""
    assert set(OPTIONS) == set(HOOKS) - {"post_local_sgd"}


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("name", OPTIONS)
def test_training_ends_where_plain_training_does(name: str, world_size: int) -> None:
    options, tolerance = OPTIONS[name]
    first = threads.run(1, train, None, 0)[0][0]
    plain = threads.run(1, train, None)[0][0]
    ranks = threads.run(world_size, train, name, 60, options, ranks_per_host=2)
    for loss, values, model in ranks:
        assert abs(loss - plain) <= tolerance * (first - plain)
        assert len(model.reports) > 1 and all(report.bytes_sent >= 0 for report in model.reports)
        for value, other in zip(values, ranks[0][1], strict=True):
            assert value.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("hook", "state"),
    [(top_k_hook, lambda: TopKState(None, 0.02)), (powerSGD_hook, lambda: PowerSGDState(start_powerSGD_iter=0))],
)
def test_what_was_left_out_arrives_on_one_rank(hook: Any, state: Any) -> None:
    """A resume on one rank, which sends nothing: the first step adds what three ranks had left out."""

    def three() -> Any:
        model = DistributedDataParallel(network())
        model.register_comm_hook(state(), hook)
        model(Tensor(np.full((2, 8), distributed.rank() + 1, np.float32))).sum().backward()
        model.comm_hook_state.consolidate_state_dict()
        return model.comm_hook_state.state_dict()

    def one(saved: Any) -> list[Array]:
        model = DistributedDataParallel(network())
        if saved is not None:
            made = state()
            model.register_comm_hook(made, hook)
            made.load_state_dict(saved)
        model(Tensor(np.ones((2, 8), np.float32))).sum().backward()
        return [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]

    saved = threads.run(3, three)[0]
    plain, resumed = threads.run(1, one, None)[0], threads.run(1, one, saved)[0]
    names = [f"{name}" for name, _ in network().named_parameters()]
    for name, value, expected in zip(names, resumed, plain, strict=True):
        left = saved["residual"].get(name)
        added = 0.0 if left is None else left.sum(0)
        np.testing.assert_allclose(value, expected + added, rtol=1e-5, atol=1e-6)
    assert any(abs(left).max() > 1e-3 for left in saved["residual"].values())


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_bits_at_any_number_of_ranks(name: str) -> None:
    """With ``reproducible=True`` a hook works on virtual ranks, with memory or without."""

    def body(name: str) -> list[bytes]:
        model = DistributedDataParallel(network(), reproducible=True, virtual_ranks=4, comm_hook=name)
        rank, world_size = distributed.rank(), distributed.world_size()
        for step in range(3):
            for number in (n for n, owner in enumerate(owners_of(4, world_size)) if owner == rank):
                x = np.random.default_rng([step, number]).standard_normal((3, 8)).astype(np.float32)
                (model(Tensor(x)) ** 2).mean().backward()
        return [p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None]

    alone = threads.run(1, body, name)[0]
    for world_size in (2, 3, 4):
        assert all(rank == alone for rank in threads.run(world_size, body, name))


def test_virtual_ranks_cannot_go_their_own_ways() -> None:
    def body() -> None:
        model = DistributedDataParallel(network(), reproducible=True, virtual_ranks=1, comm_hook="post_local_sgd")
        with pytest.raises(RuntimeError, match="the virtual ranks of a process share one model"):
            model(Tensor(np.ones((2, 8), np.float32))).sum().backward()

    threads.run(1, body)

"""Overlapped training over real processes: every channel, graphs that change, accumulation, ranks that leave early."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import distributed, nn, optim
from distgrad.autograd import Tensor
from distgrad.distributed import Communicator, DistributedDataParallel
from distgrad.distributed.channel import CHANNELS
from distgrad.distributed.progress import WORTH_HIDING, choose_progress, measure

# By a thread: a rank that hangs inside of MPI never comes back to Python to see a signal.
pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread"), pytest.mark.usefixtures("world")]

SMALL = 1e-4  # MiB: nearly a bucket a parameter
STEPS = 4


class Branching(nn.Module):
    """A layer used twice, a convolution, a branch that the data choose, one that nothing reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.layer = nn.Linear(16, 16)
        self.left, self.right, self.never = nn.Linear(16, 3), nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(self.layer(self.conv(x.reshape(-1, 1, 2, 2)).relu().flatten(1)).tanh())
        left = x.shape[0] > 0 and float(x.detach()[0, 0]) > 0
        return self.left(hidden) if left else self.right(hidden)


def build() -> nn.Module:
    distgrad.manual_seed(3)
    return Branching().double()


def batch(step: int, samples: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng([step, 8])
    return generator.standard_normal((samples, 4)), generator.integers(0, 3, samples)


def loss_of(model: nn.Module, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Tensor:
    output = model(Tensor(x))
    if len(y) == 0:
        return output.sum() * float("nan")  # the mean over no sample
    return nn.functional.cross_entropy(output, Tensor(y))


def sgd(model: nn.Module) -> optim.SGD:
    return optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def same_bits(ranks: Communicator, model: nn.Module) -> bool:
    octets = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    return len(set(ranks.all_gather_bytes(hashlib.sha256(octets).digest()))) == 1


def train_together(ranks: Communicator, steps: int, **options: Any) -> nn.Module:
    """Uneven shards, one of them empty where there are several ranks."""
    model = build()
    parallel = DistributedDataParallel(model, ranks, bucket_cap_mb=SMALL, **options)
    optimizer = sgd(model)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(parallel, *batch(100 * step + ranks.rank, (2 + 3 * ranks.rank) % 5)).backward()
        optimizer.step()
    return model


def train_alone(world_size: int, steps: int) -> nn.Module:
    """The same, shard after shard, weighted by their samples."""
    model = build()
    optimizer = sgd(model)
    counts = [(2 + 3 * rank) % 5 for rank in range(world_size)]
    for step in range(steps):
        optimizer.zero_grad()
        for rank, count in enumerate(counts):
            if count:
                (loss_of(model, *batch(100 * step + rank, count)) * (count / sum(counts))).backward()
        if 0 in counts:  # a rank without samples has reached the right branch all the same
            for parameter in model.right.parameters():
                parameter.grad = distgrad.zeros_like(parameter) if parameter.grad is None else parameter.grad
        optimizer.step()
    return model


def assert_close(model: nn.Module, reference: nn.Module) -> None:
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_trains_like_one_process(world: Communicator, channel: str) -> None:
    model = train_together(world, STEPS, progress=channel)
    assert same_bits(world, model)
    assert_close(model, train_alone(world.world_size, STEPS))


def test_the_choice_is_measured_and_the_same_on_every_rank(world: Communicator) -> None:
    names = list(CHANNELS)
    if world.world_size > 1:
        figures = measure(names, world, 1 << 20)
        assert len(set(world.all_gather_bytes(repr(figures).encode()))) == 1 and min(figures) > 0
    chosen = str(choose_progress("auto", world, WORTH_HIDING))
    assert len(set(world.all_gather_bytes(chosen.encode()))) == 1
    assert chosen.startswith("none (one rank)" if world.world_size == 1 else tuple(names))


def test_parts_add_up_and_are_reduced_once(world: Communicator) -> None:
    model, reference = build(), build()
    parallel = DistributedDataParallel(model, progress="thread")
    parts = [batch(10 * rank + part, 3) for rank in range(world.world_size) for part in range(2)]
    mine = parts[2 * world.rank : 2 * world.rank + 2]
    with parallel.no_sync():
        (loss_of(parallel, *mine[0]) / 2).backward()
    (loss_of(parallel, *mine[1]) / 2).backward()
    for part in parts:
        (loss_of(reference, *part) / len(parts)).backward()
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None and q.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("channel", ["thread", "poll"])
def test_ranks_with_fewer_batches_leave_early(world: Communicator, channel: str) -> None:
    model, reference = build(), build()
    parallel = DistributedDataParallel(model, progress=channel)
    optimizer, alone = sgd(model), sgd(reference)
    steps = [1 + rank for rank in range(world.world_size)]
    with parallel.join():
        for step in range(steps[world.rank]):
            optimizer.zero_grad()
            loss_of(parallel, *batch(10 * world.rank + step, 2)).backward()
            optimizer.step()
    for step in range(max(steps)):
        alone.zero_grad()
        present = [rank for rank in range(world.world_size) if step < steps[rank]]
        for rank in present:
            (loss_of(reference, *batch(10 * rank + step, 2)) / len(present)).backward()
        alone.step()
    assert same_bits(world, model)
    assert_close(model, reference)


# ---- As a library


def test_two_models_on_two_halves_of_the_world(world: Communicator) -> None:
    """They take another number of steps each, at the same time."""
    half = world.rank % 2
    group = distributed.split(half)
    assert group is not None
    model = train_together(group, STEPS + 2 * half, progress="thread")
    assert same_bits(group, model)
    assert_close(model, train_alone(group.world_size, STEPS + 2 * half))
    with distributed.use(group):
        assert (distributed.rank(), distributed.world_size()) == (group.rank, group.world_size)
    assert distributed.world_size() == world.world_size


def test_new_group_takes_the_ranks_in_their_order(world: Communicator) -> None:
    ranks = list(range(world.world_size))[::-2]
    group = distributed.new_group(ranks)
    assert (group is None) == (world.rank not in ranks)
    if group is not None:
        assert group.rank == ranks.index(world.rank)
    with pytest.raises(ValueError, match="must be different ones from 0 to"):
        distributed.new_group([0, 0])


def test_a_communicator_of_the_users_own_program(world: Communicator) -> None:
    """Its messages and those of distgrad do not mix, and COMM_WORLD is not touched."""
    from mpi4py import MPI

    own = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank % 2, MPI.COMM_WORLD.rank)
    ranks = distributed.from_mpi4py(own)
    assert (ranks.rank, ranks.world_size) == (own.rank, own.size)
    received = np.empty(1)
    request = own.Irecv(received, source=(own.rank - 1) % own.size, tag=7)
    model = train_together(ranks, 2, progress="thread")
    own.Send(np.array([own.rank + 0.5]), dest=(own.rank + 1) % own.size, tag=7)
    request.Wait()
    assert received[0] == (own.rank - 1) % own.size + 0.5
    assert same_bits(ranks, model)
    own.Free()  # distgrad has a duplicate
    ranks.barrier()
    with pytest.raises(TypeError, match=r"must be an mpi4py\.MPI\.Intracomm"):
        distributed.from_mpi4py(MPI.COMM_NULL)

"""Training with slices over real processes: the same bits as alone, also with hooks that remember."""

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
from distgrad.distributed.comm_hooks import (
    PowerSGDState,
    TopKState,
    fp16_compress_hook,
    powerSGD_hook,
    top_k_hook,
)
from distgrad.distributed.tree_sum import TreeSum, owners_of, tree_sum
from distgrad.distributed.virtual_ranks import VirtualCommunicator, run_virtual, virtual_communicators

# By a thread: a rank that hangs inside of MPI never comes back to Python to see a signal.
pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread")]

SAMPLES, BATCH = 43, 20  # the last batch has three samples for eight slices


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 3, 10_001])
def test_tree_sums(dtype: Any, size: int) -> None:
    ranks = distributed.init()
    for virtual_ranks in (ranks.world_size, max(5, ranks.world_size), 8, 13):
        leaves = [np.random.default_rng(v).standard_normal(size).astype(dtype) for v in range(virtual_ranks)]
        tree = TreeSum(owners_of(virtual_ranks, ranks.world_size), ranks.rank)
        slots: list[Any] = [np.empty(size, dtype) for _ in range(tree.slots)]
        for number, leaf in enumerate(tree.leaves):
            tree.add(number, leaves[leaf], slots)
        tree.finish(slots, slots[0], ranks, divisor=7.0)
        assert slots[0].tobytes() == (tree_sum(leaves) / np.asarray(7.0, dtype)).tobytes()


def test_virtual_ranks() -> None:
    ranks = distributed.init()

    def work(_: int, virtual: VirtualCommunicator) -> None:
        v = virtual.rank
        array = np.full(3, v + 0.5, np.float32)
        virtual.all_reduce(array)
        assert array.tolist() == [32.0] * 3
        virtual.broadcast(array, src=6)
        assert virtual.all_gather(np.array([v])).tolist() == [[w] for w in range(8)]
        assert virtual.all_gather_bytes(b"." * v) == [b"." * w for w in range(8)]
        received = np.empty(8, np.int64)
        virtual.all_to_all(np.arange(8) + 10 * v, [1] * 8, received, [1] * 8)
        assert received.tolist() == [10 * w + v for w in range(8)]
        group = virtual.split(v % 2)
        assert group is not None
        assert group.all_gather(np.array(v)).tolist() == list(range(v % 2, 8, 2))
        group.free()
        virtual.barrier()

    run_virtual(virtual_communicators(ranks, 8), work)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(6 * 16, 4)

    def forward(self, x: Any) -> Any:
        return self.out(self.dropout(self.norm(self.into(x)).relu().flatten(1)))


Register = Callable[[DistributedDataParallel], None]


def train(ranks: Communicator, register: Register | None, progress: str = "none") -> bytes:
    distgrad.manual_seed(0)
    model = Net()
    generator = np.random.default_rng(0)
    data = TensorDataset(
        generator.standard_normal((SAMPLES, 2, 4, 4)).astype(np.float32), generator.integers(0, 4, SAMPLES)
    )
    sampler = GlobalBatchSampler(data, BATCH, ranks.world_size, ranks.rank, seed=3, virtual_ranks=8)
    ddp = DistributedDataParallel(model, ranks, bucket_cap_mb=0.001, progress=progress, reproducible=True)
    if register is not None:
        register(ddp)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(data, batch_sampler=sampler)
    for epoch in range(2):
        loader.set_epoch(epoch)
        for slices in loader:
            optimizer.zero_grad()
            for images, labels in slices:
                nn.functional.cross_entropy(ddp(images), labels).backward()
            optimizer.step()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).digest()


HOOKS: dict[str, Register] = {
    "fp16": lambda ddp: ddp.register_comm_hook(None, fp16_compress_hook),
    "top_k": lambda ddp: ddp.register_comm_hook(TopKState(density=0.05), top_k_hook),
    "power_sgd": lambda ddp: ddp.register_comm_hook(
        PowerSGDState(matrix_approximation_rank=1, start_powerSGD_iter=2, min_compression_rate=1), powerSGD_hook
    ),
}


@pytest.mark.parametrize("progress", ["thread", "patient", "poll", "none"])
def test_the_model_is_that_of_one_process(progress: str) -> None:
    ranks = distributed.init()
    found = ranks.all_gather_bytes(train(ranks, None, progress))
    assert found == [train(SingleCommunicator(), None)] * ranks.world_size


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_give_the_model_of_one_process(name: str) -> None:
    ranks = distributed.init()
    found = ranks.all_gather_bytes(train(ranks, HOOKS[name]))
    alone = train(SingleCommunicator(), HOOKS[name])
    assert found == [alone] * ranks.world_size
    assert alone != train(SingleCommunicator(), None)  # the hook did something

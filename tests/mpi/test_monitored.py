"""The watched communicator over real processes: it changes nothing, logs all, and compares when it is asked to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from distgrad import distributed, nn, optim
from distgrad.autograd import Tensor
from distgrad.distributed.desync import DesyncCheck
from distgrad.distributed.monitored import MonitoredCommunicator, monitor
from distgrad.distributed.mpi import MPICommunicator
from distgrad.errors import CommunicationError

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread")]


@pytest.fixture
def world() -> Iterator[Any]:
    communicator = distributed.init("mpi")
    communicator.barrier()
    yield communicator


def test_init_watches_where_there_is_somebody_to_wait_for(world: Any) -> None:
    if world.world_size == 1:
        assert isinstance(world, MPICommunicator) and monitor(world) is world
        return
    assert isinstance(world, MonitoredCommunicator) and isinstance(world, distributed.Communicator)
    assert world.backend == "mpi" and world.watchdog is not None and world.watchdog._line is not None
    assert (world.local_rank, world.hostname) == (world.inner.local_rank, world.inner.hostname)


def test_every_collective_gives_what_it_gives_unwatched(world: Any) -> None:
    rank, size = world.rank, world.world_size
    total = np.full(3, rank + 1.0)
    world.all_reduce(total)
    assert total.tolist() == [size * (size + 1) / 2] * 3
    largest = np.array([rank], dtype=np.int64)
    work = world.start_all_reduce(largest, "max")
    work.wait()
    assert work.test() and largest[0] == size - 1
    polled = np.ones(1)
    work = world.start_all_reduce(polled)
    while not work.test():
        pass
    assert polled[0] == size
    values = np.arange(4.0) * (rank == size - 1)
    world.broadcast(values, src=size - 1)
    assert values.tolist() == [0, 1, 2, 3]
    assert world.all_gather(np.array([rank])).tolist() == [[r] for r in range(size)]
    assert world.all_gather_bytes(b"x" * rank) == [b"x" * r for r in range(size)]
    counts = [r + 1 for r in range(size)]  # uneven
    flat = np.repeat(np.where(np.arange(size) == rank, rank, -1), counts)
    world.all_gather_into(flat, counts)
    assert flat.tolist() == np.repeat(np.arange(size), counts).tolist()
    received = np.empty(size * (rank + 1))
    world.all_to_all(np.full(sum(counts), rank, dtype=float), counts, received, [rank + 1] * size)
    assert received.tolist() == np.repeat(np.arange(size), rank + 1).tolist()
    shared = world.duplicate()
    arrays = shared.shared_arrays(2, np.float32)
    arrays[rank][:] = rank
    shared.barrier()
    assert [a[0] for a in arrays] == list(range(size))
    shared.barrier()
    shared.free()


def test_the_log_and_the_names_of_groups(world: Any) -> None:
    if world.world_size == 1:
        pytest.skip("one rank is not watched")
    start = world.log.sequence
    twin = world.duplicate()
    half = world.split(world.rank % 2, key=-world.rank)
    none = world.split(None if world.rank == 0 else 1)
    assert twin.log.name.startswith("world/duplicate ") and twin.log.members == tuple(range(world.world_size))
    mine = [r for r in range(world.world_size) if r % 2 == world.rank % 2][::-1]
    assert half.log.members == tuple(mine) and half.log.name.endswith(f" color {world.rank % 2}")
    assert (none is None) == (world.rank == 0)
    half.all_reduce(np.ones(2, dtype=np.float32), "min")
    assert half.log.last.call == "all_reduce(float32, 2, op=min)" and half.log.last.site.startswith("test_monitored.py")
    assert [record.call for record in world.log.recent(3)] == ["duplicate()", "split()", "split()"]
    assert world.log.sequence == start + 3 and not world.log.pending
    signatures = world.all_gather(np.array(world.log.signature, dtype=np.uint64))
    assert (signatures == signatures[0]).all()
    for group in (twin, half, none):
        if group is not None:
            group.free()
    assert twin.log.name not in world.watchdog._logs


def test_check_over_mpi(world: Any) -> None:
    size = world.world_size
    if size == 1:
        pytest.skip("one rank agrees with itself")
    checked = MonitoredCommunicator(MPICommunicator(), "checked")
    checked.configure(check=True)
    checked.all_reduce(np.ones(3))
    with pytest.raises(
        CommunicationError, match=rf"rank 0 called barrier\(\) at .* but rank {size - 1} called all_red"
    ):
        checked.barrier() if checked.rank < size - 1 else checked.all_reduce(np.ones(3))
    checked.configure(check=False)


def test_desync_over_mpi(world: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    for parameter in model.parameters():
        world.broadcast(parameter.detach().numpy())
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    check = DesyncCheck(model, optimizer, every=1, communicator=world)
    for _ in range(2):
        (model(Tensor(np.ones((2, 3), dtype=np.float32))) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert check.step()
    if world.world_size == 1:
        return
    last = world.world_size - 1
    if world.rank == last:
        optimizer.state[model[1].bias]["exp_avg"].fill_(4)
    with pytest.raises(CommunicationError, match=rf"step 3: optimizer state exp_avg of 1\.bias of rank {last} differs"):
        check.step()
    check.heal = True
    assert not check.step() and check.step()

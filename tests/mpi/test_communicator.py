"""The MPI communicator over real processes: values against NumPy over the stacked inputs of all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.autograd import Tensor

# By a thread: a rank that hangs inside of MPI never comes back to Python to see a signal.
pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread")]

REFERENCE = {"sum": np.sum, "prod": np.prod, "min": np.min, "max": np.max}
DTYPES = ["float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.fixture(autouse=True)
def world() -> Iterator[distributed.Communicator]:
    communicator = distributed.init("mpi")
    communicator.barrier()
    yield communicator


def values_of(rank: int, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng([rank, 11])
    if dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    return generator.integers(0 if dtype.startswith("u") else -3, 4, shape).astype(dtype)


def stacked(world_size: int, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    return np.stack([values_of(rank, shape, dtype) for rank in range(world_size)])


def test_identity(world: distributed.Communicator) -> None:
    from mpi4py import MPI

    assert isinstance(world, distributed.Communicator)
    assert distributed.init() is world and distributed.communicator() is world and world.backend == "mpi"
    assert (distributed.rank(), distributed.world_size()) == (MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size)
    assert MPI.Query_thread() >= MPI.THREAD_SERIALIZED
    hosts = [name.decode() for name in world.all_gather_bytes(world.hostname.encode())]
    assert world.local_world_size == hosts.count(world.hostname)
    assert world.local_rank == hosts[: world.rank].count(world.hostname)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4)])
def test_all_reduce_equals_numpy_over_all_ranks(world: distributed.Communicator, shape: tuple[int, ...]) -> None:
    for dtype, op in [(d, o) for d in DTYPES for o in REFERENCE] + [("bool", "min"), ("bool", "max")]:
        array = values_of(world.rank, shape, dtype)
        world.all_reduce(array, op)  # type: ignore[arg-type]
        assert array.dtype == dtype and array.shape == shape
        expected = REFERENCE[op](stacked(world.world_size, shape, dtype), axis=0).astype(dtype)
        np.testing.assert_array_equal(array, expected, err_msg=f"{dtype} {op}")


def test_layouts_are_written_in_place(world: distributed.Communicator) -> None:
    total = sum(range(1, world.world_size + 1))
    memory = np.full((4, 6), -1.0)
    every_other = memory[:, ::2]
    every_other[...] = world.rank + 1
    world.all_reduce(every_other)
    np.testing.assert_array_equal(memory[:, ::2], total)
    np.testing.assert_array_equal(memory[:, 1::2], -1.0)
    world.all_reduce(every_other, "max")
    np.testing.assert_array_equal(memory[:, ::2], total)
    # Ranks may lay out the same values differently: elements meet by index, not by address.
    table = np.arange(6.0).reshape(2, 3) * (world.rank + 1)
    table = np.asfortranarray(table) if world.rank % 2 else table
    world.all_reduce(table)
    np.testing.assert_array_equal(table, np.arange(6.0).reshape(2, 3) * total)
    swapped = (np.arange(4.0) * (world.rank + 1)).astype(">f8" if world.rank % 2 else "<f8")
    world.all_reduce(swapped)
    np.testing.assert_array_equal(swapped, np.arange(4.0) * total)
    backwards = (np.arange(5) + 10 * world.rank)[::-1]
    world.broadcast(backwards, src=world.world_size - 1)
    np.testing.assert_array_equal(backwards, (np.arange(5) + 10 * (world.world_size - 1))[::-1])


def test_every_rank_gets_the_same_bits(world: distributed.Communicator) -> None:
    # Sizes on both sides of the thresholds between the algorithms of Open MPI.
    for size in (1, 7, 1000, 70_001, 300_007):
        array = np.random.default_rng([world.rank, size]).standard_normal(size).astype(np.float32)
        world.all_reduce(array)
        gathered = world.all_gather_bytes(array.tobytes()) if size <= 1000 else world.all_gather(array)
        assert all(np.array_equal(gathered[0], row) for row in gathered)


def test_nan_and_signed_infinities_in_min_and_max(world: distributed.Communicator) -> None:
    for dtype in (np.float32, np.float64):
        extremes = np.array([-np.inf, -1.5, -0.0, 0.0, 1e-45, 3.5, np.inf, np.finfo(dtype).max], dtype=dtype)
        for op in ("min", "max"):
            rows = np.stack([np.roll(extremes, rank) for rank in range(world.world_size)])
            rows[-1, 2] = np.nan
            rows[0, 3] = -np.nan
            array = rows[world.rank].copy()
            world.all_reduce(array, op)
            np.testing.assert_array_equal(array, REFERENCE[op](rows, axis=0))


def test_broadcast_from_every_rank(world: distributed.Communicator) -> None:
    for src in range(world.world_size):
        for shape in [(), (0, 2), (2, 3)]:
            for dtype in (np.float16, np.float64, np.bool_):
                array = np.full(shape, world.rank).astype(dtype)
                world.broadcast(array, src=src)
                np.testing.assert_array_equal(array, np.full(shape, src).astype(dtype))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_all_gather(world: distributed.Communicator, shape: tuple[int, ...]) -> None:
    for dtype in ("int64", "float32", "bool"):
        gathered = world.all_gather(values_of(world.rank, shape, dtype))
        assert gathered.shape == (world.world_size, *shape) and gathered.dtype == dtype
        np.testing.assert_array_equal(gathered, stacked(world.world_size, shape, dtype))
    transposed = values_of(world.rank, (3, 2), "int64").T
    np.testing.assert_array_equal(
        world.all_gather(transposed), stacked(world.world_size, (3, 2), "int64").swapaxes(1, 2)
    )


def test_all_gather_bytes_of_different_lengths(world: distributed.Communicator) -> None:
    assert world.all_gather_bytes(b"x" * world.rank) == [b"x" * rank for rank in range(world.world_size)]
    assert world.all_gather_bytes(b"") == [b""] * world.world_size
    assert world.all_gather_bytes(bytes(range(256))) == [bytes(range(256))] * world.world_size


def test_messages_beyond_the_limit_are_cut(world: distributed.Communicator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgrad.distributed.mpi.CHUNK_BYTES", 64)
    array = np.arange(1001.0) * (world.rank + 1)
    world.all_reduce(array)
    np.testing.assert_array_equal(array, np.arange(1001.0) * sum(range(1, world.world_size + 1)))
    smallest = np.arange(101, dtype=np.float32) - world.rank
    world.all_reduce(smallest, "min")
    np.testing.assert_array_equal(smallest, np.arange(101) - (world.world_size - 1))
    sent = np.arange(333, dtype=np.int16) + world.rank
    world.broadcast(sent, src=world.world_size - 1)
    np.testing.assert_array_equal(sent, np.arange(333) + world.world_size - 1)
    shape = (7, 13)
    gathered = world.all_gather(values_of(world.rank, shape, "float64"))
    np.testing.assert_array_equal(gathered, stacked(world.world_size, shape, "float64"))
    messages = [bytes([rank]) * (100 * rank) for rank in range(world.world_size)]
    assert world.all_gather_bytes(messages[world.rank]) == messages


def test_users_own_messages_do_not_mix(world: distributed.Communicator) -> None:
    """A message the user has sent on COMM_WORLD is still there after distgrad's collectives."""
    from mpi4py import MPI

    everyone = MPI.COMM_WORLD
    sent = np.array([everyone.rank], dtype=np.int64)
    request = everyone.Isend(sent, dest=(everyone.rank + 1) % everyone.size, tag=0)
    array = np.ones(10)
    world.all_reduce(array)
    np.testing.assert_array_equal(array, world.world_size)
    received = np.empty(1, dtype=np.int64)
    everyone.Recv(received, source=(everyone.rank - 1) % everyone.size, tag=0)
    request.Wait()
    assert received[0] == (everyone.rank - 1) % everyone.size


def test_barrier_holds_everyone(world: distributed.Communicator) -> None:
    """Every rank writes before the barrier; after it, every rank sees every write (memory that all share)."""
    from mpi4py import MPI

    if world.local_world_size != world.world_size:
        pytest.skip("ranks on several hosts share no memory")
    window = MPI.Win.Allocate_shared(8 if world.rank == 0 else 0, 8, comm=MPI.COMM_WORLD)
    try:
        memory, _ = window.Shared_query(0)
        marks = np.frombuffer(memory, dtype=np.uint8)  # (8,)
        if world.rank == 0:
            marks[:] = 0
        world.barrier()
        if world.rank < 8:
            marks[world.rank] = 1
        window.Sync()
        world.barrier()
        window.Sync()
        assert marks[: world.world_size].sum() == min(8, world.world_size)
        world.barrier()
    finally:
        window.Free()


def test_tensors(world: distributed.Communicator) -> None:
    tensor = Tensor(np.full((2, 2), float(world.rank)), requires_grad=True)
    distributed.all_reduce(tensor, "max")
    np.testing.assert_array_equal(tensor.detach().numpy(), world.world_size - 1)
    assert distributed.all_gather(Tensor(np.array(world.rank))).tolist() == list(range(world.world_size))
    distributed.barrier()

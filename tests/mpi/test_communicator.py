"""The MPI communicator over real processes: values against NumPy over the stacked inputs of all ranks."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.autograd import Tensor

# By a thread: a rank that hangs inside of MPI never comes back to Python to see a signal.
pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread"), pytest.mark.usefixtures("world")]

REFERENCE = {"sum": np.sum, "prod": np.prod, "min": np.min, "max": np.max}
DTYPES = ["float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


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


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_a_started_all_reduce_ends_like_a_blocking_one(world: distributed.Communicator, dtype: str) -> None:
    for op in ("min", "max") if dtype == "bool" else REFERENCE:
        arrays = [values_of(world.rank, (size,), dtype) for size in (0, 1, 1000)]
        works = [world.start_all_reduce(array, op) for array in arrays]  # type: ignore[arg-type]
        while not works[1].test():
            pass
        for work in works[::-1]:
            work.wait()
            assert work.test()
        for array in arrays:
            expected = REFERENCE[op](stacked(world.world_size, array.shape, dtype), axis=0).astype(dtype)
            np.testing.assert_array_equal(array, expected, err_msg=op)


def test_a_started_all_reduce_needs_contiguous_memory(world: distributed.Communicator) -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        world.start_all_reduce(np.zeros((4, 6))[:, ::2])


@pytest.mark.parametrize("dtype", ["float32", "uint8", "complex128"])
def test_all_to_all_moves_each_part_to_its_rank(world: distributed.Communicator, dtype: str) -> None:
    size, rank = world.world_size, world.rank

    def part(source: int, target: int) -> np.ndarray[Any, Any]:
        return np.full((source + 2 * target) % 4, 10 * source + target).astype(dtype)

    send = np.concatenate([part(rank, other) for other in range(size)])
    receive = np.zeros(sum(part(other, rank).size for other in range(size)), dtype=dtype)
    world.all_to_all(
        send, [part(rank, r).size for r in range(size)], receive, [part(r, rank).size for r in range(size)]
    )
    np.testing.assert_array_equal(receive, np.concatenate([part(other, rank) for other in range(size)]))


def test_all_gather_into_leaves_everybodys_part_everywhere(world: distributed.Communicator) -> None:
    counts = [(3 * r) % 5 for r in range(world.world_size)]
    expected = np.concatenate([np.full(n, r + 0.5, dtype=np.float32) for r, n in enumerate(counts)])
    flat = np.where(expected == world.rank + 0.5, expected, np.nan).astype(np.float32)
    world.all_gather_into(flat, counts)
    np.testing.assert_array_equal(flat, expected)


def test_counts_that_do_not_fit_are_refused(world: distributed.Communicator) -> None:
    flat, wrong = np.zeros(5), [5, *[0] * world.world_size]
    with pytest.raises(ValueError, match="one count a rank"):
        world.all_gather_into(flat, wrong)
    right = [5, *[0] * (world.world_size - 1)]
    with pytest.raises(ValueError, match="one count a rank"):
        world.all_to_all(flat, right, np.zeros(5), wrong)
    with pytest.raises(TypeError, match="must be equal"):
        world.all_to_all(flat, right, np.zeros(5, dtype=np.float32), right)
    with pytest.raises(ValueError, match="one-dimensional and contiguous"):
        world.all_gather_into(np.zeros((5, 1)), right)


def test_split_makes_groups_that_work_side_by_side(world: distributed.Communicator) -> None:
    odd = world.rank % 2
    group = world.split(odd, key=-world.rank)  # the last comes first
    assert group is not None
    members = [r for r in range(world.world_size) if r % 2 == odd][::-1]
    assert (group.world_size, group.rank) == (len(members), members.index(world.rank))
    for _ in range(3 + odd):  # another number of collectives in each
        total = np.array([world.rank])
        group.all_reduce(total)
        assert total[0] == sum(members)
    assert group.all_gather_bytes(str(world.rank).encode()) == [str(r).encode() for r in members]
    group.free()
    alone = world.split(0 if world.rank == 0 else None)
    assert (alone is None) == (world.rank > 0)
    if alone is not None:
        assert alone.world_size == 1
    with pytest.raises(ValueError, match="color is -1"):
        world.split(-1)


def test_another_thread_uses_a_duplicate(world: distributed.Communicator) -> None:
    other = world.duplicate()
    assert (other.rank, other.world_size, other.local_rank) == (world.rank, world.world_size, world.local_rank)
    totals = np.zeros(50)

    def work() -> None:
        for step in range(totals.size):
            value = np.full(1, step + world.rank, dtype=np.float64)
            other.all_reduce(value)
            totals[step] = value[0]

    thread = threading.Thread(target=work)
    thread.start()
    for step in range(70):
        value = np.full(1, step)
        world.all_reduce(value)
        assert value[0] == step * world.world_size
    thread.join()
    np.testing.assert_array_equal(totals, [sum(s + r for r in range(world.world_size)) for s in range(totals.size)])
    other.free()


def test_shared_arrays_are_seen_by_all_ranks(world: distributed.Communicator) -> None:
    host = world.split(0) if world.local_world_size == world.world_size else None
    if host is None:
        pytest.skip("ranks on several hosts share no memory")
    arrays = host.shared_arrays(3, np.float32)
    assert [(a.shape, a.dtype) for a in arrays] == [((3,), np.float32)] * host.world_size
    np.testing.assert_array_equal(arrays[host.rank], 0)
    host.barrier()
    arrays[(host.rank + 1) % host.world_size][0] = host.rank
    host.barrier()
    assert [a[0] for a in arrays] == [(r - 1) % host.world_size for r in range(host.world_size)]
    host.free()

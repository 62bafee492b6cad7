"""Virtual ranks over real ones: collectives as on so many threads, and the same bits on any number of real ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.distributed import process_group, threads
from distgrad.distributed.communicator import Communicator
from distgrad.distributed.tree_sum import tree_sum
from distgrad.distributed.virtual_ranks import VirtualCommunicator, run_virtual, virtual_communicators
from distgrad.errors import CommunicationError

pytestmark = pytest.mark.timeout(60)

WORLDS = [(1, 1), (8, 1), (8, 2), (8, 3), (8, 5), (8, 8), (5, 3)]


def on(virtual_ranks: int, world_size: int, function: Callable[[Communicator], Any]) -> list[Any]:
    """What ``function`` gives on each virtual rank, over ``world_size`` threads."""

    def rank() -> list[Any]:
        made = virtual_communicators(process_group.communicator(), virtual_ranks)
        return run_virtual(made, lambda _, communicator: function(communicator))

    return [result for results in threads.run(world_size, rank) for result in results]


def values(rank: int, shape: tuple[int, ...] = (4, 3)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(rank).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("virtual_ranks", "world_size"), WORLDS)
def test_reductions(virtual_ranks: int, world_size: int) -> None:
    ufuncs: dict[Any, Any] = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}

    def work(ranks: Communicator) -> dict[str, bytes]:
        found = {}
        for op in ufuncs:
            array = np.asfortranarray(values(ranks.rank))
            ranks.all_reduce(array, op)
            found[op] = array.tobytes()
        flat = values(ranks.rank).reshape(-1)
        started = ranks.start_all_reduce(flat)
        started.wait()
        assert started.test() and flat.tobytes() == found["sum"]
        true = np.array([ranks.rank == 0, True])
        ranks.all_reduce(true, "min")
        assert true.tolist() == [ranks.world_size == 1, True]
        return found

    everybody = [values(v) for v in range(virtual_ranks)]
    wanted = {op: tree_sum(everybody, ufunc).tobytes() for op, ufunc in ufuncs.items()}
    assert on(virtual_ranks, world_size, work) == [wanted] * virtual_ranks


@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_zeros_have_no_sign_after_min_and_max(world_size: int) -> None:
    def work(ranks: Communicator) -> bytes:
        array = np.full(9, -0.0 if ranks.rank % 2 else 0.0)
        ranks.all_reduce(array, "max")
        return array.tobytes()

    assert on(8, world_size, work) == [np.zeros(9).tobytes()] * 8


@pytest.mark.parametrize(("virtual_ranks", "world_size"), WORLDS)
def test_moving_data(virtual_ranks: int, world_size: int) -> None:
    last = virtual_ranks - 1

    def work(ranks: Communicator) -> None:
        v, size = ranks.rank, ranks.world_size
        assert size == virtual_ranks
        assert isinstance(ranks, Communicator)
        array = values(v)
        ranks.broadcast(array, src=last)
        np.testing.assert_array_equal(array, values(last))
        gathered = ranks.all_gather(values(v))
        np.testing.assert_array_equal(gathered, np.stack([values(w) for w in range(size)]))
        assert ranks.all_gather_bytes(b"x" * v) == [b"x" * w for w in range(size)]
        counts = list(range(size))
        flat = np.full(sum(counts), -1.0)
        flat[sum(counts[:v]) : sum(counts[: v + 1])] = v
        ranks.all_gather_into(flat, counts)
        assert flat.tolist() == [w for w in range(size) for _ in range(w)]
        # v sends (v + w) % 3 elements to w
        send_counts = [(v + w) % 3 for w in range(size)]
        send = np.concatenate([np.full(count, 100 * v + w) for w, count in enumerate(send_counts)])
        receive = np.full(sum(send_counts), -1)
        ranks.all_to_all(send, send_counts, receive, send_counts)
        assert receive.tolist() == [100 * w + v for w, count in enumerate(send_counts) for _ in range(count)]
        ranks.barrier()

    on(virtual_ranks, world_size, work)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_groups(world_size: int) -> None:
    def work(ranks: Communicator) -> tuple[list[int], bytes]:
        v = ranks.rank
        other = ranks.duplicate()
        group = ranks.split(None if v == 5 else v % 3, key=-v)  # 0 3 6, 1 4 7 and 2, each backwards
        alone = ranks.split(v)
        assert alone is not None and alone.world_size == 1
        assert [a.tolist() for a in alone.shared_arrays(2, np.float32)] == [[0, 0]]
        other.barrier()
        if group is None:
            return [], b""
        members = group.all_gather(np.array(v)).tolist()
        array = values(v)
        group.all_reduce(array)
        group.free()
        return members, array.tobytes()

    found = on(8, world_size, work)
    for v, (members, total) in enumerate(found):
        wanted = {0: [6, 3, 0], 1: [7, 4, 1], 2: [2]}[v % 3] if v != 5 else []
        assert members == wanted
        assert total == (tree_sum([values(w) for w in wanted]).tobytes() if wanted else b"")


def test_an_exception_reaches_the_caller_and_wakes_the_others() -> None:
    def work(ranks: Communicator) -> None:
        if ranks.rank == 2:
            raise KeyError("mine")
        ranks.barrier()

    with pytest.raises(KeyError, match="mine"):
        on(4, 1, work)


def test_different_calls_are_named() -> None:
    def work(ranks: Communicator) -> None:
        if ranks.rank == 1:
            ranks.barrier()
        else:
            ranks.all_gather_bytes(b"")

    with pytest.raises(CommunicationError, match="virtual ranks do not agree: 0 called all_gather_bytes, but 1 called"):
        on(3, 1, work)


def test_virtual_ranks_share_no_host() -> None:
    def work(ranks: Communicator) -> None:
        assert isinstance(ranks, VirtualCommunicator)
        assert (ranks.local_rank, ranks.local_world_size, ranks.hostname) == (0, 1, f"virtual{ranks.rank}")
        with pytest.raises(CommunicationError, match="a host of its own"):
            ranks.shared_arrays(1, np.float32)

    on(4, 2, work)


def test_simulated_at_64_ranks_under_delays() -> None:
    def rank() -> bytes:
        made = virtual_communicators(process_group.communicator(), 256)

        def work(_: int, ranks: VirtualCommunicator) -> bytes:
            array = values(ranks.rank, (70,))
            ranks.all_reduce(array)
            ranks.all_reduce(array, "max")
            return array.tobytes()

        return run_virtual(made, work)[0]

    wanted = tree_sum([values(v, (70,)) for v in range(256)]).tobytes()
    found = threads.run(64, rank, delay=lambda rank, sequence: (rank * 7 + sequence * 3) % 5 * 0.01)
    assert found == [wanted] * 64

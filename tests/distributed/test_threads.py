"""The thread communicator: values against NumPy over the stacked inputs, and how it breaks."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.distributed import threads
from distgrad.errors import CommunicationError

pytestmark = pytest.mark.timeout(60)

REFERENCE = {"sum": np.sum, "prod": np.prod, "min": np.min, "max": np.max}
WORLD_SIZES = [1, 2, 3, 4, 8]


def inputs_of(rank: int, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng([rank, 7])
    if dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    return generator.integers(0 if dtype.startswith("u") else -3, 4, shape).astype(dtype)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4)])
def test_all_reduce_equals_numpy_over_all_ranks(world_size: int, shape: tuple[int, ...]) -> None:
    cases = [(dtype, op) for dtype in ("float32", "float64", "int32", "int64", "uint8") for op in REFERENCE]
    cases += [("bool", "min"), ("bool", "max")]

    def body() -> list[np.ndarray[Any, Any]]:
        results = []
        for dtype, op in cases:
            array = inputs_of(distributed.rank(), shape, dtype)
            assert distributed.all_reduce(array, op) is None
            results.append(array)
        return results

    per_rank = threads.run(world_size, body)
    for index, (dtype, op) in enumerate(cases):
        stacked = np.stack([inputs_of(rank, shape, dtype) for rank in range(world_size)])
        expected = REFERENCE[op](stacked, axis=0).astype(dtype)
        for results in per_rank:
            assert results[index].dtype == dtype
            np.testing.assert_array_equal(results[index], expected, err_msg=f"{dtype} {op}")


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_every_rank_gets_the_same_bits_and_rank_order_decides_them(world_size: int) -> None:
    values = [np.random.default_rng(rank).standard_normal(1000).astype(np.float32) for rank in range(world_size)]

    def body() -> bytes:
        array = values[distributed.rank()].copy()
        distributed.all_reduce(array)
        return array.tobytes()

    expected = values[0].copy()
    for value in values[1:]:
        expected += value
    assert threads.run(world_size, body) == [expected.tobytes()] * world_size


def test_layouts_are_written_in_place() -> None:
    def body() -> None:
        rank = distributed.rank()
        memory = np.full((4, 6), -1.0)
        every_other = memory[:, ::2]
        every_other[...] = rank + 1
        distributed.all_reduce(every_other)
        np.testing.assert_array_equal(memory[:, ::2], 6.0)
        np.testing.assert_array_equal(memory[:, 1::2], -1.0)  # neighbours untouched
        # Ranks may lay out the same values differently: elements meet by index, not by address.
        table = np.arange(6.0).reshape(2, 3) * (rank + 1)
        table = np.asfortranarray(table) if rank == 1 else table
        distributed.all_reduce(table)
        np.testing.assert_array_equal(table, np.arange(6.0).reshape(2, 3) * 6)
        backwards = (np.arange(5) + 10 * rank)[::-1]
        distributed.broadcast(backwards, src=2)
        np.testing.assert_array_equal(backwards, (np.arange(5) + 20)[::-1])

    threads.run(3, body)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_broadcast_from_every_rank(world_size: int) -> None:
    def body() -> None:
        for src in range(world_size):
            for shape in [(), (0, 2), (2, 3)]:
                array = np.full(shape, distributed.rank(), dtype=np.float16)
                distributed.broadcast(array, src=src)
                np.testing.assert_array_equal(array, np.full(shape, src, dtype=np.float16))

    threads.run(world_size, body)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_all_gather_is_a_new_array_for_each_rank(world_size: int, shape: tuple[int, ...]) -> None:
    def body() -> np.ndarray[Any, Any]:
        gathered = distributed.all_gather(inputs_of(distributed.rank(), shape, "int64"))
        distributed.barrier()
        expected = np.stack([inputs_of(rank, shape, "int64") for rank in range(world_size)])
        np.testing.assert_array_equal(gathered, expected)
        gathered[...] = distributed.rank()  # must not reach the others
        distributed.barrier()
        np.testing.assert_array_equal(gathered, distributed.rank())
        return gathered

    results = threads.run(world_size, body)
    assert all(result.shape == (world_size, *shape) for result in results)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_all_gather_bytes_of_different_lengths(world_size: int) -> None:
    def body() -> list[bytes]:
        return distributed.communicator().all_gather_bytes(b"x" * distributed.rank())

    assert threads.run(world_size, body) == [[b"x" * rank for rank in range(world_size)]] * world_size


def test_nan_wins_in_min_and_max() -> None:
    def body() -> None:
        for op in ("min", "max"):
            array = np.array([np.nan if distributed.rank() == 1 else 2.0, distributed.rank()])
            distributed.all_reduce(array, op)
            np.testing.assert_array_equal(array, [np.nan, 0.0 if op == "min" else 2.0])

    threads.run(3, body)


def test_module_functions_act_for_the_calling_rank_and_leave_no_trace() -> None:
    def body(offset: int) -> tuple[int, int, int, bool, str]:
        assert distributed.init() is distributed.communicator()
        return (
            distributed.rank() + offset,
            distributed.world_size(),
            distributed.local_rank(),
            distributed.is_initialized(),
            distributed.communicator().backend,
        )

    assert threads.run(3, body, 10) == [(10 + rank, 3, rank, True, "threads") for rank in range(3)]
    assert not distributed.is_initialized()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


def test_hosts_can_be_simulated() -> None:
    def body() -> tuple[str, int, int]:
        communicator = distributed.communicator()
        return communicator.hostname, communicator.local_rank, communicator.local_world_size

    assert threads.run(5, body, ranks_per_host=2) == [
        ("host0", 0, 2),
        ("host0", 1, 2),
        ("host1", 0, 2),
        ("host1", 1, 2),
        ("host2", 0, 1),
    ]
    assert len({host for host, _, _ in threads.run(3, body)}) == 1


def test_delays_force_the_order_of_arrival_and_not_the_result() -> None:
    arrivals: list[list[int]] = []

    def in_order(order: list[int]) -> list[np.ndarray[Any, Any]]:
        """Each rank enters the first collective only after its predecessor in ``order`` was let in."""
        gates = {rank: threading.Event() for rank in order}
        gates[order[0]].set()
        seen: list[int] = []

        def delay(rank: int, sequence: int) -> float:
            if sequence == 0:
                gates[rank].wait(30)
                seen.append(rank)
                following = order.index(rank) + 1
                if following < len(order):
                    gates[order[following]].set()
            return 0.0

        def body() -> np.ndarray[Any, Any]:
            array = np.array([0.1, 1e16, -1e16][distributed.rank() % 3])
            distributed.all_reduce(array)
            return array

        results = threads.run(4, body, delay=delay)
        arrivals.append(seen)
        return results

    first = in_order([0, 1, 2, 3])
    second = in_order([3, 1, 0, 2])
    assert arrivals == [[0, 1, 2, 3], [3, 1, 0, 2]]
    assert {a.tobytes() for a in first} == {a.tobytes() for a in second}
    assert len({a.tobytes() for a in first}) == 1


def test_a_delay_in_seconds_holds_one_rank_back() -> None:
    def body() -> float:
        begun = time.monotonic()
        distributed.barrier()
        return time.monotonic() - begun

    waited = threads.run(2, body, delay=lambda rank, sequence: 0.05 if rank == 1 else 0.0)
    assert waited[1] >= 0.045


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_a_failing_rank_breaks_the_waits_of_the_others(world_size: int) -> None:
    seen: dict[int, str] = {}

    def body() -> None:
        distributed.barrier()
        if distributed.rank() == 1:
            raise KeyError("lost")
        try:
            distributed.all_reduce(np.zeros(3))
        except CommunicationError as error:
            seen[distributed.rank()] = str(error)
            raise

    with pytest.raises(KeyError, match="lost"):
        threads.run(world_size, body)
    assert sorted(seen) == [rank for rank in range(world_size) if rank != 1]
    for rank, message in seen.items():
        assert "rank 1 failed with KeyError: 'lost'" in message
        assert f"rank {rank} in all_reduce(shape=(3,), dtype=float64, op=sum), collective 1" in message


def test_a_rank_that_returns_early_is_named() -> None:
    def body() -> None:
        if distributed.rank() != 2:
            distributed.barrier()

    with pytest.raises(CommunicationError, match=r"rank 2 ended without joining rank [01] in barrier"):
        threads.run(3, body)


def test_a_rank_that_does_not_come_in_time_is_named() -> None:
    release = threading.Event()

    def body() -> None:
        if distributed.rank() == 1:
            release.wait(30)
        else:
            try:
                distributed.barrier()
            finally:
                release.set()

    with pytest.raises(
        CommunicationError, match=r"rank 1 did not join rank 0 in barrier\(\), collective 0, within 0\.1 s"
    ):
        threads.run(2, body, timeout=0.1)


def test_a_rank_stuck_outside_does_not_keep_run_from_reporting() -> None:
    release = threading.Event()

    def body() -> None:
        if distributed.rank() == 1:
            release.wait(30)
        raise ValueError("first")

    try:
        with pytest.raises(ValueError, match="first"):
            threads.run(2, body, timeout=0.1)
    finally:
        release.set()


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (
            [lambda c: c.all_reduce(np.zeros(3)), lambda c: c.all_reduce(np.zeros(4))],
            r"rank 0 called all_reduce\(shape=\(3,\), .* but rank 1 called all_reduce\(shape=\(4,\)",
        ),
        (
            [lambda c: c.all_reduce(np.zeros(3)), lambda c: c.all_reduce(np.zeros(3, np.float32))],
            "dtype=float64.*dtype=float32",
        ),
        ([lambda c: c.all_reduce(np.zeros(3)), lambda c: c.all_reduce(np.zeros(3), "max")], "op=sum.*op=max"),
        ([lambda c: c.broadcast(np.zeros(3)), lambda c: c.broadcast(np.zeros(3), 1)], "src=0.*src=1"),
        ([lambda c: c.barrier(), lambda c: c.all_gather(np.zeros(()))], r"barrier\(\), but rank 1 called all_gather"),
        (
            [lambda c: c.all_gather_bytes(b""), lambda c: c.barrier()],
            r"all_gather_bytes\(\), but rank 1 called barrier",
        ),
    ],
)
def test_ranks_that_disagree_all_raise_and_both_calls_are_named(calls: list[Any], expected: str) -> None:
    messages: dict[int, str] = {}

    def body() -> None:
        rank = distributed.rank()
        try:
            calls[min(rank, 1)](distributed.communicator())
        except CommunicationError as error:
            messages[rank] = str(error)
            raise

    with pytest.raises(CommunicationError, match=expected):
        threads.run(3, body)
    assert len(messages) == 3 and len(set(messages.values())) == 1


def test_abort_ends_the_others_with_its_rank() -> None:
    seen: list[str] = []

    def body() -> None:
        if distributed.rank() == 0:
            distributed.abort(3)
        try:
            distributed.barrier()
        except CommunicationError as error:
            seen.append(str(error))
            raise

    with pytest.raises(SystemExit) as ended:
        threads.run(2, body)
    assert ended.value.code == 3
    assert seen == ["rank 0 called abort(3), which broke rank 1 in barrier(), collective 0"]


def test_a_completed_collective_counts_even_if_a_rank_fails_right_after() -> None:
    def body() -> None:
        array = np.ones(2)
        distributed.all_reduce(array)
        np.testing.assert_array_equal(array, 3.0)
        raise RuntimeError(f"after, on rank {distributed.rank()}")

    for _ in range(20):
        with pytest.raises(RuntimeError, match="after"):
            threads.run(3, body)


@pytest.mark.parametrize("arguments", [{"world_size": 0}, {"world_size": 2, "ranks_per_host": 0}])
def test_run_rejects_impossible_sizes(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        threads.run(arguments.pop("world_size"), lambda: None, **arguments)


def test_many_collectives_leave_nothing_behind() -> None:
    def body() -> int:
        for _ in range(200):
            distributed.barrier()
        return len(distributed.communicator()._group._meetings)  # type: ignore[attr-defined]

    assert max(threads.run(4, body)) <= 1


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_parts_reach_their_ranks(world_size: int) -> None:
    def body() -> None:
        world = distributed.communicator()
        rank = world.rank

        def part(source: int, target: int) -> np.ndarray[Any, Any]:
            return np.full((source + 2 * target) % 4, 10 * source + target)

        send = np.concatenate([part(rank, other) for other in range(world_size)])
        expected = np.concatenate([part(other, rank) for other in range(world_size)])
        receive = np.zeros_like(expected)
        counts = [part(other, rank).size for other in range(world_size)]
        world.all_to_all(send, [part(rank, other).size for other in range(world_size)], receive, counts)
        np.testing.assert_array_equal(receive, expected)

        lengths = [(3 * r) % 5 for r in range(world_size)]
        whole = np.repeat(np.arange(world_size) + 0.5, lengths)
        flat = np.where(whole == rank + 0.5, whole, np.nan)
        world.all_gather_into(flat, lengths)
        np.testing.assert_array_equal(flat, whole)

    threads.run(world_size, body)


def test_all_to_all_names_ranks_that_do_not_agree_on_a_count() -> None:
    def body() -> None:
        rank = distributed.rank()
        distributed.communicator().all_to_all(np.zeros(2), [1, 1], np.zeros(2 + rank), [1, 1 + rank])

    with pytest.raises(CommunicationError, match="rank 1 sends 1 elements to rank 1, which expects 2"):
        threads.run(2, body)


def test_a_started_all_reduce_waits_for_nobody() -> None:
    """Rank 1 joins after rank 0 has started, tested and gone on."""
    gone_on = threading.Event()

    def body() -> bool:
        world, rank = distributed.communicator(), distributed.rank()
        array = np.full(3, rank + 1.0)
        if rank == 1:
            assert gone_on.wait(30)
        work = world.start_all_reduce(array)
        early = work.test()
        gone_on.set()
        work.wait()
        np.testing.assert_array_equal(array, 3.0)
        return early

    assert threads.run(2, body) == [False, True]


@pytest.mark.parametrize("world_size", [1, 2, 5, 8])
def test_groups_and_duplicates_work_side_by_side(world_size: int) -> None:
    def body() -> None:
        world = distributed.communicator()
        odd = world.rank % 2
        group = world.split(odd, key=-world.rank)
        assert group is not None
        members = [r for r in range(world_size) if r % 2 == odd][::-1]
        assert (group.world_size, group.rank) == (len(members), members.index(world.rank))
        other = group.duplicate()
        for _ in range(3 + odd):
            total = np.array([world.rank])
            work = other.start_all_reduce(total)
            assert group.all_gather_bytes(str(world.rank).encode()) == [str(r).encode() for r in members]
            work.wait()
            assert total[0] == sum(members)
        shared = group.shared_arrays(2, np.int64)
        shared[(group.rank + 1) % group.world_size][0] = group.rank
        group.barrier()
        assert [a.tolist() for a in shared] == [[(r - 1) % group.world_size, 0] for r in range(group.world_size)]
        other.free()
        alone = world.split(7 if world.rank == 0 else None)
        assert (alone is None) == (world.rank > 0)

    threads.run(world_size, body)


def test_hosts_of_a_group_are_those_of_the_world() -> None:
    def body() -> tuple[int, int, str]:
        group = distributed.communicator().split(distributed.rank() % 2)
        assert group is not None
        if group.local_world_size < group.world_size:
            with pytest.raises(CommunicationError, match="split the communicator by host"):
                group.shared_arrays(1, np.float32)
        return group.local_rank, group.local_world_size, group.hostname

    assert threads.run(5, body, ranks_per_host=3) == [
        (0, 2, "host0"),
        (0, 1, "host0"),
        (1, 2, "host0"),
        (0, 1, "host1"),
        (0, 1, "host1"),
    ]


def test_a_failure_breaks_the_waits_in_every_group() -> None:
    def body() -> None:
        group = distributed.communicator().split(distributed.rank() // 2)
        assert group is not None
        if distributed.rank() == 0:
            raise KeyError("lost")
        group.barrier()  # rank 1 waits for rank 0; ranks 2 and 3 for nobody
        if distributed.rank() > 1:
            distributed.barrier()

    with pytest.raises(KeyError, match="lost"):
        threads.run(4, body)

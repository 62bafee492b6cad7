"""Two levels on simulated hosts: even and uneven ones, chunks, pieces, slow ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.distributed import threads
from distgrad.distributed.comm_hooks import HierarchicalState, hierarchical_hook
from distgrad.distributed.communicator import Array

from .buckets import assert_same_bits, bucket_of, flat, gradients_of, run_hook

pytestmark = pytest.mark.timeout(60)


def small_chunks(communicator: Any) -> HierarchicalState:
    return HierarchicalState(communicator, chunk_mb=256 / 2**20)


@pytest.mark.parametrize("ranks_per_host", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("world_size", [2, 3, 4, 5, 7, 8])
def test_the_exact_sum_of_integers(world_size: int, ranks_per_host: int) -> None:
    """With 3 ranks a host, 8 ranks are on hosts of 3, 3 and 2; chunks of 64 numbers, the last one ragged."""

    def gradients(rank: int, step: int) -> dict[str, Array]:
        return {"w": np.arange(333, dtype=np.float32) * (rank + 1) + step}

    outcomes = run_hook(world_size, hierarchical_hook, small_chunks, gradients, steps=3, ranks_per_host=ranks_per_host)
    for step in range(3):
        expected = sum(gradients(rank, step)["w"] for rank in range(world_size))
        for outcome in outcomes:
            np.testing.assert_array_equal(outcome.sums[step], expected)


@pytest.mark.parametrize("ranks_per_host", [2, 3])
def test_within_the_bound_and_the_same_everywhere(ranks_per_host: int) -> None:
    outcomes = run_hook(
        7,
        hierarchical_hook,
        HierarchicalState,
        lambda rank, step: gradients_of(rank, step),
        ranks_per_host=ranks_per_host,
    )
    assert_same_bits(outcomes)
    given = [flat(gradients_of(rank)).astype(np.float64) for rank in range(7)]
    bound = outcomes[0].reports[0].error_bound
    assert (abs(outcomes[0].sums[0] - sum(given)) <= bound * sum(map(abs, given))).all()


@pytest.mark.parametrize("slow", range(4))
def test_no_rank_reads_what_another_has_not_written(slow: int) -> None:
    """One rank is late at every collective of its own, or only at every second one: the others may not run ahead."""
    for every in (1, 2, 3):
        outcomes = run_hook(
            4,
            hierarchical_hook,
            small_chunks,
            lambda rank, step: {"w": np.arange(200.0) + 1000 * rank + step},
            steps=2,
            ranks_per_host=2,
            delay=lambda rank, sequence: 0.003 if rank == slow and sequence % every == 0 else 0.0,  # noqa: B023
        )
        for outcome in outcomes:
            for step in range(2):
                np.testing.assert_array_equal(outcome.sums[step], 4 * np.arange(200.0) + 6000 + 4 * step)


def test_bytes_are_those_between_hosts() -> None:
    """Each of 3 ranks a host sums a third of 300 numbers with the other host's: 2 * 1/2 * 100 * 4 bytes."""
    for ranks_per_host, expected in ((3, 400), (6, 0), (1, 2000)):
        outcomes = run_hook(
            6,
            hierarchical_hook,
            HierarchicalState,
            lambda rank, step: {"w": np.ones(300, np.float32)},
            ranks_per_host=ranks_per_host,
        )
        assert [outcome.reports[0].bytes_sent for outcome in outcomes] == [expected] * 6


def test_hosts_may_be_given() -> None:
    """Rank 0 and 2 share the one, 1 and 3 the other."""

    def body() -> tuple[list[int], int, Array]:
        communicator = distributed.communicator()
        state = HierarchicalState(communicator, hosts=[5, 0, 5, 0])
        bucket = bucket_of({"w": np.full(4, 10.0**communicator.rank)})
        hierarchical_hook(state, bucket)
        levels = state.levels()
        sizes = [levels.host.world_size, 0 if levels.lane is None else levels.lane.world_size]
        state.free()
        state.free()  # nothing is left to give back
        return sizes, levels.hosts, bucket.buffer()

    for sizes, hosts, total in threads.run(4, body):
        assert sizes == [2, 2] and hosts == 2
        np.testing.assert_array_equal(total, np.full(4, 1111.0))


@pytest.mark.parametrize("hosts", [[0], [0, -1]])
def test_wrong_hosts(hosts: list[int]) -> None:
    with pytest.raises(ValueError, match="there must be one number a rank, none negative"):
        run_hook(
            2, hierarchical_hook, lambda c: HierarchicalState(c, hosts=hosts), lambda rank, step: {"w": np.ones(3)}
        )


def test_wrong_chunk() -> None:
    with pytest.raises(ValueError, match="chunk_mb is 0, must be above 0"):
        HierarchicalState(None, chunk_mb=0)

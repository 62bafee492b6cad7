"""Hooks that do not compress: the sum as exact as any sum, on all ranks the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from distgrad.distributed.comm_hooks import HOOKS

from .buckets import WORLD_SIZES, assert_same_bits, flat, gradients_of, run_hook

pytestmark = pytest.mark.timeout(60)

EXACT = [name for name in HOOKS if HOOKS[name].exact]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("name", EXACT)
def test_the_sum_is_within_the_bound_and_the_same_everywhere(name: str, world_size: int, dtype: str) -> None:
    kind = HOOKS[name]
    outcomes = run_hook(world_size, kind.hook, kind.state, lambda rank, step: gradients_of(rank, step, dtype), steps=3)
    assert_same_bits(outcomes)
    for step in range(3):
        given = [flat(gradients_of(rank, step, dtype)).astype(np.longdouble) for rank in range(world_size)]
        exact, magnitude = sum(given), sum(map(abs, given))
        bound = outcomes[0].reports[step].error_bound
        assert bound <= world_size * np.finfo(dtype).eps
        assert (abs(outcomes[0].sums[step] - exact) <= bound * magnitude).all()


def test_exact_hooks_are_three() -> None:
    assert sorted(EXACT) == ["all_reduce", "hierarchical", "reduce_scatter"]


@pytest.mark.parametrize("world_size", [2, 5])
def test_reduce_scatter_adds_up_in_rank_order(world_size: int) -> None:
    """1e8 and -1e8 leave of the numbers between them only what was added after."""
    terms = [np.float32(1e8), np.float32(3.0), np.float32(-1e8), np.float32(1.0), np.float32(0.5)][:world_size]
    expected = terms[0]
    for term in terms[1:]:
        expected = expected + term
    kind = HOOKS["reduce_scatter"]
    outcomes = run_hook(world_size, kind.hook, kind.state, lambda rank, step: {"w": np.full(7, terms[rank])})
    for outcome in outcomes:
        np.testing.assert_array_equal(outcome.sums[0], np.full(7, expected))


@pytest.mark.parametrize("name", EXACT)
def test_more_ranks_than_numbers(name: str) -> None:
    kind = HOOKS[name]
    outcomes = run_hook(8, kind.hook, kind.state, lambda rank, step: {"w": np.arange(3.0) + rank})
    for outcome in outcomes:
        np.testing.assert_array_equal(outcome.sums[0], 8 * np.arange(3.0) + 28)


def test_bytes_sent_are_those_of_a_ring() -> None:
    kind = HOOKS["all_reduce"]
    outcomes = run_hook(4, kind.hook, kind.state, lambda rank, step: {"w": np.zeros(1000, np.float32)})
    assert [outcome.reports[0].bytes_sent for outcome in outcomes] == [6000] * 4  # 2 * 3/4 * 4000
    alone = run_hook(1, kind.hook, kind.state, lambda rank, step: {"w": np.zeros(1000, np.float32)})
    assert alone[0].reports[0] == (0, 0.0)


def test_a_state_without_communicator_says_what_to_do() -> None:
    kind = HOOKS["all_reduce"]
    with pytest.raises(RuntimeError, match="register_comm_hook, which gives it one"):
        run_hook(1, kind.hook, lambda communicator: kind.state(None), lambda rank, step: {"w": np.zeros(1)})

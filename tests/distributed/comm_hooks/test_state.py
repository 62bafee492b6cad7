"""What a checkpoint keeps of hooks with error feedback, on the same and on another number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad import checkpoint, distributed
from distgrad.distributed import threads
from distgrad.distributed.comm_hooks import (
    FeedbackState,
    HookState,
    PowerSGDState,
    TopKState,
    powerSGD_hook,
    top_k_hook,
)
from distgrad.distributed.communicator import Array
from distgrad.errors import CommunicationError

from .buckets import bucket_of, gradients_of

pytestmark = pytest.mark.timeout(60)

KINDS: dict[str, tuple[Any, Any]] = {
    "top_k": (top_k_hook, lambda communicator: TopKState(communicator, 0.05)),
    "power_sgd": (powerSGD_hook, lambda communicator: PowerSGDState(communicator, 2, start_powerSGD_iter=1)),
}


def steps_of(kind: str, state: Any, first: int, last: int) -> list[Array]:
    hook, _ = KINDS[kind]
    sums = []
    for step in range(first, last):
        bucket = bucket_of(gradients_of(distributed.rank(), step))
        hook(state, bucket)
        sums.append(bucket.buffer().copy())
    return sums


def through_a_file(state: Any, folder: Path) -> Any:
    checkpoint.save(folder, {"w": np.zeros(1)}, {"comm_hook": state})
    return checkpoint.load(folder)[1]["comm_hook"]


def saved_by(kind: str, world_size: int, folder: Path) -> tuple[Any, list[dict[str, Array]]]:
    """The consolidated state after three steps, by way of a file, and each rank's residuals."""

    def body() -> tuple[Any, dict[str, Array]]:
        state = KINDS[kind][1](distributed.communicator())
        steps_of(kind, state, 0, 3)
        to = world_size - 1
        state.consolidate_state_dict(to)
        return (state.state_dict() if distributed.rank() == to else None), state.residual

    ranks = threads.run(world_size, body)
    return through_a_file(ranks[-1][0], folder), [residual for _, residual in ranks]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_a_resume_on_as_many_ranks_has_the_same_bits(kind: str, world_size: int, tmp_path: Path) -> None:
    def straight() -> list[Array]:
        return steps_of(kind, KINDS[kind][1](distributed.communicator()), 0, 6)

    expected = threads.run(world_size, straight)[0][3:]
    saved, _ = saved_by(kind, world_size, tmp_path / "checkpoint")

    def resumed() -> list[Array]:
        state = KINDS[kind][1](distributed.communicator())
        state.load_state_dict(saved)
        assert state.iter == 3
        return steps_of(kind, state, 3, 6)

    for sums in threads.run(world_size, resumed):
        for total, wanted in zip(sums, expected, strict=True):
            assert total.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "after"), [(4, 3), (3, 8), (4, 1), (2, 5)])
def test_nothing_is_lost_on_another_number_of_ranks(kind: str, before: int, after: int, tmp_path: Path) -> None:
    saved, residuals = saved_by(kind, before, tmp_path / "checkpoint")

    def resumed() -> dict[str, Array]:
        state = KINDS[kind][1](distributed.communicator())
        state.load_state_dict(saved)
        kept = {name: value.copy() for name, value in state.residual.items()}
        steps_of(kind, state, 3, 4)
        return kept

    ranks = threads.run(after, resumed)
    for name in residuals[0]:
        wanted = sum(residual[name].astype(np.float64) for residual in residuals)
        got = sum(rank[name].astype(np.float64) for rank in ranks)
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6 * abs(wanted).max())
        assert abs(wanted).max() > 0
    if after > before:  # each row has gone to one rank: not even a rounding
        for rank, residual in enumerate(residuals):
            assert all((ranks[rank][name] == residual[name]).all() for name in residual)


def test_power_sgd_keeps_where_its_search_is() -> None:
    def body() -> None:
        state = PowerSGDState(distributed.communicator(), 2, start_powerSGD_iter=0)
        steps_of("power_sgd", state, 0, 1)
        saved = state.state_dict()
        assert saved["start"]["fc.weight"].shape == (23, 2)
        other = PowerSGDState(distributed.communicator(), 1, start_powerSGD_iter=0)
        other.load_state_dict(saved)  # of another rank: the search begins anew
        steps_of("power_sgd", other, 1, 2)
        assert other.start["fc.weight"].shape == (23, 1)

    threads.run(2, body)


def test_the_part_of_one_rank() -> None:
    """What each rank saves for itself it can load; another cannot."""

    def body() -> None:
        communicator = distributed.communicator()
        state = TopKState(communicator, 0.05)
        steps_of("top_k", state, 0, 2)
        saved = state.state_dict()
        steps_of("top_k", state, 2, 3)
        assert saved["ranks"] == [communicator.rank]
        other = TopKState(communicator, 0.05)
        other.load_state_dict(saved)
        assert other.iter == 2 and set(other.residual) == set(state.residual)
        saved["ranks"] = [1 - communicator.rank]
        with pytest.raises(ValueError, match=r"call consolidate_state_dict\(\) on all ranks before"):
            other.load_state_dict(saved)

    threads.run(2, body)


def test_a_consolidated_state_is_of_its_step() -> None:
    def body() -> list[list[int]]:
        state = TopKState(distributed.communicator(), 0.05)
        steps_of("top_k", state, 0, 1)
        state.consolidate_state_dict()
        seen = [state.state_dict()["ranks"]]
        steps_of("top_k", state, 1, 2)
        return [*seen, state.state_dict()["ranks"]]

    assert threads.run(2, body) == [[[0, 1], [0]], [[1], [1]]]


def test_ranks_that_do_not_remember_the_same() -> None:
    def body() -> None:
        state = FeedbackState(distributed.communicator())
        if distributed.rank() == 1:
            state.residual["w"] = np.zeros(3)
        with pytest.raises(CommunicationError, match="rank 0 and rank 1 keep residuals of different parameters"):
            state.consolidate_state_dict()

    threads.run(2, body)


def test_no_such_rank() -> None:
    with pytest.raises(ValueError, match="to is 1, but the ranks are 0 to 0"):
        FeedbackState().consolidate_state_dict(1)


def test_a_state_without_memory() -> None:
    state = HookState()
    state.consolidate_state_dict()
    assert state.state_dict() == {}
    state.load_state_dict({})

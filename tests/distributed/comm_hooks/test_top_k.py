"""Top-k: what travels, what stays, and that nothing is lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.distributed import threads
from distgrad.distributed.comm_hooks import TopKState, top_k_hook
from distgrad.distributed.communicator import Array

from .buckets import SHAPES, assert_same_bits, bucket_of, flat, gradients_of, run_hook

pytestmark = pytest.mark.timeout(60)


def residual_of(state: TopKState) -> Array:
    return flat({name: state.residual.get(name, np.zeros(shape)) for name, shape in SHAPES.items()})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("world_size", [2, 3, 4, 5, 7, 8])
def test_against_a_dense_reference(world_size: int, dtype: str) -> None:
    steps, density = 4, 0.03
    outcomes = run_hook(
        world_size,
        top_k_hook,
        lambda communicator: TopKState(communicator, density),
        lambda rank, step: gradients_of(rank, step, dtype),
        steps,
    )
    assert_same_bits(outcomes)
    counts = {name: max(1, round(density * math.prod(shape))) for name, shape in SHAPES.items()}
    size = np.dtype(dtype).itemsize
    # one number of 9 is worth it among a few ranks, one of one never
    thin = [name for name in SHAPES if world_size * counts[name] * (size + 4) < 2 * math.prod(SHAPES[name]) * size]
    residuals = [{name: np.zeros(shape, dtype) for name, shape in SHAPES.items()} for _ in range(world_size)]
    for step in range(steps):
        expected = {name: np.zeros(shape, dtype) for name, shape in SHAPES.items()}
        wanted, parts, norms = np.zeros(outcomes[0].sums[0].size), [], []
        for rank in range(world_size):
            given = gradients_of(rank, step, dtype)
            left = norm = 0.0
            for name, gradient in given.items():
                whole = (gradient + residuals[rank][name]).reshape(-1)
                chosen = np.argsort(abs(whole))[whole.size - counts[name] :] if name in thin else np.arange(whole.size)
                expected[name].reshape(-1)[chosen] += whole[chosen]
                given[name] = whole.copy()
                whole[chosen] = 0
                residuals[rank][name] = whole.reshape(gradient.shape)
                if name in thin:
                    norm += float((given[name].astype(np.float64) ** 2).sum())
                    left += float((whole.astype(np.float64) ** 2).sum())
            wanted += flat(given)
            norms.append(math.sqrt(norm))
            parts.append(math.sqrt(left / norm))
        if world_size == 2:  # the sum of two is the same in any order
            np.testing.assert_array_equal(outcomes[0].sums[step], flat(expected))
        np.testing.assert_allclose(outcomes[0].sums[step], flat(expected), rtol=1e-5)
        report = outcomes[0].reports[step]
        assert report.error_bound == pytest.approx(max(parts), rel=1e-5)
        assert report.error_bound <= max(math.sqrt(1 - counts[n] / math.prod(SHAPES[n])) for n in thin) + 1e-6
        assert np.linalg.norm(outcomes[0].sums[step] - wanted) <= report.error_bound * sum(norms)
    for outcome, residual in zip(outcomes, residuals, strict=True):
        assert set(outcome.state.residual) == set(thin)
        for name in thin:
            np.testing.assert_array_equal(outcome.state.residual[name], residual[name])
        assert outcome.state.iter == steps


def test_which_gradients_share_a_bucket_makes_no_difference() -> None:
    def together() -> tuple[Array, Any]:
        state = TopKState(distributed.communicator(), 0.05)
        bucket = bucket_of(gradients_of(distributed.rank()))
        top_k_hook(state, bucket)
        return bucket.buffer(), state

    def apart() -> tuple[Array, Any]:
        state = TopKState(distributed.communicator(), 0.05)
        sums = []
        for number, (name, gradient) in enumerate(gradients_of(distributed.rank()).items()):
            bucket = bucket_of({name: gradient}, number, number == len(SHAPES) - 1)
            top_k_hook(state, bucket)
            sums.append(bucket.buffer())
        return np.concatenate(sums), state

    (one, state), (other, other_state) = threads.run(3, together)[0], threads.run(3, apart)[0]
    assert one.tobytes() == other.tobytes()
    assert state.iter == other_state.iter == 1
    assert all((state.residual[name] == other_state.residual[name]).all() for name in state.residual)


@pytest.mark.parametrize("world_size", [2, 5])
def test_nothing_is_lost(world_size: int) -> None:
    """Over all steps the sums and what is left are the gradients."""
    outcomes = run_hook(
        world_size,
        top_k_hook,
        lambda communicator: TopKState(communicator, 0.05),
        lambda rank, step: gradients_of(rank, step, "float64"),
        steps=20,
    )
    sent = sum(outcomes[0].sums)
    left = sum(residual_of(outcome.state) for outcome in outcomes)
    given = sum(flat(gradients_of(rank, step, "float64")) for rank in range(world_size) for step in range(20))
    np.testing.assert_allclose(sent + left, given, rtol=1e-10, atol=1e-11)
    assert abs(left).max() > 0


def test_without_feedback_nothing_is_kept() -> None:
    outcomes = run_hook(
        2, top_k_hook, lambda c: TopKState(c, 0.01, use_error_feedback=False), lambda rank, step: gradients_of(rank), 2
    )
    assert outcomes[0].state.residual == {}
    np.testing.assert_array_equal(outcomes[0].sums[0], outcomes[0].sums[1])


def test_the_first_steps_are_whole() -> None:
    outcomes = run_hook(
        2, top_k_hook, lambda c: TopKState(c, 0.01, start_iter=2), lambda rank, step: gradients_of(rank, step), 3
    )
    for step in range(2):
        whole = flat(gradients_of(0, step)) + flat(gradients_of(1, step))
        np.testing.assert_array_equal(outcomes[0].sums[step], whole)
    assert np.count_nonzero(outcomes[0].sums[2]) <= 2 * (2 + 2 + 1) + 1


@pytest.mark.parametrize("density", [0.5, 1.0])
def test_a_sum_where_indices_would_cost_more(density: float) -> None:
    outcomes = run_hook(3, top_k_hook, lambda c: TopKState(c, density), lambda rank, step: gradients_of(rank))
    assert_same_bits(outcomes)
    whole = sum(flat(gradients_of(rank)) for rank in range(3))
    np.testing.assert_allclose(outcomes[0].sums[0], whole, rtol=1e-6)
    assert outcomes[0].reports[0].error_bound < 1e-6


def test_what_was_left_out_is_sent_when_a_bucket_goes_whole() -> None:
    """Such as by one rank alone, after a resume."""

    def state(communicator: object) -> TopKState:
        made = TopKState(communicator, 0.01)  # type: ignore[arg-type]
        made.residual["w"] = np.arange(5.0)
        return made

    outcomes = run_hook(1, top_k_hook, state, lambda rank, step: {"w": np.ones(5)}, 2)
    np.testing.assert_array_equal(outcomes[0].sums[0], 1 + np.arange(5.0))
    np.testing.assert_array_equal(outcomes[0].sums[1], np.ones(5))


def test_what_is_not_finite_is_sent_and_does_not_stay() -> None:
    def gradients(rank: int, step: int) -> dict[str, Array]:
        values = np.linspace(1, 2, 400)
        if rank == 1 and step == 0:
            values[:100] = np.nan  # more than are sent
        return {"w": values}

    outcomes = run_hook(2, top_k_hook, lambda c: TopKState(c, 0.05), gradients, 2)
    assert_same_bits(outcomes)
    assert np.isnan(outcomes[0].sums[0]).sum() == 20
    assert np.isfinite(outcomes[0].sums[1]).all()
    assert all(np.isfinite(outcome.state.residual["w"]).all() for outcome in outcomes)


def test_bytes_are_values_and_places() -> None:
    outcomes = run_hook(3, top_k_hook, lambda c: TopKState(c, 0.01), lambda r, s: {"w": np.ones(10000, np.float32)})
    assert outcomes[0].reports[0].bytes_sent == 2 * (8 + 100 * 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"density": 0.0}, "density is 0.0, must be above 0"), ({"start_iter": -1}, "start_iter is -1")],
)
def test_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TopKState(None, **options)  # type: ignore[arg-type]


def test_a_residual_of_another_shape() -> None:
    def state(communicator: object) -> TopKState:
        made = TopKState(communicator, 0.01)  # type: ignore[arg-type]
        made.residual["w"] = np.zeros(7)
        return made

    with pytest.raises(
        ValueError, match=r"the residual of parameter 'w' has shape \[7\], but its gradient has \[500\]"
    ):
        run_hook(2, top_k_hook, state, lambda rank, step: {"w": np.ones(500)})

"""PowerSGD against an independent one on the summed gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.distributed import threads
from distgrad.distributed.comm_hooks import PowerSGDState, powerSGD_hook
from distgrad.distributed.comm_hooks.power_sgd import _multiply, _orthonormal
from distgrad.distributed.communicator import Array

from .buckets import SHAPES, assert_same_bits, bucket_of, flat, gradients_of, run_hook

pytestmark = pytest.mark.timeout(60)

MATRICES = {"conv.weight": (6, 36), "fc.weight": (9, 23)}


def state_of(rank: int = 2, **options: Any) -> Any:
    return lambda communicator: PowerSGDState(communicator, rank, **{"start_powerSGD_iter": 0, **options})


def parts(values: Array) -> dict[str, Array]:
    ends = np.cumsum([math.prod(shape) for shape in SHAPES.values()])
    return {
        name: values[end - math.prod(shape) : end].reshape(shape)
        for (name, shape), end in zip(SHAPES.items(), ends, strict=True)
    }


def project(matrix: Array, start: Array) -> tuple[Array, Array]:
    """One power iteration by QR: the approximation of ``(n, m)``, and the next start ``(m, rank)``."""
    left, _ = np.linalg.qr(matrix @ np.linalg.qr(start)[0])
    right = matrix.T @ left
    return left @ right.T, right


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("world_size", [2, 3, 5, 8])
def test_against_one_process_on_the_sum(world_size: int, rank: int) -> None:
    """Everything is linear in the matrices, but for bases that matter only by what they span."""
    steps = 4
    make_state = state_of(rank, min_compression_rate=1)

    def gradients(rank: int, step: int) -> dict[str, Array]:
        return gradients_of(rank, step, "float64")

    outcomes = run_hook(world_size, powerSGD_hook, make_state, gradients, steps)
    assert_same_bits(outcomes)
    starts: dict[str, Array] = {}
    residuals = {name: np.zeros(shape) for name, shape in MATRICES.items()}
    # The first start is random: taken from a run of one step.
    once = run_hook(world_size, powerSGD_hook, make_state, gradients)
    for step in range(steps):
        got = parts(outcomes[0].sums[step])
        summed = parts(sum(flat(gradients(r, step)) for r in range(world_size)))
        for name in ("fc.bias", "scale"):
            np.testing.assert_allclose(got[name], summed[name], rtol=1e-12)
        for name, shape in MATRICES.items():
            matrix = summed[name].reshape(shape) + residuals[name]
            if step == 0:
                # The result spans P; P P^T M is M projected on it, and Q is M^T P.
                mixed = got[name].reshape(shape) @ np.random.default_rng(0).standard_normal((shape[1], rank))
                left, _ = np.linalg.qr(mixed)
                expected, starts[name] = left @ left.T @ matrix, once[0].state.start[name]
            else:
                expected, starts[name] = project(matrix, starts[name])
            np.testing.assert_allclose(got[name].reshape(shape), expected, rtol=1e-7, atol=1e-9 * abs(matrix).max())
            residuals[name] = matrix - expected
            if step == steps - 1:
                left_out = sum(o.state.residual[name].reshape(shape) for o in outcomes)
                np.testing.assert_allclose(left_out, residuals[name], rtol=1e-6, atol=1e-8 * abs(matrix).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("world_size", [2, 4, 7])
def test_the_sum_is_within_the_bound(world_size: int, dtype: str) -> None:
    """The bound is of ``sum_r M_r``, with the residuals that went into it."""

    def body() -> list[tuple[dict[str, Array], dict[str, Array], float]]:
        communicator = distributed.communicator()
        state, steps = state_of()(communicator), []
        for step in range(3):
            bucket = bucket_of(gradients_of(communicator.rank, step, dtype))
            given = dict(zip(SHAPES, (g.astype(np.float64) for g in bucket.gradients()), strict=True))
            for name, kept in state.residual.items():
                given[name] += kept
            bound = powerSGD_hook(state, bucket).error_bound
            steps.append((given, dict(zip(SHAPES, bucket.gradients(), strict=True)), bound))
        return steps

    ranks = threads.run(world_size, body)
    for step in range(3):
        bound = ranks[0][step][2]
        assert 0.1 < bound <= 1 + 1e-4
        assert all(rank[step][2] == bound for rank in ranks)
        for name in MATRICES:
            given = [rank[step][0][name] for rank in ranks]
            error = np.linalg.norm(ranks[0][step][1][name] - sum(given))
            assert error <= bound * sum(np.linalg.norm(g) for g in given)


def test_nothing_is_lost() -> None:
    outcomes = run_hook(3, powerSGD_hook, state_of(1), lambda r, step: gradients_of(r, step, "float64"), steps=15)
    sent = parts(sum(outcomes[0].sums))
    given = parts(sum(flat(gradients_of(r, step, "float64")) for r in range(3) for step in range(15)))
    for name in SHAPES:
        left = sum(o.state.residual[name] for o in outcomes) if name in MATRICES else 0.0
        np.testing.assert_allclose(sent[name] + left, given[name], rtol=1e-9, atol=1e-9)


def test_a_matrix_of_low_rank_is_exact_after_one_step() -> None:
    """A sum of rank 2 is found by a search of rank 2, and the column beyond rank 1 of another becomes zero."""

    def gradients(rank: int, step: int) -> dict[str, Array]:
        generator = np.random.default_rng(rank)
        two = np.outer(*(generator.standard_normal(n) for n in (30, 40)))
        return {"two": two, "one": np.outer(np.arange(30.0), np.ones(40)), "none": np.zeros((30, 40))}

    outcomes = run_hook(2, powerSGD_hook, state_of(2), gradients, steps=3)
    for step in range(3):
        expected = flat(gradients(0, 0)) + flat(gradients(1, 0))
        np.testing.assert_allclose(outcomes[0].sums[step], expected, rtol=1e-9, atol=1e-9)
        assert outcomes[0].reports[step].error_bound < 1e-9


def test_a_search_that_has_died_begins_anew() -> None:
    """A gradient of zeros leaves no direction to go on from."""

    def gradients(rank: int, step: int) -> dict[str, Array]:
        return {"w": np.outer(np.arange(20.0), np.arange(25.0)) * step}

    outcomes = run_hook(2, powerSGD_hook, state_of(1), gradients, steps=3)
    np.testing.assert_array_equal(outcomes[0].sums[0], 0)
    np.testing.assert_allclose(outcomes[0].sums[2], 2 * flat(gradients(0, 2)), rtol=1e-9)


def test_without_warm_start_and_feedback() -> None:
    options = {"warm_start": False, "use_error_feedback": False}
    outcomes = run_hook(2, powerSGD_hook, state_of(1, **options), lambda r, step: gradients_of(r), steps=2)
    assert_same_bits(outcomes)
    assert outcomes[0].state.residual == {} and outcomes[0].state.start == {}
    assert outcomes[0].sums[0].tobytes() != outcomes[0].sums[1].tobytes()  # another random start
    assert outcomes[0].reports[0].error_bound == pytest.approx(1.0, abs=1e-5)
    seeded = [
        run_hook(2, powerSGD_hook, state_of(1, random_seed=seed), lambda r, s: gradients_of(r)) for seed in (0, 1)
    ]
    assert seeded[0][0].sums[0].tobytes() != seeded[1][0].sums[0].tobytes()


def test_the_first_steps_are_whole() -> None:
    outcomes = run_hook(2, powerSGD_hook, state_of(start_powerSGD_iter=2), lambda r, step: gradients_of(r, step), 3)
    for step in range(2):
        np.testing.assert_array_equal(outcomes[0].sums[step], flat(gradients_of(0, step)) + flat(gradients_of(1, step)))
    assert outcomes[0].reports[2].error_bound > 0.1
    assert outcomes[0].state.iter == 3


def test_what_is_compressed_and_what_it_costs() -> None:
    """(6 + 36) and (9 + 23) numbers for 216 and 207, and 10 whole."""
    outcomes = run_hook(2, powerSGD_hook, state_of(1), lambda r, step: gradients_of(r))
    assert set(outcomes[0].state.residual) == set(MATRICES)
    before, after = 216 + 207 + 10, 42 + 32 + 10
    assert outcomes[0].state.compression_stats() == (before / after, before, after)
    assert outcomes[0].reports[0].bytes_sent == 4 * (10 + 15 + 59 + 2)
    strict = run_hook(2, powerSGD_hook, state_of(1, min_compression_rate=6), lambda r, step: gradients_of(r))
    assert set(strict[0].state.residual) == {"fc.weight"}  # 207 / 32 is above 6, 216 / 42 is not


def test_what_is_not_finite_is_seen_and_does_not_stay() -> None:
    def gradients(rank: int, step: int) -> dict[str, Array]:
        given = gradients_of(rank, step)
        if rank == 1 and step == 1:
            given["fc.weight"][0, 0] = np.nan
        return given

    outcomes = run_hook(2, powerSGD_hook, state_of(2), gradients, steps=3)
    assert_same_bits(outcomes)
    assert np.isfinite(outcomes[0].sums[0]).all() and np.isfinite(outcomes[0].sums[2]).all()
    spoiled = parts(outcomes[0].sums[1])
    assert np.isnan(spoiled["fc.weight"]).any() and np.isfinite(spoiled["conv.weight"]).all()
    for outcome in outcomes:
        assert all(
            np.isfinite(kept).all() for kept in [*outcome.state.residual.values(), *outcome.state.start.values()]
        )


def test_orthonormal_columns() -> None:
    generator = np.random.default_rng(0)
    columns = generator.standard_normal((50, 4)).astype(np.float32)
    columns[:, 2] = columns[:, 0] * 3 - columns[:, 1]
    got = _orthonormal(columns)
    expected = np.diag([1.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(got.T @ got, expected, atol=1e-12)
    # nearly parallel: one pass of Gram-Schmidt would leave them far from orthogonal
    near = np.ones((50, 2)) + 1e-5 * generator.standard_normal((50, 2))
    got = _orthonormal(near)
    np.testing.assert_allclose(got.T @ got, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 40000), (700, 90), (1, 1)])
@pytest.mark.parametrize("rank", [1, 3])
def test_multiply_in_blocks(shape: tuple[int, int], rank: int) -> None:
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal((n, rank)) for n in shape)
    out = np.empty(shape)
    _multiply(left, right, out)
    np.testing.assert_allclose(out, left @ right.T, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matrix_approximation_rank": 0}, "matrix_approximation_rank is 0"),
        ({"start_powerSGD_iter": -1}, "start_powerSGD_iter is -1"),
        ({"min_compression_rate": 0}, "min_compression_rate is 0"),
    ],
)
def test_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PowerSGDState(None, **options)

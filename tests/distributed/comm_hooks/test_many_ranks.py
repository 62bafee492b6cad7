"""Many simulated ranks that come late at random: the same bits, and no deadlock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.distributed.comm_hooks import HOOKS, make

from .buckets import assert_same_bits, run_hook

pytestmark = pytest.mark.timeout(60)

OPTIONS: dict[str, dict[str, Any]] = {
    "top_k": {"density": 0.01},
    "power_sgd": {"start_powerSGD_iter": 0},
    "hierarchical": {"chunk_mb": 0.002},
}


def late(rank: int, sequence: int) -> float:
    """Up to two milliseconds, of a few ranks each time."""
    drawn = np.random.default_rng([rank, sequence]).random()
    return 0.002 * drawn if drawn > 0.9 else 0.0


@pytest.mark.parametrize("name", sorted(set(HOOKS) - {"post_local_sgd"}))
def test_64_ranks(name: str) -> None:
    """Hosts of 7 ranks, the last of one."""
    _, hook = make(name)
    outcomes = run_hook(
        64,
        hook,
        lambda communicator: make(name, communicator, **OPTIONS.get(name, {}))[0],
        lambda rank, step: {"w": np.random.default_rng([rank, step]).standard_normal((24, 30)).astype(np.float32)},
        steps=2,
        ranks_per_host=7,
        delay=late,
    )
    assert_same_bits(outcomes)


def test_256_ranks() -> None:
    """Without delays, which a few cores could not keep: the two that cut a bucket into pieces."""
    for name in ("fp16", "hierarchical"):
        _, hook = make(name)
        outcomes = run_hook(
            256,
            hook,
            lambda communicator: make(name, communicator)[0],  # noqa: B023
            lambda rank, step: {"w": np.full(300, rank, np.float32)},
            ranks_per_host=16,
        )
        for outcome in outcomes:
            np.testing.assert_allclose(outcome.sums[0], 255 * 128, rtol=2**-9)

"""Buckets with known gradients, and what each rank makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad import distributed
from distgrad.distributed import threads
from distgrad.distributed.bucket import GradBucket
from distgrad.distributed.comm_hooks import Report
from distgrad.distributed.communicator import Array
from distgrad.nn.parameter import Parameter

# A convolution, a matrix, a vector and a number.
SHAPES: dict[str, tuple[int, ...]] = {"conv.weight": (6, 4, 3, 3), "fc.weight": (9, 23), "fc.bias": (9,), "scale": ()}
WORLD_SIZES = [1, 2, 3, 4, 5, 7, 8]


def bucket_of(gradients: Mapping[str, Array], index: int = 0, last: bool = True) -> GradBucket:
    parameters = [Parameter(np.zeros_like(gradient)) for gradient in gradients.values()]
    bucket = GradBucket(parameters, range(len(parameters)), list(gradients), index, last)
    for view, gradient in zip(bucket.gradients(), gradients.values(), strict=True):
        view[...] = gradient
    return bucket


def gradients_of(rank: int, step: int = 0, dtype: str = "float32") -> dict[str, Array]:
    """Magnitudes over several powers of ten, as gradients have them."""
    generator = np.random.default_rng([rank, step])
    return {
        name: np.asarray(generator.standard_normal(shape) * 10 ** generator.uniform(-4, 1, shape)).astype(dtype)
        for name, shape in SHAPES.items()
    }


def flat(gradients: Mapping[str, Array]) -> Array:
    return np.concatenate([gradient.reshape(-1) for gradient in gradients.values()])


class Outcome(NamedTuple):
    """Of one rank: the sum and the report of each step, and its state at the end."""

    sums: list[Array]
    reports: list[Report]
    state: Any


def run_hook(
    world_size: int,
    hook: Callable[[Any, GradBucket], Report],
    make_state: Callable[[Any], Any],
    gradients: Callable[[int, int], Mapping[str, Array]],
    steps: int = 1,
    **options: Any,
) -> list[Outcome]:
    def body() -> Outcome:
        communicator = distributed.communicator()
        state = make_state(communicator)
        sums, reports = [], []
        for step in range(steps):
            bucket = bucket_of(gradients(communicator.rank, step))
            reports.append(hook(state, bucket))
            sums.append(bucket.buffer().copy())
        return Outcome(sums, reports, state)

    return threads.run(world_size, body, **options)


def assert_same_bits(outcomes: Sequence[Outcome]) -> None:
    for rank, outcome in enumerate(outcomes):
        for step, total in enumerate(outcome.sums):
            assert total.tobytes() == outcomes[0].sums[step].tobytes(), f"rank {rank} differs in step {step}"

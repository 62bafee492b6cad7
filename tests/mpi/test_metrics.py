"""Metrics and evaluation over real processes: every sample once, the same bits on any number of them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from distgrad import distributed, nn
from distgrad.autograd import Tensor
from distgrad.launch.evaluate import evaluate
from distgrad.metrics import Accuracy, ConfusionMatrix, MeanMetric, MeanVariance, MetricCollection, TopKAccuracy

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread"), pytest.mark.usefixtures("world")]


def samples_of(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(count)
    return generator.standard_normal((count, 7)).astype(np.float32), generator.integers(0, 7, count)


def bits(value: Any) -> bytes:
    return b"".join(np.asarray(part).tobytes() for part in (value if isinstance(value, tuple) else (value,)))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 101])
def test_ranks_measure_what_one_process_measures(world: distributed.Communicator, count: int) -> None:
    scores, labels = samples_of(count)

    def measured(part: slice) -> list[Any]:
        classes = MetricCollection({"top1": Accuracy(), "top3": TopKAccuracy(3), "confusion": ConfusionMatrix(7)})
        mean, moments = MeanMetric(), MeanVariance((7,))
        classes.update(scores[part], labels[part])
        mean.update(scores[part, 0], abs(scores[part, 1]))
        moments.update(scores[part])
        return [*(classes[name] for name in classes), mean, moments]

    whole = [metric.compute() for metric in measured(slice(None))]
    reduced = [metric.reduce().compute() for metric in measured(slice(world.rank, None, world.world_size))]
    assert [bits(value) for value in reduced] == [bits(value) for value in whole]
    rows = world.all_gather_bytes(hashlib.sha256(b"".join(map(bits, reduced))).digest())
    assert len(set(rows)) == 1


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("count", [1, 2, 3, 5, 29])
def test_evaluation_counts_every_sample_once(world: distributed.Communicator, count: int) -> None:
    scores, labels = samples_of(count)

    def batches(start: int, step: int) -> list[tuple[Tensor, Tensor]]:
        mine = range(start, count, step)
        parts = [list(mine[first : first + 4]) for first in range(0, len(mine), 4)]
        return [(Tensor(scores[part]), Tensor(labels[part])) for part in parts]

    shared = evaluate(Identity(), batches(world.rank, world.world_size), world, photos=count, description="evaluate")
    alone = evaluate(Identity(), batches(0, 1), distributed.SingleCommunicator(), photos=count, description="evaluate")
    assert shared == alone and shared.photos == count

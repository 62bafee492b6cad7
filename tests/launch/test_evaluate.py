"""Every sample counts once, on any number of ranks, whatever is left over when they are shared out."""

from __future__ import annotations

import numpy as np
import pytest

from distgrad import nn, tensor
from distgrad.autograd import Tensor
from distgrad.data import DataLoader, Subset, TensorDataset
from distgrad.distributed import SingleCommunicator, communicator, threads
from distgrad.launch.evaluate import Evaluation, evaluate


class Scores(nn.Module):
    """Logits of a sample that do not depend on who else is in the batch."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(Tensor(np.linspace(0.5, 2, classes, dtype=np.float32)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x * self.scale)


def data(samples: int, classes: int) -> TensorDataset:
    generator = np.random.default_rng(samples)
    x = generator.standard_normal((samples, classes)).astype(np.float32)
    return TensorDataset(Tensor(x), tensor(generator.integers(0, classes, samples)))


def evaluated(samples: int, classes: int, batch_size: int = 4) -> Evaluation:
    ranks = communicator()
    mine = Subset(data(samples, classes), range(ranks.rank, samples, ranks.world_size))
    model = Scores(classes)
    result = evaluate(model, DataLoader(mine, batch_size=batch_size), ranks, photos=samples, description="evaluate")
    assert model.training
    return result


@pytest.mark.parametrize("samples", [1, 2, 5, 13, 64])
@pytest.mark.parametrize("world_size", [2, 3, 4, 7])
def test_the_result_has_the_same_bits_at_any_world_size(samples: int, world_size: int) -> None:
    alone = evaluated(samples, 7)
    assert threads.run(world_size, evaluated, samples, 7, timeout=20) == [alone] * world_size
    assert evaluated(samples, 7, batch_size=3) == alone


def test_what_is_reported_is_the_mean_over_samples() -> None:
    x, labels = (part.numpy() for part in data(50, 7).tensors)
    logits = x * np.linspace(0.5, 2, 7, dtype=np.float32)
    result = evaluated(50, 7)
    losses = np.log(np.exp(logits.astype(np.float64)).sum(1)) - logits[np.arange(50), labels]
    assert result.loss == pytest.approx(losses.mean(), rel=1e-6)
    assert result.accuracy == (logits.argmax(1) == labels).mean()
    assert result.top5 == (np.argsort(-logits)[:, :5] == labels[:, None]).any(1).mean()
    assert result.photos == 50


def test_the_five_best_of_five_say_nothing() -> None:
    assert evaluated(20, 5).top5 is None
    assert threads.run(3, evaluated, 2, 5, timeout=20)[2].top5 is None
    assert threads.run(3, evaluated, 2, 6, timeout=20)[2].top5 is not None, "also where one rank has no sample"


def test_without_samples_there_is_no_mean() -> None:
    result = evaluate(Scores(3), [], SingleCommunicator(), photos=0, description="evaluate")
    assert np.isnan(result.loss) and np.isnan(result.accuracy) and result.photos == 0

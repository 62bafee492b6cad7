from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import normalization

from .row import Constant, Op, Sample, Wrong


def by_channel(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Channel by channel, in Python's floats; the running statistics are written as the definition says."""
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c].reshape(-1).tolist()
        if training:
            centre = math.fsum(values) / len(values)
            spread = math.fsum((v - centre) ** 2 for v in values) / len(values)
            if mean is not None:
                mean[c] = (1 - momentum) * mean[c] + momentum * centre
                var[c] = (1 - momentum) * var[c] + momentum * spread * len(values) / (len(values) - 1)
        else:
            centre, spread = float(mean[c]), float(var[c])
        scale, shift = 1.0 if weight is None else float(weight[c]), 0.0 if bias is None else float(bias[c])
        scaled = [(v - centre) / math.sqrt(spread + eps) * scale + shift for v in values]
        out[:, c] = np.array(scaled).reshape(x[:, c].shape)
    return out


def batches(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    def running(changes: bool) -> tuple[Constant, Constant]:
        return Constant(draw(2), changes), Constant(rng.uniform(0.5, 2.0, 2), changes)

    for size in ((3, 2), (2, 2, 2), (1, 2, 2, 2)):
        yield Sample(draw(*size), None, None, draw(2), draw(2), True)
        yield Sample(draw(*size), *running(False), draw(2), draw(2))
    yield Sample(draw(3, 2), *running(True), None, None, True, 0.3, 1e-3)
    yield Sample(draw(3, 2), *running(True), draw(2), None, True)
    yield Sample(draw(3, 2), *running(False), None, draw(2), eps=0.1)
    yield Sample(np.zeros((0, 2, 2)), *running(False), draw(2), draw(2))


ROWS = [
    Op(
        normalization.batch_norm,
        by_channel,
        batches,
        (
            Wrong(RuntimeError, r"expected an input \(N, C, ...\), got \[2\]", np.zeros(2), None, None),
            Wrong(RuntimeError, "weight should contain 2 elements not 3", np.zeros((3, 2)), None, None, np.ones(3)),
            Wrong(
                RuntimeError, "running_mean should contain 2 elements not 1", np.zeros((3, 2)), np.ones(1), np.ones(2)
            ),
            Wrong(ValueError, "Expected more than 1 value per channel", np.zeros((1, 2)), None, None, None, None, True),
            Wrong(RuntimeError, "Expected running_mean and running_var to be defined", np.zeros((3, 2)), None, None),
        ),
        ("NativeBatchNorm", "BatchNormEval", "Alias"),
        dtypes="takes several tensors of one dtype; test_floats_stay",
        tolerance=(1e-10, 1e-4),
        torch="batch_norm",
        lacks={"0-d": "it takes batches of channels"},
    ),
]
FAMILY = normalization
EXEMPT: list[Any] = []

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import dropout

from .row import Op, Sample, Samples, Wrong

# What is left to chance is checked by tests/ops/test_dropout.py.
CERTAIN = "takes a probability; tests/ops/test_dropout.py"


def certainties(*sizes: tuple[int, ...]) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size in sizes:
            x = rng.standard_normal(size)
            yield Sample(x, 1.0, True)
            yield Sample(x, 0.0, True)
            yield Sample(x, 0.5, training=False)

    return samples


def all_or_nothing(x: Any, p: float, training: bool) -> Any:
    return x * 0 if training and p == 1 else x


def functional(name: str) -> Callable[..., Any]:
    return lambda torch, *args, **kwargs: getattr(torch.nn.functional, name)(*args, **kwargs)


def row(op: Callable[..., Any], samples: Samples, *errors: Wrong, **more: Any) -> Op:
    return Op(
        op,
        all_or_nothing,
        samples,
        (
            Wrong(ValueError, "has to be between 0 and 1, but got 1.5", np.ones((2, 3, 2, 2)), 1.5, True),
            Wrong(TypeError, "must be Tensor, not list", [1.0]),
            *errors,
        ),
        ("Dropout",),
        torch=functional(op.__name__),
        dtypes=CERTAIN,
        **more,
    )


INTEGERS = Wrong(RuntimeError, "can't be cast to int64", np.ones((2, 3), np.int64), 0.5, True)
FLAT = Wrong(RuntimeError, "Feature dropout requires at least 2 dimensions", np.ones(2), 0.5, True)
CHANNELS = {"0-d": "it has no channels: an error"}

ROWS = [
    row(dropout.dropout, certainties((2, 3), (), (0, 2)), INTEGERS),
    row(dropout.alpha_dropout, certainties((2, 3), (), (0, 2)), INTEGERS),
    row(dropout.feature_alpha_dropout, certainties((2, 3, 2), (2, 3), (0, 2)), FLAT, lacks=CHANNELS),
    Op(
        dropout.dropout1d,
        all_or_nothing,
        certainties((2, 3, 2), (2, 3), (0, 2, 2)),
        (
            Wrong(RuntimeError, "Expected 2D or 3D input, but received a 4D input", np.ones((2, 3, 2, 2)), 0.5),
            Wrong(ValueError, "has to be between 0 and 1, but got -1", np.ones((2, 3)), -1),
        ),
        ("Dropout",),
        dtypes=CERTAIN,
        lacks=CHANNELS,
    ),
    row(dropout.dropout2d, certainties((2, 3, 2, 2), (0, 2, 2, 1)), lacks=CHANNELS),
    row(dropout.dropout3d, certainties((2, 3, 1, 2, 2), (2, 1, 2, 2), (0, 2, 2, 1, 1)), lacks=CHANNELS),
]
FAMILY = dropout
EXEMPT: list[Any] = []

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.ops import rescaling

from .reduction import INTEGERS, distinct
from .row import Op, Sample, Wrong


def scaled(x: Any, p: float, dim: int, maxnorm: float) -> Any:
    out = np.moveaxis(x.copy(), dim, 0)
    for part in out:
        magnitudes = [abs(v) for v in part.ravel().tolist()]
        norm = max(magnitudes, default=0.0) if p == math.inf else math.fsum(v**p for v in magnitudes) ** (1 / p)
        if norm > maxnorm:
            part *= maxnorm / (norm + 1e-7)
    return np.moveaxis(out, 0, dim)


ROWS = [
    Op(
        rescaling.renorm,
        scaled,
        lambda rng: iter(
            [
                Sample(distinct(rng, (3, 4)), 2, 0, 2.0),
                Sample(distinct(rng, (3, 4)), 1, -1, 1.5),
                Sample(distinct(rng, (2, 3, 2)), 3.0, 1, 1.0),
                Sample(distinct(rng, (3, 4)), math.inf, 0, 1.0),
                Sample(np.zeros((0, 3)), 2, 1, 1.0),
            ]
        ),
        (
            Wrong(RuntimeError, "non-positive-norm", np.zeros((2, 3)), 0, 0, 1),
            Wrong(RuntimeError, "maxnorm to be >= 0", np.zeros((2, 3)), 2, 0, -1),
            Wrong(RuntimeError, "at least 2 dimensions", np.zeros(3), 2, 0, 1),
            Wrong(RuntimeError, "floating point", INTEGERS, 2, 0, 1),
            Wrong(IndexError, "out of range", np.zeros((2, 3)), 2, 2, 1),
        ),
        ("PNorm", "Where", "Mul"),
        dtypes="takes numbers; integers are refused, as an error says",
        lacks={"0-d": "two dimensions are needed, as an error says"},
    ),
]
FAMILY = rescaling
EXEMPT: list[Any] = []

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import bilinear

from .row import Op, Sample, Wrong


def elementwise(x: Any, y: Any, weight: Any, bias: Any = None) -> Any:
    out = np.zeros((*x.shape[:-1], len(weight)))
    for place in np.ndindex(out.shape):
        *row, k = place
        a, b = x[tuple(row)], y[tuple(row)]
        out[place] = sum(a[i] * weight[k, i, j] * b[j] for i in range(len(a)) for j in range(len(b)))
        out[place] += 0.0 if bias is None else bias[k]
    return out


def samples(rng: np.random.Generator) -> Iterator[Sample]:
    weight = rng.standard_normal((4, 2, 3))
    for lead in ((5,), (), (2, 1, 2), (0,)):
        x, y = rng.standard_normal((*lead, 2)), rng.standard_normal((*lead, 3))
        yield Sample(x, y, weight)
        yield Sample(x, y, weight, rng.standard_normal(4))


X, Y, W = np.zeros((5, 2)), np.zeros((5, 3)), np.zeros((4, 2, 3))

ROWS = [
    Op(
        bilinear.bilinear,
        elementwise,
        samples,
        (
            Wrong(RuntimeError, r"weight has to be \(out, in1, in2\), but its shape is \[2, 3\]", X, Y, W[0]),
            Wrong(RuntimeError, "input dimensions do not match: got 2 and 1", X, Y[0], W),
            Wrong(RuntimeError, "do not match at dim 0: got 5 and 4", X, Y[:4], W),
            Wrong(RuntimeError, "input1 size does not match weight size: got 3 but expected 2", Y, Y, W),
            Wrong(RuntimeError, "input2 size does not match weight size: got 2 but expected 3", X, X, W),
            Wrong(RuntimeError, r"bias size does not match weight size: got \[3\] but expected 4", X, Y, W, np.ones(3)),
        ),
        ("Matmul", "Permute"),
        dtypes="takes several tensors of one dtype; test_floats_stay",
        torch="bilinear",
        lacks={"0-d": "it takes vectors"},
    ),
]
FAMILY = bilinear
EXEMPT: list[Any] = []

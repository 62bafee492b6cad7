from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import correlation

from .row import Op, Sample, Wrong


def covariances(x: Any, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """Each pair of variables by the definition in Python's numbers."""
    rows = x.reshape(1, -1).tolist() if x.ndim < 2 else x.tolist()
    count = x.size if x.ndim < 2 else x.shape[1]
    times = [1] * count if fweights is None else fweights.ravel().tolist()
    worth = [1.0] * count if aweights is None else aweights.ravel().tolist()
    weights = [t * w for t, w in zip(times, worth, strict=True)]
    total = math.fsum(weights)
    lost = correction * (math.fsum(v * w for v, w in zip(weights, worth, strict=True)) / total if total else 1)
    means = [math.fsum(w * v for w, v in zip(weights, row, strict=True)) / total for row in rows]
    out = np.zeros((len(rows), len(rows)))
    for i, j in np.ndindex(out.shape):
        pairs = zip(weights, rows[i], rows[j], strict=True)
        out[i, j] = math.fsum(w * (a - means[i]) * (b - means[j]) for w, a, b in pairs) / (total - lost)
    return out.squeeze()


def correlations(x: Any) -> Any:
    c = covariances(x)
    if not c.ndim:
        return c / c
    return c / np.sqrt(np.outer(np.diag(c), np.diag(c)))


def variables(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((3, 5)))
    yield Sample(rng.standard_normal((2, 4)))


def observed(rng: np.random.Generator) -> Iterator[Sample]:
    yield from variables(rng)
    x = rng.standard_normal((2, 4))
    times, worth = np.array([1, 2, 0, 3]), np.array([0.5, 1.0, 2.0, 0.25])
    yield Sample(x, correction=0)
    yield Sample(x, correction=3)
    yield Sample(x, fweights=times)
    yield Sample(x, aweights=worth)
    yield Sample(x, fweights=times, aweights=worth, correction=0)
    yield Sample(x[0])
    yield Sample(x[:1])
    yield Sample(np.array(2.0), correction=0)
    yield Sample(np.zeros((0, 3)))


X = np.zeros((2, 3))
ROWS = [
    Op(
        correlation.cov,
        covariances,
        observed,
        (
            Wrong(RuntimeError, "two or fewer dimensions", np.zeros((1, 2, 3))),
            Wrong(RuntimeError, "bool dtype is not supported", X > 0),
            Wrong(RuntimeError, "fweights to have one or fewer dimensions", X, fweights=np.ones((1, 3), int)),
            Wrong(RuntimeError, "fweights to have integral dtype", X, fweights=np.ones(3)),
            Wrong(RuntimeError, "aweights to have floating point dtype", X, aweights=np.ones(3, int)),
            Wrong(RuntimeError, "fweights to have the same numel .* 2 != 3", X, fweights=np.ones(2, int)),
            Wrong(RuntimeError, "aweights cannot be negative", X, aweights=-np.ones(3)),
            Wrong(RuntimeError, "sum to zero", X, fweights=np.zeros(3, int)),
        ),
        ("Matmul", "Sum"),
        dtypes="only of several observations; test_dtypes_of_covariances",
    ),
    Op(
        correlation.corrcoef,
        correlations,
        lambda rng: [*variables(rng), Sample(rng.standard_normal(4)), Sample(np.zeros((0, 3)))],
        (
            Wrong(RuntimeError, r"corrcoef\(\): .*two or fewer dimensions", np.zeros((1, 2, 3))),
            Wrong(RuntimeError, "bool dtype is not supported", X > 0),
        ),
        ("Matmul", "Diagonal", "Sqrt"),
        dtypes="only of several observations; test_dtypes_of_covariances",
        lacks={"0-d": "nothing varies; test_one_observation"},
    ),
]
FAMILY = correlation
EXEMPT: list[Any] = []

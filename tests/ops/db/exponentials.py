from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import exponentials

from .reduction import INTEGERS, dims, distinct, out_of_range, over
from .row import Op, Sample, Wrong

TAKES_DIM = "takes dim; test_dtypes_of_exponentials"


def shares(x: Any, dim: int, dtype: Any = None) -> Any:
    out = np.ones(x.shape)
    for place in np.ndindex(x.shape if x.ndim else ()):
        if x.ndim:
            line = x[tuple(slice(None) if d == dim % x.ndim else i for d, i in enumerate(place))]
            out[place] = math.exp(x[place]) / math.fsum(math.exp(v) for v in line)
    return out


def softmaxes(rng: np.random.Generator) -> Iterator[Sample]:
    for dim in (0, 1, -1):
        yield Sample(distinct(rng, (2, 3, 2)), dim)
    yield Sample(distinct(rng, ()), 0)
    yield Sample(np.zeros((0, 3)), 1)
    yield Sample(np.zeros((0, 3)), 0)
    yield Sample(INTEGERS, 1, dtype=np.dtype(np.float64))
    yield Sample(INTEGERS, 0, np.dtype(np.float64))


ERRORS = (
    out_of_range(),
    Wrong(NotImplementedError, "not implemented for int64", INTEGERS, 0),
    Wrong(TypeError, "'dim' .*must be int, not NoneType", np.zeros((2, 3)), None),
)

ROWS = [
    Op(exponentials.softmax, shares, softmaxes, ERRORS, ("Softmax", "SoftmaxAdjoint"), dtypes=TAKES_DIM),
    Op(
        exponentials.log_softmax,
        lambda x, dim, dtype=None: np.log(shares(x, dim)),
        softmaxes,
        ERRORS,
        ("LogSoftmax", "LogSoftmaxAdjoint"),
        dtypes=TAKES_DIM,
    ),
    Op(
        exponentials.softmin,
        lambda x, dim, dtype=None: shares(-x, dim),
        softmaxes,
        ERRORS,
        ("Softmax", "Neg"),
        torch=lambda torch, x, dim, dtype=None: torch.nn.functional.softmin(x, dim, dtype=dtype),
        dtypes=TAKES_DIM,
    ),
    Op(
        exponentials.logsumexp,
        over(lambda values: math.log(math.fsum(map(math.exp, values))) if values else -math.inf),
        dims(positional=False),
        (
            out_of_range(),
            Wrong(RuntimeError, "multiple times", np.zeros((2, 3)), (0, 0)),
            Wrong(TypeError, "must be tuple of ints, not NoneType", np.zeros((2, 3)), None),
        ),
        ("Logsumexp", "Exp"),
        dtypes=TAKES_DIM,
    ),
]
FAMILY = exponentials
EXEMPT: list[Any] = []

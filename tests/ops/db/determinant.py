from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from distgrad.ops import determinant

from .decomposition import ONLY_WIDE, refused, regular
from .linalg import NO_SCALAR_MATRIX, in_torch_linalg, shapes
from .row import Op


def expanded(A: Any) -> Any:
    """Leibniz: a product for each permutation, with its sign."""
    n = A.shape[-1]
    out = np.zeros(A.shape[:-2])
    for order in itertools.permutations(range(n)):
        inversions = sum(order[i] > order[j] for i in range(n) for j in range(i + 1, n))
        term = np.full(A.shape[:-2], (-1.0) ** inversions)
        for i, j in enumerate(order):
            term = term * A[..., i, j]
        out = out + term
    return out


def logarithm(A: Any) -> Any:
    value = expanded(A)
    with np.errstate(all="ignore"):
        return np.where(value < 0, np.nan, np.log(np.abs(value)))


CASES = ((1, 1), (3, 3), (2, 3, 3), (2, 1, 2, 2), (0, 0), (2, 0, 0), (0, 2, 2))

ROWS = [
    Op(
        determinant.det,
        expanded,
        shapes(*((size,) for size in CASES)),
        refused("linalg.det"),
        ("LinalgDet", "Cofactors"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 1e-4),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        determinant.slogdet,
        lambda A: (np.sign(expanded(A)), np.log(np.abs(expanded(A)))),
        regular(*CASES),
        refused("linalg.slogdet"),
        ("LinalgSlogdet", "LinalgInvEx"),
        torch=in_torch_linalg("slogdet"),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        determinant.logdet,
        logarithm,
        regular(*CASES),
        refused("logdet"),
        ("LinalgSlogdet",),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
]
FAMILY = determinant
EXEMPT: list[Any] = []

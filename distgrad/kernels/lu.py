"""LU factorization with partial pivoting, which NumPy keeps to itself: LAPACK's getrf, in blocks of columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .triangular import solve_triangular

Array = NDArray[Any]

# Columns that are eliminated one by one before the rest of the matrix is updated by one product.
_PANEL = 32


def lu_factor(a: Array) -> tuple[Array, Array, Array]:
    """Factors ``a`` into a unit lower and an upper triangle after exchanging rows for the largest pivot in the column.

    Args:
        a: (..., m, n).

    Returns:
        The two triangles in one array (..., m, n); for each step the row that was exchanged with it, counted from 1,
        int32 (..., min(m, n)); and the first step whose pivot is zero, counted from 1, or 0: int32 (...).
    """
    *lead, m, n = a.shape
    steps = min(m, n)
    lu = np.array(a, order="C").reshape(math.prod(lead), m, n)
    pivots = np.empty((len(lu), steps), np.int32)
    for start in range(0, steps, _PANEL):
        stop = min(start + _PANEL, steps)
        for k in range(start, stop):
            _eliminate(lu, pivots, k, stop)
        unit = lu[:, start:stop, start:stop]
        lu[:, start:stop, stop:] = solve_triangular(unit, lu[:, start:stop, stop:], upper=False, unit=True)
        lu[:, stop:, stop:] -= lu[:, stop:, start:stop] @ lu[:, start:stop, stop:]
    zero = np.diagonal(lu, axis1=-2, axis2=-1) == 0
    first = np.argmax(zero, axis=-1) + 1 if steps else np.zeros(len(lu))
    info = np.where(zero.any(axis=-1), first, 0).astype(np.int32)
    return lu.reshape(a.shape), pivots.reshape(*lead, steps), info.reshape(lead)


def _eliminate(lu: Array, pivots: Array, k: int, stop: int) -> None:
    """Step k: brings up the row with the largest element in column k and clears it below, up to column ``stop``."""
    batch = np.arange(len(lu))
    pivot = k + np.argmax(np.abs(lu[:, k:, k]), axis=1)
    pivots[:, k] = pivot + 1
    lu[batch, k], lu[batch, pivot] = lu[batch, pivot], lu[batch, k].copy()
    head = lu[:, k, k, None]
    lu[:, k + 1 :, k] /= np.where(head == 0, 1, head)  # a column of zeros has nothing to eliminate
    lu[:, k + 1 :, k + 1 : stop] -= lu[:, k + 1 :, k, None] * lu[:, k, None, k + 1 : stop]


def permutation(pivots: Array, rows: int) -> Array:
    """The order of the rows that ``lu_factor``'s exchanges lead to: int64 (..., rows); row i of P^T A is row
    ``permutation[i]`` of A."""
    lead = pivots.shape[:-1]
    exchanges = pivots.reshape(math.prod(lead), pivots.shape[-1])
    order = np.tile(np.arange(rows), (len(exchanges), 1))
    batch = np.arange(len(order))
    for k in range(exchanges.shape[-1]):
        other = exchanges[:, k] - 1
        order[batch, k], order[batch, other] = order[batch, other], order[batch, k].copy()
    return order.reshape(*lead, rows)


def lu_factor_reference(a: Array) -> tuple[Array, Array]:
    """``lu_factor`` of one matrix, one element at a time, without ``info``."""
    lu = a.copy()
    m, n = a.shape
    pivots = []
    for k in range(min(m, n)):
        best = max(range(k, m), key=lambda i: abs(lu[i, k]))
        pivots.append(best + 1)
        lu[[k, best]] = lu[[best, k]]
        for i in range(k + 1, m):
            if lu[k, k] != 0:
                lu[i, k] /= lu[k, k]
            for j in range(k + 1, n):
                lu[i, j] -= lu[i, k] * lu[k, j]
    return lu, np.array(pivots, np.int32)

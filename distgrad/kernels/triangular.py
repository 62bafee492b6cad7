"""Triangular systems of equations. NumPy offers LAPACK's general solver only, so the blocks go through that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Up to this order one call of the general solver costs less than the products it would save.
_BLOCK = 64


def solve_triangular(a: Array, b: Array, upper: bool, unit: bool = False) -> Array:
    """X in ``a @ X = b``, of which only one triangle is read.

    Of halves of the matrix: the last unknowns first, the rest after their part has been subtracted, so that most of
    the work is products of matrices. Small blocks are solved by LAPACK's general solver, which eliminates nothing in
    an upper triangle and so substitutes backwards.

    Args:
        a: (..., n, n).
        b: (..., n, k); leading dimensions broadcast.
        upper: read the upper triangle, else the lower one.
        unit: take the diagonal for ones, whatever is there.

    Returns:
        (..., n, k). A zero on the diagonal gives infinities and NaNs, as IEEE 754 has it.
    """
    if upper:
        return _upper(a, b, unit)
    # Both orders reversed, a lower triangle is an upper one.
    return np.ascontiguousarray(_upper(a[..., ::-1, ::-1], b[..., ::-1, :], unit)[..., ::-1, :])


def _upper(a: Array, b: Array, unit: bool) -> Array:
    n = a.shape[-1]
    diagonal = np.diagonal(a, axis1=-2, axis2=-1)
    singular = not unit and not np.all(diagonal)
    if n <= 1:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = b if unit or not n else b / a
        return np.array(np.broadcast_to(out, (*lead, n, b.shape[-1])))
    if n <= _BLOCK and not singular:  # the general solver refuses a zero pivot
        triangle = np.triu(a, 1 if unit else 0)
        return np.linalg.solve(triangle + np.eye(n, dtype=a.dtype) if unit else triangle, b)
    half = n // 2
    below = _upper(a[..., half:, half:], b[..., half:, :], unit)
    above = _upper(a[..., :half, :half], b[..., :half, :] - a[..., :half, half:] @ below, unit)
    return np.concatenate([above, below], axis=-2)


def solve_triangular_reference(a: Array, b: Array, upper: bool, unit: bool = False) -> Array:
    """``solve_triangular`` by substitution, one unknown at a time. One matrix."""
    n = a.shape[-1]
    x = np.zeros(b.shape, a.dtype)
    for i in reversed(range(n)) if upper else range(n):
        known = range(i + 1, n) if upper else range(i)
        rest = b[i] - sum((a[i, j] * x[j] for j in known), start=np.zeros_like(b[i]))
        x[i] = rest if unit else rest / a[i, i]
    return x

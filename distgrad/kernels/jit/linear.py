"""Products with small constant matrices, as few instructions.

The matrices of Winograd's transforms have points in pairs ``p``, ``-p``: what both have in common is computed once, the
sum or the difference of two rows (or columns) that differ in signs alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .code import Code, Value

Matrix = NDArray[np.float64]


def product(code: Code, matrix: Matrix, vectors: Sequence[Value]) -> list[Value]:
    """``matrix @ vectors``: for each row of (I, J) a vector, from J vectors."""
    columns, values = _merged_columns(code, matrix, list(vectors))
    rows: list[Value | None] = [None] * len(matrix)
    for first, second in _pairs(columns):
        same = np.where(columns[first] == columns[second], columns[first], 0)
        even = _row(code, same, values)
        odd = _row(code, columns[first] - same, values)
        rows[first] = even + odd
        rows[second] = even - odd
    return [_row(code, columns[i], values) if row is None else row for i, row in enumerate(rows)]


def _merged_columns(code: Code, matrix: Matrix, vectors: list[Value]) -> tuple[Matrix, list[Value]]:
    """Two columns that differ in signs alone become one of the vectors' sum and one of their difference."""
    matrix = matrix.copy()
    for first, second in _pairs(matrix.T):
        left, right = matrix[:, first].copy(), matrix[:, second].copy()
        same = left == right
        matrix[:, first], matrix[:, second] = np.where(same, left, 0), np.where(same, 0, left)
        a, b = vectors[first], vectors[second]
        vectors[first], vectors[second] = a + b, a - b
    return matrix, vectors


def _pairs(rows: Matrix) -> list[tuple[int, int]]:
    """Rows that differ in the signs of some, not all, of at least two entries."""
    found: list[tuple[int, int]] = []
    for second in range(len(rows)):
        for first in range(second):
            a, b = rows[first], rows[second]
            if any(first in pair or second in pair for pair in found):
                continue
            same, opposite = a == b, (a == -b) & (a != 0)
            if (same | opposite).all() and opposite.any() and (same & (a != 0)).any():
                found.append((first, second))
    return found


def _row(code: Code, row: Matrix, values: Sequence[Value]) -> Value:
    """The sum of products of one row; what is multiplied by 1 or -1 costs an addition."""
    terms = sorted(
        ((float(f), v) for f, v in zip(row, values, strict=True) if f != 0), key=lambda term: abs(term[0]) != 1
    )
    if not terms:
        return code.zeros(values[0].type)
    total: Value | None = None
    for factor, value in sorted(terms, key=lambda term: term[0] != 1):
        if total is None:
            total = value if factor == 1 else value * factor
        elif factor == 1:
            total = total + value
        elif factor == -1:
            total = total - value
        else:
            total = code.fma(value, factor, total)
    assert total is not None
    return total

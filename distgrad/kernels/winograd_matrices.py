"""The matrices of Winograd's convolution, exact: ``y = A^T [(G g) * (B^T x)]`` along one dimension.

A tile of ``m`` outputs of a filter with three taps is the product of two polynomials, found from its values at points
(Cook and Toom; Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). Everything is computed in
fractions from the points and rounded once.

A last tile with only ``r < m`` outputs needs fewer points. It takes the first of the full tile's points, so that it can
be multiplied with the same transformed weights: what its ``G`` would differ by, one factor for each point, is moved
into its ``B^T``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = list[list[Fraction]]

_HALF = Fraction(1, 2)
_INFINITY = None

# The points of a tile, by their number; the best first, since a ragged tile leaves out the last ones. Where the first
# is 1 its column of A^T is all ones, so that a constant added there is added to every output. Pairs p, -p save
# additions where both are computed together; those of six points round least of the pairs that were tried (5/8 and 3/2:
# 7.4e-7, 1/2 and 1: 1.6e-6; without pairs 9.9e-7; root mean square of a tile).
_POINTS: dict[int, tuple[Fraction | int | None, ...]] = {
    2: (1, _INFINITY),
    3: (1, _INFINITY, -_HALF),
    4: (1, _INFINITY, 0, -1),
    5: (1, _INFINITY, -_HALF, -3 * _HALF, Fraction(1, 4)),
    6: (Fraction(5, 8), _INFINITY, 0, Fraction(-5, 8), 3 * _HALF, -3 * _HALF),
    7: (1, _INFINITY, 0, Fraction(-3, 4), _HALF, 2, -3 * _HALF),
    8: (1, _INFINITY, 0, -1, _HALF, -2, 2, -_HALF),
}


@dataclass(frozen=True)
class TileMatrices:
    """The transforms of a tile of ``outputs`` pixels, from ``points`` input pixels to as many products.

    Attributes:
        at: A^T, (outputs, points); ``a`` is its transpose.
        bt: B^T, (points, points); ``b`` is its transpose.
        bt_even: at stride 2, what B^T does to the even pixels; the odd ones are products as they are.
        g: G of the full tile, (points of the full tile, 3), float64: the weight's transform is one for all tiles.
    """

    outputs: int
    points: int
    at: NDArray[Any]
    a: NDArray[Any]
    bt: NDArray[Any]
    b: NDArray[Any]
    bt_even: NDArray[Any]
    g: FloatArray


@cache
def tile_matrices(tile: int, stride: int, outputs: int, dtype: np.dtype[Any]) -> TileMatrices:
    """The matrices for the first ``outputs`` outputs of a tile of ``tile``, a filter of three taps, stride 1 or 2.

    At stride 2 the even pixels meet the outer two taps, a stride-1 filter of two taps, and the odd pixels the middle
    one, which needs no transform: ``2*outputs + 1`` products instead of ``3*outputs``.

    Args:
        tile: outputs of the full tile, 1..6.
        stride: 1 or 2.
        outputs: of this tile, at most ``tile``.
        dtype: of all but ``g``.
    """
    if stride == 1:
        at, g, bt = _cook_toom(tile, 3, outputs)
    else:
        at, g, bt = _stride_two(tile, outputs)
    of_output, of_input, of_weight = _array(at, dtype), _array(bt, dtype), _array(g, np.dtype(np.float64))
    return TileMatrices(
        outputs=outputs,
        points=len(bt),
        at=of_output,
        a=_locked(of_output.T),
        bt=of_input,
        b=_locked(of_input.T),
        bt_even=_locked(of_input[::2, ::2]),
        g=of_weight,
    )


def _cook_toom(tile: int, taps: int, outputs: int) -> tuple[Rows, Rows, Rows]:
    """A^T (outputs, outputs + taps - 1), G of the full tile (tile + taps - 1, taps), and B^T."""
    every = _POINTS[tile + taps - 1]
    used = every[: outputs + taps - 1]
    at = [[_power(point, row, outputs) for point in used] for row in range(outputs)]
    g = [[_power(point, tap, taps) / _distance(point, every) for tap in range(taps)] for point in every]
    bt = []
    for point in used:
        polynomial = [Fraction(1)]
        for other in used:
            if other is not _INFINITY and other != point:
                polynomial = _times(polynomial, [-Fraction(other), Fraction(1)])
        factor = _distance(point, every) / _distance(point, used)
        bt.append([factor * value for value in polynomial] + [Fraction(0)] * (len(used) - len(polynomial)))
    return at, g, bt


def _stride_two(tile: int, outputs: int) -> tuple[Rows, Rows, Rows]:
    """``y[i] = g0 x[2i] + g1 x[2i+1] + g2 x[2i+2]``: products of even pixels and of odd ones take turns."""
    even_at, even_g, even_bt = _cook_toom(tile, 2, outputs)
    at = _zeros(outputs, 2 * outputs + 1)
    bt = _zeros(2 * outputs + 1, 2 * outputs + 1)
    g = _zeros(2 * tile + 1, 3)
    for i in range(outputs + 1):
        for row in range(outputs):
            at[row][2 * i] = even_at[row][i]
        for column in range(outputs + 1):
            bt[2 * i][2 * column] = even_bt[i][column]
    for i in range(outputs):
        at[i][2 * i + 1] = bt[2 * i + 1][2 * i + 1] = Fraction(1)
    for i in range(tile + 1):
        g[2 * i][0], g[2 * i][2] = even_g[i]
    for i in range(tile):
        g[2 * i + 1][1] = Fraction(1)
    return at, g, bt


def _power(point: Fraction | int | None, exponent: int, count: int) -> Fraction:
    """``point ** exponent``, one of ``count`` powers; at infinity only the highest of them counts."""
    if point is _INFINITY:
        return Fraction(int(exponent == count - 1))
    return Fraction(point) ** exponent


def _distance(point: Fraction | int | None, points: tuple[Fraction | int | None, ...]) -> Fraction:
    """The product of ``point``'s differences from the other finite points."""
    if point is _INFINITY:
        return Fraction(1)
    return math.prod(
        (Fraction(point) - other for other in points if other is not _INFINITY and other != point), start=Fraction(1)
    )


def _times(left: list[Fraction], right: list[Fraction]) -> list[Fraction]:
    """The product of two polynomials, lowest coefficients first."""
    product = [Fraction(0)] * (len(left) + len(right) - 1)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            product[i + j] += a * b
    return product


def _zeros(rows: int, columns: int) -> Rows:
    return [[Fraction(0)] * columns for _ in range(rows)]


def _array(rows: Rows, dtype: np.dtype[Any]) -> NDArray[Any]:
    return _locked(np.array([[float(value) for value in row] for row in rows], dtype))


def _locked(matrix: NDArray[Any]) -> NDArray[Any]:
    """A contiguous copy that nobody can write to: it is shared by all plans."""
    matrix = np.array(matrix, order="C")
    matrix.flags.writeable = False
    return matrix

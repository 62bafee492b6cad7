from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels.lu import _PANEL, lu_factor, lu_factor_reference, permutation

SHAPES = [
    (1, 1),
    (4, 4),
    (5, 3),
    (3, 5),
    (_PANEL, _PANEL),
    (_PANEL + 1, _PANEL + 1),
    (2 * _PANEL + 5, 2 * _PANEL + 5),
    (2 * _PANEL + 5, _PANEL + 2),
    (_PANEL + 2, 2 * _PANEL + 5),
]


def draw(shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
    return np.random.default_rng(shape[-1]).standard_normal(shape).astype(dtype)


def product(lu: Any, order: Any) -> Any:
    """The rows of the matrix, as they were before the exchanges."""
    k = min(lu.shape)
    lower = np.tril(lu, -1)[:, :k] + np.eye(len(lu), k)
    out = np.empty(lu.shape)
    out[order] = lower @ np.triu(lu)[:k]
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_elimination(shape: tuple[int, int]) -> None:
    a = draw(shape)
    before = a.copy()
    lu, pivots, info = lu_factor(a)
    expected, order = lu_factor_reference(a)
    assert pivots.dtype == np.int32 and info == 0
    assert pivots.tolist() == order.tolist()
    np.testing.assert_allclose(lu, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(product(lu, permutation(pivots, shape[0])), a, atol=1e-12)
    assert (a == before).all()


@pytest.mark.parametrize("lead", [(3,), (2, 2), (0,), (2, 0)], ids=str)
@pytest.mark.parametrize("size", [(4, 3), (0, 3), (3, 0), (0, 0)], ids=str)
def test_each_of_a_batch(lead: tuple[int, ...], size: tuple[int, int]) -> None:
    a = draw((*lead, *size))
    lu, pivots, info = lu_factor(a)
    assert lu.shape == a.shape and info.shape == lead and pivots.shape == (*lead, min(size))
    assert permutation(pivots, size[0]).shape == (*lead, size[0])
    for place in np.ndindex(lead):
        one, order, _ = lu_factor(a[place])
        np.testing.assert_array_equal(lu[place], one)
        np.testing.assert_array_equal(pivots[place], order)
        np.testing.assert_array_equal(permutation(pivots, size[0])[place], permutation(order, size[0]))


def test_of_a_singular_matrix_it_says_which_pivot_is_zero() -> None:
    a = np.stack([np.eye(3), np.ones((3, 3)), np.zeros((3, 3))])
    lu, _, info = lu_factor(a)
    assert info.tolist() == [0, 2, 1]
    assert np.isfinite(lu).all()


def test_of_equal_candidates_the_first_is_the_pivot() -> None:
    _, pivots, _ = lu_factor(np.array([[1.0, 2.0], [-1.0, 3.0]]))
    assert pivots.tolist() == [1, 2]


def test_single_precision_and_any_layout() -> None:
    a = draw((70, 70), np.float32)
    lu, pivots, _ = lu_factor(a.T)
    assert lu.dtype == np.float32
    same, order, _ = lu_factor(a.T.copy())
    np.testing.assert_array_equal(lu, same)
    np.testing.assert_array_equal(pivots, order)

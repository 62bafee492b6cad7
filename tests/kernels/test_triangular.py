from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels.triangular import _BLOCK, solve_triangular, solve_triangular_reference

# one block, two that are full, and what lies between
ORDERS = [0, 1, 2, 5, _BLOCK, _BLOCK + 1, 2 * _BLOCK, 2 * _BLOCK + 7]


def system(n: int, k: int = 3, dtype: Any = np.float64) -> tuple[Any, Any]:
    rng = np.random.default_rng(n)
    a = rng.standard_normal((n, n)) / max(n, 1) ** 0.5 + 2 * np.eye(n)
    return a.astype(dtype), rng.standard_normal((n, k)).astype(dtype)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("n", ORDERS)
def test_is_substitution(n: int, upper: bool, unit: bool) -> None:
    a, b = system(n)
    if unit:
        a *= 0.3  # the diagonal is read as ones
    before = a.copy(), b.copy()
    x = solve_triangular(a, b, upper, unit)
    assert x.flags.c_contiguous
    np.testing.assert_allclose(x, solve_triangular_reference(a, b, upper, unit), rtol=1e-9, atol=1e-9)
    assert (a == before[0]).all() and (b == before[1]).all()


@pytest.mark.parametrize("shapes", [((2, 1), (3,)), ((2, 1), ()), ((), (2,)), ((0,), (1,)), ((3,), (3,))], ids=str)
@pytest.mark.parametrize("upper", [False, True])
def test_batches_broadcast(shapes: Any, upper: bool) -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((*shapes[0], 70, 70)) / 9 + 2 * np.eye(70)
    b = rng.standard_normal((*shapes[1], 70, 2))
    x = solve_triangular(a, b, upper)
    assert x.shape == (*np.broadcast_shapes(*shapes), 70, 2)
    np.testing.assert_allclose((np.triu(a) if upper else np.tril(a)) @ x, np.broadcast_to(b, x.shape), atol=1e-12)


@pytest.mark.parametrize("upper", [False, True])
def test_single_precision_stays(upper: bool) -> None:
    a, b = system(150, dtype=np.float32)
    x = solve_triangular(a, b, upper)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, solve_triangular(a.astype(float), b.astype(float), upper), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n", [3, _BLOCK + 3])
def test_a_zero_on_the_diagonal_gives_infinity(n: int) -> None:
    a, b = np.eye(n), np.ones((n, 1))
    a[1, 1] = 0
    with np.errstate(all="ignore"):
        x = solve_triangular(a, b, upper=True)
    assert np.isinf(x[1]).all() and (np.delete(x, [0, 1]) == 1).all()
    # what depends on it is not a number: 1 - 0 * inf
    assert np.isnan(x[0]).all()
    assert (solve_triangular(a, b, upper=True, unit=True) == 1).all()

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels.product import dot, product, product_reference

SHAPES = [
    ((2, 3), (3, 4)),
    ((4, 2, 3), (3, 4)),
    ((2, 3), (4, 3, 2)),
    ((2, 1, 2, 3), (3, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((0, 2, 3), (3, 2)),
    ((3, 0, 2), (2, 2)),
]


def draw(shape: tuple[int, ...], dtype: Any) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_product_is_the_sum_of_products(shapes: Any, dtype: Any) -> None:
    a, b = (draw(shape, dtype) for shape in shapes)
    result = product(a, b)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, product_reference(a, b), rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


def test_a_batch_that_is_not_in_order_gives_the_same() -> None:
    a, b = draw((4, 5, 3), np.float64), draw((3, 2), np.float64)
    turned = np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0)
    np.testing.assert_allclose(product(turned, b), product(a, b), rtol=1e-14)
    np.testing.assert_allclose(product(a[::-1, ::2], b), product(a[::-1, ::2].copy(), b), rtol=1e-14)


def test_half_precision_is_summed_in_single() -> None:
    ones = np.ones((1, 4096), np.float16)
    # in half precision the sum stops growing at 2048
    assert product(ones, ones.T).item() == 4096
    assert dot(ones, ones).item() == 4096
    assert dot(ones[0], ones[0]).dtype == np.float16


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (0, 3), (2, 0)])
def test_dot_is_along_the_last_dimension(shape: tuple[int, ...]) -> None:
    a, b = draw(shape, np.float64), draw(shape, np.float64)[..., ::-1]
    result = dot(a, b)
    assert result.shape == shape[:-1]
    np.testing.assert_allclose(result, (a * b).sum(axis=-1), rtol=1e-14, atol=1e-15)


def test_integers_stay_integers() -> None:
    a = np.arange(6).reshape(2, 3)
    assert product(a, a.T).tolist() == [[5, 14], [14, 50]]
    assert product(a, a.T).dtype == a.dtype

"""The larger of each element and 0, against its definition, in every order of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels.layout import empty_hwnc, flat, is_hwnc_alone
from distgrad.kernels.rectifier import rectified, rectified_reference

SHAPES = [(), (5,), (0, 3), (100000,), (3, 20, 11, 13), (8192,), (4, 8, 16, 16)]


def values(shape: Any, dtype: Any) -> Any:
    random = np.random.default_rng(0)
    x = random.standard_normal(shape) * 10
    if x.size > 3:
        x.reshape(-1)[:4] = [np.nan, -np.inf, np.inf, 0.0] if np.dtype(dtype).kind == "f" else [1, 2, -3, 0]
    return np.asarray(x).astype(dtype)


def orders(x: Any) -> list[Any]:
    found = [x, np.asarray(x).T]
    if x.ndim == 4:
        ordered = empty_hwnc(x.shape, x.dtype)
        ordered[...] = x
        found += [ordered, ordered[:, :, ::2], x[:, ::2]]
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_rectified_equals_the_definition(shape: Any, dtype: Any) -> None:
    for x in orders(values(shape, dtype)):
        out = rectified(x)
        assert out.dtype == dtype
        np.testing.assert_array_equal(out, rectified_reference(x))
        if isinstance(out, np.ndarray) and x.ndim == 4:
            assert is_hwnc_alone(out) == is_hwnc_alone(x)


@pytest.mark.parametrize("shape", [(100,), (100000,), (3, 20, 11, 13)], ids=str)
def test_in_place_and_into_another_order(shape: Any) -> None:
    for x in orders(values(shape, np.float32)):
        expected = rectified_reference(x)
        other = np.empty(x.shape, np.float64 if x.size > 50000 else np.float32)
        assert rectified(x, out=other) is other
        np.testing.assert_array_equal(other, expected)
        assert rectified(x, out=x) is x
        np.testing.assert_array_equal(x, expected)


def test_flat_is_a_view_of_one_order() -> None:
    x = np.arange(360.0).reshape(3, 4, 5, 6)
    ordered = empty_hwnc(x.shape, x.dtype)
    ordered[...] = x
    for array in (x, ordered):
        found = flat(array, array)
        assert found is not None and all(np.shares_memory(v, array) and v.shape == (360,) for v in found)
    np.testing.assert_array_equal(flat(ordered)[0].reshape(5, 6, 3, 4).transpose(2, 3, 0, 1), x)  # type: ignore[index]
    assert flat(x, ordered) is None and flat(ordered[:, :, :, :3]) is None and flat(x.T) is None

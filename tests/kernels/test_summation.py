from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from distgrad.kernels import summation
from distgrad.kernels.summation import sum_over, sum_over_reference

SHAPES = [(300,), (7, 300), (300, 7), (5, 70, 9), (3, 1, 200), (2, 3, 70, 5), (1, 1), (0, 3), (1000, 1)]
LAYOUTS: dict[str, Any] = {
    "in order": lambda x: x,
    "turned round": lambda x: np.ascontiguousarray(x.T).T,
    "with gaps": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: np.flip(np.flip(x).copy()),
    "repeated": lambda x: np.broadcast_to(x[:1], x.shape) if len(x) else x,
}


def axes_of(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [axes for n in range(len(shape) + 1) for axes in itertools.combinations(range(len(shape)), n)]


@pytest.fixture(params=["as shipped", "short pieces"], autouse=True)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "short pieces":
        for name, size in (("_SMALL", 0), ("_CHAIN", 2), ("_WIDE", 16), ("_PIECE", 3)):
            monkeypatch.setattr(summation, name, size)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_reference(layout: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = LAYOUTS[layout](rng.standard_normal(shape).astype(dtype))
        for axes in axes_of(shape):
            expected = sum_over_reference(x, axes)
            for keepdims in (True, False):
                total = sum_over(x, axes, keepdims)
                assert total.dtype == dtype and not np.shares_memory(total, x)
                assert total.shape == (expected if keepdims else expected.squeeze(axes)).shape
                assert not isinstance(total, np.ndarray) or (total.flags.c_contiguous and total.flags.writeable)
                scale = np.abs(x).sum(axis=axes, keepdims=True) * 16 * np.finfo(dtype).eps
                assert (np.abs(np.reshape(total, expected.shape) - expected) <= scale).all()


@pytest.mark.parametrize("shape, axes", [((300, 4), 0), ((4, 300), 1), ((300,), 0), ((20, 300), 0)])
def test_infinities_and_nan_go_through(shape: tuple[int, ...], axes: int) -> None:
    for value, expected in ((np.inf, np.inf), (-np.inf, -np.inf), (np.nan, np.nan)):
        x = np.ones(shape, np.float32)
        x[(0,) * len(shape)] = value
        np.testing.assert_array_equal(np.ravel(sum_over(x, (axes,)))[0], expected)
        if len(shape) > 1:
            assert np.isfinite(np.ravel(sum_over(x, (axes,)))[1:]).all()


def test_other_dtypes() -> None:
    x = np.arange(600).reshape(2, 300)
    assert sum_over(x, (1,)).tolist() == x.sum(1).tolist()
    assert sum_over(x % 2 == 0, (0, 1), dtype=np.dtype(np.int64)) == 300
    assert sum_over(x.astype(np.float32), (1,), dtype=np.float64).dtype == np.float64
    half = np.full((4096,), 1.0, np.float16)  # in half precision 2048 + 1 is 2048
    assert sum_over(half, (0,)) == 4096 and sum_over(half, (0,)).dtype == np.float16


# Relative to the sum of magnitudes. PyTorch 2.13 on the same numbers: up to 2e-7, NumPy: up to 3e-5.
@pytest.mark.parametrize(
    "shape, axes",
    [((1_000_000,), (0,)), ((250_000, 4), (0,)), ((20_000, 50), (0,)), ((1000, 1000), (0,)), ((50, 4000, 5), (0, 2))],
)
def test_float32_is_as_exact_as_in_pytorch(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).random(shape).astype(np.float32)
    for y in (x, np.ascontiguousarray(x.T).T):
        exact = y.sum(axis=axes, dtype=np.float64)
        assert (np.abs(sum_over(y, axes) - exact) <= 4e-7 * exact).all()

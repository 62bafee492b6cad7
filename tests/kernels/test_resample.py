from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels import resample as kernels
from distgrad.kernels.resample import LinearMap, resample, resample_reference


def random_map(rng: Any, rows: int, columns: int, entries: int, weighted: bool = True) -> LinearMap:
    """Any entries: rows without one, several in a place."""
    weight = rng.standard_normal(entries) if weighted else None
    return LinearMap((rows, columns), rng.integers(0, rows, entries), rng.integers(0, columns, entries), weight)


@pytest.fixture(params=[None, 1], ids=["blocks as shipped", "blocks of one plane"], autouse=True)
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(kernels, "_BLOCK_BYTES", request.param)


@pytest.mark.parametrize("entries", [0, 1, 7, 30])
@pytest.mark.parametrize("weighted", [True, False])
def test_equals_reference(entries: int, weighted: bool) -> None:
    rng = np.random.default_rng(entries)
    for sizes in ((4,), (3, 5), (2, 4, 3)):
        maps = [random_map(rng, int(rng.integers(1, 8)), n, entries, weighted) for n in sizes]
        x = rng.standard_normal((2, 3, *sizes))
        expected = resample_reference(x, maps)
        for layout in (x, np.ascontiguousarray(x.T).T, x[..., ::-1][..., ::-1]):
            output = resample(layout, maps)
            assert output.flags.c_contiguous
            np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-13)


def test_none_leaves_a_dimension_as_it_is() -> None:
    rng = np.random.default_rng(0)
    x, along = rng.standard_normal((2, 3, 4)), random_map(rng, 5, 3, 9)
    np.testing.assert_allclose(resample(x, (along, None)), along.dense() @ x, rtol=1e-13, atol=1e-14)
    copy = resample(x, (None, None))
    np.testing.assert_array_equal(copy, x)
    assert not np.shares_memory(copy, x)


def test_the_transpose_is_the_adjoint() -> None:
    rng = np.random.default_rng(3)
    maps = [random_map(rng, 6, 4, 12), random_map(rng, 3, 5, 8)]
    np.testing.assert_array_equal(maps[0].T.dense(), maps[0].dense().T)
    x, g = rng.standard_normal((2, 4, 5)), rng.standard_normal((2, 6, 3))
    back = resample(g, [m.T for m in maps])
    np.testing.assert_allclose(np.vdot(back, x), np.vdot(g, resample(x, maps)), rtol=1e-12)


def test_what_is_not_used_does_not_matter() -> None:
    """A weight of zero would make NaN of an infinity."""
    along = LinearMap((2, 3), np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([1.0, 2.0, 3.0]))
    x = np.array([[1.0, 2.0, np.inf]])
    np.testing.assert_array_equal(resample(x, (along,)), [[1.0, 8.0]])


def test_dtypes_stay() -> None:
    rng = np.random.default_rng(1)
    for dtype in (np.float16, np.float32, np.float64):
        assert resample(np.ones((1, 3), dtype), (random_map(rng, 4, 3, 9),)).dtype == dtype
    for dtype in (np.bool_, np.uint8, np.int64):
        gathered = resample(np.array([[1, 0, 1]], dtype), (LinearMap((2, 3), np.array([0, 1]), np.array([2, 1])),))
        assert gathered.dtype == dtype and gathered.tolist() == [[1, 0]]


def test_nothing_in_nothing_out() -> None:
    along = LinearMap((2, 3), np.array([0, 1]), np.array([2, 1]))
    assert resample(np.ones((0, 2, 3)), (along,)).shape == (0, 2, 2)
    assert resample(np.ones((2, 3)), (LinearMap((0, 3), np.zeros(0, int), np.zeros(0, int)),)).shape == (2, 0)
    np.testing.assert_array_equal(
        resample(np.ones((1, 0)), (LinearMap((2, 0), np.zeros(0, int), np.zeros(0, int)),)), [[0, 0]]
    )

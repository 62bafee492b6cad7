from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels import scatter
from distgrad.kernels.scatter import add_at, add_at_reference, add_rows, add_rows_reference, are_distinct

DTYPES = ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    return rng.integers(0, 5, shape).astype(dtype)


def test_are_distinct() -> None:
    assert are_distinct(np.array([2, 0, 1]), 3) and are_distinct(np.array([], int), 0)
    assert not are_distinct(np.array([0, 0]), 3)
    assert not are_distinct(np.array([0, 1, 0, 1]), 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [0, 1, 3, 192, 193])
@pytest.mark.parametrize("places", [[], [2, 0, 1], [1, 1, 1, 0, 1], [3, 3]])
def test_add_rows(width: int, places: list[int], dtype: str) -> None:
    rng = np.random.default_rng(0)
    out, rows, where = drawn(rng, (4, width), dtype), drawn(rng, (len(places), width), dtype), np.array(places, int)
    expected = out.copy()
    add_rows_reference(expected, where, rows)
    add_rows(out, where, rows)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, expected)


def test_add_rows_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scatter, "_CHUNK", 7)
    rng = np.random.default_rng(0)
    out, rows, where = np.zeros((5, 3)), rng.standard_normal((40, 3)), rng.integers(0, 5, 40)
    expected = out.copy()
    add_rows_reference(expected, where, rows)
    add_rows(out, where, rows)
    np.testing.assert_array_equal(out, expected)


ALL = slice(None)
PLACES, OTHERS = np.array([1, 0, 1]), np.array([2, 2, 2])
CASES = {
    "first": (PLACES,),
    "last": (ALL, ALL, OTHERS),
    "middle": (ALL, PLACES),
    "two": (PLACES, OTHERS),
    "two at the end": (ALL, PLACES, OTHERS),
    "apart": (PLACES, ALL, OTHERS),
    "broadcast": (PLACES[:, None], OTHERS),
    "broadcast and apart": (ALL, np.array([[0], [1]]), ALL, np.array([[0, 1, 1]])),
    "matrix": (ALL, np.array([[0, 1], [1, 1]])),
    "all": (PLACES, PLACES, PLACES, PLACES),
    "none": (ALL, np.zeros((0, 2), int)),
}


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_add_at(case: str, based: bool, layout: Any) -> None:
    rng = np.random.default_rng(0)
    shape, index = (2, 3, 4, 2), CASES[case]
    values = rng.standard_normal(np.zeros(shape)[index].shape)
    base = np.asarray(rng.standard_normal(shape), order=layout) if based else None
    before = None if base is None else base.copy()
    out = add_at(shape, index, np.asarray(values, order=layout), base)
    np.testing.assert_allclose(out, add_at_reference(shape, index, values, base), rtol=1e-14, atol=1e-15)
    assert out.flags.c_contiguous
    if base is not None:
        np.testing.assert_array_equal(base, before)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing_to_add(shape: tuple[int, int]) -> None:
    index = np.zeros(0 if shape[0] == 0 else 2, int)
    out = add_at(shape, (index,), np.zeros((index.size, shape[1])))
    assert out.shape == shape and not out.any()

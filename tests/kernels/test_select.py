"""Choosing on bits against Python's own choice: every dtype, shape and memory layout, and values with odd bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels.select import select, select_reference

DTYPES = ("bool", "uint8", "int16", "int32", "int64", "float16", "float32", "float64")
# beyond and below the size from which the detour over bits is taken
SHAPES = [((80, 60), (80, 60), (80, 60)), ((80, 60), (60,), (80, 1)), ((80, 60), (), (60,)), ((5000, 1), (5000, 3), ())]
SHAPES += [((4, 3), (4, 3), (4, 3)), ((), (), ()), ((0, 3), (3,), ()), ((80, 60), (), ()), ((5000,), (2, 1), (2, 5000))]


def values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Any:
    array = np.asarray(rng.integers(-100, 100, shape)).astype(dtype)
    if array.dtype.kind == "f" and array.size:
        flat = array.reshape(-1)
        flat[rng.integers(0, flat.size, 1 + flat.size // 3)] = np.nan
        flat[rng.integers(0, flat.size, 1 + flat.size // 3)] = -0.0
        flat[rng.integers(0, flat.size, 1 + flat.size // 3)] = -np.inf
    return array


def same(actual: Any, expected: Any) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert np.ascontiguousarray(actual).tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_select(dtype: str, shapes: Any) -> None:
    rng = np.random.default_rng(0)
    condition = np.asarray(rng.random(shapes[0]) < 0.5)
    a, b = values(rng, dtype, shapes[1]), values(rng, dtype, shapes[2])
    before = a.tobytes(), b.tobytes(), condition.tobytes()
    same(select(condition, a, b), select_reference(condition, a, b))
    assert (a.tobytes(), b.tobytes(), condition.tobytes()) == before
    for number in (0.0, -0.0, 0, 2.5, np.inf):
        if a.dtype.kind == "f":
            same(select(condition, a, number), select_reference(condition, a, number))
            same(select(condition, number, b), select_reference(condition, number, b))


@pytest.mark.parametrize("size", [50, 80])
def test_memory_layouts(size: int) -> None:
    rng = np.random.default_rng(1)
    wide = [np.asarray(rng.standard_normal((2 * size, size))) for _ in range(2)]
    mask = rng.random((2 * size, size)) < 0.5
    a, b, condition = (x[::2, ::-1].T for x in (*wide, mask))
    same(select(condition, a, b), select_reference(condition, a, b))
    same(select(condition, a, 0.0), select_reference(condition, a, 0.0))
    same(select(condition, 0.0, np.broadcast_to(b[:1], b.shape)), select_reference(condition, 0.0, b[:1]))
    result = select(condition, np.broadcast_to(1.0, a.shape), 0.0)
    assert result.flags.writeable
    same(result, select_reference(condition, 1.0, 0.0))


def test_dtypes_of_two_operands() -> None:
    condition = np.arange(5000) % 3 == 0
    a = np.arange(5000, dtype=np.float32)
    assert select(condition, a, np.zeros(5000)).dtype == np.float64
    assert select(condition, a, np.float64(1)).dtype == np.float64
    assert select(condition, a, 1.5).dtype == np.float32
    assert select(condition, a.astype(np.int16), 3).dtype == np.int16

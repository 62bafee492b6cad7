"""The pool of a plan: nothing is given out twice, everything comes back."""

from __future__ import annotations

import gc
import itertools
import threading
from typing import Any

import numpy as np
import pytest

from distgrad.compiler.memory import Pool


def _span(array: Any) -> tuple[int, int]:
    return array.ctypes.data, array.ctypes.data + max(array.nbytes, 1)


def test_arrays_are_apart_and_aligned() -> None:
    pool = Pool()
    shapes = [(3, 5), (1,), (), (0, 4), (1000, 7), (2, 3, 4, 5)]
    arrays = [pool.empty(shape, dtype) for shape in shapes for dtype in (np.float32, np.float64, np.uint8)]
    for number, array in enumerate(arrays):
        array[...] = number
        assert array.ctypes.data % 64 == 0 and array.flags.c_contiguous and array.flags.writeable
    for number, array in enumerate(arrays):
        assert (array == number).all()
    spans = sorted(_span(array) for array in arrays)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_memory_comes_back_with_the_last_view() -> None:
    pool = Pool()
    array = pool.empty((64, 64), np.float32)
    view = array[3:].T
    address = array.ctypes.data
    del array
    other = pool.empty((64, 64), np.float32)
    assert other.ctypes.data != address
    del view
    assert pool.empty((64, 64), np.float32).ctypes.data == address


def test_neighbours_are_joined() -> None:
    pool = Pool()
    parts: list[Any] = [pool.empty((1 << 20,), np.uint8) for _ in range(6)]
    before = pool.nbytes
    start = min(part.ctypes.data for part in parts)
    for number in (3, 1, 2, 0):
        parts[number] = None
    joined = pool.empty((4 << 20,), np.uint8)
    assert joined.ctypes.data == start and pool.nbytes == before
    pool.empty((1,), np.uint8)
    assert pool.nbytes > before


def test_the_tightest_place_is_taken() -> None:
    pool = Pool()
    parts: list[Any] = [pool.empty((size,), np.uint8) for size in (6400, 64, 640, 64)]
    small = parts[2].ctypes.data
    parts[0] = parts[2] = None
    assert pool.empty((640,), np.uint8).ctypes.data == small


def test_a_repeated_run_needs_no_more() -> None:
    pool = Pool()
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 1 << 22, 60)

    def run() -> None:
        alive: list[Any] = []
        for number, size in enumerate(sizes):
            alive.append(pool.empty((int(size),), np.uint8))
            if number % 3:
                alive.pop(number % len(alive))

    run()
    first = pool.nbytes
    for _ in range(5):
        run()
    assert pool.nbytes == first


def test_trim_gives_back_what_nobody_uses() -> None:
    pool = Pool()
    array = pool.empty((5,), np.float32)
    pool.trim()
    assert pool.nbytes > 0
    array[...] = 1
    del array
    gc.collect()
    pool.trim()
    assert pool.nbytes == 0
    assert pool.empty_hwnc((2, 3, 4, 5), np.float32).shape == (2, 3, 4, 5)


def test_arrays_outlive_the_pool() -> None:
    array = Pool().empty((1000,), np.float64)
    array[...] = 7
    gc.collect()
    assert (array == 7).all()


@pytest.mark.timeout(60)
def test_threads() -> None:
    pool = Pool()
    wrong: list[int] = []

    def work(number: int) -> None:
        generator = np.random.default_rng(number)
        for _ in range(300):
            arrays = [pool.empty((int(n),), np.int64) for n in generator.integers(1, 5000, 4)]
            for array in arrays:
                array[...] = number
            if not all((array == number).all() for array in arrays):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

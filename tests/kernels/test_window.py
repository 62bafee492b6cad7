from __future__ import annotations

import itertools

import pytest

from distgrad.kernels.window import overlap, window_count


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_window_count_is_the_number_of_windows_that_fit(ceil_mode: bool) -> None:
    for size, k, s, p, d in itertools.product(range(1, 12), range(1, 5), range(1, 5), range(3), range(1, 4)):
        extent = d * (k - 1) + 1
        if size + 2 * p < extent or 2 * p > extent:
            continue
        starts = itertools.count(-p, s)
        whole = len(list(itertools.takewhile(lambda start: start + extent <= size + p, starts)))  # noqa: B023
        covers_all = (whole - 1) * s + extent >= size + 2 * p
        one_more = ceil_mode and not covers_all and whole * s - p < size
        assert window_count(size, k, s, p, d, ceil_mode) == whole + one_more


def test_overlap_lists_exactly_the_positions_inside() -> None:
    for count, start, step, size in itertools.product(range(5), range(-9, 10), range(1, 4), range(7)):
        which, where = overlap(count, start, step, size)
        expected = [i for i in range(count) if 0 <= start + i * step < size]
        assert list(range(count))[which] == expected
        assert list(range(size))[where] == [start + i * step for i in expected]

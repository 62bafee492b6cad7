"""Sums without rounding: against fractions, for any order, any magnitude and any way of sharing out."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distgrad.metrics import ExactSum
from distgrad.metrics.exact_sum import quotient

finite = st.floats(allow_nan=False, allow_infinity=False)


def nearest(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@given(st.lists(finite, max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_sum_is_the_exact_one_rounded_once(values: list[float]) -> None:
    total = ExactSum()
    total.add(values)
    assert float(total.value()) == nearest(sum(map(Fraction, values), Fraction(0)))


@given(st.lists(st.tuples(finite, finite), max_size=20))
@settings(max_examples=60, deadline=None)
def test_products_are_exact_down_to_the_smallest_numbers(pairs: list[tuple[float, float]]) -> None:
    total = ExactSum()
    total.add_products([a for a, _ in pairs], [b for _, b in pairs])
    assert total.is_finite()
    exact = sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))
    assert total.integers() == [exact * 2**2400]
    assert float(total.value()) == nearest(exact)


@given(finite, finite)
@settings(max_examples=60, deadline=None)
def test_one_number_is_as_many(a: float, b: float) -> None:
    one, many = ExactSum(), ExactSum()
    one.add(a)
    one.add_products(a, b)
    many.add([a, 0.0])
    many.add_products([a, 0.0], [b, 0.0])
    assert one.integers() == many.integers()


def test_what_rounding_would_lose_is_there() -> None:
    values = np.array([1e308, 1.0, 5e-324, -1e308, 1e308, -1e308])
    total = ExactSum()
    total.add(values)
    assert float(total.value()) == 1.0
    total.add(-1.0)
    assert float(total.value()) == 5e-324


def test_more_elements_than_a_piece() -> None:
    values = np.random.default_rng(0).standard_normal((300_001, 2))
    total = ExactSum((2,))
    total.add(values)
    assert total.value().tolist() == [math.fsum(column) for column in values.T]
    ones = ExactSum()
    ones.add(np.full(1 << 20, 1 - 2.0**-53))  # all bits of all parts
    assert float(ones.value()) == math.fsum([1 - 2.0**-53] * (1 << 20))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.int64, np.bool_])
def test_other_dtypes_are_taken_as_float64(dtype: type) -> None:
    values = np.arange(7).astype(dtype)
    total = ExactSum()
    total.add(values)
    assert float(total.value()) == values.astype(np.float64).sum()


def test_infinities_and_nan_are_those_of_ieee() -> None:
    total = ExactSum((4,))
    total.add([[1.0, math.inf, math.inf, math.nan], [2.0, 3.0, -math.inf, 1.0]])
    np.testing.assert_array_equal(total.value(), [3.0, math.inf, math.nan, math.nan])
    assert total.is_finite().tolist() == [True, False, False, False]
    products = ExactSum((3,))
    products.add_products([[math.inf, 2.0, math.inf]], [[-1.0, 3.0, 0.0]])
    np.testing.assert_array_equal(products.value(), [-math.inf, 6.0, math.nan])


def test_merging_and_order_change_nothing() -> None:
    generator = np.random.default_rng(1)
    values = generator.standard_normal(1000) * 10.0 ** generator.integers(-200, 200, 1000)
    whole = ExactSum()
    whole.add(values)
    merged = ExactSum()
    for part in np.array_split(generator.permutation(values), 7):
        other = ExactSum()
        other.add(part)
        merged.merge(other)
    assert merged.integers() == whole.integers()


def test_the_state_survives_json() -> None:
    total = ExactSum((3,))
    total.add([[-1.5, 1e-310, 1e300], [math.inf, 0.0, 1.0]])
    total.add_count(3)
    again = ExactSum((3,))
    again.load_state_dict(json.loads(json.dumps(total.state_dict())))
    assert again.integers() == total.integers()
    np.testing.assert_array_equal(again.value(), total.value())
    with pytest.raises(ValueError, match=r"3 sums do not fit into an ExactSum of shape \(2,\)"):
        ExactSum((2,)).load_state_dict(total.state_dict())


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values \(\.\.\., \*\(2,\)\), not \(3,\)"):
        ExactSum((2,)).add(np.zeros(3))
    empty = ExactSum((2,))
    empty.add(np.zeros((0, 2)))
    assert empty.value().tolist() == [0, 0]


def test_quotients_at_the_edges() -> None:
    assert math.isnan(quotient(1, 0))
    assert quotient(1 << 5000, 1) == math.inf and quotient(-(1 << 5000), 1) == -math.inf
    assert quotient(1, 3) == 1 / 3

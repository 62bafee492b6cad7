"""Running results and differences, in every dtype, and derivatives of products with zeros."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck, gradgradcheck

NAN, INF = math.nan, math.inf


@pytest.mark.parity
def test_places_at_ties_and_nan_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for values in ([1.0, 3.0, 3.0, 2.0, NAN, 5.0, NAN, 7.0], [1.0, 1.0, 0.0, NAN, 5.0, NAN, -7.0]):
        for name in ("cummax", "cummin"):
            mine, theirs = (getattr(t, name)(t.tensor(values), 0).indices.tolist() for t in (dg, torch))
            assert mine == theirs


@pytest.mark.parametrize("zeros", [(), (0,), (3,), (1, 2), (0, 1, 2, 3)])
def test_products_with_zeros_can_be_differentiated_again(zeros: tuple[int, ...]) -> None:
    x = np.array([1.5, -0.5, 2.0, 0.75])
    x[list(zeros)] = 0.0
    leaf = dg.tensor(x, requires_grad=True)
    for function in (lambda v: v.prod(), lambda v: v.cumprod(0), lambda v: dg.stack([v, v]).prod(1)):
        assert gradcheck(function, leaf) and gradgradcheck(function, leaf)

        def slope(v: Any, function: Any = function) -> Any:
            (first,) = dg.autograd.grad(function(v).sum(), v, create_graph=True)
            return first

        # The third derivative; a difference of quotients loses digits next to a zero.
        assert gradgradcheck(slope, leaf, atol=1e-3)


def test_dtypes_of_scans() -> None:
    for name in ("cumsum", "cumprod"):
        for dtype in (dg.bool, dg.uint8, dg.int32):
            assert getattr(dg.ones(2, dtype=dtype), name)(0).dtype == dg.int64
        for dtype in (dg.float16, dg.float32, dg.float64):
            assert getattr(dg.ones(2, dtype=dtype), name)(0).dtype == dtype
        assert getattr(dg.ones(2), name)(0, dtype=dg.float64).dtype == dg.float64
    for dtype in (dg.bool, dg.uint8, dg.int64, dg.float16):
        values, indices = dg.tensor([1, 0, 1]).to(dtype).cummax(0)
        assert values.dtype == dtype and indices.dtype == dg.int64 and indices.tolist() == [0, 0, 2]
    assert dg.ones(2, dtype=dg.float16).logcumsumexp(0).dtype == dg.float16


def test_in_place_forms() -> None:
    x = dg.tensor([1.0, 2.0, 3.0])
    assert x.cumsum_(0) is x and x.tolist() == [1.0, 3.0, 6.0]
    assert x.cumprod_(0) is x and x.tolist() == [1.0, 3.0, 18.0]
    y = dg.tensor([[3.0, 4.0], [0.3, 0.4]])
    assert y.renorm_(2, 0, 1.0) is y
    np.testing.assert_allclose(y.numpy(), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)


def test_results_lie_in_order() -> None:
    x = dg.tensor(np.arange(6.0).reshape(2, 3).T, requires_grad=True)
    for dim in (0, 1):
        (slope,) = dg.autograd.grad(x.cumsum(dim).sum(), x, create_graph=True)
        assert slope.numpy().strides[0] > 0 if not slope.requires_grad else slope.detach().numpy().strides[0] > 0


def test_long_sums_are_exact() -> None:
    x = np.random.default_rng(0).random(100_000).astype(np.float32)
    exact = np.cumsum(x.astype(np.float64))
    np.testing.assert_allclose(dg.tensor(x).cumsum(0).numpy(), exact, rtol=1e-7)


# Differences ---------------------------------------------------------------------------------------------------------


def test_dtypes_of_integrals() -> None:
    for dtype in (dg.uint8, dg.int64):
        assert dg.trapezoid(dg.ones(3, dtype=dtype)).dtype == dg.float32
        assert dg.cumulative_trapezoid(dg.ones(3, dtype=dtype)).tolist() == [1.0, 2.0]
    assert dg.trapezoid(dg.tensor([0, 1]), dg.tensor([0, 3])).item() == 1.5
    for dtype in (dg.float16, dg.float64):
        assert dg.trapezoid(dg.ones(3, dtype=dtype)).dtype == dtype
    assert dg.ones(3).diff(prepend=dg.ones(1, dtype=dg.float64)).dtype == dg.float64
    assert dg.tensor([3, 1], dtype=dg.uint8).diff().tolist() == [254]


def test_no_difference_is_a_copy() -> None:
    x = dg.tensor([1.0, 2.0])
    y = x.diff(0)
    y.fill_(0.0)
    assert x.tolist() == [1.0, 2.0]

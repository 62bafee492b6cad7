"""The special functions to the last digits of float64, left of 0 too, and at their poles and ends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import special as reference

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.ops import special


def values(name: str, x: Any, *first: int) -> Any:
    return getattr(special, name)(*first, Tensor(np.asarray(x, np.float64))).numpy()


def right() -> Any:
    rng = np.random.default_rng(5)
    beside = [at + step for at in (1.0, 2.0) for step in (1e-12, -1e-12, 1e-7, -1e-7)]
    joints = [0.5, 1.5, 2.5, 9.999999, 10.0, 1e-5, 40.0]
    drawn = [rng.uniform(0, 3, 4000), rng.uniform(0, 20, 2000), 10 ** rng.uniform(-9, 200, 500)]
    return np.concatenate([*drawn, beside, joints])


def left() -> Any:
    rng = np.random.default_rng(6)
    x = -np.concatenate([rng.uniform(0, 3, 2000), rng.uniform(0, 60, 1000), 10 ** rng.uniform(-9, 4, 300)])
    return x[np.abs(x - np.rint(x)) > 1e-9]


def cotangent(x: Any) -> Any:
    return 1 / np.tan(np.pi * (x - np.rint(x)))


def test_lgamma_in_float64() -> None:
    # beside its zeros scipy loses digits, and left of 0 every function in float64 does
    for x in (right(), left()):
        expected = reference.gammaln(x)
        assert (np.abs(values("lgamma", x) - expected) <= 1e-15 * np.maximum(np.abs(expected), 1)).all()


@pytest.mark.parametrize("zero", [1.0, 2.0])
def test_lgamma_keeps_its_digits_beside_its_zeros(zero: float) -> None:
    for step in (1e-12, -1e-12, 1e-7, -1e-7, 0.04, -0.04):
        distance = (zero + step) - zero
        # the Taylor series, with the derivatives that polygamma gives
        terms = [(-1) ** k * reference.zeta(k, zero) * distance**k / k for k in range(2, 20)]
        expected = math.fsum([float(reference.digamma(zero)) * distance, *terms])
        assert values("lgamma", zero + step).item() == pytest.approx(expected, rel=1e-14)


def test_digamma_in_float64() -> None:
    x = right()
    expected = reference.digamma(x)
    assert (np.abs(values("digamma", x) - expected) <= 1e-14 * np.abs(expected)).all()
    x = left()
    expected = reference.digamma(1 - x) - np.pi * cotangent(x)
    assert (np.abs(values("digamma", x) - expected) <= 2e-13 * np.maximum(np.abs(expected), 1)).all()


def test_digamma_keeps_its_digits_beside_its_zero() -> None:
    zero = 1.4616321449683623
    # the derivative there is trigamma(zero); the zero itself lies 9.55e-17 beyond
    for step in (1e-12, -1e-12, 1e-9, 3e-5, -0.2, 0.2):
        x = zero + step
        distance = (x - zero) - 9.549995429965697e-17
        expected = sum((-1) ** (k + 1) * reference.zeta(k + 1, zero) * distance**k for k in range(1, 40))
        assert values("digamma", x).item() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 12, 20])
def test_polygamma_in_float64(n: int) -> None:
    x = right()
    x = x[(x > 10 ** (-250 / (n + 1))) & (x < 10 ** (250 / (n + 1)))]
    expected = (-1) ** (n + 1) * math.factorial(n) * reference.zeta(n + 1, x)
    assert (np.abs(values("polygamma", x, n) - expected) <= 2e-14 * np.abs(expected)).all()


def test_polygamma_left_of_zero() -> None:
    x = left()[:1500]
    c = cotangent(x)
    derivatives = (-np.pi, 2 * np.pi**2 * c, -2 * np.pi**3 * (1 + 3 * c**2))
    for n, derivative in enumerate(derivatives, 1):
        derivative = derivative * (1 + c**2)
        expected = (-1) ** n * (-1) ** (n + 1) * math.factorial(n) * reference.zeta(n + 1, 1 - x) - np.pi * derivative
        np.testing.assert_allclose(values("polygamma", x, n), expected, rtol=2e-12, atol=2e-12)


def test_polygamma_of_large_order() -> None:
    assert values("polygamma", 1.0, 150).item() == pytest.approx(-math.factorial(150), rel=1e-13)
    assert values("polygamma", 0.5, 200).item() == -math.inf
    assert values("polygamma", [4.0], 0).tolist() == values("digamma", [4.0]).tolist()


def test_erfinv_in_float64() -> None:
    rng = np.random.default_rng(7)
    drawn = [rng.uniform(-1, 1, 4000), 1 - 10 ** rng.uniform(-16, -1, 500), 10 ** rng.uniform(-300, -1, 200)]
    y = np.concatenate([*drawn, [0.5, -0.5, np.nextafter(1, 0)]])
    y = y[np.abs(y) < 1]
    np.testing.assert_allclose(values("erfinv", y), reference.erfinv(y), rtol=2e-15)
    assert values("erfinv", [0.0, -0.0, 1.0, -1.0]).tolist() == [0.0, 0.0, math.inf, -math.inf]
    assert np.signbit(values("erfinv", [-0.0]))[0]
    assert np.isnan(values("erfinv", [1.5, -2.0, math.nan])).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_low_precision(dtype: Any) -> None:
    x = np.linspace(0.1, 8, 500).astype(dtype)
    for name, function in (("lgamma", reference.gammaln), ("digamma", reference.digamma)):
        out = getattr(special, name)(Tensor(x))
        assert out.dtype == dtype
        np.testing.assert_allclose(out.numpy(), function(x.astype(np.float64)), rtol=np.finfo(dtype).eps)
    y = np.linspace(-0.99, 0.99, 99).astype(dtype)
    expected = reference.erfinv(y.astype(np.float64))
    np.testing.assert_allclose(special.erfinv(Tensor(y)).numpy(), expected, rtol=np.finfo(dtype).eps)


def test_the_ends_of_the_gamma_function() -> None:
    x = [0.0, -0.0, -1.0, -2.0, math.inf, -math.inf, math.nan, 1.0, 2.0, 1e308]
    inf, nan = math.inf, math.nan
    np.testing.assert_array_equal(values("lgamma", x), [inf, inf, inf, inf, inf, inf, nan, 0, 0, inf])
    np.testing.assert_array_equal(values("digamma", x[:7]), [-inf, inf, nan, nan, inf, nan, nan])
    np.testing.assert_array_equal(values("polygamma", x[:7], 1), [inf, inf, inf, inf, 0, nan, nan])
    np.testing.assert_array_equal(values("polygamma", x[:7], 2), [-inf, -inf, -inf, -inf, 0, nan, nan])
    assert values("lgamma", 1e-310).item() == pytest.approx(-math.log(1e-310), rel=1e-15)


def test_polygamma_of_integers() -> None:
    assert special.polygamma(1, dg.tensor([1, 2])).dtype == dg.float32
    assert special.polygamma(np.int64(1), dg.tensor([1.0], dtype=dg.float64)).item() == pytest.approx(math.pi**2 / 6)


def test_derivatives_run_through_the_family() -> None:
    x = Tensor(np.array([0.7, 2.3, 5.0]), requires_grad=True)
    out = special.lgamma(x)
    for _ in range(4):
        (out,) = dg.autograd.grad(out.sum(), x, create_graph=True)
    expected = 6 * reference.zeta(4, x.detach().numpy())
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-13)

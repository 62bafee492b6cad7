"""The error function and the gamma function, with what belongs to each, to the last digits of float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels import erf as kernels
from .elementwise import _check_tensor, _exp, _unary
from .promotion import promoted

__all__ = [  # what distgrad itself offers
    "digamma",
    "erf",
    "erfc",
    "erfinv",
    "lgamma",
    "polygamma",
]
METHODS = "digamma erf erfc erfinv lgamma".split()  # what a Tensor offers
IN_PLACE = "digamma erf erfc erfinv lgamma".split()  # of these, what also exists as NAME_

# The error function -------------------------------------------------------------------------------------------------

_erf: Primitive = define(
    "Erf",
    kernels.erf,
    ("input",),
    input=lambda g, input: g * (2 / math.sqrt(math.pi) * _exp(-(input * input))),
)
_erfc: Primitive = define(
    "Erfc",
    kernels.erfc,
    ("input",),
    input=lambda g, input: g * (-2 / math.sqrt(math.pi) * _exp(-(input * input))),
)


def _erfinv_forward(input: Any) -> Any:
    """A closed formula good to 0.2 per cent, then three steps of Halley's method, each of which cubes the error."""
    y = np.asarray(input, np.float64)
    size = np.abs(y)
    with np.errstate(all="ignore"):
        # S. Winitzki, "A handy approximation for the error function and its inverse" (2008)
        logarithm = np.log1p(-size) + np.log1p(size)
        half = 2 / (math.pi * 0.147) + logarithm / 2
        x = np.sqrt(-logarithm / 0.147 / (np.sqrt(half * half - logarithm / 0.147) + half))
        for _ in range(3):
            # from the nearer end: 1 - y is exact from 1/2 on, and erfc keeps the digits that 1 - erf loses
            rest = np.where(size < 0.5, kernels.erf(x) - size, (1 - size) - kernels.erfc(x))
            step = rest * (math.sqrt(math.pi) / 2) * np.exp(x * x)
            x = np.where(np.isfinite(step), x - step / (1 + x * step), x)
    x = np.where(size < 1, x, np.where(size == 1, np.inf, np.nan))
    return np.copysign(x, y).astype(input.dtype)


_erfinv: Primitive = define(
    "Erfinv",
    _erfinv_forward,
    ("input",),
    input=lambda g, input: g * (math.sqrt(math.pi) / 2 * _exp(_erfinv(input) ** 2)),
)

# The gamma function -------------------------------------------------------------------------------------------------

_EULER = 0.57721566490153286
# the even Bernoulli numbers, from B2 on
_BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330, 854513 / 138,
    -236364091 / 2730,
)  # fmt: skip
# where digamma is 0, in two parts, of which the second is what float64 cannot hold of the first
_ROOT = (1.4616321449683623, 9.549995429965697e-17)


def _hurwitz(s: int, q: Any) -> Any:
    """The sum of (q + k)**-s over k = 0, 1, ... for an integer s > 1 and q > 0, by the Euler-Maclaurin formula."""
    total: Any = 0.0
    # the terms of the formula fall fast once q is not smaller than s
    for _ in range(max(10, s)):
        early = q < max(10, s)
        total = total + early * q ** float(-s)
        q = q + early
    power = q ** float(1 - s)
    total = total + power / (s - 1) + power / q / 2
    factor = power / q
    for k, bernoulli in enumerate(_BERNOULLI, 1):
        factor = factor * (s + 2 * k - 2) / q * ((s + 2 * k - 3) / q if k > 1 else 1.0) / ((2 * k) * (2 * k - 1))
        total = total + bernoulli * factor
    return total


def _horner(coefficients: Sequence[float], x: Any) -> Any:
    """The polynomial with these coefficients, from the highest power down to the first, and 0 for the constant."""
    out = x * coefficients[0]
    for coefficient in coefficients[1:]:
        out = (out + coefficient) * x
    return out


@functools.cache
def _series_at_2() -> list[float]:
    """Of lgamma(2 + z), which converges where |z| < 2 (Abramowitz and Stegun, 6.1.33)."""
    return [(-1) ** k * _hurwitz(k, 2.0) / k for k in range(26, 1, -1)] + [1 - _EULER]


@functools.cache
def _series_at_root() -> list[float]:
    """Of digamma(root + z), which converges where |z| < root."""
    return [(-1) ** (k + 1) * _hurwitz(k + 1, _ROOT[0]) for k in range(24, 0, -1)]


def _to_nearest_integer(x: Any) -> Any:
    """The signed distance, exact; sine and tangent of pi times it are those of pi * x up to their sign."""
    return x - np.rint(x)


def _lgamma_positive(x: Any) -> Any:
    out = np.empty_like(x)
    far = x >= 10
    y = x[far]
    inverse = 1 / y
    series = _horner([b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI[:8], 1)][::-1], inverse * inverse)
    out[far] = (y - 0.5) * (np.log(y) - 1) - 0.5 + math.log(2 * math.pi) / 2 + series * y
    y = x[~far]
    # lgamma(2 + z) with |z| <= 1/2 and the factors that lie between; zeros of lgamma at 1 and 2 keep all their digits
    steps = np.maximum(np.floor(y - 1.5), -2)
    z = y - (steps + 2)
    product = np.ones_like(y)
    for k in range(1, 9):
        product *= np.where(k <= steps, y - k, 1)
    value = _horner(_series_at_2(), z) + np.log(product)
    value -= np.where(steps < 0, np.log1p(z), 0)
    value -= np.where(steps < -1, np.log(z), 0)
    out[~far] = value
    return out


def _digamma_positive(x: Any) -> Any:
    total = np.zeros_like(x)
    y = x
    for _ in range(10):
        early = y < 10
        total -= early / y
        y = y + early
    inverse = 1 / y
    series = _horner([b / (2 * k) for k, b in enumerate(_BERNOULLI[:8], 1)][::-1], inverse * inverse)
    out = total + np.log(y) - inverse / 2 - series
    near = np.abs(x - _ROOT[0]) < 0.25
    out[near] = _horner(_series_at_root(), (x[near] - _ROOT[0]) - _ROOT[1])
    return out


def _polygamma_positive(x: Any, n: int) -> Any:
    factorial = float(math.factorial(n)) if n <= 170 else math.inf
    return (-1) ** (n + 1) * factorial * _hurwitz(n + 1, x)


def _cotangent_derivative(x: Any, n: int) -> Any:
    """The n-th derivative of cot(pi x), which is a polynomial of cot(pi x)."""
    polynomial = np.polynomial.Polynomial([0, 1])
    for _ in range(n):
        polynomial = -math.pi * polynomial.deriv() * np.polynomial.Polynomial([1, 0, 1])
    return polynomial(1 / np.tan(math.pi * _to_nearest_integer(x)))


def _by_reflection(input: Any, right: Callable[[Any], Any], left: Callable[[Any], Any]) -> Any:
    """``right(x)`` where x > 0, ``left(x)`` where x < 0; NaN at 0 and of NaN. Computed in float64."""
    x = np.asarray(input, np.float64).reshape(-1)
    out = np.full_like(x, np.nan)
    with np.errstate(all="ignore"):
        for side, function in ((x > 0, right), (x < 0, left)):
            out[side] = function(x[side])
    return out.reshape(np.shape(input))


def _lgamma_forward(input: Any) -> Any:
    def left(x: Any) -> Any:
        sine = np.abs(np.sin(math.pi * _to_nearest_integer(x)))
        return math.log(math.pi) - np.log(-x) - np.log(sine) - _lgamma_positive(-x)

    out = _by_reflection(input, _lgamma_positive, left)
    # at the poles, and far out on either side
    infinite = (input == 0) | np.isinf(input) | ((input < 0) & (input == np.rint(input)))
    return np.where(infinite, np.inf, out).astype(input.dtype)


def _digamma_forward(input: Any) -> Any:
    def left(x: Any) -> Any:
        to_pole = _to_nearest_integer(x)
        return np.where(to_pole == 0, np.nan, _digamma_positive(1 - x) - math.pi / np.tan(math.pi * to_pole))

    out = _by_reflection(input, _digamma_positive, left)
    return np.where(input == 0, np.copysign(np.inf, -input), out).astype(input.dtype)


def _polygamma_forward(input: Any, n: int) -> Any:
    if n == 0:
        return _digamma_forward(input)

    def left(x: Any) -> Any:
        return (-1) ** n * _polygamma_positive(1 - x, n) - math.pi * _cotangent_derivative(x, n)

    out = _by_reflection(input, lambda x: _polygamma_positive(x, n), left)
    pole = (input <= 0) & (input == np.rint(input)) & np.isfinite(input)
    return np.where(pole, (-1) ** (n + 1) * np.inf, out).astype(input.dtype)


_polygamma: Primitive = define(
    "Polygamma", _polygamma_forward, ("input",), input=lambda g, input, n: g * _polygamma(input, n=n + 1)
)
_digamma: Primitive = define("Digamma", _digamma_forward, ("input",), input=lambda g, input: g * _polygamma(input, n=1))
_lgamma: Primitive = define("Lgamma", _lgamma_forward, ("input",), input=lambda g, input: g * _digamma(input))

# Public functions ---------------------------------------------------------------------------------------------------


def erf(input: Tensor) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to ``input``."""
    return _unary(_erf, input)


def erfc(input: Tensor) -> Tensor:
    """1 - erf(input), exact also where that is tiny."""
    return _unary(_erfc, input)


def erfinv(input: Tensor) -> Tensor:
    """The number whose ``erf`` is ``input``; infinite at -1 and 1, NaN beyond."""
    return _unary(_erfinv, input)


def lgamma(input: Tensor) -> Tensor:
    """The logarithm of the magnitude of the gamma function; infinite at 0, -1, -2, ..."""
    return _unary(_lgamma, input)


def digamma(input: Tensor) -> Tensor:
    """The derivative of ``lgamma``; NaN at -1, -2, ..., and infinite at 0."""
    return _unary(_digamma, input)


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of ``digamma``.

    Args:
        n: which, from 0 on.
        input: any tensor; integers give the default floating-point dtype.
    """
    if not isinstance(n, (int, np.integer)):
        raise TypeError(f"polygamma(): argument 'n' (position 1) must be int, not {type(n).__name__}")
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n, but n is {n}")
    _check_tensor("polygamma", input)
    (input,) = promoted(input, floating=True)
    out: Tensor = _polygamma(input, n=int(n))
    return out

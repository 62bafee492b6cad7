"""Further elementwise functions of analysis: exponentials, logarithms, angles, the error function."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _binary, _exp, _sigmoid, _unary, _where, sum_to
from .promotion import result_type

__all__ = [  # what distgrad itself offers
    "acos",
    "asin",
    "atan",
    "atan2",
    "cosh",
    "erf",
    "erfc",
    "exp2",
    "expm1",
    "hypot",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "reciprocal",
    "rsqrt",
    "sinh",
    "tan",
]
METHODS = (  # what a Tensor offers
    "acos asin atan atan2 cosh erf erfc exp2 expm1 hypot log10 log1p log2 logaddexp reciprocal rsqrt sinh tan"
).split()

# Exponentials and logarithms ----------------------------------------------------------------------------------------

_exp2: Primitive = define("Exp2", np.exp2, ("input",), input=lambda g, output: g * output * math.log(2))
_expm1: Primitive = define("Expm1", np.expm1, ("input",), input=lambda g, output: g * (output + 1.0))
_log1p: Primitive = define("Log1p", np.log1p, ("input",), input=lambda g, input: g / (input + 1.0))
_log2: Primitive = define("Log2", np.log2, ("input",), input=lambda g, input: g / (input * math.log(2)))
_log10: Primitive = define("Log10", np.log10, ("input",), input=lambda g, input: g / (input * math.log(10)))
_logaddexp: Primitive = define(
    "Logaddexp",
    np.logaddexp,
    ("input", "other"),
    input=lambda g, input, other, input_shape: sum_to(g * _sigmoid(input - other), input_shape),
    other=lambda g, input, other, other_shape: sum_to(g * _sigmoid(other - input), other_shape),
)

# Powers -------------------------------------------------------------------------------------------------------------

_rsqrt: Primitive = define(
    "Rsqrt",
    lambda input: 1.0 / np.sqrt(input),
    ("input",),
    input=lambda g, output: g * (-0.5 * output * output * output),
)
_reciprocal: Primitive = define(
    "Reciprocal", lambda input: 1.0 / input, ("input",), input=lambda g, output: -g * (output * output)
)
_hypot: Primitive = define(
    "Hypot",
    np.hypot,
    ("input", "other"),
    input=lambda g, input, output, input_shape: sum_to(g * (input / output), input_shape),
    other=lambda g, other, output, other_shape: sum_to(g * (other / output), other_shape),
)

# Angles and hyperbolic functions ------------------------------------------------------------------------------------

_tan: Primitive = define("Tan", np.tan, ("input",), input=lambda g, output: g * (1.0 + output * output))
# (1 - x) * (1 + x) keeps the digits near the ends of the domain that 1 - x * x cancels
_asin: Primitive = define(
    "Asin", np.arcsin, ("input",), input=lambda g, input: g * _rsqrt((1.0 - input) * (1.0 + input))
)
_acos: Primitive = define(
    "Acos", np.arccos, ("input",), input=lambda g, input: -g * _rsqrt((1.0 - input) * (1.0 + input))
)
_atan: Primitive = define("Atan", np.arctan, ("input",), input=lambda g, input: g / (input * input + 1.0))
_sinh: Primitive = define("Sinh", np.sinh, ("input",), input=lambda g, input: g * _cosh(input))
_cosh: Primitive = define("Cosh", np.cosh, ("input",), input=lambda g, input: g * _sinh(input))


def _over_squared_norm(x: Any, input: Any, other: Any) -> Any:
    """The quotient of x and input**2 + other**2; at the origin that of x and 1, which PyTorch makes 0."""
    norm = _hypot(_where((input == 0) & (other == 0), 1.0, input), other)
    # two divisions: the squares may overflow where the quotient does not
    return x / norm / norm


_atan2: Primitive = define(
    "Atan2",
    np.arctan2,
    ("input", "other"),
    input=lambda g, input, other, input_shape: sum_to(g * _over_squared_norm(other, input, other), input_shape),
    other=lambda g, input, other, other_shape: sum_to(-g * _over_squared_norm(input, input, other), other_shape),
)

# The error function -------------------------------------------------------------------------------------------------

# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969) 631-637, with the
# coefficients of his routine CALERF (netlib, specfun), from the highest power down. Against the C library in float64:
# erf is off by at most 2.3e-16, erfc by less than 1e-15 of its value wherever that is a normal number.
_NEAR = 0.46875
# fmt: off
_ERF_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_ERFC_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
     8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)
_ERFC_FAR = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)
# fmt: on


def _rational(x: Any, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    numerator, denominator = (np.full_like(x, polynomial[0]) for polynomial in coefficients)
    for above, below in zip(*(polynomial[1:] for polynomial in coefficients), strict=True):
        numerator = numerator * x + above
        denominator = denominator * x + below
    return numerator / denominator


def _erf_near(x: Any) -> Any:
    return x * _rational(x * x, _ERF_NEAR)


def _erfc_beyond(y: Any) -> Any:
    """The erfc of ``y`` > 0.46875 (or NaN)."""
    # it is 0 in float64 from 27 on; the limit keeps infinity out of the differences
    y = np.minimum(y, 30)
    middle = y <= 4
    out = np.empty_like(y)
    out[middle] = _rational(y[middle], _ERFC_MIDDLE)
    far = y[~middle]
    inverse = 1 / (far * far)
    out[~middle] = (1 / math.sqrt(math.pi) - inverse * _rational(inverse, _ERFC_FAR)) / far
    # exp(-y * y) with the square of a short number, which is exact, and what is left of it: rounding y * y itself
    # would cost a relative error of y * y ulp
    short = np.trunc(y * 16) / 16
    out *= np.exp(-short * short) * np.exp(-(y - short) * (y + short))
    return out


def _in_regions(input: Any, near: Any, beyond: Any) -> Any:
    """``near(x)`` where |x| <= 0.46875, elsewhere ``beyond(x, erfc(|x|))``; float16 is computed in float32."""
    x = np.asarray(input)
    flat = x.reshape(-1).astype(np.promote_types(x.dtype, np.float32), copy=False)
    close = np.abs(flat) <= _NEAR
    out = np.empty_like(flat)
    out[close] = near(flat[close])
    rest = flat[~close]
    out[~close] = beyond(rest, _erfc_beyond(np.abs(rest)))
    return out.reshape(x.shape).astype(x.dtype, copy=False)


def _erf_forward(input: Any) -> Any:
    return _in_regions(input, _erf_near, lambda x, tail: np.copysign(1 - tail, x))


def _erfc_forward(input: Any) -> Any:
    return _in_regions(input, lambda x: 1 - _erf_near(x), lambda x, tail: np.where(x < 0, 2 - tail, tail))


_erf: Primitive = define(
    "Erf",
    _erf_forward,
    ("input",),
    input=lambda g, input: g * (2 / math.sqrt(math.pi) * _exp(-(input * input))),
)
_erfc: Primitive = define(
    "Erfc",
    _erfc_forward,
    ("input",),
    input=lambda g, input: g * (-2 / math.sqrt(math.pi) * _exp(-(input * input))),
)

# Public functions ---------------------------------------------------------------------------------------------------


def exp2(input: Tensor) -> Tensor:
    """2 to the power of ``input``."""
    return _unary(_exp2, input)


def expm1(input: Tensor) -> Tensor:
    """exp(input) - 1, exact also near 0."""
    return _unary(_expm1, input)


def log1p(input: Tensor) -> Tensor:
    """log(1 + input), exact also near 0."""
    return _unary(_log1p, input)


def log2(input: Tensor) -> Tensor:
    """The logarithm to the base 2."""
    return _unary(_log2, input)


def log10(input: Tensor) -> Tensor:
    """The logarithm to the base 10."""
    return _unary(_log10, input)


def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input)."""
    return _unary(_rsqrt, input)


def reciprocal(input: Tensor) -> Tensor:
    """1 / input; integers give the default floating-point dtype."""
    return _unary(_reciprocal, input)


def tan(input: Tensor) -> Tensor:
    """The tangent, of radians."""
    return _unary(_tan, input)


def asin(input: Tensor) -> Tensor:
    """The angle in [-pi/2, pi/2] whose sine is ``input``; NaN outside [-1, 1]."""
    return _unary(_asin, input)


def acos(input: Tensor) -> Tensor:
    """The angle in [0, pi] whose cosine is ``input``; NaN outside [-1, 1]."""
    return _unary(_acos, input)


def atan(input: Tensor) -> Tensor:
    """The angle in [-pi/2, pi/2] whose tangent is ``input``."""
    return _unary(_atan, input)


def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine."""
    return _unary(_sinh, input)


def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine."""
    return _unary(_cosh, input)


def erf(input: Tensor) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to ``input``."""
    return _unary(_erf, input)


def erfc(input: Tensor) -> Tensor:
    """1 - erf(input), exact also where that is tiny."""
    return _unary(_erfc, input)


def _two_tensors(name: str, input: Any, other: Any, integers: bool = False) -> None:
    for position, (argument, value) in enumerate({"input": input, "other": other}.items(), 1):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}(): argument '{argument}' (position {position}) must be Tensor, not {type(value).__name__}"
            )
    if not integers and (dtype := result_type(input, other)).kind != "f":
        raise RuntimeError(f"{name} is not defined for {dtype} tensors; convert one of them with .float()")


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle in [-pi, pi] of the point with the ordinate ``input`` and the abscissa ``other``; broadcasts."""
    _two_tensors("atan2", input, other, integers=True)
    return _binary(_atan2, input, other, floating=True)


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), without overflow, of floating-point tensors; broadcasts."""
    _two_tensors("logaddexp", input, other)
    return _binary(_logaddexp, input, other)


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(input**2 + other**2), without overflow, of floating-point tensors; broadcasts."""
    _two_tensors("hypot", input, other)
    return _binary(_hypot, input, other)

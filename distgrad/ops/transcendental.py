"""Further elementwise functions of analysis: exponentials, logarithms, angles, the error function."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import (
    _binary,
    _check_tensor,
    _cos,
    _log,
    _sigmoid,
    _sin,
    _two_tensors,
    _unary,
    _where,
    sum_to,
)
from .promotion import cast, get_default_dtype, promoted, result_type

__all__ = [  # what distgrad itself offers
    "acos",
    "acosh",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cosh",
    "deg2rad",
    "exp2",
    "expm1",
    "hypot",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "logit",
    "rad2deg",
    "reciprocal",
    "rsqrt",
    "sinc",
    "sinh",
    "tan",
    "xlogy",
]
METHODS = (  # what a Tensor offers
    "acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh cosh deg2rad exp2 "
    "expm1 hypot log10 log1p log2 logaddexp logaddexp2 logit rad2deg reciprocal rsqrt sinc "
    "sinh tan xlogy"
).split()
IN_PLACE = (  # of these, what also exists as NAME_
    "acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh cosh deg2rad exp2 "
    "expm1 hypot log10 log1p log2 logit rad2deg reciprocal rsqrt sinc sinh tan xlogy"
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
_logaddexp2: Primitive = define(
    "Logaddexp2",
    np.logaddexp2,
    ("input", "other"),
    input=lambda g, input, other, input_shape: sum_to(g * _sigmoid((input - other) * math.log(2)), input_shape),
    other=lambda g, input, other, other_shape: sum_to(g * _sigmoid((other - input) * math.log(2)), other_shape),
)


def _xlogy_forward(input: Any, other: Any) -> Any:
    return np.where((input == 0) & ~np.isnan(other), 0, input * np.log(other))


_xlogy: Primitive = define(
    "Xlogy",
    _xlogy_forward,
    ("input", "other"),
    input=lambda g, input, other, input_shape: sum_to(
        _where((input == 0) & (other <= 0), 0.0, g * _log(other)), input_shape
    ),
    other=lambda g, input, other, other_shape: sum_to(g * (input / other), other_shape),
)


def _logit_forward(input: Any, eps: float | None) -> Any:
    limited = input if eps is None else np.where(input < eps, eps, np.minimum(input, 1 - eps))
    return np.log(limited / (1 - limited))


def _logit_vjp(g: Any, input: Any, eps: float | None) -> Any:
    low, high = (0.0, 1.0) if eps is None else (eps, 1.0 - eps)
    outside = (input < low) | (input > high)
    return _where(outside, math.nan if eps is None else 0.0, g / (input * (1.0 - input)))


_logit: Primitive = define("Logit", _logit_forward, ("input",), input=_logit_vjp)

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

_acosh: Primitive = define(
    "Acosh", np.arccosh, ("input",), input=lambda g, input: g * (_rsqrt(input - 1.0) * _rsqrt(input + 1.0))
)
_asinh: Primitive = define("Asinh", np.arcsinh, ("input",), input=lambda g, input: g / _hypot(input, 1.0))
_atanh: Primitive = define("Atanh", np.arctanh, ("input",), input=lambda g, input: g / ((1.0 - input) * (1.0 + input)))


def _sinc_forward(input: Any) -> Any:
    if input.dtype == np.float16:  # whose pi is off by a thousandth
        return np.sinc(input.astype(np.float32)).astype(np.float16)
    return np.sinc(input)


def _sinc_slope(x: Any) -> Any:
    """The derivative of sin(pi x) / (pi x): by its power series where the quotient would cancel."""
    close = (x > -0.3) & (x < 0.3)
    square = _where(close, x, 0.0) * _where(close, x, 0.0) * math.pi**2
    series = square * 0.0
    for k in range(8, 0, -1):
        series = series * square + (-1) ** k * 2 * k / math.factorial(2 * k + 1)
    away = _where(close, 1.0, x)
    quotient = (_cos(away * math.pi) - _sin(away * math.pi) / (away * math.pi)) / away
    return _where(close, series * (x * math.pi**2), quotient)


# Products with a constant, of which nothing is saved.
_deg2rad, _rad2deg = (
    define(name, lambda input, factor=factor: input * factor, ("input",), input=lambda g, factor: g * factor)
    for name, factor in (("Deg2rad", math.pi / 180), ("Rad2deg", 180 / math.pi))
)
_sinc: Primitive = define("Sinc", _sinc_forward, ("input",), input=lambda g, input: g * _sinc_slope(input))


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


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)), the inverse of ``sigmoid``.

    Args:
        input: probabilities; NaN comes from what is outside [0, 1].
        eps: limits the input to [eps, 1 - eps] first.
    """
    _check_tensor("logit", input)
    (input,) = promoted(input, floating=True)
    out: Tensor = _logit(input, eps=None if eps is None or eps < 0 else float(eps))
    return out


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


def acosh(input: Tensor) -> Tensor:
    """The number that is not negative whose hyperbolic cosine is ``input``; NaN below 1."""
    return _unary(_acosh, input)


def asinh(input: Tensor) -> Tensor:
    """The number whose hyperbolic sine is ``input``."""
    return _unary(_asinh, input)


def atanh(input: Tensor) -> Tensor:
    """The number whose hyperbolic tangent is ``input``; NaN outside [-1, 1]."""
    return _unary(_atanh, input)


arccos, arccosh, arcsin, arcsinh, arctan, arctanh = acos, acosh, asin, asinh, atan, atanh


def deg2rad(input: Tensor) -> Tensor:
    """An angle in degrees, in radians."""
    return _unary(_deg2rad, input)


def rad2deg(input: Tensor) -> Tensor:
    """An angle in radians, in degrees."""
    return _unary(_rad2deg, input)


def sinc(input: Tensor) -> Tensor:
    """sin(pi * input) / (pi * input), 1 at 0."""
    return _unary(_sinc, input)


def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine."""
    return _unary(_sinh, input)


def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine."""
    return _unary(_cosh, input)


def _floats(name: str, input: Any, other: Any) -> None:
    _two_tensors(name, input, other)
    if (dtype := result_type(input, other)).kind != "f":
        raise RuntimeError(f"{name} is not defined for {dtype} tensors; convert one of them with .float()")


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle in [-pi, pi] of the point with the ordinate ``input`` and the abscissa ``other``; broadcasts."""
    _two_tensors("atan2", input, other)
    return _binary(_atan2, input, other, floating=True)


arctan2 = atan2


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), without overflow, of floating-point tensors; broadcasts."""
    _floats("logaddexp", input, other)
    return _binary(_logaddexp, input, other)


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2**input + 2**other), without overflow, of floating-point tensors; broadcasts."""
    _floats("logaddexp2", input, other)
    return _binary(_logaddexp2, input, other)


def xlogy(input: Any, other: Any) -> Tensor:
    """``input * log(other)``, and 0 where ``input`` is 0 and ``other`` not NaN; tensors and numbers; broadcasts."""
    dtype = result_type(input, other)
    dtype = dtype if dtype.kind == "f" else get_default_dtype()
    input, other = (cast(x, dtype) if isinstance(x, Tensor) else Tensor(np.asarray(x, dtype)) for x in (input, other))
    return _binary(_xlogy, input, other)


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(input**2 + other**2), without overflow, of floating-point tensors; broadcasts."""
    _floats("hypot", input, other)
    return _binary(_hypot, input, other)

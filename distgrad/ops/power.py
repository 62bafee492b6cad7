"""Powers, of tensors and numbers in either place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _binary, _check_tensor, _log, _where, _zeros, sum_to
from .inplace import in_place
from .promotion import cast, result_type

__all__ = [  # what distgrad itself offers
    "float_power",
    "pow",
    "square",
]
METHODS = "float_power float_power_ pow square".split()  # what a Tensor offers
IN_PLACE = "pow square".split()  # of these, what also exists as NAME_


def _power_of_base(base: Any, exponent: Any) -> Any:
    """d(base ** exponent) / d base, with 0 where the exponent is 0 (also at base 0, where the formula is 0 * inf)."""
    zero = exponent == 0
    if isinstance(zero, (bool, np.bool_)):
        if exponent == 2:
            return 2 * base
        return _zeros(base) if zero else exponent * base ** (exponent - 1)
    return _where(zero, 0.0, exponent * base ** _where(zero, 1.0, exponent - 1.0))


def _power_of_exponent(base: Any, exponent: Any, output: Any) -> Any:
    """d(base ** exponent) / d exponent, with 0 at base 0 and an exponent >= 0, as PyTorch defines it."""
    if isinstance(base, (int, float, np.generic)):
        number = float(base)
        if number == 0:
            return _where(exponent >= 0, 0.0, output * -math.inf)
        return output * (math.log(number) if number > 0 else math.nan)
    flat = (base == 0) & (exponent >= 0)
    return _where(flat, 0.0, output * _log(_where(flat, 1.0, base)))


def _power(input: Any, exponent: Any) -> Any:
    # The exponents that PyTorch computes by multiplication: faster than pow() and not off in the last bit.
    if isinstance(exponent, (int, float)):
        if exponent == 2:
            return input * input
        if exponent == 3:
            return input * input * input
        if exponent == 0.5:
            return np.sqrt(input)
    kind = getattr(exponent, "dtype", np.dtype(np.float64)).kind
    if kind == "b":
        return input | ~exponent
    if kind == "i":
        return _integer_power(input, exponent)
    return np.power(input, exponent)


def _integer_power(input: Any, exponent: Any) -> Any:
    """NumPy refuses negative exponents; in integers the result is 0 but for the bases 1 and -1, as in PyTorch."""
    negative = exponent < 0
    if not np.any(negative):
        return np.power(input, exponent)
    sign = np.where(exponent % 2 == 0, 1, input)
    return np.where(
        negative, np.where(np.abs(input) == 1, sign, 0), np.power(input, np.where(negative, 0, exponent))
    ).astype(np.result_type(input, exponent))


_pow: Primitive = define(
    "Pow",
    _power,
    ("input", "exponent"),
    input=lambda g, input, exponent, input_shape: sum_to(g * _power_of_base(input, exponent), input_shape),
    exponent=lambda g, input, exponent, output, exponent_shape: sum_to(
        g * _power_of_exponent(input, exponent, output), exponent_shape
    ),
)


# Public functions ---------------------------------------------------------------------------------------------------


def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``. Integers to negative integer powers raise, as in PyTorch."""
    if isinstance(exponent, int) and exponent < 0 and result_type(input, exponent).kind in "iu":
        raise RuntimeError("Integers to negative integer powers are not allowed.")
    return _binary(_pow, input, exponent)


def square(input: Tensor) -> Tensor:
    """``input ** 2``; bools give integers."""
    _check_tensor("square", input)
    return pow(input, 2)


def float_power(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent`` in float64, whatever the dtypes of tensors and numbers; broadcasts."""
    result_type(input, exponent)  # refuses what is neither a tensor nor a number
    input, exponent = (cast(x, np.float64) if isinstance(x, Tensor) else float(x) for x in (input, exponent))
    return pow(input, exponent)


def float_power_(input: Tensor, exponent: Any) -> Tensor:
    """``float_power`` in place, of a float64 tensor."""
    if input.dtype != np.float64:
        raise RuntimeError(
            f"float_power_: the base has dtype {input.dtype} but the operation's result requires dtype float64"
        )
    return in_place(float_power, "float_power_")(input, exponent)

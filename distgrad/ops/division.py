"""Division, true and with a remainder."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _binary, _two_tensors, _zeros, sum_to
from .promotion import result_type

__all__ = [  # what distgrad itself offers
    "div",
    "divide",
    "floor_divide",
    "fmod",
    "gcd",
    "lcm",
    "remainder",
    "true_divide",
]
METHODS = "div divide floor_divide fmod gcd lcm remainder true_divide".split()  # what a Tensor offers
IN_PLACE = "div divide floor_divide fmod gcd lcm remainder true_divide".split()  # of these, what also exists as NAME_


_div: Primitive = define(
    "Div",
    np.true_divide,
    ("input", "other"),
    broadcast=sum_to,
    input=lambda g, other: g / other,
    other=lambda g, input, other: -g * ((input / other) / other),
)


def _no_zero_divisor(name: str, input: Any, other: Any) -> None:
    """Refuses to divide integers by 0, which NumPy answers with 0. A bare Python number divides floats."""
    if isinstance(other, (np.ndarray, np.generic)) and other.dtype.kind in "iu" and not np.all(other):
        if 0 in np.broadcast_shapes(np.shape(input), other.shape):
            return  # nothing is divided
        raise RuntimeError(f"ZeroDivisionError: {name} of integers by 0; convert them with .float() for inf and nan")


def _floored(input: Any, other: Any) -> Any:
    _no_zero_divisor("floor division", input, other)
    return np.floor_divide(input, other)


def _truncated(input: Any, other: Any) -> Any:
    _no_zero_divisor("division", input, other)
    dtype = getattr(other, "dtype", None)
    if dtype is None or dtype.kind == "f":
        return np.trunc(np.true_divide(input, other))
    quotient = np.floor_divide(input, other)
    return quotient + ((quotient * other != input) & ((input < 0) != (other < 0)))


_div_floor, _div_trunc = (
    define(
        name,
        forward,
        ("input", "other"),
        input=lambda g, input_shape: _zeros(sum_to(g, input_shape)),
        other=lambda g, other_shape: _zeros(sum_to(g, other_shape)),
    )
    for name, forward in (("DivFloor", _floored), ("DivTrunc", _truncated))
)


def _no_gradient(g: Any) -> Any:
    raise RuntimeError(
        "derivative for floor_divide is not implemented, as in PyTorch: use div(input, other, rounding_mode='floor'), "
        "whose gradient is 0, or detach() the operands"
    )


_floor_divide: Primitive = define("FloorDivide", _floored, ("input", "other"), input=_no_gradient, other=_no_gradient)


def _fmod_forward(input: Any, other: Any) -> Any:
    _no_zero_divisor("fmod", input, other)
    return np.fmod(input, other)


def _remainder_forward(input: Any, other: Any) -> Any:
    _no_zero_divisor("remainder", input, other)
    rest = np.fmod(input, other)
    if rest.dtype.kind == "u":
        return rest
    # np.remainder gives a zero the sign of the divisor, PyTorch leaves it that of the dividend
    return np.where((rest != 0) & ((rest < 0) != (other < 0)), rest + other, rest)


_fmod: Primitive = define(
    "Fmod",
    _fmod_forward,
    ("input", "other"),
    input=lambda g, input_shape: sum_to(g, input_shape),
    other=lambda g, input, other, other_shape: sum_to(-g * _div_trunc(input, other), other_shape),
)
_remainder: Primitive = define(
    "Remainder",
    _remainder_forward,
    ("input", "other"),
    input=lambda g, input_shape: sum_to(g, input_shape),
    other=lambda g, input, other, other_shape: sum_to(-g * _div_floor(input, other), other_shape),
)
_gcd: Primitive = define("Gcd", np.gcd, ("input", "other"))
_lcm: Primitive = define("Lcm", np.lcm, ("input", "other"))

# Public functions ---------------------------------------------------------------------------------------------------


def _divided(name: str, primitive: Primitive, input: Any, other: Any) -> Tensor:
    if result_type(input, other) == np.bool_:
        raise RuntimeError(f"{name} is not defined for two bool tensors; convert one of them to integers")
    return _binary(primitive, input, other)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; broadcasts.

    Args:
        input: the dividend.
        other: the divisor.
        rounding_mode: None for true division, in which integers give the default floating-point dtype; "floor" to
            round the quotient down, "trunc" to round it towards 0, which keep integers and have the gradient 0.

    Raises:
        RuntimeError: another ``rounding_mode``; or with one, integers are divided by 0 (ZeroDivisionError), or both
            operands are bool.
    """
    if rounding_mode is None:
        return _binary(_div, input, other, floating=True)
    if rounding_mode not in ("floor", "trunc"):
        raise RuntimeError(
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found {rounding_mode!r}"
        )
    return _divided("div", _div_floor if rounding_mode == "floor" else _div_trunc, input, other)


divide = true_divide = div


def floor_divide(input: Any, other: Any) -> Tensor:
    """The quotient rounded down, as Python's ``//``; broadcasts. It cannot be differentiated.

    Raises:
        RuntimeError: integers are divided by 0 (ZeroDivisionError), both operands are bool, or, in a backward pass, a
            gradient arrives.
    """
    return _divided("floor_divide", _floor_divide, input, other)


def remainder(input: Any, other: Any) -> Tensor:
    """What ``floor_divide`` leaves over, with the sign of ``other``, as Python's ``%``; broadcasts.

    Raises:
        RuntimeError: integers are divided by 0 (ZeroDivisionError), or both operands are bool.
    """
    return _divided("remainder", _remainder, input, other)


def fmod(input: Any, other: Any) -> Tensor:
    """What the quotient rounded towards 0 leaves over, with the sign of ``input``, as C's fmod; broadcasts.

    Raises:
        RuntimeError: integers are divided by 0 (ZeroDivisionError), or both operands are bool.
    """
    return _divided("fmod", _fmod, input, other)


def _integers(name: str, primitive: Primitive, input: Any, other: Any) -> Tensor:
    _two_tensors(name, input, other)
    if (dtype := result_type(input, other)).kind not in "iu":
        raise RuntimeError(f"{name} is not defined for {dtype} tensors, only for integers")
    return _binary(primitive, input, other)


def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor, not negative, of integer tensors; that of 0 and 0 is 0; broadcasts."""
    return _integers("gcd", _gcd, input, other)


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple, not negative, of integer tensors; that of anything and 0 is 0; broadcasts."""
    return _integers("lcm", _lcm, input, other)

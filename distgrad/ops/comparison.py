"""Comparison and logic: bools, integers and what is read off a float. None of these results carries a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _binary, _broadcasting, _two_tensors, _unary
from .promotion import result_type

__all__ = [  # what distgrad itself offers
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "eq",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "le",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "ne",
    "not_equal",
    "signbit",
]
METHODS = (  # what a Tensor offers
    "bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor eq ge greater greater_equal "
    "gt isclose isfinite isinf isnan isneginf isposinf isreal le less less_equal logical_and logical_not logical_or "
    "logical_xor lt ne not_equal signbit"
).split()
IN_PLACE = (  # of these, what also exists as NAME_
    "bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor eq ge greater greater_equal "
    "gt le less less_equal logical_and logical_not logical_or logical_xor lt ne not_equal"
).split()


def _signbit(input: Any) -> Any:
    # np.signbit refuses bools and unsigned integers, which have none
    return np.signbit(input) if input.dtype.kind == "f" else input < 0


def _close(input: Any, other: Any, rtol: float, atol: float, equal_nan: bool) -> Any:
    close = input == other
    if equal_nan and input.dtype.kind == "f":
        close |= np.isnan(input) & np.isnan(other)
    if rtol == 0 and atol == 0:
        return close
    if input.dtype.kind != "f":  # in floats, where differences of unsigned integers do not wrap around
        input, other = input.astype(np.float64), other.astype(np.float64)
    distance = np.abs(input - other)
    return close | (np.isfinite(distance) & (distance <= atol + np.abs(rtol * other)))


_logic: dict[str, Primitive] = {
    name: define(name, function, operands)
    for name, function, operands in (
        ("Eq", np.equal, ("input", "other")),
        ("Ne", np.not_equal, ("input", "other")),
        ("Lt", np.less, ("input", "other")),
        ("Le", np.less_equal, ("input", "other")),
        ("Gt", np.greater, ("input", "other")),
        ("Ge", np.greater_equal, ("input", "other")),
        ("Isclose", _close, ("input", "other")),
        ("LogicalAnd", np.logical_and, ("input", "other")),
        ("LogicalOr", np.logical_or, ("input", "other")),
        ("LogicalXor", np.logical_xor, ("input", "other")),
        ("LogicalNot", np.logical_not, ("input",)),
        ("BitwiseAnd", np.bitwise_and, ("input", "other")),
        ("BitwiseOr", np.bitwise_or, ("input", "other")),
        ("BitwiseXor", np.bitwise_xor, ("input", "other")),
        ("BitwiseNot", np.bitwise_not, ("input",)),
        # beyond the width, also of a negative shift, NumPy gives what PyTorch gives: 0, or -1 of a negative number >>
        ("BitwiseLeftShift", np.left_shift, ("input", "other")),
        ("BitwiseRightShift", np.right_shift, ("input", "other")),
        ("Isnan", np.isnan, ("input",)),
        ("Isinf", np.isinf, ("input",)),
        ("Isfinite", np.isfinite, ("input",)),
        ("Isposinf", lambda input: input == np.inf, ("input",)),
        ("Isneginf", lambda input: input == -np.inf, ("input",)),
        ("Isreal", lambda input: np.ones(input.shape, np.bool_), ("input",)),
        ("Signbit", _signbit, ("input",)),
    )
}

# Comparison ---------------------------------------------------------------------------------------------------------


def _comparison(name: str, text: str) -> Callable[[Any, Any], Tensor]:
    primitive = _logic[name]

    def compare(input: Any, other: Any) -> Tensor:
        if type(other) is int and isinstance(input, Tensor) and input._data.dtype.kind in "iu":
            out: Tensor = primitive(input, other)  # NumPy compares by value, also with what the dtype cannot hold
            return out
        return _binary(primitive, input, other)

    compare.__name__ = compare.__qualname__ = name.lower()
    compare.__doc__ = f"``input {text} other`` elementwise, a bool tensor; broadcasts."
    return compare


eq = _comparison("Eq", "==")
ne = not_equal = _comparison("Ne", "!=")
lt = less = _comparison("Lt", "<")
le = less_equal = _comparison("Le", "<=")
gt = greater = _comparison("Gt", ">")
ge = greater_equal = _comparison("Ge", ">=")


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether each element of ``input`` is as good as that of ``other``, a bool tensor; broadcasts.

    Args:
        input: any tensor.
        other: of the same dtype.
        rtol: how far apart two finite elements may be, as a fraction of that of ``other``.
        atol: and how far besides.
        equal_nan: NaN counts as equal to NaN.

    Raises:
        RuntimeError: the dtypes differ, or a tolerance is negative.
    """
    _two_tensors("isclose", input, other)
    if input.dtype != other.dtype:
        raise RuntimeError(f"isclose: {input.dtype} did not match {other.dtype}; convert one of them with .to()")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not tolerance >= 0:
            raise RuntimeError(f"isclose: {name} must be greater than or equal to zero, but got {tolerance}")
    primitive = _logic["Isclose"]
    return _broadcasting("isclose", primitive, input, other, rtol=rtol, atol=atol, equal_nan=equal_nan)


# What kind of number ------------------------------------------------------------------------------------------------


def _property(name: str, text: str) -> Callable[[Tensor], Tensor]:
    primitive = _logic[name]

    def check(input: Tensor) -> Tensor:
        return _unary(primitive, input, floating=False)

    check.__name__ = check.__qualname__ = name.lower()
    check.__doc__ = f"Whether each element {text}, a bool tensor."
    return check


isnan = _property("Isnan", "is NaN")
isinf = _property("Isinf", "is infinite")
isfinite = _property("Isfinite", "is neither NaN nor infinite")
isposinf = _property("Isposinf", "is positive infinity")
isneginf = _property("Isneginf", "is negative infinity")
isreal = _property("Isreal", "is a real number, as all numbers are here, NaN too")
signbit = _property("Signbit", "has its sign bit set, as negative numbers and -0.0 have")

# Logic of truth values ----------------------------------------------------------------------------------------------


def _logical(name: str, text: str) -> Callable[[Tensor, Tensor], Tensor]:
    primitive = _logic[f"Logical{name.capitalize()}"]

    def combine(input: Tensor, other: Tensor) -> Tensor:
        _two_tensors(f"logical_{name}", input, other)
        return _binary(primitive, input, other)

    combine.__name__ = combine.__qualname__ = f"logical_{name}"
    combine.__doc__ = f"Whether {text} nonzero, a bool tensor; of tensors of any dtypes, and broadcasts."
    return combine


logical_and = _logical("and", "both elements are")
logical_or = _logical("or", "one element at least is")
logical_xor = _logical("xor", "one element and not the other is")


def logical_not(input: Tensor) -> Tensor:
    """Whether each element is zero, a bool tensor."""
    return _unary(_logic["LogicalNot"], input, floating=False)


# Logic of bits ------------------------------------------------------------------------------------------------------


def _bitwise(name: str, primitive: Primitive, input: Any, other: Any) -> Tensor:
    if result_type(input, other).kind == "f":
        raise RuntimeError(f"{name} is not defined for floating-point tensors; convert them to bool or integers")
    return _binary(primitive, input, other)


def bitwise_and(input: Any, other: Any) -> Tensor:
    """``input & other`` of bools or integers; broadcasts."""
    return _bitwise("bitwise_and", _logic["BitwiseAnd"], input, other)


def bitwise_or(input: Any, other: Any) -> Tensor:
    """``input | other`` of bools or integers; broadcasts."""
    return _bitwise("bitwise_or", _logic["BitwiseOr"], input, other)


def bitwise_xor(input: Any, other: Any) -> Tensor:
    """``input ^ other`` of bools or integers; broadcasts."""
    return _bitwise("bitwise_xor", _logic["BitwiseXor"], input, other)


def bitwise_not(input: Tensor) -> Tensor:
    """``~input`` of bools or integers."""
    if isinstance(input, Tensor) and input.is_floating_point():
        raise RuntimeError("bitwise_not is not defined for floating-point tensors; convert it to bool or an integer")
    return _unary(_logic["BitwiseNot"], input, floating=False)


def _shift(name: str, primitive: Primitive, input: Any, other: Any) -> Tensor:
    if result_type(input, other) == np.bool_:
        raise RuntimeError(f"{name} is not defined for two bool tensors; convert one of them to integers")
    return _bitwise(name, primitive, input, other)


def bitwise_left_shift(input: Any, other: Any) -> Tensor:
    """``input << other`` of integers; 0 for a shift that is negative or not less than the number of bits."""
    return _shift("bitwise_left_shift", _logic["BitwiseLeftShift"], input, other)


def bitwise_right_shift(input: Any, other: Any) -> Tensor:
    """``input >> other`` of integers, which keeps the sign; a shift that is negative or too wide leaves only it."""
    return _shift("bitwise_right_shift", _logic["BitwiseRightShift"], input, other)

"""The parts of a floating-point number: its sign, exponent and neighbours, and what stands for no number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .comparison import _logic
from .elementwise import _binary, _broadcasting, _check_tensor, _two_tensors, _where, _zeros, sum_to
from .promotion import cast, get_default_dtype, result_type
from .transcendental import _floats

__all__ = [  # what distgrad itself offers
    "copysign",
    "ldexp",
    "nan_to_num",
    "nextafter",
]
METHODS = "copysign ldexp nan_to_num nextafter".split()  # what a Tensor offers
IN_PLACE = "copysign ldexp nan_to_num nextafter".split()  # of these, what also exists as NAME_


def _copysign_forward(input: Any, other: Any) -> tuple[Any, tuple[Any]]:
    return np.copysign(input, other), (np.signbit(input) != np.signbit(other),)


_copysign: Primitive = define(
    "Copysign",
    _copysign_forward,
    ("input", "other"),
    residuals=("turned",),
    # at 0 the gradient is 0, as that of abs
    input=lambda g, input, turned, input_shape: sum_to(_where(input == 0, 0.0, _where(turned, -g, g)), input_shape),
    other=lambda g, other_shape: _zeros(sum_to(g, other_shape)),
)
_nextafter: Primitive = define(
    "Nextafter",
    np.nextafter,
    ("input", "other"),
    # a tiny step from the input; to the other itself where they are equal, which PyTorch does not count either
    input=lambda g, input, other, input_shape: sum_to(_where(input == other, 0.0, g), input_shape),
    other=lambda g, other_shape: _zeros(sum_to(g, other_shape)),
)
_ldexp: Primitive = define(
    "Ldexp",
    # by an integer exactly, also where the power of 2 alone would overflow
    lambda input, other: np.ldexp(input, other) if other.dtype.kind == "i" else input * np.exp2(other),
    ("input", "other"),
    input=lambda g, other, input_shape: sum_to(_ldexp(g, other), input_shape),
    other=lambda g, output, other_shape: sum_to(g * output * math.log(2), other_shape),
)


def _nan_to_num_forward(input: Any, nan: float, posinf: float | None, neginf: float | None) -> Any:
    if input.dtype.kind != "f":
        return input.copy()
    limits = np.finfo(input.dtype)
    out = np.where(np.isnan(input), input.dtype.type(nan), input)
    out[input == np.inf] = limits.max if posinf is None else posinf
    out[input == -np.inf] = limits.min if neginf is None else neginf
    return out


_nan_to_num: Primitive = define(
    "NanToNum",
    _nan_to_num_forward,
    ("input",),
    input=lambda g, input: _where(_logic["Isfinite"](input), g, 0.0),
)

# Public functions ---------------------------------------------------------------------------------------------------


def copysign(input: Tensor, other: Any) -> Tensor:
    """The magnitude of ``input`` with the sign of ``other``, that of 0.0 and -0.0 too; integers become floats.

    Args:
        input: any tensor.
        other: a tensor that broadcasts with it, or a number.
    """
    _check_tensor("copysign", input)
    return _binary(_copysign, input, other, floating=True)


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """``input * 2**other``, of integers in the default floating-point dtype; broadcasts."""
    _two_tensors("ldexp", input, other)
    dtype = result_type(input, other)
    dtype = dtype if dtype.kind == "f" else get_default_dtype()
    exponent = cast(other, dtype if other.is_floating_point() else np.int64)
    return _broadcasting("ldexp", _ldexp, cast(input, dtype), exponent)


def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The floating-point number next to ``input`` in the direction of ``other``; broadcasts."""
    _floats("nextafter", input, other)
    return _binary(_nextafter, input, other)


def nan_to_num(
    input: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Replaces what is not finite; the gradient there is 0.

    Args:
        input: any tensor; one that is not floating-point is copied.
        nan: instead of NaN; 0 for None.
        posinf: instead of positive infinity, the largest number of the dtype without it.
        neginf: instead of negative infinity, the smallest without it.
    """
    _check_tensor("nan_to_num", input)
    out: Tensor = _nan_to_num(input, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)
    return out

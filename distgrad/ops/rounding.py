"""Rounding, and other functions that are constant in pieces: their gradient is 0 everywhere, at the steps too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _binary, _check_tensor, _sign, _two_tensors, _zeros

__all__ = [  # what distgrad itself offers
    "ceil",
    "fix",
    "floor",
    "frac",
    "heaviside",
    "round",
    "sgn",
    "trunc",
]
METHODS = "ceil fix floor frac heaviside round sgn trunc".split()  # what a Tensor offers
IN_PLACE = "ceil fix floor frac heaviside round sgn trunc".split()  # of these, what also exists as NAME_


def _of_floats(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    # older NumPy makes integers floats here
    return lambda input: function(input) if input.dtype.kind == "f" else input.copy()


_floor: Primitive = define("Floor", _of_floats(np.floor), ("input",), input=lambda g: _zeros(g))
_ceil: Primitive = define("Ceil", _of_floats(np.ceil), ("input",), input=lambda g: _zeros(g))
_trunc: Primitive = define("Trunc", _of_floats(np.trunc), ("input",), input=lambda g: _zeros(g))


def _rounded(input: Any, decimals: int) -> Any:
    if decimals == 0:
        return np.rint(input) if input.dtype.kind == "f" else input.copy()
    # float16 holds few powers of ten
    wide = input.astype(np.float32) if input.dtype == np.float16 else input
    scale = wide.dtype.type(10.0 ** abs(decimals) if abs(decimals) < 309 else np.inf)
    out = np.rint(wide * scale) / scale if decimals > 0 else np.rint(wide / scale) * scale
    return out.astype(input.dtype, copy=False)


_round: Primitive = define("Round", _rounded, ("input",), input=lambda g: _zeros(g))
_frac: Primitive = define("Frac", lambda input: input - np.trunc(input), ("input",), input=lambda g: g)


def _no_gradient(g: Any) -> Any:
    raise RuntimeError(
        "derivative for heaviside is not implemented, as in PyTorch: detach() its operands, or choose with where()"
    )


_heaviside: Primitive = define(
    "Heaviside",
    # NaN is not positive, so it gives 0, as in PyTorch; np.heaviside gives NaN, and floats for integers
    lambda input, values: np.where(input == 0, values, (input > 0).astype(input.dtype)),
    ("input", "values"),
    input=_no_gradient,
    values=_no_gradient,
)

# Public functions ---------------------------------------------------------------------------------------------------


def _numbers(name: str, primitive: Primitive, input: Tensor, **keywords: Any) -> Tensor:
    _check_tensor(name, input)
    if input.dtype == np.bool_:
        raise RuntimeError(f"{name} is not defined for bool tensors; convert the input with .to()")
    out: Tensor = primitive(input, **keywords)
    return out


def floor(input: Tensor) -> Tensor:
    """The largest integer that is not above each element, in the dtype of ``input``, which must not be bool."""
    return _numbers("floor", _floor, input)


def ceil(input: Tensor) -> Tensor:
    """The smallest integer that is not below each element, in the dtype of ``input``, which must not be bool."""
    return _numbers("ceil", _ceil, input)


def trunc(input: Tensor) -> Tensor:
    """The next integer towards 0, in the dtype of ``input``, which must not be bool."""
    return _numbers("trunc", _trunc, input)


fix = trunc


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest integer, of two the even one; in the dtype of ``input``, which must not be bool.

    Args:
        input: any numbers.
        decimals: how many digits after the point to keep, of floating-point numbers; negative ones round in front of
            the point.

    Raises:
        RuntimeError: ``input`` is bool, or of integers while ``decimals`` is not 0.
    """
    if decimals and isinstance(input, Tensor) and not input.is_floating_point():
        raise RuntimeError(f"round with decimals={decimals} is not defined for {input.dtype} tensors")
    return _numbers("round", _round, input, decimals=decimals)


def frac(input: Tensor) -> Tensor:
    """``input - trunc(input)`` of floating-point numbers, with the sign of ``input``; its gradient is 1."""
    _check_tensor("frac", input)
    if not input.is_floating_point():
        raise RuntimeError(f"frac is not defined for {input.dtype} tensors; convert the input with .float()")
    out: Tensor = _frac(input)
    return out


def sgn(input: Tensor) -> Tensor:
    """-1, 0 or 1, as ``sign``: there are no complex numbers here, for which they would differ."""
    _check_tensor("sgn", input)
    out: Tensor = _sign(input)
    return out


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where ``input`` is negative or NaN, 1 where it is positive, ``values`` where it is 0; broadcasts.

    Raises:
        RuntimeError: the dtypes differ, or, in a backward pass, a gradient arrives.
    """
    _two_tensors("heaviside", input, values)
    if input.dtype != values.dtype:
        raise RuntimeError(
            f"heaviside is not defined for tensors with different dtypes, {input.dtype} and {values.dtype} here"
        )
    return _binary(_heaviside, input, values)

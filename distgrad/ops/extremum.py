"""The larger and the smaller of two elements, and elements kept within bounds.

At a tie ``maximum`` and ``minimum`` share the gradient in halves; ``fmax`` and ``fmin`` give it to ``input``, and the
clamps too. All of these are PyTorch's conventions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .comparison import _logic
from .elementwise import _binary, _broadcasting, _check_tensor, _two_tensors, _where, sum_to
from .promotion import cast, result_type

__all__ = [  # what distgrad itself offers
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "fmax",
    "fmin",
    "maximum",
    "minimum",
]
METHODS = "clamp clamp_max clamp_min clip fmax fmin maximum minimum".split()  # what a Tensor offers
IN_PLACE = "clamp clamp_max clamp_min clip".split()  # of these, what also exists as NAME_

# Of two elements ----------------------------------------------------------------------------------------------------


def _ties(g: Any, passed_over: Any, equal: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of an extremum: nothing where the other operand was chosen, half at a tie, else (NaN too) all."""
    return sum_to(_where(equal, g * 0.5, _where(passed_over, 0.0, g)), shape)


_maximum: Primitive = define(
    "Maximum",
    np.maximum,
    ("input", "other"),
    input=lambda g, input, other, input_shape: _ties(g, input < other, input == other, input_shape),
    other=lambda g, input, other, other_shape: _ties(g, other < input, input == other, other_shape),
)
_minimum: Primitive = define(
    "Minimum",
    np.minimum,
    ("input", "other"),
    input=lambda g, input, other, input_shape: _ties(g, input > other, input == other, input_shape),
    other=lambda g, input, other, other_shape: _ties(g, other > input, input == other, other_shape),
)


def _isnan(x: Any) -> Any:
    return _logic["Isnan"](x)


_fmax: Primitive = define(
    "Fmax",
    np.fmax,
    ("input", "other"),
    input=lambda g, input, other, input_shape: sum_to(_where((input >= other) | _isnan(other), g, 0.0), input_shape),
    other=lambda g, input, other, other_shape: sum_to(_where((input >= other) | _isnan(other), 0.0, g), other_shape),
)
_fmin: Primitive = define(
    "Fmin",
    np.fmin,
    ("input", "other"),
    input=lambda g, input, other, input_shape: sum_to(_where((input <= other) | _isnan(other), g, 0.0), input_shape),
    other=lambda g, input, other, other_shape: sum_to(_where((input <= other) | _isnan(other), 0.0, g), other_shape),
)

# Within bounds ------------------------------------------------------------------------------------------------------


def _inside(input: Any, low: Any, high: Any) -> Any:
    if low is None:
        return input <= high
    return input >= low if high is None else (input >= low) & (input <= high)


_clamp: Primitive = define(
    "Clamp",
    lambda input, min, max: np.clip(input, min, max),
    ("input",),
    input=lambda g, input, min, max: _where(_inside(input, min, max), g, 0.0),
)
_clamp_min: Primitive = define(
    "ClampMin",
    np.maximum,
    ("input", "min"),
    input=lambda g, input, min, input_shape: sum_to(_where(input >= min, g, 0.0), input_shape),
    min=lambda g, input, min, min_shape: sum_to(_where(input < min, g, 0.0), min_shape),
)
_clamp_max: Primitive = define(
    "ClampMax",
    np.minimum,
    ("input", "max"),
    input=lambda g, input, max, input_shape: sum_to(_where(input <= max, g, 0.0), input_shape),
    max=lambda g, input, max, max_shape: sum_to(_where(input > max, g, 0.0), max_shape),
)
_clamp_between: Primitive = define(
    "ClampBetween",
    lambda input, min, max: np.minimum(np.maximum(input, min), max),
    ("input", "min", "max"),
    input=lambda g, input, min, max, input_shape: sum_to(_where(_inside(input, min, max), g, 0.0), input_shape),
    # bounds that have crossed: the upper one is the result, whatever the input
    min=lambda g, input, min, max, min_shape: sum_to(_where((input < min) & (min < max), g, 0.0), min_shape),
    max=lambda g, input, min, max, max_shape: sum_to(_where((input > max) | (max < min), g, 0.0), max_shape),
)

# Public functions ---------------------------------------------------------------------------------------------------


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two elements, NaN if one is; the gradient is shared in halves at a tie; broadcasts."""
    _two_tensors("maximum", input, other)
    return _binary(_maximum, input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two elements, NaN if one is; the gradient is shared in halves at a tie; broadcasts."""
    _two_tensors("minimum", input, other)
    return _binary(_minimum, input, other)


def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two elements, or the one that is not NaN; a tie is taken from ``input``; broadcasts."""
    _two_tensors("fmax", input, other)
    return _binary(_fmax, input, other)


def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two elements, or the one that is not NaN; a tie is taken from ``input``; broadcasts."""
    _two_tensors("fmin", input, other)
    return _binary(_fmin, input, other)


def _within(bound: Any, dtype: np.dtype[Any]) -> Any:
    """A number as an element of ``dtype``; one that an integer dtype cannot hold, as the nearest that it can."""
    if bound is None:
        return None
    if dtype.kind == "f":
        return float(bound)  # a NumPy number would widen the result
    if dtype == np.bool_:
        return np.bool_(bound)
    limits = np.iinfo(dtype)
    return dtype.type(min(max(int(bound), int(limits.min)), int(limits.max)))


def _clamped(name: str, input: Tensor, min: Any, max: Any) -> Tensor:
    _check_tensor(name, input)
    bounds = [bound for bound in (min, max) if bound is not None]
    tensors = [isinstance(bound, Tensor) for bound in bounds]
    if any(tensors) and not all(tensors):
        raise TypeError(
            f"{name}(): min and max must be both tensors or both numbers, not {type(min).__name__} and "
            f"{type(max).__name__}"
        )
    dtype = result_type(input, *bounds)
    if dtype == np.bool_ and len(bounds) == 2:
        raise RuntimeError(f"{name} is not defined for bool tensors; convert the input with .to()")
    input = cast(input, dtype)
    if not all(tensors):
        out: Tensor = _clamp(input, min=_within(min, dtype), max=_within(max, dtype))
        return out
    if len(bounds) == 2:
        return _broadcasting(name, _clamp_between, input, cast(min, dtype), cast(max, dtype))
    primitive = _clamp_min if max is None else _clamp_max
    return _broadcasting(name, primitive, input, cast(bounds[0], dtype))


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Elements limited to [min, max]; where the bounds have crossed, ``max``; NaN stays NaN.

    Args:
        input: any tensor but bool.
        min: the lower bound, a number or a tensor that broadcasts with ``input``; without it there is none.
        max: the upper one, of the same kind. A number that an integer dtype cannot hold is the nearest that it can.

    The gradient goes to ``input`` inside and at the bounds; outside to the bound, if that is a tensor.

    Raises:
        RuntimeError: there is no bound, or ``input`` is bool.
        TypeError: one bound is a number, the other a tensor.
    """
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    return _clamped("clamp", input, min, max)


clip = clamp


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """``clamp`` with a lower bound only, a number or a tensor."""
    return _clamped("clamp_min", input, min, None)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """``clamp`` with an upper bound only, a number or a tensor."""
    return _clamped("clamp_max", input, None, max)

"""Puts operators and methods on ``Tensor``: the only place where a name meets the class."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive
from ..autograd.shortcut import binary
from . import (
    absent,
    added_products,
    comparison,
    contraction,
    correlation,
    counting,
    creation,
    determinant,
    diagonals,
    differences,
    division,
    elementwise,
    exponentials,
    extremum,
    floating,
    fused,
    indexing,
    inplace,
    largest,
    linalg,
    masked,
    matrix_function,
    matrix_norm,
    metadata,
    older_linalg,
    order_statistics,
    pieces,
    positions,
    power,
    query,
    rearrange,
    rectifier,
    reduction,
    rescaling,
    rounding,
    sampling,
    scan,
    shape,
    slices,
    solver,
    sorting,
    special,
    strided,
    transcendental,
)

_Operator = Callable[[Any, Any], Any]


def _operator(function: _Operator) -> _Operator:
    """Leaves operands that are neither tensors nor numbers to the other side, as Python's protocol asks."""

    def method(self: Tensor, other: Any) -> Any:
        if isinstance(other, (Tensor, int, float, np.ndarray, np.generic)):
            return function(self, other)
        return NotImplemented

    method.__doc__ = function.__doc__
    return method


def _reflected(function: _Operator) -> _Operator:
    return _operator(lambda self, other: function(other, self))


_OPERATORS: dict[str, _Operator] = {
    "add": elementwise.add,
    "sub": elementwise.sub,
    "mul": elementwise.mul,
    "truediv": division.div,
    "pow": power.pow,
    "matmul": linalg.matmul,
    "floordiv": division.floor_divide,
    "mod": division.remainder,
    "and": comparison.bitwise_and,
    "or": comparison.bitwise_or,
    "xor": comparison.bitwise_xor,
    "lshift": comparison.bitwise_left_shift,
    "rshift": comparison.bitwise_right_shift,
}
_BUSY: dict[str, tuple[Primitive, int]] = {  # and from how many dimensions on it is nothing else
    "add": (elementwise._add, 0),
    "sub": (elementwise._sub, 0),
    "mul": (elementwise._mul, 0),
    "truediv": (division._div, 0),
    "matmul": (linalg._matmul, 2),
}
_COMPARISONS: dict[str, _Operator] = {name: getattr(comparison, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
# A family lists in METHODS which of its functions are methods too, and in IN_PLACE which of them also exist as NAME_.
_FAMILIES = (
    added_products,
    comparison,
    contraction,
    correlation,
    counting,
    creation,
    determinant,
    diagonals,
    differences,
    division,
    elementwise,
    exponentials,
    extremum,
    floating,
    fused,
    indexing,
    inplace,
    largest,
    linalg,
    masked,
    matrix_function,
    matrix_norm,
    metadata,
    older_linalg,
    order_statistics,
    pieces,
    positions,
    power,
    query,
    rearrange,
    rectifier,
    reduction,
    rescaling,
    rounding,
    sampling,
    scan,
    shape,
    slices,
    solver,
    sorting,
    special,
    strided,
    transcendental,
)


def _iterate(self: Tensor) -> Iterator[Tensor]:
    """The slices along the first dimension."""
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(pieces.unbind(self, 0))


def _contains(self: Tensor, element: Any) -> bool:
    """Whether any element equals ``element``, a number or a tensor that is broadcast."""
    if not isinstance(element, (Tensor, numbers.Number)):
        raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}.")
    return bool(comparison.eq(self, element).any())


def _reversed(self: Tensor) -> Tensor:
    """The slices along the first dimension in the opposite order."""
    return rearrange.flip(self, (0,)) if self.ndim else self


def _converter(dtype: type[np.generic]) -> Callable[[Tensor], Tensor]:
    def convert(self: Tensor) -> Tensor:
        return elementwise.to(self, dtype)

    convert.__doc__ = f"The tensor in {dtype.__name__}."
    return convert


def install() -> None:
    """Called once, when ``distgrad.ops`` is imported."""
    for name, function in _OPERATORS.items():
        setattr(Tensor, f"__{name}__", _operator(function))
        setattr(Tensor, f"__r{name}__", _reflected(function))
    for name, (primitive, rank) in _BUSY.items():
        setattr(Tensor, f"__{name}__", binary(primitive, rank)(_operator(_OPERATORS[name])))
    for name, function in _COMPARISONS.items():
        setattr(Tensor, f"__{name}__", _operator(function))
    for name, function in _OPERATORS.items():
        setattr(Tensor, f"__i{name}__", _operator(inplace.in_place(function, f"__i{name}__")))
    methods: dict[str, Any] = {
        "__neg__": elementwise.neg,
        "__pos__": elementwise.positive,
        "where": lambda self, condition, other: elementwise.where(condition, self, other),
        "polygamma": lambda self, n: special.polygamma(n, self),
        "__abs__": elementwise.abs,
        "__invert__": comparison.bitwise_not,
        "__getitem__": indexing.getitem,
        "__setitem__": inplace.setitem,
        "__iter__": _iterate,
        "__contains__": _contains,
        "broadcast_to": elementwise.expand,  # a method takes the sizes one by one as well
        "__reversed__": _reversed,
        "__dir__": lambda self: sorted(set(object.__dir__(self)) - absent.NAMES),
        "float": _converter(np.float32),
        "double": _converter(np.float64),
        "half": _converter(np.float16),
        "long": _converter(np.int64),
        "int": _converter(np.int32),
        "bool": _converter(np.bool_),
        "byte": _converter(np.uint8),
        "char": _converter(np.int8),
        "short": _converter(np.int16),
        "type_as": lambda self, other: elementwise.to(self, other.dtype),
        "cpu": lambda self: self,
    }
    for family in _FAMILIES:
        methods.update({name: getattr(family, name) for name in family.METHODS})
        for name in getattr(family, "IN_PLACE", ()):
            methods[f"{name}_"] = inplace.in_place(getattr(family, name), f"{name}_")
    for name in absent.NAMES:
        methods.setdefault(name, absent.Absent(name))
    for name, method in methods.items():
        setattr(Tensor, name, method)

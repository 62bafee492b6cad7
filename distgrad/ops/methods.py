"""Puts operators and methods on ``Tensor``: the only place where a name meets the class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..autograd import Tensor
from . import creation, elementwise, indexing, inplace, linalg, rearrange, reduction, shape, transcendental

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
    "truediv": elementwise.div,
    "pow": elementwise.pow,
    "and": elementwise.bitwise_and,
    "or": elementwise.bitwise_or,
    "xor": elementwise.bitwise_xor,
}
_COMPARISONS: dict[str, _Operator] = {name: getattr(elementwise, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
# A family lists in METHODS which of its functions are methods too, and in IN_PLACE which of them also exist as NAME_.
_FAMILIES = (
    creation,
    elementwise,
    indexing,
    inplace,
    linalg,
    rearrange,
    reduction,
    shape,
    transcendental,
)


def _iterate(self: Tensor) -> Iterator[Tensor]:
    """The slices along the first dimension."""
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(shape.unbind(self, 0))


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
    for name, function in _COMPARISONS.items():
        setattr(Tensor, f"__{name}__", _operator(function))
    for name in ("add", "sub", "mul"):
        setattr(Tensor, f"__i{name}__", _operator(inplace.in_place(_OPERATORS[name], f"__i{name}__")))
    methods: dict[str, Any] = {
        "__itruediv__": _operator(inplace.in_place(elementwise.div, "__itruediv__")),
        "__neg__": elementwise.neg,
        "__abs__": elementwise.abs,
        "__invert__": elementwise.bitwise_not,
        "__matmul__": linalg.matmul,
        "__getitem__": indexing.getitem,
        "__setitem__": inplace.setitem,
        "__iter__": _iterate,
        "float": _converter(np.float32),
        "double": _converter(np.float64),
        "half": _converter(np.float16),
        "long": _converter(np.int64),
        "int": _converter(np.int32),
        "bool": _converter(np.bool_),
        "T": property(lambda self: shape.permute(self, tuple(range(self.ndim))[::-1])),
        "mT": property(lambda self: shape.transpose(self, -2, -1)),
        "type_as": lambda self, other: elementwise.to(self, other.dtype),
        "view_as": lambda self, other: shape.view(self, tuple(other.shape)),
        "reshape_as": lambda self, other: shape.reshape(self, tuple(other.shape)),
        "expand_as": lambda self, other: elementwise.broadcast_to(self, tuple(other.shape)),
        "cpu": lambda self: self,
    }
    for family in _FAMILIES:
        methods.update({name: getattr(family, name) for name in family.METHODS})
        for name in getattr(family, "IN_PLACE", ()):
            methods[f"{name}_"] = inplace.in_place(getattr(family, name), f"{name}_")
    for name, method in methods.items():
        setattr(Tensor, name, method)

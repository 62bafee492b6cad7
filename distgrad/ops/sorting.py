"""Elements in order, and the largest or smallest of them. Gradients go back to where an element came from.

NaN counts as larger than everything, and equal elements keep their order, as in PyTorch on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from . import return_types
from .dims import dim_argument, int_argument, numpy_names
from .largest import picking

__all__ = [  # what distgrad itself offers
    "argsort",
    "msort",
    "sort",
    "topk",
]
METHODS = "argsort msort sort topk".split()  # what a Tensor offers


def _order(input: Array, dim: int, descending: bool) -> Array:
    if not input.ndim:
        return np.zeros((), np.int64)
    if not descending:
        return np.argsort(input, axis=dim, kind="stable")
    # Turned round twice: negating would not order unsigned integers, nor keep equal elements in order.
    last: Array = np.flip(np.argsort(np.flip(input, dim), axis=dim, kind="stable"), dim)
    return np.ascontiguousarray(input.shape[dim] - 1 - last)


def _first(order: Array, k: int, dim: int) -> Any:
    return order[(slice(None),) * dim + (slice(0, k),)]


def _order_of_largest(input: Array, k: int, dim: int, largest: bool, ordered: bool) -> Array:
    """Where the ``k`` largest (or smallest) stand, in order."""
    if not input.ndim:
        return np.zeros((), np.int64)
    length = input.shape[dim]
    if not 0 < 4 * k < length:
        return np.ascontiguousarray(_first(_order(input, dim, largest), k, dim))
    # A few of many: only these have to be sorted.
    apart = np.argpartition(input, length - k if largest else k - 1, axis=dim)
    places = np.sort(_first(np.flip(apart, dim) if largest else apart, k, dim), axis=dim)
    if not ordered:
        return places
    return np.take_along_axis(places, _order(np.take_along_axis(input, places, dim), dim, largest), dim)


_sort, _topk = picking("Sort"), picking("Topk")
_argsort: Primitive = define("Argsort", _order, ("input",))
_argtopk: Primitive = define("Argtopk", _order_of_largest, ("input",))


@numpy_names
def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> return_types.Named:
    """The elements along ``dim`` in order, as ``torch.sort``.

    Args:
        input: any dtype.
        dim: along which to sort.
        descending: the largest first; NaN is larger than everything.
        stable: keep equal elements in their order, which is always done here.

    Returns:
        ``values``, of the shape of ``input``, and ``indices`` (int64): where in ``input`` each stood.

    Raises:
        IndexError: ``dim`` is out of range.
        TypeError: ``dim`` is no integer.
    """
    axis = dim_argument("sort", dim, input.ndim)
    indices = _argsort(input, dim=axis, descending=bool(descending))
    return return_types.sort((_sort(input, indices, dim=axis, keepdim=True), indices))


@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that ``sort`` returns. int64."""
    out: Tensor = _argsort(input, dim=dim_argument("argsort", dim, input.ndim), descending=bool(descending))
    return out


@numpy_names
def msort(input: Tensor) -> Tensor:
    """The elements in order along the first dimension."""
    return sort(input, 0)[0]


@numpy_names
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> return_types.Named:
    """The ``k`` largest (or smallest) elements along ``dim``, as ``torch.topk``.

    Args:
        input: any dtype but bool.
        k: how many.
        dim: along which to look.
        largest: the largest, NaN before all; else the smallest.
        sorted: in order; else in any.

    Returns:
        ``values``, with length ``k`` along ``dim``, and ``indices`` (int64): where in ``input`` they stand.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: there are not so many elements; bools.
        TypeError: ``k`` or ``dim`` is no integer.
    """
    k = int_argument("topk", "k", k, 2)
    if input.dtype == np.bool_:
        raise RuntimeError("topk does not support bool dtypes; call int() first")
    axis = dim_argument("topk", dim, input.ndim, position=3)
    available = input.shape[axis] if input.ndim else 1
    if not 0 <= k <= available:
        raise RuntimeError(f"selected index k out of range: k is {k}, dimension {axis} has {available} elements")
    indices = _argtopk(input, k=k, dim=axis, largest=bool(largest), ordered=bool(sorted))
    return return_types.topk((_topk(input, indices, dim=axis, keepdim=True), indices))

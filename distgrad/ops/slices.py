"""Whole slices along a dimension, named by a vector of positions: taken, added, overwritten or filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.scatter import add_at, are_distinct
from .arguments import number, number_in, tensor_argument
from .elementwise import _where, mul
from .promotion import cast
from .samples import all_values, check_values, is_captured
from .shape import normalize_dim, reshape

__all__ = [  # what distgrad itself offers
    "index_add",
    "index_copy",
    "index_fill",
    "index_select",
]
METHODS = (  # what a Tensor offers
    "index_add index_copy index_fill index_select"
).split()
IN_PLACE = "index_add index_copy index_fill".split()  # of these, what also exists as NAME_


def _at(dim: int, index: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * dim, index)


def _with_slices(input: Any, index: Any, source: Any, dim: int) -> Any:
    out = input.copy()
    out[_at(dim, index)] = source  # of several slices for one place NumPy keeps the last
    return out


def _array_of(x: Any) -> Any:
    return x._data if isinstance(x, Tensor) else x


def _unique(index: Any) -> Any:
    return np.unique(_array_of(index))


def _kept(g: Any, index: Any, dim: int, length: int) -> Any:
    """The gradient of slices that were written: zero where a later one was written to the same place."""
    places = _array_of(index)
    taken = _index_select(g, index, dim=dim)
    if are_distinct(places, length):
        return taken
    order = np.arange(places.size)
    last = np.zeros(length, np.int64)
    last[places] = order
    mask = (last[places] == order).reshape((-1,) + (1,) * (g.ndim - dim - 1))
    return _where(mask, taken, 0.0)


_index_select: Primitive = define(
    "IndexSelect",
    lambda input, index, dim: np.take(input, index, axis=dim),
    ("input", "index"),
    input=lambda g, index, input_shape, dim: _add_slices(g, index, shape=input_shape, dim=dim),
)
_add_slices: Primitive = define(  # the adjoint of index_select: slices added into zeros
    "IndexSelectAdjoint",
    lambda input, index, shape, dim: add_at(shape, _at(dim, index), input),
    ("input", "index"),
    input=lambda g, index, dim: _index_select(g, index, dim=dim),
)
_index_add: Primitive = define(
    "IndexAdd",
    lambda input, index, source, dim: add_at(input.shape, _at(dim, index), source, input),
    ("input", "index", "source"),
    input=lambda g: g,
    source=lambda g, index, dim: _index_select(g, index, dim=dim),
)
_index_copy: Primitive = define(
    "IndexCopy",
    _with_slices,
    ("input", "index", "source"),
    input=lambda g, index, dim: _index_fill(g, index, np.zeros((), g.dtype), dim=dim),
    source=lambda g, index, input_shape, dim: _kept(g, index, dim, input_shape[dim]),
)
_index_fill: Primitive = define(
    "IndexFill",
    _with_slices,
    ("input", "index", "value"),
    input=lambda g, index, dim: _index_fill(g, index, np.zeros((), g.dtype), dim=dim),
    value=lambda g, index, dim: _index_select(g, _unique(index), dim=dim).sum(),
)


def _is_long(index: Tensor) -> bool:
    """Whether ``index`` is of one of the dtypes that most operations take for positions."""
    return index.dtype in (np.int32, np.int64)


def _check_positions(index: Tensor, lowest: int, size: int, error: Callable[[int], Exception]) -> None:
    """Raises ``error(position)`` for a position that is below ``lowest`` or not below ``size``, if there is one."""

    def check(values: Array) -> None:
        if values.size and (values.min() < lowest or values.max() >= size):
            raise error(int(values.max()) if values.min() >= lowest else int(values.min()))

    check_values(check, index)


def _counted_from_front(index: Tensor, length: int) -> Tensor:
    """Positions along a dimension of ``length``, of which negative ones count from the end."""
    if not is_captured(index) and not (all_values(index) < 0).any():
        return index
    out: Tensor = _where(index < 0, index + length, index)
    return out


def _as_vector(x: Tensor) -> Tensor:
    """PyTorch takes a tensor without dimensions for one element along dimension 0."""
    return x if x.ndim else reshape(x, (1,))


def _length(input: Tensor, axis: int) -> int:
    return input.shape[axis] if input.ndim else 1


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of ``dim`` at the positions in the vector ``index`` (int32 or int64); a copy.

    Raises:
        IndexError: ``index`` is no vector, or a position lies outside.
        RuntimeError: another dtype of ``index``, or several positions in a tensor without dimensions.
    """
    axis = normalize_dim(dim, tensor_argument(input, "index_select").ndim)
    if index.ndim > 1:
        raise IndexError(f"index_select(): Index is supposed to be a vector, but its shape is {list(index.shape)}")
    if not _is_long(index):
        raise RuntimeError(f"index_select(): Expected dtype int32 or int64 for index, got {index.dtype}")
    if not input.ndim and index.numel() != 1:
        raise RuntimeError(f"index_select(): Index to scalar can have only 1 value, got {index.numel()} value(s)")
    size = _length(input, axis)
    _check_positions(
        index,
        0,
        size,
        lambda wrong: IndexError(f"index out of range in self: {wrong} in dimension {axis} with size {size}"),
    )
    out: Tensor = _index_select(_as_vector(input), _as_vector(index), dim=axis)
    return out if input.ndim else reshape(out, ())


def _others(x: Tensor, axis: int) -> list[int]:
    return [n for d, n in enumerate(x.shape) if d != axis]


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """A copy of ``input`` with ``alpha`` times the slices of ``source`` added at the positions in ``index``; positions
    named several times get the sum.

    Args:
        input: any dtype.
        dim: the dimension that ``index`` counts along.
        index: positions, a vector of int32 or int64.
        source: in the dtype of ``input``, with one slice along ``dim`` for each position.
        alpha: a factor.

    Raises:
        IndexError: ``dim`` is out of range, or ``index`` has more than one dimension.
        RuntimeError: dtypes or shapes do not fit, or a position lies outside.
    """
    axis = normalize_dim(dim, tensor_argument(input, "index_add").ndim)
    tensor_argument(source, "index_add", "source", 4)
    if index.ndim > 1:
        raise IndexError(f"index_add(): Index is supposed to be a vector, but got dim: {index.ndim}")
    if not _is_long(index):
        raise RuntimeError(f"index_add(): Expected dtype int32/int64 for index but got: {index.dtype}")
    if source.dtype != input.dtype:
        raise RuntimeError(
            f"index_add(): self ({input.dtype}) and source ({source.dtype}) must have the same scalar type"
        )
    if index.numel() != _length(source, axis if axis < max(source.ndim, 1) else 0):
        raise RuntimeError(
            f"index_add(): Number of indices ({index.numel()}) should be equal to source.size(dim): "
            f"({list(source.shape)}), for dim: {axis}"
        )
    if source.ndim != input.ndim or _others(source, axis) != _others(input, axis):
        raise RuntimeError(
            "source tensor shape must match self tensor shape, excluding the specified dimension. Got self.shape = "
            f"{list(input.shape)} source.shape = {list(source.shape)}"
        )
    size = _length(input, axis)
    _check_positions(
        index,
        0,
        size,
        lambda wrong: RuntimeError(
            f"index {wrong} is out of bounds for dimension {axis} with size {size} (index_add())"
        ),
    )
    if alpha != 1:
        source = mul(source, number_in(number(alpha, "index_add", "alpha", 5), input.dtype))
    out: Tensor = _index_add(_as_vector(input), _as_vector(index), _as_vector(source), dim=axis)
    return out if input.ndim else reshape(out, ())


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of ``input`` with the slices at the positions in ``index`` replaced by those of ``source``; of several for
    one position the last is kept, and the gradient of the others is zero.

    Args:
        input: any dtype.
        dim: the dimension that ``index`` counts along.
        index: positions, a vector of int64.
        source: in the dtype of ``input``, with one slice along ``dim`` for each position.

    Raises:
        IndexError: ``dim`` or a position is out of range, or there are not as many positions as slices.
        RuntimeError: dtypes or slices do not fit.
    """
    axis = normalize_dim(dim, tensor_argument(input, "index_copy").ndim)
    tensor_argument(source, "index_copy", "source", 4)
    if index.ndim > 1:
        raise IndexError(f"index_copy(): Index should have dimension 1 or 0 (got {index.ndim})")
    if index.dtype != np.int64:
        raise RuntimeError(f"index_copy(): Expected a long tensor for index, but got {index.dtype}")
    if source.dtype != input.dtype:
        raise RuntimeError(
            f"index_copy(): self and source expected to have the same dtype, but got (self) {input.dtype} and (source) "
            f"{source.dtype}"
        )
    if source.ndim and input.ndim and source.ndim != input.ndim:
        raise IndexError(
            "index_copy(): When source and destination are not scalars, their dimensionality must match. Source "
            f"dimensionality ({source.ndim}), destination dimensionality ({input.ndim})"
        )
    whole, slices = _as_vector(input), _as_vector(source)
    if slices.ndim == whole.ndim and _others(slices, axis) != _others(whole, axis):
        raise RuntimeError(
            "index_copy(): Source/destination tensor must have same slice shapes. Destination slice shape: "
            f"{_others(whole, axis)} at dimension {axis} and source slice shape: {_others(slices, axis)} at dimension "
            f"{axis}."
        )
    if index.numel() != _length(source, axis if source.ndim else 0):
        raise IndexError(
            f"index_copy(): Number of indices ({index.numel()}) should be equal to source.size(dim) "
            f"({_length(source, axis if source.ndim else 0)})"
        )
    size = whole.shape[axis]
    _check_positions(
        index,
        0,
        size,
        lambda wrong: IndexError(f"index_copy(): index {wrong} is out of bounds for dimension {axis} with size {size}"),
    )
    out: Tensor = _index_copy(whole, _as_vector(index), slices, dim=axis)
    return out if input.ndim else reshape(out, ())


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of ``input`` with ``value`` in the slices at the positions in ``index``.

    Args:
        input: any dtype.
        dim: the dimension that ``index`` counts along.
        index: positions, a vector of int64; negative ones count from the end.
        value: a number or a tensor without dimensions.

    Raises:
        IndexError: ``dim`` or a position is out of range, or another dtype of ``index``.
        RuntimeError: ``index`` or ``value`` has too many dimensions, or ``value`` does not fit into the dtype.
    """
    axis = normalize_dim(dim, tensor_argument(input, "index_fill").ndim)
    if index.dtype != np.int64:
        raise IndexError(f"index_fill(): Expected dtype int64 for index, but got {index.dtype}.")
    if index.ndim > 1:
        raise RuntimeError(f"index_fill(): Index has to be a vector/scalar, but its shape is {list(index.shape)}")
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(
                f"index_fill only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s)."
            )
        filling = cast(value, input.dtype)
    else:
        filling = number_in(number(value, "index_fill", "value", 4), input.dtype)
    whole, places = _as_vector(input), _as_vector(index)
    length = whole.shape[axis]
    _check_positions(
        index,
        -length,
        length,
        lambda wrong: IndexError(f"index {wrong} is out of bounds for dimension {axis} with size {length}"),
    )
    places = _counted_from_front(places, length)
    out: Tensor = _index_fill(whole, places, filling, dim=axis)
    return out if input.ndim else reshape(out, ())

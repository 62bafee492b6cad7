"""``x[index]``: slices are views, positions and masks in tensors give copies; and what is written that way.

An index is taken in two steps, as PyTorch does. First come its integers, slices and None, which give a view
(``Slice``). What is left are arrays of positions, each for one dimension of that view, which are picked together
(``Index``). NumPy takes the two in one step and counts integers among the arrays, so that ``x[0, :, [1, 2]]`` has
another shape there.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive, define
from ..autograd.shortcut import viewer
from ..kernels.scatter import add_at, are_distinct
from .arguments import tensor_argument
from .creation import _array
from .elementwise import _where, sum_to

__all__ = [  # what distgrad itself offers
    "argwhere",
    "index_put",
    "nonzero",
]
METHODS = (  # what a Tensor offers
    "argwhere index_put nonzero"
).split()
IN_PLACE = ["index_put"]  # of these, what also exists as NAME_

# Slices --------------------------------------------------------------------------------------------------------------


def _embedded(input: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
    """``_surrounded``, without a copy where there is nothing around: a slice leaves elements in their order."""
    return input.reshape(shape) if input.size == math.prod(shape) else _surrounded(input, shape, index)


def _surrounded(input: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
    out = np.zeros(shape, input.dtype)
    out[index] = input
    return out


_slice: Primitive = define(
    "Slice",
    lambda input, index: input[index],
    ("input",),
    view=True,
    input=lambda g, input_shape, index: (
        _embedded(g, input_shape, index) if type(g) is np.ndarray else _slice_adjoint(g, shape=input_shape, index=index)
    ),
)
_sliced = viewer(_slice, "index")
_slice_adjoint: Primitive = define(  # zeros around
    "SliceAdjoint", _surrounded, ("input",), input=lambda g, index: _slice(g, index=index)
)

# Positions -----------------------------------------------------------------------------------------------------------


def _arrays(index: tuple[Any, ...]) -> list[int]:
    return [d for d, part in enumerate(index) if not isinstance(part, slice)]


def _is_mask(index: tuple[Any, ...]) -> bool:
    return bool(index[-1].dtype == np.bool_)


def _picked(input: Any, index: tuple[Any, ...]) -> Any:
    found = _arrays(index)
    if len(found) == 1 and input.flags.c_contiguous and index[-1].ndim and not _is_mask(index):
        return np.take(input, index[-1], axis=found[0])
    return np.ascontiguousarray(input[index])  # NumPy lays out some results in another order


def _added(input: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
    return _surrounded(input, shape, index) if _is_mask(index) else add_at(shape, index, input)


_index: Primitive = define(
    "Index",
    _picked,
    ("input",),
    input=lambda g, input_shape, index: _index_adjoint(g, shape=input_shape, index=index),
)
_index_adjoint: Primitive = define(  # what was picked, added into zeros
    "IndexAdjoint", _added, ("input",), input=lambda g, index: _index(g, index=index)
)


def _written(input: Any, values: Any, index: tuple[Any, ...]) -> Any:
    out = input.copy()
    out[index] = values
    return out


def _kept(g: Any, shape: tuple[int, ...], values_shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
    """The gradient of values that were written: zero where a later one was written to the same place."""
    taken = _index(g, index=index)
    if not _is_mask(index):
        found = _arrays(index)
        named = np.broadcast_arrays(*(index[d] for d in found))
        places = np.zeros(named[0].shape, np.int64)
        for part, d in zip(named, found, strict=True):
            places = places * shape[d] + part
        count = int(np.prod([shape[d] for d in found], dtype=np.int64))
        if not are_distinct(places.ravel(), count):
            order, last = np.arange(places.size).reshape(places.shape), np.zeros(count, np.int64)
            last[places] = order
            front = found[0] if found[-1] - found[0] == len(found) - 1 else 0
            mask = (last[places] == order).reshape(places.shape + (1,) * (taken.ndim - front - places.ndim))
            taken = _where(mask, taken, 0.0)
    return sum_to(taken, values_shape)


_index_put: Primitive = define(
    "IndexPut",
    _written,
    ("input", "values"),
    input=lambda g, index: _index_put(g, np.zeros((), g.dtype), index=index),
    values=lambda g, input_shape, values_shape, index: _kept(g, input_shape, values_shape, index),
)
_index_put_add: Primitive = define(
    "IndexPutAdd",
    lambda input, values, index: _sum_at(input, values, index),
    ("input", "values"),
    input=lambda g: g,
    values=lambda g, values_shape, index: sum_to(_index(g, index=index), values_shape),
)


def _sum_at(input: Any, values: Any, index: tuple[Any, ...]) -> Any:
    if _is_mask(index):
        out = input.copy()
        out[index] += values
        return out
    # the shape of what is picked, without picking it
    shape = np.broadcast_to(np.empty((), np.bool_), input.shape)[index].shape
    return add_at(input.shape, index, np.broadcast_to(values, shape), input)


# From PyTorch's index to NumPy's -------------------------------------------------------------------------------------


class Index(NamedTuple):
    """An index in its two steps, with everything in it checked against a shape.

    Attributes:
        basic: integers, slices and None, for a view; None where that is the whole tensor as it is.
        advanced: for the leading dimensions of the view, slices that take all and arrays: int64 positions that are not
            negative, or a single mask; the last is an array. None where nothing is picked.
    """

    basic: tuple[Any, ...] | None
    advanced: tuple[Any, ...] | None


_ALL = slice(None)
_TYPES = "tensors used as indices must be long, int, byte or bool tensors"


def _masked(values: Any) -> Any:
    warnings.warn(
        "indexing with dtype torch.uint8 is now deprecated, please use a dtype torch.bool instead.", stacklevel=2
    )
    return values != 0


def _positions(values: Any, from_tensor: bool) -> Any:
    """An array in an index: an integer or bool where it has no dimensions, else int64 or bool."""
    kind = values.dtype.kind
    if kind == "b" or values.dtype == np.uint8:
        if not values.ndim:
            return bool(values)
        return values if kind == "b" else _masked(values)
    if from_tensor and (kind not in "iu" or (values.ndim and values.dtype not in (np.int32, np.int64))):
        raise IndexError(f"{_TYPES}, not {values.dtype}")
    return values.astype(np.int64, copy=False) if values.ndim else int(values)


def _part(item: Any) -> Any:
    """One part of an index as None, Ellipsis, an int, a bool, a slice, or an int64 or bool array with dimensions."""
    if item is None or item is Ellipsis or isinstance(item, (bool, int)):
        return item
    if isinstance(item, slice):
        start, stop, step = (None if x is None else operator.index(x) for x in (item.start, item.stop, item.step))
        if step is not None and step <= 0:
            raise ValueError(f"step must be greater than zero, but the slice is {item}")
        return slice(start, stop, step)
    if isinstance(item, Tensor):
        return _positions(item._data, True)
    if isinstance(item, np.ndarray):
        return _positions(item, False)
    if isinstance(item, Sequence):
        return _positions(_array(item, None), False)
    if hasattr(item, "__index__") and not isinstance(item, np.bool_):
        return operator.index(item)
    raise IndexError(
        "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got "
        f"{type(item).__name__})"
    )


def _parts(index: Any) -> list[Any]:
    """The parts of an index. As in PyTorch a list counts as a tuple where it holds more than numbers."""
    if isinstance(index, tuple):
        return [_part(item) for item in index]
    if isinstance(index, Sequence) and len(index) < 32:
        several = (Tensor, np.ndarray, slice, Sequence)
        if any(item is None or item is Ellipsis or isinstance(item, several) for item in index):
            warnings.warn(
                "Using a non-tuple sequence for multidimensional indexing is deprecated; use x[tuple(seq)] instead of "
                "x[seq].",
                stacklevel=4,
            )
            return [_part(item) for item in index]
    return [_part(index)]


def _consumed(part: Any) -> int:
    """How many dimensions of the tensor a part is for."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype == np.bool_ else 1


def parse_index(index: Any, shape: tuple[int, ...], own: bool = False) -> Index:
    """PyTorch's ``index`` of a tensor of ``shape`` in two steps; arrays are copies with ``own``.

    Raises:
        IndexError: a position is out of range, there are too many, a mask does not fit, arrays do not broadcast, or
            something is no index.
        ValueError: a slice with a step below 1.
        TypeError: a slice of something else than integers, or text.
    """
    parts = _parts(index)
    needed = sum(map(_consumed, parts))
    if needed > len(shape):
        if not shape:
            raise IndexError(
                "invalid index of a 0-dim tensor (too many indices for tensor of dimension 0, where slice() cannot be "
                "applied either). Use `tensor.item()` to convert a 0-dim tensor to a number"
            )
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}: {needed}")
    basic: list[Any] = []
    picked: list[tuple[int, Any]] = []  # dimensions of the view, and arrays
    masks = 0
    d = out = 0  # where we are in the tensor and in the view
    for part in parts:
        if part is None:
            basic.append(None)
            out += 1
        elif part is Ellipsis:
            rest = len(shape) - needed
            basic += [_ALL] * min(rest, len(shape) - d)  # a second one finds nothing left
            d, out = d + rest, out + rest
        elif isinstance(part, bool):
            basic.append(None)
            picked.append((out, np.zeros(1 if part else 0, np.int64)))
            out += 1
        elif d >= len(shape):
            raise IndexError(f"Dimension out of range: the index names more than {len(shape)} dimensions")
        elif isinstance(part, int):
            if not -shape[d] <= part < shape[d]:
                raise IndexError(f"index {part} is out of bounds for dimension {d} with size {shape[d]}")
            basic.append(part)
            d += 1
        elif isinstance(part, slice):
            basic.append(part)
            d, out = d + 1, out + 1
        else:
            count = _consumed(part)
            if part.dtype == np.bool_:
                if part.shape != shape[d : d + count]:
                    where = next(i for i, n in enumerate(part.shape) if shape[d + i] != n)
                    raise IndexError(
                        f"The shape of the mask {list(part.shape)} at index {where} does not match the shape of the "
                        f"indexed tensor {list(shape)} at index {d + where}"
                    )
                masks += 1
            basic += [_ALL] * count
            picked.append((out, part))
            d, out = d + count, out + count
    trivial = all(part == _ALL for part in basic)
    view = None if trivial and picked else (*basic, ...)
    if not picked:
        return Index(view, None)
    if masks and len(picked) == 1:
        place, mask = picked[0]
        return Index(view, (*(_ALL,) * place, np.array(mask) if own else mask))
    sizes = np.broadcast_to(np.empty((), np.bool_), shape)[(*basic, ...)].shape
    return Index(view, _together(picked, sizes, own))


def _together(picked: list[tuple[int, Any]], shape: tuple[int, ...], own: bool) -> tuple[Any, ...]:
    """The arrays of an index for a view of ``shape``: masks as positions, and no position negative."""
    places: dict[int, Any] = {}
    for place, array in picked:
        for d, positions in enumerate(np.nonzero(array) if array.dtype == np.bool_ else (array,)):
            places[place + d] = positions
    try:
        common = np.broadcast_shapes(*(positions.shape for positions in places.values()))
    except ValueError:
        shapes = ", ".join(str(list(positions.shape)) for positions in places.values())
        raise IndexError(
            f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}"
        ) from None
    if 0 not in common and any(shape[d] == 0 for d in places):
        raise IndexError("index is out of bounds for dimension with size 0")
    # what picks nothing is not looked at, as in PyTorch
    empty = 0 in common or any(n == 0 for d, n in enumerate(shape) if d not in places)
    index: list[Any] = [_ALL] * (max(places) + 1)
    for d, positions in places.items():
        index[d] = np.zeros(positions.shape, np.int64) if empty else _counted(positions, d, shape[d], own)
    return tuple(index)


def _counted(positions: Any, d: int, length: int, own: bool) -> Any:
    """Positions counted from the front; raises PyTorch's IndexError where one is out of range."""
    low, high = int(positions.min()), int(positions.max())
    if low < -length or high >= length:
        wrong = low if low < -length else high
        raise IndexError(f"index {wrong} is out of bounds for dimension {d} with size {length}")
    if low < 0:
        return np.where(positions < 0, positions + length, positions)
    return np.array(positions) if own else positions


def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]``: integers, slices, None and ``...`` give a view; int and bool tensors or lists a copy.

    Raises:
        IndexError, ValueError, TypeError: see ``parse_index``.
    """
    if index is None:
        return _sliced(input, (None, ...))
    if type(index) is int:
        shape = input._data.shape
        if shape and -shape[0] <= index < shape[0]:
            return _sliced(input, (index, ...))
    batching: Any = None if type(index) is int else mode.state.batching
    if batching is not None and batching.has_batched_positions(index):
        picked: Tensor = batching.getitem(input, index)
        return picked
    # an array that the backward pass needs must not be changed by the user in between
    basic, advanced = parse_index(index, input._data.shape, own=input.requires_grad and mode.enabled)
    out = input if basic is None else _sliced(input, basic)
    result: Tensor = out if advanced is None else _index(out, index=advanced)
    return result


def index_put(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of ``input`` with ``values`` at the places that ``input[indices]`` picks.

    Args:
        input: any dtype.
        indices: integer or bool tensors, as many as ``input`` has dimensions or fewer.
        values: in the dtype of ``input``, of a shape that broadcasts to that of ``input[indices]``.
        accumulate: add to what is there, places named several times get the sum. Without it the last of several is
            kept, and the gradient of the others is zero.

    Raises:
        TypeError: something else than tensors.
        IndexError: as of ``input[indices]``.
        RuntimeError: another dtype of ``values``, or a shape that does not broadcast.
    """
    tensor_argument(input, "index_put")
    if not isinstance(indices, (tuple, list)):
        raise TypeError(
            f"index_put(): argument 'indices' (position 2) must be tuple of Tensors, not {type(indices).__name__}"
        )
    for number, one in enumerate(indices):
        tensor_argument(one, "index_put", f"indices[{number}]", 2)
    tensor_argument(values, "index_put", "values", 3)
    if values.dtype != input.dtype:
        raise RuntimeError(
            f"Index put requires the source and destination dtypes match, got {input.dtype} for the destination and "
            f"{values.dtype} for the source."
        )
    if not indices:
        raise RuntimeError("index_put(): indices is empty; give a tensor for at least one dimension")
    batching: Any = mode.state.batching
    if batching is not None and batching.has_batched_positions(tuple(indices)):
        written: Tensor = batching.index_put(input, indices, values, accumulate)
        return written
    # 0-d tensors are positions like others here
    listed = tuple(one._data.reshape(1) if not one.ndim and one.dtype.kind in "iu" else one for one in indices)
    basic, advanced = parse_index(listed, input._data.shape, own=True)
    if basic is not None or advanced is None:
        raise IndexError("index_put(): a mask without dimensions cannot be used here; use input[mask] = values")
    picked = np.broadcast_to(np.empty((), np.bool_), input._data.shape)[advanced].shape
    try:
        fits = np.broadcast_shapes(values._data.shape, picked) == picked
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(values.shape)} cannot be broadcast to indexing result of "
            f"shape {list(picked)}"
        )
    out: Tensor = (_index_put_add if accumulate else _index_put)(input, values, index=advanced)
    return out


# What is not zero ----------------------------------------------------------------------------------------------------


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of the elements that are not zero (NaN counts), in row-major order, int64.

    Returns:
        a tensor of shape (number of them, ``input.ndim``), or with ``as_tuple`` one vector for each dimension, with
        which ``input`` can be indexed (for a tensor without dimensions, one).
    """
    array = tensor_argument(input, "nonzero")._data
    found = np.nonzero(array.reshape(array.shape or (1,)))
    if as_tuple:
        return tuple(Tensor(positions.astype(np.int64)) for positions in found)
    if not array.ndim:
        return Tensor(np.empty((found[0].size, 0), np.int64))
    return Tensor(np.stack(found, axis=1).astype(np.int64, copy=False))


def argwhere(input: Tensor) -> Tensor:
    """``nonzero`` by NumPy's name."""
    out: Tensor = nonzero(tensor_argument(input, "argwhere"))
    return out

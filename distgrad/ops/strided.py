"""Views by strides: any pattern of the memory below a tensor, and windows that slide along a dimension."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.lib.stride_tricks import as_strided as strided_array

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .arguments import integers
from .pieces import select
from .samples import is_batched
from .shape import _reshape, normalize_dim, reshape
from .slices import _add_slices, _index_select

__all__ = ["as_strided"]  # what distgrad itself offers
METHODS = (  # what a Tensor offers
    "as_strided storage_offset unfold"
).split()

# Any pattern ---------------------------------------------------------------------------------------------------------


def _storage(array: Any) -> Any:
    """All of the memory that ``array`` is a part of, as a vector of its dtype."""
    owner = array
    while True:
        # between an array made by NumPy's stride tricks and its base stands an object that holds the latter
        base = owner.base if isinstance(owner.base, np.ndarray) else getattr(owner.base, "base", None)
        if not isinstance(base, np.ndarray):
            break
        owner = base
    low, high = byte_bounds(owner)
    count = (high - low) // owner.itemsize if owner.size else 0
    return strided_array(owner, (count,), (owner.itemsize,)).view(array.dtype)


def _start(array: Any, storage: Any) -> int:
    return (int(array.ctypes.data) - int(storage.ctypes.data)) // int(array.itemsize) if array.size else 0


def _pattern(input: Any, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> tuple[Any, Any]:
    storage, width = _storage(input), input.itemsize
    geometry = (input.shape, tuple(step // width for step in input.strides), _start(input, storage))
    shares = any(step == 0 and length > 1 for step, length in zip(stride, size, strict=True))
    # as of expand: memory that stands for several elements is not to be written
    view = strided_array(
        storage[offset:],
        size,
        tuple(step * width for step in stride),
        writeable=bool(input.flags.writeable and not shares),
    )
    return view, (geometry,)


def _places(size: Sequence[int], stride: Sequence[int], offset: int) -> Any:
    """Where in the storage the elements of a pattern lie, in row-major order."""
    places = np.array([offset], np.int64)
    for length, step in zip(size, stride, strict=True):
        places = np.add.outer(places, np.arange(length, dtype=np.int64) * step).reshape(-1)
    return places


def _gather_pattern(g: Any, geometry: Any, size: Any, stride: Any, offset: int) -> Any:
    """The gradient goes into a storage of its own, and from there to the elements that lie in the same places."""
    shape, _, _ = geometry
    whence, where = _places(size, stride, offset), _places(*geometry)
    low = min((int(places.min()) for places in (whence, where) if places.size), default=0)
    high = max((int(places.max()) for places in (whence, where) if places.size), default=-1)
    count = high - low + 1
    storage = _add_slices(_reshape(g, shape=(whence.size,)), whence - low, shape=(count,), dim=0)
    picked = _index_select(storage, where - low, dim=0)
    owners = np.bincount(where - low, minlength=count)[where - low]
    if (owners > 1).any():  # several elements of the input in one place share its gradient, as in PyTorch
        picked = picked / owners.astype(g.dtype)
    return _reshape(picked, shape=shape)


_as_strided: Primitive = define(
    "AsStrided",
    _pattern,
    ("input",),
    residuals=("geometry",),
    view=True,
    input=lambda g, geometry, size, stride, offset: _gather_pattern(g, geometry, size, stride, offset),
)


def storage_offset(input: Tensor) -> int:
    """How many elements of the memory that the tensor is a view of lie before its first."""
    return _start(input._data, _storage(input._data))


def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """A view of the memory of ``input``, which may be more than its own elements.

    Args:
        input: where the memory is; the gradient of its elements is the sum over where they appear in the result.
        size: the shape.
        stride: for each dimension, by how many elements of memory its neighbours are apart; not negative.
        storage_offset: which element of memory is the first, that of ``input`` without it.

    Raises:
        RuntimeError: lengths or strides are negative or not as many, or the view would leave the memory.
    """
    lengths, steps = integers((size,), "as_strided", "size"), integers((stride,), "as_strided", "stride")
    if len(lengths) != len(steps):
        raise RuntimeError(f"mismatch in length of strides and shape: {list(steps)} and {list(lengths)}")
    if any(step < 0 for step in steps):
        raise RuntimeError(f"as_strided: Negative strides are not supported at the moment, got strides: {list(steps)}")
    if any(length < 0 for length in lengths):
        raise RuntimeError(f"as_strided: Trying to create tensor with negative dimension: {list(lengths)}")
    if is_batched(input):  # where the memory is, is known further down
        of_each: Tensor = _as_strided(input, size=lengths, stride=steps, offset=storage_offset)
        return of_each
    storage = _storage(input._data)
    offset = _start(input._data, storage) if storage_offset is None else operator.index(storage_offset)
    if offset < 0:
        raise RuntimeError(f"as_strided: invalid storage offset {offset}")
    last = offset + sum((length - 1) * step for length, step in zip(lengths, steps, strict=True))
    if 0 not in lengths and last >= storage.size:
        raise RuntimeError(
            f"setStorage: sizes {list(lengths)}, strides {list(steps)}, storage offset {offset}, and itemsize "
            f"{storage.itemsize} requiring a storage size of {(last + 1) * storage.itemsize} are out of bounds for "
            f"storage of size {storage.nbytes}"
        )
    out: Tensor = _as_strided(input, size=lengths, stride=steps, offset=offset)
    return out


# Windows -------------------------------------------------------------------------------------------------------------


def _windows(input: Any, dim: int, size: int, step: int) -> Any:
    count = (input.shape[dim] - size) // step + 1
    shape = (*input.shape[:dim], count, *input.shape[dim + 1 :], size)
    if 0 in shape and not input.size:
        return input.reshape(shape)  # so that it is known as a view, which memory of no length would not tell
    strides = list(input.strides)
    return strided_array(
        input,
        shape,
        (*strides[:dim], strides[dim] * step, *strides[dim + 1 :], strides[dim]),
        writeable=bool(input.flags.writeable),
    )


def _sum_of_windows(input: Any, shape: tuple[int, ...], dim: int, step: int) -> Any:
    out = np.zeros(shape, input.dtype)
    target, windows = np.moveaxis(out, dim, -1), np.moveaxis(input, dim, -2)
    count, size = windows.shape[-2:]
    if count < size:
        for number in range(count):
            target[..., number * step : number * step + size] += windows[..., number, :]
    else:
        for place in range(size):
            target[..., place : place + (count - 1) * step + 1 : step] += windows[..., place]
    return out


_unfold: Primitive = define(
    "Unfold",
    _windows,
    ("input",),
    view=True,
    input=lambda g, input_shape, dim, step: _fold(g, shape=input_shape, dim=dim, step=step),
)
_fold: Primitive = define(  # the adjoint of unfold: windows added up
    "UnfoldAdjoint",
    _sum_of_windows,
    ("input",),
    input=lambda g, input_shape, dim, step: _unfold(g, dim=dim, size=input_shape[-1], step=step),
)


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of ``size`` elements along ``dimension``, ``step`` apart: a view with the number of windows in place
    of the dimension, and the windows as a new last one.

    Raises:
        IndexError: ``dimension`` is out of range.
        RuntimeError: a window longer than the dimension, a negative size, or a step below 1.
    """
    axis, length, apart = normalize_dim(dimension, input.ndim), operator.index(size), operator.index(step)
    available = input.shape[axis] if input.ndim else 1
    if length < 0:
        raise RuntimeError(f"size is {length} but must be >= 0")
    if length > available:
        raise RuntimeError(f"maximum size for tensor at dimension {axis} is {available} but size is {length}")
    if apart <= 0:
        raise RuntimeError(f"step is {apart} but must be > 0")
    out: Tensor = _unfold(input if input.ndim else reshape(input, 1), dim=axis, size=length, step=apart)
    return out if input.ndim else select(out, 0, 0)

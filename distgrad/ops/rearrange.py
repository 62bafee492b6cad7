"""The same elements at other places: repeated, reversed, turned or rolled. All results are copies, as in PyTorch.

The families beside it: ``shape`` keeps the order of the elements along each dimension, ``diagonal`` looks at the
diagonals of matrices, ``indexing`` takes positions from tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .arguments import integers
from .elementwise import broadcast_to, clone, sum_to
from .shape import _reshape, flatten, normalize_dim, reshape, transpose, unsqueeze
from .slices import _index_select

__all__ = [  # what distgrad itself offers
    "flip",
    "fliplr",
    "flipud",
    "repeat_interleave",
    "roll",
    "rot90",
    "tile",
]
METHODS = (  # what a Tensor offers
    "flip fliplr flipud repeat repeat_interleave roll rot90 tile"
).split()

_repeat: Primitive = define(
    "Repeat",
    lambda input, reps: np.asarray(np.tile(input, reps), order="C"),
    ("input",),
    input=lambda g, input_shape, reps: _sum_of_repeats(g, input_shape, reps),
)


def _sum_of_repeats(g: Any, shape: tuple[int, ...], reps: tuple[int, ...]) -> Any:
    lengths = ((1,) * (len(reps) - len(shape))) + shape
    # (r0*n0, r1*n1, ...) as (r0, n0, r1, n1, ...), summed to (1, n0, 1, n1, ...)
    apart = tuple(m for pair in zip(reps, lengths, strict=True) for m in pair)
    once = tuple(m for n in lengths for m in (1, n))
    return _reshape(sum_to(_reshape(g, shape=apart), once), shape=shape)


_flip: Primitive = define(
    "Flip",
    # a copy, because nothing else of PyTorch's meaning has negative strides
    lambda input, dims: np.flip(input, dims).copy(),
    ("input",),
    input=lambda g, dims: _flip(g, dims=dims),
)
_roll: Primitive = define(
    "Roll",
    lambda input, shifts, dims: np.roll(np.asarray(input, order="C"), shifts, dims),
    ("input",),
    input=lambda g, shifts, dims: _roll(g, shifts=tuple(-shift for shift in shifts), dims=dims),
)

# Repeated ------------------------------------------------------------------------------------------------------------


def repeat(input: Tensor, *args: Any, repeats: Any = None) -> Tensor:
    """``repeats[i]`` copies of the tensor one after another along dimension i; more repeats than dimensions add
    dimensions in front. As ``torch.Tensor.repeat``.

    Raises:
        RuntimeError: there are fewer repeats than dimensions, or one is negative.
    """
    counts = integers(args if repeats is None else (repeats,), "repeat", "repeats")
    if len(counts) < input.ndim:
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor: "
            f"{list(counts)} for shape {list(input.shape)}"
        )
    for count, length in zip(counts, (1,) * (len(counts) - input.ndim) + tuple(input.shape), strict=True):
        if count < 0:
            raise RuntimeError(
                f"Trying to create tensor with negative dimension {count * length}: repeats {list(counts)} of shape "
                f"{list(input.shape)}"
            )
    out: Tensor = _repeat(input, reps=counts)
    return out


def tile(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """As ``repeat``, but too few ``dims`` count for the last dimensions. As ``torch.tile``."""
    counts = integers(args if dims is None else (dims,), "tile", "dims")
    return repeat(input, (1,) * (input.ndim - len(counts)) + counts)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: Any = None) -> Tensor:
    """Each slice of ``dim`` so often one after another; without ``dim``, each element of the flattened tensor.

    Args:
        input: any shape; alone, a vector of counts, and the result lists each position so often.
        repeats: how often, one integer for all or an integer vector (or tensor of one element) for each.
        dim: the dimension.
        output_size: the length of the result along ``dim``, which has to be the sum of ``repeats``.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: negative counts, not one for each slice, or counts that are no integers.
    """
    if repeats is None:
        _check_counts(input, "repeat_interleave only accept 1D vector as repeat", vectors=(1,))
        return Tensor(np.repeat(np.arange(input.numel()).astype(input.dtype), input._data))
    if dim is None:
        input, dim = flatten(input), 0
    axis = normalize_dim(dim, input.ndim)
    if not input.ndim:
        raise IndexError("Dimension out of range: repeat_interleave() has no dimension to go along in a 0-dim tensor")
    length = input.shape[axis]
    if not isinstance(repeats, Tensor):
        count = operator.index(repeats)
        if count < 0:
            raise RuntimeError(f"Repeats must be non-negative, but got {count}")
        _check_total(output_size, count * length)
        size = input.shape
        wide = broadcast_to(unsqueeze(input, axis + 1), (*size[: axis + 1], count, *size[axis + 1 :]))
        out: Tensor = reshape(wide, (*size[:axis], length * count, *size[axis + 1 :]))
        return clone(out) if 1 in (length, count) or not out.numel() else out  # of one, or none, a view
    _check_counts(repeats, "repeats must be 0-dim or 1-dim tensor", vectors=(0, 1))
    if repeats.ndim and repeats.numel() not in (1, length):
        raise RuntimeError(
            "repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{repeats.numel()} and input.size({axis}) = {length}"
        )
    places = np.repeat(np.arange(length), np.broadcast_to(repeats._data, (length,)))
    _check_total(output_size, places.size)
    chosen: Tensor = _index_select(input, places, dim=axis)
    return chosen


def _check_counts(repeats: Tensor, message: str, vectors: tuple[int, ...]) -> None:
    if repeats.ndim not in vectors:
        raise RuntimeError(f"{message}, but its shape is {list(repeats.shape)}")
    if repeats.dtype not in (np.int32, np.int64):
        raise NotImplementedError(
            f"repeat_interleave() is not implemented for repeats of {repeats.dtype}: int32 or int64"
        )
    if (repeats._data < 0).any():
        raise RuntimeError(f"repeats can not be negative, but one is {repeats._data.min()}")


def _check_total(expected: Any, total: int) -> None:
    if expected is not None and operator.index(expected) != total:
        raise RuntimeError(f"allocated size does not match required size: output_size is {expected}, not {total}")


# Reversed and turned -------------------------------------------------------------------------------------------------


def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """The order of the elements reversed along ``dims``; a copy.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: a dimension is named twice.
    """
    axes: list[int] = []
    for d in integers(args if dims is None else (dims,), "flip", "dims"):
        axis = normalize_dim(d, input.ndim)
        if axis in axes:
            raise RuntimeError(f"dim {axis} appears multiple times in the list of dims")
        axes.append(axis)
    out: Tensor = _flip(input, dims=tuple(axes) if input.ndim else ())
    return out


def fliplr(input: Tensor) -> Tensor:
    """Columns (dimension 1) in reverse order; a copy."""
    if input.ndim < 2:
        raise RuntimeError(f"fliplr: Input must be >= 2-d, but it has {input.ndim} dimensions.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Rows (dimension 0) in reverse order; a copy."""
    if input.ndim < 1:
        raise RuntimeError("flipud: Input must be >= 1-d, but it has no dimensions.")
    return flip(input, 0)


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """The plane of two ``dims`` turned by ``k`` quarters, from the first towards the second; a copy.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: not two different dimensions.
    """
    plane = integers((dims,), "rot90", "dims")
    if len(plane) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(plane)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    a, b = (normalize_dim(d, input.ndim) for d in plane)
    if a == b:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {plane[0]} and dim1 = {plane[1]}")
    quarters = operator.index(k) % 4
    if quarters == 0:
        return clone(input)
    if quarters == 2:
        return flip(input, a, b)
    return transpose(flip(input, b if quarters == 1 else a), a, b)


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] = ()) -> Tensor:
    """The elements shifted along ``dims``, those beyond the end back at the start; without ``dims`` over the flattened
    tensor. As ``torch.roll``.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: there are no shifts, or not one for each dimension.
    """
    steps = integers((shifts,), "roll", "shifts")
    axes = integers((dims,), "roll", "dims")
    if not steps:
        raise RuntimeError("`shifts` required")
    if len(steps) != len(axes) and (axes or len(steps) > 1):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(axes)}")
    if axes and not input.ndim:
        raise IndexError(f"Dimension specified as {axes[0]} but tensor has no dimensions")
    if not input.numel():
        return clone(input)  # PyTorch does not look at the dimensions then
    places = tuple(normalize_dim(d, input.ndim) for d in axes)
    out: Tensor = _roll(input, shifts=steps, dims=places or None)
    return out

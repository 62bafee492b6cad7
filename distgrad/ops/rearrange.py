"""Operations that give elements other places: repeated, reversed, rolled, or chosen by the diagonal they lie on.

The families beside it: ``shape`` keeps the order of the elements along each dimension, ``indexing`` takes positions
from tensors. All results here but that of ``diagonal`` are copies, as in PyTorch.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import clone, sum_to
from .shape import _reshape, normalize_dim

__all__ = [  # what distgrad itself offers
    "diag",
    "diagonal",
    "flip",
    "roll",
    "tile",
    "tril",
    "triu",
]
METHODS = (  # what a Tensor offers
    "diag diagonal flip repeat roll tile tril triu"
).split()

_repeat: Primitive = define(
    "Repeat",
    np.tile,
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
    lambda input, shifts, dims: np.roll(input, shifts, dims),
    ("input",),
    input=lambda g, shifts, dims: _roll(g, shifts=tuple(-shift for shift in shifts), dims=dims),
)
_tril: Primitive = define(
    "Tril",
    lambda input, diagonal: np.tril(input, diagonal),
    ("input",),
    input=lambda g, diagonal: _tril(g, diagonal=diagonal),
)
_triu: Primitive = define(
    "Triu",
    lambda input, diagonal: np.triu(input, diagonal),
    ("input",),
    input=lambda g, diagonal: _triu(g, diagonal=diagonal),
)


def _writable_diagonal(input: Any, offset: int, dim1: int, dim2: int) -> Any:
    view = np.diagonal(input, offset, dim1, dim2)
    view.flags.writeable = input.flags.writeable  # NumPy's own is read-only, PyTorch's is not
    return view


def _on_diagonal(input: Any, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    out = np.zeros(shape, input.dtype)
    _writable_diagonal(out, offset, dim1, dim2)[...] = input
    return out


_diagonal: Primitive = define(
    "Diagonal",
    _writable_diagonal,
    ("input",),
    view=True,
    input=lambda g, input_shape, offset, dim1, dim2: _embed_diagonal(
        g, shape=input_shape, offset=offset, dim1=dim1, dim2=dim2
    ),
)
_embed_diagonal: Primitive = define(  # the adjoint of diagonal: zeros off it
    "DiagonalAdjoint",
    _on_diagonal,
    ("input",),
    input=lambda g, offset, dim1, dim2: _diagonal(g, offset=offset, dim1=dim1, dim2=dim2),
)


def _integers(values: tuple[Any, ...]) -> tuple[int, ...]:
    """``values`` as given one by one or as one sequence."""
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        values = tuple(values[0])
    return tuple(operator.index(n) for n in values)


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """``repeats[i]`` copies of the tensor one after another along dimension i; more repeats than dimensions add
    dimensions in front. As ``torch.Tensor.repeat``.

    Raises:
        RuntimeError: there are fewer repeats than dimensions, or one is negative.
    """
    counts = _integers(repeats)
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


def tile(input: Tensor, *dims: Any) -> Tensor:
    """As ``repeat``, but too few ``dims`` count for the last dimensions. As ``torch.tile``."""
    counts = _integers(dims)
    return repeat(input, (1,) * (input.ndim - len(counts)) + counts)


def flip(input: Tensor, *dims: Any) -> Tensor:
    """The order of the elements reversed along ``dims``; a copy."""
    axes: list[int] = []
    for d in _integers(dims):
        axis = normalize_dim(d, input.ndim)
        if axis in axes:
            raise RuntimeError(f"dim {axis} appears multiple times in the list of dims")
        axes.append(axis)
    out: Tensor = _flip(input, dims=tuple(axes) if input.ndim else ())
    return out


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] = ()) -> Tensor:
    """The elements shifted along ``dims``, those beyond the end back at the start; without ``dims`` over the flattened
    tensor. As ``torch.roll``.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: there are no shifts, or not one for each dimension.
    """
    steps = _integers((shifts,))
    axes = _integers((dims,))
    if not steps:
        raise RuntimeError("`shifts` required")
    if len(steps) != len(axes) and (axes or len(steps) > 1):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(axes)}")
    if axes and not input.ndim:
        raise IndexError(f"Dimension specified as {axes[0]} but tensor has no dimensions")
    places = tuple(normalize_dim(d, input.ndim) for d in axes)
    out: Tensor = _roll(input, shifts=steps, dims=places or None)
    return out


def _triangle(primitive: Primitive, name: str, input: Tensor, diagonal: int) -> Tensor:
    if input.ndim < 2:
        raise RuntimeError(
            f"{name}: input tensor must have at least 2 dimensions, but its shape is {list(input.shape)}"
        )
    out: Tensor = primitive(input, diagonal=operator.index(diagonal))
    return out


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrices of the last two dimensions with zeros above ``diagonal`` (0: the main one, 1: one further up)."""
    return _triangle(_tril, "tril", input, diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrices of the last two dimensions with zeros below ``diagonal`` (0: the main one, 1: one further up)."""
    return _triangle(_triu, "triu", input, diagonal)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of the matrices of ``dim1`` and ``dim2`` as the last dimension, ``offset`` columns to the right;
    a view that can be written. As ``torch.diagonal``.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: the two dimensions are the same.
    """
    rows, columns = normalize_dim(dim1, input.ndim), normalize_dim(dim2, input.ndim)
    if rows == columns:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    out: Tensor = _diagonal(input, offset=operator.index(offset), dim1=rows, dim2=columns)
    return out


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The square matrix with the vector ``input`` on its ``diagonal``, or a copy of that diagonal of a matrix."""
    offset = operator.index(diagonal)
    if input.ndim == 1:
        side = input.shape[0] + abs(offset)
        out: Tensor = _embed_diagonal(input, shape=(side, side), offset=offset, dim1=0, dim2=1)
        return out
    if input.ndim == 2:
        return clone(_diagonal(input, offset=offset, dim1=0, dim2=1))
    raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")

"""Several tensors as one: one after another, side by side, on top of each other, or along a diagonal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .arguments import tensor_argument
from .promotion import cast, result_type
from .shape import _cat, _piece, _reshape, _with_axis, atleast_1d, atleast_2d, atleast_3d, normalize_dim, reshape

__all__ = [  # what distgrad itself offers
    "block_diag",
    "cat",
    "column_stack",
    "concat",
    "concatenate",
    "dstack",
    "hstack",
    "row_stack",
    "stack",
    "vstack",
]

_block_diagonal: Primitive = define(
    "BlockDiag",
    lambda *tensors: _blocks(tensors),
    ("tensors*",),
    tensors=lambda g, index, tensors_shape: _block(g, tensors_shape, index),
)


def _blocks(tensors: tuple[Any, ...]) -> Any:
    out = np.zeros([sum(x.shape[d] for x in tensors) for d in (0, 1)], tensors[0].dtype)
    row = column = 0
    for x in tensors:
        out[row : row + x.shape[0], column : column + x.shape[1]] = x
        row, column = row + x.shape[0], column + x.shape[1]
    return out


def _block(g: Any, shapes: tuple[tuple[int, ...], ...], index: int) -> Any:
    return _piece(_piece(g, shapes, index, 0), shapes, index, 1)


# One after another ---------------------------------------------------------------------------------------------------


def _listed(name: str, tensors: Any) -> list[Tensor]:
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(
            f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not {type(tensors).__name__}"
        )
    for place, one in enumerate(tensors):
        if not isinstance(one, Tensor):
            raise TypeError(
                f"{name}(): expected Tensor as element {place} in argument 'tensors', but got {type(one).__name__}"
            )
    return list(tensors)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along ``dim``; the other dimensions must agree.

    Vectors without an element fit everywhere, as in PyTorch. The result has the common dtype of all.

    Raises:
        ValueError: no tensor.
        TypeError: something else than a tuple or list of tensors.
        RuntimeError: a tensor without dimensions, or shapes that do not agree.
        IndexError: ``dim`` is out of range.
    """
    parts = _listed("cat", tensors)
    if not parts:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    for number, part in enumerate(parts):
        if not part.ndim:
            raise RuntimeError(
                f"zero-dimensional tensor (at position {number}) cannot be concatenated; stack() takes such tensors"
            )
    dtype = result_type(*parts)
    first = next((part for part in parts if part.shape != (0,)), None)
    if first is None:  # vectors without an element, whatever dim is
        axis, shape = 0, [0]
    else:
        axis, shape = normalize_dim(dim, first.ndim), list(first.shape)
    shape[axis] = 0
    for number, part in enumerate(parts):
        if part.shape == (0,):
            parts[number] = reshape(part, tuple(shape))
            continue
        if part.ndim != len(shape):
            raise RuntimeError(
                f"Tensors must have same number of dimensions: got {len(shape)} and {part.ndim} (tensor number "
                f"{number} in the list)"
            )
        for d, (expected, n) in enumerate(zip(shape, part.shape, strict=True)):
            if d != axis and expected != n:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {axis}. Expected size {expected} but got size "
                    f"{n} for tensor number {number} in the list."
                )
    out: Tensor = _cat(*(cast(part, dtype) for part in parts), dim=axis)
    return out


def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """``cat`` by another name."""
    return cat(tensors, dim)


def concatenate(tensors: Sequence[Tensor], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """``cat`` by NumPy's name; ``axis`` is another name of ``dim``."""
    return cat(tensors, dim if axis is None else axis)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, along a new dimension ``dim``.

    Raises:
        RuntimeError: no tensor, or several shapes.
        TypeError: something else than a tuple or list of tensors.
        IndexError: ``dim`` is out of range.
    """
    parts = _listed("stack", tensors)
    if not parts:
        raise RuntimeError("stack expects a non-empty TensorList")
    for number, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(parts[0].shape)} at entry 0 and "
                f"{list(part.shape)} at entry {number}"
            )
    axis = normalize_dim(dim, parts[0].ndim + 1)
    dtype = result_type(*parts)
    size = _with_axis(parts[0].shape, axis)
    out: Tensor = _cat(*(cast(_reshape(part, shape=size), dtype) for part in parts), dim=axis)
    return out


# In named directions -------------------------------------------------------------------------------------------------


def _grown(name: str, tensors: Any, grow: Callable[..., Any]) -> list[Tensor]:
    parts = _listed(name, tensors)
    if not parts:
        raise RuntimeError(f"{name} expects a non-empty TensorList")
    return list(grow(parts))


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors side by side: along dimension 1, vectors along their only one."""
    parts = _grown("hstack", tensors, atleast_1d)
    return cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors on top of each other, vectors as rows: along dimension 0."""
    return cat(_grown("vstack", tensors, atleast_2d), 0)


def row_stack(tensors: Sequence[Tensor]) -> Tensor:
    """``vstack`` by another name."""
    return cat(_grown("row_stack", tensors, atleast_2d), 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors behind each other, vectors as (1, n, 1) and matrices as (n, m, 1): along dimension 2."""
    return cat(_grown("dstack", tensors, atleast_3d), 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors side by side, vectors as columns: along dimension 1."""
    parts = _grown("column_stack", tensors, lambda xs: [x if x.ndim > 1 else reshape(x, x.numel(), 1) for x in xs])
    return cat(parts, 1)


def block_diag(*tensors: Tensor) -> Tensor:
    """The matrices one after another on the diagonal of a matrix of zeros; vectors count as rows.

    Raises:
        RuntimeError: more than two dimensions.
    """
    for number, one in enumerate(tensors):
        if tensor_argument(one, "block_diag", "tensors", number + 1).ndim > 2:
            raise RuntimeError(
                f"torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {number} has {one.ndim} "
                "dimensions"
            )
    if not tensors:
        return Tensor(np.empty((1, 0), np.float32))
    dtype = result_type(*tensors)
    out: Tensor = _block_diagonal(*(cast(x, dtype) for x in atleast_2d(list(tensors))))
    return out

"""Elements chosen by the diagonal they lie on, and matrices made of diagonals.

Only ``diagonal`` gives a view; everything else is a copy, as in PyTorch.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import clone
from .shape import normalize_dim, reshape

__all__ = [  # what distgrad itself offers
    "diag",
    "diag_embed",
    "diagflat",
    "diagonal",
    "tril",
    "triu",
]
METHODS = (  # what a Tensor offers
    "diag diag_embed diagflat diagonal tril triu"
).split()
IN_PLACE = "tril triu".split()  # of these, what also exists as NAME_

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
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim == 2:
        return clone(_diagonal(input, offset=operator.index(diagonal), dim1=0, dim2=1))
    raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices in the dimensions ``dim1`` and ``dim2`` of the result, with the last dimension of ``input`` on the
    diagonal ``offset`` columns to the right and zeros elsewhere.

    Raises:
        IndexError: a dimension is out of range, or ``input`` has none.
        RuntimeError: the two dimensions are the same.
    """
    rows, columns = normalize_dim(dim1, input.ndim + 1), normalize_dim(dim2, input.ndim + 1)
    if rows == columns:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    shift = operator.index(offset)
    side = input.shape[-1] + abs(shift)
    shape = list(input.shape[:-1])
    for d in sorted((rows, columns)):
        shape.insert(d, side)
    out: Tensor = _embed_diagonal(input, shape=tuple(shape), offset=shift, dim1=rows, dim2=columns)
    return out


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The square matrix with all elements of ``input``, in row-major order, on its diagonal."""
    return diag_embed(reshape(input, -1), offset)

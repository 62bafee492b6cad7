"""One tensor as several: slices and pieces of a dimension, all of them views."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .arguments import integers
from .shape import _cat, _narrow, _pad, _reshape, _with_axis, normalize_dim

__all__ = [  # what distgrad itself offers
    "chunk",
    "dsplit",
    "hsplit",
    "narrow",
    "select",
    "split",
    "split_with_sizes",
    "tensor_split",
    "unbind",
    "vsplit",
]
METHODS = (  # what a Tensor offers
    "chunk dsplit hsplit narrow select split split_with_sizes tensor_split unbind vsplit"
).split()


_select: Primitive = define(
    "Select",
    # the ellipsis keeps a view where no dimension is left
    lambda input, dim, index: input[(*(slice(None),) * dim, index, ...)],
    ("input",),
    view=True,
    input=lambda g, input_shape, dim, index: _pad(
        _reshape(g, shape=_with_axis(g.shape, dim)), shape=input_shape, dim=dim, start=index
    ),
)
_unbind: Primitive = define(
    "Unbind",
    lambda input, dim: tuple(np.moveaxis(input, dim, 0)[i, ...] for i in range(input.shape[dim])),
    ("input",),
    view=True,
    multiple=True,
    input=lambda g, dim: _cat(
        *(_reshape(part, shape=_with_axis(part.shape, dim)) for part in _without_gaps(g, None)), dim=dim
    ),
)
_split: Primitive = define(
    "Split",
    lambda input, dim, lengths: tuple(
        input[(*(slice(None),) * dim, slice(*ends))]
        for ends in itertools.pairwise(itertools.accumulate(lengths, initial=0))
    ),
    ("input",),
    view=True,
    multiple=True,
    input=lambda g, dim, lengths: _cat(*_without_gaps(g, (dim, lengths)), dim=dim),
)


def _without_gaps(gradients: tuple[Any, ...], pieces: tuple[int, tuple[int, ...]] | None) -> list[Any]:
    """The gradients of all pieces, zeros where none has arrived. ``pieces``: their dimension and lengths along it."""
    known = next(g for g in gradients if g is not None)
    shapes = [known.shape] * len(gradients)
    if pieces is not None:
        dim, lengths = pieces
        shapes = [(*known.shape[:dim], length, *known.shape[dim + 1 :]) for length in lengths]
    return [np.zeros(shape, known.dtype) if g is None else g for g, shape in zip(gradients, shapes, strict=True)]


# One piece -----------------------------------------------------------------------------------------------------------


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """``length`` elements of ``dim`` from ``start`` on, which may count from the end; a view.

    Raises:
        IndexError: ``dim`` or ``start`` is out of range.
        RuntimeError: there are not so many elements, or no dimension.
    """
    if input.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    if isinstance(start, Tensor) and (start.ndim or start.dtype.kind not in "iu"):
        raise RuntimeError("start must be an 0-dim integral Tensor.")
    axis, begin, count = normalize_dim(dim, input.ndim), operator.index(start), operator.index(length)
    available = input.shape[axis]
    if count < 0:
        raise RuntimeError(f"narrow(): length must be non-negative, but got {count}.")
    if not -available <= begin <= available:
        raise IndexError(
            f"start out of range (expected to be in range of [{-available}, {available}], but got {begin})"
        )
    first = begin + available if begin < 0 else begin
    if first + count > available:
        raise RuntimeError(f"start ({first}) + length ({count}) exceeds dimension size ({available}).")
    out: Tensor = _narrow(input, dim=axis, start=first, length=count)
    return out


def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """The slice of ``dim`` at ``index``, without that dimension; a view.

    Raises:
        IndexError: ``dim`` or ``index`` is out of range, or there is no dimension.
    """
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    axis, index = normalize_dim(dim, input.ndim), operator.index(index)
    size = input.shape[axis]
    if not -size <= index < size:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(input.shape)} at dimension {axis}"
        )
    out: Tensor = _select(input, dim=axis, index=index % size)
    return out


# All pieces ----------------------------------------------------------------------------------------------------------


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, without that dimension; views."""
    if input.ndim == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    axis = normalize_dim(dim, input.ndim)
    if input.shape[axis] == 1:
        return _one_of_several(select(input, axis, 0))
    out: tuple[Tensor, ...] = _unbind(input, dim=axis)
    return out


def _one_of_several(view: Tensor) -> tuple[Tensor]:
    """The only piece, which must not be changed in place where that is recorded, as if there were others."""
    if view._view is not None:
        view._view.multiple = True
    return (view,)


def _pieces(input: Tensor, lengths: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    if len(lengths) == 1:
        return _one_of_several(narrow(input, axis, 0, lengths[0]))
    out: tuple[Tensor, ...] = _split(input, dim=axis, lengths=tuple(lengths))
    return out


def split(tensor: Tensor, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None) -> Any:
    """Pieces of equal length (the last may be shorter) or of the given lengths along ``dim``; a tuple of views.

    Args:
        tensor: at least one dimension.
        split_size_or_sections: the length, or a sequence of lengths.
        dim: the dimension to split.
        split_size: the method's name for the length or lengths.

    Raises:
        RuntimeError: no dimension, or lengths that do not add up.
        IndexError: ``dim`` is out of range.
    """
    given = split_size_or_sections if split_size is None else split_size
    if isinstance(given, (tuple, list)):
        return split_with_sizes(tensor, given, dim)
    if tensor.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    axis, size = normalize_dim(dim, tensor.ndim), operator.index(given)
    total = tensor.shape[axis]
    if size < 0:
        raise RuntimeError(f"split expects split_size be non-negative, but got split_size={size}")
    if size == 0 and total:
        raise RuntimeError(
            f"split_size can only be 0 if dimension size is 0, but got dimension size of {total}; split expects a "
            "positive split_size"
        )
    return _pieces(tensor, [min(size, total - start) for start in range(0, total, size or 1)] or [0], axis)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the given lengths along ``dim``, which have to add up to its length; views."""
    if input.ndim == 0:
        raise RuntimeError("split_with_sizes expects at least a 1-dimensional tensor")
    axis, lengths = normalize_dim(dim, input.ndim), integers((split_sizes,), "split_with_sizes", "split_sizes")
    if any(length < 0 for length in lengths):
        raise RuntimeError(
            f"split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes={list(lengths)}"
        )
    if sum(lengths) != input.shape[axis]:
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {input.shape[axis]} (input tensor's size at "
            f"dimension {dim}), but got split_sizes={list(lengths)}"
        )
    return _pieces(input, lengths, axis)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal length (the last may be shorter) along ``dim``, as ``torch.chunk``."""
    if input.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if operator.index(chunks) <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    total = input.shape[normalize_dim(dim, input.ndim)]
    # of nothing there are as many pieces as asked for
    out: tuple[Tensor, ...] = split(input, -(-total // chunks) if total else [0] * chunks, dim)
    return out


def tensor_split(
    input: Tensor, indices_or_sections: Any = None, dim: int = 0, *, indices: Any = None, sections: Any = None
) -> tuple[Tensor, ...]:
    """Pieces between the positions given, or so many pieces whose lengths differ by at most one; views.

    Args:
        input: at least one dimension.
        indices_or_sections: positions, a sequence or an integer vector, cut to the dimension as slices are; or a
            number of pieces, an integer or an integer tensor without dimensions.
        dim: the dimension to split.
        indices: positions, by name.
        sections: a number of pieces, by name.

    Raises:
        RuntimeError: no dimension, a number of pieces below 1, or a tensor that is no integer vector.
        IndexError: ``dim`` is out of range.
    """
    given: Any = next((x for x in (indices_or_sections, indices, sections) if x is not None), None)
    if input.ndim == 0:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    axis = normalize_dim(dim, input.ndim)
    total = input.shape[axis]
    if isinstance(given, Tensor):
        if given.dtype != np.int64:
            raise RuntimeError(
                f"tensor_split expected tensor_indices_or_sections to have dtype of long, but got {given.dtype}"
            )
        if given.ndim > 1:
            raise RuntimeError(
                "tensor_split expected tensor_indices_or_sections to be a zero-dimensional or one-dimensional tensor, "
                f"but got a tensor with {given.ndim} dims"
            )
        given = given.tolist()
    if isinstance(given, (tuple, list)):
        bounds = [slice(at).indices(total)[1] for at in integers((given,), "tensor_split", "indices")]
    else:
        count = operator.index(given)
        if count <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {count}")
        short, longer = divmod(total, count)
        bounds = list(itertools.accumulate(short + (number < longer) for number in range(count - 1)))
    # Positions that go back give pieces that overlap. Each is a view of its own, which may be changed in place.
    ends = itertools.pairwise([0, *bounds, total])
    return tuple(narrow(input, axis, start, max(stop - start, 0)) for start, stop in ends)


def _split_along(name: str, input: Tensor, least: int, dim: int, given: Any) -> tuple[Tensor, ...]:
    if input.ndim < least:
        raise RuntimeError(
            f"torch.{name} requires a tensor with at least {least} dimension, but got a tensor with {input.ndim} "
            "dimensions!"
        )
    if not isinstance(given, (tuple, list)):
        size, count = input.shape[dim], operator.index(given)
        if count <= 0 or size % count:
            raise RuntimeError(
                f"torch.{name} attempted to split along dimension {dim}, but the size of the dimension {size} is not "
                f"divisible by the split_size {count}!"
            )
    return tensor_split(input, given, dim)


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """``tensor_split`` into columns: along dimension 1, vectors along their only one; equal pieces for a number."""
    return _split_along("hsplit", input, 1, 0 if input.ndim < 2 else 1, indices_or_sections)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """``tensor_split`` into rows: along dimension 0 of at least two; equal pieces for a number."""
    return _split_along("vsplit", input, 2, 0, indices_or_sections)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """``tensor_split`` along dimension 2 of at least three; equal pieces for a number."""
    return _split_along("dsplit", input, 3, 2, indices_or_sections)

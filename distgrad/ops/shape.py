"""Operations that rearrange: views wherever NumPy can give one, and their adjoints."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import clone
from .promotion import cast, result_type

__all__ = [  # what distgrad itself offers
    "cat",
    "chunk",
    "flatten",
    "movedim",
    "narrow",
    "permute",
    "reshape",
    "select",
    "split",
    "squeeze",
    "stack",
    "t",
    "transpose",
    "unbind",
    "unsqueeze",
]
METHODS = (  # what a Tensor offers
    "chunk contiguous flatten movedim narrow permute reshape select split squeeze t transpose unbind unsqueeze view"
).split()

_reshape: Primitive = define(
    "View",
    lambda input, shape: input.reshape(shape),
    ("input",),
    view=True,
    input=lambda g, input_shape: _reshape(g, shape=input_shape),
)
_permute: Primitive = define(
    "Permute",
    lambda input, dims: input.transpose(dims),
    ("input",),
    view=True,
    input=lambda g, dims: _permute(g, dims=tuple(int(i) for i in np.argsort(dims))),
)
_cat: Primitive = define(
    "Cat",
    lambda *tensors, dim: np.concatenate(tensors, axis=dim),
    ("tensors*",),
    tensors=lambda g, index, tensors_shape, dim: _piece(g, tensors_shape, index, dim),
)
_unbind: Primitive = define(
    "Unbind",
    lambda input, dim: tuple(np.moveaxis(input, dim, 0)[i, ...] for i in range(input.shape[dim])),
    ("input",),
    view=True,
    multiple=True,
    input=lambda g, dim: _stack_gradients(g, dim),
)
_narrow: Primitive = define(
    "Narrow",
    lambda input, dim, start, length: input[(slice(None),) * dim + (slice(start, start + length),)],
    ("input",),
    view=True,
    input=lambda g, input_shape, dim, start: _pad(g, shape=input_shape, dim=dim, start=start),
)
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


def _embed(input: Any, shape: tuple[int, ...], dim: int, start: int) -> Any:
    out = np.zeros(shape, input.dtype)
    out[(slice(None),) * dim + (slice(start, start + input.shape[dim]),)] = input
    return out


_pad: Primitive = define(  # the adjoint of narrow: zeros around
    "NarrowAdjoint",
    _embed,
    ("input",),
    input=lambda g, input_shape, dim, start: _narrow(g, dim=dim, start=start, length=input_shape[dim]),
)


def _piece(g: Any, shapes: tuple[tuple[int, ...], ...], index: int, dim: int) -> Any:
    start = sum(shape[dim] for shape in shapes[:index])
    return _narrow(g, dim=dim, start=start, length=shapes[index][dim])


def _stack_gradients(gradients: tuple[Any, ...], dim: int) -> Any:
    known = next(g for g in gradients if g is not None)
    nothing = np.zeros(known.shape, known.dtype)
    filled = [nothing if g is None else g for g in gradients]
    return _cat(*(_reshape(g, shape=_with_axis(g.shape, dim)) for g in filled), dim=dim)


def _with_axis(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], 1, *shape[dim:])


def normalize_dim(dim: int, ndim: int) -> int:
    """``dim`` counted from the front; raises PyTorch's IndexError when it is out of range."""
    limit = max(ndim, 1)
    if not -limit <= dim < limit:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got {dim})")
    return dim % limit


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return tuple(int(n) for n in shape)


def _resolve(input: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Fills in a -1, and checks the number of elements."""
    known = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
    missing = shape.count(-1)
    if missing > 1:
        raise RuntimeError("only one dimension can be inferred")
    if missing and known and input.numel() % known == 0:
        return tuple(input.numel() // known if n == -1 else n for n in shape)
    if missing or known != input.numel() or any(n < -1 for n in shape):
        if missing and not known:
            raise RuntimeError(
                f"cannot reshape tensor of {input.numel()} elements into shape {list(shape)} because the unspecified "
                "dimension size -1 can be any value and is ambiguous"
            )
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {input.numel()}")
    return shape


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The elements in row-major order as ``shape`` (one length may be -1); a view where the strides allow it."""
    out: Tensor = _reshape(input, shape=_resolve(input, _sizes(shape)))
    return out


def view(input: Tensor, *shape: Any) -> Tensor:
    """``reshape`` that refuses to copy."""
    target = _resolve(input, _sizes(shape))
    try:
        np.reshape(input._data, target, copy=False)
    except ValueError:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        ) from None
    out: Tensor = _reshape(input, shape=target)
    return out


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions ``start_dim`` to ``end_dim`` (inclusive) as one."""
    start, end = normalize_dim(start_dim, input.ndim), normalize_dim(end_dim, input.ndim)
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    shape = input.shape
    # the length is written out, not -1, so that an empty batch keeps its other dimensions
    middle = int(np.prod(shape[start : end + 1], dtype=np.int64))
    return reshape(input, (*shape[:start], middle, *shape[end + 1 :]))


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the dimensions of length 1, or without ``dim`` where its length is 1."""
    if dim is None:
        return reshape(input, tuple(n for n in input.shape if n != 1))
    dims = {normalize_dim(d, input.ndim) for d in ([dim] if isinstance(dim, int) else dim)}
    return reshape(input, tuple(n for i, n in enumerate(input.shape) if i not in dims or n != 1))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of length 1 at ``dim``."""
    return reshape(input, _with_axis(input.shape, normalize_dim(dim, input.ndim + 1)))


def permute(input: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order."""
    order = [normalize_dim(d, input.ndim) for d in _sizes(dims)]
    if sorted(order) != list(range(input.ndim)):
        raise RuntimeError(
            f"permute(dims): {list(_sizes(dims))} is not an ordering of the {input.ndim} dimensions of the tensor"
        )
    out: Tensor = _permute(input, dims=tuple(order))
    return out


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    order = list(range(input.ndim))
    if input.ndim:
        a, b = normalize_dim(dim0, input.ndim), normalize_dim(dim1, input.ndim)
        order[a], order[b] = order[b], order[a]
    out: Tensor = _permute(input, dims=tuple(order))
    return out


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The dimensions ``source`` at the places ``destination``, the others in their order; a view.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: the two differ in number, or one of them names a dimension twice.
    """
    given = {
        "source": [source] if isinstance(source, int) else list(source),
        "destination": [destination] if isinstance(destination, int) else list(destination),
    }
    if len(given["source"]) != len(given["destination"]):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({given['source']} dims) should contain the same "
            f"number of dims as destination ({given['destination']} dims)"
        )
    places = {}
    for name, dims in given.items():
        places[name] = [normalize_dim(d, input.ndim) for d in dims]
        if len(set(places[name])) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({dims})")
    if not input.ndim:
        return permute(input, ())
    order = [d for d in range(input.ndim) if d not in places["source"]]
    for place, d in sorted(zip(places["destination"], places["source"], strict=True)):
        order.insert(place, d)
    return permute(input, order)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; tensors of fewer dimensions as they are."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return input if input.ndim < 2 else transpose(input, 0, 1)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after another along ``dim``; the other dimensions must agree."""
    parts = list(tensors)
    if not parts:
        raise RuntimeError("torch.cat(): expected a non-empty list of Tensors")
    if any(part.ndim == 0 for part in parts):
        raise RuntimeError("zero-dimensional tensor cannot be concatenated; use stack()")
    axis = normalize_dim(dim, parts[0].ndim)
    for number, part in enumerate(parts):
        expected = [n for i, n in enumerate(parts[0].shape) if i != axis]
        if part.ndim != parts[0].ndim or [n for i, n in enumerate(part.shape) if i != axis] != expected:
            raise RuntimeError(
                f"Sizes of tensors must match except in dimension {axis}. Got {list(parts[0].shape)} for the first and "
                f"{list(part.shape)} for tensor number {number} in the list."
            )
    dtype = result_type(*parts)
    out: Tensor = _cat(*(cast(part, dtype) for part in parts), dim=axis)
    return out


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, along a new dimension ``dim``."""
    parts = list(tensors)
    if not parts:
        raise RuntimeError("stack expects a non-empty TensorList")
    for number, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(parts[0].shape)} at entry 0 and "
                f"{list(part.shape)} at entry {number}"
            )
    return cat([unsqueeze(part, dim) for part in parts], dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along ``dim``, without that dimension."""
    if input.ndim == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    out: tuple[Tensor, ...] = _unbind(input, dim=normalize_dim(dim, input.ndim))
    return out


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``length`` elements of ``dim`` from ``start`` on."""
    if input.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    axis = normalize_dim(dim, input.ndim)
    available = input.shape[axis]
    first = start + available if start < 0 else start
    if not 0 <= first <= first + length <= available:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({available}).")
    out: Tensor = _narrow(input, dim=axis, start=first, length=length)
    return out


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice of ``dim`` at ``index``, without that dimension; a view."""
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


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of equal length (the last may be shorter) or of the given lengths along ``dim``."""
    if tensor.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    axis = normalize_dim(dim, tensor.ndim)
    total = tensor.shape[axis]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size <= 0:
            raise RuntimeError(f"split expects split_size be positive, but got split_size={size}")
        lengths = [min(size, total - start) for start in range(0, total, size)] or [0]
    else:
        lengths = list(split_size_or_sections)
        if sum(lengths) != total:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {total} (input tensor's size at dimension "
                f"{dim}), but got split_sizes={lengths}"
            )
    starts = np.cumsum([0, *lengths])
    return tuple(narrow(tensor, axis, int(start), length) for start, length in zip(starts, lengths, strict=False))


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` views of equal length (the last may be shorter) along ``dim``, as ``torch.chunk``."""
    if input.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if operator.index(chunks) <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    total = input.shape[normalize_dim(dim, input.ndim)]
    # of nothing there are as many pieces as asked for
    return split(input, -(-total // chunks) if total else [0] * chunks, dim)


def contiguous(input: Tensor) -> Tensor:
    """The tensor itself when its elements lie in row-major order, else a copy in which they do."""
    return input if input.is_contiguous() else clone(input)

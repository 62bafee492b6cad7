"""The same elements in another shape: views wherever the strides allow it, and their adjoints."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Size, Tensor
from ..autograd.primitive import Primitive, alias, define
from ..autograd.sharing import repack
from ..autograd.shortcut import viewer
from ..kernels.layout import empty_in_order_of, is_hwnc_alone
from .arguments import integers, tensor_argument
from .elementwise import _clone, broadcast_to
from .samples import all_values, is_captured

__all__ = [  # what distgrad itself offers
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "broadcast_shapes",
    "broadcast_tensors",
    "flatten",
    "moveaxis",
    "movedim",
    "permute",
    "ravel",
    "reshape",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "transpose",
    "unflatten",
    "unsqueeze",
]
METHODS = (  # what a Tensor offers
    "H T contiguous expand_as flatten mH mT moveaxis movedim permute ravel reshape reshape_as squeeze swapaxes "
    "swapdims t transpose unflatten unsqueeze view view_as"
).split()

_reshape: Primitive = define(
    "View",
    lambda input, shape: input.reshape(shape),
    ("input",),
    view=True,
    input=lambda g, input_shape: g.reshape(input_shape) if type(g) is np.ndarray else _reshape(g, shape=input_shape),
)


@functools.lru_cache(maxsize=256)
def _inverse(dims: tuple[int, ...]) -> tuple[int, ...]:
    """The order that undoes the order ``dims``."""
    return tuple(sorted(range(len(dims)), key=dims.__getitem__))


_permute: Primitive = define(
    "Permute",
    lambda input, dims: input.transpose(dims),
    ("input",),
    view=True,
    input=lambda g, dims: g.transpose(_inverse(dims)) if type(g) is np.ndarray else _permute(g, dims=_inverse(dims)),
)
_reshaped, _permuted = viewer(_reshape, "shape"), viewer(_permute, "dims")
_view_as_dtype: Primitive = define("ViewAsDtype", lambda input, dtype: input.view(dtype), ("input",), view=True)


def _joined(tensors: tuple[Any, ...], dim: int) -> Any:
    """One after another, in HWNC order where all are in that, else row-major; NumPy would keep any common order."""
    if all(map(is_hwnc_alone, tensors)):
        shape = list(tensors[0].shape)
        shape[dim] = sum(x.shape[dim] for x in tensors)
        return np.concatenate(tensors, axis=dim, out=empty_in_order_of(tensors[0], tuple(shape), tensors[0].dtype))
    return np.asarray(np.concatenate(tensors, axis=dim), order="C")


# Joining and narrowing are adjoint to each other. The functions of them are in ``join`` and ``pieces``.
_cat: Primitive = define(
    "Cat",
    lambda *tensors, dim: _joined(tensors, dim),
    ("tensors*",),
    tensors=lambda g, index, tensors_shape, dim: _piece(g, tensors_shape, index, dim),
)
_narrow: Primitive = define(
    "Narrow",
    lambda input, dim, start, length: input[(slice(None),) * dim + (slice(start, start + length),)],
    ("input",),
    view=True,
    input=lambda g, input_shape, dim, start: _pad(g, shape=input_shape, dim=dim, start=start),
)


def _embed(input: Any, shape: tuple[int, ...], dim: int, start: int) -> Any:
    out = empty_in_order_of(input, shape, input.dtype)
    out.fill(0)
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


def _with_axis(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], 1, *shape[dim:])


def normalize_dim(dim: int, ndim: int) -> int:
    """``dim`` counted from the front; raises PyTorch's IndexError when it is out of range."""
    limit = max(ndim, 1)
    if not -limit <= dim < limit:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got {dim})")
    return dim % limit


# In row-major order --------------------------------------------------------------------------------------------------


def _resolve(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Fills in a -1, and checks the number of elements."""
    product = 1
    for n in shape:
        product *= n
        if n < 0:
            break
    else:
        if product == count:  # nearly always
            return shape
    product = math.prod(shape)
    for place, n in enumerate(shape):
        if n < -1:
            raise RuntimeError(f"invalid shape dimension {n} at index {place} of shape {list(shape)}")
    missing = shape.count(-1)
    if missing > 1:
        raise RuntimeError("only one dimension can be inferred")
    known = -product  # without the -1
    if missing and known and count % known == 0:
        return tuple(count // known if n == -1 else n for n in shape)
    if missing and not known and not count:
        raise RuntimeError(
            f"cannot reshape tensor of 0 elements into shape {list(shape)} because the unspecified dimension size -1 "
            "can be any value and is ambiguous"
        )
    raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {count}")


def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """The elements in row-major order as ``shape`` (one length may be -1); a view where the strides allow it.

    Raises:
        RuntimeError: another number of elements, or more than one -1.
    """
    size = integers(args if shape is None else (shape,), "reshape", "shape")
    return _reshaped(input, _resolve(size, tensor_argument(input, "reshape")._data.size))


def view(input: Tensor, *args: Any, size: Any = None) -> Tensor:
    """``reshape`` that refuses to copy, or the same bytes as elements of another dtype.

    Args:
        input: any dtype.
        args: the shape, as for ``reshape``, or one dtype. If its elements are of another length, the last dimension
            becomes longer or shorter; such a view is not differentiable.
        size: the shape, by name.

    Raises:
        RuntimeError: the strides do not allow it, or another number of elements or bytes.
    """
    if len(args) == 1 and isinstance(args[0], (np.dtype, type)):
        return _reinterpreted(input, np.dtype(args[0]))
    if not args and size is None:
        raise TypeError("view() takes a shape or a dtype")
    target = _resolve(integers(args if size is None else (size,), "view", "size"), input._data.size)
    if not _shares_memory(input, target) and (input._batched or not repack(input) or not _shares_memory(input, target)):
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return _reshaped(input, target)


def _shares_memory(input: Tensor, target: tuple[int, ...]) -> bool:
    """Whether the elements can be seen in the shape ``target`` without a copy."""
    if is_captured(input):
        return True  # a plan copies where it has to: nothing is changed in place through a view in it
    array = all_values(input)
    if array.flags.c_contiguous:
        return True
    try:
        np.reshape(array, (*array.shape[: array.ndim - input.ndim], *target), copy=False)
    except ValueError:
        return False
    return True


def _reinterpreted(input: Tensor, dtype: np.dtype[Any]) -> Tensor:
    array, what = all_values(input), f"to view {input.dtype} as {dtype} (different element sizes)"
    if dtype.itemsize != array.itemsize:
        if not input.ndim:
            raise RuntimeError(f"self.dim() cannot be 0 {what}")
        if array.strides[-1] != array.itemsize and not array.flags.c_contiguous:
            raise RuntimeError(f"self.stride(-1) must be 1 {what}, but got {array.strides[-1] // array.itemsize}")
        if array.shape[-1] * array.itemsize % dtype.itemsize:
            raise RuntimeError(
                f"self.size(-1) must be divisible by {dtype.itemsize // array.itemsize} {what}, but got "
                f"{array.shape[-1]}"
            )
        for d, (step, length) in enumerate(zip(array.strides[:-1], array.shape[:-1], strict=True)):
            if step % dtype.itemsize and length > 1:
                raise RuntimeError(
                    f"self.stride({d}) must be divisible by {dtype.itemsize // array.itemsize} {what}, but got "
                    f"{step // array.itemsize}"
                )
    if dtype == array.dtype:
        same: Tensor = alias(input)
        return same
    out: Tensor = _view_as_dtype(input.detach(), dtype=dtype)
    return out


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """``view`` in the shape of ``other``."""
    return view(input, tuple(other.shape))


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """``reshape`` in the shape of ``other``."""
    return reshape(input, tuple(other.shape))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions ``start_dim`` to ``end_dim`` (inclusive) as one."""
    start, end = normalize_dim(start_dim, input.ndim), normalize_dim(end_dim, input.ndim)
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if start == end and input.ndim:
        return input
    shape = input.shape
    # the length is written out, not -1, so that an empty batch keeps its other dimensions
    middle = math.prod(shape[start : end + 1])
    return reshape(input, (*shape[:start], middle, *shape[end + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """The elements in row-major order as a vector; a view where they lie in that order already."""
    return reshape(contiguous(input), -1)


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dimension ``dim`` as several of the given ``sizes`` (one may be -1).

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: no sizes, or their product is not the length of the dimension.
    """
    lengths = integers((sizes,), "unflatten", "sizes")
    if not lengths:
        raise RuntimeError("unflatten: sizes must be non-empty")
    if not input.ndim:
        raise RuntimeError(f"unflatten: dimension specified as {dim} but tensor has no dimensions")
    axis = normalize_dim(dim, input.ndim)
    count = input.shape[axis]
    try:
        inner = _resolve(lengths, count)
    except RuntimeError as error:
        if "is invalid" not in str(error):
            raise
        raise RuntimeError(
            f"unflatten: Provided sizes {list(lengths)} don't multiply up to the size of dim {axis} ({count}) in the "
            "input tensor"
        ) from None
    return reshape(input, (*input.shape[:axis], *inner, *input.shape[axis + 1 :]))


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the dimensions of length 1, or without ``dim`` (one or several) where its length is 1; a view."""
    if dim is None:
        return _reshaped(input, tuple(n for n in input.shape if n != 1))
    dims: set[int] = set()
    for d in integers((dim,), "squeeze", "dim"):
        axis = normalize_dim(d, input.ndim)
        if axis in dims:
            raise RuntimeError(f"dim {axis} appears multiple times in the list of dims")
        dims.add(axis)
    return _reshaped(input, tuple(n for i, n in enumerate(input.shape) if i not in dims or n != 1))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of length 1 at ``dim``; a view."""
    shape = input._data.shape
    return _reshaped(input, _with_axis(shape, normalize_dim(dim, len(shape) + 1)))


def contiguous(input: Tensor) -> Tensor:
    """The tensor itself when its elements lie in row-major order, else a copy in which they do."""
    if input.is_contiguous():
        return input
    out: Tensor = _clone(input, order="C")
    return out


def _at_least(name: str, tensors: tuple[Any, ...], grow: Any) -> Any:
    if len(tensors) == 1 and not isinstance(tensors[0], (tuple, list)):
        return grow(tensor_argument(tensors[0], name))
    given = tensors[0] if len(tensors) == 1 else tensors
    return tuple(grow(tensor_argument(one, name, "tensors", place + 1)) for place, one in enumerate(given))


def atleast_1d(*tensors: Any) -> Any:
    """Tensors without dimensions as vectors of one element, others as they are; a tuple for several or a sequence."""
    return _at_least("atleast_1d", tensors, lambda x: x if x.ndim else reshape(x, 1))


def atleast_2d(*tensors: Any) -> Any:
    """Vectors as matrices of one row, others as they are; a tuple for several or a sequence."""
    return _at_least("atleast_2d", tensors, lambda x: x if x.ndim > 1 else reshape(x, 1, x.numel()))


def atleast_3d(*tensors: Any) -> Any:
    """Vectors as (1, n, 1) and matrices as (n, m, 1), others as they are; a tuple for several or a sequence."""

    def grow(x: Tensor) -> Tensor:
        return x if x.ndim > 2 else reshape(x, *x.shape, 1) if x.ndim == 2 else reshape(x, 1, x.numel(), 1)

    return _at_least("atleast_3d", tensors, grow)


# In another order of the dimensions ----------------------------------------------------------------------------------


def permute(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """The dimensions in another order; a view.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: a dimension is missing or named twice.
    """
    given = integers(args if dims is None else (dims,), "permute", "dims")
    order = [normalize_dim(d, input.ndim) for d in given]
    if sorted(order) != list(range(input.ndim)):
        raise RuntimeError(
            f"permute(dims): {list(given)} is not an ordering of the {input.ndim} dimensions of the tensor; duplicate "
            "dims are not allowed, and each has to be named"
        )
    return _permuted(input, tuple(order))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged; a view."""
    ndim = input._data.ndim
    order = list(range(ndim))
    a, b = normalize_dim(dim0, ndim), normalize_dim(dim1, ndim)
    if ndim:
        order[a], order[b] = order[b], order[a]
    return _permuted(input, tuple(order))


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """``transpose`` by NumPy's name."""
    return transpose(input, axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """``transpose`` by another name."""
    return transpose(input, dim0, dim1)


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


def moveaxis(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """``movedim`` by NumPy's name."""
    return movedim(input, source, destination)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix, a view; tensors of fewer dimensions as they are."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return transpose(input, 0, -1)


def _of_matrices(input: Tensor, name: str) -> Tensor:
    if input.ndim == 1:
        raise RuntimeError(f"tensor.{name} is only supported on matrices or batches of matrices. Got 1-D tensor.")
    return transpose(input, -1, -2) if input.ndim else input


def _of_one_matrix(input: Tensor) -> Tensor:
    if input.ndim not in (0, 2):
        raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got {input.ndim}-D tensor.")
    return transpose(input, 0, 1) if input.ndim else input


@functools.cache
def _reversed(ndim: int) -> tuple[int, ...]:
    return tuple(range(ndim))[::-1]


T = property(lambda self: _permuted(self, _reversed(self._data.ndim)), doc="The dimensions in reverse order; a view.")
mT = property(lambda self: _of_matrices(self, "mT"), doc="The last two dimensions exchanged; a view.")
H = property(_of_one_matrix, doc="The transpose of a matrix, conjugated, which real numbers do not need; a view.")
mH = property(lambda self: _of_matrices(self, "mH"), doc="The last two dimensions exchanged; a view.")


# Broadcast -----------------------------------------------------------------------------------------------------------


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """``expand`` to the shape of ``other``."""
    return broadcast_to(input, tuple(other.shape))


def _common_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """What ``shapes`` broadcast to; raises PyTorch's RuntimeError where they do not."""
    common: tuple[int, ...] = ()
    for shape in shapes:
        for d in range(-1, -1 - min(len(common), len(shape)), -1):
            if common[d] != shape[d] and 1 not in (common[d], shape[d]):
                raise RuntimeError(
                    f"The size of tensor a ({common[d]}) must match the size of tensor b ({shape[d]}) at non-singleton "
                    f"dimension {max(len(common), len(shape)) + d}"
                )
        common = np.broadcast_shapes(common, shape)
    return common


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that tensors of ``shapes`` (sequences of lengths, or single lengths) broadcast to.

    Raises:
        RuntimeError: they do not.
        ValueError: a negative length.
    """
    given = [(operator.index(s),) if hasattr(s, "__index__") else tuple(operator.index(n) for n in s) for s in shapes]
    if any(n < 0 for shape in given for n in shape):
        raise ValueError(f"Attempting to broadcast a dimension with negative length: {given}")
    try:
        return Size(_common_shape(*given))
    except RuntimeError:
        raise RuntimeError(
            f"broadcast_shapes: the shapes {given} do not broadcast: counted from the right, lengths have to be equal "
            "or 1"
        ) from None


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape; views, or themselves where they have it already.

    Raises:
        RuntimeError: their shapes do not broadcast.
    """
    for place, one in enumerate(tensors):
        tensor_argument(one, "broadcast_tensors", "tensors", place + 1)
    size = _common_shape(*(one.shape for one in tensors))
    return tuple(one if one.shape == size else broadcast_to(one, size) for one in tensors)

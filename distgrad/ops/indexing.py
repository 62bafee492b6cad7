"""Picking elements by position or mask, and writing or adding values at positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _where, broadcast_to
from .promotion import cast
from .shape import normalize_dim, reshape

__all__ = [  # what distgrad itself offers
    "gather",
    "index_select",
    "masked_fill",
    "masked_select",
    "nonzero",
    "scatter",
    "scatter_add",
    "take_along_dim",
]
METHODS = (  # what a Tensor offers
    "gather index_select masked_fill masked_select nonzero scatter scatter_add take_along_dim"
).split()

_getitem: Primitive = define(
    "Index",
    lambda input, index: input[_as_view(index)],
    ("input",),
    view=True,
    input=lambda g, input_shape, index: _put(g, shape=input_shape, index=index),
)


def _as_view(index: Any) -> Any:
    """With all positions given NumPy copies the element out, but for a closing ellipsis."""
    parts = index if isinstance(index, tuple) else (index,)
    return (*parts, ...) if all(isinstance(part, (int, np.integer)) for part in parts) else index


def _add_at(input: Any, shape: tuple[int, ...], index: Any) -> Any:
    out = np.zeros(shape, input.dtype)
    if _is_basic(index) or (isinstance(index, np.ndarray) and index.dtype == np.bool_):
        out[index] = input
    else:
        np.add.at(out, index, input)  # unlike out[index] += input, counts an element that is picked twice
    return out


_put: Primitive = define("IndexPut", _add_at, ("input",), input=lambda g, index: _getitem(g, index=index))


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice)) for part in parts)


def _array_index(part: Any) -> Any:
    """A tensor or list in an index as the array that NumPy indexes with."""
    if isinstance(part, Tensor):
        if part.is_floating_point():
            raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors, not {part.dtype}")
        return part._data if part.ndim or part.dtype == np.bool_ else int(part._data)
    if isinstance(part, list):
        return np.asarray(part, dtype=np.int64) if not part else np.asarray(part)
    if isinstance(part, slice):
        start, stop, step = (None if x is None else int(x) for x in (part.start, part.stop, part.step))
        if step is not None and step <= 0:
            raise ValueError("step must be greater than zero")
        return slice(start, stop, step)
    return part


def array_index(index: Any) -> Any:
    """What NumPy has to be indexed with for PyTorch's meaning of ``index``."""
    if isinstance(index, tuple):
        return tuple(_array_index(part) for part in index)
    return _array_index(index)


def _own(index: Any) -> Any:
    """Copies of the arrays in an index, so that a later change of them cannot reach the backward pass."""
    if isinstance(index, tuple):
        return tuple(_own(part) for part in index)
    return index.copy() if isinstance(index, np.ndarray) else index


def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]``: integers, slices, None and ``...`` give a view; int and bool tensors or lists a copy."""
    try:
        out: Tensor = _getitem(input, index=_own(array_index(index)) if input._requires_grad else array_index(index))
    except IndexError as error:
        raise IndexError(f"{error} (indexing a tensor of shape {list(input.shape)})") from None
    return out


# Along one dimension -------------------------------------------------------------------------------------------------


def _take(input: Any, index: Any, dim: int) -> Any:
    grid = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    grid[dim] = index
    return np.ascontiguousarray(input[tuple(grid)])


def _places(index: Any, shape: tuple[int, ...], dim: int) -> Any:
    """Where in the flattened array of ``shape`` the elements lie that ``index`` names along ``dim``."""
    places = np.zeros(index.shape, np.int64)
    step = 1
    for d in reversed(range(len(shape))):
        along = index if d == dim else np.arange(index.shape[d]).reshape((-1,) + (1,) * (index.ndim - d - 1))
        places += along.astype(np.int64) * step
        step *= shape[d]
    return places.ravel()


def _add_along(input: Any, index: Any, src: Any, dim: int) -> Any:
    out = input.copy()
    np.add.at(out.reshape(-1), _places(index, out.shape, dim), src.ravel())
    return out


def _write_along(input: Any, index: Any, src: Any, dim: int) -> Any:
    out = input.copy()
    # flat and in row-major order, so that of several elements for one place the last wins whatever the memory layout
    out.reshape(-1)[_places(index, out.shape, dim)] = src.ravel() if src.ndim else src
    return out


def _stays(index: Any, shape: tuple[int, ...], dim: int) -> Any:
    """Which elements a scatter does not overwrite by a later one. Bool, of the shape of ``index``."""
    values = index._data if isinstance(index, Tensor) else index
    places, order = _places(values, shape, dim), np.arange(values.size)
    last = np.empty(int(np.prod(shape)), np.int64)
    last[places] = order
    return (last[places] == order).reshape(values.shape)


_gather: Primitive = define(
    "Gather",
    _take,
    ("input", "index"),
    input=lambda g, index, input_shape, dim: _scatter_add(np.zeros(input_shape, g.dtype), index, g, dim=dim),
)
_scatter_add: Primitive = define(
    "ScatterAdd",
    _add_along,
    ("input", "index", "src"),
    input=lambda g: g,
    src=lambda g, index, dim: _gather(g, index, dim=dim),
)
_scatter: Primitive = define(
    "Scatter",
    _write_along,
    ("input", "index", "src"),
    input=lambda g, index, dim: _scatter(g, index, np.zeros((), g.dtype), dim=dim),
    src=lambda g, index, input_shape, dim: _where(_stays(index, input_shape, dim), _gather(g, index, dim=dim), 0.0),
)
_index_select: Primitive = define(
    "IndexSelect",
    lambda input, index, dim: np.take(input, index, axis=dim),
    ("input", "index"),
    input=lambda g, index, input_shape, dim: _add_slices(g, index, shape=input_shape, dim=dim),
)


def _add_slices_at(input: Any, index: Any, shape: tuple[int, ...], dim: int) -> Any:
    out = np.zeros(shape, input.dtype)
    np.add.at(out, (*(slice(None),) * dim, index), input)
    return out


_add_slices: Primitive = define(  # the adjoint of index_select: slices added into zeros
    "IndexSelectAdjoint",
    _add_slices_at,
    ("input", "index"),
    input=lambda g, index, dim: _index_select(g, index, dim=dim),
)


def _is_long(index: Tensor) -> bool:
    return index.dtype in (np.int32, np.int64)


def _outside(index: Tensor, lowest: int, size: int) -> int | None:
    """An index that is below ``lowest`` or not below ``size``, if there is one."""
    values = index._data
    if not values.size or (values.min() >= lowest and values.max() < size):
        return None
    return int(values.max()) if values.min() >= lowest else int(values.min())


def _check_bounds(index: Tensor, axis: int, size: int, lowest: int = 0) -> None:
    wrong = _outside(index, lowest, size)
    if wrong is not None:
        raise RuntimeError(f"index {wrong} is out of bounds for dimension {axis} with size {size}")


def _vector(x: Tensor) -> Tensor:
    """PyTorch takes a tensor without dimensions for one element along dimension 0."""
    return x if x.ndim else reshape(x, (1,))


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """``out[i][j] = input[index[i][j]][j]`` for ``dim`` 0, and so on; ``index`` is int64 with as many dimensions.

    Raises:
        RuntimeError: the numbers of dimensions differ, an index lies outside, or ``index`` is longer than ``input``
            along another dimension.
    """
    axis = normalize_dim(dim, input.ndim)
    if index.ndim != input.ndim:
        raise RuntimeError(
            f"Index tensor must have the same number of dimensions as input tensor: {list(index.shape)} and "
            f"{list(input.shape)}"
        )
    if index.dtype.kind not in "iu":
        raise RuntimeError(f"gather(): Expected dtype int64 for index, got {index.dtype}")
    for d, (n, available) in enumerate(zip(index.shape, input.shape, strict=True)):
        if d != axis and n > available:
            raise RuntimeError(
                f"Size does not match at dimension {d} expected index {list(index.shape)} to be no larger than self "
                f"{list(input.shape)} apart from dimension {axis}"
            )
    _check_bounds(index, axis, input.shape[axis] if input.ndim else 1)
    out: Tensor = _gather(_vector(input), _vector(index), dim=axis)
    return out if input.ndim else reshape(out, ())


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """``gather`` with ``input`` and ``indices`` (int64) broadcast against each other in the dimensions other than
    ``dim``; without ``dim``, elements of the flattened ``input``. Negative indices count from the end.

    Raises:
        IndexError: ``dim`` is out of range, or ``input`` has no dimensions.
        RuntimeError: another dtype of ``indices``, shapes that do not broadcast, or an index outside.
    """
    if indices.dtype != np.int64:
        raise RuntimeError(f"torch.take_along_dim(): dtype of indices should be Long but got {indices.dtype}")
    if dim is None:
        return take_along_dim(reshape(input, -1), reshape(indices, -1), 0)
    if input.ndim != indices.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    if not input.ndim:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    axis = normalize_dim(dim, input.ndim)
    size = input.shape[axis]
    common = _common_shape(*((*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in (input, indices)))
    wide, index = (broadcast_to(x, (*common[:axis], x.shape[axis], *common[axis + 1 :])) for x in (input, indices))
    if (indices._data < 0).any():
        _check_bounds(indices, axis, size, lowest=-size)
        index = Tensor(np.where(index._data < 0, index._data + size, index._data))
    return gather(wide, axis, index)


def _common_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        d = next(d for d in range(-1, -1 - min(len(a), len(b)), -1) if a[d] != b[d] and 1 not in (a[d], b[d]))
        raise RuntimeError(
            f"The size of tensor a ({a[d]}) must match the size of tensor b ({b[d]}) at non-singleton dimension "
            f"{max(len(a), len(b)) + d}"
        ) from None


def _check_scatter(input: Tensor, dim: int, index: Tensor, src: Tensor | None) -> int:
    """The dimension counted from the front, once the arguments of a scatter are found right."""
    axis = normalize_dim(dim, input.ndim)
    if not _is_long(index):
        raise RuntimeError(f"scatter(): Expected dtype int32/int64 for index, got {index.dtype}")
    if src is not None and src.dtype != input.dtype:
        raise RuntimeError(
            f"scatter(): Expected self.dtype to be equal to src.dtype, got {input.dtype} and {src.dtype}"
        )
    shape, wanted = _vector(input).shape, _vector(index).shape
    given = None if src is None else _vector(src).shape
    for name, other in (("self", shape), ("src", given)):
        if other is not None and len(wanted) != len(other):
            raise RuntimeError(
                f"Index tensor must have the same number of dimensions as {name} tensor: {list(index.shape)} and "
                f"{list(other)}"
            )
    if not index.numel():
        return axis
    beside = any(n > m for d, (n, m) in enumerate(zip(wanted, shape, strict=True)) if d != axis)
    beyond = given is not None and any(n > m for n, m in zip(wanted, given, strict=True))
    if beside or beyond:
        limit = "" if src is None else f" and to be no larger size than src {list(src.shape)}"
        raise RuntimeError(
            f"Expected index {list(index.shape)} to be no larger than self {list(input.shape)} apart from dimension "
            f"{axis}{limit}"
        )
    _check_bounds(index, axis, shape[axis])
    return axis


def _scattered(primitive: Primitive, input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    index = _vector(index)
    if isinstance(src, Tensor):
        src = _vector(src)
        if not index.numel():  # it may be longer than src then
            index = getitem(index, tuple(slice(n) for n in src.shape))
        if src.shape != index.shape:
            src = getitem(src, tuple(slice(n) for n in index.shape))
    out: Tensor = primitive(_vector(input), index, src, dim=dim)
    return out if input.ndim else reshape(out, ())


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Tensor | float | None = None, *, value: float | None = None
) -> Tensor:
    """A copy of ``input`` with ``out[index[i][j]][j] = src[i][j]`` for ``dim`` 0, and so on, or a number everywhere.

    Where ``index`` (int32 or int64) names a place twice the last element in row-major order is kept, and the gradient
    of those it overwrites is zero.

    Args:
        input: any dtype.
        dim: the dimension along which ``index`` counts.
        index: with as many dimensions as ``input``, no longer than it but along ``dim``, nor than ``src`` along any.
        src: of the dtype of ``input``, or a number.
        value: the number, by name.

    Raises:
        RuntimeError: dtypes or shapes do not fit, an index lies outside, or the dtype cannot hold the number.
        TypeError: neither or both of ``src`` and ``value``.
    """
    if (src is None) == (value is None):
        raise TypeError("scatter() needs either src (a Tensor) or value (a number)")
    if isinstance(src, Tensor):
        return _scattered(_scatter, input, _check_scatter(input, dim, index, src), index, src)
    axis = _check_scatter(input, dim, index, None)
    return _scattered(_scatter, input, axis, index, _number(value if src is None else src, input.dtype))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """As ``scatter`` of a tensor, but added to what is there; places named several times get the sum."""
    if not isinstance(src, Tensor):
        raise TypeError(f"scatter_add(): argument 'src' (position 4) must be Tensor, not {type(src).__name__}")
    return _scattered(_scatter_add, input, _check_scatter(input, dim, index, src), index, src)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of ``dim`` at the positions in the vector ``index`` (int32 or int64); a copy.

    Raises:
        IndexError: ``index`` is no vector, or a position lies outside.
        RuntimeError: another dtype of ``index``, or several positions in a tensor without dimensions.
    """
    axis = normalize_dim(dim, input.ndim)
    if index.ndim > 1:
        raise IndexError(f"index_select(): Index is supposed to be a vector, but its shape is {list(index.shape)}")
    if not _is_long(index):
        raise RuntimeError(f"index_select(): Expected dtype int32 or int64 for index, got {index.dtype}")
    if not input.ndim and index.numel() != 1:
        raise RuntimeError(f"index_select(): Index to scalar can have only 1 value, got {index.numel()} value(s)")
    size = input.shape[axis] if input.ndim else 1
    wrong = _outside(index, 0, size)
    if wrong is not None:
        raise IndexError(f"index out of range in self: {wrong} in dimension {axis} with size {size}")
    out: Tensor = _index_select(_vector(input), _vector(index), dim=axis)
    return out if input.ndim else reshape(out, ())


# By mask -------------------------------------------------------------------------------------------------------------


def _number(value: Any, dtype: np.dtype[Any]) -> Any:
    """A Python number as a 0-d array of ``dtype``; as in PyTorch fractions are cut off, overflow is refused."""
    if dtype.kind == "b":
        return np.asarray(bool(value))
    if isinstance(value, (bool, np.bool_)):
        value = int(value)
    limit = float(np.finfo(dtype).max) if dtype.kind == "f" else np.iinfo(dtype).max
    lowest = np.iinfo(dtype).min if dtype.kind == "i" else -limit  # a negative number wraps around in uint8
    finite = math.isfinite(value)
    if (finite and not lowest <= value <= limit) or (not finite and dtype.kind != "f"):
        raise RuntimeError(f"value cannot be converted to type {dtype} without overflow: {value}")
    return np.asarray(value if dtype.kind == "f" else int(value)).astype(dtype)


def masked_fill(input: Tensor, mask: Tensor, value: Tensor | float) -> Tensor:
    """A copy of ``input`` with ``value`` (a number or a 0-d tensor) where ``mask`` (bool) is True; the two broadcast.

    The result has the dtype of ``input``.

    Raises:
        RuntimeError: ``mask`` is not bool, ``value`` has dimensions or overflows, or the shapes do not broadcast.
    """
    if mask.dtype != np.bool_:
        raise RuntimeError(f"masked_fill only supports boolean masks, but got mask with dtype {mask.dtype}")
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(
                "masked_fill only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.ndim} dimension(s)."
            )
        filling = cast(value, input.dtype)
    else:
        filling = _number(value, input.dtype)
    _common_shape(mask.shape, input.shape)
    out: Tensor = _where(mask, filling, input)
    return out


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements of ``input`` where ``mask`` (bool) is True, in row-major order; the two broadcast. 1-D."""
    if mask.dtype != np.bool_:
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask.dtype}")
    shape = _common_shape(mask.shape, input.shape)
    return getitem(broadcast_to(input, shape), broadcast_to(mask.detach(), shape))


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of the elements that are not zero (NaN counts), in row-major order, int64.

    Returns:
        a tensor of shape (number of them, ``input.ndim``), or with ``as_tuple`` one vector for each dimension, with
        which ``input`` can be indexed (for a tensor without dimensions, one).
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"nonzero(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    found = np.nonzero(input._data.reshape(input.shape or (1,)))
    if as_tuple:
        return tuple(Tensor(positions.astype(np.int64)) for positions in found)
    if not input.ndim:
        return Tensor(np.empty((found[0].size, 0), np.int64))
    return Tensor(np.stack(found, axis=1).astype(np.int64, copy=False))

"""Picking elements by position, and the adjoint: adding into zeros at those positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .shape import normalize_dim

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
    if _is_basic(index):
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


_gather: Primitive = define(
    "Gather",
    lambda input, index, dim: np.take_along_axis(input, index, axis=dim),
    ("input", "index"),
    input=lambda g, index, input_shape, dim: _scatter_add(g, index, shape=input_shape, dim=dim),
)


def _add_along(input: Any, index: Any, shape: tuple[int, ...], dim: int) -> Any:
    out = np.zeros(shape, input.dtype)
    grid = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    grid[dim] = index
    np.add.at(out, tuple(grid), input)
    return out


_scatter_add: Primitive = define(
    "ScatterAdd",
    _add_along,
    ("input", "index"),
    input=lambda g, index, dim: _gather(g, index, dim=dim),
)


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
    values = index._data
    size = input.shape[axis] if input.ndim else 1
    if values.size and (values.min() < 0 or values.max() >= size):
        wrong = int(values.max()) if values.min() >= 0 else int(values.min())
        raise RuntimeError(f"index {wrong} is out of bounds for dimension {axis} with size {size}")
    if any(n != m for d, (n, m) in enumerate(zip(index.shape, input.shape, strict=True)) if d != axis):
        input = input[tuple(slice(None) if d == axis else slice(n) for d, n in enumerate(index.shape))]
    if not input.ndim:
        # NumPy gathers along dimensions only
        return gather(input[None], 0, index[None])[0]
    out: Tensor = _gather(input, index, dim=axis)
    return out

"""Which values there are, how often, and between which: results that carry no gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from .arguments import tensor_argument
from .dims import dim_argument, int_argument
from .promotion import result_type
from .samples import each_sample, is_batched

__all__ = [  # what distgrad itself offers
    "bincount",
    "bucketize",
    "histc",
    "isin",
    "searchsorted",
    "unique",
    "unique_consecutive",
]
METHODS = "bincount histc unique unique_consecutive".split()  # what a Tensor offers

# Which values -------------------------------------------------------------------------------------------------------


def _runs(rows: Array) -> tuple[Array, Array, Array]:
    """Of equal rows after one another: where each run begins, in which each row is, and how long they are."""
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = (rows[1:] != rows[:-1]).any(axis=tuple(range(1, rows.ndim)))  # NaN differs from NaN
    starts = np.flatnonzero(begins)
    return starts, np.cumsum(begins) - 1, np.diff(starts, append=len(rows))


def _slices(name: str, input: Tensor, dim: Any) -> tuple[Array, int]:
    """``input`` with ``dim`` first."""
    if not input.ndim:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    axis = dim_argument(name, dim, input.ndim)
    if input.numel() == 0 and (input.shape[axis] or 0 in input.shape[:axis] + input.shape[axis + 1 :]):
        raise RuntimeError(
            f"There are 0 sized dimensions, and they aren't selected, so {name} cannot be applied: the shape is "
            f"{list(input.shape)} and dim {axis}"
        )
    return np.moveaxis(input._data, axis, 0), axis


def _no_gradient(g: Any) -> Any:
    raise RuntimeError(
        "derivative for unique is not implemented, as in PyTorch: which of several equal elements should get it is "
        "open. detach() the input"
    )


_values: Primitive = define("Unique", lambda input, values: values, ("input",), input=_no_gradient)


def _results(
    input: Tensor, values: Array, inverse: Array, counts: Array, return_inverse: bool, return_counts: bool
) -> Any:
    found = [_values(input, values=np.ascontiguousarray(values))]
    found += [Tensor(inverse.astype(np.int64))] if return_inverse else []
    found += [Tensor(counts.astype(np.int64))] if return_counts else []
    return tuple(found) if len(found) > 1 else found[0]


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The values that occur, each once; with ``dim``, the slices of it that occur. As ``torch.unique``.

    Args:
        input: any dtype. Each NaN is a value of its own.
        sorted: in ascending order, slices by their elements in row-major order; which is always done here.
        return_inverse: tell where in the result each element (or slice) of ``input`` is.
        return_counts: tell how often each value occurs.
        dim: compare slices of this dimension.

    Returns:
        The values, 1-D (with ``dim``: of the shape of ``input`` but along it), alone or in a tuple before what else
        was asked for: the places, int64, of the shape of ``input`` (with ``dim``: 1-D), and the counts, int64, 1-D.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: the slices of ``dim`` are empty.
    """
    tensor_argument(input, "unique")
    if dim is None:
        flat, shape = input._data.reshape(-1), tuple(input.shape)
        order = np.argsort(flat, kind="stable") if return_inverse else None
        ordered = np.sort(flat) if order is None else flat[order]
        starts, run, counts = _runs(ordered)
        values = ordered[starts]
    else:
        rows, axis = _slices("unique", input, dim)
        columns = rows.reshape(len(rows), -1 if rows.size else 1)
        order = np.lexsort(columns.T[::-1]) if rows.size else np.zeros(0, np.int64)
        shape = (len(rows),)
        starts, run, counts = _runs(columns[order])
        values = np.moveaxis(rows[order[starts]], 0, axis)
    inverse = np.empty(shape, np.int64)
    if order is not None:
        inverse.reshape(-1)[order] = run
    return _results(input, values, inverse, counts, return_inverse, return_counts)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The first element of each run of equal ones, of the flattened tensor; with ``dim``, of equal slices.

    Arguments and results as of ``unique``, without an order.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: the slices of ``dim`` are empty.
    """
    tensor_argument(input, "unique_consecutive")
    if dim is None:
        rows, axis = input._data.reshape(-1), 0
        shape: tuple[int, ...] = input.shape
    else:
        rows, axis = _slices("unique_consecutive", input, dim)
        shape = (len(rows),)
    starts, run, counts = _runs(rows)
    return _results(
        input, np.moveaxis(rows[starts], 0, axis), run.reshape(shape), counts, return_inverse, return_counts
    )


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each of ``elements`` is one of ``test_elements``: bool, of the shape of ``elements``.

    Args:
        elements: a tensor, or a number if the other is a tensor.
        test_elements: likewise, of any shape.
        assume_unique: neither has a value twice; accepted, and of no use here.
        invert: whether it is none of them.

    Raises:
        RuntimeError: bools.
        TypeError: neither is a tensor, or one is neither a tensor nor a number.
    """
    if is_batched(elements, test_elements):
        of_each: Tensor = each_sample(isin, elements, test_elements, assume_unique=assume_unique, invert=invert)
        return of_each
    for name, value in (("elements", elements), ("test_elements", test_elements)):
        if isinstance(value, Tensor) and value.dtype == np.bool_:
            raise RuntimeError("Unsupported input type encountered for isin(): bool")
        if isinstance(value, bool) or not isinstance(value, (Tensor, int, float)):
            raise TypeError(f"isin(): argument '{name}' must be Tensor or Number, not {type(value).__name__}")
    if not isinstance(elements, Tensor) and not isinstance(test_elements, Tensor):
        raise TypeError("isin(): one of 'elements' and 'test_elements' must be a Tensor")
    dtype = result_type(elements, test_elements)
    x, y = (np.asarray(v._data if isinstance(v, Tensor) else v).astype(dtype) for v in (elements, test_elements))
    return Tensor(np.asarray(np.isin(x, y, invert=invert)))


# How often ----------------------------------------------------------------------------------------------------------


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number 0, 1, ... occurs in the vector ``input``, or the sum of the weights where it does.

    Args:
        input: 1-D, integers that are not negative.
        weights: of the shape of ``input``.
        minlength: the result is at least so long; else it reaches to the largest number.

    Returns:
        1-D: int64; with weights their dtype, if that is float32, else float64.

    Raises:
        NotImplementedError: ``input`` is not of integers.
        RuntimeError: it is no vector, has negative numbers, or the weights another shape.
    """
    if is_batched(input, weights):
        of_each: Tensor = each_sample(bincount, input, weights, minlength)
        return of_each
    tensor_argument(input, "bincount")
    if input.dtype.kind not in "iu":
        raise NotImplementedError(f"bincount() is not implemented for {input.dtype}: it counts integers")
    if int_argument("bincount", "minlength", minlength, 3) < 0:
        raise RuntimeError(f"minlength should be >= 0, not {minlength}")
    values = input._data
    if values.ndim != 1 or (values.size and values.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if weights is None:
        return Tensor(np.bincount(values.astype(np.int64, copy=False), minlength=minlength).astype(np.int64))
    if tensor_argument(weights, "bincount", "weights", 2).shape != input.shape:
        raise RuntimeError(
            f"weights should be 1-d and have the same length as input: {list(weights.shape)} and {list(input.shape)}"
        )
    total = np.bincount(values.astype(np.int64, copy=False), weights._data, minlength)
    return Tensor(total.astype(np.float32 if weights.dtype == np.float32 else np.float64))


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall into each of ``bins`` intervals of equal width from ``min`` to ``max``.

    Args:
        input: floating point; elements outside, and NaN, are not counted.
        bins: how many; each holds its left edge, the last its right edge too.
        min: the left edge of the first. If it equals ``max``, both are taken from the elements.
        max: the right edge of the last.

    Returns:
        (bins,), in the dtype of ``input``.

    Raises:
        NotImplementedError: integers, as in PyTorch.
        RuntimeError: no bins, or edges that are not finite or in the wrong order.
        TypeError: ``bins`` is no integer.
    """
    if is_batched(input):
        of_each: Tensor = each_sample(histc, input, bins, min, max)
        return of_each
    tensor_argument(input, "histc")
    bins = int_argument("histc", "bins", bins, 2)
    if not input.is_floating_point():
        raise NotImplementedError(f"histc() is not implemented for {input.dtype}; call float() first")
    if bins <= 0:
        raise RuntimeError(f"torch.histc: bins must be > 0, but got {bins}")
    values, low, high = input._data.reshape(-1), float(min), float(max)
    if low == high and values.size:
        low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"torch.histc: range of [{low}, {high}] is not finite")
    if low == high:
        low, high = low - 1, high + 1
    if low > high:
        raise RuntimeError(f"torch.histc: max must be larger than min, but they are {high} and {low}")
    x = values.astype(np.float32) if input.dtype == np.float16 else values
    inside = x[(x >= low) & (x <= high)]
    # in this order, which decides on which side of an edge the rounded quotient falls
    places = ((inside - low) * bins / (high - low)).astype(np.int64)
    return Tensor(np.bincount(np.minimum(places, bins - 1), minlength=bins).astype(input.dtype))


# Between which ------------------------------------------------------------------------------------------------------


def _bisect(boundaries: Array, values: Array, right: bool) -> Array:
    """For each of ``values`` (..., m), how many of ``boundaries`` (..., n) lie before it; (..., m)."""
    low = np.zeros(values.shape, np.int64)
    high = np.full(values.shape, boundaries.shape[-1], np.int64)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        found = np.take_along_axis(boundaries, np.minimum(middle, boundaries.shape[-1] - 1), -1)
        # written so that NaN lies behind everything
        before = open_ & ~(found > values if right else found >= values)
        low, high = np.where(before, middle + 1, low), np.where(open_ & ~before, middle, high)
    return low


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Before which element of an ascending sequence each of ``input`` belongs, as ``torch.searchsorted``.

    Args:
        sorted_sequence: (..., n), ascending along the last dimension; 1-D, it is the sequence for all of ``input``.
        input: (..., m), with the same leading dimensions, or of any shape for a 1-D sequence; or a number.
        out_int32: int32 instead of int64.
        right: behind equal elements instead of before them.
        side: "right" or "left", another way to say so.
        sorter: of the shape of ``sorted_sequence``, int64: the order in which its elements ascend.

    Returns:
        Integers of the shape of ``input``, in [0, n].

    Raises:
        RuntimeError: shapes that do not match, another ``side``, or a ``sorter`` that names no elements.
    """
    if is_batched(sorted_sequence, input, sorter):
        of_each: Tensor = each_sample(
            searchsorted, sorted_sequence, input, out_int32=out_int32, right=right, side=side, sorter=sorter
        )
        return of_each
    tensor_argument(sorted_sequence, "searchsorted", "sorted_sequence")
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError(
            "torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True"
        )
    boundaries = sorted_sequence._data
    values = input._data if isinstance(input, Tensor) else np.asarray(input)
    if not boundaries.ndim:
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should have positive dimension, but got 0 dimension"
        )
    if boundaries.ndim > 1 and not values.ndim:
        raise RuntimeError(
            "torch.searchsorted(): input value can be a scalar only when boundaries tensor dimension is 1, but we got "
            f"boundaries tensor dim({boundaries.ndim})"
        )
    if boundaries.ndim > 1 and boundaries.shape[:-1] != values.shape[:-1]:
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
            f"tensor and input value tensor must match, but we got boundaries tensor {list(boundaries.shape)} and "
            f"input value tensor {list(values.shape)}"
        )
    if sorter is not None:
        boundaries = np.take_along_axis(boundaries, _checked_sorter(sorter, boundaries), -1)
    places = _bisect_flat(boundaries, values, right or side == "right")
    return Tensor(np.asarray(places, np.int32 if out_int32 else np.int64))


def _checked_sorter(sorter: Tensor, boundaries: Array) -> Array:
    order = tensor_argument(sorter, "searchsorted", "sorter")._data
    if order.shape != boundaries.shape:
        raise RuntimeError(
            "torch.searchsorted(): boundary and sorter must have the same size, but got boundary tensor "
            f"{list(boundaries.shape)} and got sorter tensor {list(order.shape)}"
        )
    if order.dtype != np.int64:
        raise RuntimeError(f"torch.searchsorted(): sorter must be a tensor of long dtype but got dtype {order.dtype}")
    if order.size and not (order.min() >= 0 and order.max() < order.shape[-1]):
        raise RuntimeError("torch.searchsorted(): sorter index out of range")
    return order


def _bisect_flat(boundaries: Array, values: Array, right: bool) -> Array:
    if boundaries.ndim > 1:
        return _bisect(boundaries, values, right)
    if boundaries.dtype.kind == "f" and boundaries.size and np.isnan(boundaries[-1]):
        return _bisect(boundaries, values.reshape(-1), right).reshape(values.shape)
    return np.asarray(np.searchsorted(boundaries, values, "right" if right else "left"))


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """In which interval between ascending ``boundaries`` each of ``input`` lies: ``searchsorted`` the other way round.

    Args:
        input: a tensor of any shape, or a number.
        boundaries: 1-D, ascending.
        out_int32: int32 instead of int64.
        right: an element equal to a boundary lies behind it instead of before it.

    Raises:
        RuntimeError: ``boundaries`` is no vector.
    """
    if is_batched(input, boundaries):
        of_each: Tensor = each_sample(bucketize, input, boundaries, out_int32=out_int32, right=right)
        return of_each
    if tensor_argument(boundaries, "bucketize", "boundaries", 2).ndim != 1:
        raise RuntimeError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)

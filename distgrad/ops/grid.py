"""Tensors of regular values: ranges, the identity, positions of triangles, grids and combinations."""

from __future__ import annotations

import itertools
import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .arguments import check_device, dtype_or_default, number, tensor_argument
from .elementwise import broadcast_to
from .indexing import getitem
from .join import stack
from .promotion import Dtype
from .shape import reshape

__all__ = [  # what distgrad itself offers
    "arange",
    "cartesian_prod",
    "combinations",
    "eye",
    "linspace",
    "logspace",
    "meshgrid",
    "tril_indices",
    "triu_indices",
]

# Ranges --------------------------------------------------------------------------------------------------------------

# What holds a product of two floats in full, or nearly.
_WIDER: dict[Any, Any] = {np.float32: np.float64, np.float64: np.longdouble}


def _fused(start: Any, step: Any, positions: Any, dtype: Any) -> Any:
    """``start + step * positions`` rounded once, as a processor's fused instruction does."""
    wide = _WIDER[dtype]
    return (np.asarray(start).astype(wide) + wide(step) * positions.astype(wide)).astype(dtype)


def _float_range(first: float, distance: float, count: int, kind: Dtype) -> Any:
    """Each number from its position, so that errors do not add up.

    PyTorch fills 32 bytes at a time, and these in pairs. To have the same last bits, whole pairs are counted from the
    first number of each 32 bytes.
    """
    working = np.float32 if kind == np.float16 else np.float64
    start, step = working(first), working(distance)
    values = _fused(start, step, np.arange(count), working).astype(kind)
    lanes = 32 // kind.itemsize
    whole = count // (2 * lanes) * 2 * lanes
    heads = values[:whole:lanes, None].astype(working)
    values[:whole] = _fused(heads, step, np.arange(lanes), working).astype(kind).reshape(-1)
    return values


def arange(
    start: Any = None,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``start`` (0 without it), ``start + step``, ... below ``end``; a vector.

    Args:
        start: a number or a tensor without dimensions; with one argument only, it is the end.
        end: where the range stops, which is not part of it.
        step: the distance, not 0, and leading from start to end.
        dtype: int64 if all three are integers, else the default dtype, unless given. For an integer dtype the three are
            cut to integers first.
        device: "cpu".
        requires_grad: whether it is a leaf that collects a gradient.

    Raises:
        RuntimeError: a step of 0 or in the wrong direction, or a limit that is not finite.
        TypeError: no limit at all, or something else than numbers.
    """
    check_device(device)
    if end is None:
        if start is None:
            raise TypeError("arange() needs an end: arange(end), arange(start, end) or arange(start, end, step)")
        start, end = 0, start
    first, last = number(0 if start is None else start, "arange", "start"), number(end, "arange", "end")
    distance = number(step, "arange", "step", 3)
    integral = not any(isinstance(x, float) for x in (first, last, distance))
    kind = np.dtype(dtype) if dtype is not None else np.dtype(np.int64) if integral else dtype_or_default(None)
    if kind.kind == "b":
        raise NotImplementedError("arange() is not implemented for bool")
    if not (math.isfinite(first) and math.isfinite(last)):
        raise RuntimeError(f"unsupported range: {first} -> {last}")
    count = 0.0 if not distance else (last - first) / distance
    if kind.kind != "f":
        distance = int(distance)
    if not distance:
        raise RuntimeError(f"step must be nonzero, but arange was called with start={start}, end={end}, step={step}")
    if count < 0:
        raise RuntimeError(
            f"upper bound and lower bound inconsistent with step sign: arange with start={start}, end={end}, "
            f"step={step}"
        )
    if kind.kind == "f":
        return Tensor(_float_range(first, distance, math.ceil(count), kind), requires_grad)
    first = int(first)
    length = -((first - int(last)) // distance) if kind == np.int64 else math.ceil(count)
    return Tensor((first + distance * np.arange(length)).astype(kind, copy=False), requires_grad)


def _ends(name: str, start: Any, end: Any, steps: Any, dtype: Any) -> tuple[Any, Any, int, Dtype]:
    for which, value in (("start", start), ("end", end)):
        if isinstance(value, Tensor) and value.ndim:
            raise RuntimeError(
                f"{name} only supports 0-dimensional start and end tensors, but got {which} with {value.ndim} "
                "dimension(s)."
            )
    count = operator.index(steps)
    if count < 0:
        raise RuntimeError(f"number of steps must be non-negative, but {name} got {count}")
    kind = dtype_or_default(dtype)
    if kind.kind == "b":
        raise NotImplementedError(f"{name}() is not implemented for bool")
    first, last = number(start, name, "start"), number(end, name, "end", 2)
    return (first, last, count, kind) if kind.kind == "f" else (int(first), int(last), count, kind)


def _between(first: Any, last: Any, count: int, dtype: Any) -> Any:
    """``count`` floats at equal distances, those of the second half counted from the end."""
    low, high = dtype(first), dtype(last)
    step, half = (high - low) / dtype(max(count - 1, 1)), count // 2 if count > 1 else 1
    ahead, back = np.arange(min(half, count)), np.arange(count - half)[::-1] if count > half else np.arange(0)
    if dtype is np.float16:
        return np.concatenate([low + step * ahead.astype(dtype), high - step * back.astype(dtype)])
    return np.concatenate([_fused(low, step, ahead, dtype), _fused(high, -step, back, dtype)])


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` numbers at equal distances from ``start`` to ``end``, both included; a vector.

    Args:
        start: the first, a number or a tensor without dimensions.
        end: the last.
        steps: how many.
        dtype: the default dtype unless given; for an integer dtype fractions are cut off.
        device: "cpu".
        requires_grad: whether it is a leaf that collects a gradient.

    Raises:
        RuntimeError: a negative number of steps, or ends with dimensions.
    """
    check_device(device)
    first, last, count, kind = _ends("linspace", start, end, steps, dtype)
    values = _between(first, last, count, kind.type if kind.kind == "f" else np.float64)
    return Tensor(values.astype(kind, copy=False), requires_grad)


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``base`` to the power of ``linspace(start, end, steps)``; a vector. Arguments and errors as there."""
    check_device(device)
    first, last, count, kind = _ends("logspace", start, end, steps, dtype)
    # in float64 whatever the dtype: a power magnifies the rounding of its exponent
    with np.errstate(all="ignore"):
        values = number(base, "logspace", "base", 4) ** _between(first, last, count, np.float64)
    return Tensor(values.astype(kind, copy=False), requires_grad)


# Matrices ------------------------------------------------------------------------------------------------------------


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix of zeros, square without ``m``."""
    check_device(device)
    for name, length in (("n", n), ("m", n if m is None else m)):
        if operator.index(length) < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {length}")
    return Tensor(np.eye(n, m, dtype=dtype_or_default(dtype)), requires_grad)


def _triangle(name: str, row: int, col: int, dtype: Any, device: Any, chosen: Any) -> Tensor:
    check_device(device)
    for which, length in (("row", row), ("col", col)):
        if operator.index(length) < 0:
            raise RuntimeError(f"{which} must be non-negative, got {length}")
    kind = np.dtype(np.int64 if dtype is None else dtype)
    if kind not in (np.int16, np.int32, np.int64):
        raise NotImplementedError(f"{name}() is not implemented for {kind}")
    rows, columns = np.nonzero(chosen(np.arange(row)[:, None], np.arange(col)))
    return Tensor(np.stack([rows, columns]).astype(kind))


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The positions in a (row, col) matrix on or below the diagonal ``offset`` columns to the right: (2, n), int64
    unless ``dtype`` is given."""
    return _triangle("tril_indices", row, col, dtype, device, lambda i, j: j - i <= offset)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The positions in a (row, col) matrix on or above the diagonal ``offset`` columns to the right: (2, n), int64
    unless ``dtype`` is given."""
    return _triangle("triu_indices", row, col, dtype, device, lambda i, j: j - i >= offset)


# Grids ---------------------------------------------------------------------------------------------------------------


def _listed(tensors: tuple[Any, ...], name: str) -> list[Tensor]:
    given = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else list(tensors)
    if not given:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    for place, one in enumerate(given):
        tensor_argument(one, name, "tensors", place + 1)
    if len({one.dtype for one in given}) > 1:
        raise RuntimeError(
            f"meshgrid expects all tensors to have the same dtype, but got {[str(one.dtype) for one in given]}"
        )
    return given


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of a grid: for vectors of lengths n, m, ... as many tensors of shape (n, m, ...), of which
    the i-th repeats the i-th vector along its own dimension; views. As ``torch.meshgrid``.

    Args:
        tensors: vectors or tensors without dimensions, all of one dtype, one by one or as one sequence.
        indexing: "ij", or "xy" for shape (m, n, ...). Without it "ij" and, as in PyTorch, a warning.

    Raises:
        RuntimeError: no tensor, several dtypes, more than one dimension, or another ``indexing``.
    """
    given = _listed(tensors, "meshgrid")
    if indexing is None:
        warnings.warn(
            "torch.meshgrid: in an upcoming release, it will be required to pass the indexing argument.", stacklevel=2
        )
        indexing = "ij"
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    for one in given:
        if one.ndim > 1:
            raise RuntimeError(
                f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got shape {list(one.shape)}"
            )
    swapped = indexing == "xy" and len(given) > 1
    if swapped:
        given[:2] = given[1::-1]
    size = tuple(one.numel() for one in given)
    grids = [
        broadcast_to(reshape(one, tuple(-1 if d == place else 1 for d in range(len(given)))), size)
        for place, one in enumerate(given)
    ]
    if swapped:
        grids[:2] = grids[1::-1]
    return tuple(grids)


def _check_vector(input: Tensor) -> None:
    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")


def cartesian_prod(*tensors: Any) -> Tensor:
    """Every choice of one element from each of the vectors, the last changing fastest: (n * m * ..., how many); of a
    single vector that vector."""
    given: Sequence[Tensor] = _listed(tensors, "cartesian_prod")
    for one in given:
        _check_vector(one)
    if len(given) == 1:
        return given[0]
    return stack([reshape(grid, -1) for grid in meshgrid(*given, indexing="ij")], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Every choice of ``r`` elements of a vector in their order, as ``itertools.combinations``: (how many, r)."""
    _check_vector(tensor_argument(input, "combinations"))
    if operator.index(r) < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return Tensor(np.empty(0, input.dtype))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    return getitem(input, np.array(list(choose(range(input.numel()), r)), np.int64).reshape(-1, r))

"""Elements of a rank: medians, modes and quantiles. Gradients go to the elements that the result is made of.

NaN counts as larger than everything; where a function does not leave it out, one makes the result NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from . import return_types
from .dims import check_keepdim, dim_argument, dims_argument, int_argument, numpy_names
from .elementwise import _where
from .extremum import clamp
from .largest import check_not_empty, picking, shared_evenly
from .positions import _gather
from .promotion import cast
from .rounding import ceil, floor, round
from .samples import all_values
from .shape import movedim, reshape

__all__ = [  # what distgrad itself offers
    "kthvalue",
    "median",
    "mode",
    "nanmedian",
    "nanquantile",
    "quantile",
]
METHODS = "kthvalue median mode nanmedian nanquantile quantile".split()  # what a Tensor offers

# Of one rank --------------------------------------------------------------------------------------------------------


def _at_rank(input: Array, rank: int, dim: int) -> Array:
    """Where the element of ``rank`` stands along ``dim``, which is kept."""
    parts = np.argpartition(input, rank, axis=dim)
    return np.take(parts, [rank], axis=dim)


def _median_place(input: Array, dim: int) -> Array:
    """Of an even number the lower; the first NaN if there is one."""
    places = _at_rank(input, (input.shape[dim] - 1) // 2, dim)
    if input.dtype.kind == "f":
        missing = np.isnan(input)
        if missing.any():
            first = missing.argmax(axis=dim, keepdims=True)
            places = np.where(missing.any(axis=dim, keepdims=True), first, places)
    return places


def _nanmedian_place(input: Array, dim: int) -> Array:
    if input.dtype.kind != "f" or not np.isnan(input).any():
        return _median_place(input, dim)
    # the ranks differ from line to line
    numbers = np.count_nonzero(input == input, axis=dim, keepdims=True)
    order = np.argsort(input, axis=dim, kind="stable")
    return np.take_along_axis(order, np.maximum(numbers - 1, 0) // 2, dim)


def _mode_place(input: Array, dim: int) -> Array:
    """Of equally frequent values the smallest, of its elements the last."""
    order = np.argsort(input, axis=dim, kind="stable")
    values = np.moveaxis(np.take_along_axis(input, order, dim), dim, -1)
    places = np.arange(values.shape[-1])
    begins = np.concatenate([np.ones((*values.shape[:-1], 1), np.bool_), values[..., 1:] != values[..., :-1]], axis=-1)
    so_far = places - np.maximum.accumulate(np.where(begins, places, 0), axis=-1)
    return np.take_along_axis(order, np.moveaxis(so_far.argmax(axis=-1, keepdims=True), -1, dim), dim)


def _placing(function: Any) -> Any:
    def place(input: Array, dim: int, keepdim: bool, **options: int) -> Array:
        if not input.ndim:
            return np.zeros((), np.int64)
        # take and moveaxis leave gaps and turned strides behind
        places = np.ascontiguousarray(function(input, dim=dim, **options))
        return places if keepdim else places.squeeze(dim)

    return place


def _whole(place: Any) -> Any:
    def forward(input: Array) -> Array:
        flat = input.reshape(-1)
        if not flat.size:  # PyTorch's answer: NaN, in integers the smallest
            return np.asarray(math.nan if input.dtype.kind == "f" else np.iinfo(input.dtype).min, input.dtype)
        return flat[place(flat, dim=0)].reshape(())  # type: ignore[no-any-return]

    return forward


_places: dict[str, Primitive] = {
    name: define(f"{name.capitalize()}Index", _placing(function), ("input",))
    for name, function in (
        ("kthvalue", _at_rank),
        ("median", _median_place),
        ("nanmedian", _nanmedian_place),
        ("mode", _mode_place),
    )
}
_picks: dict[str, Primitive] = {name: picking(name.capitalize()) for name in _places}
_of_all: dict[str, Primitive] = {
    "median": define("MedianOfAll", _whole(_median_place), ("input",), input=shared_evenly),
    "nanmedian": define("NanmedianOfAll", _whole(_nanmedian_place), ("input",), input=shared_evenly),
}


def _refuse_bool(name: str, input: Tensor) -> None:
    if input.dtype == np.bool_:
        raise NotImplementedError(f"{name}() is not implemented for bool; call int() first")


def _along(name: str, input: Tensor, dim: Any, keepdim: bool, **options: int) -> return_types.Named:
    axis = dim_argument(name, dim, input.ndim)
    check_keepdim(keepdim)
    if input.ndim:
        check_not_empty(name, input, (axis,))
    indices = _places[name](input, dim=axis, keepdim=keepdim, **options)
    values = _picks[name](input, indices, dim=axis, keepdim=keepdim)
    result: type[return_types.Named] = getattr(return_types, name)
    return result((values, indices))


@numpy_names
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> return_types.Named:
    """The ``k``-th smallest element along ``dim``, counted from 1.

    Args:
        input: any dtype but bool.
        k: the rank.
        dim: along which to look.
        keepdim: keep ``dim`` with length 1.

    Returns:
        ``values`` and ``indices`` (int64), where they stand along ``dim``.

    Raises:
        IndexError: ``dim`` is out of range or has no elements.
        NotImplementedError: bools.
        RuntimeError: ``k`` is not between 1 and the number of elements.
        TypeError: ``k`` or ``dim`` is no integer.
    """
    rank, axis = int_argument("kthvalue", "k", k, 2) - 1, dim_argument("kthvalue", dim, input.ndim, position=3)
    _refuse_bool("kthvalue", input)
    length = input.shape[axis] if input.ndim else 1
    if length and not 0 <= rank < length:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {axis}: {k} of {length} elements")
    return _along("kthvalue", input, axis, keepdim, rank=rank)


def _median(name: str, input: Tensor, dim: Any, keepdim: bool) -> Any:
    _refuse_bool(name, input)
    if dim is not None:
        return _along(name, input, dim, keepdim)
    if keepdim:
        raise TypeError(f"{name}() with keepdim needs dim")
    return _of_all[name](input)


@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median, of an even number of elements the lower of the two in the middle; NaN if there is one.

    Args:
        input: any dtype but bool.
        dim: along which to look; the whole tensor without it.
        keepdim: keep ``dim`` with length 1.

    Returns:
        A tensor; with ``dim`` the pair (``values``, ``indices``), int64. The gradient goes to the element of the index,
        and is shared evenly by equal elements without ``dim``. The median of no elements is NaN.

    Raises:
        IndexError: ``dim`` is out of range or has no elements.
        NotImplementedError: bools.
    """
    return _median("median", input, dim, keepdim)


@numpy_names
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The ``median`` of the elements that are not NaN; NaN where there is none."""
    return _median("nanmedian", input, dim, keepdim)


@numpy_names
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> return_types.Named:
    """The most frequent value along ``dim``, of equally frequent ones the smallest.

    Returns:
        ``values`` and ``indices`` (int64), where the value stands last.

    Raises:
        IndexError: ``dim`` is out of range or has no elements.
    """
    return _along("mode", input, dim, keepdim)


# Between two ranks --------------------------------------------------------------------------------------------------

_ROUNDINGS: dict[str, Any] = {"lower": floor, "higher": ceil, "nearest": round}
_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")

_order: Primitive = define("QuantileOrder", lambda input: np.argsort(input, axis=-1), ("input",))
_missing: Primitive = define(
    "CountNan", lambda input: np.count_nonzero(input != input, axis=-1, keepdims=True), ("input",)
)


def _rank(name: str, input: Tensor, q: Tensor | float) -> Tensor:
    """``q`` as a vector of the dtype of ``input``, with all its values found right."""
    if not isinstance(q, Tensor):
        if isinstance(q, bool) or not isinstance(q, (int, float, np.number)):
            raise TypeError(f"{name}(): argument 'q' (position 2) must be float or Tensor, not {type(q).__name__}")
        if not 0 <= q <= 1:
            raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q}")
        return Tensor(np.full((1,), q, input.dtype))
    if q.ndim > 1:
        raise RuntimeError(f"{name}() q must be a scalar or 1D tensor, not of shape {list(q.shape)}")
    if q.dtype != input.dtype:
        raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor: {q.dtype} and {input.dtype}")
    fractions = all_values(q)
    if not ((fractions >= 0) & (fractions <= 1)).all():
        raise RuntimeError(f"{name}() q values must be in the range [0, 1]")
    return reshape(q, (q.numel(),))


def _between(lines: Tensor, q: Tensor, interpolation: str, leave_out_nan: bool) -> Tensor:
    """(..., n) and (m,) to (..., m)."""
    length, missing = lines.shape[-1], _missing(lines)
    if leave_out_nan:
        ranks = q * cast(clamp(length - 1 - missing, min=0), lines.dtype)
    else:
        # NaN is sorted behind everything: where one is among the elements, the last is the result
        ranks = _where(missing == 0, q * float(length - 1), np.asarray(length - 1, lines.dtype))
    order, exact = _order(lines), ranks.detach()

    def at(rounding: Any) -> Tensor:
        index = _gather(order, cast(rounding(exact), np.int64), dim=lines.ndim - 1)
        out: Tensor = _gather(lines, index, dim=lines.ndim - 1)
        return out

    if interpolation in _ROUNDINGS:
        return at(_ROUNDINGS[interpolation])
    low, high = at(floor), at(ceil)
    step = high - low
    if interpolation == "midpoint":
        return high - step * 0.5
    weight = ranks - floor(exact)
    # of the two ways to write it that which starts from the nearer end, so that it is exact at both
    out: Tensor = _where(weight < 0.5, low + step * weight, high - step * (1.0 - weight))
    return out


def _quantile(
    name: str, input: Tensor, q: Tensor | float, dim: Any, keepdim: bool, interpolation: str, leave_out_nan: bool
) -> Tensor:
    if input.dtype not in (np.float32, np.float64):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype, not {input.dtype}")
    if interpolation not in _INTERPOLATIONS:
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {interpolation}"
        )
    axis = None if dim is None else dim_argument(name, dim, input.ndim, position=3)
    dims = dims_argument(axis, input.ndim, keepdim)
    ranks = _rank(name, input, q)
    if input.numel() == 0:
        raise RuntimeError(f"{name}() input tensor must be non-empty: its shape is {list(input.shape)}")
    lines = reshape(input, (-1,)) if axis is None or not input.ndim else movedim(input, axis, -1)
    out = movedim(_between(lines, ranks, interpolation, leave_out_nan), -1, 0)
    shape = [1 if d in dims else n for d, n in enumerate(input.shape) if keepdim or d not in dims]
    return reshape(out, (*(q.shape if isinstance(q, Tensor) else ()), *shape))


@numpy_names
def quantile(
    input: Tensor,
    q: Tensor | float,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The ``q``-quantiles along ``dim`` (of the whole tensor without it); NaN where a NaN is among the elements.

    Args:
        input: float32 or float64.
        q: a number, or a 0-d or 1-D tensor of the dtype of ``input``, in [0, 1].
        dim: along which to look.
        keepdim: keep ``dim`` with length 1.
        interpolation: what lies at ``q`` between two elements: "linear" interpolation of them, the "lower", the
            "higher", their "midpoint", or the "nearest".

    Returns:
        The shape of ``input`` without ``dim``, after the length of a 1-D ``q``.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: dtypes, ``q`` or ``interpolation`` are wrong, or there are no elements.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, leave_out_nan=False)


@numpy_names
def nanquantile(
    input: Tensor,
    q: Tensor | float,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The ``quantile`` of the elements that are not NaN; NaN where there is none."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, leave_out_nan=True)

"""Running results along a dimension: of each element and all before it.

Sums and products are added up in float64 and rounded once, as PyTorch does on the CPU, or an error that grows with each
step would show in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.scatter import add_at
from . import return_types
from .dims import dim_argument, numpy_names
from .elementwise import _exp
from .promotion import cast

__all__ = [  # what distgrad itself offers
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "logcumsumexp",
]
METHODS = "cummax cummin cumprod cumsum logcumsumexp".split()  # what a Tensor offers
IN_PLACE = "cumprod cumsum".split()  # of these, what also exists as NAME_


def _turned(x: Array, dim: int, reverse: bool) -> Array:
    """A view from the end to the start."""
    return np.flip(x, dim) if reverse else x


def _accumulated(function: np.ufunc, input: Array, dim: int, reverse: bool) -> Array:
    if not input.ndim:
        return input.copy()
    line = _turned(input, dim, reverse)
    line = line.astype(np.float64 if input.dtype.kind == "f" else input.dtype)
    function.accumulate(line, axis=dim, out=line)
    # in order again: a flipped array would leave through the result
    return np.ascontiguousarray(_turned(line, dim, reverse), input.dtype)


def _shifted(input: Array, dim: int, by: int, fill: float) -> Array:
    out = np.full(input.shape, fill, input.dtype)
    if input.ndim:
        behind, before = (slice(None),) * dim + (slice(1, None),), (slice(None),) * dim + (slice(None, -1),)
        to, of = (behind, before) if by == 1 else (before, behind)
        out[to] = input[of]
    return out


_shift: Primitive = define(  # by one place along dim: 1 or -1
    "Shift", _shifted, ("input",), input=lambda g, dim, by: _shift(g, dim=dim, by=-by, fill=0.0)
)
_cumsum: Primitive = define(
    "Cumsum",
    lambda input, dim, reverse=False: _accumulated(np.add, input, dim, reverse),
    ("input",),
    input=lambda g, dim, reverse: _cumsum(g, dim=dim, reverse=not reverse),
)


def _steps(input: Array, factor: Array, dim: int, reverse: bool) -> Array:
    out = input.copy()
    if input.ndim:
        # dim in front, turned so that the steps go upwards
        lines, values, factors = (np.moveaxis(_turned(x, dim, reverse), dim, 0) for x in (out, input, factor))
        for i in range(1, len(lines)):
            lines[i] = values[i] + factors[i] * lines[i - 1]
    return out


# out[i] = input[i] + factor[i] * out[i - 1], or with reverse out[i + 1]: what the adjoints of running products need.
# Its own adjoint is one in the other direction.
_recurrence: Primitive = define(
    "LinearRecurrence",
    _steps,
    ("input", "factor"),
    input=lambda g, factor, dim, reverse: _steps_back(g, factor, dim, reverse),
    factor=lambda g, factor, output, dim, reverse: (
        _steps_back(g, factor, dim, reverse) * _shift(output, dim=dim, by=-1 if reverse else 1, fill=0.0)
    ),
)


def _steps_back(g: Any, factor: Any, dim: int, reverse: bool) -> Any:
    # the factor that leads from i to its successor stands there
    leading = _shift(factor, dim=dim, by=1 if reverse else -1, fill=0.0)
    return _recurrence(g, leading, dim=dim, reverse=not reverse)


def _has_zero(x: Any) -> bool:
    values = x._data if isinstance(x, Tensor) else x
    return not values.all()


def _cumprod_vjp(g: Any, input: Any, output: Any, dim: int, reverse: bool) -> Any:
    if not _has_zero(input):
        return _cumsum(g * output, dim=dim, reverse=not reverse) / input
    # Division cannot give the product of the others. What stands before an element is a running product, and how the
    # gradients behind it add up is a recurrence.
    to, back = (-1, 1) if reverse else (1, -1)
    behind = _recurrence(g, _shift(input, dim=dim, by=back, fill=0.0), dim=dim, reverse=not reverse)
    return _shift(output, dim=dim, by=to, fill=1.0) * behind


_cumprod: Primitive = define(
    "Cumprod",
    lambda input, dim, reverse=False: _accumulated(np.multiply, input, dim, reverse),
    ("input",),
    input=_cumprod_vjp,
)


def _logcumsumexp_vjp(g: Any, input: Any, output: Any, dim: int) -> Any:
    # exp(input[i]) times the sum over j >= i of g[j] / exp(output[j]). Outputs never fall: no exponent here is above 0.
    decay = _exp(output - _shift(output, dim=dim, by=-1, fill=np.inf))
    return _exp(input - output) * _recurrence(g, decay, dim=dim, reverse=True)


_logcumsumexp: Primitive = define(
    "Logcumsumexp",
    lambda input, dim: _accumulated(np.logaddexp, input, dim, reverse=False),
    ("input",),
    input=_logcumsumexp_vjp,
)


def _running_place(function: np.ufunc, input: Array, dim: int) -> Array:
    """Where the running extremum stands; of equal ones the last, and from a NaN on the last NaN."""
    if not input.ndim:
        return np.zeros((), np.int64)
    extreme = function.accumulate(input, axis=dim)
    found = input == extreme
    if input.dtype.kind == "f":
        found |= np.isnan(input)
    places = np.where(found, np.arange(input.shape[dim]).reshape((-1,) + (1,) * (input.ndim - dim - 1)), 0)
    return np.maximum.accumulate(places, axis=dim, out=places)


def _add_along(input: Array, index: Array, shape: tuple[int, ...], dim: int) -> Array:
    if not input.ndim:
        return input.copy()
    grid = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    grid[dim] = index
    return add_at(shape, tuple(grid), input)


def _taken(input: Array, index: Array, dim: int) -> Array:
    return np.take_along_axis(input, index, dim) if input.ndim else input.copy()


_cummax, _cummin = (
    define(
        name,
        _taken,
        ("input", "index"),
        input=lambda g, index, input_shape, dim: _add_running(g, index, shape=input_shape, dim=dim),
    )
    for name in ("Cummax", "Cummin")
)
_add_running: Primitive = define(  # their adjoint: an element is named by all places where it is the extremum
    "RunningExtremumAdjoint", _add_along, ("input", "index"), input=lambda g, index, dim: _cummax(g, index, dim=dim)
)
_argcummax: Primitive = define("Argcummax", lambda input, dim: _running_place(np.maximum, input, dim), ("input",))
_argcummin: Primitive = define("Argcummin", lambda input, dim: _running_place(np.minimum, input, dim), ("input",))


def _in_wide_integers(input: Tensor, dtype: Any) -> Tensor:
    """``input`` in ``dtype``; without one, integers and bools in int64, as they are added and multiplied."""
    if dtype is not None:
        return cast(input, dtype)  # type: ignore[no-any-return]
    return input if input.is_floating_point() else cast(input, np.int64)


@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The sum of each element and all before it along ``dim``; of the shape of ``input``, as ``torch.cumsum``.

    Args:
        input: any dtype; integers and bools give int64.
        dim: along which to add.
        dtype: what ``input`` is cast to first, and the dtype of the result.

    Raises:
        IndexError: ``dim`` is out of range.
    """
    axis = dim_argument("cumsum", dim, input.ndim)
    out: Tensor = _cumsum(_in_wide_integers(input, dtype), dim=axis)
    return out


@numpy_names
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The product of each element and all before it along ``dim``; arguments as of ``cumsum``.

    Its gradient is right at zeros too; lines with zeros take longer.
    """
    axis = dim_argument("cumprod", dim, input.ndim)
    out: Tensor = _cumprod(_in_wide_integers(input, dtype), dim=axis)
    return out


@numpy_names
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(input), dim)), without overflow; of the shape and dtype of ``input``.

    Raises:
        IndexError: ``dim`` is out of range.
        NotImplementedError: integers, as in PyTorch.
    """
    axis = dim_argument("logcumsumexp", dim, input.ndim)
    if not input.is_floating_point():
        raise NotImplementedError(f"logcumsumexp() is not implemented for {input.dtype}; call float() first")
    out: Tensor = _logcumsumexp(input, dim=axis)
    return out


def _running(
    result: type[return_types.Named], place: Primitive, take: Primitive, input: Tensor, dim: Any
) -> return_types.Named:
    axis = dim_argument(result.__name__, dim, input.ndim)
    indices = place(input, dim=axis)
    return result((take(input, indices, dim=axis), indices))


@numpy_names
def cummax(input: Tensor, dim: int) -> return_types.Named:
    """The largest of each element and all before it along ``dim``, as ``torch.cummax``.

    Returns:
        ``values``, of the shape of ``input``, and ``indices`` (int64), where they stand: of equal elements the last,
        which also gets the gradient. From a NaN on everything is NaN.

    Raises:
        IndexError: ``dim`` is out of range.
    """
    return _running(return_types.cummax, _argcummax, _cummax, input, dim)


@numpy_names
def cummin(input: Tensor, dim: int) -> return_types.Named:
    """The smallest of each element and all before it along ``dim``; else as ``cummax``."""
    return _running(return_types.cummin, _argcummin, _cummin, input, dim)

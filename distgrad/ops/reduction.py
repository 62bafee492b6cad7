"""Sums, means, products, variances and truth over dimensions. The adjoint of a sum spreads the gradient."""

from __future__ import annotations

import builtins
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.shortcut import keyed
from ..autograd.tensor import Array
from ..kernels.summation import sum_over
from .dims import Dims, dim_argument, dims_argument, numpy_names
from .elementwise import _expand_primitive, _expanded, _where
from .promotion import cast
from .scan import _cumprod, _has_zero, _shift
from .shape import _reshape

__all__ = [  # what distgrad itself offers
    "all",
    "any",
    "count_nonzero",
    "mean",
    "nanmean",
    "nansum",
    "prod",
    "std",
    "std_mean",
    "sum",
    "var",
    "var_mean",
]
METHODS = "all any count_nonzero mean nanmean nansum prod std sum var".split()  # what a Tensor offers


def _kept(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


def _count(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    """How many elements are reduced to one."""
    return math.prod(shape) if len(dims) == len(shape) else math.prod([shape[d] for d in dims])


# Up to so many elements it takes less time to write them than to go on with repeated ones.
_FEW = 1 << 10


def _filled(g: Array, shape: tuple[int, ...]) -> Array:
    """(), g, repeated."""
    if math.prod(shape) <= _FEW:
        out = np.empty(shape, g.dtype)
        out.fill(g)
        return out
    out = np.ndarray(shape, g.dtype, g, 0, (0,) * len(shape))
    out.flags.writeable = False
    return out


def spread(g: Any, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    """``g``, the result of a reduction of ``shape`` over ``dims``, repeated over them: the adjoint of a sum."""
    if type(g) is np.ndarray:
        if not g.ndim:  # of all dimensions
            return _filled(g, shape)
        return _expanded(g.reshape(_kept(shape, dims)), shape)
    return _expand_primitive(_reshape(g, shape=_kept(shape, dims)), shape=shape)


_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


def _computed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """In which dtype to compute: float16 in float32."""
    return _FLOAT32 if dtype.char == "e" else dtype


# Sums and means -----------------------------------------------------------------------------------------------------

_sum: Primitive = define(
    "Sum",
    lambda input, dims, keepdim, dtype: sum_over(input, dims, keepdim, dtype),
    ("input",),
    input=lambda g, input_shape, dims: spread(g, input_shape, dims),
)
_summed = keyed(_sum)


def _nansum_forward(input: Array, dims: tuple[int, ...], keepdim: bool) -> Any:
    total = sum_over(input, dims, keepdim)
    return sum_over(np.where(np.isnan(input), 0, input), dims, keepdim) if np.isnan(total).any() else total


_nansum: Primitive = define(
    "Nansum",
    _nansum_forward,
    ("input",),
    input=lambda g, input, input_shape, dims: spread(g, input_shape, dims) * (input == input),
)


def _mean_forward(input: Array, dims: tuple[int, ...], keepdim: bool) -> Any:
    total = sum_over(input, dims, keepdim, _computed(input.dtype))
    total /= _count(input.shape, dims)
    return total if total.dtype is input.dtype else total.astype(input.dtype, copy=False)


def _mean_vjp(g: Any, input_shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    # of no elements there is no gradient either, whatever it is divided by
    count = _count(input_shape, dims) or 1
    if type(g) is np.ndarray and not g.ndim:
        return _filled(np.asarray(g[()] / count), input_shape)
    return spread(g / count, input_shape, dims)


_mean: Primitive = define(
    "Mean",
    _mean_forward,
    ("input",),
    input=_mean_vjp,
)
_averages = keyed(_mean)


@numpy_names
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim``, one dimension or several; over all without it, or with an empty tuple.

    Args:
        input: any dtype; integers and bools give int64.
        dim: what to sum over.
        keepdim: keep the dimensions with length 1.
        dtype: what ``input`` is cast to first, and the dtype of the result.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: one is named twice.
    """
    if dtype is not None:
        input = cast(input, dtype)
        wide = input.dtype
    else:
        wide = input._data.dtype
        if wide.kind != "f":
            wide = _INT64
    return _summed(input, {"dims": dims_argument(dim, input._data.ndim, keepdim), "keepdim": keepdim, "dtype": wide})


@numpy_names
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """As ``sum``, with NaN counted as 0; no gradient reaches a NaN."""
    if not input.is_floating_point():
        return sum(input, dim, keepdim, dtype=dtype)
    if dtype is not None:
        if np.dtype(dtype).kind != "f":  # a NaN has no integer
            input = Tensor(np.nan_to_num(input._data, nan=0.0))
            return sum(input, dim, keepdim, dtype=dtype)
        input = cast(input, dtype)
    out: Tensor = _nansum(input, dims=dims_argument(dim, input.ndim, keepdim), keepdim=keepdim)
    return out


def _averaged(name: str, input: Tensor, dtype: Any) -> Tensor:
    given = input.dtype if dtype is None else np.dtype(dtype)
    if given.kind != "f":
        which = "Input" if dtype is None else "Optional"
        raise RuntimeError(
            f"{name}(): could not infer output dtype. {which} dtype must be either a floating point or complex dtype. "
            f"Got: {given}; pass dtype= or call float() first"
        )
    return cast(input, given)  # type: ignore[no-any-return]


@numpy_names
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over ``dim``, one dimension or several (all without it); NaN over no elements.

    Args:
        input: floating point, as in PyTorch; or any with ``dtype``.
        dim: what to average over.
        keepdim: keep the dimensions with length 1.
        dtype: what ``input`` is cast to first.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: integers without a floating-point ``dtype``, or a dimension is named twice.
    """
    if dtype is not None or input._data.dtype.kind != "f":
        input = _averaged("mean", input, dtype)
    return _averages(input, {"dims": dims_argument(dim, input._data.ndim, keepdim), "keepdim": keepdim})


@numpy_names
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over ``dim`` of the elements that are not NaN, NaN where there is none; else as ``mean``.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: integers, or a dimension is named twice.
    """
    if not input.is_floating_point():
        raise RuntimeError(f"nanmean(): expected input to have floating point or complex dtype but got {input.dtype}")
    input = _averaged("nanmean", input, dtype)
    dims = dims_argument(dim, input.ndim, keepdim)
    number = sum(input == input, dims or None, keepdim)
    out: Tensor = nansum(input, dims or None, keepdim) / cast(number, input.dtype)
    return out


# Products -----------------------------------------------------------------------------------------------------------


def _prod_forward(input: Array, dims: tuple[int, ...], keepdim: bool) -> Any:
    total = input.prod(axis=dims, keepdims=keepdim, dtype=_computed(input.dtype))
    return total.astype(input.dtype, copy=False)


def _prod_vjp(g: Any, input: Any, output: Any, input_shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    if not _has_zero(input):
        return spread(g * output, input_shape, dims) / input
    # Division cannot give the product of all other elements: those before an element by those behind it.
    line, dim = (input, dims[0]) if len(dims) == 1 else (_reshape(input, shape=(math.prod(input_shape),)), 0)
    before = _cumprod(_shift(line, dim=dim, by=1, fill=1.0), dim=dim)
    behind = _cumprod(_shift(line, dim=dim, by=-1, fill=1.0), dim=dim, reverse=True)
    return spread(g, input_shape, dims) * _reshape(before * behind, shape=input_shape)


_prod: Primitive = define("Prod", _prod_forward, ("input",), input=_prod_vjp)


@numpy_names
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product of all elements, or along the one dimension ``dim``; 1 over no elements.

    Args:
        input: any dtype; integers and bools give int64.
        dim: along which to multiply.
        keepdim: keep it with length 1.
        dtype: what ``input`` is cast to first, and the dtype of the result.

    Raises:
        IndexError: ``dim`` is out of range.
        TypeError: ``dim`` is no integer, or ``keepdim`` is given without it.
    """
    if dim is None and keepdim:
        raise TypeError("prod() with keepdim needs dim")
    dims = dims_argument(None if dim is None else dim_argument("prod", dim, input.ndim), input.ndim, keepdim)
    if dtype is not None:
        input = cast(input, dtype)
    elif not input.is_floating_point():
        input = cast(input, np.int64)
    out: Tensor = _prod(input, dims=dims, keepdim=keepdim)
    return out


# Variances ----------------------------------------------------------------------------------------------------------


def _variance(input: Array, dims: tuple[int, ...], keepdim: bool, correction: float) -> Any:
    x, count = input.astype(_computed(input.dtype), copy=False), _count(input.shape, dims)
    # Seen from the first element: then the mean is near 0 and loses no digits, and of equal elements nothing is left.
    centred = x - x[tuple(slice(0, 1) if d in dims else slice(None) for d in range(x.ndim))]
    centred -= sum_over(centred, dims, keepdims=True) / count
    centred *= centred
    squares = sum_over(centred, dims, keepdim)
    squares /= builtins.max(count - correction, 0.0)
    return squares.astype(input.dtype, copy=False)


def _variance_vjp(g: Any, input: Any, input_shape: tuple[int, ...], dims: tuple[int, ...], correction: float) -> Any:
    degrees = _count(input_shape, dims) - correction
    centre = _mean(input, dims=dims, keepdim=True)
    if degrees > 0:
        return spread(g * (2.0 / degrees), input_shape, dims) * (input - centre)
    # PyTorch's convention where the variance is not finite.
    flat = input == centre
    nothing = np.where(flat._data if isinstance(flat, Tensor) else flat, np.nan, np.inf).astype(g.dtype)
    return spread(g, input_shape, dims) * nothing


def _deviation_vjp(
    g: Any, input: Any, output: Any, input_shape: tuple[int, ...], dims: tuple[int, ...], correction: float
) -> Any:
    constant = output == 0
    g = _where(constant, 0.0, g / (2.0 * _where(constant, 1.0, output)))
    return _variance_vjp(g, input, input_shape, dims, correction)


_var: Primitive = define("Var", _variance, ("input",), input=_variance_vjp)
_std: Primitive = define(
    "Std", lambda input, **options: np.sqrt(_variance(input, **options)), ("input",), input=_deviation_vjp
)


def _scattering(name: str, input: Tensor, dim: Any, unbiased: Any, keepdim: bool, correction: Any) -> dict[str, Any]:
    """What the primitives need, from the arguments that PyTorch takes now and those that it took before."""
    if not input.is_floating_point():
        which = name if name.endswith("mean") else "std and var"
        raise RuntimeError(f"{which} only support floating point and complex dtypes, not {input.dtype}")
    if isinstance(dim, (bool, np.bool_)):
        if unbiased is not None:
            raise TypeError(f"{name}(): argument 'dim' must be an int or a tuple of ints, not bool")
        dim, unbiased = None, dim
    if unbiased is not None:
        if not isinstance(unbiased, (bool, np.bool_)):
            raise TypeError(f"{name}(): argument 'unbiased' must be bool, not {type(unbiased).__name__}")
        if correction is not None:
            raise TypeError(f"{name}() takes 'correction' or 'unbiased', not both")
        correction = int(unbiased)
    correction = 1 if correction is None else correction
    dims = dims_argument(dim, input.ndim, keepdim)
    if _count(input.shape, dims) - correction <= 0:
        warnings.warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the reduction factor "
            f"(input numel divided by output numel): {correction} of {_count(input.shape, dims)} elements.",
            stacklevel=4,
        )
    return {"dims": dims, "keepdim": keepdim, "correction": float(correction)}


@numpy_names
def var(
    input: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance over ``dim``: squared distances from the mean over (number of elements - ``correction``).

    Args:
        input: floating point.
        dim: one dimension or several; all without it. A bool here is ``unbiased``, as in PyTorch.
        unbiased: the older way to say ``correction`` 1 (True) or 0 (False).
        keepdim: keep the dimensions with length 1.
        correction: 1 unless given. Where it is not less than the number of elements, a warning says so and the result
            is infinite or NaN.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: integers, or a dimension is named twice.
        TypeError: both ``correction`` and ``unbiased``.
    """
    out: Tensor = _var(input, **_scattering("var", input, dim, unbiased, keepdim, correction))
    return out


@numpy_names
def std(
    input: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The standard deviation over ``dim``, the square root of ``var``; where it is 0, its gradient is 0 too."""
    out: Tensor = _std(input, **_scattering("std", input, dim, unbiased, keepdim, correction))
    return out


@numpy_names
def var_mean(
    input: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The variance, as ``var``, and the mean over ``dim``."""
    options = _scattering("var_mean", input, dim, unbiased, keepdim, correction)
    return _var(input, **options), _mean(input, dims=options["dims"], keepdim=keepdim)


@numpy_names
def std_mean(
    input: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The standard deviation, as ``std``, and the mean over ``dim``."""
    options = _scattering("std_mean", input, dim, unbiased, keepdim, correction)
    return _std(input, **options), _mean(input, dims=options["dims"], keepdim=keepdim)


# Truth --------------------------------------------------------------------------------------------------------------


def _truth(function: Callable[..., Any], input: Array, dims: tuple[int, ...], keepdim: bool) -> Any:
    found = function(input != 0, axis=dims, keepdims=keepdim)
    return found.astype(np.uint8) if input.dtype == np.uint8 else found  # PyTorch's exception


_any: Primitive = define("Any", lambda input, dims, keepdim: _truth(np.any, input, dims, keepdim), ("input",))
_all: Primitive = define("All", lambda input, dims, keepdim: _truth(np.all, input, dims, keepdim), ("input",))
_count_nonzero: Primitive = define(
    "CountNonzero",
    lambda input, dims: np.asarray(np.count_nonzero(input, axis=dims or None), np.int64),
    ("input",),
)


def _truth_dims(dim: Dims, ndim: int, keepdim: bool) -> tuple[int, ...]:
    # unlike for all other reductions, no dimension means none: the result has the shape of the input
    return () if isinstance(dim, Sequence) and not dim else dims_argument(dim, ndim, keepdim)


@numpy_names
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element over ``dim`` (all without it) is not zero: bool, or uint8 for uint8. NaN is not zero."""
    out: Tensor = _any(input, dims=_truth_dims(dim, input.ndim, keepdim), keepdim=keepdim)
    return out


@numpy_names
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether every element over ``dim`` (all without it) is not zero: bool, or uint8 for uint8. NaN is not zero."""
    out: Tensor = _all(input, dims=_truth_dims(dim, input.ndim, keepdim), keepdim=keepdim)
    return out


@numpy_names
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements over ``dim`` (all without it) are not zero, int64. NaN is not zero."""
    out: Tensor = _count_nonzero(input, dims=dims_argument(dim, input.ndim))
    return out

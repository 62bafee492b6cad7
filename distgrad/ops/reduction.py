"""Reductions over dimensions. Their adjoint spreads the gradient over what was reduced."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _exp, _expand_primitive, _where, exp, log, maximum, minimum, sqrt, where
from .indexing import gather
from .promotion import cast, get_default_dtype
from .shape import _reshape, normalize_dim

__all__ = [  # what distgrad itself offers
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "softmax",
    "std",
    "sum",
    "topk",
    "var",
]
METHODS = (  # what a Tensor offers
    "all amax amin any argmax argmin log_softmax logsumexp max mean min softmax std sum topk var"
).split()

Dims = int | Sequence[int] | None


def _dims(dim: Dims, ndim: int) -> tuple[int, ...]:
    """The dimensions to reduce, counted from the front; none given means all."""
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return tuple(range(ndim))
    dims = tuple(normalize_dim(d, ndim) for d in ([dim] if isinstance(dim, int) else dim))
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"dim {dim} appears multiple times in the list of dims")
    return tuple(d for d in dims if ndim)


def _kept(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


def spread(g: Any, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    """``g``, the result of a reduction of ``shape`` over ``dims``, repeated over them: the adjoint of a sum."""
    return _expand_primitive(_reshape(g, shape=_kept(shape, dims)), shape=shape)


_sum: Primitive = define(
    "Sum",
    lambda input, dims, keepdim, dtype: input.sum(axis=dims, keepdims=keepdim, dtype=dtype),
    ("input",),
    input=lambda g, input_shape, dims: spread(g, input_shape, dims),
)
_mean: Primitive = define(
    "Mean",
    lambda input, dims, keepdim: input.mean(axis=dims, keepdims=keepdim),
    ("input",),
    input=lambda g, input_shape, dims: spread(g / _count(input_shape, dims), input_shape, dims),
)
_amax: Primitive = define(
    "Amax",
    lambda input, dims, keepdim: input.max(axis=dims, keepdims=keepdim),
    ("input",),
    input=lambda g, input, output, input_shape, dims: _shared(g, input, output, input_shape, dims),
)
_amin: Primitive = define(
    "Amin",
    lambda input, dims, keepdim: input.min(axis=dims, keepdims=keepdim),
    ("input",),
    input=lambda g, input, output, input_shape, dims: _shared(g, input, output, input_shape, dims),
)


def _count(shape: tuple[int, ...], dims: tuple[int, ...]) -> float:
    # never 0: a mean over nothing is NaN already, and its gradient has no elements
    return float(builtins.max(int(np.prod([shape[d] for d in dims], dtype=np.int64)), 1))


def _shared(g: Any, input: Any, output: Any, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    """PyTorch's convention for ``amax``: elements that are equally extreme share the gradient evenly."""
    equal = input == spread(output, shape, dims)
    mask = equal._data if isinstance(equal, Tensor) else equal
    number = mask.sum(axis=dims, keepdims=True).astype(g.dtype)
    return _where(equal, spread(g, shape, dims) / number, 0.0)


def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over ``dim`` (all without it). Integers and bools give int64."""
    if dtype is not None:
        input = cast(input, dtype)
    elif input.dtype.kind != "f":
        dtype = np.dtype(np.int64)
    out: Tensor = _sum(input, dims=_dims(dim, input.ndim), keepdim=keepdim, dtype=dtype or input.dtype)
    return out


def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over ``dim`` (all without it); NaN over no elements. Floating-point tensors only, as in PyTorch."""
    if dtype is not None:
        input = cast(input, dtype)
    if input.dtype.kind != "f":
        raise RuntimeError(
            f"mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: "
            f"{input.dtype}; pass dtype= or call float() first"
        )
    dims = _dims(dim, input.ndim)
    if builtins.any(input.shape[d] == 0 for d in dims):
        return sum(input, dim, keepdim) / 0.0
    out: Tensor = _mean(input, dims=dims, keepdim=keepdim)
    return out


def var(input: Tensor, dim: Dims = None, *, correction: float = 1, keepdim: bool = False) -> Tensor:
    """The variance over ``dim``: squared distances from the mean over (number of elements - ``correction``)."""
    dims = _dims(dim, input.ndim)
    centred = input - mean(input, dims, keepdim=True)
    degrees = np.prod([input.shape[d] for d in dims], dtype=np.int64) - correction
    return sum(centred * centred, dims, keepdim) / float(builtins.max(degrees, 0))


def std(input: Tensor, dim: Dims = None, *, correction: float = 1, keepdim: bool = False) -> Tensor:
    """The standard deviation over ``dim``, the square root of ``var``; where it is 0, its gradient is 0 too."""
    variance = var(input, dim, correction=correction, keepdim=keepdim)
    constant = variance == 0
    if not constant._data.any():
        return sqrt(variance)
    return where(constant, 0.0, sqrt(where(constant, 1.0, variance)))


def _extremum(primitive: Any, name: str, input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    dims = _dims(dim, input.ndim)
    if builtins.any(input.shape[d] == 0 for d in dims):
        raise IndexError(f"{name}(): Expected reduction dim to have non-zero size, the shape is {list(input.shape)}")
    out: Tensor = primitive(input, dims=dims, keepdim=keepdim)
    return out


def amax(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest element over ``dim``; equal ones share the gradient."""
    return _extremum(_amax, "amax", input, dim, keepdim)


def amin(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest element over ``dim``; equal ones share the gradient."""
    return _extremum(_amin, "amin", input, dim, keepdim)


def _arg(chooser: Any, name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    axis = None if dim is None else normalize_dim(dim, input.ndim)
    if input.numel() == 0 and (axis is None or input.shape[axis] == 0):
        raise IndexError(f"{name}(): Expected reduction dim to be specified for input.numel() == 0")
    # keepdims: NumPy gives a scalar where no dimension is left
    return Tensor(np.asarray(chooser(input._data, axis=axis, keepdims=keepdim), dtype=np.int64))


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the (first) largest element along ``dim``, or in the flattened tensor. int64."""
    return _arg(np.argmax, "argmax", input, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the (first) smallest element along ``dim``, or in the flattened tensor. int64."""
    return _arg(np.argmin, "argmin", input, dim, keepdim)


class _ValuesIndices(tuple[Tensor, Tensor]):
    """What ``max(dim)`` returns: a pair with names."""

    __slots__ = ()

    @property
    def values(self) -> Tensor:
        """The extreme elements."""
        return self[0]

    @property
    def indices(self) -> Tensor:
        """Where they stand along the reduced dimension."""
        return self[1]


def _picked(chooser: Any, input: Tensor, dim: int, keepdim: bool) -> _ValuesIndices:
    """Values and indices along one dimension; the gradient goes to the picked element alone."""
    indices = chooser(input, dim, keepdim=True)
    values = gather(input, dim, indices) if input.ndim else input
    if not keepdim and input.ndim:
        axis = normalize_dim(dim, input.ndim)
        shape = tuple(n for i, n in enumerate(values.shape) if i != axis)
        values, indices = _reshape(values, shape=shape), _reshape(indices, shape=shape)
    return _ValuesIndices((values, indices))


def max(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Any:
    """The largest element; with ``dim``, a pair (values, indices) along it; with a tensor, ``maximum``."""
    if isinstance(dim, Tensor):
        return maximum(input, dim)
    return amax(input) if dim is None else _picked(argmax, input, dim, keepdim)


def min(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Any:
    """The smallest element; with ``dim``, a pair (values, indices) along it; with a tensor, ``minimum``."""
    if isinstance(dim, Tensor):
        return minimum(input, dim)
    return amin(input) if dim is None else _picked(argmin, input, dim, keepdim)


def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element is not zero, a bool tensor."""
    return Tensor(np.asarray(input._data.astype(np.bool_).any(axis=_dims(dim, input.ndim), keepdims=keepdim)))


def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether every element is not zero, a bool tensor."""
    return Tensor(np.asarray(input._data.astype(np.bool_).all(axis=_dims(dim, input.ndim), keepdims=keepdim)))


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True) -> _ValuesIndices:
    """The ``k`` largest (or smallest) elements along ``dim``, sorted, and their indices."""
    axis = normalize_dim(dim, input.ndim)
    if not 0 <= k <= input.shape[axis]:
        raise RuntimeError(f"selected index k out of range: k is {k}, dimension {dim} has {input.shape[axis]} elements")
    if largest:
        # Turned round twice: negating would not order unsigned integers, nor keep equal elements in order.
        last = np.argsort(np.flip(input._data, axis), axis=axis, kind="stable")
        order = input.shape[axis] - 1 - np.flip(last, axis)
    else:
        order = np.argsort(input._data, axis=axis, kind="stable")
    indices = Tensor(np.ascontiguousarray(order[(slice(None),) * axis + (slice(0, k),)]))
    return _ValuesIndices((gather(input, axis, indices), indices))


# Softmax and relatives ----------------------------------------------------------------------------------------------


def _softmax_forward(input: Any, dim: int) -> Any:
    shifted = np.exp(input - input.max(axis=dim, keepdims=True, initial=-np.inf))
    return shifted / shifted.sum(axis=dim, keepdims=True)


def _log_softmax_forward(input: Any, dim: int) -> Any:
    shifted = input - input.max(axis=dim, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))


def _sum_along(x: Any, dim: int) -> Any:
    return _sum(x, dims=(dim,), keepdim=True, dtype=x.dtype)


_softmax: Primitive = define(
    "Softmax",
    _softmax_forward,
    ("input",),
    input=lambda g, output, dim: output * (g - _sum_along(g * output, dim)),
)
_log_softmax: Primitive = define(
    "LogSoftmax",
    _log_softmax_forward,
    ("input",),
    input=lambda g, output, dim: g - _exp(output) * _sum_along(g, dim),
)


def _floating(input: Tensor, dtype: Any) -> Tensor:
    if dtype is not None:
        return cast(input, dtype)  # type: ignore[no-any-return]
    return input if input.is_floating_point() else cast(input, get_default_dtype())


def softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """exp(input) over its sum along ``dim``, without overflow."""
    axis, input = normalize_dim(dim, input.ndim), _floating(input, dtype)
    out: Tensor = _softmax(input, dim=axis) if input.ndim else input * 0.0 + 1.0
    return out


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The logarithm of ``softmax``, computed without it."""
    axis, input = normalize_dim(dim, input.ndim), _floating(input, dtype)
    out: Tensor = _log_softmax(input, dim=axis) if input.ndim else input * 0.0
    return out


def logsumexp(input: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over ``dim``, without overflow."""
    dims = _dims(dim, input.ndim)
    if builtins.any(input.shape[d] == 0 for d in dims):
        return log(sum(exp(input), dims, keepdim))
    peak = amax(input, dims, keepdim=True).detach()
    # an infinite peak must not be subtracted from itself
    peak = Tensor(np.where(np.isfinite(peak._data), peak._data, 0).astype(peak.dtype))
    total = log(sum(exp(input - peak), dims, keepdim=True)) + peak
    return total if keepdim else _reshape(total, shape=tuple(n for i, n in enumerate(total.shape) if i not in dims))

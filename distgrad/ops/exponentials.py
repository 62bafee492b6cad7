"""Exponentials and their sums without overflow: ``softmax`` and what belongs to it.

float16 is computed in float32. In a backward pass only the output is kept, and memory for one more array is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.precision import half_in_single
from ..kernels.summation import sum_over
from .dims import dim_argument, dims_argument, numpy_names
from .elementwise import _exp
from .promotion import cast, get_default_dtype
from .reduction import _sum, spread
from .shape import reshape

__all__ = [  # what distgrad itself offers
    "log_softmax",
    "logsumexp",
    "softmax",
]
METHODS = "log_softmax logsumexp softmax".split()  # what a Tensor offers


@half_in_single
def _softmax_forward(input: Array, dim: int) -> Array:
    out: Array = input - input.max(axis=dim, keepdims=True, initial=-np.inf)
    np.exp(out, out=out)
    out /= sum_over(out, (dim,), keepdims=True)
    return out


@half_in_single
def _log_softmax_forward(input: Array, dim: int) -> Array:
    out: Array = input - input.max(axis=dim, keepdims=True, initial=-np.inf)
    out -= np.log(sum_over(np.exp(out), (dim,), keepdims=True))
    return out


@half_in_single
def _softmax_adjoint(input: Array, output: Array, dim: int) -> Array:
    out = input * output
    total = sum_over(out, (dim,), keepdims=True)
    np.subtract(input, total, out=out)
    out *= output
    return out


@half_in_single
def _log_softmax_adjoint(input: Array, output: Array, dim: int) -> Array:
    out = np.exp(output)
    out *= sum_over(input, (dim,), keepdims=True)
    np.subtract(input, out, out=out)
    return out


def _total(x: Any, dim: int) -> Any:
    return _sum(x, dims=(dim,), keepdim=True, dtype=x.dtype)


_softmax: Primitive = define(
    "Softmax",
    _softmax_forward,
    ("input",),
    input=lambda g, output, dim: _softmax_backward(g, output, dim=dim),
)
_softmax_backward: Primitive = define(  # output * (input - sum(input * output)), symmetric in input
    "SoftmaxAdjoint",
    _softmax_adjoint,
    ("input", "output_of_softmax"),
    input=lambda g, output_of_softmax, dim: _softmax_backward(g, output_of_softmax, dim=dim),
    output_of_softmax=lambda g, input, output_of_softmax, dim: (
        g * (input - _total(input * output_of_softmax, dim)) - input * _total(g * output_of_softmax, dim)
    ),
)
_log_softmax: Primitive = define(
    "LogSoftmax",
    _log_softmax_forward,
    ("input",),
    input=lambda g, output, dim: _log_softmax_backward(g, output, dim=dim),
)
_log_softmax_backward: Primitive = define(  # input - exp(output) * sum(input)
    "LogSoftmaxAdjoint",
    _log_softmax_adjoint,
    ("input", "output_of_log_softmax"),
    input=lambda g, output_of_log_softmax, dim: g - _total(g * _exp(output_of_log_softmax), dim),
    output_of_log_softmax=lambda g, input, output_of_log_softmax, dim: (
        -g * _exp(output_of_log_softmax) * _total(input, dim)
    ),
)


@half_in_single
def _logsumexp_forward(input: Array, dims: tuple[int, ...], keepdim: bool) -> Any:
    peak = input.max(axis=dims, keepdims=True, initial=-np.inf)
    # an infinite peak must not be subtracted from itself
    peak = np.where(np.isfinite(peak), peak, 0).astype(input.dtype, copy=False)
    powers = input - peak
    out = np.log(sum_over(np.exp(powers, out=powers) if powers.ndim else np.exp(powers), dims, keepdims=True))
    out += peak
    return out if keepdim else out.reshape([n for d, n in enumerate(input.shape) if d not in dims])


def _logsumexp_vjp(g: Any, input: Any, output: Any, input_shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    shares = input - spread(output, input_shape, dims)
    shares = np.exp(shares, out=shares) if isinstance(shares, np.ndarray) else _exp(shares)
    return shares * spread(g, input_shape, dims)


_logsumexp: Primitive = define("Logsumexp", _logsumexp_forward, ("input",), input=_logsumexp_vjp)


def _floating(name: str, input: Tensor, dtype: Any) -> Tensor:
    if dtype is not None:
        input = cast(input, dtype)
    if not input.is_floating_point():
        raise NotImplementedError(f"{name}() is not implemented for {input.dtype}; give a floating-point dtype=")
    return input


def _normalized(primitive: Primitive, name: str, input: Tensor, dim: Any, dtype: Any) -> Tensor:
    axis, input = dim_argument(name, dim, input.ndim), _floating(name, input, dtype)
    if input.ndim:
        out: Tensor = primitive(input, dim=axis)
        return out
    return reshape(primitive(reshape(input, (1,)), dim=0), ())


@numpy_names
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(input) over its sum along ``dim``, without overflow; of the shape of ``input``.

    Args:
        input: floating point; or any with ``dtype``.
        dim: along which the results sum to 1.
        dtype: what ``input`` is cast to first.

    Raises:
        IndexError: ``dim`` is out of range.
        NotImplementedError: integers without a floating-point ``dtype``.
    """
    return _normalized(_softmax, "softmax", input, dim, dtype)


@numpy_names
def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """The logarithm of ``softmax``, computed without it. Arguments as of ``softmax``."""
    return _normalized(_log_softmax, "log_softmax", input, dim, dtype)


@numpy_names
def softmin(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """The ``softmax`` of ``-input``. Arguments as of ``softmax``."""
    return softmax(-_floating("softmin", input, dtype), dim)


@numpy_names
def logsumexp(input: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over ``dim``, one dimension or several, without overflow; -inf over no elements.

    Args:
        input: any dtype; integers are computed in the default dtype.
        dim: what to sum over.
        keepdim: keep the dimensions with length 1.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: one is named twice.
        TypeError: ``dim`` is not given.
    """
    if dim is None:
        raise TypeError("logsumexp(): argument 'dim' (position 2) must be tuple of ints, not NoneType")
    dims = dims_argument(dim, input.ndim, keepdim)
    if not input.is_floating_point():
        input = cast(input, get_default_dtype())
    out: Tensor = _logsumexp(input, dims=dims, keepdim=keepdim)
    return out

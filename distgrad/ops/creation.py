"""Tensors from data and from nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from .promotion import get_default_dtype
from .random import _size

__all__ = [  # what distgrad itself offers
    "allclose",
    "arange",
    "as_tensor",
    "empty",
    "equal",
    "eye",
    "from_numpy",
    "full",
    "linspace",
    "ones",
    "ones_like",
    "tensor",
    "zeros",
    "zeros_like",
]
METHODS = (  # what a Tensor offers
    "allclose equal"
).split()


def _array(data: Any, dtype: Any) -> Any:
    """``data`` as an array in the dtype that PyTorch would infer: Python floats give the default dtype."""
    if isinstance(data, Tensor):
        return np.array(data._data, dtype=dtype)
    if isinstance(data, (np.ndarray, np.generic)):
        return np.array(data, dtype=dtype)
    values = _arrays(data)
    try:
        array = np.array(values, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"tensor(): the nested sequences are not of one length at every level: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"tensor(): data must be numbers, bools or nested sequences of them, not {array.dtype}")
    if dtype is None and array.dtype == np.float64 and not _holds_float64(values):
        array = array.astype(get_default_dtype())
    return array


def _arrays(data: Any) -> Any:
    """Tensors inside nested lists as arrays."""
    if isinstance(data, (list, tuple)):
        return [_arrays(item) for item in data]
    return data._data if isinstance(data, Tensor) else data


def _holds_float64(data: Any) -> bool:
    """Whether a float64 came from an array rather than from Python floats, which are weak."""
    while isinstance(data, list) and data:
        data = data[0]
    return isinstance(data, (np.ndarray, np.generic)) and data.dtype == np.float64


def tensor(data: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested sequences, an array or a tensor. As ``torch.tensor``."""
    return Tensor(np.array(_array(data, dtype), order="C", copy=None), requires_grad)


def as_tensor(data: Any, *, dtype: Any = None) -> Tensor:
    """``data`` as a tensor, sharing memory where it is an array or tensor of that dtype already."""
    if isinstance(data, Tensor):
        return data if dtype is None or data.dtype == dtype else data.to(dtype)
    if isinstance(data, np.ndarray) and (dtype is None or data.dtype == dtype):
        return from_numpy(data)
    return tensor(data, dtype=dtype)


def from_numpy(ndarray: Any) -> Tensor:
    """A tensor on the memory of an array: a change of one is a change of the other."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if ndarray.dtype.kind not in "biuf":
        raise TypeError(f"can't convert np.ndarray of type {ndarray.dtype}; supported are bool, integers and floats")
    return Tensor(ndarray)


def zeros(*size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros."""
    return Tensor(np.zeros(_size(size), dtype or get_default_dtype()), requires_grad)


def ones(*size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones."""
    return Tensor(np.ones(_size(size), dtype or get_default_dtype()), requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """``fill_value`` everywhere; without ``dtype``, in the dtype of that value."""
    return Tensor(np.full(tuple(size), fill_value, dtype or tensor(fill_value).dtype), requires_grad)


def empty(*size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Memory as it comes."""
    return Tensor(np.empty(_size(size), dtype or get_default_dtype()), requires_grad)


def zeros_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the shape and dtype of ``input``."""
    return zeros(input.shape, dtype=dtype or input.dtype, requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of the shape and dtype of ``input``."""
    return ones(input.shape, dtype=dtype or input.dtype, requires_grad=requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix of zeros."""
    return Tensor(np.eye(n, m, dtype=dtype or get_default_dtype()))


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None) -> Tensor:
    """``start``, ``start + step``, ... below ``end``; int64 when all are integers."""
    if end is None:
        start, end = 0, start
    if step == 0 or (end - start) / step < 0:
        raise RuntimeError(
            f"arange: step must be nonzero and lead from start to end, but start={start}, end={end}, step={step}"
        )
    if dtype is None:
        dtype = np.int64 if all(isinstance(x, int) for x in (start, end, step)) else get_default_dtype()
    return Tensor(np.arange(start, end, step).astype(dtype))


def linspace(start: float, end: float, steps: int, *, dtype: Any = None) -> Tensor:
    """``steps`` numbers at equal distances from ``start`` to ``end``, both included."""
    return Tensor(np.linspace(start, end, steps).astype(dtype or get_default_dtype()))


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether every |input - other| <= atol + rtol |other|."""
    return bool(np.allclose(input._data, other._data, rtol=rtol, atol=atol, equal_nan=equal_nan))


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements are the same."""
    return bool(np.array_equal(input._data, other._data))

"""Which dtype an operation computes in: PyTorch's rules, which differ from NumPy's.

A Python number never widens a tensor within its category (bool < integer < floating point); a 0-d tensor widens one
with dimensions only across categories. Source: PyTorch's "Tensor Attributes" page, section ``torch.dtype``.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define

__all__ = [  # what distgrad itself offers
    "get_default_dtype",
    "result_type",
    "set_default_dtype",
]

Dtype = np.dtype[Any]

_CATEGORY = {"b": 0, "i": 1, "u": 1, "f": 2}
_default: list[Dtype] = [np.dtype(np.float32)]


def get_default_dtype() -> Dtype:
    """The dtype of floating-point results that no operand determines; float32 unless it was set."""
    return _default[0]


def set_default_dtype(d: Any) -> None:
    """Sets what ``get_default_dtype`` returns; float32 or float64 (or float16)."""
    dtype = np.dtype(d)
    if dtype.kind != "f":
        raise TypeError(f"only floating-point types are supported as the default type, not {dtype}")
    _default[0] = dtype


@functools.cache
def _promote(a: Dtype, a_rank: int, b: Dtype, b_rank: int) -> Dtype:
    """Of two operands; rank 2 is a tensor with dimensions, 1 a 0-d tensor, 0 a Python number."""
    higher, lower = _CATEGORY[a.kind], _CATEGORY[b.kind]
    if higher != lower:
        return a if higher > lower else b
    if a_rank != b_rank and (a_rank == 0 or b_rank == 0 or 1 in (a_rank, b_rank)):
        return a if a_rank > b_rank else b
    return np.promote_types(a, b)


def _rank(x: Any) -> tuple[Dtype, int]:
    if isinstance(x, Tensor):
        return x._data.dtype, 2 if x._data.ndim else 1
    if isinstance(x, np.ndarray):
        return x.dtype, 2 if x.ndim else 1
    if isinstance(x, (bool, np.bool_)):
        return np.dtype(np.bool_), 0
    if isinstance(x, (int, np.integer)):
        return np.dtype(np.int64), 0
    if isinstance(x, (float, np.floating)):
        return _default[0], 0
    raise TypeError(f"expected a Tensor or a number, not {type(x).__name__}")


def result_type(*operands: Any) -> Dtype:
    """The dtype in which an operation on ``operands`` (tensors and Python numbers) is computed."""
    dtype, rank = _rank(operands[0])
    for operand in operands[1:]:
        other, other_rank = _rank(operand)
        promoted = _promote(dtype, rank, other, other_rank)
        rank = max(rank, other_rank) if dtype.kind == other.kind else (rank if promoted == dtype else other_rank)
        dtype = promoted
    return dtype


cast_primitive: Primitive = define(
    "ToCopy",
    lambda input, dtype: input.astype(dtype),
    ("input",),
    input=lambda g, input_dtype: cast(g, input_dtype),
)

_integral_cast: Primitive = define("ToIntegral", lambda input, dtype: input.astype(dtype), ("input",))  # no gradient


def cast(x: Any, dtype: Any) -> Any:
    """``x`` in ``dtype``; itself when it is already. Differentiable between floating-point dtypes."""
    dtype = np.dtype(dtype)
    if x.dtype == dtype:
        return x
    return (cast_primitive if dtype.kind == "f" else _integral_cast)(x, dtype=dtype)


def same_floating(input: Any, other: Any) -> bool:
    """Whether there is nothing to promote: tensors of one floating-point dtype, or such a tensor and a Python number.

    The common case, decided without the table.
    """
    if isinstance(input, Tensor):
        dtype = input._data.dtype
        if isinstance(other, Tensor):
            return other._data.dtype is dtype and dtype.kind == "f"
        return (type(other) is float or type(other) is int) and dtype.kind == "f"
    return False


def promoted(*operands: Any, floating: bool = False) -> tuple[Any, ...]:
    """The operands brought to their common dtype: tensors are cast, numbers stay numbers.

    Args:
        operands: tensors and numbers, at least one tensor.
        floating: the operation has no integer form (division, ``exp``): integers become the default dtype.
    """
    dtype = result_type(*operands)
    if floating and dtype.kind != "f":
        dtype = _default[0]
    return tuple(_convert(x, dtype) for x in operands)


def _convert(x: Any, dtype: Dtype) -> Any:
    if isinstance(x, Tensor):
        return cast(x, dtype)
    if isinstance(x, np.ndarray):
        return x.astype(dtype, copy=False)
    return np.asarray(x).astype(dtype)[()]  # what does not fit wraps, as in PyTorch

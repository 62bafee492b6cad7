"""Questions about tensors and dtypes, answered in Python's own types."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from .arguments import tensor_argument
from .promotion import Dtype, get_default_dtype
from .shape import _common_shape

__all__ = [  # what distgrad itself offers
    "allclose",
    "can_cast",
    "equal",
    "finfo",
    "iinfo",
    "is_complex",
    "is_floating_point",
    "is_nonzero",
    "is_same_size",
    "is_tensor",
    "numel",
    "promote_types",
]
METHODS = (  # what a Tensor offers
    "allclose equal is_complex is_nonzero is_same_size"
).split()

# Tensors -------------------------------------------------------------------------------------------------------------


def is_tensor(obj: Any) -> bool:
    """Whether ``obj`` is a tensor."""
    return isinstance(obj, Tensor)


def numel(input: Tensor) -> int:
    """The number of elements."""
    return tensor_argument(input, "numel").numel()


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating-point one."""
    return tensor_argument(input, "is_floating_point").is_floating_point()


def is_complex(input: Tensor) -> bool:
    """Whether the dtype is a complex one, of which there is none here."""
    return tensor_argument(input, "is_complex").dtype.kind == "c"


def is_nonzero(input: Tensor) -> bool:
    """Whether the single element is not zero; RuntimeError unless there is a single element."""
    return bool(tensor_argument(input, "is_nonzero"))


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether the shapes are the same."""
    return tensor_argument(input, "is_same_size").shape == tensor_argument(other, "is_same_size", "other", 2).shape


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether every |input - other| <= atol + rtol |other|; the two broadcast.

    Args:
        input: any dtype.
        other: the same dtype.
        rtol: what may be off relative to ``other``.
        atol: what may be off besides.
        equal_nan: NaN counts as equal to NaN.

    Raises:
        RuntimeError: different dtypes, shapes that do not broadcast, or a negative tolerance.
    """
    a, b = tensor_argument(input, "allclose")._data, tensor_argument(other, "allclose", "other", 2)._data
    if a.dtype != b.dtype:
        raise RuntimeError(f"allclose(): {a.dtype} did not match {b.dtype}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not value >= 0:
            raise RuntimeError(f"allclose(): {name} must be greater than or equal to zero, but got {value}")
    _common_shape(a.shape, b.shape)
    return bool(np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan))


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements are the same."""
    a, b = tensor_argument(input, "equal")._data, tensor_argument(other, "equal", "other", 2)._data
    return bool(np.array_equal(a, b))


# Dtypes --------------------------------------------------------------------------------------------------------------


class finfo:
    """The limits of a floating-point dtype. As ``torch.finfo``.

    Attributes:
        bits: how many the dtype takes.
        eps: the distance from 1 to the next larger number.
        max: the largest number.
        min: the smallest number, which is negative.
        tiny: the smallest positive number of full precision.
        smallest_normal: the same.
        resolution: the last decimal place that numbers near 1 have in full.
        dtype: the name of the dtype.

    Raises:
        TypeError: another dtype.
    """

    def __init__(self, type: Any = None) -> None:
        dtype = get_default_dtype() if type is None else np.dtype(type)
        if dtype.kind != "f":
            raise TypeError(f"finfo() requires a floating point input type, not {dtype}. Use iinfo() for integers.")
        found = np.finfo(dtype)
        self.bits = int(found.bits)
        self.eps, self.max, self.min = float(found.eps), float(found.max), float(found.min)
        self.tiny = self.smallest_normal = float(found.smallest_normal)
        self.resolution = float(found.resolution.astype(str)) if dtype.itemsize < 8 else float(found.resolution)
        self.dtype = dtype.name

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """The limits of an integer dtype. As ``torch.iinfo``.

    Attributes:
        bits: how many the dtype takes.
        max: the largest number.
        min: the smallest number.
        dtype: the name of the dtype.

    Raises:
        TypeError: another dtype.
    """

    def __init__(self, type: Any) -> None:
        dtype = np.dtype(type)
        if dtype.kind not in "iu":
            raise TypeError(f"iinfo() requires an integer input type, not {dtype}. Use finfo() for floating point.")
        found = np.iinfo(dtype)
        self.bits, self.max, self.min, self.dtype = int(found.bits), int(found.max), int(found.min), dtype.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"


def can_cast(from_: Any, to: Any) -> bool:
    """Whether PyTorch casts a result of dtype ``from_`` to ``to``: not from floats to integers, nor to bool."""
    order = {"b": 0, "i": 1, "u": 1, "f": 2}
    return order[np.dtype(from_).kind] <= order[np.dtype(to).kind]


def promote_types(type1: Any, type2: Any) -> Dtype:
    """The smallest dtype that both can be cast to in PyTorch's order: bool, integers, floats."""
    a: Dtype = np.dtype(type1)
    b: Dtype = np.dtype(type2)
    if (a.kind == "f") != (b.kind == "f"):
        return a if a.kind == "f" else b
    return np.promote_types(a, b)

"""What a user gives besides tensors (sizes, numbers, dtypes, a device), checked once for all families."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..autograd import Tensor
from .promotion import Dtype, get_default_dtype


def tensor_argument(value: Any, function: str, name: str = "input", position: int = 1) -> Tensor:
    """``value``, which has to be a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{function}(): argument '{name}' (position {position}) must be Tensor, not {type(value).__name__}"
        )
    return value


def check_device(device: Any) -> None:
    """Refuses a device other than the CPU: None, "cpu" or an object whose ``type`` is "cpu"."""
    if device is not None and str(getattr(device, "type", device)).partition(":")[0] != "cpu":
        raise RuntimeError(
            f"there is no device {str(device)!r}: distgrad computes on the cpu. Leave `device` out, or give 'cpu'."
        )


def dtype_or_default(dtype: Any) -> Dtype:
    """``dtype``, or the default floating-point dtype for None."""
    return get_default_dtype() if dtype is None else np.dtype(dtype)


def integers(values: Any, function: str, name: str) -> tuple[int, ...]:
    """``values``, given one by one (``(2, 3)``) or as one sequence (``((2, 3),)``), as integers."""
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        values = values[0]
    for value in values:
        if type(value) is not int:
            break
    else:
        return tuple(values)
    found = []
    for place, value in enumerate(values):
        if isinstance(value, (bool, np.bool_, np.ndarray)) or not hasattr(value, "__index__"):
            raise TypeError(
                f"{function}(): argument '{name}' must be tuple of ints, but found element of type "
                f"{type(value).__name__} at pos {place}"
            )
        found.append(operator.index(value))
    return tuple(found)


def size_argument(given: tuple[Any, ...], size: Any, function: str) -> tuple[int, ...]:
    """The shape of a new tensor, from its positional arguments or the keyword ``size``."""
    if size is not None:
        if given:
            raise TypeError(f"{function}() got multiple values for argument 'size'")
        given = (size,)
    elif not given:
        raise TypeError(f'{function}() missing 1 required positional arguments: "size"')
    lengths = integers(given, function, "size")
    for length in lengths:
        if length < 0:
            raise RuntimeError(
                f"{function}(): Trying to create tensor with negative dimension {length}: {list(lengths)}"
            )
    return lengths


def number(value: Any, function: str, name: str, position: int = 1) -> Any:
    """A number, or a tensor or array without dimensions, as a Python bool, int or float."""
    if isinstance(value, (bool, int, float)):
        return value.item() if isinstance(value, np.generic) else value
    array = value._data if isinstance(value, Tensor) else value
    if isinstance(array, (np.ndarray, np.generic)) and not array.ndim and array.dtype.kind in "biuf":
        return array.item()
    raise TypeError(f"{function}(): argument '{name}' (position {position}) must be Number, not {type(value).__name__}")


def number_in(value: Any, dtype: Dtype) -> Any:
    """A Python number as a 0-d array of ``dtype``; as in PyTorch fractions are cut off, overflow is refused."""
    if dtype.kind == "b":
        return np.asarray(bool(value))
    if isinstance(value, (bool, np.bool_)):
        value = int(value)
    limit = float(np.finfo(dtype).max) if dtype.kind == "f" else np.iinfo(dtype).max
    # a negative integer wraps around in uint8; other floats have to be in its range
    lowest = np.iinfo(dtype).min if dtype.kind != "f" else -limit
    if dtype.kind == "u":
        lowest = -limit if isinstance(value, (int, np.integer)) else 0
    finite = math.isfinite(value)
    if (finite and not lowest <= value <= limit) or (not finite and dtype.kind != "f"):
        raise RuntimeError(f"value cannot be converted to type {dtype} without overflow: {value}")
    return np.asarray(value if dtype.kind == "f" else int(value)).astype(dtype)

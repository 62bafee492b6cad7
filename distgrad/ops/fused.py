"""Sums of products in one operation, as optimizers write them: less memory than one operation after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _broadcasting, _check_tensor, sum_to
from .promotion import cast, result_type

__all__ = [  # what distgrad itself offers
    "addcdiv",
    "addcmul",
    "lerp",
]
METHODS = "addcdiv addcmul lerp".split()  # what a Tensor offers
IN_PLACE = "addcdiv addcmul lerp".split()  # of these, what also exists as NAME_


def _plus(input: Any, change: Any, value: Any) -> Any:
    """``input + value * change``, in the memory of ``change`` where it has the shape of the result."""
    if value != 1:
        change *= value
    if change.shape != np.broadcast_shapes(input.shape, change.shape):
        return input + change
    change += input
    return change


_addcmul: Primitive = define(
    "Addcmul",
    lambda input, tensor1, tensor2, value: _plus(input, np.multiply(tensor1, tensor2), value),
    ("input", "tensor1", "tensor2"),
    input=lambda g, input_shape: sum_to(g, input_shape),
    tensor1=lambda g, tensor2, value, tensor1_shape: sum_to(g * (tensor2 * value), tensor1_shape),
    tensor2=lambda g, tensor1, value, tensor2_shape: sum_to(g * (tensor1 * value), tensor2_shape),
)
_addcdiv: Primitive = define(
    "Addcdiv",
    lambda input, tensor1, tensor2, value: _plus(input, np.true_divide(tensor1, tensor2), value),
    ("input", "tensor1", "tensor2"),
    input=lambda g, input_shape: sum_to(g, input_shape),
    tensor1=lambda g, tensor2, value, tensor1_shape: sum_to(g * value / tensor2, tensor1_shape),
    tensor2=lambda g, tensor1, tensor2, value, tensor2_shape: sum_to(
        -g * value * ((tensor1 / tensor2) / tensor2), tensor2_shape
    ),
)


def _lerp_forward(input: Any, end: Any, weight: Any) -> Any:
    way = end - input
    # from the nearer end, so that weight 1 gives exactly ``end``
    if np.ndim(weight) == 0:
        return input + weight * way if abs(weight) < 0.5 else end - way * (1 - weight)
    return np.where(np.abs(weight) < 0.5, input + weight * way, end - way * (1 - weight))


_lerp: Primitive = define(
    "Lerp",
    _lerp_forward,
    ("input", "end", "weight"),
    input=lambda g, weight, input_shape: sum_to(g * (1.0 - weight), input_shape),
    end=lambda g, weight, end_shape: sum_to(g * weight, end_shape),
    weight=lambda g, input, end, weight_shape: sum_to(g * (end - input), weight_shape),
)

# By a number the way is another operation: it saves no operand, as PyTorch's does not.
_lerp_by: Primitive = define(
    "LerpBy",
    _lerp_forward,
    ("input", "end"),
    input=lambda g, weight, input_shape: sum_to(g * (1.0 - weight), input_shape),
    end=lambda g, weight, end_shape: sum_to(g * weight, end_shape),
)

# Public functions ---------------------------------------------------------------------------------------------------


def _prepared(name: str, input: Any, tensor1: Any, tensor2: Any, value: Any) -> tuple[list[Tensor], Any]:
    for argument, tensor in {"input": input, "tensor1": tensor1, "tensor2": tensor2}.items():
        _check_tensor(name, tensor, argument)
    if not isinstance(value, (int, float, np.number, np.bool_)):
        raise TypeError(f"{name}(): argument 'value' must be Number, not {type(value).__name__}")
    dtype = result_type(input, tensor1, tensor2)
    if dtype == np.bool_:
        raise RuntimeError(f"{name} is not defined for bool tensors; convert one of them with .to()")
    value = float(value) if dtype.kind == "f" else np.asarray(int(value)).astype(dtype)[()]
    return [cast(tensor, dtype) for tensor in (input, tensor1, tensor2)], value


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``; broadcasts. Among integers ``value`` loses its fraction.

    Raises:
        RuntimeError: all tensors are bool, or their shapes do not broadcast.
    """
    tensors, value = _prepared("addcmul", input, tensor1, tensor2, value)
    return _broadcasting("addcmul", _addcmul, *tensors, value=value)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``; broadcasts.

    Raises:
        RuntimeError: ``tensor1`` and ``tensor2`` are both integers, or the shapes do not broadcast.
    """
    tensors, value = _prepared("addcdiv", input, tensor1, tensor2, value)
    if not tensor1.is_floating_point() and not tensor2.is_floating_point():
        raise RuntimeError(
            f"addcdiv does not divide integers, {tensor1.dtype} by {tensor2.dtype} here: convert one of them with "
            ".float(), or use input + value * div(tensor1, tensor2, rounding_mode='trunc')"
        )
    return _broadcasting("addcdiv", _addcdiv, *tensors, value=value)


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``input + weight * (end - input)`` of floating-point tensors: from ``input`` at 0 to ``end`` at 1; broadcasts.

    Args:
        input: where the way starts.
        end: where it ends, of the same dtype.
        weight: how far to go, a number or a tensor of the same dtype (without dimensions, of any dtype).

    Raises:
        RuntimeError: the dtypes differ or are not floating-point, or the shapes do not broadcast.
    """
    _check_tensor("lerp", input)
    _check_tensor("lerp", end, "end")
    if not input.is_floating_point():
        raise RuntimeError(f"lerp is not defined for {input.dtype} tensors; convert them with .float()")
    for name, tensor in (("end", end), ("weight", weight)):
        if not isinstance(tensor, Tensor) or tensor.dtype == input.dtype:
            continue
        if name == "end" or tensor.ndim:
            raise RuntimeError(f"lerp: expected dtype {input.dtype} for `{name}` but got dtype {tensor.dtype}")
    if isinstance(weight, Tensor):
        return _broadcasting("lerp", _lerp, input, end, cast(weight, input.dtype))
    if not isinstance(weight, (int, float, np.number)):
        raise TypeError(f"lerp(): argument 'weight' must be Number or Tensor, not {type(weight).__name__}")
    return _broadcasting("lerp", _lerp_by, input, end, weight=float(weight))

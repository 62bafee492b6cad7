"""Changing a tensor in place: the operation is recorded as usual and its result written into the memory at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import OperationNode, Primitive, define
from . import elementwise
from .indexing import array_index
from .promotion import cast

METHODS = (  # what a Tensor offers
    "copy_ fill_ zero_"
).split()


def _may_change(tensor: Tensor, recorded: bool) -> None:
    """Refuses what would make gradients wrong."""
    if not mode.enabled:
        return
    if tensor._requires_grad and tensor._node is None:
        raise RuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation. Do it inside no_grad(), or use "
            "the out-of-place form"
        )
    base = tensor._base
    if base is not None and (recorded or tensor._requires_grad or base._requires_grad):
        if base._requires_grad and base._node is None:
            raise RuntimeError(
                "a view of a leaf Variable that requires grad is being used in an in-place operation. Do it inside "
                "no_grad(), or use the out-of-place form"
            )
        raise RuntimeError(
            "changing a view in place while its history is recorded is not supported by this version: use the "
            "out-of-place form, or clone() the view first"
        )


def replace(tensor: Tensor, result: Tensor) -> Tensor:
    """Gives ``tensor`` the values and the history of ``result``, in its own memory."""
    _may_change(tensor, result._requires_grad)
    if not tensor._data.flags.writeable:
        raise RuntimeError(
            "unsupported operation: the written-to tensor is read-only memory or more than one of its elements refers "
            "to a single memory location (expand). Please clone() the tensor before performing the operation."
        )
    if result.shape != tensor.shape:
        raise RuntimeError(
            f"output with shape {list(tensor.shape)} doesn't match the broadcast shape {list(result.shape)}"
        )
    if result.dtype != tensor.dtype and not np.can_cast(result.dtype, tensor.dtype, "same_kind"):
        raise RuntimeError(f"result type {result.dtype} can't be cast to the desired output type {tensor.dtype}")
    if isinstance(result._node, OperationNode):
        result._node.save_copy_of(tensor)
    np.copyto(tensor._data, result._data, casting="same_kind")
    if mode.enabled:
        retained = tensor._retains_grad and tensor._node is not None
        if retained and tensor._node is not None:
            tensor._node.retain(tensor._output_nr, None)
            tensor._retains_grad = False
        tensor._node, tensor._output_nr = result._node, result._output_nr
        tensor._requires_grad = result._requires_grad
        if retained:
            tensor.retain_grad()  # of its new values
    tensor._changed()
    return tensor


def in_place(operation: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The form of ``operation`` that writes into its first argument."""

    def change(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return replace(input, operation(input, *args, **kwargs))

    change.__name__ = change.__qualname__ = name
    change.__doc__ = f"``{operation.__name__}`` in place; the tensor itself is returned."
    return change


# Of what is overwritten nothing remains, so its gradient is zero; that it has one at all is PyTorch's convention.
_copy: Primitive = define("Copy", lambda input, src: src, ("input", "src"), input=lambda g: g * 0.0, src=lambda g: g)
_fill: Primitive = define("Fill", lambda input, value: np.full_like(input, value), ("input",), input=lambda g: g * 0.0)


def copy_(input: Tensor, src: Any) -> Tensor:
    """Overwrites the elements with those of ``src``, which is broadcast and cast."""
    source = src if isinstance(src, Tensor) else Tensor(np.asarray(src))
    values = cast(source, input.dtype)
    if values.shape != input.shape:
        values = elementwise.broadcast_to(values, tuple(input.shape))
    return replace(input, _copy(input, values))


def fill_(input: Tensor, value: float) -> Tensor:
    """Sets every element to ``value``."""
    if not isinstance(value, (int, float, np.generic)):
        raise TypeError(f"fill_(): value must be a number, not {type(value).__name__}")
    return replace(input, _fill(input, value=value))


def zero_(input: Tensor) -> Tensor:
    """Sets every element to 0."""
    return fill_(input, 0)


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value`` of a tensor whose history is not recorded."""
    recorded = input._requires_grad or (isinstance(value, Tensor) and value._requires_grad)
    if mode.enabled and recorded:
        if input._requires_grad and input._node is None:
            _may_change(input, recorded)
        raise RuntimeError(
            "assigning to elements while their history is recorded is not supported by this version: build the tensor "
            "with where(), cat() or stack(), or assign inside no_grad()"
        )
    input._data[array_index(index)] = value._data if isinstance(value, Tensor) else value
    input._changed()

"""Shape and strides of a tensor itself changed: the memory stays, and the tensor becomes a view of what it was."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

from ..autograd import Tensor
from ..autograd.inplace import check_history
from ..autograd.view import View, take_history
from . import shape, strided

METHODS = (  # what a Tensor offers
    "as_strided_ squeeze_ swapaxes_ swapdims_ t_ transpose_ unsqueeze_"
).split()


def _become(input: Tensor, view: Callable[[Tensor], Tensor]) -> Tensor:
    """Makes ``input`` what ``view`` gives of it."""
    if input._batched:
        after = view(input)
        input._data, input._value = after._data, after._value  # type: ignore[attr-defined]
        return input
    check_history(input, False)
    before = Tensor(input._data)
    before._counter, before._view = input._versions(), input._view
    before._node, before._output_nr, before._requires_grad = input._node, input._output_nr, input._requires_grad
    after = view(before)
    # Views of this tensor know how to get to themselves from its present shape, so that takes over as their base.
    for record in gc.get_referrers(input) if input._view is None else ():
        if isinstance(record, View) and record.base is input:
            record.base = before
    input._data = after._data
    if after._view is not None:
        input._reshaped = input._reshaped or input._view is None
        input._view = after._view
    take_history(input, after)
    input._changed()
    if input._view is not None and input._counter is not None:
        input._view.version = input._counter[0]
    return input


def squeeze_(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """``squeeze`` of the tensor itself, which is returned."""
    return _become(input, lambda x: shape.squeeze(x, dim))


def unsqueeze_(input: Tensor, dim: int) -> Tensor:
    """``unsqueeze`` of the tensor itself, which is returned."""
    return _become(input, lambda x: shape.unsqueeze(x, dim))


def t_(input: Tensor) -> Tensor:
    """``t`` of the tensor itself, which is returned."""
    return _become(input, shape.t)


def transpose_(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """``transpose`` of the tensor itself, which is returned."""
    return _become(input, lambda x: shape.transpose(x, dim0, dim1))


def swapaxes_(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """``swapaxes`` of the tensor itself, which is returned."""
    return _become(input, lambda x: shape.swapaxes(x, axis0, axis1))


def swapdims_(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """``swapdims`` of the tensor itself, which is returned."""
    return _become(input, lambda x: shape.swapdims(x, dim0, dim1))


def as_strided_(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """``as_strided`` of the tensor itself, which is returned."""
    return _become(input, lambda x: strided.as_strided(x, size, stride, storage_offset))

"""Operations that look at the values of a tensor, inside vmap, where it stands for many samples (``func.batched``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.tensor import Array


def all_values(x: Tensor) -> Array:
    """The array of ``x``, inside vmap that of all samples with the batches in front: for checks that hold for each."""
    while x._batched:
        x = x._value
    return x._data


def check_values(check: Callable[[Array], None], x: Tensor) -> None:
    """``check(array)`` of all values of ``x``, which may raise; while ``compiler`` captures, in every later run too."""
    batching: Any = mode.state.batching
    if batching is not None and batching.captures:
        batching.check_values(check, x)
    else:
        check(all_values(x))


def is_captured(x: Tensor) -> bool:
    """Whether ``x`` stands for a value of a graph that ``compiler`` captures."""
    batching: Any = mode.state.batching
    return batching is not None and bool(batching.captures) and bool(batching.traces(x))


def is_batched(*values: Any) -> bool:
    """Whether one of the values is a tensor that stands for many samples."""
    return any(isinstance(value, Tensor) and value._batched for value in values)


def with_batches_of(input: Tensor, tensor: Tensor) -> Tensor:
    """``tensor``, with memory of its own for each sample if ``input`` stands for many."""
    if not input._batched:
        return tensor
    batching: Any = mode.state.batching
    out: Tensor = batching.with_batches_of(input, tensor)
    return out


def each_sample(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``operation`` of one sample after the other, with the results stacked: for one that has to see the values of
    arguments that differ from sample to sample."""
    batching: Any = mode.state.batching
    return batching.each_sample(operation, args, kwargs)

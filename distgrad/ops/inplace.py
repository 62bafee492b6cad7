"""Changing a tensor in place: the operation is recorded as usual and its result written into the memory at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.inplace import check, overwrite, rebase
from ..autograd.primitive import Primitive, define
from . import division, elementwise
from .arguments import number_in
from .indexing import _index_put, _kept, _slice, parse_index
from .promotion import cast
from .samples import is_batched

METHODS = (  # what a Tensor offers
    "copy_ fill_ zero_"
).split()


def replace(tensor: Tensor, result: Tensor) -> Tensor:
    """Gives ``tensor`` the values and the history of ``result``, in its own memory."""
    if tensor._batched or result._batched:
        return _replace_samples(tensor, result)
    batching: Any = mode.state.batching
    if batching is not None and batching.captures:
        out: Tensor = batching.replace(tensor, result)
        return out
    check(tensor, result._requires_grad)
    if result.shape != tensor.shape:
        raise RuntimeError(
            f"output with shape {list(tensor.shape)} doesn't match the broadcast shape {list(result.shape)}"
        )
    if _loses(result.dtype, tensor.dtype):
        raise RuntimeError(f"result type {result.dtype} can't be cast to the desired output type {tensor.dtype}")
    if tensor.requires_grad and not result._requires_grad and mode.enabled:
        result = _copy(tensor, cast(result, tensor.dtype))  # no trace of the old values is left, and no gradient
    return overwrite(tensor, result)


def _loses(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Whether PyTorch refuses to write ``source`` into ``target``: floats into integers, anything else into bools."""
    return (source.kind == "f" and target.kind != "f") or (source.kind != "b" and target.kind == "b")


def _replace_samples(tensor: Tensor, result: Tensor) -> Tensor:
    """``replace`` inside vmap: of the memory that holds all samples."""
    samples, results = tensor, result
    while results._batched:
        if not samples._batched or samples._level < results._level:
            raise RuntimeError(
                "vmap: an in-place operation on a tensor that all samples share, with values that differ from sample "
                "to sample: use the out-of-place form"
            )
        if samples._level == results._level:
            results = results._value
        samples = samples._value
    if samples._batched or samples.shape != results.shape:
        results = elementwise.broadcast_to(results, tuple(samples.shape))
    replace(samples, results)
    return tensor


def in_place(operation: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The form of ``operation`` that writes into its first argument."""
    primitive = _DIRECT.get(operation)

    def change(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if primitive is not None and not kwargs and len(args) < 2:
            written = _written(primitive, input, *args)
            if written is not None:
                return rebase(input, written)
        return replace(input, operation(input, *args, **kwargs))

    change.__name__ = change.__qualname__ = name
    change.__doc__ = f"``{operation.__name__}`` in place; the tensor itself is returned."
    return change


# What can be computed straight into the memory of the first operand, without a temporary of the same size.
_DIRECT: dict[Any, Primitive] = {
    elementwise.add: elementwise._add,
    elementwise.sub: elementwise._sub,
    elementwise.mul: elementwise._mul,
    division.div: division._div,
    elementwise.relu: elementwise._relu,
}


def _written(primitive: Primitive, input: Tensor, *others: Any) -> Tensor | None:
    """The operation written over ``input``, where neither dtype nor shape could change."""
    dtype, shape = input._data.dtype, input._data.shape
    if dtype.kind != "f" or mode.state.batching is not None:
        return None
    for other in others:
        if isinstance(other, Tensor):
            if other._data.dtype != dtype or not _fits(other._data.shape, shape):
                return None
        elif type(other) not in (int, float):
            return None
    check(input, any(isinstance(other, Tensor) and other.requires_grad for other in others))
    return primitive.write(input, *others)


def _fits(shape: tuple[int, ...], into: tuple[int, ...]) -> bool:
    """Whether ``shape`` broadcasts to ``into``."""
    lead = len(into) - len(shape)
    return lead >= 0 and all(n in (1, m) for n, m in zip(shape, into[lead:], strict=True))


# Of what is overwritten nothing remains, so its gradient is zero; that it has one at all is PyTorch's convention.
_fill: Primitive = define(
    "Fill", lambda input, value: np.full_like(input, value), ("input",), input=lambda g: _fill(g, value=0)
)
_copy: Primitive = define(
    "Copy", lambda input, src: src, ("input", "src"), input=lambda g: _fill(g, value=0), src=lambda g: g
)


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
    return replace(input, _fill(input, value=number_in(value, input.dtype)))


def zero_(input: Tensor) -> Tensor:
    """Sets every element to 0."""
    return fill_(input, 0)


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value``; ``value`` is broadcast to what ``input[index]`` is, and cast to its dtype.

    Raises:
        RuntimeError: a leaf that requires a gradient, a shape that does not broadcast; positions, or a mask, and
            several values in another dtype.
        IndexError: as of ``input[index]``.
    """
    batching: Any = mode.state.batching
    if batching is not None and batching.captures:
        batching.refuse("it assigns to elements of a tensor")
    if batching is not None and (is_batched(input, value) or batching.has_batched_positions(index)):
        batching.setitem(input, index, value)
        return
    recorded = mode.enabled and (input.requires_grad or getattr(value, "requires_grad", False))
    basic, advanced = parse_index(index, input._data.shape, own=recorded)
    if isinstance(value, Tensor):
        if value.dtype != input.dtype and not _casts(advanced, value):
            raise RuntimeError(
                f"Index put requires the source and destination dtypes match, got {input.dtype} for the destination "
                f"and {value.dtype} for the source. Convert the source with .to()."
            )
        source = cast(value, input.dtype)
    elif isinstance(value, (bool, int, float, np.generic)):
        source = Tensor(number_in(value, input.dtype))
    else:
        raise TypeError(f"can't assign a {type(value).__name__} to a {type(input).__name__}: make it a tensor first")
    target = input if basic is None else _slice(input, index=basic)
    picked = target._data.shape
    if advanced is not None:
        picked = np.broadcast_to(np.empty((), np.bool_), picked)[advanced].shape
    source = _without_lead(source, len(picked))
    if not _fits(source._data.shape, picked):
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(source.shape)} cannot be broadcast to indexing result of "
            f"shape {list(picked)}"
        )
    if advanced is None:
        copy_(target, source)
        return
    check(target, source._requires_grad)
    # recorded first: once the memory has changed, a view would take its history from the base as it was
    written = _put(target, source, index=advanced) if recorded else None
    target._data[advanced] = source._data
    target._changed()
    if written is not None:
        rebase(target, written)


def _casts(advanced: tuple[Any, ...] | None, value: Tensor) -> bool:
    """Whether PyTorch converts ``value``: in slices, and one value for a mask; not where positions are given."""
    return advanced is None or (advanced[-1].dtype == np.bool_ and value.numel() == 1)


def _without_lead(source: Tensor, ndim: int) -> Tensor:
    """Leading dimensions of length 1 that the place has not, as in PyTorch, do not count."""
    while source.ndim > ndim and source.shape[0] == 1:
        source = source[0]
    return source


# The memory is written by ``setitem``: only history is made.
_put: Primitive = define(
    "IndexPut_",
    lambda input, values, index: input,
    ("input", "values"),
    input=lambda g, index: _index_put(g, np.zeros((), g.dtype), index=index),
    values=lambda g, input_shape, values_shape, index: _kept(g, input_shape, values_shape, index),
)

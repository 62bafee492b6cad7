"""The straight way through a primitive of one or two operands, for calls in which there is nothing to decide.

A call of tensors of one floating-point dtype, outside vmap, needs no promotion and no check. It goes past the function
that sees to these, and past the loops of ``Primitive.__call__``; any other call goes to that function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from .grad_mode import mode
from .primitive import Primitive
from .tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])

_new, _ndarray, _asarray = object.__new__, np.ndarray, np.asarray
_FLOAT32 = np.dtype(np.float32)
_NO_KEYWORDS: dict[str, Any] = {}
# Kinds of calls, as ``Primitive._recorder`` counts them: two bits an operand, and a leading one.
_ONE, _FIRST, _SECOND, _BOTH, _WITH_NUMBER = 0b0101, 0b010001, 0b010100, 0b010101, 0b011001


@functools.lru_cache(maxsize=1024)
def number(value: float, dtype: np.dtype[Any]) -> Any:
    """A Python number as the 0-d array, not to be written to, that NumPy would make of it each time it meets it."""
    with np.errstate(all="ignore"):
        array = np.array(value, dtype)
    array.flags.writeable = False
    return array


def unary(primitive: Primitive) -> Callable[[F], F]:
    """Decorates a function that is ``primitive`` of one tensor: of a floating-point tensor, it is not asked."""

    def decorate(otherwise: F) -> F:
        return cast(F, _unary(primitive, otherwise))

    return decorate


def binary(primitive: Primitive, rank: int = 0) -> Callable[[F], F]:
    """Decorates a function that is ``primitive`` of two tensors, or a tensor and a number: of two tensors of one
    floating-point dtype, or of such a tensor and a Python number, it is not asked, unless NumPy refuses the shapes.

    Args:
        primitive: what to call.
        rank: for tensors of fewer dimensions, the function is asked.
    """

    def decorate(otherwise: F) -> F:
        return cast(F, _binary(primitive, rank, otherwise))

    return decorate


def _named(call: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` in the place of the function that it serves: there is one function, and this is it."""
    functools.update_wrapper(call, otherwise)
    del call.__wrapped__  # type: ignore[attr-defined]
    call.__signature__ = inspect.signature(otherwise)  # type: ignore[attr-defined]
    return call


def _unary(primitive: Primitive, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    recorders = primitive.recorders

    def call(input: Any) -> Any:
        state = mode.state
        if not isinstance(input, Tensor) or state.batching is not None:
            return otherwise(input)
        array = input._data
        dtype = array.dtype
        if dtype is not _FLOAT32 and dtype.kind != "f":
            return otherwise(input)
        if input._view is not None:
            input._up_to_date()
        result = state.quietly(primitive.forward, array)
        out = _new(Tensor)
        out._data = result if type(result) is _ndarray else _asarray(result)
        out._output_nr = 0
        out._counter = out._view = None
        if input._requires_grad and state.enabled:
            out._requires_grad = True
            out._node = recorders[_ONE](out, _NO_KEYWORDS, (), state, input)
        else:
            out._requires_grad = False
            out._node = None
            if state.inference:
                out._inference, out._counter = True, [1]
        return out

    return _named(call, otherwise)


def _binary(primitive: Primitive, rank: int, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    recorders = primitive.recorders

    def call(input: Any, other: Any) -> Any:
        state = mode.state
        if not isinstance(input, Tensor) or state.batching is not None:
            return otherwise(input, other)
        right: Any
        left = input._data
        dtype = left.dtype
        if dtype is not _FLOAT32 and dtype.kind != "f":
            return otherwise(input, other)
        if isinstance(other, Tensor):
            right = other._data
            if right.dtype is not dtype or (rank and (left.ndim < rank or right.ndim < rank)):
                return otherwise(input, other)
            if other._view is not None:
                other._up_to_date()
            second = other._requires_grad
            kind = _BOTH if second else _FIRST
        elif (type(other) is float or type(other) is int) and not rank:
            right = number(other, dtype) if other else other  # 0.0 and -0.0 are one key
            other = right  # for the VJPs as well
            second = False
            kind = _WITH_NUMBER
        else:
            return otherwise(input, other)
        if input._view is not None:
            input._up_to_date()
        try:
            result = state.quietly(primitive.forward, left, right)
        except ValueError:  # shapes that do not broadcast: the function says so in PyTorch's words
            return otherwise(input, other)
        out = _new(Tensor)
        out._data = result if type(result) is _ndarray else _asarray(result)
        out._output_nr = 0
        out._counter = out._view = None
        if state.enabled and (second or input._requires_grad):
            if not input._requires_grad:
                kind = _SECOND
            out._requires_grad = True
            out._node = recorders[kind](out, _NO_KEYWORDS, (), state, input, other)
        else:
            out._requires_grad = False
            out._node = None
            if state.inference:
                out._inference, out._counter = True, [1]
        return out

    return _named(call, otherwise)


def viewer(primitive: Primitive, keyword: str) -> Callable[[Tensor, Any], Tensor]:
    """The straight way through ``primitive``, of one tensor and one keyword, which gives a view where memory allows it.

    What is given is called with the tensor and what the keyword is to be, the second parameter of the forward.
    """

    def call(input: Tensor, value: Any) -> Tensor:
        state = mode.state
        keywords = {keyword: value}
        if state.batching is not None:
            return state.batching(primitive, (input,), keywords)  # type: ignore[no-any-return]
        if input._view is not None:
            input._up_to_date()
        array = input._data
        result = primitive.forward(array, value)
        owner = result.base
        kind = _ONE if input._requires_grad and state.enabled else 0
        if owner is not None and (owner is array or owner is array.base):
            return primitive.viewed((input,), keywords, result, kind, state)
        return primitive.unusual_result((input,), keywords, result, kind, state)  # type: ignore[no-any-return]

    return call


def keyed(primitive: Primitive) -> Callable[[Tensor, dict[str, Any]], Tensor]:
    """The straight way through ``primitive``, of one tensor and keywords, whose result is an array of its own.

    What is given is called with the tensor and a dictionary of all keywords.
    """
    recorders = primitive.recorders

    def call(input: Tensor, keywords: dict[str, Any]) -> Tensor:
        state = mode.state
        if state.batching is not None:
            return state.batching(primitive, (input,), keywords)  # type: ignore[no-any-return]
        if input._view is not None:
            input._up_to_date()
        result = state.quietly(primitive.forward, input._data, **keywords)
        out: Tensor = _new(Tensor)
        out._data = result if type(result) is _ndarray else _asarray(result)
        out._output_nr = 0
        out._counter = out._view = None
        if input._requires_grad and state.enabled:
            out._requires_grad = True
            out._node = recorders[_ONE](out, keywords, (), state, input)
        else:
            out._requires_grad = False
            out._node = None
            if state.inference:
                out._inference, out._counter = True, [1]
        return out

    return call

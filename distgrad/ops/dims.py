"""The arguments ``dim`` and ``keepdim``, which most functions of several elements have in common."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ..autograd import Tensor
from .arguments import tensor_argument
from .shape import normalize_dim

P = ParamSpec("P")
R = TypeVar("R")

Dims = int | Sequence[int] | None

_EVERY = tuple(tuple(range(ndim)) for ndim in range(8))  # of tensors of so many dimensions
_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def numpy_names(function: Callable[P, R]) -> Callable[P, R]:
    """Lets ``function`` be called with NumPy's ``axis`` for ``dim`` and ``keepdims`` for ``keepdim``, as PyTorch does.

    What is given first has to be a tensor.

    Raises:
        TypeError: the first argument is no tensor, or an argument is given under both names.
    """
    name = function.__name__

    def call(*args: Any, **kwargs: Any) -> R:
        if args and not isinstance(args[0], Tensor):
            tensor_argument(args[0], name)  # which refuses
        if not kwargs:
            return function(*args)  # type: ignore[call-arg]
        for other, own in _NAMES.items():
            if other in kwargs:
                if own in kwargs:
                    raise TypeError(f"{name}() got both {other!r} and {own!r}, which are one argument")
                kwargs[own] = kwargs.pop(other)
        return function(*args, **kwargs)

    functools.update_wrapper(call, function)
    del call.__wrapped__  # type: ignore[attr-defined]  # there is one function, and this is it
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def _is_int(value: Any) -> bool:
    return not isinstance(value, (bool, np.bool_)) and hasattr(value, "__index__")


def int_argument(function: str, name: str, value: Any, position: int) -> int:
    """``value``, which has to be an integer.

    Raises:
        TypeError: it is none, or a bool.
    """
    if not _is_int(value):
        raise TypeError(
            f"{function}(): argument '{name}' (position {position}) must be int, not {type(value).__name__}"
        )
    return operator.index(value)


def dim_argument(function: str, dim: Any, ndim: int, position: int = 2) -> int:
    """One dimension, counted from the front.

    Raises:
        TypeError: ``dim`` is no integer.
        IndexError: it is out of range.
    """
    return normalize_dim(int_argument(function, "dim", dim, position), ndim)


def check_keepdim(keepdim: Any) -> None:
    """Raises TypeError unless ``keepdim`` is a bool: most often a second dimension was meant."""
    if not isinstance(keepdim, (bool, np.bool_)):
        raise TypeError(
            f"argument 'keepdim' must be bool, not {type(keepdim).__name__}; several dimensions are given as a tuple"
        )


def dims_argument(dim: Any, ndim: int, keepdim: Any = False) -> tuple[int, ...]:
    """Several dimensions, counted from the front; None, or no dimension, means all. None is left of a 0-d tensor.

    Raises:
        TypeError: ``dim`` is no integer nor a sequence of them, or ``keepdim`` no bool.
        IndexError: a dimension is out of range.
        RuntimeError: a dimension is named twice.
    """
    if keepdim is not False and keepdim is not True:
        check_keepdim(keepdim)
    if dim is None:
        return _EVERY[ndim] if ndim < len(_EVERY) else tuple(range(ndim))
    given = (dim,) if _is_int(dim) else dim
    if not isinstance(given, (tuple, list)) or not all(map(_is_int, given)):
        raise TypeError(f"argument 'dim' must be an int or a tuple of ints, not {dim!r}")
    if not given:
        return tuple(range(ndim))
    dims = tuple(normalize_dim(operator.index(d), ndim) for d in given)
    if len(set(dims)) != len(dims):
        twice = next(d for d in dims if dims.count(d) > 1)
        raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
    return dims if ndim else ()

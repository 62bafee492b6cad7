"""The largest and the smallest element over dimensions, and where they stand.

Two conventions for gradients at ties, both PyTorch's: over several dimensions equal extremes share the gradient evenly,
along one dimension with an index it goes to the element of that index.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from . import return_types
from .dims import Dims, check_keepdim, dim_argument, dims_argument, numpy_names
from .elementwise import _where
from .extremum import maximum, minimum
from .shape import _reshape

__all__ = [  # what distgrad itself offers
    "amax",
    "amin",
    "aminmax",
    "argmax",
    "argmin",
    "max",
    "min",
]
METHODS = "amax amin aminmax argmax argmin max min".split()  # what a Tensor offers

# By index -----------------------------------------------------------------------------------------------------------


def _picked(input: Array, index: Array, dim: int, keepdim: bool) -> Array:
    if not input.ndim:
        return input.copy()
    out = np.take_along_axis(input, index if keepdim else np.expand_dims(index, dim), dim)
    return out if keepdim else out.squeeze(dim)


def _put_back(input: Array, index: Array, shape: tuple[int, ...], dim: int, keepdim: bool) -> Array:
    if not shape:
        return input.copy()
    out = np.zeros(shape, input.dtype)
    if not keepdim:
        input, index = np.expand_dims(input, dim), np.expand_dims(index, dim)
    np.put_along_axis(out, index, input, dim)
    return out


def picking(name: str) -> Primitive:
    """The primitive that picks elements along ``dim``, none of them twice; ``index`` has ``dim`` if ``keepdim``."""
    return define(
        name,
        _picked,
        ("input", "index"),
        input=lambda g, index, input_shape, dim, keepdim: _put(g, index, shape=input_shape, dim=dim, keepdim=keepdim),
    )


_max_along, _min_along = picking("Max"), picking("Min")
_put: Primitive = define(
    "PickAdjoint",
    _put_back,
    ("input", "index"),
    input=lambda g, index, dim, keepdim: _max_along(g, index, dim=dim, keepdim=keepdim),
)


def _place(function: Any, input: Array, dim: int | None, keepdim: bool) -> Array:
    # keepdims: NumPy gives a scalar where no dimension is left
    return np.asarray(function(input, axis=dim if input.ndim else None, keepdims=keepdim), np.int64)


_argmax: Primitive = define("Argmax", lambda input, dim, keepdim: _place(np.argmax, input, dim, keepdim), ("input",))
_argmin: Primitive = define("Argmin", lambda input, dim, keepdim: _place(np.argmin, input, dim, keepdim), ("input",))


def check_not_empty(name: str, input: Tensor, dims: tuple[int, ...]) -> None:
    """Raises IndexError if one of ``dims`` has no elements to choose from."""
    for d in dims:
        if input.shape[d] == 0:
            raise IndexError(
                f"{name}(): Expected reduction dim {d} to have non-zero size: the shape is {list(input.shape)}"
            )


def _no_dim(name: str, error: type[Exception]) -> Exception:
    return error(
        f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the "
        "'dim' argument."
    )


def _arg(primitive: Primitive, name: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    if input.dtype == np.bool_:
        raise RuntimeError(f"{name}(): does not support bool input; call int() first")
    axis = None if dim is None else dim_argument(name, dim, input.ndim)
    if axis is None and input.numel() == 0:
        raise _no_dim(name, IndexError)
    if axis is not None and input.ndim:
        check_not_empty(name, input, (axis,))
    out: Tensor = primitive(input, dim=axis, keepdim=keepdim)
    return out


@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the largest element stands along ``dim``, or in the flattened tensor: of equal ones the first, else the
    first NaN. int64.

    Raises:
        IndexError: ``dim`` is out of range, or there is no element to choose.
        RuntimeError: bools.
        TypeError: ``dim`` is no integer.
    """
    return _arg(_argmax, "argmax", input, dim, keepdim)


@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the smallest element stands along ``dim``, or in the flattened tensor; else as ``argmax``."""
    return _arg(_argmin, "argmin", input, dim, keepdim)


# By value -----------------------------------------------------------------------------------------------------------


def _values(x: Any) -> Any:
    return x._data if isinstance(x, Tensor) else x


def _shared(g: Any, input: Any, output: Any, input_shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    """``amax``: elements that are equally extreme share the gradient evenly; where there is a NaN it is NaN."""
    kept = tuple(1 if d in dims else n for d, n in enumerate(input_shape))
    equal = _values(input) == _values(output).reshape(kept)
    number = np.count_nonzero(equal, axis=dims or None, keepdims=True).reshape(kept)
    share = _reshape(g, shape=kept)
    if (number != 1).any():
        share = share / number.astype(g.dtype)
    return _where(equal, share, share * 0.0)


def shared_evenly(g: Any, input: Any, output: Any) -> Any:
    """``max()`` and ``median()`` of a whole tensor: elements equal to the result, NaN among them, share evenly."""
    x, extreme = _values(input), _values(output)
    equal = np.isnan(x) if np.isnan(extreme) else x == extreme
    return _where(equal, g / float(np.count_nonzero(equal)), 0.0)


def _extremes(function: Any) -> Any:
    return lambda input, dims, keepdim: function(input, axis=dims, keepdims=keepdim)


_amax: Primitive = define("Amax", _extremes(np.max), ("input",), input=_shared)
_amin: Primitive = define("Amin", _extremes(np.min), ("input",), input=_shared)
_max_of_all: Primitive = define("MaxOfAll", lambda input: np.max(input), ("input",), input=shared_evenly)
_min_of_all: Primitive = define("MinOfAll", lambda input: np.min(input), ("input",), input=shared_evenly)


def _over(primitive: Primitive, name: str, input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    dims = dims_argument(dim, input.ndim, keepdim)
    if input.numel() == 0:
        if dim is None or dim == () or dim == []:
            raise _no_dim(name, RuntimeError)
        check_not_empty(name, input, dims)
    out: Tensor = primitive(input, dims=dims, keepdim=keepdim)
    return out


@numpy_names
def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The largest element over ``dim``, one dimension or several (all without it); equal ones share the gradient.

    Raises:
        IndexError: a dimension is out of range or has no elements.
        RuntimeError: one is named twice, or the tensor is empty and none is named.
    """
    return _over(_amax, "amax", input, dim, keepdim)


@numpy_names
def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The smallest element over ``dim``; else as ``amax``."""
    return _over(_amin, "amin", input, dim, keepdim)


@numpy_names
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> return_types.Named:
    """The smallest and the largest element, ``min`` and ``max``, of the tensor or along ``dim``; as ``amin``, ``amax``.

    Raises:
        IndexError: ``dim`` is out of range or has no elements.
        RuntimeError: the tensor is empty and ``dim`` not given.
    """
    dims = None if dim is None else dim_argument("aminmax", dim, input.ndim)
    if dims is None and input.numel() == 0:
        raise RuntimeError(
            "aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity."
        )
    return return_types.aminmax(
        (_over(_amin, "aminmax", input, dims, keepdim), _over(_amax, "aminmax", input, dims, keepdim))
    )


def _along(
    result: type[return_types.Named], place: Primitive, pick: Primitive, input: Tensor, dim: Any, keepdim: bool
) -> return_types.Named:
    name = result.__name__
    axis = dim_argument(name, dim, input.ndim)
    check_keepdim(keepdim)
    if input.ndim:
        check_not_empty(name, input, (axis,))
    indices = place(input, dim=axis, keepdim=keepdim)
    return result((pick(input, indices, dim=axis, keepdim=keepdim), indices))


def _of_all(primitive: Primitive, name: str, input: Tensor, keepdim: bool) -> Tensor:
    if keepdim:
        raise TypeError(f"{name}() with keepdim needs dim; a{name}() takes keepdim without it")
    if input.numel() == 0:
        raise _no_dim(name, RuntimeError)
    out: Tensor = primitive(input)
    return out


@numpy_names
def max(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """The largest element; with ``dim``, the largest along it and their indices; with a tensor, ``maximum``.

    Args:
        input: any dtype.
        dim: along which to look; or ``other``.
        keepdim: keep ``dim`` with length 1.
        other: another tensor, to compare elements with.

    Returns:
        A tensor; with ``dim`` the pair (``values``, ``indices``): of equal elements the first, else the first NaN.
        The gradient goes to that element, and is shared evenly by equal ones without ``dim``.

    Raises:
        IndexError: ``dim`` is out of range or has no elements.
        RuntimeError: the tensor is empty and ``dim`` not given.
        TypeError: ``dim`` is neither an integer nor a tensor.
    """
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return maximum(input, other)
    if dim is None:
        return _of_all(_max_of_all, "max", input, keepdim)
    return _along(return_types.max, _argmax, _max_along, input, dim, keepdim)


@numpy_names
def min(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """The smallest element; with ``dim``, the smallest along it and their indices; with a tensor, ``minimum``. See
    ``max``.
    """
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return minimum(input, other)
    if dim is None:
        return _of_all(_min_of_all, "min", input, keepdim)
    return _along(return_types.min, _argmin, _min_along, input, dim, keepdim)

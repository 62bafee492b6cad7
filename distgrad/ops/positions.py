"""Single elements along a dimension, or of the flattened tensor, named by a tensor of positions: taken and written."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels.scatter import are_distinct
from .arguments import number, number_in, tensor_argument
from .elementwise import _where, broadcast_to, clone
from .extremum import _clamp
from .indexing import getitem
from .promotion import cast
from .samples import all_values, is_batched, is_captured
from .shape import _common_shape, normalize_dim, reshape, unsqueeze
from .slices import _array_of, _as_vector, _check_positions, _counted_from_front, _is_long

__all__ = [  # what distgrad itself offers
    "gather",
    "put",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "take",
    "take_along_dim",
]
METHODS = (  # what a Tensor offers
    "gather put scatter scatter_add scatter_reduce take take_along_dim"
).split()
IN_PLACE = "put scatter scatter_add scatter_reduce".split()  # of these, what also exists as NAME_

# Along one dimension -------------------------------------------------------------------------------------------------


def _take(input: Any, index: Any, dim: int) -> Any:
    grid = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    grid[dim] = index
    return np.ascontiguousarray(input[tuple(grid)])


def _places(index: Any, shape: tuple[int, ...], dim: int) -> Any:
    """Where in the flattened array of ``shape`` the elements lie that ``index`` names along ``dim``."""
    places = np.zeros(index.shape, np.int64)
    step = 1
    for d in reversed(range(len(shape))):
        along = index if d == dim else np.arange(index.shape[d]).reshape((-1,) + (1,) * (index.ndim - d - 1))
        places += along.astype(np.int64) * step
        step *= shape[d]
    return places.ravel()


def _combined(ufunc: np.ufunc, input: Any, index: Any, src: Any, dim: int) -> Any:
    """``input`` with the elements of ``src`` combined into it one after the other, in row-major order."""
    out = input.copy()
    ufunc.at(out.reshape(-1), _places(index, out.shape, dim), src.ravel())
    return out


def _write_along(input: Any, index: Any, src: Any, dim: int) -> Any:
    out = input.copy()
    # flat and in row-major order, so that of several elements for one place the last wins whatever the memory layout
    out.reshape(-1)[_places(index, out.shape, dim)] = src.ravel() if src.ndim else src
    return out


def _unless_overwritten(g: Any, index: Any, shape: tuple[int, ...], dim: int) -> Any:
    """The gradient of what a scatter writes: zero where a later element was written to the same place."""
    taken = _gather(g, index, dim=dim)
    values = _array_of(index)
    places, size = _places(values, shape, dim), int(np.prod(shape, dtype=np.int64))
    if are_distinct(places, size):
        return taken
    order, last = np.arange(values.size), np.empty(size, np.int64)
    last[places] = order
    return _where((last[places] == order).reshape(values.shape), taken, 0.0)


_gather: Primitive = define(
    "Gather",
    _take,
    ("input", "index"),
    input=lambda g, index, input_shape, dim: _scatter_add(np.zeros(input_shape, g.dtype), index, g, dim=dim),
)
_scatter_add: Primitive = define(
    "ScatterAdd",
    lambda input, index, src, dim: _combined(np.add, input, index, src, dim),
    ("input", "index", "src"),
    input=lambda g: g,
    src=lambda g, index, dim: _gather(g, index, dim=dim),
)
_scatter: Primitive = define(
    "Scatter",
    _write_along,
    ("input", "index", "src"),
    input=lambda g, index, dim: _scatter(g, index, np.zeros((), g.dtype), dim=dim),
    src=lambda g, index, input_shape, dim: _unless_overwritten(g, index, input_shape, dim),
)


def _product_without_input(g: Any, input: Any, index: Any, src: Any, dim: int) -> Any:
    """The product of all others: divided out where the element is not zero, else computed anew."""
    divisor = _where(input == 0, 1.0, input)
    return g * _scatter_product(divisor, index, src, dim=dim) / divisor


def _product_without_src(g: Any, input: Any, index: Any, src: Any, output: Any, dim: int) -> Any:
    zero = _array_of(src) == 0
    positions = _array_of(index)
    counts = _combined(np.add, np.zeros(input.shape, np.int64), positions, zero.astype(np.int64), dim)
    only = zero & (_take(counts, positions, dim) == 1)  # the product of the others need not be zero there
    divided = _gather(g * output, index, dim=dim) / _where(zero, 1.0, src)
    if not only.any():
        return divided
    anew = _scatter_product(input, index, _where(only, 1.0, src), dim=dim)
    return _where(only, _gather(g * anew, index, dim=dim), divided)


_scatter_product: Primitive = define(
    "ScatterProd",
    lambda input, index, src, dim: _combined(np.multiply, input, index, src, dim),
    ("input", "index", "src"),
    input=lambda g, input, index, src, dim: _product_without_input(g, input, index, src, dim),
    src=lambda g, input, index, src, output, dim: _product_without_src(g, input, index, src, output, dim),
)


def _shares(input: Any, index: Any, src: Any, output: Any, dim: int) -> tuple[Any, Any]:
    """Which part of the gradient of an extremum goes to each element of ``input`` and ``src``: ties share evenly."""
    input, index, src, output = (_array_of(x) for x in (input, index, src, output))
    kept, chosen = (input == output).astype(output.dtype), (src == _take(output, index, dim)).astype(output.dtype)
    count = _combined(np.add, kept, index, chosen, dim)
    count[count == 0] = 1  # NaN is equal to nothing
    return kept / count, chosen / _take(count, index, dim)


def _extremum(name: str, ufunc: np.ufunc) -> Primitive:
    return define(
        name,
        lambda input, index, src, dim: _combined(ufunc, input, index, src, dim),
        ("input", "index", "src"),
        input=lambda g, input, index, src, output, dim: g * _shares(input, index, src, output, dim)[0],
        src=lambda g, input, index, src, output, dim: (
            _gather(g, index, dim=dim) * _shares(input, index, src, output, dim)[1]
        ),
    )


_scatter_largest = _extremum("ScatterAmax", np.maximum)
_scatter_smallest = _extremum("ScatterAmin", np.minimum)


def _check_bounds(index: Tensor, axis: int, size: int, lowest: int = 0) -> None:
    _check_positions(
        index,
        lowest,
        size,
        lambda wrong: RuntimeError(f"index {wrong} is out of bounds for dimension {axis} with size {size}"),
    )


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """``out[i][j] = input[index[i][j]][j]`` for ``dim`` 0, and so on.

    Args:
        input: any dtype.
        dim: the dimension along which ``index`` counts.
        index: int32 or int64, with as many dimensions as ``input`` and along the others no longer; the shape of the
            result.
        sparse_grad: accepted for PyTorch's sake; gradients are dense.

    Raises:
        RuntimeError: another dtype of ``index``, its shape does not fit, or a position lies outside.
        IndexError: ``dim`` is out of range.
    """
    axis = normalize_dim(dim, tensor_argument(input, "gather").ndim)
    tensor_argument(index, "gather", "index", 3)
    if not _is_long(index):
        raise RuntimeError(f"gather(): Expected dtype int32/int64 for index, got {index.dtype}")
    if not index.numel():
        return Tensor(np.empty(index.shape, input.dtype)) if not input.requires_grad else _nothing(input, index)
    whole, places = _as_vector(input), _as_vector(index)
    if places.ndim != whole.ndim:
        raise RuntimeError(
            f"Index tensor must have the same number of dimensions as input tensor: {list(index.shape)} and "
            f"{list(input.shape)}"
        )
    for d, (n, available) in enumerate(zip(places.shape, whole.shape, strict=True)):
        if d != axis and n > available:
            raise RuntimeError(
                f"Size does not match at dimension {d} expected index {list(index.shape)} to be no larger than self "
                f"{list(input.shape)} apart from dimension {axis}"
            )
    _check_bounds(places, axis, whole.shape[axis])
    out: Tensor = _gather(whole, places, dim=axis)
    return out if index.ndim else reshape(out, ())


def _nothing(input: Tensor, index: Tensor) -> Tensor:
    """A result without elements that still belongs to the graph, whatever the shapes."""
    return clone(reshape(getitem(reshape(input, -1), slice(0, 0)), tuple(index.shape)))


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at the positions ``index`` of the flattened ``input``, in the shape of ``index``.

    Raises:
        RuntimeError: another dtype of ``index`` than int64.
        IndexError: a position is out of range.
    """
    flat = reshape(tensor_argument(input, "take"), -1)
    places = _flat_places("take", flat, tensor_argument(index, "take", "index", 2))
    out: Tensor = _gather(flat, places, dim=0)
    return reshape(out, tuple(index.shape))


def _flat_places(name: str, flat: Tensor, index: Tensor) -> Tensor:
    """Positions in a flattened tensor as a vector, counted from the front."""
    if index.dtype != np.int64:
        raise RuntimeError(f"{name}(): Expected a long tensor for index, but got {index.dtype}")
    size = flat.numel()
    if index.numel() and not size:
        raise IndexError(f"{name}(): tried to {name} from an empty tensor")
    _check_positions(
        index,
        -size,
        size,
        lambda wrong: IndexError(f"out of range: tried to access index {wrong} on a tensor of {size} elements."),
    )
    return _counted_from_front(reshape(index, -1), size)


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of ``input`` with the elements of ``source`` at the positions ``index`` of the flattened tensor.

    Args:
        input: any dtype.
        index: int64, of any shape; negative positions count from the end.
        source: in the dtype of ``input``, with as many elements as ``index``.
        accumulate: add to what is there, places named several times get the sum; without it the last of several is
            kept, and the gradient of the others is zero.

    Raises:
        RuntimeError: dtypes do not fit.
        IndexError: a position is out of range, or there are not as many elements as positions.
    """
    flat = reshape(tensor_argument(input, "put"), -1)
    tensor_argument(source, "put", "source", 3)
    if source.dtype != input.dtype:
        raise RuntimeError(
            f"put(): self and source expected to have the same dtype, but got self.dtype = {input.dtype} and "
            f"source.dtype = {source.dtype}"
        )
    if source.numel() != index.numel():
        raise IndexError(
            "put(): Expected source and index to have the same number of elements, but got source.numel() = "
            f"{source.numel()}, index.numel() = {index.numel()}"
        )
    places = _flat_places("put", flat, tensor_argument(index, "put", "index", 2))
    out: Tensor = (_scatter_add if accumulate else _scatter)(flat, places, reshape(source, -1), dim=0)
    return reshape(out, tuple(input.shape))


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """``gather`` with ``input`` and ``indices`` (int64) broadcast against each other in the dimensions other than
    ``dim``; without ``dim``, elements of the flattened ``input``. Negative indices count from the end.

    Raises:
        IndexError: ``dim`` is out of range, or ``input`` has no dimensions.
        RuntimeError: another dtype of ``indices``, shapes that do not broadcast, or an index outside.
    """
    if indices.dtype != np.int64:
        raise RuntimeError(f"torch.take_along_dim(): dtype of indices should be Long but got {indices.dtype}")
    if dim is None:
        return take_along_dim(reshape(input, -1), reshape(indices, -1), 0)
    if input.ndim != indices.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    if not input.ndim:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    axis = normalize_dim(dim, input.ndim)
    size = input.shape[axis]
    common = _common_shape(*((*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in (input, indices)))
    wide, index = (broadcast_to(x, (*common[:axis], x.shape[axis], *common[axis + 1 :])) for x in (input, indices))
    if is_captured(indices) or (all_values(indices) < 0).any():
        _check_bounds(indices, axis, size, lowest=-size)
        index = _counted_from_front(index, size)
    return gather(wide, axis, index)


# Written along one dimension -----------------------------------------------------------------------------------------


def _check_scatter(input: Tensor, dim: int, index: Tensor, src: Tensor | None) -> int:
    """The dimension counted from the front, once the arguments of a scatter are found right."""
    axis = normalize_dim(dim, tensor_argument(input, "scatter").ndim)
    tensor_argument(index, "scatter", "index", 3)
    if not _is_long(index):
        raise RuntimeError(f"scatter(): Expected dtype int32/int64 for index, got {index.dtype}")
    if src is not None and src.dtype != input.dtype:
        raise RuntimeError(
            f"scatter(): Expected self.dtype to be equal to src.dtype, got {input.dtype} and {src.dtype}"
        )
    if not index.numel():
        return axis
    shape, wanted = _as_vector(input).shape, _as_vector(index).shape
    given = None if src is None else _as_vector(src).shape
    for name, other in (("self", shape), ("src", given)):
        if other is not None and len(wanted) != len(other):
            raise RuntimeError(
                f"Index tensor must have the same number of dimensions as {name} tensor: {list(index.shape)} and "
                f"{list(other)}"
            )
    beside = any(n > m for d, (n, m) in enumerate(zip(wanted, shape, strict=True)) if d != axis)
    beyond = given is not None and any(n > m for n, m in zip(wanted, given, strict=True))
    if beside or beyond:
        limit = "" if src is None else f" and to be no larger size than src {list(src.shape)}"
        raise RuntimeError(
            f"Expected index {list(index.shape)} to be no larger than self {list(input.shape)} apart from dimension "
            f"{axis}{limit}"
        )
    _check_bounds(index, axis, shape[axis])
    return axis


def _scattered(primitive: Primitive, input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    whole, index = _as_vector(input), _as_vector(index)
    if not index.numel():  # its shape does not matter then
        index = Tensor(np.empty((0,) * whole.ndim, np.int64))
    if isinstance(src, Tensor):
        src = _as_vector(src)
        if not index.numel():
            src = reshape(getitem(reshape(src, -1), slice(0, 0)), tuple(index.shape))
        elif src.shape != index.shape:
            src = getitem(src, tuple(slice(n) for n in index.shape))
    out: Tensor = primitive(whole, index, src, dim=dim)
    return out if input.ndim else reshape(out, ())


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """A copy of ``input`` with ``out[index[i][j]][j] = src[i][j]`` for ``dim`` 0, and so on, or a number everywhere.

    Where ``index`` (int32 or int64) names a place twice the last element in row-major order is kept, and the gradient
    of those it overwrites is zero.

    Args:
        input: any dtype.
        dim: the dimension along which ``index`` counts.
        index: with as many dimensions as ``input``, no longer than it but along ``dim``, nor than ``src`` along any.
        src: of the dtype of ``input``, or a number.
        value: the number, by name.
        reduce: "add" or "multiply" to combine the elements with what is there instead.

    Raises:
        RuntimeError: dtypes or shapes do not fit, an index lies outside, the dtype cannot hold the number, or another
            ``reduce``.
        TypeError: neither or both of ``src`` and ``value``.
    """
    if (src is None) == (value is None):
        raise TypeError("scatter() needs either src (a Tensor) or value (a number)")
    if reduce not in (None, "add", "multiply"):
        raise RuntimeError(f"scatter(): reduce argument must be either add or multiply, but got {reduce!r}.")
    given = value if src is None else src
    axis = _check_scatter(input, dim, index, given if isinstance(given, Tensor) else None)
    if not isinstance(given, Tensor):
        given = number_in(number(given, "scatter", "value", 4), input.dtype)
        if reduce is not None:
            given = Tensor(np.broadcast_to(given, index.shape))
    primitives = {None: _scatter, "add": _scatter_add, "multiply": _scatter_product}
    return _scattered(primitives[reduce], input, axis, index, given)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """As ``scatter`` of a tensor, but added to what is there; places named several times get the sum."""
    tensor_argument(src, "scatter_add", "src", 4)
    return _scattered(_scatter_add, input, _check_scatter(input, dim, index, src), index, src)


_REDUCTIONS = {
    "sum": _scatter_add,
    "mean": _scatter_add,
    "prod": _scatter_product,
    "amax": _scatter_largest,
    "amin": _scatter_smallest,
}


def _neutral(reduce: str, dtype: np.dtype[Any]) -> Any:
    """What a reduction can start from without changing the result."""
    if reduce in ("sum", "mean", "prod"):
        return np.asarray(reduce == "prod").astype(dtype)
    if dtype.kind == "f":
        return np.asarray(-np.inf if reduce == "amax" else np.inf).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(reduce == "amin")
    limits = np.iinfo(dtype)
    return np.asarray(limits.min if reduce == "amax" else limits.max).astype(dtype)


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """As ``scatter`` of a tensor, but everything that is written to one place is reduced to one element.

    Args:
        input: any dtype; "mean" of integers is rounded down, and there is none of bools.
        dim: the dimension along which ``index`` counts.
        index: int32 or int64; see ``scatter``.
        src: of the dtype of ``input``.
        reduce: "sum", "prod", "mean", "amax" or "amin"; at a tie the gradient of an extremum is shared evenly.
        include_self: whether the element of ``input`` takes part; if not it is replaced where something is written.

    Raises:
        RuntimeError: another ``reduce``; dtypes or shapes do not fit, or an index lies outside.
    """
    tensor_argument(src, "scatter_reduce", "src", 4)
    if reduce not in _REDUCTIONS:
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    axis = _check_scatter(input, dim, index, src)
    if reduce == "mean" and input.dtype == np.bool_:
        raise NotImplementedError("scatter_reduce(): there is no mean of bools")
    start = input
    if not include_self:
        start = _scattered(_scatter, input, axis, index, _neutral(reduce, input.dtype))
    out = _scattered(_REDUCTIONS[reduce], start, axis, index, src)
    if reduce != "mean":
        return out
    ones = Tensor(np.ones(index.shape, np.int64))
    first = Tensor(np.full(input.shape, include_self, np.int64))
    count = cast(_clamp(_scattered(_scatter_add, first, axis, index, ones), min=1, max=None), input.dtype)
    mean: Tensor = out / count if input.dtype.kind == "f" else out // count
    return mean


# Classes -------------------------------------------------------------------------------------------------------------


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A 1 at each class index and 0 elsewhere, int64: (*) -> (*, num_classes).

    Args:
        tensor: class indices, int64.
        num_classes: how many there are, one more than the largest index without it.

    Raises:
        RuntimeError: indices that are not int64, negative or too large, or none to count the classes of.
    """
    count = operator.index(num_classes)
    if count == -1 and is_batched(tensor):
        raise RuntimeError(
            "When vmap-ing torch.nn.functional.one_hot, please provide an explicit positive num_classes argument."
        )
    indices = all_values(tensor_argument(tensor, "one_hot"))
    if indices.dtype != np.int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type LongTensor, not {indices.dtype}")
    if indices.size == 0 and count <= 0:
        raise RuntimeError("Can not infer total number of classes from empty tensor.")
    if indices.size and indices.min() < 0:
        raise RuntimeError(f"Class values must be non-negative: class value {indices.min()} is out of bounds.")
    if count == -1:
        count = int(indices.max()) + 1
    if indices.size and indices.max() >= count:
        raise RuntimeError(
            f"Class values must be smaller than num_classes: class value {indices.max()} is out of bounds: there are "
            f"{count} classes"
        )
    out: Tensor = cast(unsqueeze(tensor, -1) == Tensor(np.arange(count)), np.int64)
    return out

"""Tensors from data, and tensors of one value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .arguments import check_device, dtype_or_default, number, number_in, size_argument, tensor_argument
from .promotion import Dtype, get_default_dtype
from .samples import with_batches_of

__all__ = [  # what distgrad itself offers
    "as_tensor",
    "asarray",
    "empty",
    "empty_like",
    "from_numpy",
    "full",
    "full_like",
    "ones",
    "ones_like",
    "scalar_tensor",
    "tensor",
    "zeros",
    "zeros_like",
]
METHODS = (  # what a Tensor offers
    "new_empty new_full new_ones new_tensor new_zeros"
).split()

# From data -----------------------------------------------------------------------------------------------------------

_BUILT_IN = {bool: np.dtype(np.bool_), int: np.dtype(np.int64)}


def _array(data: Any, dtype: Any) -> Any:
    """A copy of ``data`` as an array in the dtype that PyTorch would infer: Python floats give the default dtype."""
    if isinstance(data, Tensor):
        return np.array(_one_array(data), dtype=dtype)
    if isinstance(data, (np.ndarray, np.generic)):
        _check_kind(data)
        return np.array(data, dtype=dtype)
    if not _is_sequence(data):
        if isinstance(data, (bool, int, float)):
            # as in PyTorch, a number too large for the dtype is infinite, but an integer has to fit
            return _converted(data, dtype)
        if hasattr(data, "__array__"):
            return _array(np.asarray(data), dtype)
        _refuse(data)
    values, kinds = _plain(data)
    return _converted(values, dtype if dtype is not None or not kinds else _common(kinds))


def _one_array(x: Tensor) -> Any:
    if x._batched:
        raise RuntimeError("vmap: the values of many samples are no data for a new tensor: use clone(), or stack()")
    return x._data


def _check_kind(data: Any) -> None:
    if data.dtype.kind not in "biuf" or data.dtype.itemsize > 8:
        raise TypeError(f"can't convert np.ndarray of type {data.dtype}; supported are bool, integers and floats")


def _is_sequence(data: Any) -> bool:
    return isinstance(data, Sequence) and not isinstance(data, (str, bytes))


def _refuse(data: Any) -> None:
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    raise RuntimeError(
        f"Could not infer dtype of {type(data).__name__}: tensor() takes numbers, bools and nested sequences of them"
    )


def _plain(data: Sequence[Any]) -> tuple[Any, set[Dtype]]:
    """Nested sequences with arrays in place of tensors, and the dtypes of what is in them."""
    types = set(map(type, data))
    if types <= {bool, int, float}:  # the common case, without a look at each element
        return data, {_BUILT_IN.get(kind) or get_default_dtype() for kind in types}
    values, kinds = [], set()
    for item in data:
        if isinstance(item, Tensor):
            item = _one_array(item).reshape(()) if item.numel() == 1 else item._data
        if isinstance(item, (np.ndarray, np.generic)):
            _check_kind(item)
            found = {item.dtype}
        elif _is_sequence(item):
            item, found = _plain(item)
        elif isinstance(item, (bool, int, float)):
            found = {_BUILT_IN.get(type(item)) or get_default_dtype()}
        else:
            _refuse(item)
        values.append(item)
        kinds |= found
    return values, kinds


def _common(kinds: set[Dtype]) -> Dtype:
    """The dtype that holds all of them, floats before integers."""
    floats = [kind for kind in kinds if kind.kind == "f"]
    return np.result_type(*(floats or kinds))


def _converted(values: Any, dtype: Any) -> Any:
    """Numbers as an array. What an integer dtype cannot hold is refused, but negative ones wrap around in uint8."""
    if dtype is None:  # a single number, or sequences without an element
        dtype = _BUILT_IN.get(type(values)) or get_default_dtype()
    dtype = np.dtype(dtype)
    try:
        if dtype.kind not in "iu":
            with np.errstate(over="ignore"):  # too large a number is infinite
                return np.array(values, dtype=dtype)
        exact = np.array(values)
    except ValueError as error:
        raise ValueError(f"tensor(): the nested sequences are not of one length at every level: {error}") from None
    limits = np.iinfo(dtype)
    lowest = limits.min if dtype.kind == "i" else -limits.max
    # not "outside", so that NaN counts; integers beyond 64 bits make floats or objects here
    if exact.size and not (exact.min() >= lowest and exact.max() <= limits.max and exact.dtype.kind != "O"):
        raise RuntimeError(f"value cannot be converted to type {dtype} without overflow: {_shown(values)}")
    return exact.astype(dtype)


def _shown(values: Any) -> str:
    text = repr(values)
    return text if len(text) < 60 else f"{text[:60]}..."


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of ``data``. As ``torch.tensor``.

    Args:
        data: a number, nested sequences of numbers, an array or a tensor.
        dtype: of the result; without it that of ``data``, where Python's floats count as the default dtype, integers
            as int64, and in mixed sequences the wider kind decides.
        device: "cpu".
        requires_grad: whether it is a leaf that collects a gradient.

    Raises:
        ValueError: sequences of different lengths.
        TypeError: text, or an array of something else than numbers.
        RuntimeError: something else that is not a number, or one that does not fit into the dtype.
    """
    check_device(device)
    return Tensor(np.array(_array(data, dtype), order="C", copy=None), requires_grad)


def as_tensor(data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, sharing memory where it is an array or tensor of that dtype already."""
    check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None or data.dtype == dtype else data.to(dtype)
    if isinstance(data, np.ndarray) and (dtype is None or data.dtype == dtype):
        return from_numpy(data)
    return tensor(data, dtype=dtype)


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """``obj`` as a tensor: with ``copy`` never, without it where possible, sharing memory; as ``torch.asarray``.

    Raises:
        ValueError: ``copy=False``, but memory cannot be shared.
    """
    shareable = isinstance(obj, (Tensor, np.ndarray)) and (dtype is None or obj.dtype == dtype)
    if copy is False and not shareable:
        kind = obj.dtype if isinstance(obj, (Tensor, np.ndarray)) else type(obj).__name__
        raise ValueError(f"can't alias {kind} as a tensor of dtype {dtype or kind}: leave `copy` out, or give True")
    out = as_tensor(obj, dtype=dtype, device=device) if shareable and not copy else tensor(obj, dtype=dtype)
    if isinstance(obj, Tensor) and obj.requires_grad and not requires_grad:
        return out.detach()
    return out.detach().requires_grad_() if requires_grad and not out.requires_grad else out


def from_numpy(ndarray: Any) -> Tensor:
    """A tensor on the memory of an array: a change of one is a change of the other.

    Raises:
        TypeError: no array, or one of something else than bools, integers and floats.
        ValueError: the bytes of its elements lie in the order of another machine.
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    _check_kind(ndarray)
    if not ndarray.dtype.isnative:
        raise ValueError(
            f"given numpy array has byte order different from the native byte order ({ndarray.dtype}); "
            "astype(array.dtype.newbyteorder('=')) converts it"
        )
    return Tensor(ndarray)


# Of one value --------------------------------------------------------------------------------------------------------


def zeros(*args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros, of the default dtype unless given; sizes one by one or as a sequence."""
    check_device(device)
    return Tensor(np.zeros(size_argument(args, size, "zeros"), dtype_or_default(dtype)), requires_grad)


def ones(*args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones, of the default dtype unless given; sizes one by one or as a sequence."""
    check_device(device)
    return Tensor(np.ones(size_argument(args, size, "ones"), dtype_or_default(dtype)), requires_grad)


def empty(*args: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Memory as it comes, of the default dtype unless given; sizes one by one or as a sequence."""
    check_device(device)
    return Tensor(np.empty(size_argument(args, size, "empty"), dtype_or_default(dtype)), requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``fill_value`` everywhere. Without ``dtype`` a bool gives bool, an integer int64, a float the default dtype.

    Raises:
        TypeError: ``size`` is no sequence of integers, or ``fill_value`` no number.
        RuntimeError: a negative length, or a value that does not fit into ``dtype``.
    """
    check_device(device)
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"full(): argument 'size' (position 1) must be tuple of ints, not {type(size).__name__}")
    value = number(fill_value, "full", "fill_value", 2)
    kind = (_BUILT_IN.get(type(value)) or get_default_dtype()) if dtype is None else np.dtype(dtype)
    return Tensor(np.full(size_argument((size,), None, "full"), number_in(value, kind), kind), requires_grad)


def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A number as a tensor without dimensions, of the default dtype unless given."""
    return full((), s, dtype=dtype_or_default(dtype), device=device, requires_grad=requires_grad)


def _order(array: Any) -> Any:
    """How memory of the same shape lies: as that of ``array``, unless its elements share memory."""
    return "C" if any(step == 0 for step in array.strides) else "K"


def _like(name: str, input: Tensor, dtype: Any, device: Any) -> Any:
    check_device(device)
    array = tensor_argument(input, name)._data
    if input._batched:
        return np.empty(array.shape, array.dtype if dtype is None else dtype)
    return np.empty_like(array, dtype=dtype, order=_order(array))


def empty_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Memory as it comes, of the shape, the dtype unless given, and the order in memory of ``input``."""
    return _result(input, _like("empty_like", input, dtype, device), requires_grad)


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the shape, and the dtype unless given, of ``input``."""
    check_device(device)
    if tensor_argument(input, "zeros_like")._batched:
        return full_like(input, 0, dtype=dtype, requires_grad=requires_grad)
    array = input._data
    return Tensor(np.zeros_like(array, dtype=dtype, order=_order(array)), requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of the shape, and the dtype unless given, of ``input``."""
    out = _like("ones_like", input, dtype, device)
    out.fill(1)
    return _result(input, out, requires_grad)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``fill_value`` everywhere, in the shape, and the dtype unless given, of ``input``."""
    out = _like("full_like", input, dtype, device)
    out.fill(number_in(number(fill_value, "full_like", "fill_value", 2), out.dtype))
    return _result(input, out, requires_grad)


def _result(input: Tensor, array: Any, requires_grad: bool = False) -> Tensor:
    """``array`` as a tensor; inside vmap with memory for each sample if ``input`` has, so that it can be written."""
    out = with_batches_of(input, Tensor(array))
    return out.requires_grad_() if requires_grad else out


# In the dtype of another ---------------------------------------------------------------------------------------------


def new_tensor(
    input: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``tensor(data)`` in the dtype of ``input`` unless another is given."""
    kind = input.dtype if dtype is None else dtype
    return tensor(data, dtype=kind, device=device, requires_grad=requires_grad)


def new_zeros(input: Tensor, *args: Any, size: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """``zeros`` in the dtype of ``input`` unless another is given."""
    kind = input.dtype if dtype is None else dtype
    return with_batches_of(input, zeros(*args, size=size, dtype=kind, **options))


def new_ones(input: Tensor, *args: Any, size: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """``ones`` in the dtype of ``input`` unless another is given."""
    kind = input.dtype if dtype is None else dtype
    return with_batches_of(input, ones(*args, size=size, dtype=kind, **options))


def new_empty(input: Tensor, *args: Any, size: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """``empty`` in the dtype of ``input`` unless another is given."""
    kind = input.dtype if dtype is None else dtype
    return with_batches_of(input, empty(*args, size=size, dtype=kind, **options))


def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """``full`` in the dtype of ``input`` unless another is given."""
    kind = input.dtype if dtype is None else dtype
    return with_batches_of(input, full(size, fill_value, dtype=kind, **options))

"""Elements chosen by a mask: filled, taken, or overwritten one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .arguments import number, number_in, tensor_argument
from .elementwise import _where, broadcast_to
from .indexing import _index, getitem
from .promotion import cast
from .samples import each_sample, is_batched
from .shape import _common_shape, _pad, _reshape

__all__ = [  # what distgrad itself offers
    "masked_fill",
    "masked_scatter",
    "masked_select",
]
METHODS = (  # what a Tensor offers
    "masked_fill masked_scatter masked_select"
).split()
IN_PLACE = "masked_fill masked_scatter".split()  # of these, what also exists as NAME_


def _overwritten(input: Any, mask: Any, source: Any) -> Any:
    out = input.copy()
    out[mask] = source.reshape(-1)[: np.count_nonzero(mask)]
    return out


def _back_in_source(g: Any, mask: Any, shape: tuple[int, ...]) -> Any:
    taken = _index(g, index=(mask._data if isinstance(mask, Tensor) else mask,))
    size = int(np.prod(shape, dtype=np.int64))
    return _reshape(_pad(taken, shape=(size,), dim=0, start=0), shape=shape)


_masked_scatter: Primitive = define(
    "MaskedScatter",
    _overwritten,
    ("input", "mask", "source"),
    input=lambda g, mask: _where(mask, 0.0, g),
    source=lambda g, mask, source_shape: _back_in_source(g, mask, source_shape),
)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy of ``input`` with ``value`` (a number or a 0-d tensor) where ``mask`` (bool) is True; the two broadcast.

    The result has the dtype of ``input``.

    Raises:
        RuntimeError: ``mask`` is not bool, ``value`` has dimensions or overflows, or the shapes do not broadcast.
    """
    tensor_argument(input, "masked_fill")
    if tensor_argument(mask, "masked_fill", "mask", 2).dtype != np.bool_:
        raise RuntimeError(f"masked_fill only supports boolean masks, but got mask with dtype {mask.dtype}")
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(
                "masked_fill only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.ndim} dimension(s)."
            )
        filling = cast(value, input.dtype)
    else:
        filling = number_in(number(value, "masked_fill", "value", 3), input.dtype)
    _common_shape(mask.shape, input.shape)
    out: Tensor = _where(mask, filling, input)
    return out


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements of ``input`` where ``mask`` (bool) is True, in row-major order; the two broadcast. 1-D.

    Raises:
        RuntimeError: ``mask`` is not bool, or the shapes do not broadcast.
    """
    tensor_argument(input, "masked_select")
    if tensor_argument(mask, "masked_select", "mask", 2).dtype != np.bool_:
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask.dtype}")
    shape = _common_shape(mask.shape, input.shape)
    return getitem(broadcast_to(input, shape), broadcast_to(mask, shape))


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of ``input`` with the elements of ``source``, in row-major order one after the other, where ``mask``
    (bool) is True; ``input`` and ``mask`` broadcast.

    Args:
        input: any dtype.
        mask: bool.
        source: in the dtype of ``input``, with at least as many elements as there are places; the gradient of those
            left over is zero.

    Raises:
        RuntimeError: dtypes do not fit, the shapes do not broadcast, or ``source`` has too few elements.
    """
    if is_batched(mask):
        of_each: Tensor = each_sample(masked_scatter, input, mask, source)
        return of_each
    tensor_argument(input, "masked_scatter")
    if tensor_argument(mask, "masked_scatter", "mask", 2).dtype != np.bool_:
        raise RuntimeError(f"masked_scatter only supports boolean masks, but got mask with dtype {mask.dtype}")
    if tensor_argument(source, "masked_scatter", "source", 3).dtype != input.dtype:
        raise RuntimeError(
            f"masked_scatter: expected self and source to have same dtypes but got {input.dtype} and {source.dtype}"
        )
    shape = _common_shape(mask.shape, input.shape)
    wide, chosen = broadcast_to(input, shape), broadcast_to(mask, shape)
    places = int(np.count_nonzero(chosen._data))
    if places > source.numel():
        raise RuntimeError(
            f"masked_scatter: Number of elements of source < number of ones in mask: {source.numel()} and {places}"
        )
    out: Tensor = _masked_scatter(wide, chosen, source)
    return out

"""Choosing between two arrays element by element, without a branch for each element.

``np.where`` branches, and a processor that cannot foresee the mask of a ReLU or of dropout loses more than ten times
the cost of the copy. Here the mask becomes a word of zeros or ones and the choice arithmetic on bits, which copies
every value as it is, infinities, NaNs and the sign of zero included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS = {2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}
# below so many elements np.where takes less time than the calls for the detour
_FEW = 4096


def select(condition: Any, input: Any, other: Any) -> NDArray[Any]:
    """``input`` where ``condition``, ``other`` elsewhere, as ``np.where``.

    Args:
        condition: bools.
        input: an array or a number; of numbers only the value counts for the dtype, as in ``np.where``.
        other: likewise. All three broadcast.
    """
    out: NDArray[Any]
    if condition.size < _FEW:
        out = np.where(condition, input, other)
        return out
    dtype = np.result_type(input, other)
    word: Any = _WORDS.get(dtype.itemsize) if dtype.kind in "fiu" else None
    if word is None or condition.dtype != np.bool_:
        out = np.where(condition, input, other)
        return out
    a, b = (np.asarray(x, dtype).view(word) for x in (input, other))
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    if not b.ndim and not b:
        mask = _ones_where(condition, word)
        return _and(mask, a, shape).view(dtype)
    if not a.ndim and not a:
        mask = condition.view(np.int8).astype(word)
        mask -= 1
        return _and(mask, b, shape).view(dtype)
    out = _and(_ones_where(condition, word), a ^ b, shape)
    out ^= b
    return out.view(dtype)


def _ones_where(condition: Any, word: Any) -> NDArray[Any]:
    mask: NDArray[Any] = condition.view(np.int8).astype(word)
    np.negative(mask, out=mask)
    return mask


def _and(mask: NDArray[Any], bits: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The bits where the mask is ones; in the memory of the mask, which is ours, if it has the shape of the result."""
    out: NDArray[Any] = np.bitwise_and(mask, bits, out=mask if mask.shape == shape else None)
    return out if out.shape == shape else np.broadcast_to(out, shape).copy()


def select_reference(condition: Any, input: Any, other: Any) -> NDArray[Any]:
    """``select`` by Python's own choice, one element after the other."""
    dtype = np.result_type(input, other)
    arrays = np.broadcast_arrays(condition, np.asarray(input, dtype), np.asarray(other, dtype))
    out = np.empty(arrays[0].shape, dtype)
    for index in np.ndindex(out.shape):
        out[index] = arrays[1][index] if arrays[0][index] else arrays[2][index]
    return out

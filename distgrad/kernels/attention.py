"""The weights of attention: a softmax over scores of which some are hidden."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The scores go through several operations a block at a time, so that all but the first find them in cache.
_BLOCK_BYTES = 1 << 20


def attention_weights(scores: Array, bias: Array | None, hidden: Array | None) -> Array:
    """The softmax of ``scores + bias`` along the last dimension, with 0 where ``hidden`` is True.

    Args:
        scores: (..., L, S); float16 is computed in float32.
        bias: what broadcasts to that shape, also -inf; or None for zeros.
        hidden: bools that broadcast to that shape, or None.

    Returns:
        An array of the shape and dtype of ``scores``. Its rows sum to 1, but for those of which everything is hidden,
        which are 0.
    """
    out = np.empty(scores.shape, scores.dtype)
    dtype = np.float32 if scores.dtype == np.float16 else scores.dtype
    bias, hidden = (None if x is None else np.broadcast_to(x, scores.shape) for x in (bias, hidden))
    for block in _blocks(scores.shape[:-1], scores.shape[-1] * scores.itemsize):
        values = scores[block].astype(dtype)
        if bias is not None:
            values += bias[block]
        if hidden is not None:
            np.copyto(values, -np.inf, where=hidden[block])
        peak = values.max(axis=-1, keepdims=True, initial=-np.inf)
        # a row that is hidden has no largest score, and -inf must not be subtracted from itself
        np.copyto(peak, 0, where=np.isneginf(peak))
        values -= peak
        np.exp(values, out=values)
        total = values.sum(axis=-1, keepdims=True)
        np.copyto(total, 1, where=total == 0)
        np.divide(values, total, out=out[block], casting="same_kind")
    return out


def attention_weights_reference(scores: Array, bias: Array | None, hidden: Array | None) -> Array:
    """``attention_weights`` one row at a time; the tests' reference."""
    out = np.zeros(scores.shape, scores.dtype)
    bias = np.broadcast_to(0.0 if bias is None else bias, scores.shape)
    hidden = np.broadcast_to(False if hidden is None else hidden, scores.shape)
    for place in np.ndindex(scores.shape[:-1]):
        seen = ~hidden[place] & (bias[place] > -np.inf)
        powers = np.exp(scores[place][seen].astype(np.float64) + bias[place][seen])
        out[place][seen] = powers / powers.sum()
    return out


def _blocks(shape: tuple[int, ...], row_bytes: int) -> Iterator[tuple[slice, ...]]:
    """Cut an array of rows into pieces of about ``_BLOCK_BYTES``."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:]) * row_bytes
    if inner > _BLOCK_BYTES and len(shape) > 1:
        for first in range(shape[0]):
            for rest in _blocks(shape[1:], row_bytes):
                yield (slice(first, first + 1), *rest)
    else:
        count = max(1, _BLOCK_BYTES // max(1, inner))
        for first in range(0, shape[0], count):
            yield (slice(first, first + count),)

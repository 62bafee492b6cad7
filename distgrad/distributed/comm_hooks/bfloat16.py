"""Gradients that travel as bfloat16: half the bytes, 8 significant bits, the range of float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .exchange import sum_as_words
from .report import Report, all_reduce_bytes, communicator_of, sum_error

if TYPE_CHECKING:
    from ..bucket import GradBucket
    from ..communicator import Array

_UNIT = 2.0**-8  # of rounding to bfloat16


def bf16_compress_hook(state: Any, bucket: GradBucket) -> Report:
    """Sums the bucket over all ranks in float32; the gradients and the sums travel as bfloat16.

    The upper half of a float32 number, rounded to the nearest, ties to even. It has the range of float32, so nothing is
    scaled; a float64 number beyond that range becomes infinite.

    With ``u = 2^-8`` each element of the result is within ``error_bound * sum_r |g_r|`` of the exact sum:
    ``error_bound = (2 u + u^2) + gamma(N - 1) (1 + u)^2``, for two roundings to bfloat16 and the sum in float32 between
    them, and within ``N + 1`` times 2^-134 more where numbers are subnormal. From float64 there is one more rounding to
    float32 a rank, which adds ``2^-24 (1 + u)^2``. (Higham 2002, "Accuracy and Stability of Numerical Algorithms", 2.2
    and 4.2.) What is not finite on a rank stays so, and only in its element.

    One rank alone sends nothing, and rounds nothing.

    Args:
        state: a communicator, or something with an attribute ``communicator``.
        bucket: float32 or float64 gradients of this rank, already weighted; holds the sum afterwards.
    """
    communicator = communicator_of(state)
    buffer, size = bucket.buffer(), communicator.world_size
    if size == 1:
        return Report(0, 0.0)
    sum_as_words(communicator, buffer, np.dtype(np.uint16), _encode, _decode)
    once = sum_error(size, np.float32) + (2.0**-24 if buffer.dtype == np.float64 else 0.0)
    bound = 2 * _UNIT + _UNIT**2 + once * (1 + _UNIT) ** 2
    return Report(all_reduce_bytes(buffer.size, 2, size), bound)


def _encode(numbers: Array, words: Array) -> None:
    """``(n,)`` numbers to ``(n,)`` words, round to nearest, ties to even; every NaN stays one."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    rounded = (bits >> np.uint32(16)) & np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    words[...] = rounded >> np.uint32(16)
    if not np.isfinite(np.add.reduce(numbers)):  # a NaN may have been carried over to zero
        np.copyto(words, np.uint16(0x7FC0), where=np.isnan(numbers))


def _decode(words: Array, numbers: Array) -> None:
    """``(n,)`` words to ``(n,)`` numbers, exactly."""
    bits = words.astype(np.uint32)
    bits <<= np.uint32(16)
    numbers[...] = bits.view(np.float32)

"""Gradients that travel as IEEE half precision: half the bytes, 11 significant bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .exchange import sum_as_words
from .report import Report, all_reduce_bytes, communicator_of, sum_error

if TYPE_CHECKING:
    from ..bucket import GradBucket
    from ..communicator import Array

_UNIT = 2.0**-11  # of rounding to half precision


def fp16_compress_hook(state: Any, bucket: GradBucket) -> Report:
    """Sums the bucket over all ranks in float32; the gradients and the sums travel in half precision.

    Half precision ends at 65504, and below 6e-5 it has fewer bits. So all numbers are multiplied by one power of two
    that brings the largest magnitude on any rank, times their number, just below that end, and divided by it
    afterwards, both of which is exact. PyTorch's hook of this name has no such factor: gradients beyond 65504 become
    infinite there, and small ones zero.

    With ``u = 2^-11`` and ``S = sum_r max|g_r|`` each element of the result is within ``error_bound * S`` of the exact
    sum: ``error_bound = (2 u + u^2) + gamma(N - 1) (1 + u)^2 + N (N + 1) 2^-38``, for two roundings to half precision,
    the sum in float32 between them, and numbers that are subnormal in half precision. Element by element, where none
    is subnormal, the first two terms hold relative to ``sum_r |g_r|``. (Higham 2002, "Accuracy and Stability of
    Numerical Algorithms", 2.2 and 4.2.) What is not finite on a rank stays so, and only in its element.

    One rank alone sends nothing, and rounds nothing.

    Args:
        state: a communicator, or something with an attribute ``communicator``.
        bucket: float32 or float64 gradients of this rank, already weighted; holds the sum afterwards.
    """
    communicator = communicator_of(state)
    buffer, size = bucket.buffer(), communicator.world_size
    if size == 1:
        return Report(0, 0.0)
    largest = np.array([_largest(buffer)])
    communicator.all_reduce(largest, "max")
    exponent = _exponent(float(largest[0]), size, buffer.dtype)
    sum_as_words(communicator, buffer, np.dtype(np.float16), _encode, _decode, exponent)
    bound = 2 * _UNIT + _UNIT**2 + sum_error(size, np.float32) * (1 + _UNIT) ** 2 + size * (size + 1) * 2.0**-38
    scale_bytes = all_reduce_bytes(1, largest.itemsize, size)
    return Report(scale_bytes + all_reduce_bytes(buffer.size, 2, size), bound)


def _largest(numbers: Array) -> float:
    """The largest magnitude among those that are finite; 0 where there is none."""
    if numbers.size == 0:
        return 0.0
    largest = max(float(numbers.max()), -float(numbers.min()))
    if not math.isfinite(largest):
        finite = numbers[np.isfinite(numbers)]
        largest = float(np.abs(finite).max()) if finite.size else 0.0
    return largest


def _exponent(largest: float, ranks: int, dtype: np.dtype[Any]) -> int:
    """The power of two that brings ``ranks * largest`` below 2^15, within the normal range of ``dtype``."""
    if largest == 0.0:
        return 0
    wanted = 15 - math.frexp(largest)[1] - (ranks - 1).bit_length()
    limit = -int(np.finfo(dtype).minexp)  # 2^-limit and 2^limit are both normal
    return max(-limit, min(limit, wanted))


def _encode(numbers: Array, words: Array) -> None:
    np.copyto(words, numbers, casting="same_kind")


def _decode(words: Array, numbers: Array) -> None:
    np.copyto(numbers, words)

"""The naive hook: one all-reduce a bucket. All others are held against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .report import Report, all_reduce_bytes, communicator_of, sum_error

if TYPE_CHECKING:
    from ..bucket import GradBucket


def allreduce_hook(state: Any, bucket: GradBucket) -> Report:
    """Sums the bucket over all ranks by the communicator's own ``all_reduce``; nothing is compressed.

    The error bound, element by element and relative to ``sum_r |g_r|``, is that of a sum in any order:
    ``gamma(N - 1)`` (see :func:`~distgrad.distributed.comm_hooks.report.sum_error`).

    Args:
        state: a communicator, or something with an attribute ``communicator``.
        bucket: this rank's gradients, already weighted; holds the sum over all ranks afterwards.
    """
    communicator = communicator_of(state)
    buffer = bucket.buffer()
    communicator.all_reduce(buffer)
    size = communicator.world_size
    return Report(all_reduce_bytes(buffer.size, buffer.itemsize, size), sum_error(size, buffer.dtype))

"""Which gradients travel together: a bucket is one flat array, and one all-reduce.

Few large messages cost less than many small ones. The rule is that of PyTorch's ``DistributedDataParallel``: parameters
in reverse order of registration, which is about the order in which their gradients become final; a small first bucket,
so that communication can begin early; one dtype a bucket.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..autograd import Tensor
from .communicator import Array

FIRST_BUCKET_BYTES = 1 << 20
MEGABYTE = 1 << 20


class Bucket:
    """Some parameters and a flat array with room for all their gradients.

    Attributes:
        parameters: what it holds, in the order of its memory.
        indices: their positions in the reducer's list of parameters.
        flat: ``(total number of elements,)``, of their dtype.
        views: for each parameter its part of ``flat``, in the parameter's shape.
    """

    def __init__(self, parameters: Sequence[Tensor], indices: Sequence[int]) -> None:
        self.parameters = tuple(parameters)
        self.indices = tuple(indices)
        self.flat: Array = np.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
        ends = np.cumsum([p.numel() for p in parameters]).tolist()
        self.views: tuple[Array, ...] = tuple(
            self.flat[end - p.numel() : end].reshape(p.shape) for p, end in zip(parameters, ends, strict=True)
        )


def assign_buckets(sizes: Sequence[tuple[int, str]], cap_bytes: int) -> list[list[int]]:
    """Distributes parameters over buckets.

    A bucket is closed by the parameter that fills it, so that it may be larger than the cap, as in PyTorch's
    ``_compute_bucket_assignment_by_size``. Parameters of another dtype go to buckets of their own meanwhile.

    Args:
        sizes: bytes and dtype of each parameter, in order of registration.
        cap_bytes: close a bucket at this size; the first one of each dtype at 1 MB if that is less.

    Returns:
        Lists of positions in ``sizes``: every position once, the bucket that is complete first comes first.
    """
    buckets: list[list[int]] = []
    filling: dict[str, list[int]] = {}
    filled: dict[str, int] = {}
    limit: dict[str, int] = {}
    for position in range(len(sizes) - 1, -1, -1):
        size, dtype = sizes[position]
        filling.setdefault(dtype, []).append(position)
        filled[dtype] = filled.get(dtype, 0) + size
        if filled[dtype] >= limit.get(dtype, min(FIRST_BUCKET_BYTES, cap_bytes)):
            buckets.append(filling.pop(dtype))
            filled[dtype] = 0
            limit[dtype] = cap_bytes
    buckets.extend(filling.values())
    return sorted(buckets, key=min, reverse=True)


def make_buckets(parameters: Sequence[Tensor], cap_mb: float) -> list[Bucket]:
    """The buckets of ``parameters``, which are in order of registration and all require a gradient."""
    sizes = [(p.numel() * p.element_size(), str(p.dtype)) for p in parameters]
    assignment = assign_buckets(sizes, int(cap_mb * MEGABYTE))
    return [Bucket([parameters[i] for i in indices], indices) for indices in assignment]

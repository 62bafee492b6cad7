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


class GradBucket:
    """Some parameters and a flat array that their gradients lie in, with the methods of PyTorch's ``GradBucket``.

    A communication hook gets one. Its ``buffer`` then holds this rank's gradients, each already multiplied by this
    rank's share of the samples, so that what has to be made of them is the sum over all ranks.

    Args:
        parameters: what it holds, in the order of its memory; all of one dtype.
        positions: where they are in the reducer's list of parameters.
        names: what they are called in the model.
        index: which bucket it is: they travel in this order.
        last: whether it is the last one.

    Attributes:
        positions: as given.
        names: as given.
        label: what it is called in logs: "bucket 2, layer3.0.conv1.weight ... layer2.0.bn1.bias".
        flat: ``(number of elements,)``, of the parameters' dtype.
        views: for each parameter its part of ``flat``, in the parameter's shape.
    """

    def __init__(
        self, parameters: Sequence[Tensor], positions: Sequence[int], names: Sequence[str], index: int, last: bool
    ) -> None:
        self._parameters = tuple(parameters)
        self._index = index
        self._last = last
        self.positions = tuple(positions)
        self.names = tuple(names)
        through = f" ... {names[-1]}" if len(names) > 1 else ""
        self.label = f"bucket {index}, {names[0]}{through}"
        self.flat: Array = np.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
        ends = np.cumsum([p.numel() for p in parameters]).tolist()
        self.views: tuple[Array, ...] = tuple(
            self.flat[end - p.numel() : end].reshape(p.shape) for p, end in zip(parameters, ends, strict=True)
        )

    def another(self) -> GradBucket:
        """One of the same parameters with memory of its own."""
        return GradBucket(self._parameters, self.positions, self.names, self._index, self._last)

    def index(self) -> int:
        """Which bucket it is; 0 is the first to travel."""
        return self._index

    def is_last(self) -> bool:
        """Whether no other follows in this backward pass."""
        return self._last

    def buffer(self) -> Array:
        """All gradients as one array ``(number of elements,)``, to be overwritten in place."""
        return self.flat

    def gradients(self) -> list[Array]:
        """Each parameter's part of ``buffer``, in its shape."""
        return list(self.views)

    def parameters(self) -> list[Tensor]:
        """The parameters, in the order of the memory."""
        return list(self._parameters)


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


def make_buckets(
    parameters: Sequence[Tensor], names: Sequence[str], cap_mb: float, order: Sequence[int] | None = None
) -> list[GradBucket]:
    """The buckets of ``parameters``, which all require a gradient.

    Args:
        parameters: in order of registration.
        names: what they are called.
        cap_mb: size of a bucket in MiB.
        order: positions in the order in which gradients become final, where that is known; else the reverse of the
            order of registration.
    """
    order = range(len(parameters) - 1, -1, -1) if order is None else order
    late_first = list(order)[::-1]  # as assign_buckets expects it
    sizes = [(parameters[i].numel() * parameters[i].element_size(), str(parameters[i].dtype)) for i in late_first]
    assignment = [[late_first[i] for i in places] for places in assign_buckets(sizes, int(cap_mb * MEGABYTE))]
    last = len(assignment) - 1
    return [
        GradBucket([parameters[i] for i in positions], positions, [names[i] for i in positions], index, index == last)
        for index, positions in enumerate(assignment)
    ]

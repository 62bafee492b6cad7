"""The table of rules, and what they have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import ops
from ...autograd import Tensor
from ...autograd.primitive import Primitive

Values = tuple[Any, ...]
Flags = tuple[bool, ...]
Keywords = dict[str, Any]
Rule = Callable[[Primitive, int, Values, Flags, Keywords], Any]

RULES: dict[str, Rule] = {}  # by the primitive's name

# Primitives that are computed sample by sample, and why.
ONE_BY_ONE: dict[str, str] = {
    "CopySlices": "only makes history for memory that has been written, which is done on all samples as one tensor",
    "IndexPut_": "as CopySlices",
    "MaskedScatter": "how many elements a sample takes depends on its mask",
    "MedianOfAll": "its gradient is shared by all elements equal to the median",
    "NanmedianOfAll": "as MedianOfAll",
    "Unique": "how many different values there are depends on them; refused before it is reached",
    "ZeroSlices": "belongs to CopySlices",
}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enters a rule for the primitives of these names, which may be written in one string."""

    def enter(function: Rule) -> Rule:
        for name in " ".join(names).split():
            RULES[name] = function
        return function

    return enter


def looped(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """One sample after the other: right for every primitive, and the slow way."""
    if size == 0:
        raise RuntimeError(f"vmap over no samples: {primitive.name} has no batching rule that could tell the shape")
    results = [
        primitive(*(x[k] if flag else x for x, flag in zip(values, flags, strict=True)), **keywords)
        for k in range(size)
    ]
    if isinstance(results[0], tuple):
        return tuple(ops.stack(parts) for parts in zip(*results, strict=True))
    return ops.stack(results)


def sample_shape(x: Any, flag: bool) -> tuple[int, ...]:
    """The shape of one sample of ``x``."""
    return tuple(np.shape(x))[flag:]


def aligned(values: Values, flags: Flags, least: int = 0) -> list[Any]:
    """Operands that broadcast against each other: behind the batch, dimensions of length 1 where others have more.

    ``least`` is how many dimensions a sample has at the least.
    """
    most = max(least, *(len(sample_shape(x, flag)) for x, flag in zip(values, flags, strict=True)))
    out = []
    for x, flag in zip(values, flags, strict=True):
        missing = most - len(sample_shape(x, flag))
        if flag and missing:
            x = ops.reshape(x, (x.shape[0], *(1,) * missing, *x.shape[1:]))
        out.append(x)
    return out


def with_batch(x: Any, flag: bool, size: int) -> Any:
    """``x`` with the batch in front; None stays None."""
    if flag or x is None:
        return x
    tensor = x if isinstance(x, Tensor) else Tensor(np.asarray(x))
    return ops.unsqueeze(tensor, 0).expand(size, *tensor.shape)


def everywhere(values: Values, flags: Flags, size: int) -> list[Any]:
    """All operands with the batch in front."""
    return [with_batch(x, flag, size) for x, flag in zip(values, flags, strict=True)]


def merged(x: Any) -> Any:
    """(B, N, ...) as (B * N, ...)."""
    return ops.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))


def apart(x: Any, size: int) -> Any:
    """(B * N, ...) as (B, N, ...)."""
    return ops.reshape(x, (size, x.shape[0] // size if size else 0, *x.shape[1:]))


def repeated(array: Any, size: int) -> Any:
    """An array (N, ...) that belongs to each sample as one for all of them merged: (B * N, ...)."""
    wide = np.broadcast_to(array, (size, *array.shape))
    return wide.reshape((size * array.shape[0], *array.shape[1:]))


def count(shape: tuple[int, ...]) -> int:
    """How many elements there are."""
    return math.prod(shape)

"""Primitives that are told the shape of their result."""

from __future__ import annotations

from typing import Any

from ... import ops
from ...autograd.primitive import Primitive
from .common import Flags, Keywords, Values, rule, sample_shape


@rule("View SumToSize")
def with_a_shape(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The batch is in front of the shape."""
    x, shape = values[0], tuple(keywords["shape"])
    if primitive.name == "SumToSize":
        shape = (1,) * (len(sample_shape(x, True)) - len(shape)) + shape
        return ops.reshape(primitive(x, shape=(size, *shape)), (size, *keywords["shape"]))
    return primitive(x, shape=(size, *shape))


@rule("Expand")
def expanded(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """New dimensions come between the batch and the sample's own."""
    x, shape = values[0], tuple(keywords["shape"])
    own = sample_shape(x, True)
    lead = (1,) * (len(shape) - len(own))
    return primitive(ops.reshape(x, (size, *lead, *own)) if lead else x, shape=(size, *shape))


@rule("Slice SliceAdjoint")
def sliced(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Slices and integers are the same for all samples; the batch is taken whole."""
    moved = keywords | {"index": (slice(None), *keywords["index"])}
    if "shape" in keywords:
        moved["shape"] = (size, *keywords["shape"])
    return primitive(values[0], **moved)


@rule("AsStrided")
def strided(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The same pattern from each sample's own beginning on; ``offset`` is where that of the first is, or None."""
    x = values[0]
    if x.stride(0) == 0 and size > 1:  # samples in the same memory would share their gradients
        shape = tuple(x.shape)
        if not x[0].is_contiguous():
            raise RuntimeError("vmap: as_strided of a tensor that all samples share needs it to be contiguous")
        x = ops.reshape(ops.reshape(x, -1), shape)
    lengths, steps = (size, *keywords["size"]), (x.stride(0), *keywords["stride"])
    return ops.as_strided(x, lengths, steps, keywords["offset"])

"""Primitives of layers on (N, C, ...): batches of batches are one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...autograd.primitive import Primitive
from ...ops.promotion import cast
from .common import Flags, Keywords, Values, apart, looped, merged, repeated, rule, with_batch

# Pooling --------------------------------------------------------------------------------------------------------------


@rule(
    "MaxPool2D MaxPool2DIndices MaxPool2DScatter MaxPool2DGather MaxUnpool2D AdaptiveMaxPool2DIndices",
    "MaxPool2DAdjoint MaxPool2DAt AvgPool2D AvgPool2DAdjoint AdaptiveAvgPool2D AdaptiveAvgPool2DAdjoint Im2Col Col2Im",
)
def windows(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Windows of single planes; ``shape``, ``indices`` and ``places`` are those of one sample."""
    moved = dict(keywords)
    if "shape" in moved:
        n, *rest = moved["shape"]
        moved["shape"] = (n * size, *rest)
    for name in ("indices", "places"):
        if name in moved:
            moved[name] = repeated(moved[name], size)
    return apart(primitive(merged(values[0]), **moved), size)


# Losses of classes ----------------------------------------------------------------------------------------------------


@rule("NllLoss NllLossAdjoint")
def picked_classes(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """(N, C, places) and the classes that all samples share."""
    moved = keywords | {name: repeated(keywords[name], size) for name in ("labels", "factors")}
    return apart(primitive(merged(values[0]), **moved), size)


# Look-ups -------------------------------------------------------------------------------------------------------------


@rule("Embedding")
def looked_up(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """One table for all samples, or a table of each sample's own."""
    weight, indices = values
    if not flags[0]:
        return primitive(weight, indices, **keywords)
    if keywords["by_frequency"]:
        return looped(primitive, size, values, flags, keywords)
    rows, width = weight.shape[1:]
    shape = tuple(indices.shape[flags[1] :])
    first = np.arange(size).reshape((size,) + (1,) * len(shape)) * rows
    out = primitive(
        ops.reshape(weight, (size * rows, width)), indices + ops.tensor(first), padding_idx=-1, by_frequency=False
    )
    padding = ops.unsqueeze(ops.eq(indices, keywords["padding_idx"]), -1)
    return ops.where(padding, out.detach(), out) if keywords["padding_idx"] >= 0 else out


@rule("EmbeddingDenseBackward EmbeddingDenseDoubleBackward")
def table_gradients(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Gradients of one look-up: samples beside each other are wider rows."""
    g, indices = values
    if flags[1]:
        return looped(primitive, size, values, flags, keywords)
    moved = ops.movedim(g, 0, -2)
    out = primitive(ops.reshape(moved, (*moved.shape[:-2], -1)), indices, **keywords)
    return ops.movedim(ops.reshape(out, (*out.shape[:-1], size, g.shape[-1])), -2, 0)


# Normalization --------------------------------------------------------------------------------------------------------


def _by_channel(x: Any, flag: bool, ndim: int) -> Any:
    """Parameters (C,) in a shape that broadcasts to (B, N, C, ...), of ``ndim`` dimensions without the batch."""
    lead = (x.shape[0],) if flag else ()
    return ops.reshape(x, (*lead, 1, x.shape[-1], *(1,) * (ndim - 2)))


def _affine(out: Any, parameters: Values, shaped: Any, flags: Flags) -> Any:
    """``out`` scaled and shifted, in its own dtype."""
    weight, bias = (p if p is None else shaped(p, flag) for p, flag in zip(parameters, flags, strict=True))
    scaled = out if weight is None else out * weight
    return cast(scaled if bias is None else scaled + bias, out.dtype)


@rule("NativeBatchNorm BatchNormEval")
def normalized_channels(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """In training samples beside each other are channels of their own; in evaluation they are one batch."""
    input, *parameters = values
    own = flags[1:]
    if not flags[0]:
        out, ndim = primitive(input, None, None, **keywords), input.ndim
    elif primitive.name == "BatchNormEval":
        if not any(own):
            return apart(primitive(merged(input), *parameters, **keywords), size)
        out, ndim = apart(primitive(merged(input), None, None, **keywords), size), input.ndim - 1
    else:
        if keywords["running_mean"] is not None or keywords["running_var"] is not None:
            raise RuntimeError(
                "batch_norm inside vmap: the input differs from sample to sample, and the running statistics, which "
                "would be changed in place, are shared by all. Use track_running_stats=False or evaluation mode, or "
                "map over the statistics too."
            )
        wide = ops.movedim(input, 0, 1)
        flat = ops.reshape(wide, (wide.shape[0], wide.shape[1] * wide.shape[2], *wide.shape[3:]))
        out = ops.movedim(ops.reshape(primitive(flat, None, None, **keywords), tuple(wide.shape)), 1, 0)
        ndim = input.ndim - 1
    return _affine(out, tuple(parameters), lambda p, flag: _by_channel(p, flag, ndim), own)


@rule("NativeLayerNorm NativeGroupNorm FusedRmsNorm")
def normalized_groups(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """``layout`` begins with the rows, of which there are more; parameters of each sample's own come afterwards."""
    input, *parameters = values
    rows, *rest = keywords["layout"]
    if not flags[0]:
        input = with_batch(input, False, size)
    whole = keywords | {"layout": (rows * size, *rest)}
    if not any(flags[1:]):
        return primitive(input, *parameters, **whole)
    groups, channels, pixels = rest
    out = primitive(input, None, None, **whole)
    shaped = ops.reshape(out, (size, rows, groups, channels, pixels))

    def spread(p: Any, flag: bool) -> Any:
        return ops.reshape(p, (size if flag else 1, 1, groups, channels, 1))

    return ops.reshape(_affine(shaped, tuple(parameters), spread, flags[1:]), tuple(out.shape))

"""Batching rules: how a primitive computes all samples of a vmap at once.

A rule gets the operands, with the batch in front where their flag is set, and the keywords for one sample; it calls the
primitive, or others, so that the batch comes out in front. What has no rule here is computed sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..autograd.primitive import Primitive
from .batched import RULES, Rule, looped

Values = tuple[Any, ...]
Flags = tuple[bool, ...]
Keywords = dict[str, Any]


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enters a rule for the primitives of these names."""

    def enter(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return enter


def _ndim(x: Any, flag: bool) -> int:
    """Of one sample."""
    return getattr(x, "ndim", 0) - flag


def aligned(values: Values, flags: Flags) -> list[Any]:
    """Operands that broadcast against each other: behind the batch, dimensions of length 1 where others have more."""
    most = max(_ndim(x, flag) for x, flag in zip(values, flags, strict=True))
    out = []
    for x, flag in zip(values, flags, strict=True):
        missing = most - _ndim(x, flag)
        if flag and missing:
            x = ops.reshape(x, (x.shape[0], *(1,) * missing, *x.shape[1:]))
        out.append(x)
    return out


def everywhere(values: Values, flags: Flags, size: int) -> list[Any]:
    """All operands with the batch in front."""
    return [x if flag else ops.unsqueeze(x, 0).expand(size, *x.shape) for x, flag in zip(values, flags, strict=True)]


@rule(
    *"Add Sub Mul Div Pow Maximum Minimum Where Eq Ne Lt Le Gt Ge BitwiseAnd BitwiseOr BitwiseXor Logaddexp Hypot "
    "Atan2 ToCopy ToIntegral Neg Abs Sign Exp Log Sqrt Sin Cos Tanh Relu Clone Clamp Sigmoid BitwiseNot Isnan Isinf "
    "Isfinite Alias Exp2 Expm1 Log1p Log2 Log10 Rsqrt Reciprocal Tan Asin Acos Atan Sinh Cosh Erf Erfc LogSigmoid "
    "Softplus Silu Mish Gelu LeakyRelu Elu Hardtanh Hardsigmoid Hardswish Fill Tril Triu".split()
)
def pointwise(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Elementwise operations, and those on the last dimensions alone."""
    return primitive(*aligned(values, flags), **keywords)


@rule(*"Sum Mean Amax Amin Softmax LogSoftmax Permute Flip Unbind Narrow Select Diagonal".split())
def along_dimensions(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Operations that name dimensions, counted from the front: each is one further back now."""
    (x,) = values
    moved = dict(keywords)
    for name in ("dim", "dims", "dim1", "dim2"):
        if name in moved:
            at = moved[name]
            moved[name] = at + 1 if isinstance(at, int) else tuple(d + 1 for d in at)
    if primitive.name == "Permute":
        moved["dims"] = (0, *moved["dims"])
    return primitive(x, **moved)


@rule(*"Expand View Reshape SumToSize NarrowAdjoint DiagonalAdjoint IndexSelectAdjoint".split())
def with_a_shape(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Operations that are told a shape, which has the batch in front now, and perhaps a dimension."""
    moved = dict(keywords)
    moved["shape"] = (size, *keywords["shape"])
    x = values[0]
    if primitive.name == "Expand":
        x = aligned((x, np.empty(keywords["shape"])), (True, False))[0]
    if primitive.name in ("Expand", "View", "Reshape", "SumToSize") or flags == (True,):
        for name in ("dim", "dim1", "dim2"):
            if name in moved:
                moved[name] += 1
        return primitive(x, *values[1:], **moved)
    if flags[0] and not any(flags[1:]):
        moved["dim"] += 1
        return primitive(x, *values[1:], **moved)
    return looped(primitive, size, values, flags, keywords)


@rule("Cat")
def concatenated(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Pieces one behind the other."""
    return primitive(*everywhere(values, flags, size), dim=keywords["dim"] + 1)


@rule("Index", "IndexPut")
def indexed(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Slices and integers are the same for all samples; the batch is taken whole."""
    index = keywords["index"]
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, (np.ndarray, list, bool, np.bool_)) for part in parts):
        return looped(primitive, size, values, flags, keywords)
    moved = keywords | {"index": (slice(None), *parts)}
    if "shape" in keywords:
        moved["shape"] = (size, *keywords["shape"])
    return primitive(values[0], **moved)


@rule("Gather", "ScatterAdd", "Scatter")
def along_index(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Each sample picks along its own row."""
    return primitive(*everywhere(values, flags, size), dim=keywords["dim"] + 1)


@rule("IndexSelect")
def slices_picked(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The same slices of all samples; other slices of each are a loop."""
    if flags[1]:
        return looped(primitive, size, values, flags, keywords)
    return primitive(*values, dim=keywords["dim"] + 1)


@rule("Matmul")
def products(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """(B, ..., n, p) @ (B, ..., p, m): NumPy's matmul broadcasts over all but the last two dimensions."""
    left, right = aligned(values, flags)
    return primitive(left, right, **keywords)


@rule("Convolution")
def convolutions(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Batches of batches are one batch; kernels of their own for each sample are groups."""
    input, weight = values
    if flags[1]:
        images, kernels = everywhere(values, flags, size)  # (B, N, C, ...), (B, K, C / groups, ...)
        lead, channels = images.shape[1], images.shape[2]
        merged = ops.reshape(ops.movedim(images, 0, 1), (lead, size * channels, *images.shape[3:]))
        stacked = ops.reshape(kernels, (-1, *kernels.shape[2:]))
        out = primitive(merged, stacked, **(keywords | {"groups": keywords["groups"] * size}))
        out = ops.reshape(out, (lead, size, -1, *out.shape[2:]))
        return ops.movedim(out, 1, 0)
    merged = ops.reshape(input, (-1, *input.shape[2:]))
    out = primitive(merged, weight, **keywords)
    return ops.reshape(out, (size, -1, *out.shape[1:]))

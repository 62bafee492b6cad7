"""Products of matrices and tensors, and convolutions."""

from __future__ import annotations

from typing import Any

from ... import ops
from ...autograd.primitive import PRIMITIVES, Primitive
from .common import Flags, Keywords, Values, aligned, apart, count, everywhere, merged, rule, sample_shape


def _product(values: Values, flags: Flags) -> Any:
    (left, right), primitive = values, PRIMITIVES["Matmul"]
    ndims = [len(sample_shape(x, flag)) for x, flag in zip(values, flags, strict=True)]
    # a factor that is shared takes the batch of the other as more rows
    if not flags[1] and ndims[1] == 2:
        return primitive(left, right)
    if not flags[1] and ndims[1] == 1:
        return PRIMITIVES["Mv"](left, right)
    if ndims == [1, 1] and not flags[0]:
        return PRIMITIVES["Mv"](right, left)
    # vectors as matrices of one row or one column, which goes away again
    if ndims[0] == 1:
        left = ops.unsqueeze(left, -2)
    if ndims[1] == 1:
        right = ops.unsqueeze(right, -1)
    out = primitive(*aligned((left, right), flags))
    if ndims[1] == 1:
        out = ops.squeeze(out, -1)
    return ops.squeeze(out, -1 if ndims[1] == 1 else -2) if ndims[0] == 1 else out


@rule("Matmul Mv Dot")
def matrices(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """(B, ..., n, p) @ (B, ..., p, m), where either may be shared, and vectors stand for a row or a column."""
    return _product(values, flags)


@rule("Linear")
def affine(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """One layer for all samples; with weights of each sample's own, a batch of products."""
    input, weight, bias = values
    if not flags[1] and not flags[2]:
        return primitive(input, weight, bias)
    if flags[1]:
        # (B, ..., in) as (B, rows, in): each sample has one matrix
        shape = sample_shape(input, flags[0])
        lead, whole = shape[:-1], everywhere((input,), flags[:1], size)[0]
        turned = ops.transpose(weight, -1, -2) if weight.ndim == 3 else weight
        out = _product((ops.reshape(whole, (size, count(lead), shape[-1])), turned), (True, True))
        out = ops.reshape(out, (size, *lead, *out.shape[2:]))
    else:
        out = primitive(input, weight, None)
    if bias is None:
        return out
    product, shift = aligned((out, bias), (flags[0] or flags[1], flags[2]))
    return product + shift


@rule("Addmm")
def added(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """``beta * input + alpha * (mat1 @ mat2)`` in its parts."""
    input, left, right = values
    beta, alpha = keywords["beta"], keywords["alpha"]
    batched = flags[1] or flags[2]
    out = _product((left, right), flags[1:]) if batched else ops.matmul(left, right)
    out = out if alpha == 1 else out * alpha
    if beta == 0:
        return out if batched else everywhere((out,), (False,), size)[0]
    scaled, product = aligned((input if beta == 1 else input * beta, out), (flags[0], batched))
    return scaled + product


@rule("Contract")
def contracted(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The batch is one more label, of both or of one."""
    left, right, out = (tuple(keywords[name]) for name in ("left", "right", "out"))
    label = max((*left, *right, 0)) + 1
    return primitive(
        *values,
        left=(label, *left) if flags[0] else left,
        right=(label, *right) if flags[1] else right,
        out=(label, *out),
    )


# Convolutions: (N, C, ...) with kernels (K, C / groups, ...) ----------------------------------------------------------


def _beside(x: Any) -> Any:
    """(B, N, C, ...) as (N, B * C, ...)."""
    moved = ops.movedim(x, 0, 1)
    return ops.reshape(moved, (moved.shape[0], moved.shape[1] * moved.shape[2], *moved.shape[3:]))


def _from_beside(x: Any, size: int) -> Any:
    """(N, B * C, ...) as (B, N, C, ...)."""
    return ops.movedim(ops.reshape(x, (x.shape[0], size, x.shape[1] // size, *x.shape[2:])), 1, 0)


@rule("Convolution ConvolutionInput")
def convolutions(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Batches of batches are one batch; kernels of each sample's own are groups."""
    images, kernels, bias = values
    moved = dict(keywords)
    if flags[2]:
        own_bias, bias = bias, None
    else:
        own_bias = None
    batched = True
    if flags[1]:
        wide = _beside(everywhere((images,), flags[:1], size)[0])
        moved["groups"] = keywords["groups"] * size
        if "input_shape" in moved:
            n, channels, *rest = keywords["input_shape"]
            moved["input_shape"] = (n, channels * size, *rest)
        out = _from_beside(primitive(wide, merged(kernels), None, **moved), size)
        if bias is not None:
            out = out + ops.reshape(bias, (-1,) + (1,) * (out.ndim - 3))
    elif flags[0]:
        if "input_shape" in moved:
            n, *rest = keywords["input_shape"]
            moved["input_shape"] = (n * size, *rest)
        out = apart(primitive(merged(images), kernels, bias, **moved), size)
    else:
        out, batched = primitive(images, kernels, None, **moved), False
    if own_bias is not None:
        spread = ops.reshape(own_bias, (size, 1, -1) + (1,) * (out.ndim - batched - 2))
        out = out + spread
    return out


@rule("ConvolutionWeight")
def kernels_of_each(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The gradient of the kernels for each sample: samples are groups."""
    images, g = (_beside(x) for x in everywhere(values, flags, size))
    k, *rest = keywords["weight_shape"]
    moved = keywords | {"groups": keywords["groups"] * size, "weight_shape": (k * size, *rest)}
    return apart(primitive(images, g, **moved), size)

"""Norms of vectors, distances and angles between them, and the losses that compare these."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from .dims import dims_argument
from .elementwise import _abs, _expand_primitive, _sign, _where, broadcast_to, mul, sqrt, sub, where
from .extremum import clamp, minimum
from .loss import _check_reduction, _reduced, _refuse_legacy
from .promotion import promoted
from .reduction import sum
from .shape import _common_shape, squeeze

# Norms --------------------------------------------------------------------------------------------------------------


def _norm_forward(input: Array, p: float, dims: tuple[int, ...]) -> Array:
    """The p-norm over ``dims``, which are kept with length 1. float16 is computed in float32, or squares overflow."""
    x = input.astype(np.float32) if input.dtype == np.float16 else input
    if p == 2:
        norm = np.sqrt(np.square(x).sum(axis=dims, keepdims=True))
    elif p == 0:
        norm = (x != 0).sum(axis=dims, keepdims=True)
    elif p == math.inf:
        norm = np.abs(x).max(axis=dims, keepdims=True, initial=0)
    elif p == -math.inf:
        norm = np.abs(x).min(axis=dims, keepdims=True, initial=math.inf)
    else:
        magnitudes = np.abs(x)
        norm = (magnitudes if p == 1 else magnitudes**p).sum(axis=dims, keepdims=True)
        norm = norm if p == 1 else norm ** (1.0 / p)
    return np.asarray(norm, input.dtype)


def _norm_vjp(g: Any, input: Any, output: Any, p: float, dims: tuple[int, ...]) -> Any:
    """At 0, where a norm has no derivative, the gradient is 0, as in PyTorch; equal extremes share it evenly."""
    if p == 0:
        return _expand_primitive(g * 0.0, shape=tuple(input.shape))
    if p == 1:
        return g * _sign(input)
    nothing = output == 0
    length = _where(nothing, 1.0, output)
    if p == 2:
        return input * _where(nothing, 0.0, g / length)
    magnitudes = _abs(input)
    if math.isinf(p):
        extreme = magnitudes == output
        mask = extreme._data if isinstance(extreme, Tensor) else extreme
        number = mask.sum(axis=dims, keepdims=True).astype(g.dtype)
        return _where(extreme, _sign(input) * (g / number), 0.0)
    flat = nothing | (input == 0)
    return _where(flat, 0.0, _sign(input) * (_where(flat, 1.0, magnitudes) / length) ** (p - 1.0) * g)


_norm: Primitive = define("PNorm", _norm_forward, ("input",), input=_norm_vjp)


def _norm_along(input: Tensor, p: float, dim: int | Sequence[int], keepdim: bool) -> Tensor:
    dims = dims_argument(dim, input.ndim)
    out: Tensor = _norm(input, p=float(p), dims=dims)
    return out if keepdim else squeeze(out, dims)


def normalize(
    input: Tensor, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """``input / max(norm, eps)`` with the ``p``-norm over ``dim``, as ``torch.nn.functional.normalize``.

    Args:
        input: floating point.
        p: any number, also ``math.inf``.
        dim: one dimension or several.
        eps: the smallest divisor.
        out: where to write the result.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: integers.
    """
    if not input.is_floating_point():
        raise RuntimeError(f"normalize: expected a floating point tensor as input. Got {input.dtype}")
    result = input / clamp(_norm_along(input, p, dim, keepdim=True), min=eps)
    if out is None:
        return result
    written: Tensor = out.copy_(result)
    return written


# Distances ----------------------------------------------------------------------------------------------------------


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The ``p``-norm of ``x1 - x2 + eps`` over the last dimension, as ``torch.nn.functional.pairwise_distance``.

    Args:
        x1: (N, D) or (D,).
        x2: what broadcasts with it.
        p: any number, also ``math.inf``.
        eps: keeps the gradient defined where the two are equal.
        keepdim: keep the last dimension with length 1.

    Raises:
        RuntimeError: shapes that do not broadcast.
    """
    return _norm_along(sub(x1, x2) + float(eps), p, -1, keepdim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along ``dim``, as ``torch.nn.functional.cosine_similarity``.

    Args:
        x1: floating point.
        x2: what broadcasts with it.
        dim: the dimension of the vectors, once they are broadcast.
        eps: the smallest norm of a vector that is divided by.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: integers, or shapes that do not broadcast.
    """
    x1, x2 = promoted(x1, x2)
    if not x1.is_floating_point():
        raise RuntimeError(f"expected common dtype to be floating point, yet common dtype is {x1.dtype}")
    shape = _common_shape(x1.shape, x2.shape)
    x1, x2 = broadcast_to(x1, shape), broadcast_to(x2, shape)
    lengths = [clamp(_norm_along(x, 2.0, dim, keepdim=False), min=eps) for x in (x1, x2)]
    return sum(x1 * x2, dim) / (lengths[0] * lengths[1])


# Losses -------------------------------------------------------------------------------------------------------------


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """``1 - cos`` where ``target`` is 1, ``max(0, cos - margin)`` where it is -1.

    Args:
        input1: (N, D) or (D,).
        input2: likewise.
        target: (N,) of 1 and -1, or one of them without dimensions for (D,).
        margin: from -1 to 1, the largest cosine that is good enough where ``target`` is -1.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another reduction.
        RuntimeError: shapes that do not fit.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    if target.ndim > 1 or input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise RuntimeError(
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors (and has at most 1 dimension), but "
            f"found inputs with sizes {list(input1.shape)} and {list(input2.shape)}."
        )
    # PyTorch's own form of the cosine here: the squares are kept away from 0, not the lengths
    squares = [sum(x * x, -1) + 1e-12 for x in (input1, input2)]
    cosine = sum(input1 * input2, -1) / sqrt(squares[0] * squares[1])
    values = where(target == 1, 1.0 - cosine, 0.0) + where(target == -1, clamp(cosine - margin, min=0.0), 0.0)
    return _reduced(values, reduction)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """``input`` where ``target`` is 1, ``max(0, margin - input)`` where it is -1.

    Args:
        input: distances.
        target: 1 and -1, of the same shape or what broadcasts with it.
        margin: the distance that is far enough where ``target`` is -1.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another reduction.
        RuntimeError: shapes that do not broadcast.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    # a target that is neither 1 nor -1 counts for both, as in PyTorch
    values = where(target == -1, 0.0, input) + where(target == 1, 0.0, clamp(margin - input, min=0.0))
    return _reduced(values, reduction)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, margin - target * (input1 - input2))``: by how much the first is not the larger one (target 1).

    Args:
        input1: scores.
        input2: scores.
        target: 1 where the first, -1 where the second is to be larger.
        margin: by how much.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another reduction.
        RuntimeError: numbers of dimensions that differ, or shapes that do not broadcast.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
            f"{input1.shape}, input2: {input2.shape}, target: {target.shape}"
        )
    return _reduced(clamp(margin - mul(target, sub(input1, input2)), min=0.0), reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, margin + |anchor - positive| - |anchor - negative|)``, as ``torch.nn.functional.triplet_margin_loss``.

    Args:
        anchor: (N, D) or (D,).
        positive: what is to be near it.
        negative: what is to be further away.
        margin: by how much, above 0.
        p: of the norm.
        eps: added to each difference; see ``pairwise_distance``.
        swap: measure the negative from the positive where that is nearer (Balntas et al., 2016).
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: a margin that is not positive, or another reduction.
        RuntimeError: numbers of dimensions that differ, or shapes that do not broadcast.
    """
    _refuse_legacy(size_average, reduce)
    return _triplet(anchor, positive, negative, lambda a, b: pairwise_distance(a, b, p, eps), margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """``triplet_margin_loss`` with a distance of one's own, ``pairwise_distance`` without one."""
    return _triplet(anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction)


def _triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    _check_reduction(reduction)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D inputs"
        )
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return _reduced(clamp(margin + near - far, min=0.0), reduction)

"""Normalization of groups of neighbouring elements: layer norm, group norm, instance norm and RMS norm.

All of them see the input as ``(N, G, D, S)``: the ``D * S`` elements of each of ``N * G`` groups are normalized
together, and element ``d`` of group ``g`` has a scale and a shift of its own. Layer norm is one group without ``S``,
instance norm a group a channel, without ``D``; RMS norm leaves the mean where it is.

Half precision is computed in float32, and what is saved of it for the backward pass, mean and reciprocal deviation, is
float32 too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[Any]
Layout: TypeAlias = tuple[int, int, int, int]

# Each pass goes through several operations a block of groups at a time, so that all but the first find it in cache.
_BLOCK_BYTES = 1 << 20
# Elements that are added one after the other in the input's precision; sums of such pieces are added in float64.
_PIECE = 512


def group_norm(
    input: FloatArray,
    weight: FloatArray | None,
    bias: FloatArray | None,
    layout: Layout,
    eps: float,
    centred: bool = True,
) -> tuple[FloatArray, FloatArray | None, FloatArray]:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with the mean and the biased variance of each group.

    Args:
        input: any shape of ``N * G * D * S`` elements; float16, float32 or float64.
        weight: ``G * D`` elements, or None for ones.
        bias: ``G * D`` elements, or None for zeros.
        layout: ``(N, G, D, S)``.
        eps: added to the variance.
        centred: without it the mean stays, and the variance is the mean of the squares.

    Returns:
        The output, of the input's shape and dtype; the mean (None unless ``centred``) and the reciprocal deviation,
        ``(N, G)``, in the dtype of the computation.
    """
    x = input.reshape(layout)
    groups, size = layout[:2], max(1, layout[2] * layout[3])
    dtype = _precision(x.dtype)
    output = np.empty(layout, x.dtype)
    mean, rstd = np.empty(groups, dtype), np.empty(groups, dtype)
    scale, shift = (_per_element(v, layout, dtype) for v in (weight, bias))
    for block in _blocks(x):
        values = x[block].astype(dtype, copy=False)
        if centred:
            mean[block] = _row_sums(values) / size
            values = values - mean[block][:, :, None, None]
        rstd[block] = 1.0 / np.sqrt(_row_sums(values, values) / size + eps)
        normalized = np.multiply(values, rstd[block][:, :, None, None], out=values if centred else None)
        if scale is not None:
            normalized *= scale
        if shift is not None:
            normalized += shift
        output[block] = normalized
    return output.reshape(input.shape), mean if centred else None, rstd


def group_norm_backward_input(
    grad_output: FloatArray,
    input: FloatArray,
    weight: FloatArray | None,
    mean: FloatArray | None,
    rstd: FloatArray,
    layout: Layout,
) -> FloatArray:
    """The gradient of ``group_norm``'s output with respect to its input, through mean and deviation too.

    With ``h = g * weight``, the normalized input ``xhat`` and means over a group, it is
    ``rstd * (h - mean(h) - xhat * mean(h * xhat))`` (Ba et al., 2016); without centring ``mean(h)`` is left out.

    Returns:
        An array of the input's shape and dtype.
    """
    x, g = input.reshape(layout), grad_output.reshape(layout)
    size, dtype = max(1, layout[2] * layout[3]), rstd.dtype
    scale = _per_element(weight, layout, dtype)
    output = np.empty(layout, x.dtype)
    for block in _blocks(x):
        values, h = x[block].astype(dtype, copy=False), g[block].astype(dtype, copy=False)
        r = rstd[block].astype(np.float64)
        if mean is not None:
            values = values - mean[block][:, :, None, None]
        if scale is not None:
            h = h * scale
        slope = (r * r * _row_sums(h, values) / size).astype(dtype)
        change = np.multiply(values, slope[:, :, None, None], out=values if mean is not None else None)
        np.subtract(h, change, out=change)
        if mean is not None:
            change -= (_row_sums(h) / size).astype(dtype)[:, :, None, None]
        change *= rstd[block][:, :, None, None]
        output[block] = change
    return output.reshape(input.shape)


def group_norm_backward_weight(
    grad_output: FloatArray,
    input: FloatArray,
    mean: FloatArray | None,
    rstd: FloatArray,
    layout: Layout,
) -> NDArray[np.float64]:
    """The gradient with respect to the weight: ``g * xhat`` summed over ``N`` and ``S``. ``(G, D)``, float64."""
    x, g = input.reshape(layout), grad_output.reshape(layout)
    total = np.zeros(layout[1:3])
    for block in _blocks(x):
        values = x[block].astype(rstd.dtype, copy=False)
        if mean is not None:
            values = values - mean[block][:, :, None, None]
        products = np.multiply(values, g[block], out=values if mean is not None else None)
        if layout[3] != 1:
            products = products.sum(axis=3, keepdims=True)
        # (G, 1, n) @ (G, n, D)
        total += np.matmul(rstd[block].T[:, None], products[..., 0].transpose(1, 0, 2))[:, 0]
    return total


def group_norm_backward_bias(grad_output: FloatArray, layout: Layout) -> NDArray[np.float64]:
    """The gradient with respect to the bias: ``g`` summed over ``N`` and ``S``. ``(G, D)``, float64."""
    g = grad_output.reshape(layout)
    total = np.zeros(layout[1:3])
    for block in _blocks(g):
        values = g[block].astype(_precision(g.dtype), copy=False)
        if layout[3] != 1:
            values = values.sum(axis=3, keepdims=True)
        rows = values.reshape(len(values), -1)
        total += (np.ones(len(rows), rows.dtype) @ rows).reshape(layout[1:3])
    return total


def group_norm_reference(
    input: FloatArray,
    weight: FloatArray | None,
    bias: FloatArray | None,
    layout: Layout,
    eps: float,
    centred: bool = True,
) -> FloatArray:
    """``group_norm``'s output one group at a time; the tests' reference."""
    output = np.empty(layout, np.float64)
    for n, group in np.ndindex(layout[:2]):
        x = input.reshape(layout)[n, group].astype(np.float64)
        centre = x.mean() if centred else 0.0
        output[n, group] = (x - centre) / np.sqrt(((x - centre) ** 2).mean() + eps)
        for d in range(layout[2]):
            output[n, group, d] *= 1 if weight is None else weight.reshape(layout[1:3])[group, d]
            output[n, group, d] += 0 if bias is None else bias.reshape(layout[1:3])[group, d]
    return output.reshape(input.shape).astype(input.dtype)


def _precision(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _per_element(values: FloatArray | None, layout: Layout, dtype: np.dtype[Any]) -> FloatArray | None:
    """A scale or a shift as ``(G, D, 1)``, in the dtype of the computation."""
    return None if values is None else values.reshape(*layout[1:3], 1).astype(dtype, copy=False)


def _row_sums(a: FloatArray, b: FloatArray | None = None) -> NDArray[np.float64]:
    """The sum over each group of ``a``, or of ``a * b``: ``(n, G, D, S)`` to ``(n, G)``, in float64."""
    rows = a.reshape(a.shape[0] * a.shape[1], a.shape[2] * a.shape[3])
    others = np.ones(rows.shape[1], rows.dtype) if b is None else b.reshape(rows.shape)
    whole = rows.shape[1] // _PIECE * _PIECE
    total = np.zeros(len(rows))
    if whole:
        pieces = others[..., :whole].reshape(*others.shape[:-1], -1, _PIECE)
        total += np.vecdot(rows[:, :whole].reshape(len(rows), -1, _PIECE), pieces).sum(axis=1, dtype=np.float64)
    if whole != rows.shape[1]:
        total += np.vecdot(rows[:, whole:], others[..., whole:])
    return total.reshape(a.shape[:2])


def _blocks(x: FloatArray) -> Iterator[slice]:
    """Cut the first dimension into pieces of about ``_BLOCK_BYTES``."""
    count = max(1, _BLOCK_BYTES // max(1, math.prod(x.shape[1:]) * x.itemsize))
    for first in range(0, len(x), count):
        yield slice(first, first + count)

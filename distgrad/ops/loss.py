"""Losses, composed from differentiable operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.tensor import Array
from .elementwise import where
from .indexing import gather
from .reduction import log_softmax, mean, sum
from .shape import permute, reshape

_REDUCTIONS = ("none", "mean", "sum")


def _reduced(values: Tensor, reduction: str) -> Tensor:
    _check_reduction(reduction)
    return values if reduction == "none" else mean(values) if reduction == "mean" else sum(values)


def _check_reduction(reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{reduction!r} is not a valid value for reduction: one of {', '.join(_REDUCTIONS)}")


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared difference, its mean or its sum; shapes must be equal: broadcasting here is nearly always a bug."""
    if input.shape != target.shape:
        raise ValueError(
            f"mse_loss: the input {list(input.shape)} and the target {list(target.shape)} differ in shape; reshape or "
            "broadcast_to one of them"
        )
    difference = input - target
    return _reduced(difference * difference, reduction)


def _classes_last(x: Tensor) -> Tensor:
    """(N, C, d1, ...) as (N * d1 * ..., C)."""
    if x.ndim > 2:
        x = permute(x, (0, *range(2, x.ndim), 1))
    return reshape(x, (x.numel() // x.shape[-1] if x.shape[-1] else 0, x.shape[-1]))


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """The negative log likelihood of class indices, as ``torch.nn.functional.nll_loss``.

    Args:
        input: log-probabilities, (C,), (N, C) or (N, C, d1, ...).
        target: integers, the shape of ``input`` without C.
        weight: (C,), a factor for each class; the mean is then weighted.
        ignore_index: samples of this target count for nothing.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: shapes that do not fit.
        IndexError: a target outside [0, C).
    """
    _check_reduction(reduction)
    if input.ndim == 1:
        rows, labels = reshape(input, (1, *input.shape)), reshape(target, (1,))
    else:
        expected = (input.shape[0], *input.shape[2:])
        if tuple(target.shape) != expected:
            raise ValueError(
                f"Expected input batch_size ({input.shape[0]}) to match target batch_size "
                f"({target.shape[0] if target.ndim else 1}): an input {list(input.shape)} needs a target "
                f"{list(expected)}, got {list(target.shape)}"
            )
        rows, labels = _classes_last(input), reshape(target, (target.numel(),))
    classes = rows.shape[1]
    if labels.dtype.kind not in "iu":
        raise RuntimeError(f"nll_loss: expected a target of class indices (int64), got {labels.dtype}")
    counted = labels._data != ignore_index
    wrong = labels._data[counted & ((labels._data < 0) | (labels._data >= classes))]
    if wrong.size:
        raise IndexError(f"Target {int(wrong[0])} is out of bounds: there are {classes} classes, 0 to {classes - 1}")
    safe = np.where(counted, labels._data, 0)
    factors = _factors(safe, counted, weight, rows.dtype)
    picked = reshape(gather(rows, 1, Tensor(safe.reshape(-1, 1))), (labels.shape[0],))
    losses = -picked * Tensor(factors)
    if not counted.all():
        # 0 * -inf would be NaN: an ignored sample must count for nothing whatever its prediction
        losses = where(Tensor(counted), losses, 0.0)
    if reduction == "none":
        return reshape(losses, tuple(target.shape))
    total = sum(losses)
    return total if reduction == "sum" else total / _weight_sum(factors)


def _factors(safe: Array, counted: Array, weight: Tensor | None, dtype: Any) -> Array:
    """How much each sample counts: the weight of its class (1 without weights), 0 where it is ignored."""
    factors = counted if weight is None else np.where(counted, weight._data[safe], 0)
    return factors.astype(dtype, copy=False)


def _for_classes(weight: Tensor, ndim: int, class_dim: int) -> Tensor:
    """The weights (C,) in a shape that broadcasts along the classes of an ``ndim``-dimensional tensor."""
    return reshape(weight, tuple(-1 if dim == class_dim else 1 for dim in range(ndim)))


def _weight_sum(factors: Any) -> Tensor:
    """The divisor of a weighted mean, as a tensor so that nothing counted gives NaN, not an exception."""
    return Tensor(np.asarray(factors.sum(dtype=factors.dtype)))


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy of logits and classes, as ``torch.nn.functional.cross_entropy``.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, ...).
        target: class indices (int64), the shape of ``input`` without C; or probabilities (floating point), its shape.
        weight: (C,), a factor for each class.
        ignore_index: index targets of this value count for nothing.
        reduction: "none", "mean" (over samples, weighted for index targets) or "sum".
        label_smoothing: this share of each target is spread evenly over the classes (Szegedy et al., 2016).
    """
    _check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    class_dim = 0 if input.ndim == 1 else 1
    classes = input.shape[class_dim]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"cross_entropy: weight tensor should be defined either for all {classes} classes or no classes but got "
            f"weight tensor of shape: {list(weight.shape)}"
        )
    log_probabilities = log_softmax(input, class_dim)
    if target.is_floating_point():
        return _soft_cross_entropy(log_probabilities, target, weight, reduction, label_smoothing, class_dim)
    hard = nll_loss(log_probabilities, target, weight, ignore_index, reduction)
    if label_smoothing == 0.0:
        return hard
    # Mixing the target with the uniform distribution adds the mean over all classes of -log p, each class weighted.
    weighted = log_probabilities
    if weight is not None:
        weighted = weighted * _for_classes(weight, input.ndim, class_dim)
    counted = target._data != ignore_index
    smooth = where(Tensor(counted), -sum(weighted, class_dim), 0.0)
    if reduction != "none":
        smooth = sum(smooth)
    if reduction == "mean":
        safe = np.where(counted, target._data, 0)
        smooth = smooth / _weight_sum(_factors(safe, counted, weight, input.dtype))
    return hard * (1.0 - label_smoothing) + smooth * (label_smoothing / classes)


def _soft_cross_entropy(
    log_probabilities: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    label_smoothing: float,
    class_dim: int,
) -> Tensor:
    if target.shape != log_probabilities.shape:
        raise ValueError(
            f"cross_entropy: probability targets need the shape of the input, {list(log_probabilities.shape)}, got "
            f"{list(target.shape)}"
        )
    classes = target.shape[class_dim]
    if label_smoothing > 0.0:
        target = target * (1.0 - label_smoothing) + label_smoothing / classes
    products = log_probabilities * target
    if weight is not None:
        products = products * _for_classes(weight, target.ndim, class_dim)
    losses = -sum(products, class_dim)
    if reduction == "none":
        return losses
    # over the samples: PyTorch does not weight this mean
    return sum(losses) if reduction == "sum" else sum(losses) / float(max(losses.numel(), 1))

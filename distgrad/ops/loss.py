"""Losses of classes: an input with a dimension of classes, and a target that says which of them are right.

Elementwise losses are in ``pointwise_loss``, losses of distances in ``distance``. What all of them share is here: the
reduction, and the refusal of the arguments that PyTorch had before it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from .activation import logsigmoid
from .comparison import eq, ge, logical_and, ne
from .elementwise import relu, where
from .exponentials import log_softmax
from .positions import gather
from .promotion import cast, promoted
from .reduction import mean, sum
from .samples import check_values, is_batched, is_captured
from .scan import cumprod
from .shape import reshape

# What all losses share ----------------------------------------------------------------------------------------------

_REDUCTIONS = ("none", "mean", "sum")


def _check_reduction(reduction: str, *others: str) -> None:
    """Raises ``ValueError`` unless it is "none", "mean", "sum" or one of ``others``."""
    known = (*_REDUCTIONS, *others)
    if reduction not in known:
        raise ValueError(f"{reduction!r} is not a valid value for reduction: one of {', '.join(known)}")


def _reduced(values: Tensor, reduction: str) -> Tensor:
    """All of ``values``, their mean or their sum."""
    return values if reduction == "none" else mean(values) if reduction == "mean" else sum(values)


def _refuse_legacy(size_average: Any, reduce: Any) -> None:
    """PyTorch's deprecated arguments are taken only to be refused, so that those behind them keep their positions."""
    if size_average is not None or reduce is not None:
        kind = "none" if reduce is False else "sum" if size_average is False else "mean"
        raise ValueError(f"size_average and reduce are deprecated and not supported: pass reduction={kind!r} instead")


# Class indices ------------------------------------------------------------------------------------------------------

# Both take (N, C, D) or its gradient, labels (N, D) of which the negative ones are ignored, and factors (N, D); or
# all of them without D.


def _pick(input: Array, labels: Array, factors: Array) -> Array:
    classes = np.maximum(labels, 0)
    if input.ndim == 2:
        picked = input[np.arange(len(classes)), classes]
    else:
        picked = np.take_along_axis(input, classes[:, None], axis=1)[:, 0]
    # chosen rather than multiplied by 0: an ignored sample counts for nothing whatever its prediction, also -inf
    return np.where(labels < 0, 0, -picked * factors).astype(input.dtype, copy=False)


def _put_back(input: Array, labels: Array, factors: Array, classes: int) -> Array:
    out = np.zeros((labels.shape[0], classes, *labels.shape[1:]), input.dtype)
    values = np.where(labels < 0, 0, -input * factors).astype(input.dtype, copy=False)
    if classes and input.ndim == 1:
        out[np.arange(len(labels)), np.maximum(labels, 0)] = values
    elif classes:
        np.put_along_axis(out, np.maximum(labels, 0)[:, None], values[:, None], axis=1)
    return out


_nll_loss: Primitive = define(
    "NllLoss",
    _pick,
    ("input",),
    input=lambda g, input_shape, labels, factors: _nll_loss_adjoint(
        g, labels=labels, factors=factors, classes=input_shape[1]
    ),
)
_nll_loss_adjoint: Primitive = define(
    "NllLossAdjoint",
    _put_back,
    ("input",),
    input=lambda g, labels, factors: _nll_loss(g, labels=labels, factors=factors),
)


def _class_dim(input: Tensor) -> int:
    if not input.ndim:
        raise ValueError("Expected 1 or more dimensions (got 0): a class dimension, and before it the batch's")
    return 0 if input.ndim == 1 else 1


def _check_target(name: str, input: Tensor, target: Tensor) -> None:
    """That ``target`` has the shape of ``input`` without its classes, and holds integers."""
    if input.ndim == 1:
        if target.numel() != 1 or target.ndim > 1:
            raise ValueError(
                f"{name}: an input {list(input.shape)} is one sample and needs one class, got a target "
                f"{list(target.shape)}"
            )
    elif not target.ndim or target.shape[0] != input.shape[0]:
        raise ValueError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size "
            f"({target.shape[0] if target.ndim else 1})."
        )
    elif target.shape[1:] != input.shape[2:]:
        expected = [input.shape[0], *input.shape[2:]]
        raise RuntimeError(f"Expected target size {expected}, got {list(target.shape)}")
    if target.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: expected a target of class indices (int64), got {target.dtype}")


def _check_class_weight(name: str, weight: Tensor | None, classes: int) -> None:
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"{name}: weight tensor should be defined either for all {classes} classes or no classes but got weight "
            f"tensor of shape: {list(weight.shape)}"
        )


def _refuse_gradient(name: str, weight: Tensor | None) -> None:
    if weight is not None and weight.requires_grad and mode.enabled:
        raise RuntimeError(
            f"{name} is not differentiable with respect to its weight, which requires a gradient: detach() it"
        )


def _factors(labels: Array, weight: Tensor | None, dtype: Any) -> Array:
    """How much each sample counts: the weight of its class (1 without weights), 0 where it is ignored."""
    counted = labels >= 0
    if weight is None or not weight.numel():
        return counted.astype(dtype)
    return np.where(counted, weight._data[np.maximum(labels, 0)], 0).astype(dtype, copy=False)


def _labels(target: Tensor, classes: int, ignore_index: int) -> Array:
    """The classes as int64, -1 where they are ignored."""
    labels = target._data.astype(np.int64)
    if ignore_index < 0 and labels.size and labels.min() >= 0 and labels.max() < classes:  # nearly always
        return labels
    ignored = labels == ignore_index
    wrong = labels[~ignored & ((labels < 0) | (labels >= classes))]
    if wrong.size:
        raise IndexError(f"Target {int(wrong[0])} is out of bounds: there are {classes} classes, 0 to {classes - 1}")
    labels[ignored] = -1
    return labels


def _weight_sum(factors: Array) -> Tensor:
    """The divisor of a weighted mean, as a tensor so that nothing counted gives NaN, not an exception."""
    return Tensor(np.asarray(factors.sum(dtype=factors.dtype)))


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log likelihood of class indices, as ``torch.nn.functional.nll_loss``.

    Args:
        input: log-probabilities, (C,), (N, C) or (N, C, d1, ...).
        target: integers, the shape of ``input`` without C.
        weight: (C,), a factor for each class; the mean is then weighted. It gets no gradient.
        size_average: deprecated in PyTorch, refused here.
        ignore_index: samples of this target count for nothing.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: batches that do not fit, or another reduction.
        RuntimeError: other shapes that do not fit, a target that is not integer, a weight that requires a gradient.
        IndexError: a target outside [0, C).
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    classes = input.shape[_class_dim(input)]
    _check_target("nll_loss", input, target)
    _check_class_weight("nll_loss", weight, classes)
    _refuse_gradient("nll_loss", weight)
    if _are_unknown(target, weight):
        return _nll_of_samples(input, target, weight, ignore_index, reduction)
    labels = _labels(target, classes, ignore_index)
    flat = input
    if input.ndim != 2:
        batch, places = (1, 1) if input.ndim == 1 else (input.shape[0], math.prod(input.shape[2:]))
        labels, flat = labels.reshape(batch, places), reshape(input, (batch, classes, places))
    factors = _factors(labels, weight, input.dtype)
    losses: Tensor = _nll_loss(flat, labels=labels, factors=factors)
    if reduction == "none":
        return losses if input.ndim == 2 else reshape(losses, tuple(target.shape))
    total = sum(losses)
    return total if reduction == "sum" else total / _weight_sum(factors)


def _are_unknown(target: Tensor, weight: Tensor | None) -> bool:
    """Whether there are no values to look at: inside vmap, or while ``compiler`` captures."""
    return is_batched(target, weight) or is_captured(target) or (weight is not None and is_captured(weight))


def _classes_of_samples(
    target: Tensor, weight: Tensor | None, classes: int, ignore_index: int, dtype: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """For targets whose values are unknown: the classes, 0 where they are ignored; whether they count; how much."""

    def check(values: Array) -> None:
        wrong = values[(values != ignore_index) & ((values < 0) | (values >= classes))]
        if wrong.size:
            raise IndexError(
                f"Target {int(wrong[0])} is out of bounds: there are {classes} classes, 0 to {classes - 1}"
            )

    check_values(check, target)
    counted = ne(target, ignore_index)
    labels = cast(where(counted, target, 0), np.int64)
    if weight is None or not weight.numel():
        return labels, counted, cast(counted, dtype)
    factors = reshape(gather(weight, 0, reshape(labels, -1)), tuple(target.shape))
    return labels, counted, cast(where(counted, factors, 0.0), dtype)


def _nll_of_samples(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> Tensor:
    """``nll_loss`` in operations to which the target is an operand."""
    axis = _class_dim(input)
    labels, counted, factors = _classes_of_samples(target, weight, input.shape[axis], ignore_index, input.dtype)
    index = reshape(labels, tuple(1 if d == axis else n for d, n in enumerate(input.shape)))
    picked = reshape(gather(input, axis, index), tuple(target.shape))
    losses: Tensor = where(counted, -picked * factors, 0.0)
    if reduction == "none":
        return losses
    total = sum(losses)
    return total if reduction == "sum" else total / sum(factors)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy of logits and classes, as ``torch.nn.functional.cross_entropy``.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, ...).
        target: class indices (int64), the shape of ``input`` without C; or probabilities (floating point), its shape.
        weight: (C,), a factor for each class.
        size_average: deprecated in PyTorch, refused here.
        ignore_index: index targets of this value count for nothing.
        reduce: as ``size_average``.
        reduction: "none", "mean" (over samples, weighted for index targets) or "sum".
        label_smoothing: this share of each target is spread evenly over the classes (Szegedy et al., 2016).

    Raises:
        ValueError: batches that do not fit, or another reduction.
        RuntimeError: other arguments that do not fit each other, or a smoothing outside [0, 1].
        IndexError: a target outside [0, C).
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    class_dim = _class_dim(input)
    classes = input.shape[class_dim]
    _check_class_weight("cross_entropy", weight, classes)
    if target.shape == input.shape:
        if not target.is_floating_point():
            raise RuntimeError(
                f"Expected floating point type for target with class probabilities, got {target.dtype}: class indices "
                f"have the shape of the input without its classes, and this target has all of {list(input.shape)}"
            )
        if ignore_index >= 0:
            raise RuntimeError(f"ignore_index is not supported for floating point target, and it is {ignore_index}")
        return _soft_cross_entropy(log_softmax(input, class_dim), target, weight, reduction, label_smoothing, class_dim)
    _check_target("cross_entropy", input, target)
    log_probabilities = log_softmax(input, class_dim)
    hard = nll_loss(log_probabilities, target, weight, ignore_index=ignore_index, reduction=reduction)
    if label_smoothing == 0.0:
        return hard
    # Mixing the target with the uniform distribution adds the mean over all classes of -log p, each class weighted.
    weighted = log_probabilities
    if weight is not None:
        weighted = weighted * _for_classes(weight, input.ndim, class_dim)
    if _are_unknown(target, weight):
        _, counted, factors = _classes_of_samples(target, weight, classes, ignore_index, input.dtype)
        divisor = sum(factors)
    else:
        labels = _labels(target, classes, ignore_index)
        counted = Tensor(labels.reshape(target.shape) >= 0)
        divisor = _weight_sum(_factors(labels, weight, input.dtype))
    smooth: Tensor = where(counted, -reshape(sum(weighted, class_dim), target.shape), 0.0)
    if reduction != "none":
        smooth = sum(smooth)
    if reduction == "mean":
        smooth = smooth / divisor
    return hard * (1.0 - label_smoothing) + smooth * (label_smoothing / classes)


def _for_classes(weight: Tensor, ndim: int, class_dim: int) -> Tensor:
    """The weights (C,) in a shape that broadcasts along the classes of an ``ndim``-dimensional tensor."""
    return reshape(weight, tuple(-1 if dim == class_dim else 1 for dim in range(ndim)))


def _soft_cross_entropy(
    log_probabilities: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    label_smoothing: float,
    class_dim: int,
) -> Tensor:
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


# Margins ------------------------------------------------------------------------------------------------------------


def _samples(name: str, input: Tensor) -> tuple[Tensor, int]:
    """``input`` as (N, C), and C."""
    if input.ndim not in (1, 2) or not input.shape[-1]:
        raise RuntimeError(
            f"{name}: expected non-empty vector or matrix with optional 0-dim batch size, but got: {list(input.shape)}"
        )
    return (reshape(input, (1, -1)) if input.ndim == 1 else input), input.shape[-1]


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over the other classes of ``max(0, margin - input[target] + input[class]) ** p``.

    Args:
        input: (N, C) or (C,).
        target: class indices (int64), (N,), or one of them.
        p: 1 or 2.
        margin: by how much the right class is to stand out.
        weight: (C,), a factor for each right class. It gets no gradient.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" (over samples) or "sum".

    Raises:
        ValueError: another ``p``, a weight that is no vector, or another reduction.
        RuntimeError: shapes or dtypes that do not fit, or a target outside [0, C).
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    if p not in (1, 2):
        raise ValueError(f"only p == 1 and p == 2 supported, not {p}")
    rows, classes = _samples("multi_margin_loss", input)
    if weight is not None and weight.ndim != 1:
        raise ValueError(f"weight must be one-dimensional, but its shape is {list(weight.shape)}")
    if weight is not None and weight.numel() != classes:
        raise RuntimeError(f"inconsistent weight size, expected {classes} but got {list(weight.shape)}")
    if target.ndim > 1 or target.numel() != rows.shape[0]:
        raise RuntimeError(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples (batch "
            f"size). Expected target size [{rows.shape[0]}], but got {list(target.shape)}. Input has shape "
            f"{list(input.shape)}."
        )
    if target.dtype != np.int64:
        raise RuntimeError(f"multi_margin_loss: expected an int64 target, got {target.dtype}")
    _refuse_gradient("multi_margin_loss", weight)
    _check_range("multi_margin_loss", target, classes)
    right = reshape(target, (-1, 1))
    over = relu(rows - gather(rows, 1, right) + margin)
    if p == 2:
        over = over * over
    if weight is not None:
        over = over * reshape(gather(weight, 0, reshape(target, -1)), (-1, 1))
    over = where(eq(right, Tensor(np.arange(classes))), 0.0, over)
    return _reduced(reshape(sum(over, 1) / classes, tuple(target.shape)), reduction)


def _check_range(name: str, target: Tensor, classes: int, lowest: int = 0) -> None:
    def check(labels: Array) -> None:
        wrong = labels[(labels < lowest) | (labels >= classes)]
        if wrong.size:
            raise RuntimeError(
                f"{name}: target out of range: {int(wrong[0])} with {classes} classes, 0 to {classes - 1}"
            )

    check_values(check, target)


def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: None = None, reduce: None = None, reduction: str = "mean"
) -> Tensor:
    """The sum over right classes i and wrong classes j of ``max(0, 1 - input[i] + input[j])``, over C.

    Args:
        input: (N, C) or (C,).
        target: int64 of that shape: in each row the right classes, up to the first -1.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" (over samples) or "sum".

    Raises:
        ValueError: another reduction.
        RuntimeError: shapes or dtypes that do not fit, or a target outside [-1, C).
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    rows, classes = _samples("multilabel_margin_loss", input)
    if target.shape != input.shape:
        raise RuntimeError(f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}")
    if target.dtype != np.int64:
        raise RuntimeError(f"multilabel_margin_loss: expected an int64 target, got {target.dtype}")
    _check_range("multilabel_margin_loss", target, classes, -1)
    labels = reshape(target, tuple(rows.shape))
    given = cumprod(cast(ge(labels, 0), np.int64), 1)  # up to the first -1
    labels = where(eq(given, 1), labels, -1)
    each, others = reshape(labels, (-1, classes, 1)), Tensor(np.arange(classes))
    right = sum(cast(eq(each, others), np.int64), 1, keepdim=True)  # (N, 1, C): whether class c is a right one
    # (N, right, 1) against (N, 1, C)
    picked = reshape(gather(rows, 1, where(ge(labels, 0), labels, 0)), (-1, classes, 1))
    margins = relu(reshape(rows, (-1, 1, classes)) - picked + 1.0)
    margins = where(logical_and(ge(each, 0), eq(right, 0)), margins, 0.0)
    losses = reshape(sum(margins, (1, 2)) / classes, tuple(input.shape[:-1]))
    return _reduced(losses, reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """The binary cross entropy of logits and targets in [0, 1], its mean over the classes.

    Args:
        input: logits, (..., C).
        target: what broadcasts with it.
        weight: (C,), a factor for each class.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" (over samples) or "sum".

    Raises:
        ValueError: another reduction.
        IndexError: ``input`` has no dimensions.
        RuntimeError: shapes that do not broadcast.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    if not input.ndim:
        raise IndexError("multilabel_soft_margin_loss: the last dimension is that of the classes, and input has none")
    input, target = promoted(input, target, floating=True)
    losses = -(target * logsigmoid(input) + (1.0 - target) * logsigmoid(-input))
    if weight is not None:
        losses = losses * weight
    return _reduced(sum(losses, -1) / input.shape[-1], reduction)

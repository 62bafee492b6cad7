"""Losses of two tensors element by element: regression, probabilities, and the likelihoods of distributions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from .activation import _log1pexp, _logsigmoid, logsigmoid
from .elementwise import _log, _sigmoid, broadcast_to, clone, exp, log, mul, sub, where
from .elementwise import abs as absolute
from .extremum import _clamp
from .loss import _check_reduction, _reduced, _refuse_legacy
from .promotion import promoted
from .reduction import sum
from .samples import check_values
from .shape import _common_shape, unsqueeze
from .transcendental import _log1p, xlogy

# Regression ---------------------------------------------------------------------------------------------------------


def _huber_forward(input: Any, target: Any, delta: float) -> Any:
    distance = np.abs(input - target)
    return np.where(distance <= delta, 0.5 * distance * distance, delta * (distance - 0.5 * delta))


# The difference is computed again rather than saved: the two operands are mostly kept by somebody else anyway.
_mse_loss: Primitive = define(
    "MseLoss",
    lambda input, target: np.square(input - target),
    ("input", "target"),
    input=lambda g, input, target: g * (2.0 * (input - target)),
    target=lambda g, input, target: g * (2.0 * (target - input)),
)
_huber_loss: Primitive = define(
    "HuberLoss",
    _huber_forward,
    ("input", "target"),
    input=lambda g, input, target, delta: g * _clamp(input - target, min=-delta, max=delta),
    target=lambda g, input, target, delta: g * _clamp(target - input, min=-delta, max=delta),
)


def _pair(name: str, input: Tensor, target: Tensor, only_floating: bool = True) -> tuple[Tensor, Tensor]:
    """Both in their common dtype and shape, with PyTorch's warning where the shapes were different."""
    if target.shape != input.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )
        shape = _common_shape(input.shape, target.shape)
        input, target = broadcast_to(input, shape), broadcast_to(target, shape)
    input, target = promoted(input, target)
    if only_floating and not input.is_floating_point():
        raise RuntimeError(f"{name} is not defined for {input.dtype} tensors; convert the input with .float()")
    return input, target


def _weighted(values: Tensor, input: Tensor, weight: Tensor | None, reduction: str, over_weights: bool) -> Tensor:
    """The reduction of ``values`` times ``weight``: a mean is over the sum of the weights, or over the elements."""
    if weight is None:
        return _reduced(values, reduction)
    if weight.shape != input.shape:
        raise ValueError(
            f"Weights and input must have the same size, but they are {list(weight.shape)} and {list(input.shape)}"
        )
    values = values * weight
    if reduction == "mean" and over_weights:
        return sum(values) / sum(weight)
    return _reduced(values, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The squared difference, its mean or its sum, as ``torch.nn.functional.mse_loss``.

    Args:
        input: floating point.
        target: of the same shape; another one is broadcast with it, with a warning.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
        weight: of the shape of ``input``, a factor for each element; the mean is then over the sum of the weights.

    Raises:
        ValueError: a weight of another shape, or another reduction.
        RuntimeError: shapes that do not broadcast, or integers.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    a, b = _pair("mse_loss", input, target)
    return _weighted(_mse_loss(a, b), input, weight, reduction, True)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """The magnitude of the difference, its mean or its sum. Arguments as ``mse_loss``; integers have no mean."""
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    a, b = _pair("l1_loss", input, target, only_floating=False)
    return _weighted(absolute(sub(a, b)), input, weight, reduction, True)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """``0.5 * d**2 / beta`` where the difference d is at most ``beta``, ``|d| - 0.5 * beta`` beyond (Girshick, 2015).

    Args:
        input: floating point.
        target: of the same shape; another one is broadcast with it, with a warning.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
        beta: where the parabola ends; 0 gives ``l1_loss``.

    Raises:
        ValueError: another reduction.
        RuntimeError: shapes that do not broadcast, integers, or a negative ``beta``.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta. Got: {beta}")
    a, b = _pair("smooth_l1_loss", input, target)
    return _reduced(absolute(a - b) if beta == 0 else _huber_loss(a, b, delta=float(beta)) / float(beta), reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """``0.5 * d**2`` where the difference d is at most ``delta``, ``delta * (|d| - 0.5 * delta)`` beyond (Huber, 1964).

    Args:
        input: floating point.
        target: of the same shape; another one is broadcast with it, with a warning.
        reduction: "none", "mean" or "sum".
        delta: where the parabola ends.
        weight: of the shape of ``input``, a factor for each element; the mean is over the elements.

    Raises:
        ValueError: a weight of another shape, or another reduction.
        RuntimeError: shapes that do not broadcast, integers, or a ``delta`` that is not positive.
    """
    _check_reduction(reduction)
    if delta <= 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta. Got: {delta}")
    a, b = _pair("huber_loss", input, target)
    return _weighted(_huber_loss(a, b, delta=float(delta)), input, weight, reduction, False)


# Probabilities ------------------------------------------------------------------------------------------------------

_LOWEST_LOG = -100.0  # so that a wrong answer given with certainty costs much, but not infinitely much


def _bce_forward(input: Any, target: Any) -> Any:
    right = np.maximum(np.log(input), _LOWEST_LOG)
    wrong = np.maximum(np.log1p(-input), _LOWEST_LOG)
    return (target - 1) * wrong - target * right


_bce: Primitive = define(
    "BinaryCrossEntropy",
    _bce_forward,
    ("input", "target"),
    input=lambda g, input, target: g * ((input - target) / _clamp((1.0 - input) * input, min=1e-12, max=None)),
    target=lambda g, input: g * (_log1p(-input) - _log(input)),
)


def _bce_logits_forward(input: Any, target: Any, pos_weight: Any) -> Any:
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    return (1 - target) * input + positive * _log1pexp(-input)


def _bce_logits_slope(input: Any, target: Any, pos_weight: Any) -> Any:
    if pos_weight is None:
        return _sigmoid(input) - target
    return _sigmoid(input) * (1.0 - target) - _sigmoid(-input) * (pos_weight * target)


_bce_logits: Primitive = define(
    "BinaryCrossEntropyWithLogits",
    _bce_logits_forward,
    ("input", "target", "pos_weight"),
    input=lambda g, input, target, pos_weight: g * _bce_logits_slope(input, target, pos_weight),
    target=lambda g, input, pos_weight: (
        g * -input if pos_weight is None else -g * (input + (pos_weight - 1.0) * _logsigmoid(input))
    ),
)


def _check_fits(name: str, what: str, tensor: Tensor | None, input: Tensor) -> None:
    """That ``tensor`` broadcasts to the shape of ``input``."""
    if tensor is not None and _common_shape(tensor.shape, input.shape) != tuple(input.shape):
        raise RuntimeError(
            f"{name}: {what} of shape {list(tensor.shape)} is not broadcastable to the input's {list(input.shape)}"
        )


def _check_probabilities(what: str) -> Callable[[Array], None]:
    def check(values: Array) -> None:
        if not ((values >= 0) & (values <= 1)).all():
            raise RuntimeError(f"binary_cross_entropy: all elements of {what} should be between 0 and 1")

    return check


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-(target * log(input) + (1 - target) * log(1 - input))``, the logarithms not below -100.

    Args:
        input: probabilities, in [0, 1].
        target: probabilities too, of the same shape and dtype.
        weight: a factor for each element, which broadcasts; the mean is over the elements.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: shapes that differ, or another reduction.
        RuntimeError: values outside [0, 1], dtypes that differ, or a weight that does not broadcast.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    if target.shape != input.shape:
        raise ValueError(
            f"binary_cross_entropy: the target size ({target.shape}) is different to the input size ({input.shape}); "
            "please ensure they have the same size"
        )
    if target.dtype != input.dtype or not input.is_floating_point():
        raise RuntimeError(f"binary_cross_entropy: found dtype {target.dtype} of the target but expected {input.dtype}")
    for what, tensor in (("input", input), ("target", target)):
        check_values(_check_probabilities(what), tensor)
    _check_fits("binary_cross_entropy", "weight", weight, input)
    values: Tensor = _bce(input, target)
    return _reduced(values if weight is None else values * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """``binary_cross_entropy`` of sigmoid(input), without overflow and without the limit at -100.

    Args:
        input: logits.
        target: probabilities, of the same shape.
        weight: a factor for each element, which broadcasts; the mean is over the elements.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
        pos_weight: a factor for the part of ``target``, which broadcasts: (C,) for the classes of (N, C). It gets no
            gradient.

    Raises:
        ValueError: shapes that differ, or another reduction.
        RuntimeError: integers, or a weight that does not broadcast.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    if target.shape != input.shape:
        raise ValueError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    logits, target = promoted(input, target)
    if not logits.is_floating_point():
        raise RuntimeError(f"binary_cross_entropy_with_logits is not defined for {logits.dtype} tensors")
    _check_fits("binary_cross_entropy_with_logits", "weight", weight, input)
    _check_fits("binary_cross_entropy_with_logits", "pos_weight", pos_weight, input)
    if pos_weight is not None:
        logits, pos_weight = promoted(logits, pos_weight)
    values: Tensor = _bce_logits(logits, target, pos_weight)
    return _reduced(values if weight is None else values * weight, reduction)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: None = None, reduce: None = None, reduction: str = "mean"
) -> Tensor:
    """log(1 + exp(-target * input)), without overflow.

    Args:
        input: floating point.
        target: 1 or -1, of the same shape or what broadcasts with it.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    return _reduced(-logsigmoid(mul(target, input)), reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """The Kullback-Leibler divergence's terms ``target * (log(target) - input)``, as ``torch.nn.functional.kl_div``.

    Args:
        input: log-probabilities.
        target: probabilities, of the same shape or what broadcasts with it.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" (over all elements, which is not the divergence and warns), "batchmean" (the sum over
            the length of the first dimension) or "sum".
        log_target: ``target`` are log-probabilities too.

    Raises:
        ValueError: another reduction.
        RuntimeError: shapes that do not broadcast.
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction, "batchmean")
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size.'batchmean' divides "
            "only by the batch size, and aligns with the KL div math definition.",
            stacklevel=2,
        )
    input, target = promoted(input, target, floating=True)
    values = exp(target) * (target - input) if log_target else xlogy(target, target) - target * input
    if reduction == "batchmean" and input.ndim:
        return sum(values) / float(input.shape[0]) if input.shape[0] else sum(values) * math.nan
    return _reduced(values, "sum" if reduction == "batchmean" else reduction)


# Likelihoods --------------------------------------------------------------------------------------------------------


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: None = None,
    eps: float = 1e-8,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """The negative log likelihood of counts under a Poisson distribution: ``rate - target * log(rate)``.

    Args:
        input: the logarithm of the rate, or the rate itself.
        target: counts, of the same shape or what broadcasts with it.
        log_input: which of the two ``input`` is.
        full: add Stirling's approximation of log(target!) where the target is above 1.
        size_average: deprecated in PyTorch, refused here.
        eps: added to a rate before its logarithm is taken.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
    """
    _refuse_legacy(size_average, reduce)
    _check_reduction(reduction)
    input, target = promoted(input, target, floating=True)
    values = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        many = target > 1
        count = where(many, target, 1.0)
        stirling = count * log(count) - count + 0.5 * log(2 * math.pi * count)
        values = values + where(many, stirling, 0.0)
    return _reduced(values, reduction)


def _check_variance(values: Array) -> None:
    if (values < 0).any():
        raise ValueError("var has negative entry/entries")


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """The negative log likelihood of ``target`` under normal distributions: ``(log(var) + d**2 / var) / 2``.

    Args:
        input: the means.
        target: of the same shape or what broadcasts with it.
        var: the variances: of the shape of ``input``, one for all of its last dimension, or a number.
        full: add log(2 * pi) / 2.
        eps: the smallest variance; limiting it does not change its gradient's formula.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: a variance that is negative or of another shape, or another reduction.
    """
    if isinstance(var, (int, float)):
        var = Tensor(np.full(tuple(input.shape), var, input.dtype))
    if var.shape != input.shape:
        if var.shape == input.shape[:-1] and input.ndim:
            var = unsqueeze(var, -1)
        elif var.ndim != input.ndim or var.shape != (*input.shape[:-1], 1):
            raise ValueError(
                f"var is of incorrect size: {list(var.shape)} for an input {list(input.shape)}, which takes that shape "
                "or one without (or with 1 as) the last dimension"
            )
    _check_reduction(reduction)
    check_values(_check_variance, var)
    bounded = clone(var)
    with no_grad():
        bounded.clamp_(min=eps)
    difference = input - target
    values = 0.5 * (log(bounded) + difference * difference / bounded)
    if full:
        values = values + 0.5 * math.log(2 * math.pi)
    return _reduced(values, reduction)

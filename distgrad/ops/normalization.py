"""Batch normalization (Ioffe and Szegedy, 2015)."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels import batch_norm as kernels
from .elementwise import sqrt
from .reduction import mean, var
from .shape import reshape


def _train_forward(
    input: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: float,
) -> tuple[Array, tuple[Array, Array]]:
    """Normalizes with the batch's statistics and moves the running ones towards them, in place, as PyTorch does."""
    output, batch_mean, invstd, biased = kernels.batch_norm_train(input, weight, bias, eps)
    count = input.size // input.shape[1]
    if running_mean is not None and running_var is not None and count > 0:  # a rank without samples has none to give
        unbiased = biased * (count / (count - 1))
        running_mean += momentum * (batch_mean - running_mean)
        running_var += momentum * (unbiased - running_var)
    return output, (batch_mean, invstd)


def _per_channel(x: Tensor, ndim: int) -> Tensor:
    return reshape(x, (1, -1) + (1,) * (ndim - 2))


def _affine(normalized: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        normalized = normalized * _per_channel(weight, normalized.ndim)
    return normalized if bias is None else normalized + _per_channel(bias, normalized.ndim)


def _train_decomposition(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, **running: Any
) -> Tensor:
    dims = (0, *range(2, input.ndim))
    centred = input - mean(input, dims, keepdim=True)
    return _affine(centred / sqrt(var(input, dims, correction=0, keepdim=True) + eps), weight, bias)


_train: Primitive = define(
    "NativeBatchNorm",
    _train_forward,
    ("input", "weight", "bias"),
    residuals=("mean", "invstd"),
    decomposition=_train_decomposition,
    input=lambda g, input, weight, mean, invstd: kernels.batch_norm_train_backward(
        g, input, weight, mean, invstd, (True, False, False)
    )[0],
    weight=lambda g, input, weight, mean, invstd: kernels.batch_norm_train_backward(
        g, input, weight, mean, invstd, (False, True, False)
    )[1],
    bias=lambda g, input, weight, mean, invstd: kernels.batch_norm_train_backward(
        g, input, weight, mean, invstd, (False, False, True)
    )[2],
)
_eval: Primitive = define(
    "BatchNormEval",
    lambda input, weight, bias, running_mean, running_var, eps: kernels.batch_norm_eval(
        input, weight, bias, running_mean, running_var, eps
    ),
    ("input", "weight", "bias"),
)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes each channel to mean 0 and variance 1, then scales and shifts it; ``torch.nn.functional.batch_norm``.

    Args:
        input: (N, C, ...).
        running_mean: (C,), used in evaluation and moved, in place, towards the batch's in training.
        running_var: (C,), likewise; it is moved towards the unbiased variance.
        weight: (C,) scale.
        bias: (C,) shift.
        training: normalize with the statistics of this batch.
        momentum: how far the running statistics move.
        eps: added to the variance.

    Raises:
        ValueError: training with one value per channel, whose variance does not exist.
        RuntimeError: a parameter whose length is not C; evaluation without running statistics.
    """
    if input.ndim < 2:
        raise RuntimeError(f"batch_norm: expected an input (N, C, ...), got {list(input.shape)}")
    channels = input.shape[1]
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, tensor in named.items():
        if tensor is not None and tuple(tensor.shape) != (channels,):
            raise RuntimeError(
                f"{name} should contain {channels} elements not {tensor.numel()} (input {list(input.shape)})"
            )
    if training:
        if input.numel() == channels:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        out: Tensor = _train(
            input,
            weight,
            bias,
            eps=eps,
            running_mean=None if running_mean is None else running_mean._data,
            running_var=None if running_var is None else running_var._data,
            momentum=momentum,
        )
        for statistic in (running_mean, running_var):
            if statistic is not None:
                statistic._changed()
        return out
    if running_mean is None or running_var is None:
        raise RuntimeError("Expected running_mean and running_var to be defined when training=False")
    # With constant statistics this is a scale and a shift, of which the elementwise operations know the derivatives.
    recorded = mode.enabled and any(x is not None and x.requires_grad for x in (input, weight, bias))
    if not recorded:
        out = _eval(input, weight, bias, running_mean=running_mean._data, running_var=running_var._data, eps=eps)
        return out
    scale = 1.0 / sqrt(running_var + eps)
    if weight is not None:
        scale = scale * weight
    shift = -running_mean * scale
    if bias is not None:
        shift = shift + bias
    return input * _per_channel(scale, input.ndim) + _per_channel(shift, input.ndim)

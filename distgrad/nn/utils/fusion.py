"""Batch normalization put into the weights of the layer before it, which saves its passes in evaluation."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np

from ...autograd import Tensor
from ...autograd.tensor import Array
from ..batchnorm import _BatchNorm
from ..linear import Linear
from ..module import Module
from ..parameter import Parameter

Layer = TypeVar("Layer", bound=Module)


def _scale_and_shift(
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    weight: Tensor | None,
    shift: Tensor | None,
) -> tuple[Array, Array]:
    """What the outputs of the layer are multiplied with, and the new bias; both in float64."""
    mean, var = (v._data.astype(np.float64) for v in (running_mean, running_var))
    scale = 1.0 / np.sqrt(var + eps) * (1.0 if weight is None else weight._data)
    before = np.zeros(mean.shape) if bias is None else bias._data
    return scale, (before - mean) * scale + (0.0 if shift is None else shift._data)


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution that does what the given one and batch normalization in evaluation do.

    Args:
        conv_w: (out, in, ...), or (in, out, ...) with ``transpose``.
        conv_b: (out,), or None.
        bn_rm: the running mean, (out,).
        bn_rv: the running variance, (out,).
        bn_eps: added to it.
        bn_w: the scale of the normalization, or None.
        bn_b: its shift, or None.
        transpose: the convolution is a transposed one.
    """
    scale, bias = _scale_and_shift(conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)
    shape = [1] * conv_w.ndim
    shape[1 if transpose else 0] = -1
    weight = (conv_w._data * scale.reshape(shape)).astype(conv_w.dtype)
    trained = conv_w.requires_grad if conv_b is None else conv_b.requires_grad
    return Parameter(weight, conv_w.requires_grad), Parameter(bias.astype(conv_w.dtype), trained)


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a linear layer that does what the given one and batch normalization in evaluation do."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def _check(layer: Module, bn: _BatchNorm) -> None:
    if layer.training or bn.training:
        raise ValueError("Fusion only for eval! Call eval() on both layers first")
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("bn.running_mean and bn.running_var must not be None: fusion needs running statistics")


def _fused(layer: Layer, bn: _BatchNorm, **options: Any) -> Layer:
    fused = copy.deepcopy(layer)
    assert bn.running_mean is not None and bn.running_var is not None
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, **options
    )
    return fused


def fuse_conv_bn_eval(conv: Layer, bn: _BatchNorm, transpose: bool = False) -> Layer:
    """A copy of a convolution that does what it and the batch normalization behind it do in evaluation.

    Args:
        conv: the convolution, in evaluation mode.
        bn: the normalization, in evaluation mode and with running statistics.
        transpose: ``conv`` is a transposed convolution.

    Raises:
        ValueError: training mode, or no running statistics.
    """
    _check(conv, bn)
    return _fused(conv, bn, transpose=transpose)


def fuse_linear_bn_eval(linear: Linear, bn: _BatchNorm) -> Linear:
    """A copy of a linear layer that does what it and the batch normalization behind it do in evaluation.

    Raises:
        ValueError: training mode, no running statistics, or another number of features.
    """
    _check(linear, bn)
    if bn.num_features not in (linear.out_features, 1):
        raise ValueError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1, got linear.out_features="
            f"{linear.out_features} and bn.num_features={bn.num_features}"
        )
    return _fused(linear, bn)

"""Layers that normalize within a sample: layer, RMS, group and instance normalization, and local response."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor
from . import functional as F
from . import init
from .batchnorm import _NormBase
from .module import Module
from .parameter import Parameter, new_parameter


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(normalized_shape, Sequence):
        return tuple(operator.index(n) for n in normalized_shape)
    return (operator.index(normalized_shape),)


def _reset(weight: Parameter | None, bias: Parameter | None) -> None:
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)


class LayerNorm(Module):
    """Normalizes the last dimensions of each sample to mean 0 and variance 1, then scales and shifts (Ba et al., 2016).

    Args:
        normalized_shape: the last dimensions; a number for one of them.
        eps: added to the (biased) variance.
        elementwise_affine: whether there are ``weight`` and ``bias``, each of that shape.
        bias: whether there is a ``bias``, if ``elementwise_affine``.
        device: "cpu".
        dtype: of the parameters, the default dtype without it.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = affine = elementwise_affine
        self.register_parameter("weight", new_parameter(self.normalized_shape, device, dtype) if affine else None)
        self.register_parameter(
            "bias", new_parameter(self.normalized_shape, device, dtype) if affine and bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(..., *normalized_shape), which does not change."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """Divides the last dimensions of each sample by the root of their mean square (Zhang and Sennrich, 2019).

    Args:
        normalized_shape: the last dimensions; a number for one of them.
        eps: added to the mean square; without it the distance from 1 to the next number of the dtype.
        elementwise_affine: whether there is a ``weight`` of that shape.
        device: "cpu".
        dtype: of the weight, the default dtype without it.
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter(
            "weight", new_parameter(self.normalized_shape, device, dtype) if elementwise_affine else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1."""
        _reset(self.weight, None)

    def forward(self, input: Tensor) -> Tensor:
        """(..., *normalized_shape), which does not change."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Normalizes groups of channels of each sample, then scales and shifts each channel (Wu and He, 2018).

    Args:
        num_groups: how many groups of neighbouring channels.
        num_channels: how many channels.
        eps: added to the (biased) variance.
        affine: whether there are ``weight`` and ``bias``, each (num_channels,).
        device: "cpu".
        dtype: of the parameters, the default dtype without it.
        bias: whether there is a ``bias``, if ``affine``.

    Raises:
        ValueError: the groups do not divide the channels.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.register_parameter("weight", new_parameter((num_channels,), device, dtype) if affine else None)
        self.register_parameter("bias", new_parameter((num_channels,), device, dtype) if affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...), which does not change."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class _InstanceNorm(_NormBase):
    """Instance normalization of channels with ``_spatial`` dimensions behind them."""

    _spatial: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) or (C, ...), which does not change.

        Raises:
            ValueError: a wrong number of dimensions or channels, or one value per channel.
        """
        without_batch = self._spatial + 1
        if input.ndim not in (without_batch, without_batch + 1):
            raise ValueError(f"expected {without_batch}D or {without_batch + 1}D input (got {input.ndim}D input)")
        place = input.ndim - without_batch
        if input.shape[place] != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim={place} to match num_features ({self.num_features}), but got: "
                    f"{input.shape[place]}."
                )
            warnings.warn(
                f"input's size at dim={place} does not match num_features. You can silence this warning by not passing "
                "in num_features, which is not used because affine=False",
                stacklevel=3,
            )
        out = F.instance_norm(
            input if place else input.unsqueeze(0),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            use_input_stats=self.training or not self.track_running_stats,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
        )
        return out if place else out.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Normalizes each channel of each sample of (N, C, L) or (C, L); see ``InstanceNorm2d``."""

    _spatial = 1


class InstanceNorm2d(_InstanceNorm):
    """Normalizes each channel of each sample of (N, C, H, W) or (C, H, W) (Ulyanov et al., 2016).

    Args:
        num_features: C.
        eps: added to the (biased) variance.
        momentum: how far the running statistics move.
        affine: whether there are ``weight`` and ``bias``, each (C,).
        track_running_stats: whether there are running statistics, which then serve in evaluation.
        device: "cpu".
        dtype: of parameters and statistics, the default dtype without it.
        bias: whether there is a ``bias``, if ``affine``.
    """

    _spatial = 2


class InstanceNorm3d(_InstanceNorm):
    """Normalizes each channel of each sample of (N, C, D, H, W) or (C, D, H, W); see ``InstanceNorm2d``."""

    _spatial = 3


class LocalResponseNorm(Module):
    """Divides by ``(k + alpha * m) ** beta``, m the mean square of the ``size`` nearest channels (Krizhevsky, 2012).

    Args:
        size: how many channels; of an even number one more lies in front than behind.
        alpha: how much the mean square counts.
        beta: the exponent.
        k: what is added.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...), which does not change."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"

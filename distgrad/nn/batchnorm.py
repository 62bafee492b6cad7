"""Batch normalization layers (Ioffe and Szegedy, 2015), and what they share with instance normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter, new_buffer, new_parameter


class _NormBase(Module):
    """Scale, shift and running statistics of channels: the state of batch and instance normalization."""

    _version = 2  # since when there is num_batches_tracked
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        size = (num_features,)
        self.register_parameter("weight", new_parameter(size, device, dtype) if affine else None)
        self.register_parameter("bias", new_parameter(size, device, dtype) if affine and bias else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", new_buffer(size, 0, device, dtype) if tracked else None)
        self.register_buffer("running_var", new_buffer(size, 1, device, dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", new_buffer((), 0, device, np.int64) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forgets the batches seen: mean 0, variance 1."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0, running mean 0, running variance 1."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        version = local_metadata.get("version")
        if (version is None or version < 2) and self.num_batches_tracked is not None:
            state_dict.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class _BatchNorm(_NormBase):
    _batch_norm = staticmethod(F.batch_norm)

    def _check_input(self, input: Tensor) -> None:
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """The input normalized; its shape does not change.

        Raises:
            ValueError: a wrong number of dimensions, or training with one value per channel.
        """
        self._check_input(input)
        momentum = self.momentum or 0.0
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                batching: Any = mode.state.batching
                if batching is not None and batching.captures:
                    batching.refuse("BatchNorm with momentum=None moves its statistics differently at every step")
                # the mean over all batches: each new one counts as much as each before it
                momentum = 1.0 / float(self.num_batches_tracked)
        # the running statistics, where they are to be read or moved
        kept = not self.training or self.track_running_stats
        return self._batch_norm(
            input,
            self.running_mean if kept else None,
            self.running_var if kept else None,
            self.weight,
            self.bias,
            training=self.training or (self.running_mean is None and self.running_var is None),
            momentum=momentum,
            eps=self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Normalizes each feature of (N, C) or (N, C, L) over the batch; see ``BatchNorm2d``."""

    def _check_input(self, input: Tensor) -> None:
        if input.ndim not in (2, 3):
            raise ValueError(f"expected 2D or 3D input (got {input.ndim}D input)")


class BatchNorm2d(_BatchNorm):
    """Normalizes each channel of (N, C, H, W) to mean 0 and variance 1, then scales by ``weight`` and adds ``bias``.

    In training the statistics are the batch's, with the biased variance, and the running ones move towards them (the
    variance towards the unbiased one): ``running += momentum * (batch - running)``. In evaluation they are the running
    ones.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: how far the running statistics move; None for their mean over all batches.
        affine: whether there are ``weight`` and ``bias``, each (C,).
        track_running_stats: without them the batch's statistics serve in evaluation too.
        device: "cpu".
        dtype: of parameters and statistics, the default dtype without it.
        bias: whether there is a ``bias``, if ``affine``.
    """

    def _check_input(self, input: Tensor) -> None:
        if input.ndim != 4:
            raise ValueError(f"expected 4D input (got {input.ndim}D input)")


class BatchNorm3d(_BatchNorm):
    """Normalizes each channel of (N, C, D, H, W); see ``BatchNorm2d``."""

    def _check_input(self, input: Tensor) -> None:
        if input.ndim != 5:
            raise ValueError(f"expected 5D input (got {input.ndim}D input)")

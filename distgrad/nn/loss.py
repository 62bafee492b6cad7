"""Losses as layers."""

from __future__ import annotations

from ..autograd import Tensor
from . import functional as F
from .module import Module


class MSELoss(Module):
    """The squared difference, its mean or its sum.

    Args:
        reduction: "none", "mean" or "sum".
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.mse_loss(input, target, self.reduction)


class NLLLoss(Module):
    """The negative log likelihood of class indices.

    Args:
        weight: (C,), a factor for each class; the mean is then weighted.
        ignore_index: samples of this target count for nothing.
        reduction: "none", "mean" or "sum".
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities (N, C, ...) and int64 classes (N, ...)."""
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class CrossEntropyLoss(Module):
    """The cross entropy of logits and classes.

    Args:
        weight: (C,), a factor for each class; the mean over class indices is then weighted.
        ignore_index: samples of this target count for nothing.
        reduction: "none", "mean" or "sum".
        label_smoothing: this share of each target is spread evenly over the classes (Szegedy et al., 2016).
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C, ...) and int64 classes (N, ...) or probabilities (N, C, ...)."""
        return F.cross_entropy(input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)

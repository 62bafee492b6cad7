"""Losses as layers. Each holds the options of the function that it calls, under PyTorch's names and in its order.

PyTorch's deprecated arguments ``size_average`` and ``reduce`` are there to be refused, so that the arguments behind
them keep their positions.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor
from ..ops.loss import _refuse_legacy
from . import functional as F
from .distance import PairwiseDistance
from .module import Module


class _Loss(Module):
    """A loss with a reduction.

    Args:
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: ``size_average`` or ``reduce`` is given.
    """

    def __init__(self, size_average: None = None, reduce: None = None, reduction: str = "mean") -> None:
        super().__init__()
        _refuse_legacy(size_average, reduce)
        self.reduction = reduction


class _WeightedLoss(_Loss):
    """A loss with a ``weight``, which is a buffer: it follows the module's dtype and is part of its state."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


# Classes ------------------------------------------------------------------------------------------------------------


class NLLLoss(_WeightedLoss):
    """The negative log likelihood of class indices.

    Args:
        weight: (C,), a factor for each class; the mean is then weighted.
        size_average: deprecated in PyTorch, refused here.
        ignore_index: samples of this target count for nothing.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities (N, C, ...) and int64 classes (N, ...)."""
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class CrossEntropyLoss(_WeightedLoss):
    """The cross entropy of logits and classes.

    Args:
        weight: (C,), a factor for each class; the mean over class indices is then weighted.
        size_average: deprecated in PyTorch, refused here.
        ignore_index: samples of this target count for nothing.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
        label_smoothing: this share of each target is spread evenly over the classes (Szegedy et al., 2016).
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = -100,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C, ...) and int64 classes (N, ...) or probabilities (N, C, ...)."""
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class MultiMarginLoss(_WeightedLoss):
    """The mean over the wrong classes of ``max(0, margin - input[target] + input[class]) ** p``.

    Args:
        p: 1 or 2.
        margin: by how much the right class is to stand out.
        weight: (C,), a factor for each right class.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: another ``p``, or a weight that is no vector.
    """

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise ValueError(f"only p == 1 and p == 2 supported, not {p}")
        if weight is not None and weight.ndim != 1:
            raise ValueError(f"weight must be one-dimensional, but its shape is {list(weight.shape)}")
        self.p = p
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Scores (N, C) and int64 classes (N,)."""
        return F.multi_margin_loss(input, target, self.p, self.margin, self.weight, reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """The sum over right and wrong classes of ``max(0, 1 - input[right] + input[wrong])``, over C."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Scores (N, C) and int64 (N, C): in each row the right classes, up to the first -1."""
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """The binary cross entropy of logits and targets in [0, 1], its mean over the classes."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C) and targets (N, C)."""
        return F.multilabel_soft_margin_loss(input, target, self.weight, reduction=self.reduction)


# Regression ---------------------------------------------------------------------------------------------------------


class MSELoss(_Loss):
    """The squared difference, its mean or its sum."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The magnitude of the difference, its mean or its sum."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """A parabola up to the difference ``beta``, then a straight line of slope 1 (Girshick, 2015).

    Args:
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
        beta: where the parabola ends; 0 gives ``L1Loss``.
    """

    def __init__(
        self, size_average: None = None, reduce: None = None, reduction: str = "mean", beta: float = 1.0
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """A parabola of curvature 1 up to the difference ``delta``, then a straight line (Huber, 1964).

    Args:
        reduction: "none", "mean" or "sum".
        delta: where the parabola ends.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.huber_loss(input, target, self.reduction, self.delta)


# Probabilities and likelihoods --------------------------------------------------------------------------------------


class BCELoss(_WeightedLoss):
    """The binary cross entropy of probabilities."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape, with values in [0, 1]."""
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """The binary cross entropy of logits and probabilities, without overflow.

    Args:
        weight: a factor for each element, which broadcasts.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
        pos_weight: a factor for the part of the target, which broadcasts: (C,) for the classes of (N, C).
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape, the target with values in [0, 1]."""
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class SoftMarginLoss(_Loss):
    """log(1 + exp(-target * input)) for targets 1 and -1."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class KLDivLoss(_Loss):
    """The Kullback-Leibler divergence of log-probabilities from probabilities.

    Args:
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" (which is not the divergence and warns), "batchmean" or "sum".
        log_target: the target are log-probabilities too.
    """

    def __init__(
        self, size_average: None = None, reduce: None = None, reduction: str = "mean", log_target: bool = False
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(_Loss):
    """The negative log likelihood of counts under a Poisson distribution.

    Args:
        log_input: the input is the logarithm of the rate, not the rate.
        full: add Stirling's approximation of log(target!).
        size_average: deprecated in PyTorch, refused here.
        eps: added to a rate before its logarithm is taken.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: None = None,
        eps: float = 1e-8,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        """Two tensors of one shape."""
        return F.poisson_nll_loss(
            log_input, target, log_input=self.log_input, full=self.full, eps=self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(_Loss):
    """The negative log likelihood of a target under normal distributions.

    Args:
        full: add log(2 * pi) / 2.
        eps: the smallest variance.
        reduction: "none", "mean" or "sum".
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        """Means, the target, and variances: of the input's shape, one for all of its last dimension, or a number."""
        return F.gaussian_nll_loss(input, target, var, full=self.full, eps=self.eps, reduction=self.reduction)


# Distances ----------------------------------------------------------------------------------------------------------


class _MarginLoss(_Loss):
    """A loss with a margin.

    Args:
        margin: the distance or difference that is far enough.
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".
    """

    def __init__(
        self, margin: float = 0.0, size_average: None = None, reduce: None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin


class CosineEmbeddingLoss(_MarginLoss):
    """``1 - cos`` for pairs that belong together (target 1), ``max(0, cos - margin)`` for others (-1)."""

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """Vectors (N, D), vectors (N, D), and (N,) of 1 and -1."""
        return F.cosine_embedding_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class HingeEmbeddingLoss(_MarginLoss):
    """A distance for pairs that belong together (target 1), ``max(0, margin - distance)`` for others (-1)."""

    def __init__(
        self, margin: float = 1.0, size_average: None = None, reduce: None = None, reduction: str = "mean"
    ) -> None:
        super().__init__(margin, size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Distances, and 1 and -1 of the same shape."""
        return F.hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class MarginRankingLoss(_MarginLoss):
    """``max(0, margin - target * (input1 - input2))``: by how much the first is not the larger one (target 1)."""

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """Scores, scores, and 1 and -1, all of one shape."""
        return F.margin_ranking_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """``max(0, margin + |anchor - positive| - |anchor - negative|)``.

    Args:
        margin: by how much the negative is to be further away, above 0.
        p: of the norm.
        eps: added to each difference.
        swap: measure the negative from the positive where that is nearer (Balntas et al., 2016).
        size_average: deprecated in PyTorch, refused here.
        reduce: as ``size_average``.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: a margin that is not positive.
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        _check_margin(margin)
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Three tensors (N, D) or (D,)."""
        return F.triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )


class TripletMarginWithDistanceLoss(_Loss):
    """``TripletMarginLoss`` with a distance of one's own.

    Args:
        distance_function: of two tensors; ``nn.PairwiseDistance()`` without it.
        margin: by how much the negative is to be further away, above 0.
        swap: measure the negative from the positive where that is nearer.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: a margin that is not positive.
    """

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        _check_margin(margin)
        self.distance_function = PairwiseDistance() if distance_function is None else distance_function
        self.margin = margin
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Three tensors (N, D) or (D,)."""
        return F.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )


def _check_margin(margin: float) -> None:
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")

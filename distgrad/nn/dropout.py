"""Dropout of elements and of whole channels (Srivastava et al., 2014), and for SELU (Klambauer et al., 2017)."""

from __future__ import annotations

from ..autograd import Tensor
from . import functional as F
from .module import Module


class _Dropout(Module):
    """What all of them have: a probability, and whether the result is written over the input."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The arguments."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, zeroes each element with probability ``p`` and scales the rest by 1 / (1 - p).

    Args:
        p: the probability.
        inplace: write the result over the input.

    Raises:
        ValueError: ``p`` is not in [0, 1].
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_Dropout):
    """In training, zeroes each channel with probability ``p`` and scales the rest by 1 / (1 - p). Arguments as of
    ``Dropout``."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) or (C, L), which does not change."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """In training, zeroes each channel with probability ``p`` and scales the rest by 1 / (1 - p). Arguments as of
    ``Dropout``."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W), which does not change; (N, C, L) and others as ``functional.dropout2d`` takes them."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """In training, zeroes each channel with probability ``p`` and scales the rest by 1 / (1 - p). Arguments as of
    ``Dropout``."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, D, H, W) or (C, D, H, W), which does not change."""
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """In training, sets each element with probability ``p`` to the value that SELU saturates at, then scales and shifts
    all so that mean 0 and variance 1 stay. Arguments as of ``Dropout``."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_Dropout):
    """``AlphaDropout`` of whole channels. Arguments as of ``Dropout``."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...), which does not change."""
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)

"""Activation functions as layers."""

from __future__ import annotations

from ..autograd import Tensor
from . import functional as F
from .module import Module


class ReLU(Module):
    """max(x, 0); its gradient at 0 is 0.

    Args:
        inplace: write the result over the input. This engine saves no memory by it; it is there for models that rely
            on the input being changed.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.relu(input, self.inplace)

    def extra_repr(self) -> str:
        """The argument, if set."""
        return "inplace=True" if self.inplace else ""


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.tanh(input)


class Softmax(Module):
    """exp(x) over its sum along ``dim``.

    Args:
        dim: along which the results sum to 1; leaving it out is deprecated in PyTorch, and warns.
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The argument."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """The logarithm of ``Softmax``, computed without it.

    Args:
        dim: along which the probabilities sum to 1; leaving it out is deprecated in PyTorch, and warns.
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The argument."""
        return f"dim={self.dim}"

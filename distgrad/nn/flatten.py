"""Layers that change the shape alone."""

from __future__ import annotations

from ..autograd import Tensor
from ..ops.shape import flatten
from .module import Module


class Flatten(Module):
    """Several dimensions as one, by default all but the batch's.

    Args:
        start_dim: the first of them.
        end_dim: the last, included.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C * H * W), by default."""
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"

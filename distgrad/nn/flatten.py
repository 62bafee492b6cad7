"""Layers that change the shape alone."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from ..autograd import Tensor
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
        out: Tensor = input.flatten(self.start_dim, self.end_dim)
        return out

    def extra_repr(self) -> str:
        """The arguments."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One dimension as several, the reverse of ``Flatten``.

    Args:
        dim: the dimension.
        unflattened_size: the lengths that it becomes, one of which may be -1.

    Raises:
        TypeError: the lengths are no tuple or list of ints.
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, (tuple, list)):
            raise TypeError(
                f"unflattened_size must be a tuple of ints, but found type {type(unflattened_size).__name__}"
            )
        for place, length in enumerate(unflattened_size):
            if not hasattr(length, "__index__"):
                raise TypeError(
                    f"unflattened_size must be tuple of ints, but found element of type {type(length).__name__} at pos "
                    f"{place}"
                )
        self.dim = operator.index(dim)
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        """(N, C * H * W) -> (N, C, H, W), say."""
        out: Tensor = input.unflatten(self.dim, self.unflattened_size)
        return out

    def extra_repr(self) -> str:
        """The arguments."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"

"""Slices scaled down to a largest norm."""

from __future__ import annotations

from ..autograd import Tensor
from .dims import dim_argument, numpy_names
from .distance import _norm_along
from .elementwise import where

__all__ = ["renorm"]  # what distgrad itself offers
METHODS = ["renorm"]  # what a Tensor offers
IN_PLACE = ["renorm"]  # of these, what also exists as NAME_


@numpy_names
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """``input`` with those slices of ``dim`` whose ``p``-norm is above ``maxnorm`` scaled to it, as ``torch.renorm``.

    Args:
        input: floating point, at least two dimensions.
        p: above 0, also ``math.inf``.
        dim: the dimension whose slices are scaled, each by its own factor.
        maxnorm: the largest norm, not negative.

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: integers, fewer dimensions, or numbers out of range.
    """
    if p <= 0:
        raise RuntimeError(f"renorm: non-positive-norm not supported, but p is {p}")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if input.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    if not input.is_floating_point():
        raise RuntimeError(f"renorm: Expected a floating point tensor as input. Got {input.dtype}")
    axis = dim_argument("renorm", dim, input.ndim, position=3)
    norm = _norm_along(input, p, tuple(d for d in range(input.ndim) if d != axis), keepdim=True)
    above = norm > maxnorm
    out: Tensor = input * where(above, maxnorm / (where(above, norm, 1.0) + 1e-7), 1.0)
    return out

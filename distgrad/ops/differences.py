"""Differences of neighbours and integrals of samples along a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from .comparison import logical_xor
from .dims import dim_argument, int_argument, numpy_names
from .elementwise import clone
from .join import cat
from .reduction import sum
from .scan import cumsum
from .shape import _narrow, reshape

__all__ = [  # what distgrad itself offers
    "cumulative_trapezoid",
    "diff",
    "trapezoid",
    "trapz",
]
METHODS = ["diff"]  # what a Tensor offers


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """All but the first, and all but the last."""
    length = max(x.shape[axis] - 1, 0)
    behind: Tensor = _narrow(x, dim=axis, start=min(1, x.shape[axis]), length=length)
    before: Tensor = _narrow(x, dim=axis, start=0, length=length)
    return behind, before


@numpy_names
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """The differences of neighbours along ``dim``, ``n`` times; for bools, whether they differ. As ``torch.diff``.

    Args:
        input: any dtype, at least one dimension.
        n: how often; 0 gives the tensor itself.
        dim: along which to subtract.
        prepend: what to put in front first: of the shape of ``input`` but along ``dim``.
        append: what to put behind, likewise.

    Returns:
        Along ``dim`` shorter by ``n`` (or empty).

    Raises:
        IndexError: ``dim`` is out of range.
        RuntimeError: no dimensions, a negative ``n``, or shapes that do not fit.
    """
    if not input.ndim:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if int_argument("diff", "n", n, 2) < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    axis = dim_argument("diff", dim, input.ndim, position=3)
    parts = [part for part in (prepend, input, append) if part is not None]
    for part in parts:
        if part.ndim != input.ndim:
            raise RuntimeError(
                "diff expects prepend or append to be the same dimension as input: "
                f"{list(part.shape)} and {list(input.shape)}"
            )
    out = cat(parts, axis) if len(parts) > 1 else input if n else clone(input)
    for _ in range(min(n, out.shape[axis])):
        behind, before = _neighbours(out, axis)
        out = logical_xor(behind, before) if out.dtype == np.bool_ else behind - before
    return out


def _areas(name: str, y: Tensor, x: Tensor | None, dx: Any, dim: Any) -> tuple[Tensor, int]:
    """Of the trapezoids between neighbouring samples."""
    if not y.ndim:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    axis = dim_argument(name, dim, y.ndim)
    for argument, value in (("y", y), ("x", x)):
        if isinstance(value, Tensor) and value.dtype == np.bool_:
            raise RuntimeError(f"{name}: received a bool input for `{argument}`, but bool is not supported")
    behind, before = _neighbours(y, axis)
    if x is None:
        return (behind + before) * (dx / 2.0), axis
    if x.ndim == 1:
        if x.shape[0] != y.shape[axis]:
            raise RuntimeError(
                f"{name}: There must be one `x` value for each sample point: {x.shape[0]} and {y.shape[axis]}"
            )
        x = reshape(x, tuple(-1 if d == axis else 1 for d in range(y.ndim)))
    place = axis - y.ndim + x.ndim  # counted from the right, where shapes are aligned
    if place < 0 or x.shape[place] != y.shape[axis]:
        raise RuntimeError(
            f"{name}: There must be one `x` value for each sample point: the shapes are {list(x.shape)} and "
            f"{list(y.shape)}"
        )
    upper, lower = _neighbours(x, place)
    return (behind + before) * (upper - lower) / 2.0, axis


@numpy_names
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral along ``dim`` by the trapezoidal rule, as ``torch.trapezoid``.

    Args:
        y: the samples.
        x: where they were taken: a vector, or what broadcasts with ``y``.
        dx: their distance, without ``x``.
        dim: along which to integrate.

    Raises:
        IndexError: ``dim`` is out of range, or ``y`` has no dimensions.
        RuntimeError: bools, or not as many places as samples.
    """
    areas, axis = _areas("trapezoid", y, x, dx, dim)
    return sum(areas, axis - y.ndim)


@numpy_names
def trapz(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The older name of ``trapezoid``."""
    return trapezoid(y, x, dx=dx, dim=dim)


@numpy_names
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral up to each sample but the first; arguments as of ``trapezoid``. Along ``dim`` shorter by 1."""
    areas, axis = _areas("cumulative_trapezoid", y, x, dx, dim)
    return cumsum(areas, axis - y.ndim)

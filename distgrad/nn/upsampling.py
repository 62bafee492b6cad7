"""Layers that change the resolution by interpolation."""

from __future__ import annotations

from collections.abc import Sequence

from ..autograd import Tensor
from . import functional as F
from .module import Module


class Upsample(Module):
    """``F.interpolate`` as a layer: (N, C, ...) to a given size, or larger by a factor.

    Args:
        size: lengths of the result behind the channels, or one for all of them.
        scale_factor: instead of ``size``: how many times longer the result is, rounded down.
        mode: "nearest", "linear", "bilinear", "bicubic", "trilinear" and the others of ``F.interpolate``.
        align_corners: of the linear and cubic modes, whether the centres of the corner pixels keep their places, rather
            than the outer edges.
        recompute_scale_factor: with ``scale_factor``, whether the positions follow from the rounded lengths rather than
            from the factor as given.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.size = size
        self.scale_factor: float | tuple[float, ...] | None = None
        if isinstance(scale_factor, tuple):
            self.scale_factor = tuple(float(factor) for factor in scale_factor)
        elif scale_factor is not None:
            self.scale_factor = float(scale_factor)
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, *size)."""
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        """Size or factor, and mode."""
        size = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """``Upsample`` of (N, C, H, W) in mode "nearest".

    Args:
        size: height and width of the result.
        scale_factor: instead of ``size``: how many times larger the result is.
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
    ) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """``Upsample`` of (N, C, H, W) in mode "bilinear" with aligned corners.

    Args:
        size: height and width of the result.
        scale_factor: instead of ``size``: how many times larger the result is.
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
    ) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)

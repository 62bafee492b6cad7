"""Which algorithm a convolution's shape gets."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from .convolution_plan import ConvolutionPlan, ConvolutionShape
from .depthwise_convolution import DepthwisePlan
from .direct_convolution import DirectPlan
from .stem_convolution import StemPlan
from .winograd import WinogradPlan, best_tile

# With so few channels, the pixels under a tap are too short a run to be copied one by one.
_FEW_CHANNELS = 4


@lru_cache(maxsize=4096)
def choose(shape: ConvolutionShape, algorithm: Literal["auto", "direct"], frozen: bool = False) -> ConvolutionPlan:
    """The fastest plan for a shape.

    Args:
        shape: float32 or float64.
        algorithm: ``"auto"``, or ``"direct"`` for one without Winograd's transforms: ``distgrad.backends.convolution``.
        frozen: the weight is packed once, and no gradient is asked for.

    Returns:
        A plan, the same object for the same arguments.
    """
    if shape.groups == shape.c > 1:
        return DepthwisePlan(shape)
    if algorithm == "auto" and (tile := best_tile(shape, frozen)) is not None:
        return WinogradPlan(shape, tile)
    strips = shape.groups == 1 and shape.c <= _FEW_CHANNELS and shape.dilation[0] == 1
    if strips and shape.kh * shape.kw > 1:
        return StemPlan(shape)
    return DirectPlan(shape)

"""Which algorithm a convolution's shape gets."""

from __future__ import annotations

from functools import lru_cache

from . import compiled_convolution, compiled_stem
from .compiled_convolution import CompiledPlan
from .compiled_stem import CompiledStemPlan
from .convolution_plan import ConvolutionPlan, ConvolutionShape
from .depthwise_convolution import DepthwisePlan
from .direct_convolution import DirectPlan
from .jit.machine import machine
from .stem_convolution import StemPlan
from .winograd import WinogradPlan, best_tile

# With so few channels, the pixels under a tap are too short a run to be copied one by one.
_FEW_CHANNELS = 4


def choose(shape: ConvolutionShape, algorithm: str, frozen: bool = False) -> ConvolutionPlan:
    """The fastest plan for a shape.

    Args:
        shape: float32 or float64.
        algorithm: ``"auto"``, or ``"direct"`` for one without Winograd's transforms: ``distgrad.backends.convolution``.
        frozen: the weight is packed once, and no gradient is asked for.

    Returns:
        A plan, the same object for the same arguments and the same ``distgrad.backends.jit``.
    """
    return _choose(shape, algorithm, frozen, machine() is not None)


def forget_choices() -> None:
    """Makes plans anew when they are next asked for: what they were chosen by, such as BLAS's threads, has changed."""
    _choose.cache_clear()


@lru_cache(maxsize=4096)
def _choose(shape: ConvolutionShape, algorithm: str, frozen: bool, compiled: bool) -> ConvolutionPlan:
    if shape.groups == shape.c > 1:
        return DepthwisePlan(shape)
    products = compiled and shape.n > 0 and compiled_convolution.takes(shape)
    if algorithm == "auto" and (tile := best_tile(shape, frozen, products)) is not None:
        return WinogradPlan(shape, tile)
    if products:
        return CompiledPlan(shape)
    strips = shape.groups == 1 and shape.c <= _FEW_CHANNELS and shape.dilation[0] == 1
    if strips and shape.kh * shape.kw > 1:
        return CompiledStemPlan(shape) if compiled and compiled_stem.takes(shape) else StemPlan(shape)
    return DirectPlan(shape)

"""Plans in place of eager calls: a function's operations captured once, fused, and run in memory that is used again.

``compile`` is what users call (``distgrad.compile``). Reading order: ``capture`` (what happens), ``graph`` (what is
noted), ``fusion`` (what becomes one step), ``steps`` and ``convolution_step`` (what a step does), ``memory``, ``plan``.
"""

from ..kernels.workspace import scratch_bytes
from .capture import CaptureError
from .compiled import CompiledModule, compile, reset
from .frozen import Split, split_frozen

__all__ = ["CaptureError", "CompiledModule", "Split", "compile", "reset", "scratch_bytes", "split_frozen"]

"""The engine: tensors, the graph they record, and its traversal. It knows no operation; those are in ``distgrad.ops``.

Read in this order: ``tensor`` (what is recorded on), ``primitive`` (how an operation is made known and records itself),
``engine`` (the backward pass), ``derivatives`` (``backward`` and ``grad``), ``view`` and ``inplace`` (what happens when
memory changes). The rest are tools on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import no_attribute
from . import functional, graph
from .anomaly import detect_anomaly, is_anomaly_check_nan_enabled, is_anomaly_enabled, set_detect_anomaly
from .derivatives import backward, grad
from .function import Function
from .grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .gradcheck import gradcheck, gradgradcheck
from .tensor import Size, Tensor

if TYPE_CHECKING:
    from .drawing import draw

Variable = Tensor

__all__ = [
    "Function",
    "Size",
    "Tensor",
    "Variable",
    "backward",
    "detect_anomaly",
    "draw",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]


def __getattr__(name: str) -> object:
    """``draw``, which is imported when it is first used; of another name, that there is none, and which is nearest."""
    if name == "draw":
        from .drawing import draw

        return draw
    raise no_attribute("module 'distgrad.autograd'", name, __all__)

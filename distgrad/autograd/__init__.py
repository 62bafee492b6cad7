"""The engine: tensors, the graph they record, and its traversal. It knows no operation; those are in ``distgrad.ops``.

Read in this order: ``tensor`` (what is recorded on), ``primitive`` (how an operation is made known and records itself),
``engine`` (the backward pass), ``functional`` (``backward`` and ``grad``).
"""

from __future__ import annotations

from .functional import backward, grad
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

__all__ = [
    "Size",
    "Tensor",
    "backward",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
]

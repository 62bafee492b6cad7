"""Tools around training that are neither layer nor optimizer: ``checkpoint`` (recomputation instead of memory)."""

from __future__ import annotations

from ..registry import no_attribute
from . import checkpoint

__all__ = ["checkpoint"]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.utils'", name, __all__)

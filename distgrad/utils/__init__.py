"""Tools around training that are neither layer nor optimizer: ``checkpoint`` (recomputation instead of memory)."""

from __future__ import annotations

from . import checkpoint

__all__ = ["checkpoint"]

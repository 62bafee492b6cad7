"""Checkpoints: written atomically, checked when read, of any world size; safetensors and JSON, no pickle."""

from __future__ import annotations

from .format import load, load_model, save
from .manager import CheckpointManager, locate

__all__ = ["CheckpointManager", "load", "load_model", "locate", "save"]

"""Optimizers and learning-rate schedules with PyTorch's names, defaults and update order."""

from __future__ import annotations

from . import lr_scheduler
from .optimizer import Optimizer
from .sgd import SGD

__all__ = ["SGD", "Optimizer", "lr_scheduler"]

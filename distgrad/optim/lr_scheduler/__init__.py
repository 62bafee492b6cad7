"""Learning-rate schedules with PyTorch's names, arguments and values.

A schedule sets ``group["lr"]`` of every group when it is made and at each ``step()``, which is called after the
optimizer's. Most compute the new rate from the present one, as PyTorch does, so that several schedules on one optimizer
multiply, and a rate set by hand is carried on from. A warm-up is a ``SequentialLR`` of ``LinearLR`` and what follows::

    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=500)
    cosine = CosineAnnealingLR(optimizer, T_max=steps - 500)
    schedule = SequentialLR(optimizer, [warmup, cosine], milestones=[500])

One thing of PyTorch's is left out: the warning about a ``step()`` before the optimizer's first, which also strikes
those who skip a step with reason or whose optimizer is wrapped.
"""

from __future__ import annotations

from ...registry import no_attribute
from .base import LRScheduler
from .composite import ChainedScheduler, SequentialLR
from .cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from .cyclic import CyclicLR, OneCycleLR
from .decay import ConstantLR, ExponentialLR, LinearLR, MultiStepLR, PolynomialLR, StepLR
from .factor import LambdaLR, MultiplicativeLR
from .plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.optim.lr_scheduler'", name, __all__)

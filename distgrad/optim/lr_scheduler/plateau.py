"""A schedule that watches a quantity: the rate goes down when it has stopped improving."""

from __future__ import annotations

import math
from typing import SupportsFloat

from ..optimizer import Optimizer
from .base import LRScheduler, check_optimizer, set_hyperparameter, warn_about_epoch


class ReduceLROnPlateau(LRScheduler):
    """The rate times ``factor`` when a quantity has not improved for ``patience`` epochs.

    ``step`` takes the quantity::

        schedule.step(validation_loss)

    Args:
        optimizer: as in ``LRScheduler``.
        mode: "min" if the quantity should fall, "max" if it should rise.
        factor: of a reduction, less than 1.
        patience: epochs without improvement that are let pass.
        threshold: how much counts as an improvement,
        threshold_mode: "rel" as a part of the best value so far, or "abs" as it is.
        cooldown: epochs after a reduction that are not counted.
        min_lr: below which no rate is reduced, one for all groups or a list.
        eps: a reduction by no more than this is not made.

    Raises:
        ValueError: a ``factor`` of 1 or more, an unknown mode, or a list of another length than there are groups.
        TypeError: ``optimizer`` is not an ``Optimizer``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
    ) -> None:
        if factor >= 1.0:
            raise ValueError(f"Factor should be < 1.0, it is {factor}.")
        self.factor = factor
        self.optimizer = check_optimizer(optimizer)
        groups = len(optimizer.param_groups)
        self.default_min_lr: float | None = None
        if isinstance(min_lr, list | tuple):
            if len(min_lr) != groups:
                raise ValueError(f"expected {groups} min_lrs, got {len(min_lr)}")
            self.min_lrs = list(min_lr)
        else:
            self.default_min_lr = min_lr
            self.min_lrs = [min_lr] * groups
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown! It is 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode} is unknown! It is 'rel' or 'abs'")
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.last_epoch = 0
        self._last_lr = self._rates()
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Looks at the quantity of one more epoch, and reduces the rates when it is time.

        Args:
            metrics: the quantity, a number or a tensor of one element.
            epoch: deprecated, as in PyTorch: the number of the epoch, of which nothing else depends.
        """
        current = float(metrics)
        if epoch is not None:
            warn_about_epoch()
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._rates()

    @property
    def in_cooldown(self) -> bool:
        """Whether a reduction was so recent that bad epochs are not counted."""
        return self.cooldown_counter > 0

    def _is_better(self, current: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "abs":
            return sign * current < sign * self.best - self.threshold
        return sign * current < sign * self.best * (1.0 - sign * self.threshold)

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"ReduceLROnPlateau was made for {len(self.min_lrs)} parameter groups, each with a min_lr, and the "
                    f"optimizer now has {len(groups)}: set its min_lrs to a list of that length"
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, lowest in zip(groups, self.min_lrs, strict=True):
            before = float(group["lr"])
            after = max(before * self.factor, lowest)
            if before - after > self.eps:
                set_hyperparameter(group, "lr", after)

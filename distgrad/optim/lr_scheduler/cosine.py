"""Schedules that follow a cosine.

Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (ICLR 2017).
"""

from __future__ import annotations

import math

from ..optimizer import Optimizer
from .base import LRScheduler


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate down to ``eta_min`` at epoch ``T_max``; beyond it, up again, and so on.

    At epoch ``t`` the rate is ``eta_min + (initial - eta_min) * (1 + cos(pi * t / T_max)) / 2``, computed from the
    last one. The restarts of the source are those of ``CosineAnnealingWarmRestarts``.

    Args:
        optimizer: as in ``LRScheduler``.
        T_max: epochs from the highest rate to the lowest, greater than 0.
        eta_min: the lowest rate.
        last_epoch: as in ``LRScheduler``.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if not T_max > 0:
            raise ValueError(f"CosineAnnealingLR: T_max is {T_max}; the rate needs at least 1 epoch to come down")
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """From the present rates, the next on the cosine."""
        if self._is_initial:
            return self._rates()
        epoch, period, low = self.last_epoch, self.T_max, self.eta_min
        if (epoch - 1 - period) % (2 * period) == 0:  # the last rate was eta_min, so its ratio to this one is 0 / 0
            rise = (1 - math.cos(math.pi / period)) / 2
            return [rate + (base - low) * rise for rate, base in zip(self._rates(), self._initial_rates(), strict=True)]
        ratio = (1 + math.cos(math.pi * epoch / period)) / (1 + math.cos(math.pi * (epoch - 1) / period))
        return [ratio * (rate - low) + low for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        height = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self._initial_rates()]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the initial rate down to ``eta_min`` in ``T_0`` epochs, then anew from the initial rate.

    ``T_cur`` epochs after a restart the rate is ``eta_min + (initial - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2``,
    where ``T_i``, the length of a period, is ``T_mult`` times as long after each restart.

    Args:
        optimizer: as in ``LRScheduler``.
        T_0: length of the first period, a positive integer.
        T_mult: how much longer each period is than the one before, an integer of at least 1.
        eta_min: the lowest rate.
        last_epoch: as in ``LRScheduler``.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if not isinstance(T_0, int) or T_0 <= 0:
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        if not isinstance(eta_min, float | int):
            raise ValueError(f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates ``T_cur`` epochs after a restart, from the initial ones."""
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self._initial_rates()]

    def step(self, epoch: float | None = None) -> None:
        """Goes on by one epoch, or to ``epoch``, which may have a fraction: ``step(epoch + batch / batches)``.

        Raises:
            ValueError: ``epoch`` is negative.
        """
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        elif epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        elif epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            # after n periods, T_0 * (T_mult^n - 1) / (T_mult - 1) epochs have passed
            periods = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**periods - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**periods
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

"""Schedules that go down, or up, in one direction: steps, a constant, a line, an exponential, a polynomial."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler


class StepLR(LRScheduler):
    """The rate times ``gamma`` every ``step_size`` epochs.

    Args:
        optimizer: as in ``LRScheduler``.
        step_size: epochs from one decay to the next, at least 1.
        gamma: factor of a decay.
        last_epoch: as in ``LRScheduler``.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size is {step_size}; it must be at least 1 epoch")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, decayed at a multiple of ``step_size``."""
        if self.last_epoch == 0 or self.last_epoch % self.step_size != 0:
            return self._rates()
        return [rate * self.gamma for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self._initial_rates()]


class MultiStepLR(LRScheduler):
    """The rate times ``gamma`` at each of the ``milestones``.

    Args:
        optimizer: as in ``LRScheduler``.
        milestones: epochs of the decays; one named twice decays twice.
        gamma: factor of a decay.
        last_epoch: as in ``LRScheduler``.
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = sorted(milestones)  # PyTorch's Counter would lose its integer keys in JSON
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, decayed at a milestone."""
        times = self.milestones.count(self.last_epoch)
        return [rate * self.gamma**times for rate in self._rates()] if times else self._rates()

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma ** bisect_right(self.milestones, self.last_epoch) for base in self._initial_rates()]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ``LRScheduler.load_state_dict``; takes PyTorch's counter of milestones as well."""
        super().load_state_dict(state_dict)
        if isinstance(self.milestones, Mapping):
            self.milestones = sorted(epoch for epoch, times in self.milestones.items() for _ in range(times))


class ConstantLR(LRScheduler):
    """The rate times ``factor`` for ``total_iters`` epochs, then the rate itself.

    Args:
        optimizer: as in ``LRScheduler``.
        factor: between 0 and 1.
        total_iters: epochs at the reduced rate.
        last_epoch: as in ``LRScheduler``.
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f"Constant multiplicative factor expected to be between 0 and 1, it is {factor}.")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, reduced at the first epoch, restored at ``total_iters``."""
        if self.last_epoch == 0:
            return [rate * self.factor for rate in self._rates()]
        if self.last_epoch != self.total_iters:
            return self._rates()
        if self.factor == 0:  # nothing is left to restore the rate from; PyTorch divides by zero here
            return self._initial_rates()
        return [rate * (1.0 / self.factor) for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        factor = self.factor if self.last_epoch < self.total_iters else 1.0
        return [base * factor for base in self._initial_rates()]


class LinearLR(LRScheduler):
    """The rate times a factor that goes from ``start_factor`` to ``end_factor`` in ``total_iters`` equal steps.

    Args:
        optimizer: as in ``LRScheduler``.
        start_factor: of the first epoch, greater than 0 and at most 1.
        end_factor: from epoch ``total_iters`` on, between 0 and 1.
        total_iters: epochs from one to the other.
        last_epoch: as in ``LRScheduler``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(
                "Starting multiplicative factor expected to be greater than 0 and less or equal to 1, it is "
                f"{start_factor}."
            )
        if not 0 <= end_factor <= 1:
            raise ValueError(f"Ending multiplicative factor expected to be between 0 and 1, it is {end_factor}.")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates times the ratio of this epoch's factor to the last one's."""
        if self.last_epoch == 0:
            return [rate * self.start_factor for rate in self._rates()]
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise  # last factor * total_iters
        return [rate * (1.0 + rise / before) for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        # with no epochs from one to the other, the first is at start_factor, as get_lr has it
        done = min(self.total_iters, self.last_epoch) / self.total_iters if self.total_iters else 0.0
        return [
            base * (self.start_factor + (self.end_factor - self.start_factor) * done) for base in self._initial_rates()
        ]


class ExponentialLR(LRScheduler):
    """The rate times ``gamma`` every epoch.

    Args:
        optimizer: as in ``LRScheduler``.
        gamma: factor of a decay.
        last_epoch: as in ``LRScheduler``.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, decayed."""
        return self._rates() if self._is_initial else [rate * self.gamma for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma**self.last_epoch for base in self._initial_rates()]


class PolynomialLR(LRScheduler):
    """The rate times ``(1 - epoch / total_iters) ** power``, down to 0 at ``total_iters`` and from then on.

    Args:
        optimizer: as in ``LRScheduler``.
        total_iters: epochs until the rate is 0.
        power: 1 for a straight line.
        last_epoch: as in ``LRScheduler``.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates times the ratio of this epoch's factor to the last one's."""
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._rates()
        left, before = (1.0 - epoch / self.total_iters for epoch in (self.last_epoch, self.last_epoch - 1))
        return [rate * (left / before) ** self.power for rate in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        done = min(self.total_iters, self.last_epoch) / self.total_iters if self.total_iters else 0.0
        return [base * (1.0 - done) ** self.power for base in self._initial_rates()]

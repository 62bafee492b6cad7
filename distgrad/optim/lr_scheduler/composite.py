"""Schedules of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler, set_hyperparameter
from .plateau import ReduceLROnPlateau


class _Composite(LRScheduler):
    """A schedule with members on the same optimizer, whose states are part of its own."""

    _not_state = (*LRScheduler._not_state, "_schedulers")
    _schedulers: list[LRScheduler]

    def _check_members(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler]) -> Optimizer:
        name = type(self).__name__
        for index, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(f"{name}: schedulers[{index}] is a {type(scheduler).__name__}, not a schedule")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{name} does not support `ReduceLROnPlateau`, whose step takes a quantity, but got one at index "
                    f"{index}"
                )
            optimizer = optimizer or scheduler.optimizer
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"{name} expects all schedulers to belong to the same optimizer, but scheduler "
                    f"{type(scheduler).__name__} at index {index} belongs to another"
                )
        if optimizer is None or not schedulers:
            raise ValueError(f"{name} expects at least one scheduler, but got no scheduler.")
        return optimizer

    def state_dict(self) -> dict[str, Any]:
        """As ``LRScheduler.state_dict``, the members' in ``_schedulers``."""
        return super().state_dict() | {"_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ``LRScheduler.load_state_dict``, for this schedule and its members."""
        super().load_state_dict(state_dict)
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)

    def _check_state(self, state_dict: dict[str, Any]) -> None:
        super()._check_state(state_dict)
        states = state_dict["_schedulers"]
        if len(states) != len(self._schedulers):
            raise ValueError(
                f"the loaded state dict of {type(self).__name__} has {len(states)} schedules, this one "
                f"{len(self._schedulers)}"
            )
        for scheduler, state in zip(self._schedulers, states, strict=True):
            scheduler._check_state(state)

    def _take_back(self) -> None:
        for scheduler in self._schedulers:
            scheduler._take_back()

    def _rewind(self) -> None:
        for scheduler in self._schedulers:
            scheduler._rewind()

    def _back_to_initial_rates(self) -> None:
        for group in self.optimizer.param_groups:
            set_hyperparameter(group, "lr", group["initial_lr"])


class SequentialLR(_Composite):
    """One schedule after the other, each beginning at its epoch 0 from the initial rates: a warm-up and what follows.

    Args:
        optimizer: the one that all ``schedulers`` were made for.
        schedulers: in the order of their turn; a ``SequentialLR`` or ``ChainedScheduler`` may be among them.
        milestones: epochs, in increasing order, at which the second, the third, ... takes over.
        last_epoch: number of the last epoch done. It does not choose the schedule, in PyTorch neither: resume with
            ``load_state_dict``.

    Raises:
        ValueError: no schedule, a schedule of another optimizer, a ``ReduceLROnPlateau``, milestones that do not fit.
        TypeError: something that is not a schedule.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = self._check_members(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than the number of "
                f"milestone points, but got number of schedulers {len(schedulers)} and the number of milestones to be "
                f"equal to {len(milestones)}"
            )
        if sorted(milestones) != list(milestones):
            raise ValueError(f"SequentialLR: milestones are {list(milestones)}; they must be in increasing order")
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        self._back_to_initial_rates()
        for scheduler in self._schedulers:
            scheduler._take_back()
        self._initial_step()
        self.last_epoch = last_epoch + 1

    def step(self) -> None:  # type: ignore[override]
        """Goes on by one epoch with the schedule whose turn it is."""
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[turn]
        if turn > 0 and self._milestones[turn - 1] == self.last_epoch:
            scheduler._restart()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def _initial_step(self) -> None:
        self.last_epoch = 0
        scheduler = self._schedulers[bisect_right(self._milestones, 0)]
        scheduler._initial_step()
        self._last_lr = scheduler.get_last_lr()

    def _restart(self) -> None:
        self.last_epoch = 0
        scheduler = self._schedulers[bisect_right(self._milestones, 0)]
        scheduler._restart()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Composite):
    """Several schedules, each of which steps at every ``step``; those that compute from the present rate multiply.

    Args:
        schedulers: in the order in which they step.
        optimizer: the one that they were made for, by default the first one's.

    Raises:
        ValueError: no schedule, a schedule of another optimizer, or a ``ReduceLROnPlateau``.
        TypeError: something that is not a schedule.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self.optimizer = self._check_members(optimizer, schedulers)
        self._schedulers = list(schedulers)
        self._last_lr = self._rates()

    def step(self) -> None:  # type: ignore[override]
        """Goes on by one epoch with all schedules."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._rates()

    def _initial_step(self) -> None:
        for scheduler in self._schedulers:
            scheduler._initial_step()
        self._last_lr = self._rates()

    def _restart(self) -> None:
        # not the members' restarts, which set the rates from the initial ones and so would not multiply
        self._back_to_initial_rates()
        self._rewind()
        self._initial_step()

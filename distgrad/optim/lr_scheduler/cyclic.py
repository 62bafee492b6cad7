"""Schedules that go up and down, and let the momentum go the other way."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler, attributes_of, check_optimizer, one_each, restore_attributes, set_hyperparameter


def _momentum_is_beta1(optimizer: Optimizer) -> bool:
    """Whether the optimizer's momentum is the first of its ``betas``; raises ``ValueError`` where it has none."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError(
            "optimizer must support momentum or beta1 with `cycle_momentum` option enabled; pass cycle_momentum=False"
        )
    return "betas" in optimizer.defaults


def _set_momentum(group: dict[str, Any], is_beta1: bool, value: float) -> None:
    if is_beta1:
        group["betas"] = (value, *group["betas"][1:])
    else:
        set_hyperparameter(group, "momentum", value)


class CyclicLR(LRScheduler):
    """The rate goes from ``base_lr`` up to ``max_lr`` and back in a straight line, over and over.

    Args:
        optimizer: as in ``LRScheduler``.
        base_lr: the lowest rate, one for all groups or a list.
        max_lr: the highest rate of the first cycle, one for all groups or a list.
        step_size_up: epochs up.
        step_size_down: epochs down, as many as up without it.
        mode: how high later cycles go: "triangular" as high as the first, "triangular2" half as high as the one before,
            "exp_range" ``gamma ** epoch`` as high.
        gamma: of "exp_range".
        scale_fn: how high they go instead of ``mode``: a function of what ``scale_mode`` says, with values in [0, 1].
        scale_mode: what ``scale_fn`` takes: "cycle", the number of the cycle from 1, or "iterations", the epoch.
        cycle_momentum: whether the momentum (or the first of ``betas``) goes from ``max_momentum`` down to
            ``base_momentum`` and back.
        base_momentum: the lowest momentum, one for all groups or a list.
        max_momentum: the highest momentum, one for all groups or a list.
        last_epoch: as in ``LRScheduler``.

    Raises:
        ValueError: an unknown ``mode`` without a ``scale_fn``, a list of another length than there are groups, or an
            optimizer without momentum.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (2017).
    """

    _not_state = (*LRScheduler._not_state, "_scale_fn_custom")

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        lowest = one_each("base_lr", optimizer, base_lr)
        if scale_fn is None and mode not in ("triangular", "triangular2", "exp_range"):
            raise ValueError(
                f"mode is invalid and scale_fn is None: {mode!r} is not one of 'triangular', 'triangular2', 'exp_range'"
            )
        self.max_lrs = one_each("max_lr", optimizer, max_lr)
        up = float(step_size_up)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = _momentum_is_beta1(optimizer)
            self.base_momentums = one_each("base_momentum", optimizer, base_momentum)
            self.max_momentums = one_each("max_momentum", optimizer, max_momentum)
        if last_epoch == -1:
            for index, group in enumerate(optimizer.param_groups):
                set_hyperparameter(group, "lr", lowest[index])
                if cycle_momentum:
                    _set_momentum(group, self.use_beta1, self.max_momentums[index])
                    group["max_momentum"] = self.max_momentums[index]
                    group["base_momentum"] = self.base_momentums[index]
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lowest

    def scale_fn(self, x: float) -> float:
        """How high a cycle goes, as a part of the first: of the cycle's number or of the epoch (``scale_mode``)."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return 1 / 2.0 ** (x - 1) if self.mode == "triangular2" else float(self.gamma**x)

    def get_lr(self) -> list[float]:
        """The rates at ``last_epoch``, whatever the present ones are; sets the momentums."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        done = 1.0 + self.last_epoch / self.total_size - cycle  # of this cycle, from 0 to 1
        height = done / self.step_ratio if done <= self.step_ratio else (done - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            ranges = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in ranges:
                _set_momentum(group, self.use_beta1, high - (high - low) * height * scale)
        return [
            low + (high - low) * height * scale for low, high in zip(self._initial_rates(), self.max_lrs, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """As ``LRScheduler.state_dict``; of a ``scale_fn`` that is a callable object, its attributes."""
        function = self._scale_fn_custom
        return super().state_dict() | {"_scale_fn_custom": None if function is None else attributes_of(function)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ``LRScheduler.load_state_dict``; a ``scale_fn`` stays, a callable object gets its attributes."""
        super().load_state_dict(state_dict)
        restore_attributes(self._scale_fn_custom, state_dict["_scale_fn_custom"])


class OneCycleLR(LRScheduler):
    """One cycle in all: the rate goes up to ``max_lr``, then down far below where it began. One step a batch.

    Args:
        optimizer: as in ``LRScheduler``.
        max_lr: the highest rate, one for all groups or a list.
        total_steps: length of the cycle; or else
        epochs: of the training, with
        steps_per_epoch: of each.
        pct_start: which part of the cycle goes up, a float in [0, 1].
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether the momentum (or the first of ``betas``) goes from ``max_momentum`` down to
            ``base_momentum`` as the rate goes up, and back.
        base_momentum: the lowest momentum, one for all groups or a list.
        max_momentum: the highest momentum, one for all groups or a list.
        div_factor: the rate begins at ``max_lr / div_factor``.
        final_div_factor: it ends at that, divided by ``final_div_factor``.
        three_phase: whether it comes down to where it began in as many steps as it went up, and to the end in the rest,
            instead of all the way at once.
        last_epoch: as in ``LRScheduler``.

    Each group keeps ``initial_lr``, ``max_lr`` and ``min_lr``, and ``base_momentum`` and ``max_momentum``.

    Raises:
        ValueError: an argument outside its range, no length of the cycle, a list of another length than there are
            groups, an optimizer without momentum, or a ``step`` after the last.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates"
    (2018).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        self.total_steps = _length_of_cycle(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        self._anneal_func_type = anneal_strategy

        # Where the phases end, and what the rate and the momentum are there.
        start, top, end = ("initial_lr", "max_momentum"), ("max_lr", "base_momentum"), ("min_lr", "max_momentum")
        up = float(pct_start * self.total_steps) - 1
        corners = [(0.0, start), (up, top), (float(self.total_steps - 1), end)]
        if three_phase:
            corners.insert(2, (float(2 * pct_start * self.total_steps) - 2, start))
        self._schedule_phases: list[dict[str, Any]] = [
            {
                "end_step": end_step,
                "start_lr": before[0],
                "end_lr": after[0],
                "start_momentum": before[1],
                "end_momentum": after[1],
            }
            for (_, before), (end_step, after) in pairwise(corners)
        ]

        highest = one_each("max_lr", optimizer, max_lr)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = _momentum_is_beta1(optimizer)
            most = one_each("max_momentum", optimizer, max_momentum)
            least = one_each("base_momentum", optimizer, base_momentum)
        if last_epoch == -1:
            for index, group in enumerate(optimizer.param_groups):
                group["initial_lr"] = highest[index] / div_factor
                group["max_lr"] = highest[index]
                group["min_lr"] = group["initial_lr"] / final_div_factor
                if cycle_momentum:
                    _set_momentum(group, self.use_beta1, most[index])
                    group["max_momentum"], group["base_momentum"] = most[index], least[index]
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates at ``last_epoch``, whatever the present ones are; sets the momentums."""
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"Tried to step {step} times. The specified number of total steps is {self.total_steps}")
        begin = 0.0
        for phase in self._schedule_phases:
            end = phase["end_step"]
            if step <= end or phase is self._schedule_phases[-1]:
                break
            begin = end
        done = (step - begin) / (end - begin)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._anneal(group[phase["start_lr"]], group[phase["end_lr"]], done))
            if self.cycle_momentum:
                momentum = self._anneal(group[phase["start_momentum"]], group[phase["end_momentum"]], done)
                _set_momentum(group, self.use_beta1, momentum)
        return rates

    def _anneal(self, start: float, end: float, done: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * done + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)


def _length_of_cycle(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    given = (
        {"total_steps": total_steps}
        if total_steps is not None
        else {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    )
    if None in given.values():
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    length = 1
    for name, value in given.items():
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"Expected positive integer {name}, but got {value}")
        length *= value
    return length

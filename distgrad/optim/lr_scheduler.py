"""Learning-rate schedules with PyTorch's names, arguments and values.

A schedule sets ``group["lr"]`` of every group when it is made and at each ``step()``, which is called after the
optimizer's. Most compute the new rate from the present one, as PyTorch does, so that several schedules on one optimizer
multiply, and a rate set by hand is carried on from. A warm-up is a ``SequentialLR`` of ``LinearLR`` and what follows::

    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=500)
    cosine = CosineAnnealingLR(optimizer, T_max=steps - 500)
    schedule = SequentialLR(optimizer, [warmup, cosine], milestones=[500])

Two things of PyTorch's are left out: ``step(epoch)``, deprecated there, and the warning about a ``step()`` before the
optimizer's first, which also strikes those who skip a step with reason or whose optimizer is wrapped.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

from .optimizer import Optimizer


class LRScheduler:
    """Base class of the schedules, with the meaning of ``torch.optim.lr_scheduler.LRScheduler``.

    A subclass stores its arguments, calls ``super().__init__`` and implements ``get_lr``, and ``first_lr`` where a
    schedule does not begin at the initial rates. ``epoch`` counts calls of ``step()``, whatever the caller takes a step
    to be: an epoch or an optimizer step.

    Args:
        optimizer: whose learning rates to set. ``group["initial_lr"]`` keeps the rates that it starts from.
        last_epoch: number of the last epoch done; -1 starts anew. To resume, ``load_state_dict`` is the safer way.

    Raises:
        TypeError: ``optimizer`` is not an ``Optimizer``.
        KeyError: ``last_epoch`` is not -1 and the optimizer has not been scheduled before.
    """

    _is_initial = False  # during the step that the constructor takes

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for index, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{index}] when resuming scheduler with "
                    "last_epoch >= 0: load the optimizer's state_dict first, or start anew with last_epoch=-1"
                )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._last_lr: list[float] = []
        self._initial_step()

    def get_lr(self) -> list[float]:
        """The rates of the groups at ``last_epoch``, from their present rates; ``step`` calls it, once an epoch."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr()")

    def first_lr(self) -> list[float]:
        """The rates at epoch 0, from the initial ones: where ``SequentialLR`` starts the schedule in the middle."""
        return self._initial_rates()

    def get_last_lr(self) -> list[float]:
        """The rates that were set last, one a group."""
        return list(self._last_lr)

    def step(self) -> None:
        """Goes on by one epoch and sets the rates of all groups."""
        self.last_epoch += 1
        self._set(self.get_lr())

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, as numbers, text, lists and dicts that JSON can hold."""
        return {key: copy.deepcopy(value) for key, value in vars(self).items() if key not in _NOT_STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave, arguments included; the rates come with the optimizer's own state.

        Raises:
            ValueError: the state is another schedule's, or of an optimizer with another number of groups. Nothing is
                changed.
        """
        self._check_state(state_dict)
        vars(self).update({key: copy.deepcopy(state_dict[key]) for key in vars(self) if key not in _NOT_STATE})

    def _check_state(self, state_dict: dict[str, Any]) -> None:
        missing = [key for key in self.state_dict() if key not in state_dict]
        if missing:
            raise ValueError(
                f"the loaded state dict is not one of {type(self).__name__}: it lacks {', '.join(missing)} and has "
                f"{', '.join(map(str, state_dict))}"
            )
        saved, groups = len(state_dict["_last_lr"]), len(self.optimizer.param_groups)
        if saved != groups:
            raise ValueError(
                f"the loaded state dict of {type(self).__name__} has rates for {saved} parameter groups, the optimizer "
                f"has {groups}"
            )

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _initial_rates(self) -> list[float]:
        if len(self.base_lrs) != len(self.optimizer.param_groups):
            raise ValueError(
                f"{type(self).__name__} was made for {len(self.base_lrs)} parameter groups, the optimizer now has "
                f"{len(self.optimizer.param_groups)}: make a new schedule after add_param_group"
            )
        return list(self.base_lrs)

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    # How a SequentialLR, whose members have each taken their first step on the same optimizer, sets them right.

    def _initial_step(self) -> None:
        self._is_initial = True
        self.step()
        self._is_initial = False

    def _take_back(self) -> None:
        self.last_epoch -= 1

    def _restart(self) -> None:
        self.last_epoch = 0
        self._set(self.first_lr())


_NOT_STATE = ("optimizer", "_is_initial", "_schedulers", "lr_lambdas")


class LambdaLR(LRScheduler):
    """The initial rate times a function of the epoch.

    Args:
        optimizer: as in ``LRScheduler``.
        lr_lambda: the function, or a list of them, one a group.
        last_epoch: as in ``LRScheduler``.

    Functions cannot be saved; of a callable object, ``state_dict`` holds a copy of its ``__dict__``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(optimizer.param_groups)
        if isinstance(lr_lambda, list | tuple):
            if len(lr_lambda) != groups:
                raise ValueError(f"Expected {groups} lr_lambdas, but got {len(lr_lambda)}")
            self.lr_lambdas: list[Any] = list(lr_lambda)
        else:
            self.lr_lambdas = [lr_lambda] * groups
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The function's value at ``last_epoch`` times the initial rate."""
        return [
            base * factor(self.last_epoch) for factor, base in zip(self.lr_lambdas, self._initial_rates(), strict=True)
        ]

    def first_lr(self) -> list[float]:
        """The function's value at 0 times the initial rate."""
        return self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """As ``LRScheduler.state_dict``, and in ``lr_lambdas`` the attributes of callable objects."""
        attributes = [
            None if isinstance(factor, FunctionType) else copy.deepcopy(getattr(factor, "__dict__", None))
            for factor in self.lr_lambdas
        ]
        return super().state_dict() | {"lr_lambdas": attributes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ``LRScheduler.load_state_dict``; the functions stay, callable objects get their attributes."""
        super().load_state_dict(state_dict)
        for factor, attributes in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if attributes is not None:
                vars(factor).update(copy.deepcopy(attributes))


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

    def first_lr(self) -> list[float]:
        """The initial rates, decayed by milestones at 0 and before."""
        return [base * self.gamma ** bisect_right(self.milestones, 0) for base in self._initial_rates()]


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

    def first_lr(self) -> list[float]:
        """The initial rates, reduced unless ``total_iters`` is 0."""
        return [base * (self.factor if self.total_iters > 0 else 1.0) for base in self._initial_rates()]


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

    def first_lr(self) -> list[float]:
        """The initial rates times ``start_factor``."""
        return [base * self.start_factor for base in self._initial_rates()]


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


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate down to ``eta_min`` at epoch ``T_max``; beyond it, up again, and so on.

    At epoch ``t`` the rate is ``eta_min + (initial - eta_min) * (1 + cos(pi * t / T_max)) / 2``, computed from the
    last one. Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (ICLR 2017), without
    the restarts.

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


class SequentialLR(LRScheduler):
    """One schedule after the other, each beginning at its epoch 0 from the initial rates: a warm-up and what follows.

    Args:
        optimizer: the one that all ``schedulers`` were made for.
        schedulers: in the order of their turn; a ``SequentialLR`` may be among them.
        milestones: epochs, in increasing order, at which the second, the third, ... takes over.

    Resume with ``load_state_dict``; PyTorch's ``last_epoch`` is not taken, since it does not choose the schedule there.

    Raises:
        ValueError: no schedule, a schedule of another optimizer, or milestones that do not fit.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        if len(schedulers) < 1:
            raise ValueError("SequentialLR expects at least one scheduler, but got no scheduler.")
        for index, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(f"SequentialLR: schedulers[{index}] is a {type(scheduler).__name__}, not a schedule")
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    "SequentialLR expects all schedulers to belong to the same optimizer, but scheduler "
                    f"{type(scheduler).__name__} at index {index} belongs to another"
                )
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
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in self._schedulers:
            scheduler._take_back()
        super().__init__(optimizer)

    def step(self) -> None:
        """Goes on by one epoch with the schedule whose turn it is."""
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[turn]
        if self._is_initial:
            scheduler._initial_step()
        elif turn > 0 and self._milestones[turn - 1] == self.last_epoch:
            scheduler._restart()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

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
                f"the loaded state dict of SequentialLR has {len(states)} schedules, this one {len(self._schedulers)}"
            )
        for scheduler, state in zip(self._schedulers, states, strict=True):
            scheduler._check_state(state)

    def _take_back(self) -> None:
        super()._take_back()
        for scheduler in self._schedulers:
            scheduler._take_back()

    def _restart(self) -> None:
        self.last_epoch = 0
        scheduler = self._schedulers[bisect_right(self._milestones, 0)]
        scheduler._restart()
        self._last_lr = scheduler.get_last_lr()

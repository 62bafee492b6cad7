"""``LRScheduler``: what all schedules share, and how one tells a schedule of one's own."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from ...autograd import Tensor, no_grad
from ..optimizer import Optimizer


class LRScheduler:
    """Base class of the schedules, with the meaning of ``torch.optim.lr_scheduler.LRScheduler``.

    A subclass stores its arguments, calls ``super().__init__`` and implements ``get_lr``, and ``_get_closed_form_lr``
    where it knows the rates at ``last_epoch`` from the initial ones alone. ``epoch`` counts calls of ``step()``,
    whatever the caller takes a step to be: an epoch or an optimizer step.

    Args:
        optimizer: whose learning rates to set. ``group["initial_lr"]`` keeps the rates that it starts from. A rate that
            is a tensor is written to in place; the schedule itself computes with numbers.
        last_epoch: number of the last epoch done; -1 starts anew. To resume, ``load_state_dict`` is the safer way.

    Raises:
        TypeError: ``optimizer`` is not an ``Optimizer``.
        KeyError: ``last_epoch`` is not -1 and the optimizer has not been scheduled before.
    """

    _is_initial = False  # during the step that the constructor takes
    _get_lr_called_within_step = False  # for schedules of a user's own, whose get_lr asks as PyTorch's do
    _not_state: tuple[str, ...] = ("optimizer", "_is_initial", "_get_lr_called_within_step")

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(optimizer)
        for index, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _number(group["lr"]))
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

    def get_last_lr(self) -> list[float]:
        """The rates that were set last, one a group."""
        return list(self._last_lr)

    def step(self, epoch: int | None = None) -> None:
        """Goes on by one epoch and sets the rates of all groups.

        Args:
            epoch: deprecated, as in PyTorch: goes to that epoch instead, from the initial rates where that is known.
        """
        if epoch is not None:
            warn_about_epoch()
        self._update_lr(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, as numbers, text, lists and dicts that JSON can hold."""
        return {key: copy.deepcopy(value) for key, value in vars(self).items() if key not in self._not_state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave, arguments included; the rates come with the optimizer's own state.

        Raises:
            ValueError: the state is another schedule's, or of an optimizer with another number of groups. Nothing is
                changed.
        """
        self._check_state(state_dict)
        vars(self).update({key: copy.deepcopy(state_dict[key]) for key in vars(self) if key not in self._not_state})

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
        return [_number(group["lr"]) for group in self.optimizer.param_groups]

    def _initial_rates(self) -> list[float]:
        if len(self.base_lrs) != len(self.optimizer.param_groups):
            raise ValueError(
                f"{type(self).__name__} was made for {len(self.base_lrs)} parameter groups, the optimizer now has "
                f"{len(self.optimizer.param_groups)}: make a new schedule after add_param_group"
            )
        return list(self.base_lrs)

    def _update_lr(self, epoch: int | None = None) -> None:
        self._get_lr_called_within_step = True
        try:
            if epoch is None:
                self.last_epoch += 1
                rates = self.get_lr()
            else:
                self.last_epoch = epoch
                closed_form: Callable[[], list[float]] = getattr(self, "_get_closed_form_lr", self.get_lr)
                rates = closed_form()
        finally:
            self._get_lr_called_within_step = False
        self._set(rates)

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            set_hyperparameter(group, "lr", rate)
        self._last_lr = self._rates()

    # How a SequentialLR, whose members have each taken their first step on the same optimizer, sets them right.

    def _initial_step(self) -> None:
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def _take_back(self) -> None:
        self.last_epoch -= 1

    def _rewind(self) -> None:
        self.last_epoch = -1

    def _restart(self) -> None:
        self._update_lr(0)


def check_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer itself; raises ``TypeError`` where it is none."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    return optimizer


def warn_about_epoch() -> None:
    """Says that ``step(epoch)`` is deprecated."""
    warnings.warn(
        "step(epoch) is deprecated, as in PyTorch: call step(), or resume with load_state_dict(). With an epoch, the "
        "rates are computed from the initial ones, where that is known.",
        UserWarning,
        stacklevel=3,
    )


def set_hyperparameter(group: dict[str, Any], key: str, value: float) -> None:
    """Sets ``group[key]``; a tensor there keeps its memory, so that whoever holds it sees the new value."""
    present = group[key]
    if isinstance(present, Tensor):
        with no_grad():
            present.fill_(float(value))
    else:
        group[key] = value


def one_each(name: str, optimizer: Optimizer, value: Any) -> list[float]:
    """A hyperparameter for each group, from one for all of them or a list.

    Raises:
        ValueError: a list of another length.
    """
    groups = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [_number(value)] * groups
    if len(value) != groups:
        raise ValueError(
            f"{name} must have the same length as optimizer.param_groups. {name} has {len(value)} values, param_groups "
            f"has {groups}."
        )
    return [_number(entry) for entry in value]


def attributes_of(function: Any) -> Any:
    """What of a function can be saved: a copy of a callable object's attributes; None for a plain function."""
    if isinstance(function, FunctionType):
        return None
    return copy.deepcopy(getattr(function, "__dict__", None))


def restore_attributes(function: Any, attributes: Any) -> None:
    """The inverse of ``attributes_of``, in place."""
    if attributes is not None:
        vars(function).update(copy.deepcopy(attributes))


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value

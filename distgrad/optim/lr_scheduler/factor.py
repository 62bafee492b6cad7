"""Schedules that a function of the user's defines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler, attributes_of, restore_attributes


class _ByFunction(LRScheduler):
    """A schedule with a function of the epoch for each group."""

    _not_state = (*LRScheduler._not_state, "lr_lambdas")

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
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(f"lr_lambda should be a function, but got {type(function).__name__}")
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """As ``LRScheduler.state_dict``, and in ``lr_lambdas`` the attributes of callable objects."""
        return super().state_dict() | {"lr_lambdas": [attributes_of(function) for function in self.lr_lambdas]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ``LRScheduler.load_state_dict``; the functions stay, callable objects get their attributes."""
        super().load_state_dict(state_dict)
        for function, attributes in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            restore_attributes(function, attributes)


class LambdaLR(_ByFunction):
    """The initial rate times a function of the epoch.

    Args:
        optimizer: as in ``LRScheduler``.
        lr_lambda: the function, or a list of them, one a group.
        last_epoch: as in ``LRScheduler``.

    Functions cannot be saved; of a callable object, ``state_dict`` holds a copy of its ``__dict__``.
    """

    def get_lr(self) -> list[float]:
        """The function's value at ``last_epoch`` times the initial rate."""
        return [
            base * factor(self.last_epoch) for factor, base in zip(self.lr_lambdas, self._initial_rates(), strict=True)
        ]


class MultiplicativeLR(_ByFunction):
    """The present rate times a function of the epoch.

    Args:
        optimizer: as in ``LRScheduler``.
        lr_lambda: the function, or a list of them, one a group.
        last_epoch: as in ``LRScheduler``.

    Functions cannot be saved; of a callable object, ``state_dict`` holds a copy of its ``__dict__``.
    """

    def get_lr(self) -> list[float]:
        """The function's value at ``last_epoch`` times the present rate."""
        if self._is_initial:
            return self._rates()
        return [rate * factor(self.last_epoch) for factor, rate in zip(self.lr_lambdas, self._rates(), strict=True)]

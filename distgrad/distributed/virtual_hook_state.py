"""What a communication hook remembers, where one real rank plays several virtual ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from .virtual_ranks import VirtualCommunicator, run_virtual


class VirtualHookState:
    """What a communication hook remembers on each virtual rank; the methods of a hook's own state for all of them.

    ``consolidate_state_dict`` and then ``state_dict`` on rank 0 give what the state itself would give on so many ranks,
    and ``load_state_dict`` takes it on any number of real ranks, with the same bits.

    Args:
        state: a state as it is to begin with, copied for each virtual rank of this real one; None: there is none.
        communicators: of those virtual ranks.

    Raises:
        ValueError: the state has a communicator of its own.
    """

    def __init__(self, state: Any, communicators: Sequence[VirtualCommunicator]) -> None:
        if getattr(state, "communicator", None) is not None:
            raise ValueError(
                "register_comm_hook: with reproducible=True a hook works on virtual ranks, so its state cannot have a "
                "communicator of its own: leave communicator at None"
            )
        self.communicators = list(communicators)
        self._remembers = hasattr(state, "state_dict")
        self.states: list[Any] = list(communicators) if state is None else [copy.deepcopy(state) for _ in communicators]
        if state is not None and hasattr(state, "communicator"):
            for copied, communicator in zip(self.states, communicators, strict=True):
                copied.communicator = communicator

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Gathers what all virtual ranks remember on virtual rank ``to``; 0 is on rank 0. A collective."""
        if self._remembers:
            run_virtual(self.communicators, lambda number, _: self.states[number].consolidate_state_dict(to))

    def state_dict(self) -> dict[str, Any]:
        """That of this rank's first virtual rank: on rank 0, after ``consolidate_state_dict``, of all."""
        return dict(self.states[0].state_dict()) if self._remembers else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Gives each virtual rank its part of a consolidated state."""
        for state in self.states if self._remembers else ():
            state.load_state_dict(state_dict)

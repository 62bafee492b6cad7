"""What hooks remember between steps, and how a checkpoint keeps it.

A hook with error feedback has on every rank a residual of its own: what compression has left out so far. Only the sum
of all ranks' residuals says what the gradients still lack, but which numbers are sent next depends on each. A
checkpoint therefore keeps one row a rank::

    state.consolidate_state_dict(to=0)  # a collective
    if rank == 0:
        save(..., {"comm_hook": state.state_dict()})

On the same number of ranks, ``load_state_dict`` gives every rank its own row, and training goes on with the same bits.
On another number, rank ``r`` of ``N`` takes the sum of the rows ``r``, ``r + N``, ``r + 2 N``, ...: the sum over all
ranks stays what it was, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import CommunicationError
from .. import process_group
from .report import communicator_of

if TYPE_CHECKING:
    from ..bucket import GradBucket
    from ..communicator import Array, Communicator


class HookState:
    """The state of a hook that remembers nothing.

    Args:
        communicator: what the hook works on; ``DistributedDataParallel.register_comm_hook`` sets it where it is None.
    """

    def __init__(self, communicator: Communicator | None = None) -> None:
        self.communicator = communicator

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Nothing."""

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Nothing."""


class FeedbackState(HookState):
    """The state of a hook with error feedback.

    Attributes:
        iter: steps so far.
        residual: by parameter name, in the parameter's shape: what this rank has left out so far, in units of the sum.
    """

    def __init__(self, communicator: Communicator | None = None) -> None:
        super().__init__(communicator)
        self.iter = 0
        self.residual: dict[str, Array] = {}
        self._consolidated: dict[str, Array] | None = None

    def maybe_increase_iter(self, bucket: GradBucket) -> None:
        """Counts the step when its last bucket is done."""
        self._consolidated = None  # it is of an earlier step
        if bucket.is_last():
            self.iter += 1

    def residual_of(self, name: str, gradient: Array) -> Array:
        """The residual of a parameter, zeros at first.

        Raises:
            ValueError: one was loaded that has another shape.
        """
        kept = self.residual.get(name)
        if kept is None:
            kept = self.residual[name] = np.zeros(gradient.shape, gradient.dtype)
        elif kept.shape != gradient.shape:
            raise ValueError(
                f"{type(self).__name__}: the residual of parameter {name!r} has shape {list(kept.shape)}, but its "
                f"gradient has {list(gradient.shape)}: the state belongs to another model"
            )
        elif kept.dtype != gradient.dtype:
            kept = self.residual[name] = kept.astype(gradient.dtype)
        return kept

    def add_residual(self, names: Sequence[str], gradients: Sequence[Array]) -> None:
        """Adds what was left out to gradients that are now sent whole, and forgets it."""
        for name, gradient in zip(names, gradients, strict=True):
            if name in self.residual:
                gradient += self.residual_of(name, gradient)
                del self.residual[name]

    # ---- Checkpoints

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Gathers the residuals of all ranks on rank ``to``; a collective, to be followed by ``state_dict`` there.

        It takes memory for the residuals of all ranks there, and is forgotten in the next step.

        Raises:
            CommunicationError: the ranks do not remember the same parameters.
            ValueError: there is no such rank.
        """
        communicator = self._ranks()
        if not 0 <= to < communicator.world_size:
            raise ValueError(
                f"consolidate_state_dict: to is {to}, but the ranks are 0 to {communicator.world_size - 1}"
            )
        names = sorted(self.residual)
        known = repr([(name, self.residual[name].shape, str(self.residual[name].dtype)) for name in names])
        digests = communicator.all_gather_bytes(hashlib.blake2b(known.encode(), digest_size=16).digest())
        for rank, digest in enumerate(digests):
            if digest != digests[0]:
                raise CommunicationError(
                    f"consolidate_state_dict: rank 0 and rank {rank} keep residuals of different parameters; every "
                    "rank must call it after the same step"
                )
        gathered = {name: _gather(communicator, self.residual[name], to) for name in names}
        self._consolidated = gathered if communicator.rank == to else None

    def state_dict(self) -> dict[str, Any]:
        """Arrays and plain values: on the rank of ``consolidate_state_dict`` those of all ranks, else this rank's.

        ``"residual"`` has for each parameter ``(ranks, *shape)``; ``"ranks"`` says whose rows these are.
        """
        communicator = self._ranks()
        whole = self._consolidated
        rows = {name: kept[None].copy() for name, kept in self.residual.items()} if whole is None else whole
        ranks = [communicator.rank] if whole is None else list(range(communicator.world_size))
        return {"iter": self.iter, "world_size": communicator.world_size, "ranks": ranks, "residual": dict(rows)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes this rank's part of a consolidated state, or what this very rank has saved.

        Args:
            state_dict: what ``state_dict`` has returned, on any number of ranks if it was consolidated.

        Raises:
            ValueError: the part of one rank, and this is another, or there are more or fewer ranks now.
        """
        communicator = self._ranks()
        world_size, ranks = int(state_dict["world_size"]), [int(rank) for rank in state_dict["ranks"]]
        rows: Mapping[str, Array] = state_dict["residual"]
        if ranks == [communicator.rank] and world_size == communicator.world_size:
            mine = {name: row[0].copy() for name, row in rows.items()}
        elif ranks == list(range(world_size)):
            mine = {name: _part(row, communicator.rank, communicator.world_size) for name, row in rows.items()}
        else:
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: this is the part of rank {ranks[0]} of {world_size}, and "
                f"cannot be given to rank {communicator.rank} of {communicator.world_size}: call "
                "consolidate_state_dict() on all ranks before state_dict()"
            )
        self.iter = int(state_dict["iter"])
        self.residual = mine
        self._consolidated = None

    def _ranks(self) -> Communicator:
        return process_group.communicator() if self.communicator is None else communicator_of(self)


def _gather(communicator: Communicator, array: Array, to: int) -> Array:
    """``(world_size, *shape)`` on rank ``to``; elsewhere ``(0, *shape)``."""
    size = communicator.world_size
    receives = communicator.rank == to
    gathered = np.empty((size if receives else 0, *array.shape), array.dtype)
    communicator.all_to_all(
        np.ascontiguousarray(array).reshape(-1),
        [array.size if rank == to else 0 for rank in range(size)],
        gathered.reshape(-1),
        [array.size if receives else 0] * size,
    )
    return gathered


def _part(rows: Array, rank: int, world_size: int) -> Array:
    """What rank ``rank`` of ``world_size`` takes of ``(ranks, *shape)``: the parts of all ranks add up to all rows."""
    mine = np.zeros(rows.shape[1:], rows.dtype)
    for row in rows[rank::world_size]:
        mine += row
    return mine

"""What a hook says of the exchange of one bucket, and what all hooks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ..communicator import Communicator


class Report(NamedTuple):
    """The exchange of one bucket.

    Attributes:
        bytes_sent: what this rank sent to others: the payload that the cheapest known algorithm sends (a ring, for a
            sum; see :func:`all_reduce_bytes`). MPI chooses its own, and adds headers. Shared memory is not counted.
        error_bound: how far the result may be from the exact sum, relative to what the hook says in its docstring.
            0 where nothing is added.
    """

    bytes_sent: int
    error_bound: float


def communicator_of(state: Any) -> Communicator:
    """The communicator that a hook works on.

    Args:
        state: what was registered with the hook: a communicator, or something with an attribute ``communicator``.

    Raises:
        RuntimeError: it has none.
    """
    found = getattr(state, "communicator", None)
    if found is None:
        found = state
    if not hasattr(found, "all_to_all"):
        raise RuntimeError(
            f"the state of a communication hook is {type(state).__name__} and has no communicator: pass one to its "
            "constructor, or register it by DistributedDataParallel.register_comm_hook, which gives it one"
        )
    return found  # type: ignore[no-any-return]


def all_reduce_bytes(elements: int, itemsize: int, world_size: int) -> int:
    """Bytes that one rank sends for a sum of ``elements`` numbers: ``2 (N - 1) / N`` times their size, rounded up.

    Each number has to come together from all ranks and to go back to all of them; a ring, and recursive halving and
    doubling, reach this bound (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
    workstations").
    """
    return -(-2 * (world_size - 1) * elements // world_size) * itemsize


def gathered_bytes(elements: int, itemsize: int, world_size: int) -> int:
    """Bytes that one rank sends when each of ``world_size`` ranks gives its ``elements`` numbers to all, by a ring."""
    return (world_size - 1) * elements * itemsize


def sum_error(world_size: int, dtype: npt.DTypeLike) -> float:
    """Bound on the error of a sum over ranks in any order, relative to the sum of the magnitudes, element by element.

    ``gamma(N - 1)`` with ``gamma(n) = n u / (1 - n u)`` and ``u`` the unit roundoff of ``dtype`` (Higham 2002,
    "Accuracy and Stability of Numerical Algorithms", 4.2). 0 for integers.
    """
    numbers = np.dtype(dtype)
    if numbers.kind != "f":
        return 0.0
    roundings = (world_size - 1) * float(np.finfo(numbers).eps) / 2
    return roundings / (1 - roundings)

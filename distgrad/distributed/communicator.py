"""What every communicator can do, and the checks that all of them make before any message is sent.

The checks are the same everywhere, so that a program that is wrong on four ranks is already wrong on one.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
ReduceOp: TypeAlias = Literal["sum", "prod", "min", "max"]

REDUCE_OPS: tuple[str, ...] = get_args(ReduceOp)


@runtime_checkable
class Communicator(Protocol):
    """A fixed group of ranks that work in lockstep on NumPy arrays.

    Every method except ``abort`` is a collective: all ranks call the same methods in the same order, with arrays of the
    same shape and dtype. Arrays may have any layout (slices, transposes, 0-d, no element at all). "In place" means that
    the caller's own memory is written, as in ``torch.distributed``.

    Attributes:
        backend: what carries the messages: "mpi", "single" or "threads".
        rank: this rank, from 0.
        world_size: how many ranks there are.
        local_rank: this rank among those on its host, from 0.
        local_world_size: how many ranks there are on this host.
        hostname: the host this rank runs on.
    """

    @property
    def backend(self) -> str: ...  # noqa: D102 - described in the class
    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def world_size(self) -> int: ...  # noqa: D102
    @property
    def local_rank(self) -> int: ...  # noqa: D102
    @property
    def local_world_size(self) -> int: ...  # noqa: D102
    @property
    def hostname(self) -> str: ...  # noqa: D102

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Combines ``array`` over all ranks, in place and with the same bits on every rank.

        Args:
            array: float32, float64 or an integer dtype; bool with "min" (all) and "max" (any).
            op: "sum", "prod", "min" or "max". A NaN on any rank makes the result NaN, as in NumPy.
        """

    def broadcast(self, array: Array, src: int = 0) -> None:
        """Copies rank ``src``'s values into ``array`` on every other rank, in place. Any dtype of fixed size."""

    def all_gather(self, array: Array) -> Array:
        """A new array ``(world_size, *array.shape)`` whose row ``r`` holds rank ``r``'s values."""

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """What each rank passed, in rank order; lengths may differ and may be 0. Callers encode as JSON, not pickle."""

    def barrier(self) -> None:
        """Returns on no rank before every rank has called it."""

    def abort(self, code: int = 1) -> NoReturn:
        """Ends all ranks with exit status ``code``, whatever they are doing. Called by one rank."""


def check_reduce(array: Array, op: str) -> None:
    """Raises unless ``all_reduce`` can be done on ``array``.

    Raises:
        ValueError: an unknown ``op``, or an array that may not be written.
        TypeError: not an array, or a dtype that cannot be reduced.
    """
    _check_array(array, "all_reduce")
    if op not in REDUCE_OPS:
        raise ValueError(f"all_reduce: op is {op!r}, must be one of {', '.join(map(repr, REDUCE_OPS))}")
    kind = array.dtype.kind
    if kind == "b" and op not in ("min", "max"):
        raise TypeError(
            f"all_reduce: op {op!r} has no meaning for bool; use 'max' (true on any rank) or 'min' (true on all), or "
            "count with an integer array"
        )
    if not (kind in "biu" or (kind == "f" and array.itemsize in (4, 8))):
        raise TypeError(f"all_reduce: dtype {array.dtype} cannot be reduced; use float32, float64, an integer or bool")
    _check_writeable(array, "all_reduce")


def check_broadcast(array: Array, src: int, world_size: int) -> None:
    """Raises unless ``broadcast`` can be done on ``array``.

    Raises:
        ValueError: no such rank ``src``, or an array that may not be written.
        TypeError: not an array, or one of Python objects.
    """
    _check_array(array, "broadcast")
    if not 0 <= src < world_size:
        raise ValueError(f"broadcast: src is {src}, but the ranks are 0 to {world_size - 1}")
    _check_writeable(array, "broadcast")


def check_gather(array: Array) -> None:
    """Raises TypeError unless ``all_gather`` can be done on ``array``."""
    _check_array(array, "all_gather")


def _check_array(array: Array, name: str) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(array).__name__}")
    if array.dtype.hasobject:
        raise TypeError(f"{name}: dtype {array.dtype} holds Python objects, which are never sent between ranks")


def _check_writeable(array: Array, name: str) -> None:
    if not array.flags.writeable:
        raise ValueError(f"{name}: the array is read-only and the result is written in place; pass a copy")

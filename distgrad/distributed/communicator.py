"""What every communicator can do, and the checks that all of them make before any message is sent.

The checks are the same everywhere, so that a program that is wrong on four ranks is already wrong on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NoReturn, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
ReduceOp: TypeAlias = Literal["sum", "prod", "min", "max"]

REDUCE_OPS: tuple[str, ...] = get_args(ReduceOp)
UFUNCS: dict[str, np.ufunc] = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}  # of two ranks


class Work(Protocol):
    """A collective that has been started and goes on by itself, or each time somebody asks."""

    def test(self) -> bool:
        """Whether it is done; lets MPI make progress, which many MPI libraries do only when they are asked."""

    def wait(self) -> None:
        """Returns when it is done."""


@runtime_checkable
class Communicator(Protocol):
    """A fixed group of ranks that work in lockstep on NumPy arrays.

    Every method except ``abort`` is a collective: all ranks call the same methods in the same order, with arrays of the
    same shape and dtype. Arrays may have any layout (slices, transposes, 0-d, no element at all) unless a method says
    otherwise. "In place" means that the caller's own memory is written, as in ``torch.distributed``. One thread at a
    time may use a communicator; a second thread uses a ``duplicate``.

    Attributes:
        backend: what carries the messages: "mpi", "single" or "threads".
        rank: this rank, from 0.
        world_size: how many ranks there are.
        local_rank: this rank among those on its host, from 0.
        local_world_size: how many ranks there are on this host.
        hostname: the host this rank runs on.
        concurrent: whether several threads of a rank may communicate at once, each on a communicator of its own.
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
    @property
    def concurrent(self) -> bool: ...  # noqa: D102

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Combines ``array`` over all ranks, in place and with the same bits on every rank.

        Args:
            array: float32, float64 or an integer dtype; bool with "min" (all) and "max" (any).
            op: "sum", "prod", "min" or "max". A NaN on any rank makes the result NaN, as in NumPy.
        """

    def start_all_reduce(self, array: Array, op: ReduceOp = "sum") -> Work:
        """``all_reduce`` that returns at once. ``array`` is left alone until the work is done, and is the result then.

        Args:
            array: as for ``all_reduce``, and contiguous.
            op: as for ``all_reduce``.
        """

    def broadcast(self, array: Array, src: int = 0) -> None:
        """Copies rank ``src``'s values into ``array`` on every other rank, in place. Any dtype of fixed size."""

    def all_gather(self, array: Array) -> Array:
        """A new array ``(world_size, *array.shape)`` whose row ``r`` holds rank ``r``'s values."""

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """What each rank passed, in rank order; lengths may differ and may be 0. Callers encode as JSON, not pickle."""

    def all_gather_into(self, flat: Array, counts: Sequence[int]) -> None:
        """Each rank's part of ``flat`` to all ranks, in place.

        Args:
            flat: one-dimensional and contiguous, the same length on every rank; rank ``r``'s part lies behind those of
                the ranks below it.
            counts: elements of each rank's part, in rank order, the same on every rank; their sum is the length.
        """

    def all_to_all(
        self, send: Array, send_counts: Sequence[int], receive: Array, receive_counts: Sequence[int]
    ) -> None:
        """A part of ``send`` to each rank, and from each rank a part of ``receive``.

        Args:
            send: one-dimensional and contiguous: the parts for rank 0, 1, ... one behind the other.
            send_counts: their numbers of elements.
            receive: of the same dtype, one-dimensional and contiguous, no memory of ``send``; written.
            receive_counts: how many elements come from rank 0, 1, ...; what that rank sends here.
        """

    def barrier(self) -> None:
        """Returns on no rank before every rank has called it."""

    def split(self, color: int | None, key: int | None = None) -> Communicator | None:
        """A communicator of those ranks that pass the same ``color``, as ``MPI_Comm_split``.

        Args:
            color: not negative; None joins no group.
            key: the order of the ranks in their group, by default that of this communicator.

        Returns:
            This rank's group, or None.
        """

    def duplicate(self) -> Communicator:
        """The same ranks once more: its messages never mix with those of this one, so another thread may use it."""

    def shared_arrays(self, count: int, dtype: npt.DTypeLike) -> list[Array]:
        """Memory that all ranks read and write: of each rank, in rank order, an array ``(count,)`` of zeros.

        It is given back when no rank holds it any more. Between a write and the reading of another rank there has to
        be a ``barrier``.

        Args:
            count: elements of each, the same on every rank.
            dtype: of the elements.

        Raises:
            CommunicationError: the ranks are not all on one host.
        """

    def free(self) -> None:
        """Gives back what this communicator has taken; nobody may use it any more."""

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


def check_parts(name: str, flat: Array, counts: Sequence[int], world_size: int) -> None:
    """Raises unless ``flat`` is made of one part for each rank, of ``counts`` elements.

    Raises:
        ValueError: not one count a rank, a negative one, a sum that is not the length; more than one dimension, or
            elements that do not lie one behind the other.
        TypeError: not an array, or one of Python objects.
    """
    _check_array(flat, name)
    if flat.ndim != 1 or not flat.flags.c_contiguous:
        raise ValueError(f"{name}: the array has shape {flat.shape}, must be one-dimensional and contiguous")
    if len(counts) != world_size or min(counts) < 0 or sum(counts) != flat.size:
        raise ValueError(
            f"{name}: counts {list(counts)} for {world_size} rank{'s' * (world_size > 1)} and {flat.size} elements; "
            "there must be one count a rank, none negative, and their sum the number of elements"
        )


def check_all_to_all(
    send: Array, send_counts: Sequence[int], receive: Array, receive_counts: Sequence[int], world_size: int
) -> None:
    """Raises unless ``all_to_all`` can be done; see :func:`check_parts`."""
    check_parts("all_to_all, send", send, send_counts, world_size)
    check_parts("all_to_all, receive", receive, receive_counts, world_size)
    if send.dtype != receive.dtype:
        raise TypeError(f"all_to_all: send is {send.dtype} and receive {receive.dtype}; they must be equal")
    _check_writeable(receive, "all_to_all")


def check_gather_into(flat: Array, counts: Sequence[int], world_size: int) -> None:
    """Raises unless ``all_gather_into`` can be done; see :func:`check_parts`."""
    check_parts("all_gather_into", flat, counts, world_size)
    _check_writeable(flat, "all_gather_into")


def check_start(array: Array, op: str) -> None:
    """Raises unless ``start_all_reduce`` can be done on ``array``: as ``check_reduce``, and it has to be contiguous."""
    check_reduce(array, op)
    if not array.flags.c_contiguous:
        raise ValueError("start_all_reduce: the array is not contiguous, and there is no moment to copy it back")


def check_color(color: int | None) -> None:
    """Raises ValueError for a colour that ``split`` cannot take."""
    if color is not None and color < 0:
        raise ValueError(f"split: color is {color}, must not be negative; None joins no group")


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

"""MPI, through mpi4py's buffer interface. The only file that imports mpi4py; importing it initialises MPI.

Open MPI 5 and most other libraries count elements in a C int, so a message is cut into pieces of at most
``CHUNK_BYTES``; everything works on arrays of any size.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from ..errors import CommunicationError
from .communicator import (
    Array,
    ReduceOp,
    check_all_to_all,
    check_broadcast,
    check_color,
    check_gather,
    check_gather_into,
    check_reduce,
    check_start,
)
from .shared_memory import map_shared

CHUNK_BYTES = 1 << 30  # far below 2**31 - 1, and large enough that the cut costs nothing

_SUMMED = frozenset("fdbBhHiIlLqQ")  # dtypes, by their letters, that MPI adds up as they are
_OPS: dict[str, Any] = {"sum": MPI.SUM, "prod": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX}


class MPICommunicator:
    """The processes of an MPI communicator, by default all that one ``mpirun`` (or ``srun``) started.

    It works on a duplicate: messages that the user's own program sends with mpi4py never mix with those of distgrad.
    MPI is finalised by mpi4py when the interpreter exits.

    Args:
        comm: an intracommunicator of mpi4py; ``MPI.COMM_WORLD`` by default. All of its processes call this.

    Raises:
        CommunicationError: MPI was initialised by somebody else without thread support.
        TypeError: an intercommunicator, or something else.
    """

    backend = "mpi"

    def __init__(self, comm: MPI.Comm | None = None) -> None:
        if not MPI.Is_initialized():  # mpi4py.rc.initialize was set to False
            MPI.Init_thread(MPI.THREAD_MULTIPLE)
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            raise CommunicationError(
                "MPI was initialised without thread support (below MPI_THREAD_SERIALIZED), which distgrad needs: leave "
                "mpi4py.rc.threads at True, or build the MPI library with threads"
            )
        if comm is not None and not isinstance(comm, MPI.Intracomm):
            raise TypeError(f"MPICommunicator: comm is a {type(comm).__name__}, must be an mpi4py.MPI.Intracomm")
        self._take((comm or MPI.COMM_WORLD).Dup())

    def _take(self, comm: MPI.Comm) -> None:
        """Works on ``comm`` from now on, which is nobody else's."""
        self._comm = comm
        self.rank: int = self._comm.Get_rank()
        self.world_size: int = self._comm.Get_size()
        self.hostname: str = MPI.Get_processor_name()
        self.concurrent: bool = MPI.Query_thread() >= MPI.THREAD_MULTIPLE
        host = self._comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        self.local_rank: int = host.Get_rank()
        self.local_world_size: int = host.Get_size()
        host.Free()

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Combines ``array`` over all ranks in place; see :class:`~distgrad.distributed.Communicator`."""
        if type(array) is np.ndarray and op == "sum":  # the usual case: nothing to convert, and small ones are many
            flags, dtype = array.flags, array.dtype
            plain = dtype.char in _SUMMED and dtype.isnative and flags.c_contiguous and flags.writeable
            if plain and array.nbytes <= CHUNK_BYTES:
                self._comm.Allreduce(MPI.IN_PLACE, array, MPI.SUM)
                return
        check_reduce(array, op)
        if op in ("min", "max") and array.dtype.kind == "f":
            # What MPI_MIN and MPI_MAX make of a NaN depends on the order of the ranks; integers have no NaN.
            keys = _order_keys(array, op)
            self._reduce(keys, op)
            array[...] = _from_order_keys(keys, array.dtype).reshape(array.shape)
            return
        flat = _flat(array)
        self._reduce(flat.view(np.uint8) if array.dtype.kind == "b" else flat, op)
        if not np.may_share_memory(flat, array):
            array[...] = flat.reshape(array.shape)

    def start_all_reduce(self, array: Array, op: ReduceOp = "sum") -> _Requests:
        """``all_reduce`` that returns at once; see :class:`~distgrad.distributed.Communicator`."""
        check_start(array, op)
        flat = _flat(array)
        finish: Callable[[], None] | None = None
        if op in ("min", "max") and array.dtype.kind == "f":
            keys = _order_keys(array, op)

            def finish() -> None:
                array[...] = _from_order_keys(keys, array.dtype).reshape(array.shape)

            flat = keys
        elif not np.may_share_memory(flat, array):  # another byte order

            def finish() -> None:
                array[...] = flat.reshape(array.shape)

        elements = flat.view(np.uint8) if flat.dtype.kind == "b" else flat
        step = max(1, CHUNK_BYTES // elements.itemsize)
        return _Requests(
            [
                self._comm.Iallreduce(MPI.IN_PLACE, elements[start : start + step], _OPS[op])
                for start in range(0, elements.size, step)
            ],
            finish,
        )

    def _reduce(self, flat: Array, op: ReduceOp) -> None:
        """Reduces a contiguous one-dimensional array in place."""
        step = max(1, CHUNK_BYTES // flat.itemsize)
        for start in range(0, flat.size, step):
            self._comm.Allreduce(MPI.IN_PLACE, flat[start : start + step], _OPS[op])

    def broadcast(self, array: Array, src: int = 0) -> None:
        """Copies rank ``src``'s values into ``array`` in place; see :class:`~distgrad.distributed.Communicator`."""
        check_broadcast(array, src, self.world_size)
        flat = _flat(array)
        octets = flat.view(np.uint8)
        for start in range(0, octets.size, CHUNK_BYTES):
            self._comm.Bcast([octets[start : start + CHUNK_BYTES], MPI.BYTE], root=src)
        if self.rank != src and not np.may_share_memory(flat, array):
            array[...] = flat.reshape(array.shape)

    def all_gather(self, array: Array) -> Array:
        """A new array ``(world_size, *array.shape)``; see :class:`~distgrad.distributed.Communicator`."""
        check_gather(array)
        flat = _flat(array)
        gathered = np.empty((self.world_size, *array.shape), dtype=flat.dtype)
        mine = flat.view(np.uint8)
        rows = gathered.reshape(self.world_size, flat.size).view(np.uint8)  # (world_size, bytes a rank)
        step = max(1, CHUNK_BYTES // self.world_size)
        if mine.size <= step:
            if mine.size:
                self._comm.Allgather([mine, MPI.BYTE], [rows, MPI.BYTE])
            return gathered.astype(array.dtype, copy=False)
        for start in range(0, mine.size, step):
            piece = mine[start : start + step]
            received = np.empty((self.world_size, piece.size), dtype=np.uint8)
            self._comm.Allgather([piece, MPI.BYTE], [received, MPI.BYTE])
            rows[:, start : start + step] = received
        return gathered.astype(array.dtype, copy=False)

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """What each rank passed, in rank order; see :class:`~distgrad.distributed.Communicator`."""
        lengths = self.all_gather(np.array(len(data), dtype=np.int64)).tolist()
        if sum(lengths) > CHUNK_BYTES:
            messages = [bytearray(data) if rank == self.rank else bytearray(n) for rank, n in enumerate(lengths)]
            for rank, message in enumerate(messages):
                self.broadcast(np.frombuffer(message, dtype=np.uint8), src=rank)
            return [bytes(message) for message in messages]
        received = np.empty(sum(lengths), dtype=np.uint8)
        starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        mine = np.frombuffer(data, dtype=np.uint8)
        self._comm.Allgatherv([mine, MPI.BYTE], [received, lengths, starts[:-1], MPI.BYTE])
        return [received[start:end].tobytes() for start, end in itertools.pairwise(starts)]

    def all_gather_into(self, flat: Array, counts: Sequence[int]) -> None:
        """Each rank's part to all, in place; see :class:`~distgrad.distributed.Communicator`."""
        check_gather_into(flat, counts, self.world_size)
        _check_count(flat)
        self._comm.Allgatherv(MPI.IN_PLACE, [flat.view(np.uint8), (counts, _starts(counts)), _element(flat)])

    def all_to_all(
        self, send: Array, send_counts: Sequence[int], receive: Array, receive_counts: Sequence[int]
    ) -> None:
        """A part to and from each rank; see :class:`~distgrad.distributed.Communicator`."""
        check_all_to_all(send, send_counts, receive, receive_counts, self.world_size)
        _check_count(send)
        _check_count(receive)
        self._comm.Alltoallv(
            [send.view(np.uint8), (send_counts, _starts(send_counts)), _element(send)],
            [receive.view(np.uint8), (receive_counts, _starts(receive_counts)), _element(receive)],
        )

    def barrier(self) -> None:
        """Returns on no rank before every rank has called it."""
        self._comm.Barrier()

    def split(self, color: int | None, key: int | None = None) -> MPICommunicator | None:
        """The ranks that pass the same ``color``; see :class:`~distgrad.distributed.Communicator`."""
        check_color(color)
        group = self._comm.Split(MPI.UNDEFINED if color is None else color, self.rank if key is None else key)
        return None if group == MPI.COMM_NULL else _owning(group)

    def duplicate(self) -> MPICommunicator:
        """The same ranks once more; see :class:`~distgrad.distributed.Communicator`."""
        return _owning(self._comm.Dup())

    def shared_arrays(self, count: int, dtype: npt.DTypeLike) -> list[Array]:
        """Memory of the host, an array a rank; see :class:`~distgrad.distributed.Communicator`."""
        hosts = np.array([self.local_world_size], dtype=np.int64)
        self.all_reduce(hosts, "min")
        if int(hosts[0]) != self.world_size:
            raise CommunicationError(
                f"shared_arrays: the {self.world_size} ranks are not all on one host ({self.local_world_size} are on "
                f"{self.hostname}): split the communicator by host before"
            )
        return map_shared(self, count, dtype)

    def free(self) -> None:
        """Frees the communicator; see :class:`~distgrad.distributed.Communicator`."""
        if self._comm != MPI.COMM_NULL:
            self._comm.Free()

    def abort(self, code: int = 1) -> NoReturn:
        """Ends all ranks of the job with ``code``, after handing on what this rank has printed."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a broken pipe must not keep the other ranks alive
                stream.flush()
        self._comm.Abort(code)
        raise AssertionError("MPI_Abort returned")


class _Requests:
    """Non-blocking collectives that make up one, and what is left to do when they are done."""

    def __init__(self, requests: list[MPI.Request], finish: Callable[[], None] | None) -> None:
        self._requests = requests
        self._finish = finish

    def test(self) -> bool:
        """Whether all are done; MPI makes progress meanwhile."""
        if self._requests and not MPI.Request.Testall(self._requests):
            return False
        self._end()
        return True

    def wait(self) -> None:
        """Returns when all are done."""
        if self._requests:
            MPI.Request.Waitall(self._requests)
        self._end()

    def _end(self) -> None:
        self._requests = []
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()


def _owning(comm: MPI.Comm) -> MPICommunicator:
    """A communicator that works on ``comm`` itself."""
    made = MPICommunicator.__new__(MPICommunicator)
    made._take(comm)
    return made


@functools.cache
def _element_of(itemsize: int) -> MPI.Datatype:
    return MPI.BYTE.Create_contiguous(itemsize).Commit()


def _element(array: Array) -> MPI.Datatype:
    """One element as so many bytes: any dtype can be moved, and is counted in elements."""
    return _element_of(array.itemsize)


def _starts(counts: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(counts[:-1])]


def _check_count(flat: Array) -> None:
    if flat.size > 2**31 - 1:
        raise CommunicationError(
            f"an array of {flat.size} elements is too long for one message of MPI (2147483647): send it in pieces"
        )


def _flat(array: Array) -> Array:
    """The elements in row-major order and native byte order, one-dimensional: a view where that is possible."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(-1)


def _order_keys(array: Array, op: ReduceOp) -> Array:
    """Signed integers in the order of the floats, with every NaN where ``op`` lets it win; -0 comes before +0.

    The bits of a float are sign and magnitude; flipping the magnitude of the negative ones makes them two's complement.
    """
    values = np.array(_flat(array))
    values[np.isnan(values)] = np.nan if op == "max" else -np.nan
    return _flip(values.view(f"i{values.itemsize}"))


def _from_order_keys(keys: Array, dtype: np.dtype[Any]) -> Array:
    return _flip(keys).view(dtype.newbyteorder("="))


def _flip(bits: Array) -> Array:
    magnitude = np.iinfo(bits.dtype).max
    return np.asarray(np.where(bits < 0, bits ^ magnitude, bits))

"""MPI, through mpi4py's buffer interface. The only file that imports mpi4py; importing it initialises MPI.

Open MPI 5 and most other libraries count elements in a C int, so a message is cut into pieces of at most
``CHUNK_BYTES``; everything works on arrays of any size.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from typing import Any, NoReturn

import numpy as np
from mpi4py import MPI

from ..errors import CommunicationError
from .communicator import Array, ReduceOp, check_broadcast, check_gather, check_reduce

CHUNK_BYTES = 1 << 30  # far below 2**31 - 1, and large enough that the cut costs nothing

_OPS: dict[str, Any] = {"sum": MPI.SUM, "prod": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX}


class MPICommunicator:
    """All processes that one ``mpirun`` (or ``srun``) started.

    It works on a duplicate of ``MPI.COMM_WORLD``: messages that the user's own program sends with mpi4py never mix with
    those of distgrad. MPI is finalised by mpi4py when the interpreter exits.

    Raises:
        CommunicationError: MPI was initialised by somebody else without thread support.
    """

    backend = "mpi"

    def __init__(self) -> None:
        if not MPI.Is_initialized():  # mpi4py.rc.initialize was set to False
            MPI.Init_thread(MPI.THREAD_MULTIPLE)
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            raise CommunicationError(
                "MPI was initialised without thread support (below MPI_THREAD_SERIALIZED), which distgrad needs: leave "
                "mpi4py.rc.threads at True, or build the MPI library with threads"
            )
        self._comm = MPI.COMM_WORLD.Dup()
        self.rank: int = self._comm.Get_rank()
        self.world_size: int = self._comm.Get_size()
        self.hostname: str = MPI.Get_processor_name()
        host = self._comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        self.local_rank: int = host.Get_rank()
        self.local_world_size: int = host.Get_size()
        host.Free()

    def all_reduce(self, array: Array, op: ReduceOp = "sum") -> None:
        """Combines ``array`` over all ranks in place; see :class:`~distgrad.distributed.Communicator`."""
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

    def barrier(self) -> None:
        """Returns on no rank before every rank has called it."""
        self._comm.Barrier()

    def abort(self, code: int = 1) -> NoReturn:
        """Ends all ranks of the job with ``code``, after handing on what this rank has printed."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a broken pipe must not keep the other ranks alive
                stream.flush()
        self._comm.Abort(code)
        raise AssertionError("MPI_Abort returned")


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

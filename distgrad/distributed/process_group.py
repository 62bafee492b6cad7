"""The ranks this program runs on: ``init`` once, then functions that act for the calling rank.

The names are those of ``torch.distributed``. Before ``init`` a program is alone: rank 0 of 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, NoReturn, TypeGuard, cast, overload

from ..autograd import Tensor
from ..errors import CommunicationError
from . import failure
from .communicator import Array, Communicator, ReduceOp
from .environment import detect, prepare_mpi
from .monitored import MonitoredCommunicator, monitor
from .single import SingleCommunicator

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

_of_process: Communicator | None = None
# Threads that simulate ranks each have their own; it hides the one of the process.
_of_context: ContextVar[Communicator | None] = ContextVar("distgrad_communicator", default=None)


def init(backend: str | Communicator | Intracomm | None = None) -> Communicator:
    """Joins the other ranks. Every rank calls it, before anything that communicates; calling it again does nothing.

    Under MPI an exception that nobody catches on one rank now ends all ranks (:mod:`distgrad.distributed.failure`), and
    so does a collective that lasts longer than ``DISTGRAD_TIMEOUT`` seconds, by default 600
    (:mod:`distgrad.distributed.watchdog`).

    Args:
        backend: "mpi"; "single" (this process alone); a communicator of your own, or one of mpi4py, whose processes are
            then the ranks (distgrad works on a duplicate of it); or None: "mpi" when an MPI launcher (mpirun, mpiexec,
            srun with an MPI plugin) started this process, else "single", which never loads mpi4py.

    Returns:
        The communicator in use.

    Raises:
        RuntimeError: already initialised, with something else.
        CommunicationError: MPI cannot be loaded, or does not see the processes that the launcher started.
    """
    global _of_process
    present = _present()
    if present is not None:
        if backend is None or backend is present or backend == present.backend:
            return present
        raise RuntimeError(
            f"distgrad.distributed is already initialised with backend {present.backend!r}, and init({backend!r}) "
            "cannot change that: call destroy() before"
        )
    if backend is None:
        backend = "single" if detect() is None else "mpi"
    if backend == "mpi":
        _of_process = _start_mpi()
    elif backend == "single":
        _of_process = SingleCommunicator()
    elif isinstance(backend, str):
        raise ValueError(
            f"init: backend is {backend!r}, must be 'mpi', 'single' or a Communicator (ranks as threads are started "
            "by distgrad.distributed.threads.run)"
        )
    elif _is_of_mpi4py(backend):
        _of_process = _watched(from_mpi4py(backend))
    else:
        _of_process = cast(Communicator, backend)
    return _of_process


def _is_of_mpi4py(comm: Communicator | Intracomm) -> TypeGuard[Intracomm]:
    """Whether it is one of mpi4py's, found out without loading that."""
    return type(comm).__module__.partition(".")[0] == "mpi4py"


def _start_mpi() -> Communicator:
    prepare_mpi()
    try:
        from .mpi import MPICommunicator
    except (ImportError, RuntimeError, OSError) as error:
        raise CommunicationError(
            f"MPI cannot be loaded ({error}): install an MPI library and mpi4py, for example with "
            "pip install 'distgrad[mpi]'"
        ) from error
    world = MPICommunicator()
    launcher = detect()
    if launcher is not None and launcher.world_size not in (None, world.world_size):
        raise CommunicationError(
            f"the launcher ({launcher.name}) started {launcher.world_size} processes but MPI sees {world.world_size}: "
            "the launcher belongs to another MPI than the library that mpi4py has loaded; use the mpirun of that "
            "library, and with srun the --mpi option that it supports"
        )
    return _watched(world)


def _watched(world: Communicator) -> Communicator:
    """``world`` with a watchdog, and so that a failure of one rank ends all."""
    if world.world_size == 1:
        return world
    watched = monitor(world)
    failure.install(watched)
    return watched


def destroy() -> None:
    """Forgets the communicator of this process, so that ``init`` can be called anew. MPI itself stays initialised."""
    global _of_process
    if isinstance(_of_process, MonitoredCommunicator):
        _of_process.stop()
    _of_process = None
    failure.uninstall()


@contextlib.contextmanager
def use(communicator: Communicator) -> Iterator[Communicator]:
    """Inside, this thread acts as the rank that ``communicator`` belongs to, whatever ``init`` has set."""
    token = _of_context.set(communicator)
    try:
        yield communicator
    finally:
        _of_context.reset(token)


def _present() -> Communicator | None:
    of_context = _of_context.get()
    return _of_process if of_context is None else of_context


def from_mpi4py(comm: Intracomm) -> Communicator:
    """The processes of an mpi4py communicator, for a part of a program that is not all of it. A collective over them.

    distgrad works on a duplicate, and never touches ``MPI.COMM_WORLD``. Give what this returns to
    ``DistributedDataParallel``, or make it the default inside ``with use(...)``; for a whole program there is
    ``init(comm)``.

    Args:
        comm: an intracommunicator, such as ``MPI.COMM_WORLD.Split(...)``.
    """
    from .mpi import MPICommunicator

    return MPICommunicator(comm)


def split(color: int | None, key: int | None = None) -> Communicator | None:
    """The ranks that pass the same ``color`` as a communicator of their own, such as two models on two halves.

    Every rank calls it. Arguments as for :meth:`Communicator.split`.
    """
    return communicator().split(color, key)


def new_group(ranks: Sequence[int]) -> Communicator | None:
    """A communicator of ``ranks``, in this order, as in ``torch.distributed``; None for a rank that is not among them.

    Every rank calls it with the same ``ranks``, also those that do not belong to them.

    Raises:
        ValueError: none, a rank twice, or one that there is not.
    """
    everyone = communicator()
    if not ranks or len(set(ranks)) != len(ranks) or not 0 <= min(ranks) <= max(ranks) < everyone.world_size:
        raise ValueError(
            f"new_group: ranks are {list(ranks)}; they must be different ones from 0 to {everyone.world_size - 1}"
        )
    mine = everyone.rank in ranks
    return everyone.split(0 if mine else None, ranks.index(everyone.rank) if mine else None)


def is_initialized() -> bool:
    """Whether there is a communicator: after ``init``, and on every rank of ``threads.run``."""
    return _present() is not None


def communicator() -> Communicator:
    """The communicator in use; before ``init``, that of a process on its own.

    Raises:
        RuntimeError: a launcher started several processes and ``init`` has not been called: each would take itself for
            the only one.
    """
    present = _present()
    if present is not None:
        return present
    launcher = detect()
    if launcher is not None and launcher.world_size != 1:
        raise RuntimeError(
            f"this process was started by an MPI launcher ({launcher.name}) with others, but it has not joined them: "
            "call distgrad.distributed.init() first"
        )
    return SingleCommunicator()


def rank() -> int:
    """The number of this rank, from 0; 0 before ``init``."""
    present = _present()
    return 0 if present is None else present.rank


def world_size() -> int:
    """How many ranks there are; 1 before ``init``."""
    present = _present()
    return 1 if present is None else present.world_size


def local_rank() -> int:
    """The number of this rank among those on its host, from 0; 0 before ``init``."""
    present = _present()
    return 0 if present is None else present.local_rank


def local_world_size() -> int:
    """How many ranks there are on this host; 1 before ``init``."""
    present = _present()
    return 1 if present is None else present.local_world_size


def all_reduce(value: Tensor | Array, op: ReduceOp = "sum") -> None:
    """Combines ``value`` over all ranks, in place and with the same bits on every rank. Not recorded by autograd.

    Args:
        value: tensor or array of the same shape and dtype on every rank: float32, float64, an integer dtype, or bool
            with "min" (all) and "max" (any).
        op: "sum", "prod", "min" or "max".
    """
    communicator().all_reduce(_array(value), op)
    _written(value)


def broadcast(value: Tensor | Array, src: int = 0) -> None:
    """Copies rank ``src``'s values into ``value`` on every other rank, in place. Not recorded by autograd."""
    communicator().broadcast(_array(value), src)
    _written(value)


@overload
def all_gather(value: Tensor) -> Tensor: ...
@overload
def all_gather(value: Array) -> Array: ...
def all_gather(value: Tensor | Array) -> Tensor | Array:
    """A new tensor or array ``(world_size, *shape)`` whose row ``r`` holds rank ``r``'s values. Not differentiable."""
    gathered = communicator().all_gather(_array(value))
    return Tensor(gathered) if isinstance(value, Tensor) else gathered


def barrier() -> None:
    """Returns on no rank before every rank has called it."""
    communicator().barrier()


def abort(code: int = 1) -> NoReturn:
    """Ends all ranks with exit status ``code``, whatever they are doing. Called by one rank."""
    communicator().abort(code)


def _array(value: Tensor | Array) -> Array:
    return value.detach().numpy() if isinstance(value, Tensor) else value


def _written(value: Tensor | Array) -> None:
    if isinstance(value, Tensor):
        value._changed()  # a backward that has saved the old values must notice

"""Many ranks as one: communicators, and data-parallel training over them.

Importing this never loads mpi4py: ``init`` does, when an MPI launcher started the process.
"""

from __future__ import annotations

from ..registry import no_attribute
from . import autotune, comm_hooks, failure, threads
from .communicator import Communicator, ReduceOp
from .data_parallel import DistributedDataParallel
from .desync import DesyncCheck
from .monitored import MonitoredCommunicator, monitor
from .process_group import (
    abort,
    all_gather,
    all_reduce,
    barrier,
    broadcast,
    communicator,
    destroy,
    from_mpi4py,
    init,
    is_initialized,
    local_rank,
    local_world_size,
    new_group,
    rank,
    split,
    use,
    world_size,
)
from .single import SingleCommunicator
from .sync_batch_norm import SyncBatchNorm
from .zero_redundancy_optimizer import ZeroRedundancyOptimizer

__all__ = [
    "Communicator",
    "DesyncCheck",
    "DistributedDataParallel",
    "MonitoredCommunicator",
    "ReduceOp",
    "SingleCommunicator",
    "SyncBatchNorm",
    "ZeroRedundancyOptimizer",
    "abort",
    "all_gather",
    "all_reduce",
    "autotune",
    "barrier",
    "broadcast",
    "comm_hooks",
    "communicator",
    "destroy",
    "failure",
    "from_mpi4py",
    "init",
    "is_initialized",
    "local_rank",
    "local_world_size",
    "monitor",
    "new_group",
    "rank",
    "split",
    "threads",
    "use",
    "world_size",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.distributed'", name, __all__)

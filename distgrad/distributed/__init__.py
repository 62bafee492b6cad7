"""Many ranks as one: communicators, and data-parallel training over them.

Importing this never loads mpi4py: ``init`` does, when an MPI launcher started the process.
"""

from __future__ import annotations

from ..registry import no_attribute
from . import failure, threads
from .communicator import Communicator, ReduceOp
from .data_parallel import DistributedDataParallel
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
    "DistributedDataParallel",
    "ReduceOp",
    "SingleCommunicator",
    "SyncBatchNorm",
    "ZeroRedundancyOptimizer",
    "abort",
    "all_gather",
    "all_reduce",
    "barrier",
    "broadcast",
    "communicator",
    "destroy",
    "failure",
    "from_mpi4py",
    "init",
    "is_initialized",
    "local_rank",
    "local_world_size",
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

"""How many threads NumPy's BLAS gets in a process that an MPI launcher started: the cores of its share of the host.

OpenBLAS and MKL read their settings once, when NumPy is imported, so ``distgrad`` calls this before it imports NumPy.
Without it every rank would start a thread for every core of the host, and they would fight. What the user has set
stays, and so does a program on its own, for which the libraries' own default is right.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_RANKS_ON_HOST = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE")


def share_cores(environ: MutableMapping[str, str], cores: int, host_cores: int) -> None:
    """Sets the BLAS threads in ``environ``.

    Args:
        environ: where the launcher's variables are read and the settings written, normally ``os.environ``.
        cores: cores that this process may use.
        host_cores: cores of the host. Where the launcher has bound this process to fewer, those are its share already.
    """
    if any(name in environ for name in _SETTINGS):
        return
    ranks = next((environ[name] for name in _RANKS_ON_HOST if environ.get(name, "").isdigit()), None)
    if ranks is None:
        return
    share = cores if cores < host_cores else max(1, cores // max(1, int(ranks)))
    for name in _SETTINGS:
        environ[name] = str(share)


def share_cores_of_this_process() -> None:
    """``share_cores`` for this process."""
    host = os.cpu_count() or 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host
    share_cores(os.environ, available, host)

"""The environment of this process: what it says about the launcher, and what MPI should find there.

Nothing here initialises MPI.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple


class Launcher(NamedTuple):
    """Who started this process.

    Attributes:
        name: the family of launchers, for messages.
        world_size: how many processes it started, or None where it does not say.
        rank: which of them this is, or None where it does not say.
    """

    name: str
    world_size: int | None
    rank: int | None


# (name, variable with the number of processes, variable with the rank), the most specific first: a process under
# mpirun inside a Slurm job sees the variables of both, and mpirun is what started it.
_FAMILIES = (
    ("Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("MVAPICH", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("PMI (MPICH, Intel MPI, srun --mpi=pmi2)", "PMI_SIZE", "PMI_RANK"),
)


# Parameters of Open MPI, which reads them when it is initialised. Its non-blocking all-reduce in place is by default a
# reduction and then a broadcast, and its TCP sends the announcements of large messages behind the data of the other
# direction: over a link of 1 Gbit/s 24 MiB took 400 ms, with these 219, of 201 that the wire needs.
_OPEN_MPI = {"coll_libnbc_iallreduce_algorithm": "3", "btl_tcp_flags": "send"}


def prepare_mpi() -> None:
    """Sets what makes MPI faster and has no say in results; what the user or ``mpirun --mca`` has set stays.

    To be called before mpi4py is loaded. Where that has happened already it has no effect.
    """
    for name, value in _OPEN_MPI.items():
        os.environ.setdefault(f"OMPI_MCA_{name}", value)


def detect(environ: Mapping[str, str] | None = None) -> Launcher | None:
    """The MPI launcher that started this process, or None when it runs on its own.

    Args:
        environ: the environment to read, ``os.environ`` by default.
    """
    environ = os.environ if environ is None else environ
    for name, size, rank in _FAMILIES:
        if size in environ:
            return Launcher(name, _integer(environ, size), _integer(environ, rank))
    if "PMIX_RANK" in environ:
        # Under Slurm's own PMIx every task is a process of the job; under a PRRTE daemon Slurm counts the daemons.
        of_slurm = environ.get("PMIX_NAMESPACE", "").startswith("slurm")
        tasks = _integer(environ, "SLURM_STEP_NUM_TASKS") if of_slurm else None
        return Launcher("PMIx", tasks, _integer(environ, "PMIX_RANK"))
    if "MPI_LOCALNRANKS" in environ:
        return Launcher("Hydra (MPICH)", None, None)
    tasks = _integer(environ, "SLURM_STEP_NUM_TASKS")
    if "SLURM_PROCID" in environ and tasks is not None and tasks > 1:
        return Launcher("srun", tasks, _integer(environ, "SLURM_PROCID"))
    return None


def _integer(environ: Mapping[str, str], name: str) -> int | None:
    try:
        return int(environ[name])
    except (KeyError, ValueError):
        return None

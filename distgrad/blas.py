"""How many threads NumPy's BLAS and the photos' decoders get: the cores of this process's share of the host.

OpenBLAS and MKL read their settings once, when NumPy is imported, so ``distgrad`` calls this before it imports NumPy.
Without it every rank would start a thread for every core of the host, and they would fight. What the user has set
stays, and so does a program on its own that may use the whole host, for which the libraries' own default is right.

A rank's share follows from what the system and the launcher say: the cores that this process is bound to, the cores and
the processor time that its control group may use (a container's ``cpus``), how many ranks the launcher has started on
this host, and Slurm's ``--cpus-per-task``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_RANKS_ON_HOST = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")
_RANK_ON_HOST = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
_PROCESS_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def ranks_on_host(environ: Mapping[str, str]) -> int | None:
    """How many ranks the launcher has started on this host; None for a program on its own."""
    for name in _RANKS_ON_HOST:
        if environ.get(name, "").isdigit():
            return max(1, int(environ[name]))
    # srun: "4(x2),3" are the tasks of each node of the step.
    counts: list[int] = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            break
        counts += [int(found[1])] * min(int(found[2] or 1), 1 << 16)
    if counts:
        node = environ.get("SLURM_NODEID", "")
        return max(1, counts[int(node)] if node.isdigit() and int(node) < len(counts) else max(counts))
    per_node = environ.get("SLURM_NTASKS_PER_NODE", "")
    return max(1, int(per_node)) if per_node.isdigit() else None


def share(environ: Mapping[str, str], cores: int, host_cores: int, quota: float | None = None) -> int:
    """The cores of this process's share, at least 1.

    Args:
        environ: where the launcher's variables are read.
        cores: cores that this process is bound to.
        host_cores: cores that all ranks of the host may use together. Where they are more than ``cores``, the launcher
            has bound its ranks, to a core or to a group of them; ranks are taken to be spread evenly over the groups.
        quota: processor time that all ranks of the host may use together, in cores; None where it is not limited.
    """
    ranks = ranks_on_host(environ) or 1
    together = min(ranks, max(1, -(-ranks * cores // max(host_cores, cores))))  # ranks that are bound to these cores
    mine = max(1, cores // together)
    if quota is not None:
        mine = min(mine, max(1, int(quota / ranks)))
    asked = environ.get("SLURM_CPUS_PER_TASK", "")
    if asked.isdigit() and int(asked) and "SLURM_STEP_TASKS_PER_NODE" in environ:
        mine = min(mine, int(asked))
    return mine


def share_cores(
    environ: MutableMapping[str, str], cores: int, host_cores: int, quota: float | None = None
) -> int | None:
    """Sets the BLAS threads in ``environ``, normally ``os.environ``, to ``share``, and returns them.

    Does nothing and returns None where one of the variables is set, and for a program on its own without a ``quota``
    that is less than its cores. The arguments are those of ``share``.
    """
    if any(name in environ for name in _SETTINGS):
        return None
    if ranks_on_host(environ) is None and (quota is None or quota >= cores):
        return None
    threads = share(environ, cores, host_cores, quota)
    for name in _SETTINGS:
        environ[name] = str(threads)
    return threads


def share_cores_of_this_process() -> None:
    """``share_cores`` for this process.

    Where NumPy is loaded already, its BLAS is told through threadpoolctl, if that is installed; if not, the first rank
    of the host warns (``RuntimeWarning``) and says what to do.
    """
    late = "numpy" in sys.modules
    threads = share_cores(os.environ, *_limits())
    if threads is None or not late or threads >= _bound():
        return
    if importlib.util.find_spec("threadpoolctl") is not None:
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads, user_api="blas")
    elif next((os.environ[name] for name in _RANK_ON_HOST if name in os.environ), "0") == "0":
        warnings.warn(
            f"NumPy was imported before distgrad, so each rank computes with a thread for every core instead of its "
            f"share of {threads}: import distgrad first, or set OMP_NUM_THREADS={threads}, or install threadpoolctl",
            RuntimeWarning,
            stacklevel=3,
        )


def cores_of_this_process() -> int:
    """The cores of this process's share of the host, whatever the BLAS has been told."""
    return share(os.environ, *_limits())


def decoding_threads(cores: int) -> int:
    """How many threads a rank should decode photos with beside a BLAS that has all its ``cores``.

    One thread for four cores: a network takes several times as long for a photo as decoding it does, and a decoder that
    is ahead sleeps. More would only take turns with the BLAS, whose threads wait for the slowest.
    """
    return max(1, cores // 4)


def _bound() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limits() -> tuple[int, int, float | None]:
    """The last arguments of ``share`` for this process."""
    cores = _bound()
    host = os.cpu_count() or 1
    allowed = group_cores(_PROCESS_GROUPS, _GROUPS)
    return cores, host if allowed is None else max(cores, min(host, allowed)), group_quota(_PROCESS_GROUPS, _GROUPS)


def group_quota(process_groups: Path, groups: Path) -> float | None:
    """The least processor time, in cores, that a control group around this process is limited to, or None.

    Args:
        process_groups: ``/proc/self/cgroup``.
        groups: where control groups are mounted, ``/sys/fs/cgroup``.
    """
    quotas = []
    for folder in _folders(process_groups, groups, "cpu"):
        for name in ("cpu.max", "cpu.cfs_quota_us"):
            words = _words(folder / name)
            if name == "cpu.cfs_quota_us":
                words += _words(folder / "cpu.cfs_period_us")
            if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
                quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def group_cores(process_groups: Path, groups: Path) -> int | None:
    """How many cores the control group that is nearest to this process and names them may use; None without one.

    The arguments are those of ``group_quota``.
    """
    for folder in _folders(process_groups, groups, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            listed = "".join(_words(folder / name))
            ranges = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in listed.split(",")]
            if all(ranges):
                return sum(int(found[2] or found[1]) - int(found[1]) + 1 for found in ranges if found is not None)
    return None


def _folders(process_groups: Path, groups: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups around this process, the nearest first, in both versions' places."""
    try:
        lines = process_groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        # A container sees its own group at the mount's root, while the path may be the host's.
        places = {groups / controllers, groups / controller} if controllers else {groups, groups / "unified"}
        for place in sorted(places):
            folder = place / path.lstrip("/")
            while folder != place:
                if folder.is_dir():
                    yield folder
                folder = folder.parent
            yield place


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []

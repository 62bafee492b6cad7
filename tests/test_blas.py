"""A rank gets the cores of its share of the host, before NumPy is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distgrad.blas import decoding_threads, group_cores, group_quota, share, share_cores

SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.mark.parametrize(
    ("environ", "cores", "host", "expected"),
    [
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 1, 16, "1"),  # mpirun --bind-to core
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, 32, 64, "8"),  # --bind-to numa: four ranks on each half
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "3"}, 32, 64, "16"),  # two on one half, one on the other
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 1, 2, "1"),  # more ranks than cores, each bound to one
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, 16, 16, "16"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),2", "SLURM_NODEID": "1"}, 16, 16, "4"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),2", "SLURM_NODEID": "2"}, 16, 16, "8"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),2"}, 16, 16, "4"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_CPUS_PER_TASK": "3"}, 16, 16, "3"),
        ({"SLURM_NTASKS_PER_NODE": "2"}, 16, 16, "8"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 16, 16, "4"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "3"}, 16, 16, "5"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 2, 2, "1"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 2, 16, "2"),  # bound to two cores by the launcher: those are its share
        ({"MPI_LOCALNRANKS": "2"}, 8, 8, "4"),
    ],
)
def test_shares_the_cores(environ: dict[str, str], cores: int, host: int, expected: str) -> None:
    assert share_cores(environ, cores, host) == int(expected)
    assert {environ[name] for name in SETTINGS} == {expected}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OPENBLAS_NUM_THREADS": "7"},
        {"SLURM_NTASKS_PER_NODE": "a"},
        {"SLURM_STEP_TASKS_PER_NODE": "x"},
    ],
)
def test_leaves_alone_what_is_set_and_a_program_on_its_own(environ: dict[str, str]) -> None:
    before = dict(environ)
    assert share_cores(environ, 16, 16) is None
    assert share_cores(environ, 16, 16, 16.0) is None
    assert environ == before


@pytest.mark.parametrize(
    ("environ", "quota", "expected"),
    [({}, 2.0, 2), ({}, 0.5, 1), ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 10.0, 2), ({"MPI_LOCALNRANKS": "2"}, 99.0, 32)],
)
def test_a_container_s_processor_time_is_shared_too(environ: dict[str, str], quota: float, expected: int) -> None:
    assert share(environ, 64, 64, quota) == expected
    assert share_cores(environ, 64, 64, quota) == expected
    assert environ["OMP_NUM_THREADS"] == str(expected)


def written(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "groups", folder / "mount"


@pytest.mark.parametrize(
    ("files", "quota", "cores"),
    [
        ({}, None, None),
        ({"groups": "0::/\n", "mount/cpu.max": "max 100000\n", "mount/cpuset.cpus.effective": "0-3,8\n"}, None, 5),
        ({"groups": "0::/\n", "mount/cpu.max": "250000 100000\n"}, 2.5, None),
        # The tightest of those around it, and a path that exists only on the host.
        ({"groups": "0::/a/b\n", "mount/a/b/cpu.max": "max 100000", "mount/a/cpu.max": "300000 100000"}, 3.0, None),
        ({"groups": "0::/on/the/host\n", "mount/cpu.max": "50000 100000"}, 0.5, None),
        ({"groups": "0::/a\n", "mount/a/cpuset.cpus.effective": "4\n", "mount/cpuset.cpus.effective": "0-7"}, None, 1),
        # Version 1.
        (
            {
                "groups": "5:cpuset:/\n4:cpu,cpuacct:/docker/x\n",
                "mount/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "200000",
                "mount/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
                "mount/cpuset/cpuset.cpus": "0-1",
            },
            2.0,
            2,
        ),
        (
            {"groups": "1:cpu:/\n", "mount/cpu/cpu.cfs_quota_us": "-1", "mount/cpu/cpu.cfs_period_us": "100000"},
            None,
            None,
        ),
        ({"groups": "odd\n0::/\n", "mount/cpu.max": "broken", "mount/cpuset.cpus.effective": "\n"}, None, None),
    ],
)
def test_reads_control_groups(tmp_path: Path, files: dict[str, str], quota: float | None, cores: int | None) -> None:
    assert group_quota(*written(tmp_path, files)) == quota
    assert group_cores(*written(tmp_path, files)) == cores


def test_decoders_are_counted_in() -> None:
    assert [decoding_threads(cores) for cores in (1, 2, 4, 8, 64)] == [1, 1, 1, 2, 16]


LATE = """
import json, sys, warnings
import numpy
if len(sys.argv) > 1:
    sys.modules["threadpoolctl"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import distgrad
said = [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)]
sys.modules.pop("threadpoolctl", None)
try:
    import threadpoolctl
    threads = [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
except ImportError:
    threads = None
print(json.dumps([said, threads]))
"""


def late(rank: str, *arguments: str) -> tuple[list[str], list[int] | None]:
    environ = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environ |= {"OMPI_COMM_WORLD_LOCAL_SIZE": "4096", "OMPI_COMM_WORLD_LOCAL_RANK": rank}
    ended = subprocess.run(
        [sys.executable, "-c", LATE, *arguments], capture_output=True, text=True, check=True, env=environ
    )
    said, threads = json.loads(ended.stdout)
    return said, threads


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core is nobody's share")
def test_numpy_that_came_first_is_told_or_the_first_rank_warns() -> None:
    said, threads = late("0")
    if threads is None:
        assert len(said) == 1, "threadpoolctl is not installed"
    else:
        assert said == [] and set(threads) == {1}
    said, _ = late("0", "without threadpoolctl")
    assert len(said) == 1 and "set OMP_NUM_THREADS=1, or install threadpoolctl" in said[0]
    assert late("1", "without threadpoolctl")[0] == []


def test_importing_distgrad_is_light_and_starts_no_mpi() -> None:
    program = (
        "import sys, distgrad; heavy = {'mpi4py', 'PIL', 'pydantic', 'safetensors', 'tqdm', 'torch', 'tomli_w'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
    program = "import sys, distgrad.distributed, distgrad.models; print('mpi4py.MPI' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def test_a_missing_name_says_which_is_near() -> None:
    import distgrad

    with pytest.raises(
        AttributeError, match=r"no attribute 'tensr': it is not in distgrad; the nearest name is 'tensor'"
    ):
        _ = distgrad.tensr

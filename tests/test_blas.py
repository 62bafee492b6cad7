"""A rank gets the cores of its share of the host, before NumPy is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distgrad.blas import share_cores


@pytest.mark.parametrize(
    ("environ", "cores", "host", "expected"),
    [
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 16, 16, "4"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "3"}, 16, 16, "5"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 2, 2, "1"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 2, 16, "2"),  # bound to two cores by the launcher: those are its share
        ({"MPI_LOCALNRANKS": "2"}, 8, 8, "4"),
    ],
)
def test_shares_the_cores(environ: dict[str, str], cores: int, host: int, expected: str) -> None:
    share_cores(environ, cores, host)
    assert {environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {expected}


@pytest.mark.parametrize(
    "environ", [{}, {"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OPENBLAS_NUM_THREADS": "7"}, {"SLURM_NTASKS_PER_NODE": "a"}]
)
def test_leaves_alone_what_is_set_and_a_program_on_its_own(environ: dict[str, str]) -> None:
    before = dict(environ)
    share_cores(environ, 16, 16)
    assert environ == before


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

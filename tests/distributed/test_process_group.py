"""init and the functions that act for the calling rank, without any launcher."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from distgrad import distributed
from distgrad.autograd import Tensor
from distgrad.distributed import threads
from distgrad.distributed.environment import Launcher, detect
from distgrad.errors import CommunicationError

pytestmark = pytest.mark.timeout(60)

LAUNCHER_VARIABLES = [
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE",
    "PMI_RANK",
    "MV2_COMM_WORLD_SIZE",
    "PMIX_RANK",
    "PMIX_NAMESPACE",
    "MPI_LOCALNRANKS",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
]


@pytest.fixture(autouse=True)
def uninitialised(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    distributed.destroy()
    yield
    distributed.destroy()


def test_before_init_a_program_is_alone() -> None:
    assert not distributed.is_initialized()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert (distributed.local_rank(), distributed.local_world_size()) == (0, 1)
    array = np.arange(3.0)
    distributed.all_reduce(array)
    np.testing.assert_array_equal(array, [0.0, 1.0, 2.0])


def test_init_without_a_launcher_is_single_and_idempotent() -> None:
    first = distributed.init()
    assert first.backend == "single" and distributed.is_initialized()
    assert distributed.init() is first and distributed.init("single") is first and distributed.init(first) is first
    with pytest.raises(RuntimeError, match=r"already initialised with backend 'single', and init\('mpi'\)"):
        distributed.init("mpi")
    distributed.destroy()
    assert not distributed.is_initialized()


def test_init_takes_a_communicator_of_ones_own() -> None:
    own = distributed.SingleCommunicator()
    assert distributed.init(own) is own and distributed.communicator() is own


def test_init_rejects_an_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"backend is 'nccl', must be 'mpi', 'single' or a Communicator"):
        distributed.init("nccl")


def test_collectives_of_several_processes_need_init(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    assert distributed.rank() == 0
    with pytest.raises(RuntimeError, match=r"has not joined them: call distgrad\.distributed\.init\(\) first"):
        distributed.barrier()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    distributed.barrier()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_NTASKS": "8"}, None),  # the batch script itself, not a task
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "PMI_SIZE": "1"}, ("Open MPI", 4, 2)),
        ({"PMI_SIZE": "3", "PMI_RANK": "1"}, ("PMI", 3, 1)),
        ({"PMIX_RANK": "5", "PMIX_NAMESPACE": "slurm.pmix.7.0", "SLURM_STEP_NUM_TASKS": "8"}, ("PMIx", 8, 5)),
        ({"PMIX_RANK": "5", "PMIX_NAMESPACE": "prterun-a-1@1", "SLURM_STEP_NUM_TASKS": "2"}, ("PMIx", None, 5)),
        ({"MPI_LOCALNRANKS": "2"}, ("Hydra", None, None)),
        ({"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "1"}, ("MVAPICH", 2, 1)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, ("srun", 2, 1)),
        ({"PMI_SIZE": "many"}, ("PMI", None, None)),
    ],
)
def test_launchers_are_recognised(environ: dict[str, str], expected: tuple[str, int | None, int | None] | None) -> None:
    found = detect(environ)
    if expected is None:
        assert found is None
    else:
        assert isinstance(found, Launcher) and found.name.startswith(expected[0]) and found[1:] == expected[1:]


def test_importing_and_init_alone_load_no_mpi() -> None:
    program = (
        "import sys; from distgrad import distributed; distributed.init(); distributed.barrier();"
        "print([name for name in sys.modules if name.startswith('mpi4py')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == "[]"


def test_tensors_are_reduced_in_place_and_keep_their_memory() -> None:
    def body() -> None:
        memory = np.full((2, 2), distributed.rank() + 1.0)
        tensor = Tensor(memory, requires_grad=True)
        version = tensor._version
        distributed.all_reduce(tensor)
        np.testing.assert_array_equal(memory, 6.0)
        assert tensor.detach().numpy() is memory and tensor._version > version
        rank = Tensor(np.array([distributed.rank()]))
        gathered = distributed.all_gather(rank)
        assert isinstance(gathered, Tensor) and gathered.tolist() == [[0], [1], [2]]
        distributed.broadcast(rank, src=1)
        assert rank.tolist() == [1]

    threads.run(3, body)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: distributed.all_reduce(np.zeros(2), "mean"), ValueError, "op is 'mean', must be one of 'sum', 'prod'"),  # type: ignore[arg-type]
        (lambda: distributed.all_reduce(np.zeros(2, bool)), TypeError, "use 'max'"),
        (lambda: distributed.all_reduce(np.zeros(2, np.float16)), TypeError, "dtype float16 cannot be reduced"),
        (lambda: distributed.all_reduce(np.zeros(2, complex)), TypeError, "dtype complex128 cannot be reduced"),
        (lambda: distributed.all_reduce(np.broadcast_to(0.0, (3,))), ValueError, "read-only"),
        (lambda: distributed.all_reduce([1.0]), TypeError, "expected a numpy.ndarray, got list"),  # type: ignore[arg-type]
        (lambda: distributed.broadcast(np.zeros(2), src=1), ValueError, "src is 1, but the ranks are 0 to 0"),
        (lambda: distributed.all_gather(np.array([None])), TypeError, "holds Python objects"),
    ],
)
def test_misuse_is_refused_already_on_one_rank(call: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()  # type: ignore[operator]


def test_single_gathers_copies() -> None:
    array = np.arange(3)
    gathered = distributed.all_gather(array)
    gathered[...] = 9
    assert gathered.shape == (1, 3) and array.tolist() == [0, 1, 2]
    assert distributed.communicator().all_gather_bytes(b"ab") == [b"ab"]
    assert isinstance(distributed.communicator(), distributed.Communicator)
    with pytest.raises(SystemExit) as ended:
        distributed.abort(4)
    assert ended.value.code == 4


def test_a_launcher_of_another_mpi_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """N processes that MPI takes for N worlds of one: the usual sign of an mpirun that belongs to another library."""
    program = "from distgrad import distributed; distributed.init()"
    monkeypatch.setenv("PMI_SIZE", "4")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    if "MPI cannot be loaded" in done.stderr:
        pytest.skip("no MPI library here")
    assert done.returncode == 1
    assert f"{CommunicationError.__name__}: the launcher (PMI" in done.stderr
    assert "started 4 processes but MPI sees 1" in done.stderr

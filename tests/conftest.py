"""What several test files need: the real weights and photos, the oracle, and programs under mpirun."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """Put what collection made (a million objects that stay) out of the garbage collector's sight.

    Tests that collect garbage or ask who refers to a tensor would go through all of it each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def folders_of_mpirun() -> Iterator[None]:
    """Gives each of several workers a place of its own for what mpirun keeps while it runs.

    All of a user's go to one folder by default, which the one that ends first may take away while another one starts:
    "The PMIx server's listener thread failed to start".
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mpi-", ignore_cleanup_errors=True) as folder:
        names = ("PRTE_MCA_prte_tmpdir_base", "OMPI_MCA_orte_tmpdir_base")  # Open MPI 5 and 4
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(dict.fromkeys(names, folder))
        yield
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real weights and photos, which are not part of the repository."""
    folder = Path(os.environ.get("DISTGRAD_ASSETS") or REPOSITORY.parent / "shared" / "assets")
    if not (folder / "weights").is_dir():
        pytest.skip("the real weights and photos are not here; DISTGRAD_ASSETS names the folder")
    return folder.resolve()


@pytest.fixture(scope="session")
def torch_resnet() -> ModuleType:
    """ResNet in plain ``torch.nn``, the oracle of the parity tests."""
    pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed: make parity")
    specification = importlib.util.spec_from_file_location("torch_resnet", REPOSITORY / "tests/parity/torch_resnet.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_ranks(tmp_path: Path) -> Runner:
    """Runs a Python program on ``ranks`` processes (without mpirun on one) and gives status and output."""

    def run(
        ranks: int, *arguments: str | Path, timeout: float = 120, cwd: Path = tmp_path, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        if ranks > 1:
            mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
            if mpirun is None:
                pytest.skip("mpirun is not installed")
            command = [mpirun, "-n", str(ranks), "--oversubscribe", *command]
        # Under an MPI launcher's variables (this may itself run under mpirun) the child would take itself for a rank.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_COMM", "PMIX", "PRTE_L", "PMI_"))}
        return subprocess.run(
            command,
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            text=True,
            env=clean
            | {
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "DISTGRAD_HOME": str(tmp_path / "cache"),
            }
            | environ,
        )

    return run

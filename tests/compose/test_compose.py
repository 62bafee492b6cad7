"""docker-compose.yml on a real engine: the quickstart's run lands on the host, and the suite runs in its image.

Needs an engine that answers and minutes of its time: ``make compose`` asks for it, a plain run of the suite skips it.
Of the suite those tests run in the image that an image can spoil; DISTGRAD_TEST_COMPOSE=all runs it whole.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", "runs", "data", "build", "dist"}
PROJECT = f"distgrad-compose-test-{os.getpid()}"  # its own, also beside another run of these tests


def compose_command() -> list[str] | None:
    """Compose as a plugin of docker, else the docker-compose of old, else nothing; asked of an engine that answers."""
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        return None
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


if os.environ.get("DISTGRAD_TEST_COMPOSE") not in ("1", "all"):
    pytest.skip(
        "builds and runs a Docker image only when DISTGRAD_TEST_COMPOSE=1 (make compose)", allow_module_level=True
    )
COMPOSE = compose_command()
if COMPOSE is None:
    pytest.skip("no Docker engine with Compose answers", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


# What meets the image's user, files, Python, packages and MPI, and a few numbers. All of tests/mpi runs, as always.
IN_THE_IMAGE = """
    tests/mpi tests/checkpoint tests/data tests/distributed/test_failure.py tests/distributed/test_process_group.py
    tests/features/test_store.py tests/kernels/test_convolution.py tests/launch/test_readme.py
    tests/launch/test_real_weights.py tests/models tests/observe tests/ops/test_views.py
    tests/test_blas.py tests/test_config.py tests/test_packaging.py
""".split()


class Checkout:
    """A copy of this repository with its own Compose project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Compose on the copy; its output is shown when the test fails."""
        assets = Path(os.environ.get("DISTGRAD_ASSETS", ROOT.parent / "shared" / "assets")).absolute()
        # An engine that copies whole file systems (vfs) needs its time to remove a container.
        environment = dict(os.environ, COMPOSE_PROJECT_NAME=PROJECT, COMPOSE_HTTP_TIMEOUT="600")
        if assets.is_dir():
            environment["DISTGRAD_ASSETS"] = str(assets)
        assert COMPOSE is not None
        done = subprocess.run(
            [*COMPOSE, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(f"$ {' '.join([*COMPOSE, *arguments])}  # exit status {done.returncode}\n{done.stdout}")
        return done


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The copy, with the image of ``finetune`` built from it; its containers and volumes are removed afterwards."""
    copy = Checkout(tmp_path_factory.mktemp("compose") / "distgrad")
    shutil.copytree(ROOT, copy.folder, ignore=lambda folder, _: NOT_OURS if Path(folder) == ROOT else {"__pycache__"})
    assert copy.compose("build", "finetune").returncode == 0
    yield copy
    copy.compose("down", "--volumes", "--remove-orphans")


def last_record(folder: Path) -> dict[str, object]:
    """The last line of the metrics of the run in ``folder``."""
    (metrics,) = folder.glob("*.jsonl")
    record = json.loads(metrics.read_text().splitlines()[-1])
    assert isinstance(record, dict)
    return record


def test_up_finetunes_and_leaves_the_run_on_the_host(checkout: Checkout) -> None:
    assert not (checkout.folder / "runs").exists()
    assert checkout.compose("up", "--exit-code-from", "finetune").returncode == 0
    # beside the feature cache, whose name begins with a dot
    (run,) = [entry for entry in (checkout.folder / "runs").iterdir() if not entry.name.startswith(".")]
    assert run.name == "quickstart"
    assert last_record(run)
    assert [file.stat().st_size > 0 for file in run.rglob("*.safetensors")].count(True) >= 1


def test_processes_are_not_root_and_have_no_capabilities(checkout: Checkout) -> None:
    script = "id -u; grep CapEff /proc/self/status; touch runs/mine"
    done = checkout.compose("run", "--rm", "finetune", "sh", "-c", script)
    assert done.returncode == 0
    assert "CapEff:\t0000000000000000" in done.stdout
    owner = (checkout.folder / "runs" / "mine").stat().st_uid
    assert owner != 0
    assert owner == (os.geteuid() or 1000)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the files to another user")
def test_the_run_belongs_to_whom_the_checkout_belongs(checkout: Checkout) -> None:
    shutil.rmtree(checkout.folder / "runs", ignore_errors=True)
    os.chown(checkout.folder / "configs", 4242, 4343)
    try:
        done = checkout.compose("run", "--rm", "finetune", "sh", "-c", "touch runs/mine $DISTGRAD_HOME/theirs")
    finally:
        os.chown(checkout.folder / "configs", 0, 0)
    assert done.returncode == 0
    mine = (checkout.folder / "runs" / "mine").stat()
    assert (mine.st_uid, mine.st_gid) == (4242, 4343)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the folder to another user")
def test_a_runs_folder_of_someone_else_is_refused_with_the_cure(checkout: Checkout) -> None:
    runs = checkout.folder / "runs"
    runs.mkdir(exist_ok=True)
    os.chown(runs, 5555, 5555)
    done = checkout.compose("run", "--rm", "finetune", "true")
    os.chown(runs, 0, 0)
    assert done.returncode == 1
    assert "user 1000 may not write to runs/, which on the host belongs to user 5555" in done.stdout
    assert "sudo chown -R 1000:1000 runs" in done.stdout


def test_the_suite_runs_in_its_image(checkout: Checkout) -> None:
    assert checkout.compose("build", "test").returncode == 0
    whole = os.environ["DISTGRAD_TEST_COMPOSE"] == "all"
    chosen = () if whole else ("python", "tests/run.py", "--workers", str(os.cpu_count()), *IN_THE_IMAGE)
    done = checkout.compose("run", "--rm", "test", *chosen)
    assert done.returncode == 0
    assert "== one process, shared by" in done.stdout or os.cpu_count() == 1
    assert "== 4 ranks" in done.stdout
    assert "Everything passed." in done.stdout

"""The benchmarks of communication run, and what can be hidden is worked out as they say."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
HOSTS = sys.platform == "linux" and os.geteuid() == 0 and all(map(shutil.which, ("ip", "tc", "unshare")))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    found = {}
    for name in ("overlap", "two_hosts"):
        specification = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert specification is not None and specification.loader is not None
        found[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(found[name])
    return found


def measured(processing: float = 0.0, **steps: float) -> dict:
    """A job: forward 0.1 s, backward 0.4 s, update 0.05 s; buckets of 0.2 and 0.1 s are ready after 0.3 and 0.4 s."""
    return {
        "phases": {"alone": [[0.1, 0.4, 0.05]]},
        "step": {"alone": 0.55, **steps},
        "ready": [{"a": 0.1, "b": 0.3, "c": 0.4}],
        "buckets": [["a", "b"], ["c"]],
        "communication": [0.2, 0.1],
        "processing": [processing, processing],
    }


def test_the_shortest_step_is_that_of_buckets_in_a_row(modules: dict[str, ModuleType]) -> None:
    overlap = modules["overlap"]
    # The first bucket is there at 0.3 and over at 0.5, the second at 0.6; backward is over at 0.4.
    assert overlap.shortest(measured()) == pytest.approx(0.1 + 0.6 + 0.05)
    # A core that works 0.15 s for each message cannot be done before.
    assert overlap.shortest(measured(0.15)) == pytest.approx(0.55 + 0.3)


def test_the_share_is_of_what_could_be_hidden(modules: dict[str, ModuleType]) -> None:
    share = modules["overlap"].hidden_share
    assert share(measured(auto=0.75), "auto") == pytest.approx(1.0)
    assert share(measured(auto=0.85), "auto") == pytest.approx(0.0)
    assert share(measured(auto=0.80), "auto") == pytest.approx(0.5)


@pytest.mark.skipif(not HOSTS, reason="network namespaces need Linux, root, iproute2 and util-linux")
def test_two_hosts_are_there_and_then_gone(modules: dict[str, ModuleType]) -> None:
    try:
        hosts = modules["two_hosts"].TwoHosts().__enter__()
    except modules["two_hosts"].Unavailable as error:
        pytest.skip(str(error))
    try:
        hosts.set_rate(1.0)
        shown = subprocess.run(
            ["tc", "-n", hosts.namespaces[0], "qdisc"], capture_output=True, text=True, check=True
        ).stdout
        assert "tbf" in shown and "rate 1Gbit" in shown
        named = subprocess.run(hosts.on(1, ["hostname"]), capture_output=True, text=True, check=True).stdout
        assert named.strip() == "node-b"
        hosts.set_rate(None)
        shown = subprocess.run(["tc", "-n", hosts.namespaces[0], "qdisc"], capture_output=True, text=True).stdout
        assert "tbf" not in shown
    finally:
        hosts.__exit__(None, None, None)
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert not any(namespace in left for namespace in hosts.namespaces)


def run_part(tmp_path: Path, name: str, *arguments: str) -> tuple[str, dict]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--quick", "--output", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((tmp_path / f"{name}.json").read_text())


@pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")
def test_all_reduce_bandwidth_runs(tmp_path: Path) -> None:
    printed, found = run_part(tmp_path, "all_reduce_bandwidth")
    assert [row["case"] for row in found["rows"]] == [
        f"2 ranks, {size} KiB, {way}" for size in (1, 4, 16) for way in ("all_reduce", "channel")
    ]
    assert "GB/s: mpi4py" in printed and set(found["seconds"]["2"]["1024"]) == {
        "mpi4py", "all_reduce", "channel", "memcpy",
    }  # fmt: skip


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")
@pytest.mark.skipif(not HOSTS, reason="network namespaces need Linux, root, iproute2 and util-linux")
def test_overlap_runs(tmp_path: Path) -> None:
    _, found = run_part(tmp_path, "overlap")
    if found["notes"] and found["notes"][-1].startswith("skipped"):
        pytest.skip(found["notes"][-1])
    assert [row["case"] for row in found["rows"]] == [
        "10 Gbit/s: step beside torch DDP",
        "10 Gbit/s: hidden of what could be",
        "10 Gbit/s: step with beside without overlap",
    ]
    assert any("critical path" in note for note in found["notes"])


def test_overlap_says_why_it_skips(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path)}  # without ip
    command = [sys.executable, str(FOLDER / "overlap.py"), "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped: needs ip, tc, unshare" in done.stdout

"""The benchmarks run, and their harness measures and compares what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent
LOOPS = """
import time
from harness import Case, Unavailable

def subjects(library):
    if library == "absent":
        import there_is_no_such_module
    if library == "refuses":
        raise Unavailable("needs another machine")
    length = {"long": 40000, "short": 10000}[library]
    def run():
        for _ in range(length):
            pass
    def fail():
        raise ValueError("no")
    def values():
        print("not an answer")
        return [1.0, [length]]
    return {"endless": Case(lambda: time.sleep(60)), "loop": Case(run, 10, values), "bad": Case(fail)}
"""


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(FOLDER)
    import harness

    yield harness
    sys.modules.pop("harness")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "loops.py").write_text(LOOPS)
    return tmp_path / "loops.py"


def test_the_ratio_is_that_of_the_work(harness: ModuleType, script: Path) -> None:
    workers, unavailable = harness.start(script, ["long", "short", "absent", "refuses"])
    try:
        assert unavailable == {"absent": "not installed", "refuses": "needs another machine"}
        result = harness.compare(workers, "loop", rounds=5, seconds=0.005)
        assert 2.5 < result.ratio["short"].median < 6
        assert result.ratio["short"].low <= result.ratio["short"].median <= result.ratio["short"].high
        assert result.seconds["long"].median < 1e-2 and result.operations == 10
        assert [worker.ask("values", "loop") for worker in workers.values()] == [[1.0, [40000]], [1.0, [10000]]]
        with pytest.raises(harness.Unavailable, match="ValueError: no"):
            workers["long"].ask("run", "bad")
        assert "ValueError: no" in harness.compare(workers, "bad").skipped["short"]
    finally:
        for worker in workers.values():
            worker.stop()


def test_a_worker_that_is_gone_is_noticed(harness: ModuleType, script: Path) -> None:
    worker = harness.Worker(script, "short")
    worker.start()
    worker.process.kill()
    worker.process.wait()
    with pytest.raises(harness.Unavailable, match="gone"):
        worker.ask("values", "loop")
    worker.revive()
    assert worker.ask("values", "loop") == [1.0, [10000]]
    with pytest.raises(harness.Unavailable, match=r"not finished in 0 s"):
        worker.ask("run", "endless", limit=0.2)
    worker.stop()


@pytest.mark.parametrize(
    ("left", "right", "says"),
    [
        ([1.0, [2.0]], [1.0, [2.0 + 1e-7]], ""),
        ([1.0, [2.0]], [1.0, [2.1]], "2.0 and 2.1 at [1][0]"),
        ([1.0, [2.0]], [1.0, 2.0], "another nesting"),
        ([1.0], [float("nan")], "nan"),
    ],
)
def test_disagreements_are_found(harness: ModuleType, left: list, right: list, says: str) -> None:
    found = harness.disagreement(left, right, 1e-5, 1e-6)
    assert says in found and bool(says) == bool(found)


def run(tmp_path: Path, *arguments: str) -> tuple[str, dict]:
    command = [sys.executable, *arguments, "--json", str(tmp_path / "found.json")]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((tmp_path / "found.json").read_text())


def test_overhead_runs(tmp_path: Path) -> None:
    options = ["--only", "chain-16", "--rounds", "2", "--seconds", "0.002", "--libraries", "numpy"]
    printed, found = run(tmp_path, str(FOLDER / "overhead.py"), *options)
    cases = {case["case"]: case for case in found["cases"]}
    assert list(cases) == ["chain-16 no_grad", "chain-16 forward", "chain-16 forward+backward"]
    assert all(name in printed for name in cases)
    assert found["wrong"] == [] and found["machine"]["versions"]["numpy"]
    assert cases["chain-16 no_grad"]["ratio"]["numpy"]["median"] > 1  # nobody who calls NumPy is faster than NumPy
    both = cases["chain-16 forward+backward"]["seconds"]["distgrad"]["median"]
    assert both > cases["chain-16 forward"]["seconds"]["distgrad"]["median"]


def test_the_profile_sees_the_engine(tmp_path: Path) -> None:
    options = ["--profile", "--only", "chain-16", "--rounds", "3", "--seconds", "0.002"]
    printed, found = run(tmp_path, str(FOLDER / "overhead.py"), *options)
    (layers,) = found["layers"].values()
    assert layers["forward: NumPy's own calls"] < layers["forward, all"] < layers["forward+backward"]
    assert layers["backward: traversal, sums, leaves"] > 0
    assert "run_backward" in printed and "backward: traversal" in printed


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's high-water mark of memory")
def test_memory_counts_the_gradients_and_not_the_parameters(tmp_path: Path) -> None:
    options = ["--size", "32", "--batch", "2", "--repeats", "1", "--setting", "mmap from 64 KiB", "--libraries"]
    _, found = run(tmp_path, str(FOLDER / "memory.py"), *options, "distgrad")
    (measured,) = found["runs"]
    assert 44.5 < measured["mib"][0] < 80  # 11.7 million gradients of four bytes, and little else at this size

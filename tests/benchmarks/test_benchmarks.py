"""The benchmarks run, and their harness measures and compares what it says."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
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


# Subjects that compute the same, or not; both name modules that are there everywhere.
RIVALS = """
import numpy as np
import contest
from dataclasses import dataclass

@dataclass(frozen=True)
class Setting:
    name: str
    goal: float | None = 1.0
    tolerance: float = 1e-3

SETTINGS = [Setting("first"), Setting("second")]

class Sum:
    def __init__(self, subject, setting):
        if subject.endswith("unable"):
            raise contest.Unavailable("cannot do it")
        self.length = {"distgrad": 1000, "json": 3000}[subject.split()[0]]
        self.value = 1.1 if subject == "distgrad wrong" and setting.name == "second" else 1.0

    def run(self):
        for _ in range(self.length):
            pass

    def values(self):
        return {"large": np.full(5, 100.0), "result": np.array([[self.value, 2.0]])}

def subjects(subject):
    return contest.subjects(subject, SETTINGS, Sum)
"""


@pytest.fixture(autouse=True)
def benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def harness() -> ModuleType:
    return importlib.import_module("harness")


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


def test_a_worker_chooses_its_own_kernels(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "256")
    found = harness.environment({"PLACE": "here"})
    assert found["PLACE"] == "here" and found["OPENBLAS_NUM_THREADS"] == "1" and found["PATH"] == os.environ["PATH"]
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(found)


def run(tmp_path: Path, *arguments: str) -> tuple[str, dict]:
    return start([*arguments, "--json", str(tmp_path / "found.json")], tmp_path / "found.json")


def run_part(tmp_path: Path, name: str, *arguments: str) -> tuple[str, dict]:
    options = [str(FOLDER / f"{name}.py"), "--quick", "--output", str(tmp_path), *arguments]
    printed, found = start(options, tmp_path / f"{name}.json")
    if found["rows"] and importlib.util.find_spec("matplotlib") is not None:
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert all(row["case"] in printed for row in found["rows"]) and found["wrong"] == []
    return printed, found


def start(command: list[str], file: Path) -> tuple[str, dict]:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(file.read_text())


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


# ---------------------------------------------------------------------------------------------- the benchmarks of speed


def rivals(tmp_path: Path, *subjects: str) -> ModuleType:
    """What ``contest`` reports of some of the subjects of RIVALS."""
    contest, report = importlib.import_module("contest"), importlib.import_module("report")
    harness = importlib.import_module("harness")
    script = tmp_path / "rivals.py"
    script.write_text(RIVALS)
    settings = harness.load(script).SETTINGS
    found = report.Report("rivals", "Rivals")
    parser = contest.parser(None, subjects, rounds=3, seconds=0.002)
    arguments = argparse.Namespace(subjects=subjects, allocators=["keep"], rounds=3, seconds=0.002, clock="cpu")
    assert set(vars(arguments)) <= set(vars(parser.parse_args([])))
    contest.compare(script, settings, "json fast", found, arguments, lambda setting: f"; of {setting.name}")
    sys.modules.pop("rivals")
    return found


def test_equal_results_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rivals(tmp_path, "distgrad right", "json fast", "json unable")
    assert [row.case for row in found.rows] == ["first", "second"] and found.wrong == []
    assert all(2 < row.ratio.median < 5 and row.detail.startswith("right / fast") for row in found.rows)
    assert found.notes == [f"skipped: {case}: json unable: Unavailable: cannot do it" for case in ("first", "second")]
    printed = capsys.readouterr().out
    assert printed.count("goal 1 reached") == 2 and "; of second" in printed
    assert found.finish(tmp_path, clock="cpu") == 0
    content = json.loads((tmp_path / "rivals.json").read_text())
    assert [row["goal"] for row in content["rows"]] == [1.0, 1.0] and content["clock"] == "cpu"


def test_different_results_are_not_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rivals(tmp_path, "distgrad wrong", "json fast")
    assert [row.case for row in found.rows] == ["first"]
    (sentence,) = found.wrong
    assert "second: distgrad wrong and json fast: result differs by 0.045, 0.001 is allowed" in sentence
    assert "WRONG: second" in capsys.readouterr().out
    assert found.finish(tmp_path) == 1
    assert json.loads((tmp_path / "rivals.json").read_text())["wrong"] == found.wrong


def test_that_distgrad_cannot_is_a_failure(tmp_path: Path) -> None:
    found = rivals(tmp_path, "distgrad unable", "json fast")
    assert found.rows == [] and found.wrong == [
        f"{case}: distgrad unable: Unavailable: cannot do it" for case in ("first", "second")
    ]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"a": [3.0, 4.0], "b": [1.0]}, ""),
        ({"a": [3.0, 4.1], "b": [1.0]}, "a differs by 0.02, 0.01 is allowed"),
        ({"a": [3.0, float("nan")], "b": [1.0]}, "a differs by nan"),
        ({"a": [3.0, 4.0], "c": [1.0]}, "only one of them has ['b', 'c']"),
        ({"a": [3.0, 4.0, 0.0], "b": [1.0]}, "a has 2 and 3 values"),
    ],
)
def test_differences_of_arrays_are_found(tmp_path: Path, other: dict[str, list[float]], says: str) -> None:
    contest = importlib.import_module("contest")
    np.savez(tmp_path / "left.npz", a=[3.0, 4.0], b=[1.0])
    np.savez(tmp_path / "right.npz", **other)
    found = contest.difference(tmp_path / "left.npz", tmp_path / "right.npz", 0.01)
    assert says in found and bool(says) == bool(found)


def test_a_smaller_figure_can_be_the_better_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, harness = importlib.import_module("report"), importlib.import_module("harness")
    found = report.Report("small", "Small", smaller=True)
    for ratio in (0.5, 2.0):
        found.add(report.Row(f"case {ratio}", harness.Spread.of([ratio]), 1.0))
    lines = capsys.readouterr().out.splitlines()
    assert "goal 1 reached" in lines[-2] and "goal 1 MISSED" in lines[-1]
    assert found.geometric_mean() == pytest.approx(1.0) and found.geometric_mean(found.rows[:1]) == pytest.approx(0.5)


def test_the_bound_counts_what_a_plan_multiplies() -> None:
    roofline = importlib.import_module("roofline")
    assert roofline.Layer((512,), (10,)).multiplications(4) == (20480, 20480)
    assert roofline.Layer((8, 6, 6), (16, 3, 3), (1, 1), (2, 2)).multiplications(2) == (2304, 2304)
    definition, planned = roofline.Layer((64, 56, 56), (64, 56, 56), (3, 3), (1, 1), (1, 1)).multiplications(8)
    assert definition == 8 * 56 * 56 * 64 * 64 * 9
    assert definition / 6.25 < planned < definition / 2
    layers = roofline.layers("resnet18", 32)
    assert len(layers) == 21 and layers[0].outside == (64, 16, 16) and layers[-1] == roofline.Layer((512,), (10,))
    of_training, of_forward = (roofline.multiplications("mlp", 2, 0, training)[0] for training in (True, False))
    assert of_forward == 2 * (784 * 1024 + 1024 * 1024 + 1024 * 10)
    assert of_training == 3 * of_forward - 2 * 784 * 1024


def test_the_convolutions_are_those_of_the_networks() -> None:
    convolutions, roofline = importlib.import_module("convolutions"), importlib.import_module("roofline")
    for network in ("resnet18", "resnet50", "mobilenet"):
        wanted = {
            (*layer.inside[:2], layer.outside[0], layer.kernel[0], layer.stride[0], layer.groups)
            for layer in roofline.layers(network, 64)
            if layer.kernel is not None and (network != "mobilenet" or layer.groups > 1)
        }
        shapes = convolutions.NETWORKS[network](64) + (convolutions.resnet18(64) if network == "resnet50" else [])
        found = {(of.inside, of.side, of.outside, of.kernel, of.stride, of.groups) for of in shapes}
        assert wanted <= found if network == "resnet50" else wanted == found


def test_a_job_is_read_from_its_lines_and_scaled() -> None:
    whole_job = importlib.import_module("whole_job")
    lines = [(2.0, "ready"), (2.5, "something"), (12.0, "epoch 1/2: well"), (18.0, "epoch 2/2: better")]
    found = whole_job.job(whole_job.Finished(19.0, 38.0, lines), 0.9, 100)
    assert found.start_up == 2.0 and found.epochs == [10.0, 6.0]
    scaled = found.scaled(4)
    assert scaled.epochs == [10.0, 6.0, 6.0, 6.0] and scaled.seconds == 31.0 and scaled.cpu == pytest.approx(62.0)
    assert found.scaled(2) is found


def test_a_failing_job_says_why(tmp_path: Path) -> None:
    whole_job, harness = importlib.import_module("whole_job"), importlib.import_module("harness")
    command = [sys.executable, "-c", "import sys; print('epoch'); sys.exit('no photos')"]
    with pytest.raises(harness.Unavailable, match=r"ended with 1: no photos"):
        whole_job.run([command], [dict(os.environ)], tmp_path)


@pytest.mark.parity
@pytest.mark.slow
def test_networks_run(tmp_path: Path) -> None:
    subjects = ["distgrad eager", "distgrad compiled", "torch eager", "torch folded", "torch jit"]
    printed, found = run_part(tmp_path, "networks", "--only", "resnet18", "--roofline", "--subjects", *subjects)
    cases = [f"resnet18 {mode} 64px batch {batch}" for mode in ("forward", "training") for batch in (1, 8)]
    assert [row["case"] for row in found["rows"]] == cases and printed.count("GEMMs alone") == 4
    assert set(found["rows"][0]["figures"]["seconds"]) == set(subjects)
    assert set(found["rows"][2]["figures"]["seconds"]) == set(subjects[:3])


@pytest.mark.parity
@pytest.mark.slow
def test_convolutions_run(tmp_path: Path) -> None:
    printed, found = run_part(tmp_path, "convolutions", "--only", "resnet50")
    assert [row["case"].split("n64 ")[1] for row in found["rows"]] == [
        "forward",
        "grad input",
        "grad weight",
        "backward",
    ]
    assert found["summary"]["resnet50 all"]["cases"] == 4 and "resnet50 all: geometric mean" in printed


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's high-water mark of memory")
def test_footprint_runs(tmp_path: Path) -> None:
    _, found = run_part(tmp_path, "footprint", "--assets", str(tmp_path))
    assert [row["case"] for row in found["rows"]] == [
        "memory of a step, batch 4 of 64px, eager",
        "memory of a step, batch 4 of 64px, compiled",
        "start-up to the first step",
        "bytes installed",
    ]
    assert 0.05 < found["rows"][3]["ratio"]["median"] < 0.5
    assert "there is no" in found["notes"][0]


def test_small_networks_run(tmp_path: Path) -> None:
    pytest.importorskip("mygrad")
    _, found = run_part(tmp_path, "small_cnn")
    assert [row["case"][-7:] for row in found["rows"]] == ["batch 1", "batch 8"]
    assert "pydtnn" in found["notes"][0]


@pytest.mark.parity
@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun", path=Path(sys.executable).parent) is None, reason="needs mpirun")
def test_the_whole_job_runs(tmp_path: Path, assets: Path) -> None:
    _, found = run_part(tmp_path, "whole_job", "--assets", str(assets), "--plain-epochs", "1")
    assert [row["case"] for row in found["rows"]] == ["distgrad beside torch, caching", "distgrad beside torch"]
    assert "scaled from 1 of 2 epochs" in found["rows"][1]["detail"]
    assert all(job["images"] == 120 for jobs in found["jobs"].values() for job in jobs)

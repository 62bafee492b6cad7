"""The benchmarks of the data path run, compare batches, and write what they found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def run(script: str, *arguments: str) -> str:
    ended = subprocess.run([sys.executable, FOLDER / script, *arguments], capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clock", "only", "modes"),
    [
        ("cpu", "64 ", ("exact", "box", "fast", "cached", "augmented", "augmented-fast")),
        ("wall", "64 exact", ("exact",)),
    ],
    ids=["cpu", "wall"],
)
def test_data_path(tmp_path: Path, clock: str, only: str, modes: tuple[str, ...]) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--rounds", "2", "--seconds", "0.01", "--only", only, "--clock", clock, "--json", str(figures)]
    printed = run("data_path.py", *arguments)
    cases = json.loads(figures.read_text())["cases"]
    assert [case["case"] for case in cases] == [f"64 {mode}" for mode in modes]
    assert all(case["seconds"]["distgrad"]["median"] > 0 and case["case"] in printed for case in cases)


@pytest.mark.slow
def test_overlap(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    run("data_path.py", "--overlap", "--rounds", "1", "--json", str(figures))
    ratios = json.loads(figures.read_text())["ratios"]
    assert set(ratios) == {"matrix products", "small operations"}
    assert all(spread["median"] > 0 for case in ratios.values() for spread in case.values())


@pytest.mark.slow
def test_threads_as_one_rank() -> None:
    figures = json.loads(run("threads.py", "--rank", "1", "--seconds", "0.1").splitlines()[-1])
    assert set(figures) == {"frozen forward", "training step"} and all(seconds > 0 for seconds in figures.values())

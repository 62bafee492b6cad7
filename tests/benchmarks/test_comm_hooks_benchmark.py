"""The benchmark of communication hooks runs, and an error beyond a hook's bound is a failure."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def test_an_error_beyond_the_bound_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    benchmark, report = importlib.import_module("comm_hooks"), importlib.import_module("report")
    naive = {"seconds": [0.2, 0.4, 0.6], "bytes": 100, "bound": 1e-7, "error": 1e-8}
    found = report.Report("hooks", "Hooks")
    benchmark.add_rows(found, "here", {"all_reduce": naive, "fp16": naive | {"seconds": [0.1] * 3, "error": 1e-6}})
    assert [round(row.ratio.median, 6) for row in found.rows] == [1.0, 4.0]
    assert found.wrong == ["here, fp16: the error 1.00e-06 is beyond the bound 1.00e-07"]
    assert found.finish(tmp_path) == 1


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    """Where there are no network namespaces it says so, and has no rows."""
    command = [sys.executable, str(FOLDER / "comm_hooks.py"), "--quick", "--output", str(tmp_path)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "comm_hooks.json").read_text())
    assert found["wrong"] == []
    if found["rows"]:
        assert len(found["rows"]) == 7 and "fp16" in done.stdout
    else:
        assert found["notes"][0].startswith("skipped: ")

"""The library loop in the README runs as it stands there, alone and under mpirun, to the same parameters."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def loop() -> str:
    """The marked block."""
    found = re.search(r"<!-- run by tests/launch/test_readme.py -->\n```python\n(.*?)```", README.read_text(), re.S)
    assert found is not None
    return found.group(1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_loop_learns_and_its_ranks_agree(
    ranks: int, tmp_path: Path, run_ranks: Callable[..., subprocess.CompletedProcess]
) -> None:
    program = tmp_path / "loop.py"
    ending = """
import numpy as np
from distgrad.distributed import rank, world_size
assert world_size() == int(__import__("sys").argv[1])
with torch.no_grad():
    accuracy = (model(x).argmax(1) == (x.sum(1) > 0).long()).float().mean().item()
values = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
np.savez(f"rank{rank()}.npz", values=values, accuracy=accuracy)
"""
    program.write_text(loop() + ending)
    ended = run_ranks(ranks, program, str(ranks))
    assert ended.returncode == 0, ended.stderr
    results = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(ranks)]
    for result in results:
        assert np.array_equal(result["values"], results[0]["values"]), "ranks ended with different parameters"
        assert result["accuracy"] > 0.9


def test_five_lines_are_added() -> None:
    marked = [line for line in loop().splitlines() if re.search(r"# \d$", line)]
    assert [line[-1] for line in marked] == ["1", "2", "3", "4", "5"]

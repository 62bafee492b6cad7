"""Random programs mean the same here and in PyTorch; ``DISTGRAD_FUZZ=2000`` runs the long form."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import distgrad

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
PROGRAMS = int(os.environ.get("DISTGRAD_FUZZ", "200"))
SEED = int(os.environ.get("DISTGRAD_FUZZ_SEED", "0"))


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    specification = importlib.util.spec_from_file_location("distgrad_fuzz", Path(__file__).parent / "fuzz.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.timeout(3600)
def test_random_programs(fuzz: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    counts: Counter[str] = Counter()
    found = [
        f"---- seed {seed}\n{program}\n==> {difference}"
        for seed, program, difference in fuzz.differences(range(SEED, SEED + PROGRAMS), distgrad, torch, counts)
    ]
    print(f"{counts['programs']} programs, {counts['ran']} statements ran, {counts['raised']} raised in PyTorch, "
          f"{counts['gradients']} gradients compared: {len(found)} differences")  # fmt: skip
    assert not found, "\n\n".join(found)
    assert counts["ran"] > 5 * PROGRAMS and counts["raised"] > PROGRAMS / 2 and counts["gradients"] > PROGRAMS / 2


def test_a_difference_is_found_and_made_short(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer can fail: with a derivative that is off by a per cent, and with one that is missing."""
    torch = pytest.importorskip("torch")
    from distgrad.autograd.primitive import PRIMITIVES

    def found(seeds: int = 60) -> list[Any]:
        return [program for _, program, _ in fuzz.differences(range(seeds), distgrad, torch, Counter())]

    assert found() == []
    monkeypatch.setitem(PRIMITIVES["Mul"].vjps, "input", lambda g, other, input_shape: 1.01 * g * other)
    wrong = found()
    assert wrong and all(len(program.statements) <= 18 for program in wrong)

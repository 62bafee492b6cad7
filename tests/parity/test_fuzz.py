"""Random programs mean the same here and in PyTorch; ``DISTGRAD_FUZZ=2000`` runs the long form."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import distgrad

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
PROGRAMS = int(os.environ.get("DISTGRAD_FUZZ", "200"))
SEED = int(os.environ.get("DISTGRAD_FUZZ_SEED", "0"))


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    folder = str(Path(__file__).parent)  # where fuzz.py finds its other files when it is run by hand
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("fuzz")


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


def test_every_template_runs(fuzz: ModuleType) -> None:
    """None is written in a way that PyTorch always refuses, which would compare nothing."""
    torch = pytest.importorskip("torch")
    templates = importlib.import_module("fuzz_templates").TEMPLATES
    writing = importlib.import_module("fuzz_statements")
    never = []
    for template in sorted({template for kind in templates.values() for template in kind}):
        for seed in range(300):
            rng = np.random.default_rng(seed)
            shapes = [(), (3,), (2, 3), (3, 3), (2, 3, 4)]
            leaves = [(rng.uniform(0.1, 1, shapes[int(rng.integers(len(shapes)))]), bool(seed % 3)) for _ in range(4)]
            leaves.append((rng.integers(0, 3, (3,)), False))
            world = fuzz.World(torch, leaves)
            if seed % 3:
                (world.names["v0"] * 1).sum().backward()
                world.names["v1"] = world.names["v1"] * 1
                world.names["v2"] = world.names["v2"] * 1
            text = writing.Writer(rng, world.names).filled(template)
            if text and world.run(text[1:] if text.startswith("!") else f"v5 = {text}") is None:
                break
        else:
            never.append(template)
    assert not never

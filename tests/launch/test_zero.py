"""A recipe whose optimizer is shared out among the ranks: the same bytes, and checkpoints for any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distgrad.checkpoint import load
from distgrad.distributed import communicator, threads
from distgrad.launch import finetune
from distgrad.launch.settings import load_settings

pytestmark = pytest.mark.timeout(120)

FULL = ("--model.freeze", "false", "--data.batch_size", "6", "--data.image_size", "36")


def run(recipe: list[str], name: str, ranks: int, *overrides: str, resume: bool = False) -> None:
    settings = load_settings(recipe[1], ["--run.name", name, *FULL, *overrides])
    threads.run(ranks, lambda: finetune.finetune(settings, communicator(), resume=resume), timeout=60)


def test_a_run_writes_the_same_bytes(recipe: Callable[..., list[str]], tmp_path: Path, small_network: None) -> None:
    for name, zero in (("plain", "false"), ("zero", "true")):
        run(recipe(), name, 3, "--distributed.zero", zero, "--train.max_steps", "3")
    plain, zero = (tmp_path / "runs" / name / "last" for name in ("plain", "zero"))
    assert (plain / "model.safetensors").read_bytes() == (zero / "model.safetensors").read_bytes()
    expected, found = (load(folder)[1]["optimizer"]["state"] for folder in (plain, zero))
    assert expected.keys() == found.keys() and len(found) > 10
    for number, entry in expected.items():
        np.testing.assert_array_equal(found[number]["momentum_buffer"], entry["momentum_buffer"])


def test_a_run_goes_on_with_other_ranks(recipe: Callable[..., list[str]], tmp_path: Path, small_network: None) -> None:
    """Byte for byte, since its bits do not depend on the number of ranks: in the middle of an epoch, from 3 to 2."""
    ways = ("--distributed.reproducible", "true", "--distributed.virtual_ranks", "3", "--checkpoint.every_steps", "2")
    run(recipe(), "whole", 1, *ways, "--train.max_steps", "5")
    run(recipe(), "parts", 3, *ways, "--distributed.zero", "true", "--train.max_steps", "2")
    run(recipe(), "parts", 2, *ways, "--distributed.zero", "true", "--train.max_steps", "5", resume=True)
    whole, parts = (tmp_path / "runs" / name / "last" / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()

"""``distributed.reproducible``: the same model file, byte for byte, on any number of processes and after a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distgrad import distributed
from distgrad.distributed import SingleCommunicator
from distgrad.errors import ConfigError, DataError
from distgrad.launch import recipe
from distgrad.launch.settings import Settings

PROGRAM = Path(__file__).parent / "same_model.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_model_files_are_the_same_bytes(run_ranks: Callable[..., Any], tmp_path: Path) -> None:
    done = run_ranks(8, PROGRAM, tmp_path, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("digest ")]
    for kind in ("frozen", "full"):
        check([line[1:] for line in lines if line[0] == kind])


def check(found: list[list[str]]) -> None:
    """Each line: the run's name, its ``max_steps``, the digest of its model, its last training loss."""
    ends = {name: digest for name, max_steps, digest, _ in found if max_steps == "None"}
    assert sorted(ends) == ["on1", "on2", "on3", "on5", "on8", "resumed"]
    assert len(set(ends.values())) == 1, ends
    losses = {loss for name, max_steps, _, loss in found if max_steps == "None" and name != "resumed"}
    assert len(losses) == 1, found
    legs = {digest for name, max_steps, digest, _ in found if max_steps != "None"}
    assert len(legs) == 2 and not legs & set(ends.values())  # each leg has trained


def settings(**changes: Any) -> Settings:
    data = {"train": "train", "val": "val", "image_size": 32, "batch_size": 40} | changes.pop("data", {})
    return Settings(data=data, **changes)  # type: ignore[arg-type]


def test_more_ranks_than_slices_are_refused() -> None:
    class Nine(SingleCommunicator):
        world_size = 9

    chosen = settings(distributed={"reproducible": True})
    recipe.check_ranks(chosen, distributed.SingleCommunicator())
    recipe.check_ranks(settings(), Nine())
    with pytest.raises(
        ConfigError, match=r"virtual_ranks is 8, but there are 9 ranks: pass --distributed.virtual_ranks 9"
    ):
        recipe.check_ranks(chosen, Nine())


def test_a_slice_of_one_photo_is_refused_for_batch_norm() -> None:
    chosen = settings(model={"freeze": False}, distributed={"reproducible": True})
    recipe._check_batch_statistics(chosen, 40 + 16, 1)
    with pytest.raises(DataError, match=r"leave a batch of 11 to 8 slices. Change .*lower --distributed.virtual_ranks"):
        recipe._check_batch_statistics(chosen, 40 + 11, 1)

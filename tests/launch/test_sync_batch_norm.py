"""A recipe whose BatchNorm sees the photos of all ranks ends with the model of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from distgrad.distributed import communicator, threads
from distgrad.errors import ConfigError, DataError
from distgrad.launch import cli, finetune
from distgrad.launch.settings import load_settings

pytestmark = pytest.mark.timeout(120)


def test_ranks_end_with_the_model_of_one_process(
    recipe: Callable[..., list[str]], tmp_path: Path, photos: Path, small_network: None
) -> None:
    """21 photos in batches of 8: shards of different sizes, the last ones of one or two photos."""

    def run(name: str, ranks: int, sync: bool) -> dict[str, np.ndarray]:
        overrides = ["--run.name", name, "--model.freeze", "false", "--distributed.sync_batch_norm", str(sync).lower()]
        overrides += ["--train.max_steps", "3", "--data.image_size", "36"]
        settings = load_settings(recipe()[1], overrides)
        threads.run(ranks, lambda: finetune.finetune(settings, communicator()), timeout=60)
        return load_file(tmp_path / "runs" / name / "last" / "model.safetensors")

    alone, shared, apart = run("alone", 1, True), run("shared", 3, True), run("apart", 3, False)

    def distance(model: dict[str, np.ndarray]) -> float:
        return max(float(abs(model[name] - alone[name]).max()) for name in alone if "running" in name)

    assert distance(shared) < 1e-4 < 1e-2 < distance(apart)
    assert shared.keys() == alone.keys(), "a checkpoint does not tell that ranks were synchronized"
    cli.main(["evaluate", str(tmp_path / "runs" / "shared"), str(photos / "val")])


def test_one_photo_a_rank_is_enough(recipe: Callable[..., list[str]], small_network: None) -> None:
    overrides = ["--model.freeze", "false", "--train.max_steps", "1", "--data.batch_size", "3", "--run.name"]

    def run(name: str, sync: str) -> None:
        settings = load_settings(recipe()[1], [*overrides, name, "--distributed.sync_batch_norm", sync])
        threads.run(3, lambda: finetune.finetune(settings, communicator()), timeout=60)

    with pytest.raises(DataError, match="BatchNorm cannot be trained on a single photo of 32 pixels"):
        run("apart", "false")
    run("together", "true")


def test_slices_have_statistics_of_their_own(recipe: Callable[..., list[str]]) -> None:
    overrides = ["--distributed.sync_batch_norm", "true", "--distributed.reproducible", "true"]
    with pytest.raises(ConfigError, match=r"distributed\.sync_batch_norm.* cannot be used with"):
        load_settings(recipe()[1], overrides)

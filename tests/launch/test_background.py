from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from distgrad.distributed import SingleCommunicator
from distgrad.errors import CheckpointError
from distgrad.launch import finetune
from distgrad.launch.background import Background
from distgrad.launch.settings import load_settings


def fail() -> None:
    raise OSError("no room")


def test_calls_run_one_after_the_other_while_the_caller_goes_on() -> None:
    may_end = threading.Event()
    done: list[int] = []

    def first() -> None:
        may_end.wait()
        done.append(1)

    with Background() as background:
        background.start(first)
        assert not done
        may_end.set()
        background.start(done.append, 2)
        background.wait()
        assert done == [1, 2]
        background.start(done.append, 3)
    assert done == [1, 2, 3], "leaving waits"


def test_what_a_call_raises_reaches_whoever_waits_and_only_once() -> None:
    with Background() as background:
        background.start(fail)
        with pytest.raises(OSError, match="no room"):
            background.start(lambda: None)
        background.wait()
        background.start(fail)
        with pytest.raises(OSError, match="no room"):
            background.wait()


def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    recipe: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = finetune.CheckpointManager.save, []

    def save(self: object, step: int, *arguments: object, **keywords: object) -> object:
        calls.append(step)
        if step == 3:
            raise CheckpointError("the disk is full")
        return real(self, step, *arguments, **keywords)

    monkeypatch.setattr(finetune.CheckpointManager, "save", save)
    settings = load_settings(recipe()[1], ["--checkpoint.every_steps", "1"])
    with pytest.raises(CheckpointError, match="the disk is full"):
        finetune.finetune(settings, SingleCommunicator())
    assert calls == [1, 2, 3], "and is told at the next one"
    assert os.readlink(tmp_path / "runs" / "tiny" / "last") == "checkpoints/step-00000002"


def test_a_checkpoint_holds_its_step_however_slowly_it_is_written(
    recipe: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training goes on while it is written, and must not show in it."""
    finetune.finetune(
        load_settings(recipe()[1], ["--train.max_steps", "3", "--run.name", "ends"]), SingleCommunicator()
    )
    real, real_step = finetune.CheckpointManager.save, finetune.optim.SGD.step
    went_on, steps = threading.Event(), []

    def save(self: object, step: int, *arguments: object, **keywords: object) -> object:
        if step == 3:
            assert went_on.wait(60)
        return real(self, step, *arguments, **keywords)

    def step(self: object) -> None:
        real_step(self)
        steps.append(None)
        if len(steps) == 5:
            went_on.set()

    monkeypatch.setattr(finetune.CheckpointManager, "save", save)
    monkeypatch.setattr(finetune.optim.SGD, "step", step)
    settings = load_settings(recipe()[1], ["--run.name", "goes on", "--checkpoint.keep", "9"])
    finetune.finetune(settings, SingleCommunicator())
    for name in ("model.safetensors", "state.safetensors"):
        ends, goes_on = (
            tmp_path / "runs" / run / "checkpoints" / "step-00000003" / name for run in ("ends", "goes on")
        )
        assert goes_on.read_bytes() == ends.read_bytes()
    assert load_file(tmp_path / "runs" / "goes on" / "last" / "model.safetensors")["fc.bias"].shape == (3,)

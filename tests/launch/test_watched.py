"""The recipe notices a rank that is late, or that goes its own way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from distgrad.distributed import communicator, threads
from distgrad.distributed.monitored import MonitoredCommunicator
from distgrad.errors import CommunicationError, ConfigError
from distgrad.launch import finetune
from distgrad.launch.settings import load_settings

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, small_network: None) -> None:
    """In the second step a weight of rank 1 changes by itself."""
    make = finetune.recipe.optimizer

    def optimizer(settings: Any, network: Any, *rest: Any) -> Any:
        made = make(settings, network, *rest)
        steps = 0

        def after(*_: Any) -> None:
            nonlocal steps
            steps += 1
            if steps == 2 and communicator().rank == 1:
                network.fc.bias.detach().numpy()[1] += 0.5

        made.register_step_post_hook(after)
        return made

    monkeypatch.setattr(finetune.recipe, "optimizer", optimizer)


def test_a_rank_apart_ends_the_run(recipe: Callable[..., list[str]], apart: None) -> None:
    def one_rank() -> str:
        settings = load_settings(recipe()[1], ["--distributed.desync_every", "2", "--model.freeze", "false"])
        with pytest.raises(CommunicationError) as raised:
            finetune.finetune(settings, communicator())
        return str(raised.value)

    (said,) = set(threads.run(2, one_rank, timeout=30.0))
    assert said.startswith(
        "step 2: parameter fc.bias of rank 1 differs from rank 0 (max difference 0.5 at [1], 1 of 3 elements)"
    )


def test_a_rank_apart_is_healed(
    recipe: Callable[..., list[str]], apart: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, ranks: int, *more: str) -> dict[str, Any]:
        overrides = ["--train.max_steps", "3", "--run.name", name, "--distributed.desync_every", "1", *more]
        settings = load_settings(recipe()[1], overrides)
        threads.run(ranks, lambda: finetune.finetune(settings, communicator()), timeout=30.0)
        (state,) = (tmp_path / "runs" / name).glob("last/*model*.safetensors")
        return load_file(state)

    healed = run("healed", 2, "--distributed.heal", "true")
    assert capsys.readouterr().err.count("Healed: every rank has rank 0's values") == 1
    whole = run("whole", 1)
    np.testing.assert_allclose(healed["fc.bias"], whole["fc.bias"], atol=1e-5)


@pytest.mark.usefixtures("small_network")
def test_the_limit_and_the_check_of_a_config(recipe: Callable[..., list[str]]) -> None:
    def one_rank() -> tuple[float, bool]:
        settings = load_settings(
            recipe()[1], ["--train.max_steps", "1", "--distributed.timeout", "77", "--distributed.check", "true"]
        )
        ranks = communicator()
        finetune.finetune(settings, ranks)
        assert isinstance(ranks, MonitoredCommunicator) and ranks.watchdog is not None
        return ranks.watchdog.limit, ranks._checker is not None

    assert threads.run(2, one_rank, watch=5.0, timeout=30.0) == [(77.0, True)] * 2


@pytest.mark.parametrize("override", [("timeout", "-1"), ("desync_every", "-2"), ("check", "maybe")])
def test_settings_that_make_no_sense(recipe: Callable[..., list[str]], override: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"distributed.{override[0]}"):
        load_settings(recipe()[1], [f"--distributed.{override[0]}", override[1]])

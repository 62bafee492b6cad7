"""A run that writes its timeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distgrad import tracing
from distgrad.launch import cli

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.mark.parametrize("freeze", ["true", "false"])
def test_a_run_leaves_a_timeline_beside_its_metrics(
    freeze: str, recipe: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--observe.timeline", "true", "--observe.timeline_steps", "2", "--model.freeze", freeze]
    cli.main(recipe("--run.name", "shown", *options))
    events = json.loads((tmp_path / "runs" / "shown" / "timeline.json").read_text())["traceEvents"]
    names = [event["name"] for event in events if event["ph"] == "X"]
    assert [names.count(name) for name in ("forward", "backward", "optimizer")] == [2, 2, 2]
    printed = capsys.readouterr().out
    assert "timeline of 2 steps on 1 rank" in printed and "critical path: rank 0" in printed
    assert str(tmp_path / "runs" / "shown" / "timeline.json") in printed
    assert not tracing.is_recording()


def test_a_short_run_says_why_there_is_none(
    recipe: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(recipe("--run.name", "short", "--observe.timeline", "true", "--train.max_steps", "2"))
    assert not (tmp_path / "runs" / "short" / "timeline.json").exists()
    assert "within the 3 steps of warming up" in capsys.readouterr().out


def test_without_the_setting_nothing_is_recorded(recipe: Callable[..., list[str]], tmp_path: Path) -> None:
    cli.main(recipe("--run.name", "plain", "--train.max_steps", "1"))
    assert not (tmp_path / "runs" / "plain" / "timeline.json").exists()

from __future__ import annotations

import io
import os
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from distgrad.observe import Progress, progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class StandardError(io.StringIO):
    """Standard error that is a pipe, as a launcher gives it to its ranks."""

    def fileno(self) -> int:
        return 2


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A pseudo-terminal of 123 columns; its path."""
    for name in progress._LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (40, 123))
    yield master, slave, os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_lines_are_few_and_say_all() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(2500, "epoch 2/3", stream=stream, clock=clock) as bar:
        for step in range(25):
            clock.now += 1.0
            bar.update(100, loss=1 / (step + 1))
        assert bar.images_per_second == 100.0
    assert stream.getvalue().splitlines() == [
        "epoch 2/3: 1000/2500 images, 100.0 images/s, 0:15 left, loss 0.1",
        "epoch 2/3: 2000/2500 images, 100.0 images/s, 0:05 left, loss 0.05",
    ]


def test_short_work_prints_no_line() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(100, "epoch 1/3", stream=stream, clock=clock) as bar:
        assert bar.images_per_second == 0.0
        for _ in range(9):
            clock.now += 1.0
            bar.update(10)
    assert stream.getvalue() == ""


def test_a_resumed_epoch_counts_on_but_not_its_rate() -> None:
    clock, stream = Clock(), io.StringIO()
    bar = Progress(1000, "epoch 1/1", initial=500, stream=stream, clock=clock)
    clock.now += 10.0
    bar.update(100)
    assert stream.getvalue() == "epoch 1/1: 600/1000 images, 10.0 images/s, 0:40 left\n"


@pytest.mark.parametrize("style", ["auto", "bar", "lines"])
def test_other_ranks_are_silent(style: str) -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(10, "epoch 1/1", rank=1, style=style, stream=stream, clock=clock) as bar:  # type: ignore[arg-type]
        clock.now += 60.0
        bar.update(5, loss=1.0)
        assert bar.count == 5
    assert stream.getvalue() == ""


def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_DELAY", 0)
    stream = io.StringIO()
    with Progress(640, "epoch 1/3", style="bar", stream=stream) as bar:
        for _ in range(4):
            bar.update(160, loss=0.25)
        bar._bar.refresh()
        text = stream.getvalue().split("\r")[-1]
    assert text.startswith("epoch 1/3 100% |") and "640/640, " in text
    assert " images/s, 00:00 left, loss=0.25" in text
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().split("\r")[-2].strip() == ""  # taken away at the end


def test_a_terminal_has_a_bar_of_its_width(terminal: tuple[int, int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_DELAY", 0)
    master, slave, _ = terminal
    with open(slave, "w", closefd=False) as stream:
        assert progress.terminal_of(stream) is stream and progress.columns(stream) == 123
        with Progress(10, "epoch 1/1", stream=stream) as bar:
            bar.update(10)
        assert not stream.closed
    shown = os.read(master, 1 << 16).decode()
    assert "epoch 1/1" in shown and max(map(len, shown.split("\r"))) <= 123


def test_a_rank_below_a_launcher_draws_on_the_launcher_s_terminal(
    terminal: tuple[int, int, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream = StandardError()
    monkeypatch.setattr(progress, "_DELAY", 0)
    monkeypatch.setattr(progress, "_PARENTS_STDERR", terminal[2])
    assert progress.terminal_of(stream) is None  # no launcher: the parent's business is not ours
    monkeypatch.setenv("PMIX_RANK", "0")
    with Progress(10, "epoch 1/1", stream=stream) as bar:
        bar.update(10)
    shown = os.read(terminal[0], 1 << 16).decode()
    assert "epoch 1/1" in shown and max(map(len, shown.split("\r"))) <= 123
    assert stream.getvalue() == ""  # the pipe to the launcher would hold it back until a line ends
    assert progress.terminal_of(io.StringIO()) is None
    (tmp_path / "log").touch()
    for elsewhere in (str(tmp_path / "log"), str(tmp_path / "nowhere")):
        monkeypatch.setattr(progress, "_PARENTS_STDERR", elsewhere)
        assert progress.terminal_of(stream) is None


def test_no_terminal_no_bar_and_no_tqdm() -> None:
    program = """
import sys
from distgrad.observe import Progress
with Progress(10, "epoch 1/1") as bar:
    bar.update(10)
assert "tqdm" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (36061, "10:01:01")]
)
def test_duration(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text

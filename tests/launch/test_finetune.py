"""The recipe as people start it: what it prints, what it leaves, how it goes on, what the other commands read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from distgrad.distributed import Communicator, SingleCommunicator, communicator, threads
from distgrad.errors import CheckpointError, ConfigError
from distgrad.launch import cli, finetune
from distgrad.launch.settings import load_settings
from distgrad.observe import read_metrics

pytestmark = pytest.mark.timeout(240)

CLI = ("-m", "distgrad.launch.cli")


def test_one_process_trains_and_leaves_a_run(
    recipe: Callable[..., list[str]], tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(recipe())
    printed = capsys.readouterr().out
    run = tmp_path / "runs" / "tiny"
    assert "21 photos of 3 classes, 9 to validate; 1 rank" in printed
    assert "epoch 1/2 · train loss" in printed and "epoch 2/2 · train loss" in printed
    assert "val accuracy" in printed and str(run / "best" / "model.safetensors") in printed

    model = load_file(run / "last" / "model.safetensors")
    assert len(model) == 122 and model["fc.weight"].shape == (3, 512)
    assert list(json.loads((run / "classes.json").read_text())) == ["blue", "green", "red"]
    records = read_metrics(run / "metrics.jsonl")
    assert [(record["step"], record["epoch"]) for record in records] == [(3, 1), (6, 2)]
    assert records[1]["val_accuracy"] >= 8 / 9, "three colours are easy, even for a random backbone"
    assert load_settings(run / "config.toml").optim.lr == 0.05

    cli.main(["evaluate", str(run), str(photos / "val")])
    best = max(record["val_accuracy"] for record in records)
    assert f"accuracy {100 * best:.2f} %" in capsys.readouterr().out

    photo = photos / "val" / "red" / "0.jpg"
    cli.main(["predict", str(run), str(photo), "--top", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(photo) and len(lines) == 3
    assert lines[1].split("%")[1].strip() == "red"


def test_a_frozen_backbone_keeps_every_bit(recipe: Callable[..., list[str]], tmp_path: Path) -> None:
    for name, steps in (("short", "1"), ("long", "6")):
        cli.main(recipe("--run.name", name, "--train.max_steps", steps))
    short, long = (load_file(tmp_path / "runs" / name / "last" / "model.safetensors") for name in ("short", "long"))
    for name in short:
        assert np.array_equal(short[name], long[name]) != name.startswith("fc."), name


def test_a_full_run_moves_parameters_and_statistics(recipe: Callable[..., list[str]], tmp_path: Path) -> None:
    for name, steps in (("short", "1"), ("long", "2")):
        cli.main(recipe("--run.name", name, "--model.freeze", "false", "--train.max_steps", steps))
    short, long = (load_file(tmp_path / "runs" / name / "last" / "model.safetensors") for name in ("short", "long"))
    for name in short:
        assert not np.array_equal(short[name], long[name]), name


class Interruption(Exception):
    """What the test throws into a running step."""


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize(
    ("freeze", "interruptions"), [("true", range(1, 7)), ("false", (2, 5))], ids=["frozen", "full"]
)
def test_interrupted_at_any_step_a_run_ends_with_the_same_bytes(
    freeze: str,
    interruptions: Iterable[int],
    recipe: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut happens here, and the disk is slow

    def settings(name: str) -> object:
        overrides = ["--run.name", name, "--model.freeze", freeze, "--checkpoint.every_steps", "2"]
        return load_settings(recipe()[1], overrides)

    ranks = SingleCommunicator()
    finetune.finetune(settings("whole"), ranks)
    expected = (tmp_path / "runs" / "whole" / "last" / "model.safetensors").read_bytes()
    expected_metrics = [
        {key: record[key] for key in ("step", "epoch", "train_loss", "val_loss", "val_accuracy", "lr")}
        for record in read_metrics(tmp_path / "runs" / "whole" / "metrics.jsonl")
    ]

    real_step = finetune.optim.SGD.step
    for interrupted_at in interruptions:
        taken = 0

        def step(self: object, *, at: int = interrupted_at) -> None:
            nonlocal taken
            taken += 1
            if taken == at:
                raise Interruption
            real_step(self)

        run = settings(f"interrupted-{interrupted_at}")
        with monkeypatch.context() as patch:
            patch.setattr(finetune.optim.SGD, "step", step)
            with pytest.raises(Interruption):
                finetune.finetune(run, ranks)
        finetune.finetune(run, ranks, resume=True)
        directory = tmp_path / "runs" / f"interrupted-{interrupted_at}"
        assert (directory / "last" / "model.safetensors").read_bytes() == expected, interrupted_at
        metrics = [
            {key: record[key] for key in expected_metrics[0]} for record in read_metrics(directory / "metrics.jsonl")
        ]
        assert metrics == expected_metrics, interrupted_at


@pytest.mark.parametrize(("ranks", "freeze"), [(1, "true"), (2, "true"), (2, "false")])
def test_killed_without_warning_a_run_resumes_to_the_same_bytes(
    ranks: int,
    freeze: str,
    recipe: Callable[..., list[str]],
    tmp_path: Path,
    run_ranks: Callable[..., subprocess.CompletedProcess],
) -> None:
    arguments = recipe("--checkpoint.every_steps", "1", "--train.epochs", "3", "--model.freeze", freeze)
    whole = run_ranks(ranks, *CLI, *arguments, "--run.name", "whole")
    assert whole.returncode == 0, whole.stderr

    command = [sys.executable, *CLI, *arguments, "--run.name", "killed"]
    if ranks > 1:
        command = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks), "--oversubscribe", *command]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_COMM", "PMIX", "PRTE_L"))}
    environ |= dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMP_NUM_THREADS"), "1")
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoints = tmp_path / "runs" / "killed" / "checkpoints"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if any(int(entry.name.split("-")[1][:8]) >= 4 for entry in checkpoints.glob("step-*")):
            break
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    resumed = run_ranks(ranks, *CLI, *arguments, "--run.name", "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step" in resumed.stdout
    name = Path("last", "model.safetensors")
    assert (tmp_path / "runs/killed" / name).read_bytes() == (tmp_path / "runs/whole" / name).read_bytes()


@pytest.mark.usefixtures("small_network")
def test_a_run_is_not_overwritten_unasked(
    recipe: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(recipe("--train.max_steps", "1"))
    with pytest.raises(SystemExit) as leaving:
        cli.main(recipe("--train.max_steps", "1"))
    assert leaving.value.code == 1
    assert "holds a run already. --resume goes on with it, --overwrite replaces it" in capsys.readouterr().err
    cli.main(recipe("--train.max_steps", "2", "--overwrite"))
    assert [r["step"] for r in read_metrics(tmp_path / "runs" / "tiny" / "metrics.jsonl")] == [2]
    with pytest.raises(SystemExit):
        cli.main(recipe("--train.max_steps", "2", "--resume", "--optim.lr", "0.01"))
    assert "optim.lr was 0.05 and is 0.01" in capsys.readouterr().err
    cli.main(recipe("--resume"))
    assert "done: 2 epochs, 6 steps" in capsys.readouterr().out


@pytest.mark.usefixtures("small_network")
def test_more_epochs_are_refused_where_the_rate_of_the_past_depends_on_them(
    recipe: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(recipe("--train.max_steps", "1"))
    with pytest.raises(SystemExit):
        cli.main(recipe("--resume", "--train.epochs", "4"))
    assert "train.epochs was 2 and is 4" in capsys.readouterr().err
    constant = recipe("--schedule.name", "constant", "--run.name", "constant")
    cli.main([*constant, "--train.epochs", "1"])
    cli.main([*constant, "--resume"])
    assert "done: 2 epochs, 6 steps" in capsys.readouterr().out


@pytest.mark.usefixtures("small_network")
def test_a_resume_with_no_step_left_does_not_pass_for_a_finished_run(
    recipe: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise Interruption

    every_step = ["--checkpoint.every_steps", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "_check_finite", lambda loss, step, *_: interrupt() if step == 2 else None)
        with pytest.raises(Interruption):
            finetune.finetune(load_settings(recipe()[1], every_step), SingleCommunicator())
    with pytest.raises(ConfigError, match=r"in the middle of an epoch, after step 1, .* would end with step 1"):
        settings = load_settings(recipe()[1], [*every_step, "--train.max_steps", "1"])
        finetune.finetune(settings, SingleCommunicator(), resume=True)
    finetune.finetune(load_settings(recipe()[1], every_step), SingleCommunicator(), resume=True)
    finished = finetune.finetune(load_settings(recipe()[1], every_step), SingleCommunicator(), resume=True)
    assert 0 <= finished.accuracy <= 1 and np.isnan(finished.loss)


@pytest.mark.usefixtures("small_network")
def test_a_resume_notices_other_classes(
    recipe: Callable[..., list[str]], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(recipe("--train.max_steps", "1"))
    for part in ("train", "val"):
        (photos / part / "green").rename(photos / part / "teal")
    with pytest.raises(SystemExit):
        cli.main(recipe("--resume"))
    assert "was trained on the classes blue, green, red, now they are blue, red, teal" in capsys.readouterr().err


@pytest.mark.usefixtures("small_network")
def test_a_resume_that_only_one_host_could_do_is_refused_on_all(
    recipe: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Hosts that do not share a file system: rank 1 finds no checkpoint, and would begin at the first step."""
    cli.main(recipe("--train.max_steps", "1"))

    def one_rank() -> str:
        ranks: Communicator = communicator()
        elsewhere = [] if ranks.rank == 0 else ["--run.output", str(tmp_path / "another host")]
        with pytest.raises(CheckpointError) as refused:
            finetune.finetune(load_settings(recipe()[1], elsewhere), ranks, resume=True)
        return str(refused.value)

    for said in threads.run(2, one_rank):
        assert "rank 1 does not find the same last checkpoint" in said and "--run.output" in said


@pytest.mark.usefixtures("small_network")
def test_what_a_killed_run_left_does_not_pass_for_the_new_one_s(
    recipe: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Killed between the two links of its first checkpoint, a run has a best one and no last."""
    cli.main(recipe("--train.epochs", "1"))
    run = tmp_path / "runs" / "tiny"
    (run / "last").unlink()
    cli.main(recipe("--train.max_steps", "1"))
    assert [entry.name for entry in (run / "checkpoints").iterdir()] == ["step-00000001"]
    assert os.readlink(run / "best") == "checkpoints/step-00000001"


@pytest.mark.usefixtures("small_network")
def test_a_folder_that_is_no_run_keeps_what_lies_in_it(recipe: Callable[..., list[str]], tmp_path: Path) -> None:
    foreign = tmp_path / "runs" / "tiny" / "checkpoints" / "mine.pt"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    cli.main(recipe("--train.max_steps", "1"))
    assert foreign.exists()


def test_a_run_goes_on_with_another_number_of_ranks(
    recipe: Callable[..., list[str]], tmp_path: Path, run_ranks: Callable[..., subprocess.CompletedProcess]
) -> None:
    for arguments, ranks in (
        (recipe("--run.name", "whole"), 1),
        (recipe("--run.name", "moved", "--train.max_steps", "2"), 3),
        (recipe("--run.name", "moved", "--resume"), 2),
    ):
        ended = run_ranks(ranks, *CLI, *arguments)
        assert ended.returncode == 0, ended.stderr
    whole, moved = (load_file(tmp_path / "runs" / name / "last" / "model.safetensors") for name in ("whole", "moved"))
    for name in whole:
        assert np.linalg.norm(moved[name] - whole[name]) <= 1e-5 * np.linalg.norm(whole[name]), name


def test_evaluate_and_predict_under_mpirun_say_it_once(
    recipe: Callable[..., list[str]],
    tmp_path: Path,
    photos: Path,
    run_ranks: Callable[..., subprocess.CompletedProcess],
) -> None:
    assert run_ranks(1, *CLI, *recipe("--train.max_steps", "1")).returncode == 0
    photo = str(photos / "val" / "red" / "0.jpg")
    ended = run_ranks(2, *CLI, "predict", str(tmp_path / "runs" / "tiny"), photo)
    assert ended.returncode == 0 and ended.stdout.splitlines().count(photo) == 1, ended.stderr
    evaluation = ("evaluate", str(tmp_path / "runs" / "tiny"), str(photos / "val"))
    alone, together = (run_ranks(ranks, *CLI, *evaluation) for ranks in (1, 2))
    assert together.stdout.count("accuracy") == 1 and "on 9 photos" in together.stdout, together.stderr
    assert together.stdout.strip() == alone.stdout.strip()


def test_ranks_share_the_work_and_agree(
    recipe: Callable[..., list[str]], tmp_path: Path, run_ranks: Callable[..., subprocess.CompletedProcess]
) -> None:
    def run(name: str, ranks: int) -> tuple[str, dict[str, np.ndarray], list[dict]]:
        ended = run_ranks(ranks, *CLI, *recipe("--run.name", name))
        assert ended.returncode == 0, ended.stderr
        folder = tmp_path / "runs" / name
        return ended.stdout, load_file(folder / "last" / "model.safetensors"), read_metrics(folder / "metrics.jsonl")

    _, theirs, metrics = run("alone", 1)
    for ranks in (2, 4):
        said, ours, together = run(f"together-{ranks}", ranks)
        assert f"{ranks} ranks, batches of 8" in said
        assert said.count("epoch 2/2") == 1, "one rank prints"
        for name in ours:
            assert np.linalg.norm(ours[name] - theirs[name]) <= 1e-5 * np.linalg.norm(theirs[name]), name
        for one, other in zip(together, metrics, strict=True):
            assert one["val_accuracy"] == other["val_accuracy"]
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)

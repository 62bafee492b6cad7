"""Finetuning on kept features: the same bytes as without, computed once, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distgrad.distributed import SingleCommunicator
from distgrad.launch import cli, finetune
from distgrad.launch.settings import load_settings
from distgrad.observe import read_metrics

pytestmark = pytest.mark.timeout(240)

CLI = ("-m", "distgrad.launch.cli")
Recipe = Callable[..., list[str]]
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def train(recipe: Recipe, tmp_path: Path, small_network: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Runs the recipe in this process; the bytes of its last model."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut happens here, and the disk is slow

    def run(name: str, *overrides: str, resume: bool = False) -> bytes:
        settings = load_settings(recipe()[1], ["--run.name", name, *overrides])
        finetune.finetune(settings, SingleCommunicator(), resume=resume)
        return (tmp_path / "runs" / name / "last" / "model.safetensors").read_bytes()

    return run


def told(tmp_path: Path, name: str) -> list[tuple[int, int]]:
    """For each epoch, the features that were found and those that were computed."""
    records = read_metrics(tmp_path / "runs" / name / "metrics.jsonl")
    return [(record["features_reused"], record["features_computed"]) for record in records]


@pytest.mark.parametrize(
    ("overrides", "first", "later"),
    [
        (("--data.augment", "false"), [(0, 30), (0, 0), (0, 0)], [(30, 0), (0, 0), (0, 0)]),
        ((), [(0, 30), (0, 21), (0, 21)], [(30, 0), (21, 0), (21, 0)]),
        (("--features.views", "2"), [(0, 30), (0, 21), (0, 0)], [(30, 0), (21, 0), (0, 0)]),
        (
            ("--data.augment", "false", "--features.dtype", "float16"),
            [(0, 30), (0, 0), (0, 0)],
            [(30, 0), (0, 0), (0, 0)],
        ),
    ],
    ids=["plain", "views", "two views", "half"],
)
def test_the_head_has_the_same_bytes_with_the_cache_empty_full_and_off(
    overrides: tuple[str, ...],
    first: list[tuple[int, int]],
    later: list[tuple[int, int]],
    train: Callable[..., bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = (*overrides, "--train.epochs", "3")
    off = train("off", *overrides, "--features.cache", "off")
    assert not (tmp_path / "runs" / ".features").exists()
    assert train("empty", *overrides, "--features.cache", "on") == off
    capsys.readouterr()
    assert train("full", *overrides) == off
    assert told(tmp_path, "empty") == first and told(tmp_path, "full") == later
    reused = sum(found for found, _ in later)
    said = capsys.readouterr().out
    assert f"features: {reused} from the cache, 0 computed; " in said and f" MB in {tmp_path}/runs/.features" in said
    assert all("features_reused" not in record for record in read_metrics(tmp_path / "runs" / "off" / "metrics.jsonl"))


def test_half_precision_is_another_result_and_another_cache(train: Callable[..., bytes], tmp_path: Path) -> None:
    single = train("single", "--data.augment", "false")
    assert train("half", "--data.augment", "false", "--features.dtype", "float16") != single
    assert told(tmp_path, "half") == [(0, 30), (0, 0)]


def test_new_versions_each_epoch_are_not_kept(train: Callable[..., bytes], tmp_path: Path) -> None:
    assert train("fresh", "--features.views", "0") != train("kept", "--features.views", "1")
    assert all(
        "features_reused" not in record for record in read_metrics(tmp_path / "runs" / "fresh" / "metrics.jsonl")
    )


def test_a_backbone_that_learns_has_no_features_to_keep(train: Callable[..., bytes], tmp_path: Path) -> None:
    train("full", "--model.freeze", "false", "--train.max_steps", "1")
    assert not (tmp_path / "runs" / ".features").exists()


def test_other_weights_preprocessing_and_photos_are_computed_again(
    train: Callable[..., bytes], tmp_path: Path, photos: Path
) -> None:
    fixed = ("--data.augment", "false", "--train.epochs", "1")
    train("first", *fixed)
    for name, overrides in {
        "seed": ("--run.seed", "1"),  # random weights are drawn from it
        "side": ("--data.image_size", "40"),
        "resize": ("--data.resize_size", "40"),
        "exif": ("--data.exif_orientation", "true"),
    }.items():
        train(name, *fixed, *overrides)
        assert told(tmp_path, name) == [(0, 30)], name
    train("again", *fixed, "--optim.lr", "0.01", "--train.label_smoothing", "0.1", "--data.batch_size", "5")
    assert told(tmp_path, "again") == [(30, 0)]
    (photos / "train" / "red" / "0.jpg").write_bytes((photos / "val" / "red" / "0.jpg").read_bytes())
    (photos / "train" / "blue" / "1.jpg").write_bytes((photos / "train" / "blue" / "1.jpg").read_bytes() + b"\0")
    train("changed", *fixed)
    assert told(tmp_path, "changed") == [(29, 1)], "one is a copy of a photo that is known"
    assert train("changed and off", *fixed, "--features.cache", "off") == train("changed and kept", *fixed)


def test_steps_that_are_not_taken_cost_no_features(train: Callable[..., bytes], tmp_path: Path) -> None:
    train("short", "--train.max_steps", "1")
    assert told(tmp_path, "short") == [(0, 8 + 9)]
    assert train("short", resume=True) == train("whole")
    assert told(tmp_path, "short")[1:] == [(9, 13), (0, 21)]


def test_a_run_goes_on_with_the_cache_elsewhere_or_off(train: Callable[..., bytes], tmp_path: Path) -> None:
    expected = train("whole")
    for name, more in (
        ("elsewhere", ("--features.folder", str(tmp_path / "mine"))),
        ("off", ("--features.cache", "off")),
    ):
        train(name, "--train.max_steps", "2")
        assert train(name, *more, resume=True) == expected
    assert list((tmp_path / "mine").glob("*/*.rows"))


def test_a_cache_that_cannot_be_written_costs_a_warning(train: Callable[..., bytes], tmp_path: Path) -> None:
    expected = train("whole")
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match=r"the feature cache .* cannot be used \(Not a directory\)"):
        assert train("without", "--features.folder", str(tmp_path / "file" / "below")) == expected


def test_damaged_features_are_not_trained_on(train: Callable[..., bytes], tmp_path: Path) -> None:
    expected = train("whole", "--data.augment", "false")
    [path] = (tmp_path / "runs" / ".features").glob("*/*.rows")
    content = bytearray(path.read_bytes())
    content[2000::4096] = bytes(byte ^ 0x10 for byte in content[2000::4096])
    path.write_bytes(content)
    assert train("damaged", "--data.augment", "false") == expected
    [(found, computed), _] = told(tmp_path, "damaged")
    assert found + computed == 30 and computed > 5


def test_what_is_unused_goes_first_where_room_is_short(train: Callable[..., bytes], tmp_path: Path) -> None:
    train("one", "--data.augment", "false")
    [old] = (tmp_path / "runs" / ".features").iterdir()
    train("two", "--data.augment", "false", "--data.image_size", "40", "--features.limit_gb", "1e-6")
    assert not old.exists() and told(tmp_path, "two") == [(0, 30), (0, 0)]


def test_evaluation_finds_them_and_gives_the_same_bits_without(
    train: Callable[..., bytes], tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("tiny")
    [*_, trained] = read_metrics(tmp_path / "runs" / "tiny" / "metrics.jsonl")

    def said(run: str, *more: str, data: str = "val") -> list[str]:
        capsys.readouterr()
        cli.main(["evaluate", str(tmp_path / run), str(photos / data), "--checkpoint", "last", *more])
        return capsys.readouterr().out.splitlines()

    [line, told] = said("runs/tiny", "--batch-size", "8")
    assert f"loss {trained['val_loss']:.4f} on 9 photos" in line
    assert told.startswith("features: 9 from the cache, 0 computed; ")
    assert said("runs/tiny", "--batch-size", "8", "--features", "off") == [line]
    [line, told] = said("runs/tiny", data="train")
    assert told.startswith("features: 0 from the cache, 21 computed; "), "training saw other versions of them"
    assert said("runs/tiny", data="train")[1].startswith("features: 21 from the cache, 0 computed; ")
    assert said("runs/tiny", "--features", "off", data="train") == [line]
    (tmp_path / "runs").rename(tmp_path / "moved")
    [again, told] = said("moved/tiny", data="train")
    assert again == line and told.startswith("features: 21 from the cache, 0 computed; ")
    assert not (tmp_path / "runs").exists()


def test_evaluation_of_a_backbone_that_learnt_keeps_none(
    train: Callable[..., bytes], tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("full", "--model.freeze", "false", "--train.max_steps", "1")
    cli.main(["evaluate", str(tmp_path / "runs" / "full"), str(photos / "val")])
    assert "features" not in capsys.readouterr().out and not (tmp_path / "runs" / ".features").exists()


@pytest.mark.parametrize("ranks", [2, 3])
def test_on_several_ranks_the_cache_changes_no_byte(
    ranks: int, recipe: Recipe, tmp_path: Path, run_ranks: Runner
) -> None:
    def run(name: str, count: int, *more: str) -> bytes:
        ended = run_ranks(count, *CLI, *recipe("--run.name", name, *more))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("features: ") == (0 if "off" in more else 1)
        return (tmp_path / "runs" / name / "last" / "model.safetensors").read_bytes()

    off = run("off", ranks, "--features.cache", "off")
    assert run("on", ranks) == off and told(tmp_path, "on") == [(0, 30), (0, 21)]
    assert run("again", ranks) == off and told(tmp_path, "again") == [(30, 0), (21, 0)]
    run("alone", 1)
    assert told(tmp_path, "alone") == [(30, 0), (21, 0)], "another number of ranks finds the same features"


def test_two_jobs_at_once_are_both_right(recipe: Recipe, tmp_path: Path, run_ranks: Runner) -> None:
    assert run_ranks(1, *CLI, *recipe("--run.name", "alone", "--features.cache", "off")).returncode == 0
    jobs = [
        subprocess.Popen(
            [sys.executable, *CLI, *recipe("--run.name", f"job{number}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        for number in range(3)
    ]
    for job in jobs:
        assert job.stderr is not None
        said = job.stderr.read()
        assert job.wait() == 0, said
    models = {
        (tmp_path / "runs" / name / "last" / "model.safetensors").read_bytes()
        for name in ("alone", "job0", "job1", "job2")
    }
    assert len(models) == 1


def test_killed_while_it_computes_features_a_job_keeps_those_that_are_whole(
    recipe: Recipe, tmp_path: Path, photos: Path, run_ranks: Runner
) -> None:
    for copy in range(1, 20):  # more than a block, so that there is a middle
        for path in sorted((photos / "train").glob("*/?.jpg")):
            path.with_name(f"{path.stem}-{copy}.jpg").write_bytes(path.read_bytes() + bytes([copy]))
    arguments = recipe("--train.epochs", "1", "--data.augment", "false", "--data.image_size", "64")
    assert run_ranks(1, *CLI, *arguments, "--run.name", "whole", "--features.cache", "off").returncode == 0
    job = subprocess.Popen(
        [sys.executable, *CLI, *arguments, "--run.name", "killed"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while job.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_size > 40_000 for path in (tmp_path / "runs" / ".features").glob("*/*.rows")):
            break
        time.sleep(0.001)
    job.send_signal(signal.SIGKILL)
    job.wait()
    ended = run_ranks(1, *CLI, *arguments, "--run.name", "killed", "--resume")
    assert ended.returncode == 0, ended.stderr
    [(found, computed)] = told(tmp_path, "killed")
    assert found + computed == 429 and found >= 18
    name = Path("last", "model.safetensors")
    assert (tmp_path / "runs/killed" / name).read_bytes() == (tmp_path / "runs/whole" / name).read_bytes()

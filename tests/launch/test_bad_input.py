"""What a user can get wrong: one clear message on one rank, a non-zero status, nothing lost that was saved."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distgrad.launch import cli
from distgrad.models import resnet18

pytestmark = pytest.mark.timeout(240)

CLI = ("-m", "distgrad.launch.cli")
Recipe = Callable[..., list[str]]
Capture = pytest.CaptureFixture[str]


def fails(capsys: Capture, arguments: list[str]) -> str:
    """Runs the command, which has to fail with status 1, and gives what it says."""
    with pytest.raises(SystemExit) as leaving:
        cli.main(arguments)
    assert leaving.value.code == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_no_such_folder(recipe: Recipe, photos: Path, capsys: Capture) -> None:
    said = fails(capsys, recipe("--data.train", str(photos / "nowhere")))
    assert str(photos / "nowhere") in said


def test_an_empty_class(recipe: Recipe, photos: Path, capsys: Capture) -> None:
    (photos / "train" / "yellow").mkdir()
    said = fails(capsys, recipe())
    assert "without a photo" in said and "yellow" in said and ".jpg" in said


def test_one_class_only(recipe: Recipe, photos: Path, capsys: Capture) -> None:
    for name in ("green", "red"):
        (photos / "train" / name).rename(photos / name)
    said = fails(capsys, recipe())
    assert "has too few classes, 1 ('blue'): a classifier needs at least 2" in said


def test_a_truncated_photo_is_named_or_skipped_and_counted(recipe: Recipe, photos: Path, capsys: Capture) -> None:
    photo = photos / "train" / "green" / "3.jpg"
    photo.write_bytes(photo.read_bytes()[:300])
    said = fails(capsys, recipe())
    assert str(photo) in said and "truncated" in said

    cli.main(recipe("--data.on_error", "skip", "--overwrite"))
    printed = capsys.readouterr().out
    assert "20 photos of 3 classes" in printed and "1 broken photo skipped" in printed
    assert printed.count("1 photo skipped") == 2, "said with every epoch"


def test_a_text_file_named_jpg(recipe: Recipe, photos: Path, capsys: Capture) -> None:
    (photos / "train" / "red" / "note.jpg").write_text("not a photo")
    said = fails(capsys, recipe())
    assert str(photos / "train" / "red" / "note.jpg") in said


def test_a_decompression_bomb(recipe: Recipe, photos: Path, capsys: Capture) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = photos / "train" / "red" / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    said = fails(capsys, recipe())
    assert str(bomb) in said and "50000" in said.replace(",", "").replace("_", "")


def weights(path: Path, **changes: np.ndarray | None) -> Path:
    state = {name: value.numpy().copy() for name, value in resnet18().state_dict().items()}
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    save_file(state, path)
    return path


def test_weights_of_another_shape(recipe: Recipe, tmp_path: Path, capsys: Capture) -> None:
    path = weights(tmp_path / "wide.safetensors", conv1__weight=np.zeros((32, 3, 7, 7), np.float32))
    said = fails(capsys, recipe("--model.weights", str(path)))
    assert str(path) in said and "size mismatch for conv1.weight" in said and "[32, 3, 7, 7]" in said


def test_weights_with_a_missing_key(recipe: Recipe, tmp_path: Path, capsys: Capture) -> None:
    path = weights(tmp_path / "less.safetensors", layer1__0__conv1__weight=None)
    said = fails(capsys, recipe("--model.weights", str(path)))
    assert str(path) in said and 'Missing key(s) in state_dict: "layer1.0.conv1.weight"' in said


class Evil:
    """Pickles as a call of os.system."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_a_malicious_pickle_is_refused_without_being_run(recipe: Recipe, tmp_path: Path, capsys: Capture) -> None:
    marker = tmp_path / "executed"
    content = io.BytesIO()
    pickle.dump({"fc.weight": Evil(marker)}, content, protocol=2)
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/data.pkl", content.getvalue())
        archive.writestr("evil/version", "3\n")
    said = fails(capsys, recipe("--model.weights", str(path)))
    assert str(path) in said and "system" in said
    assert not marker.exists()


def test_an_unknown_config_key(recipe: Recipe, capsys: Capture) -> None:
    said = fails(capsys, recipe("--optim.momentun", "0.9"))
    assert "optim.momentun" in said and "'momentum'" in said


def test_a_negative_learning_rate(recipe: Recipe, capsys: Capture) -> None:
    said = fails(capsys, recipe("--optim.lr", "-0.1"))
    assert "optim.lr = -0.1" in said and "greater than 0" in said


def test_more_ranks_than_photos(
    recipe: Recipe, photos: Path, run_ranks: Callable[..., subprocess.CompletedProcess]
) -> None:
    for photo in photos.glob("train/*/[1-6].jpg"):
        photo.unlink()
    ended = run_ranks(4, *CLI, *recipe("--data.batch_size", "4"))
    assert ended.returncode != 0
    assert ended.stderr.count("more ranks than photos: 4 ranks, 3 photos") == 1
    assert "Traceback" not in ended.stderr


def test_a_bad_photo_on_one_of_two_ranks_ends_both(
    recipe: Recipe, photos: Path, run_ranks: Callable[..., subprocess.CompletedProcess]
) -> None:
    photo = photos / "train" / "green" / "3.jpg"
    photo.write_bytes(photo.read_bytes()[:300])
    ended = run_ranks(2, *CLI, *recipe(), timeout=60)
    assert ended.returncode != 0
    assert ended.stderr.count(str(photo)) == 1 and "[rank " in ended.stderr


def test_a_single_photo_for_batch_statistics(recipe: Recipe, capsys: Capture) -> None:
    full = recipe("--model.freeze", "false", "--data.batch_size", "10")  # batches of 10, 10 and 1
    said = fails(capsys, full)
    assert "21 photos in batches of 10 leave a batch of 1 to 1 rank." in said and "--data.batch_size" in said
    cli.main([*full, "--data.image_size", "33", "--train.epochs", "1"])


def test_a_warmup_longer_than_the_run(recipe: Recipe, capsys: Capture) -> None:
    said = fails(capsys, recipe("--schedule.warmup_steps", "6"))
    assert "takes 6 steps and the whole run has 6" in said and "schedule.warmup_steps" in said


def test_impossible_numbers_on_the_command_line(tmp_path: Path, capsys: Capture) -> None:
    said = fails(capsys, ["evaluate", str(tmp_path), str(tmp_path), "--workers", "-1"])
    assert "argument --workers: '-1' must be a whole number, at least 0" in said
    for words in (["evaluate", "RUN", "DATA", "--batch-size", "0"], ["predict", "RUN", "PHOTO", "--top", "many"]):
        assert f"{words[-1]!r} must be a whole number, at least 1" in fails(capsys, words)


def test_a_file_in_place_of_the_run(recipe: Recipe, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").touch()
    assert str(tmp_path / "runs" / "tiny") in fails(capsys, recipe("--overwrite"))


def test_a_loss_that_is_not_finite(
    recipe: Recipe, tmp_path: Path, run_ranks: Callable[..., subprocess.CompletedProcess]
) -> None:
    cautious = recipe("--checkpoint.every_steps", "1", "--schedule.name", "constant")
    assert run_ranks(1, *CLI, *cautious, "--train.max_steps", "1").returncode == 0
    ended = run_ranks(2, *CLI, *cautious, "--optim.lr", "1e38", "--run.name", "hot")
    assert ended.returncode != 0
    assert "learning rate (1e+38)" in ended.stderr and "Traceback" not in ended.stderr
    assert "--resume" not in ended.stderr, "with another learning rate it is another run"
    assert "is nan" in ended.stderr or "is inf" in ended.stderr or "not finite" in ended.stderr
    for model in (tmp_path / "runs").glob("*/last/model.safetensors"):
        assert all(np.isfinite(value).all() for value in load_file(model).values())


def test_a_full_disk_while_saving_keeps_the_previous_checkpoint(
    recipe: Recipe, tmp_path: Path, run_ranks: Callable[..., subprocess.CompletedProcess]
) -> None:
    assert run_ranks(1, *CLI, *recipe("--train.max_steps", "3")).returncode == 0
    saved = tmp_path / "runs" / "tiny" / "last" / "model.safetensors"
    before = saved.read_bytes()
    # A limit on the size of files fails a write half-way, as a full disk does, and needs no file system of its own.
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000));"
        "from distgrad.launch import cli; cli.main(sys.argv[1:])"
    )
    ended = run_ranks(2, "-c", program, *recipe("--resume"))
    assert ended.returncode != 0
    assert ended.stderr.count("cannot write the checkpoint") == 1, ended.stderr
    assert "is whole" in ended.stderr and "--resume" in ended.stderr
    assert saved.read_bytes() == before
    assert [entry.name for entry in (tmp_path / "runs" / "tiny" / "checkpoints").iterdir()] == ["step-00000003"]
    assert run_ranks(1, *CLI, *recipe("--resume")).returncode == 0

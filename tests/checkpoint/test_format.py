from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad import checkpoint
from distgrad.errors import CheckpointError

FILES = ["manifest.json", "model.safetensors", "state.json", "state.safetensors"]


def model_state() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "conv1.weight": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "bn1.running_mean": np.zeros(4, np.float32),
        "bn1.num_batches_tracked": np.array(7),
        "fc.weight": draw.normal(size=(2, 4)),
    }


def training_state() -> dict[str, Any]:
    return {
        "optimizer": {
            "state": {0: {"momentum_buffer": np.ones((2, 4))}, 1: {"momentum_buffer": None}},
            "param_groups": [{"lr": 0.05, "params": [0, 1]}],
        },
        "sampler": {"epoch": 1, "cursor": 128},
        "best": float("-inf"),
    }


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "deep" / "one", model_state(), training_state())
    assert sorted(os.listdir(tmp_path / "deep" / "one")) == FILES
    model, state = checkpoint.load(tmp_path / "deep" / "one")
    assert model.keys() == model_state().keys()
    for name, expected in model_state().items():
        assert model[name].dtype == expected.dtype and model[name].shape == expected.shape
        assert (model[name] == expected).all()
    assert state["optimizer"]["state"][0]["momentum_buffer"].tolist() == np.ones((2, 4)).tolist()
    state["optimizer"]["state"][0]["momentum_buffer"] += 1  # writable, as the next step needs it
    del state["optimizer"]["state"][0]
    expected_state = training_state()
    del expected_state["optimizer"]["state"][0]
    assert state == expected_state
    only_model = checkpoint.load_model(tmp_path / "deep" / "one")
    assert all((only_model[name] == model[name]).all() for name in model)


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        checkpoint.save(tmp_path / "one", {}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "one" / "model.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parity
def test_pytorch_s_reader_opens_the_model(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    checkpoint.save(tmp_path / "one", model_state(), training_state())
    found = load_file(tmp_path / "one" / "model.safetensors")
    for name, expected in model_state().items():
        assert torch.equal(found[name], torch.from_numpy(np.array(expected)))


def test_same_state_same_bytes_in_every_process(tmp_path: Path) -> None:
    program = """
import sys, numpy as np
sys.path[:0] = [sys.argv[2]]
from test_format import model_state, training_state
from distgrad import checkpoint
checkpoint.save(sys.argv[1], dict(reversed(model_state().items())), training_state())
"""
    checkpoint.save(tmp_path / "here", model_state(), training_state())
    expected = {name: (tmp_path / "here" / name).read_bytes() for name in FILES}
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", program, str(tmp_path / seed), str(Path(__file__).parent)]
        subprocess.run(command, env=environment, check=True)
        assert {name: (tmp_path / seed / name).read_bytes() for name in FILES} == expected


def test_manifest_lists_sizes_and_checksums(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one", model_state(), training_state())
    entries = json.loads((tmp_path / "one" / "manifest.json").read_text())["files"]
    assert sorted(entries) == FILES[1:]
    for name, entry in entries.items():
        content = (tmp_path / "one" / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "empty"])
def test_damage_is_found_and_named(tmp_path: Path, name: str, damage: str) -> None:
    checkpoint.save(tmp_path / "one", model_state(), training_state())
    path = tmp_path / "one" / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "flip":
        middle = len(content) // 2 if name != "manifest.json" else content.index(b"sha256") + 12
        content[middle] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path / "one")
    assert str(tmp_path / "one") in str(caught.value)
    if not (name == "manifest.json" and damage == "flip"):  # then it is a checksum that does not fit its file
        assert name in str(caught.value)


def test_a_damaged_state_does_not_keep_the_model_from_use(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one", model_state(), training_state())
    (tmp_path / "one" / "state.json").write_text("torn")
    assert checkpoint.load_model(tmp_path / "one").keys() == model_state().keys()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*nowhere; check the path"):
        checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no manifest\.json"):
        checkpoint.load(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one", {}, {})
    manifest = tmp_path / "one" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(CheckpointError, match="has format version 2, this distgrad reads version 1"):
        checkpoint.load(tmp_path / "one")


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one", model_state(), {"step": 1})
    with pytest.raises(CheckpointError, match="it exists; remove it or choose another name"):
        checkpoint.save(tmp_path / "one", model_state(), {"step": 2})
    assert checkpoint.load(tmp_path / "one")[1] == {"step": 1}


def test_a_state_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"has a set at 'optimizer\.state'"):
        checkpoint.save(tmp_path / "one", model_state(), {"optimizer": {"state": {1}}})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device"),
        (errno.EDQUOT, "uota exceeded"),
        (errno.EFBIG, "File too large"),
    ],
)
def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    with monkeypatch.context() as patch:

        def full(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        patch.setattr(os, "write", full)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.save(tmp_path / "two", {"x": np.zeros(1 << 18)}, {}, previous="runs/mine/last")
    message = str(caught.value)
    assert message.startswith(f"cannot write the checkpoint {tmp_path}/two: ") and words in message
    assert "(2.1 MB needed, " in message and " MB free)" in message
    assert message.endswith("The previous checkpoint, runs/mine/last, is whole. Make room and go on with --resume.")
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(
        CheckpointError, match=r"Not a directory \(.*runs.*\)\. Make the place writable and start again"
    ):
        checkpoint.save(tmp_path / "runs" / "one" / "two", {}, {})

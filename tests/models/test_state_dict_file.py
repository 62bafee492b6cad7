"""Files of named tensors: one reader for all formats, one atomic writer, one digest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct

import numpy as np
import pytest

from distgrad.errors import WeightsError
from distgrad.models import state_dict_file
from distgrad.models.state_dict_file import (
    load_state_dict_file,
    save_state_dict_file,
    state_dict_digest,
    state_dict_metadata,
)

STATE = {
    "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fc.bias": np.array([0.5, -1.0]),
    "half": np.ones((1, 2, 2), np.float16),
    "n": np.array(3),
    "on": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
    "u": np.arange(3, dtype=np.uint8),
}


def assert_equal_states(loaded, expected):
    assert set(loaded) == set(expected)
    for name, value in expected.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        np.testing.assert_array_equal(loaded[name], value)
        assert loaded[name].flags.writeable and loaded[name].flags.c_contiguous and loaded[name].flags.aligned


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w"])
def test_safetensors_round_trip_whatever_the_suffix(tmp_path, name):
    path = tmp_path / name
    save_state_dict_file(STATE, path, {"made": "here"})
    assert_equal_states(load_state_dict_file(path), STATE)
    assert state_dict_metadata(path) == {"made": "here"}
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_strided_arrays_are_written_by_value(tmp_path):
    state = {"t": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.arange(3, dtype=">f8")}
    save_state_dict_file(state, tmp_path / "w.safetensors")
    loaded = load_state_dict_file(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(loaded["t"], state["t"])
    np.testing.assert_array_equal(loaded["b"], np.arange(3.0))


def test_bfloat16_safetensors(tmp_path):
    values = np.array([1.0, -2.5, 3e38, np.inf, -0.0], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bits.tobytes())
    loaded = load_state_dict_file(path)["w"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded.view(np.uint32), bits.astype(np.uint32) << 16)


def test_damaged_safetensors_and_unknown_dtypes(tmp_path):
    path = tmp_path / "w.safetensors"
    save_state_dict_file(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    for read in (load_state_dict_file, state_dict_metadata):
        with pytest.raises(WeightsError, match=r"w\.safetensors is a damaged safetensors file"):
            read(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="damaged safetensors"):
        load_state_dict_file(path)
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(WeightsError, match="'w' has dtype F8_E4M3"):
        load_state_dict_file(path)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_state_dict_file({"a": np.zeros(3)}, path)
    before = path.read_bytes()

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_dict_file.os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_state_dict_file({"a": np.ones(3)}, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds a list, not a dict"),
        ({}, "empty dict"),
        ({"a": 1}, "entry 'a' is a int, not a tensor"),
        ({"generator": {"a": 1}}, "entry 'generator' is a dict"),
        ({"state_dict": {"b": "x"}}, "entry 'b' is a str"),
        ({"state_dict": {}}, "empty dict"),
        ({"state_dict": 3}, "entry 'state_dict' is a int"),
    ],
)
def test_files_without_tensors(tmp_path, content, message):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match=message) as caught:
        load_state_dict_file(path)
    assert str(path) in str(caught.value)
    assert state_dict_metadata(path) == {}


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"no\.safetensors: cannot be read: No such file"):
        load_state_dict_file(tmp_path / "no.safetensors")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_data_parallel_prefix(tmp_path, prefix):
    path = tmp_path / "w.safetensors"
    save_state_dict_file({prefix + name: value for name, value in STATE.items()}, path)
    assert_equal_states(load_state_dict_file(path), STATE)
    save_state_dict_file({prefix + "a": np.ones(1), "b": np.ones(1)}, path)
    assert set(load_state_dict_file(path)) == {prefix + "a", "b"}


@pytest.mark.parity
@pytest.mark.parametrize("nest", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_pytorch_files_nested_and_prefixed(tmp_path, nest, form):
    torch = pytest.importorskip("torch")
    tensors = {f"module.{name}": torch.from_numpy(value.copy()) for name, value in STATE.items()}
    saved = tensors if nest is None else {nest: tensors, "epoch": 3}
    file = io.BytesIO()
    if form == "pickle":
        pickle.dump(saved, file)
    else:
        torch.save(saved, file, _use_new_zipfile_serialization=form == "zip")
    (tmp_path / "w.bin").write_bytes(file.getvalue())
    assert_equal_states(load_state_dict_file(tmp_path / "w.bin"), STATE)


def test_digest_is_as_documented():
    state = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 1)), "n": np.array(7)}
    expected = hashlib.sha256()
    expected.update(b"a\0float64\0(2, 1)\0" + np.ones((2, 1)).tobytes())
    expected.update(b"b\0float32\0(3,)\0" + np.arange(3, dtype="<f4").tobytes())
    assert state_dict_digest(state) == expected.hexdigest()


def test_digest_sees_values_names_shapes_and_nothing_else():
    state = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(2),
        "e": np.empty((0, 2)),
        "n": np.array(1),
    }
    digest = state_dict_digest(state)
    assert state_dict_digest(dict(reversed(state.items()))) == digest
    assert state_dict_digest({**state, "n": np.array(2)}) == digest
    assert state_dict_digest({**state, "a": np.asfortranarray(state["a"])}) == digest
    assert state_dict_digest({**state, "a": state["a"].astype(">f4")}) == digest
    for change in (
        {"a": state["a"].reshape(3, 2)},
        {"a": state["a"].astype(np.float64)},
        {"a": np.nextafter(state["a"], np.float32(9))},
        {"c": np.ones(1)},
        {"e": np.empty((0, 3))},
    ):
        assert state_dict_digest({**state, **change}) != digest


def test_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_state_dict_file({"a": np.zeros(1)}, tmp_path / "w.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o640

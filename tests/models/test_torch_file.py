"""The reader of PyTorch's files: the same values as torch.load, and nothing of a hostile file run."""

from __future__ import annotations

import io
import operator
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distgrad.errors import WeightsError
from distgrad.models import torch_file

# --- files made by hand, byte by byte, without PyTorch ---


def plain(value):
    """The opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def global_(module, name):
    return f"c{module}\n{name}\n".encode()


def storage_id(key="0", numel=6, kind="FloatStorage", extra=b""):
    return b"(" + plain("storage") + global_("torch", kind) + plain(key) + plain("cpu") + plain(numel) + extra + b"tQ"


def tensor(storage, offset=0, size=(6,), stride=(1,)):
    arguments = plain(offset) + plain(size) + plain(stride) + b"\x89" + global_("collections", "OrderedDict") + b")R"
    return global_("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + arguments + b"tR"


def program(body):
    return b"\x80\x02" + body + b"."


def write_zip(path, body, storages=None, root="archive", compression=zipfile.ZIP_STORED, order=b"little"):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", body)
        if order:
            archive.writestr(f"{root}/byteorder", order)
        for key, data in (storages or {}).items():
            archive.writestr(f"{root}/data/{key}", data)
    return path


def write_legacy(path, body, storages=None, itemsize=4):
    storages = storages or {}
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with open(path, "wb") as file:
        for value in (torch_file.MAGIC_NUMBER, torch_file.PROTOCOL_VERSION, info):
            pickle.dump(value, file, 2)
        file.write(body)
        pickle.dump(sorted(storages), file, 2)
        for _, data in sorted(storages.items()):
            file.write(struct.pack("<q", len(data) // itemsize) + data)
    return path


def write_plain(path, body, storages=None):
    path.write_bytes(body)
    return path


SIX = np.arange(6, dtype="<f4")
WRITERS = {"zip": write_zip, "legacy": write_legacy, "plain pickle": write_plain}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (6,), (1,)),
        (0, (2, 3), (3, 1)),
        (0, (3, 2), (1, 3)),
        (5, (), ()),
        (1, (2,), (3,)),
        (2, (4, 3), (0, 0)),
        (0, (0, 3), (3, 1)),
        (99, (0,), (1,)),
        (0, (1, 6), (2**62, 1)),
        (0, (2, 3, 2), (1, 1, 1)),
    ],
)
def test_hand_made_file_is_as_strided(tmp_path, write, offset, size, stride):
    path = write(tmp_path / "w.pth", program(tensor(storage_id(), offset, size, stride)), {"0": SIX.tobytes()})
    array = torch_file.load(path)
    expected = np.empty(size, np.float32)
    for index in np.ndindex(*size):
        expected[index] = SIX[offset + sum(i * s for i, s in zip(index, stride, strict=True))]
    np.testing.assert_array_equal(array, expected)
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous and array.flags.aligned and array.flags.writeable


@pytest.mark.parametrize("root", ["archive", "resnet18", "a/b"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_archive_root_and_compression(tmp_path, root, compression):
    body = program(tensor(storage_id()))
    path = write_zip(tmp_path / "w.pth", body, {"0": SIX.tobytes()}, root=root, compression=compression)
    np.testing.assert_array_equal(torch_file.load(path), SIX)


def test_without_byteorder_it_is_little_endian(tmp_path):
    path = write_zip(tmp_path / "w.pth", program(tensor(storage_id())), {"0": SIX.tobytes()}, order=None)
    np.testing.assert_array_equal(torch_file.load(path), SIX)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("FloatStorage", np.array([1.5, -2.25, 3e38, np.inf, 0, 1], np.float32)),
        ("DoubleStorage", np.arange(6) / 7),
        ("LongStorage", np.array([-(2**62), 5, 0, 1, 2, 3])),
        ("ComplexFloatStorage", np.arange(6).astype(np.complex64) * (1 + 2j)),
        ("ByteStorage", np.arange(6, dtype=np.uint8)),
    ],
)
def test_big_endian_files(tmp_path, kind, values):
    data = values.astype(values.dtype.newbyteorder(">")).tobytes()
    path = write_zip(tmp_path / "w.pth", program(tensor(storage_id(kind=kind))), {"0": data}, order=b"big")
    array = torch_file.load(path)
    assert array.dtype == values.dtype and array.dtype.isnative
    np.testing.assert_array_equal(array, values)


def test_every_bfloat16_is_exact(tmp_path):
    bits = np.arange(2**16, dtype="<u2")
    body = program(tensor(storage_id(numel=2**16, kind="BFloat16Storage"), size=(2**16,)))
    array = torch_file.load(write_zip(tmp_path / "w.pth", body, {"0": bits.tobytes()}))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.view(np.uint32), bits.astype(np.uint32) << 16)


def test_bytes_above_one_are_true(tmp_path):
    body = program(tensor(storage_id(kind="BoolStorage")))
    array = torch_file.load(write_zip(tmp_path / "w.pth", body, {"0": bytes([0, 1, 2, 255, 0, 128])}))
    assert array.tolist() == [False, True, True, True, False, True]
    assert set(array.tobytes()) <= {0, 1}


def test_legacy_window_into_another_storage(tmp_path):
    window = plain(("7", 2, 3))
    body = program(tensor(storage_id(extra=window), offset=1, size=(2,)))
    path = write_legacy(tmp_path / "w.pth", body, {"0": SIX.tobytes()})
    np.testing.assert_array_equal(torch_file.load(path), SIX[3:5])
    beyond = program(tensor(storage_id(extra=window), offset=1, size=(3,)))
    with pytest.raises(WeightsError, match="reaches element 3 of a storage of 3"):
        torch_file.load(write_legacy(tmp_path / "w.pth", beyond, {"0": SIX.tobytes()}))
    outside = program(tensor(storage_id(extra=plain(("7", 2, 5)))))
    with pytest.raises(WeightsError, match="describes bytes 8 to 28"):
        torch_file.load(write_legacy(tmp_path / "w.pth", outside, {"0": SIX.tobytes()}))


def test_parameters_of_the_first_releases(tmp_path):
    """As in torchvision's first files: Parameter(tensor), then its autograd state by BUILD."""
    value = global_("torch.nn.parameter", "Parameter") + tensor(storage_id()) + b"\x85R" + plain((True, False)) + b"b"
    body = program(global_("collections", "OrderedDict") + b")R(" + plain("conv1.weight") + value + b"u")
    loaded = torch_file.load(write_legacy(tmp_path / "w.pth", body, {"0": SIX.tobytes()}))
    assert list(loaded) == ["conv1.weight"]
    np.testing.assert_array_equal(loaded["conv1.weight"], SIX)


def test_tensors_that_share_a_storage_get_memory_of_their_own(tmp_path):
    body = program(b"](" + tensor(storage_id()) + tensor(storage_id()) + tensor(storage_id(), 1, (2,)) + b"e")
    first, second, part = torch_file.load(write_zip(tmp_path / "w.pth", body, {"0": SIX.tobytes()}))
    first[:] = -1
    np.testing.assert_array_equal(second, SIX)
    np.testing.assert_array_equal(part, SIX[1:3])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol(tmp_path, protocol):
    value = {
        "epoch": 90,
        "big": [2**31, -(2**80), 0, -1, 255, 65536],
        "lr": [0.1, float("inf"), -1e-300],
        "on": (True, False, None),
        "names": ["", "é漢", "a" * 300],
        "deep": {"x": [{"y": (1, (2, (3, (4, 5))))}], 3: "int key", (0, "a"): "tuple key"},
        "empty": [{}, [], ()],
    }
    value["again"] = value["names"]
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    loaded = torch_file.load(path)
    assert loaded == value
    assert loaded["again"] is loaded["names"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_bytes_and_ordered_dict(tmp_path, protocol):
    value = OrderedDict(a=b"\x00\xff", b=bytes(range(256)) * 2)
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert torch_file.load(path) == dict(value)


def test_open_files_and_names_in_errors(tmp_path):
    path = write_zip(tmp_path / "w.pth", program(tensor(storage_id())), {"0": SIX.tobytes()})
    np.testing.assert_array_equal(torch_file.load(io.BytesIO(path.read_bytes())), SIX)
    with pytest.raises(WeightsError, match="the given file is empty"):
        torch_file.load(io.BytesIO())
    with open(path, "rb") as file:
        np.testing.assert_array_equal(torch_file.load(file), SIX)


# --- refusals ---


class Live:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("container", WRITERS)
def test_a_pickle_that_runs_a_command_is_refused_unrun(tmp_path, container, protocol):
    marker = tmp_path / "marker"
    body = pickle.dumps({"w": Live(os.system, f"touch {marker}")}, protocol)
    path = WRITERS[container](tmp_path / "evil.pth", body)
    with pytest.raises(WeightsError) as caught:
        torch_file.load(path)
    assert not marker.exists()
    assert "evil.pth" in str(caught.value)
    assert f"{os.system.__module__}.system" in str(caught.value)
    assert "refused without running it" in str(caught.value)
    pickle.loads(body)
    assert marker.exists(), "the payload was not live, so the test showed nothing"


@pytest.mark.parametrize("container", WRITERS)
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (eval, ("__import__('os').getpid()",)),
        (exec, ("1",)),
        (__import__, ("os",)),
        (getattr, ("", "join")),
        (setattr, ("", "a", 1)),
        (operator.attrgetter, ("system",)),
        (operator.methodcaller, ("system",)),
        (subprocess.Popen, (["true"],)),
        (open, ("/dev/null",)),
        (bytearray, (2**40,)),
        (pickle.loads, (b"N.",)),
        (np.load, ("x",)),
        (np.frombuffer, (b"",)),
    ],
)
def test_functions_are_refused_by_name(tmp_path, container, function, arguments):
    path = WRITERS[container](tmp_path / "evil.pth", pickle.dumps(Live(function, *arguments), 4))
    with pytest.raises(WeightsError, match=r"asks for [\w.]+, which.*refused without running it") as caught:
        torch_file.load(path)
    assert function.__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch", "FloatTensor"),
        ("torch._utils", "_rebuild_device_tensor"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "defaultdict"),
        ("torch._utils", "__builtins__"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch.cuda", "os"),
        ("__builtin__", "eval"),
        ("nt", "system"),
    ],
)
def test_names_near_the_allowed_ones_are_refused(tmp_path, module, name):
    path = write_zip(tmp_path / "w.pth", program(global_(module, name) + b")R"))
    with pytest.raises(WeightsError) as caught:
        torch_file.load(path)
    assert f"asks for {module}.{name}," in str(caught.value)


@pytest.mark.parametrize(
    ("body", "instruction"),
    [
        (global_("torch", "Size") + b"}b", "BUILD on a _Call"),
        (global_("torch", "FloatStorage") + b"}b", "BUILD on a _StorageType"),
        (global_("torch", "FloatStorage") + b")R", "REDUCE on a _StorageType"),
        (global_("torch", "float32") + b")R", "REDUCE on a _Dtype"),
        (plain("a") + b")R", "REDUCE on a str"),
        (global_("torch", "Size") + b"]R", "REDUCE on a _Call"),
        (global_("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
        (b"(icollections\nOrderedDict\n", "INST"),
        (b"(" + global_("collections", "OrderedDict") + b"o", "OBJ"),
        (b"\x82\x01", "EXT1"),
        (b"\x97", "NEXT_BUFFER"),
        (b"Ptorch\n", "PERSID"),
    ],
)
def test_instructions_that_tensors_do_not_need_are_refused(tmp_path, body, instruction):
    with pytest.raises(WeightsError) as caught:
        torch_file.load(write_zip(tmp_path / "w.pth", program(body)))
    assert f"contains {instruction}, which" in str(caught.value)


def test_a_hostile_pickle_inside_a_storage_is_refused(tmp_path):
    marker = tmp_path / "marker"
    inner = write_legacy(tmp_path / "inner", pickle.dumps(Live(os.system, f"touch {marker}"), 2)).read_bytes()
    call = global_("torch.storage", "_load_from_bytes")
    once = program(call + b"B" + struct.pack("<I", len(inner)) + inner + b"\x85R")
    with pytest.raises(WeightsError, match="system, which"):
        torch_file.load(write_plain(tmp_path / "w.pkl", once))
    assert not marker.exists()
    twice = program(call + b"B" + struct.pack("<I", len(once)) + once + b"\x85R")
    with pytest.raises(WeightsError, match=r"asks for torch\.storage\._load_from_bytes"):
        torch_file.load(write_plain(tmp_path / "w.pkl", twice))


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2,), (2**62,)),
        (2**62, (1,), (1,)),
        (0, (2, 2), (5, 1)),
        (6, (), ()),
        (0, (2, 2**62), (2**62, 4)),
        (2**63 - 1, (1,), (1,)),
    ],
)
def test_views_beyond_their_storage_are_refused(tmp_path, write, offset, size, stride):
    body = program(tensor(storage_id(), offset, size, stride))
    with pytest.raises(WeightsError, match="reaches element"):
        torch_file.load(write(tmp_path / "w.pth", body, {"0": SIX.tobytes()}))


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (5, (6,), (-1,)),
        (2**63, (1,), (1,)),
        (0, (6,), (1, 1)),
        (0, (6.0,), (1,)),
        ("0", (6,), (1,)),
        (0, 6, 1),
        (0, (True,), (1,)),
        (0, (None,), (1,)),
        (0, (0, 2**80), (1, 1)),
        (0, (1,) * 100, (1,) * 100),
    ],
)
def test_impossible_shapes_are_refused(tmp_path, write, offset, size, stride):
    body = program(tensor(storage_id(), offset, size, stride))
    with pytest.raises(WeightsError, match="damaged"):
        torch_file.load(write(tmp_path / "w.pth", body, {"0": SIX.tobytes()}))


def test_storages_that_claim_more_than_is_there(tmp_path):
    body = program(tensor(storage_id(numel=7)))
    for write in (write_zip, write_legacy):
        with pytest.raises(WeightsError, match="bytes 0 to 28 of a storage that has 24"):
            torch_file.load(write(tmp_path / "w.pth", body, {"0": SIX.tobytes()}))
    with pytest.raises(WeightsError, match="no storage"):
        torch_file.load(write_zip(tmp_path / "w.pth", body))
    with pytest.raises(WeightsError, match="no storage"):
        torch_file.load(write_legacy(tmp_path / "w.pth", body))


def test_memory_is_bounded_by_the_file(tmp_path, monkeypatch):
    expanded = program(tensor(storage_id(), size=(10**6, 10**6), stride=(0, 0)))
    with pytest.raises(WeightsError, match="would take more than"):
        torch_file.load(write_zip(tmp_path / "w.pth", expanded, {"0": SIX.tobytes()}))
    with pytest.raises(WeightsError, match=r"truncated|would take more than"):
        path = write_legacy(tmp_path / "w.pth", program(tensor(storage_id())))
        path.write_bytes(path.read_bytes()[:-3] + pickle.dumps(["0"], 2) + struct.pack("<q", 2**50))
        torch_file.load(path)
    # A zip bomb: 4 MiB of zeros in a few kilobytes.
    monkeypatch.setattr(torch_file, "_GROWTH_FLOOR", 1 << 20)
    body = program(tensor(storage_id(numel=1 << 20), size=(1 << 20,)))
    path = write_zip(tmp_path / "w.pth", body, {"0": bytes(4 << 20)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="would take more than"):
        torch_file.load(path)


def test_opcodes_that_claim_more_than_is_there(tmp_path):
    for body in (
        b"\x8e" + struct.pack("<Q", 2**62),  # BINBYTES8
        b"\x8d" + struct.pack("<Q", 2**40),  # BINUNICODE8
        b"\x8b" + struct.pack("<i", 2**31 - 1),  # LONG4
        b"\x8b" + struct.pack("<i", 1000) + b"\x11" * 1000,
        b"r" + struct.pack("<I", 2**32 - 1),  # LONG_BINPUT on an empty stack
        b"0" * 3,
        b"t",
        b"\x87",
        b"h\x05",
        b"]" + b"N" * 2 + b"s",
        b"}](" + b"NNNu",
        b"}" + b"(" * 3 + b"}" + b"N" + b"s",
        b"}]Ns",
        b"}" + b")" + b"\x85" * 100_000 + b"Ns",
    ):
        with pytest.raises(WeightsError, match=r"damaged|not a PyTorch file"):
            torch_file.load(write_plain(tmp_path / "w.pth", program(body)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>404", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (bytes(257) + b"ustar\x0000" + bytes(300), "tar archive"),
        (struct.pack("<Q", 2) + b"{}", "safetensors"),
        (b"PK\x03\x04" + bytes(100), "damaged or truncated zip"),
        (b"epoch,loss\n1,2\n", "not a PyTorch file"),
        (bytes(100), "not a PyTorch file"),
        (pickle.dumps(42), "starts with 42"),
        (pickle.dumps(torch_file.MAGIC_NUMBER, 2) + pickle.dumps(1000, 2), "version 1000"),
        (pickle.dumps(torch_file.MAGIC_NUMBER, 2), "damaged"),
    ],
)
def test_what_is_not_a_pytorch_file_is_said(tmp_path, content, message):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        torch_file.load(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(WeightsError, match=r"nothing\.pth: cannot be read: No such file"):
        torch_file.load(tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match="cannot be read: Is a directory"):
        torch_file.load(tmp_path)


def test_zip_archives_of_other_things(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"without a data\.pkl"):
        torch_file.load(tmp_path / "a.zip")
    with zipfile.ZipFile(write_zip(tmp_path / "script.pt", program(b"N")), "a") as archive:
        archive.writestr("archive/constants.pkl", program(b")"))
    with pytest.raises(WeightsError, match=r"TorchScript.*torch\.jit\.load"):
        torch_file.load(tmp_path / "script.pt")
    path = write_zip(tmp_path / "w.pth", program(b"N"), order=b"middle")
    with pytest.raises(WeightsError, match="byte order b'middle'"):
        torch_file.load(path)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_truncated_file_is_never_half_read(tmp_path, write):
    path = write(tmp_path / "w.pth", program(tensor(storage_id())), {"0": SIX.tobytes()})
    content = path.read_bytes()
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            torch_file.load(path)


def test_a_damaged_storage_is_noticed(tmp_path):
    path = write_zip(tmp_path / "w.pth", program(tensor(storage_id())), {"0": SIX.tobytes()})
    content = bytearray(path.read_bytes())
    content[content.index(SIX.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="bad CRC-32"):
        torch_file.load(path)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # in a mutated string of protocol 0
@pytest.mark.parametrize("write", [write_zip, write_legacy])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_load_or_are_refused(tmp_path, write, data):
    body = program(
        global_("collections", "OrderedDict")
        + b")R("
        + plain("a")
        + tensor(storage_id(), 1, (2, 2), (2, 1))
        + plain("b")
        + plain([1, {"x": (2.5, None)}])
        + b"u"
    )
    content = bytearray(write(tmp_path / "w.pth", body, {"0": SIX.tobytes()}).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(WeightsError):
        torch_file.load(io.BytesIO(bytes(content)))


# --- against PyTorch ---


def torch_bytes(value, form):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    if form == "pickle":
        pickle.dump(value, file)
    elif form == "pickle 2":
        pickle.dump(value, file, 2)
    else:
        torch.save(value, file, _use_new_zipfile_serialization=form == "zip")
    return io.BytesIO(file.getvalue())


FORMS = ["zip", "legacy", "pickle", "pickle 2"]
FLOATS = ["float16", "float32", "float64", "bfloat16", "complex64", "complex128"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "bool"]


def assert_same(array, reference):
    torch = pytest.importorskip("torch")
    reference = reference.detach()
    expected = (reference.float() if reference.dtype == torch.bfloat16 else reference).numpy()
    assert isinstance(array, np.ndarray)
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    np.testing.assert_array_equal(array, expected)
    assert array.flags.c_contiguous and array.flags.aligned and array.flags.writeable


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_parity_of_dtypes(form, dtype):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    value = (torch.randn(3, 5, dtype=torch.complex128) * 50).to(torch.complex128)
    value = (value if dtype.startswith("complex") else value.real).to(getattr(torch, dtype))
    saved = {"whole": value, "scalar": value[1, 2].clone(), "empty": value[:0].clone(), "part": value[1:, ::2]}
    loaded = torch_file.load(torch_bytes(saved, form))
    for name, reference in saved.items():
        assert_same(loaded[name], reference)


@pytest.mark.parity
@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_parity_of_newer_integers(form, dtype):
    torch = pytest.importorskip("torch")
    value = torch.arange(6).to(getattr(torch, dtype))
    assert_same(torch_file.load(torch_bytes(value, form)), value)


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool"])
def test_parity_of_views(form, dtype):
    torch = pytest.importorskip("torch")
    base = torch.arange(120).reshape(4, 5, 6).to(getattr(torch, dtype))
    saved = [
        base,
        base.permute(2, 0, 1),
        base[1],
        base[:, 2, 1:4],
        base[3, 4, 5],
        base.transpose(0, 2)[::2, 1:],
        base[0, 0].expand(7, 6),
        base.view(-1)[10:0:1],
        torch.ones(2, 3, 4, 5).to(base.dtype).contiguous(memory_format=torch.channels_last),
    ]
    for array, reference in zip(torch_file.load(torch_bytes(saved, form)), saved, strict=True):
        assert_same(array, reference)


@pytest.mark.parity
@pytest.mark.parametrize("form", FORMS)
def test_parity_of_a_training_checkpoint(form):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    tagged = torch.ones(2)
    tagged.note = "an attribute"
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.note = "another"
    saved = {
        "epoch": 7,
        "state_dict": model.state_dict(),
        "parameters": OrderedDict(model.named_parameters()),
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.randn(4, 3, 3, 3)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "tagged": [tagged, parameter],
    }
    loaded = torch_file.load(torch_bytes(saved, form))
    assert list(loaded["state_dict"]) == list(saved["state_dict"])
    for part in ("state_dict", "parameters"):
        for name, reference in saved[part].items():
            assert_same(loaded[part][name], reference)
    assert_same(loaded["optimizer"]["state"][0]["momentum_buffer"], saved["optimizer"]["state"][0]["momentum_buffer"])
    assert loaded["optimizer"]["param_groups"] == saved["optimizer"]["param_groups"]
    assert loaded["epoch"] == 7
    assert loaded["size"] == (2, 3)
    assert loaded["device"] == "cpu"
    assert loaded["dtype"] == "bfloat16"
    for array, reference in zip(loaded["tagged"], saved["tagged"], strict=True):
        assert_same(array, reference)


@pytest.mark.parity
def test_parity_without_checksums():
    torch = pytest.importorskip("torch")
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        content = torch_bytes({"w": torch.arange(5.0)}, "zip")
    finally:
        torch.serialization.set_crc32_options(before)
    np.testing.assert_array_equal(torch_file.load(content)["w"], np.arange(5, dtype=np.float32))


@pytest.mark.parity
def test_whole_models_are_refused_with_the_cure():
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 2)
    for form in FORMS:
        with pytest.raises(
            WeightsError, match=r"refused without running it.*torch\.save\(model\.state_dict\(\), file\)"
        ):
            torch_file.load(torch_bytes(model, form))


@pytest.mark.parity
@pytest.mark.assets
def test_parity_on_the_real_weights():
    torch = pytest.importorskip("torch")
    assets = Path(os.environ.get("DISTGRAD_ASSETS", Path(__file__).parents[3] / "shared" / "assets"))
    path = assets / "weights" / "resnet18_imagenet1k_v1.pth"
    if not path.is_file():
        pytest.skip("the real weights are not there: set DISTGRAD_ASSETS")
    reference = torch.load(path)
    loaded = torch_file.load(path)
    assert list(loaded) == list(reference)
    for name, value in reference.items():
        assert_same(loaded[name], value)

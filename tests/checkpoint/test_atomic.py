from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from distgrad.checkpoint import atomic


def fails_with(number: int, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, failing)


def test_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    atomic.write_file(path, b"first")
    atomic.write_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["config.toml"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "config.toml"
    atomic.write_file(path, b"first")
    with monkeypatch.context() as patch:
        fails_with(errno.ENOSPC, patch, call)
        with pytest.raises(OSError, match="No space left"):
            atomic.write_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["config.toml"]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failed_folder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    with monkeypatch.context() as patch:
        fails_with(errno.ENOSPC, patch, call)
        with pytest.raises(OSError, match="No space left"):
            atomic.write_folder(tmp_path / "step-1", {"a": b"1", "b": b"2"})
    assert os.listdir(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    atomic.write_folder(tmp_path / "step-1", {"a": b"0123456789", "empty": b""})
    assert (tmp_path / "step-1" / "a").read_bytes() == b"0123456789"
    assert (tmp_path / "step-1" / "empty").read_bytes() == b""


def test_leftovers_of_a_killed_writer_do_not_hinder(tmp_path: Path) -> None:
    left = atomic.temporary(tmp_path / "step-1")
    left.mkdir()
    (left / "a").write_bytes(b"torn")
    os.symlink("nowhere", atomic.temporary(tmp_path / "last"))
    atomic.write_folder(tmp_path / "step-1", {"b": b"2"})
    atomic.point(tmp_path / "last", "step-1")
    assert sorted(os.listdir(tmp_path)) == ["last", "step-1"]
    assert os.listdir(tmp_path / "last") == ["b"]


def test_everything_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor: int) -> None:
        calls.append("fsync " + os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{tmp_path}"))
        fsync(descriptor)

    def recorded_rename(source: Path, target: Path) -> None:
        calls.append(f"rename {target.name}")
        rename(source, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of open files are read from /proc")
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    atomic.write_folder(tmp_path / "step-1", {"a": b"1", "b": b"2"})
    prepared = f"/{atomic.TEMPORARY}step-1"
    assert calls == [f"fsync {prepared}/a", f"fsync {prepared}/b", f"fsync {prepared}", "rename step-1", "fsync "]


def test_a_link_swings_and_a_copied_folder_gives_way(tmp_path: Path) -> None:
    for name in ("one", "two", "last"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text(name)
    atomic.point(tmp_path / "last", "one")  # `last` was a folder
    assert (tmp_path / "last" / "model").read_text() == "one"
    atomic.point(tmp_path / "last", "two")
    assert os.readlink(tmp_path / "last") == "two"
    assert sorted(os.listdir(tmp_path)) == ["last", "one", "two"]


def test_discard_and_remove(tmp_path: Path) -> None:
    atomic.write_folder(tmp_path / "step-1", {"a": b"1"})
    os.symlink("step-1", tmp_path / "last")
    atomic.remove(tmp_path / "last")
    assert (tmp_path / "step-1" / "a").exists()  # the link went, not what it points to
    atomic.discard(tmp_path / "step-1")
    atomic.remove(tmp_path / "never there")
    assert os.listdir(tmp_path) == []

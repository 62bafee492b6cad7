from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad.checkpoint import CheckpointManager, load, locate
from distgrad.errors import CheckpointError


def put(manager: CheckpointManager, step: int, best: bool = False, size: int = 100) -> Path:
    return manager.save(step, {"x": np.full(size, step, np.float32)}, {"step": step}, best=best)


def step_of(path: Path | None) -> int:
    assert path is not None
    model, state = load(path)
    assert (model["x"] == state["step"]).all()
    return int(state["step"])


def folders(run: Path) -> list[str]:
    return sorted(os.listdir(run / "checkpoints"))


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def test_last_and_best(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run", keep=1)
    assert manager.last is None and manager.best is None
    put(manager, 10, best=True)
    assert (step_of(manager.last), step_of(manager.best)) == (10, 10)
    put(manager, 20)
    put(manager, 30)
    assert (step_of(manager.last), step_of(manager.best)) == (30, 10)
    assert folders(tmp_path / "run") == ["step-00000010", "step-00000030"]
    put(manager, 40, best=True)
    assert (step_of(manager.last), step_of(manager.best)) == (40, 40)
    assert folders(tmp_path / "run") == ["step-00000040"]
    assert sorted(os.listdir(tmp_path / "run")) == ["best", "checkpoints", "last"]
    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()


def test_keep(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep=3)
    for step in (1, 2, 3, 4, 5, 100000000):
        put(manager, step, best=step == 2)
    assert folders(tmp_path) == ["step-00000002", "step-00000004", "step-00000005", "step-100000000"]
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        CheckpointManager(tmp_path, keep=0)


def test_a_moved_run_still_works(tmp_path: Path) -> None:
    put(CheckpointManager(tmp_path / "run"), 10, best=True)
    (tmp_path / "run").rename(tmp_path / "moved")
    manager = CheckpointManager(tmp_path / "moved")
    assert (step_of(manager.last), step_of(manager.best)) == (10, 10)


def test_a_copy_that_followed_the_links_still_works(tmp_path: Path) -> None:
    put(CheckpointManager(tmp_path / "run"), 10, best=True)
    shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=False)  # as `scp -r` does
    manager = CheckpointManager(tmp_path / "copy")
    assert (step_of(manager.last), step_of(manager.best)) == (10, 10)
    put(manager, 20)
    assert (step_of(manager.last), step_of(manager.best)) == (20, 10)
    assert (tmp_path / "copy" / "last").is_symlink()


def test_the_same_step_again(tmp_path: Path) -> None:
    """A folder that is somebody's last or best is never changed, also when its step comes again."""
    manager = CheckpointManager(tmp_path, keep=1)
    put(manager, 10, best=True)
    manager.save(10, {"x": np.full(3, 10.0)}, {"step": 10, "again": True})
    assert manager.last is not None and load(manager.last)[1]["again"]
    assert manager.best is not None and "again" not in load(manager.best)[1]
    assert folders(tmp_path) == ["step-00000010", "step-00000010.1"]
    put(manager, 20, best=True)
    assert folders(tmp_path) == ["step-00000020"]


def test_locate(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(
        CheckpointError, match=r"there is no run at .*run; name a folder that `distgrad finetune` wrote"
    ):
        locate(run)
    run.mkdir()
    with pytest.raises(CheckpointError, match=r"has no checkpoint yet: there is neither .*best nor .*last"):
        locate(run)
    manager = CheckpointManager(run)
    put(manager, 10)
    assert step_of(locate(run)) == 10  # no best one yet
    put(manager, 20, best=True)
    folder = put(manager, 30)
    assert (step_of(locate(run)), step_of(locate(run, "last"))) == (20, 30)
    assert step_of(locate(run / "last")) == step_of(locate(folder)) == 30


def test_damage_names_the_file_and_the_way_back(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep=2)
    put(manager, 10)
    put(manager, 20)
    path = tmp_path / "last" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "last")
    message = str(caught.value)
    assert f"{path}: it has " in message
    assert message.endswith(f"this run, step-00000010: ln -sfn checkpoints/step-00000010 {tmp_path}/last")
    subprocess.run(message.rpartition(": ")[2].split(), check=True)
    assert step_of(tmp_path / "last") == 10


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename", "symlink"])
def test_a_full_disk_leaves_the_previous_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    manager = CheckpointManager(tmp_path, keep=1)
    put(manager, 10, best=True)

    original = getattr(os, call)

    def full(*arguments: Any, **keywords: Any) -> Any:
        if call == "open" and not arguments[1] & os.O_CREAT:
            return original(*arguments, **keywords)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(CheckpointError) as caught:
            put(manager, 20, best=True)
    message = str(caught.value)
    assert message.startswith(
        f"cannot write the checkpoint {tmp_path}/checkpoints/step-00000020: No space left on device"
    )
    assert f"The previous checkpoint, {tmp_path}/last, is whole. Make room and go on with --resume." in message
    assert folders(tmp_path) == ["step-00000010"]
    assert sorted(os.listdir(tmp_path)) == ["best", "checkpoints", "last"]
    assert (step_of(manager.last), step_of(manager.best)) == (10, 10)
    put(manager, 20)
    assert step_of(manager.last) == 20


OVERFLOW = """
import json, os, sys
from pathlib import Path
from test_manager import CheckpointManager, CheckpointError, folders, put, step_of
if sys.argv[2] == "limit":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
run = Path(sys.argv[1], "run")
manager = CheckpointManager(run)
put(manager, 10, best=True, size=300_000)
try:
    put(manager, 20, best=True, size=500_000)
    message = ""
except CheckpointError as error:
    message = str(error)
found = {"message": message, "folders": folders(run), "last": step_of(manager.last), "best": step_of(manager.best)}
put(manager, 30, size=1000)
print(json.dumps({**found, "after": step_of(manager.last)}))
"""


def check_overflow(output: str, words: str) -> None:
    found = json.loads(output)
    assert words in found["message"] and "(2.0 MB needed, " in found["message"]
    assert "The previous checkpoint, " in found["message"]
    assert found["folders"] == ["step-00000010"]
    assert (found["last"], found["best"], found["after"]) == (10, 10, 30)


def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    done = subprocess.run(
        python(OVERFLOW, str(tmp_path), "limit"), env=environment(), capture_output=True, text=True, check=True
    )
    check_overflow(done.stdout, "File too large")


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of 3 MB, in a mount namespace that ends with the process, without being root."""
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = 'mount -t tmpfs -o size=3m tmpfs "$0"'
    if shutil.which("unshare") is None or subprocess.run([*private, mount, tmp_path], capture_output=True).returncode:
        pytest.skip("this machine lets nobody but root mount a small file system")
    program = python(OVERFLOW, str(tmp_path), "disk")
    done = subprocess.run(
        [*private, f'{mount} && exec "$@"', tmp_path, *program],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    check_overflow(done.stdout, "No space left on device")
    free = float(json.loads(done.stdout)["message"].partition(" MB needed, ")[2].partition(" MB free")[0])
    assert 1.5 < free < 2.0  # of the 3 MB, 1.2 MB hold the previous checkpoint: the torn one is gone


KILLED = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from test_manager import CheckpointManager, put, step_of
CALLS = ("mkdir", "open", "write", "fsync", "rename", "symlink", "unlink", "rmdir")
run = Path(sys.argv[1], "run")
os.fsync = lambda descriptor: None  # the kernel outlives the process; what fsync is for is a power cut

def die_at(count):
    done = itertools.count(1)
    def wrap(call):
        def wrapped(*arguments, **keywords):
            if next(done) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)
        return wrapped
    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))

seen = set()
for count in itertools.count(1):
    shutil.rmtree(run, ignore_errors=True)
    manager = CheckpointManager(run, keep=1)
    put(manager, 1, best=True)
    put(manager, 2)
    child = os.fork()
    if child == 0:
        die_at(count)
        put(manager, 3, best=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    state = step_of(manager.last), step_of(manager.best)  # both load, verified, wherever it was killed
    assert state in {(2, 1), (2, 3), (3, 3)}, (count, state)
    seen.add(state)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0 and state == (3, 3)
        break
    put(manager, 3, best=True)  # what a resumed run does
    assert (step_of(manager.last), step_of(manager.best)) == (3, 3)
    left = [path.name for path in run.rglob("*") if path.name.startswith(".tmp-")]
    assert not left, (count, left)
    put(manager, 4, best=True)
    assert os.listdir(run / "checkpoints") == ["step-00000004"]
print(count, sorted(seen))
"""


def test_a_kill_before_every_single_system_call(tmp_path: Path) -> None:
    done = subprocess.run(python(KILLED, str(tmp_path)), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, _, seen = done.stdout.strip().partition(" ")
    assert int(count) > 20  # a checkpoint takes more calls than that
    assert seen == "[(2, 1), (2, 3), (3, 3)]"


ENDLESS = """
import itertools, sys
from test_manager import CheckpointManager, put, step_of
manager = CheckpointManager(sys.argv[1], keep=2)
first = 1 if manager.last is None else step_of(manager.last) + 1
for step in itertools.count(first):
    put(manager, step, best=step % 3 == 0, size=500_000)
    print(step, flush=True)
"""


def test_kills_at_any_moment(tmp_path: Path) -> None:
    reached = 0
    for delay in (0.003, 0.0005, 0.008):
        with subprocess.Popen(
            python(ENDLESS, str(tmp_path)), env=environment(), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(4)]
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            told += [int(line) for line in process.stdout if line.endswith("\n")]
        manager = CheckpointManager(tmp_path)
        assert told[0] == reached + 1  # it went on from the checkpoint that the kill before it left
        reached = step_of(manager.last)
        assert reached in (told[-1], told[-1] + 1)  # what was told is on disk
        assert step_of(manager.best) % 3 == 0

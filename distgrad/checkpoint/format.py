"""One checkpoint: a folder with the model, the training state and a manifest of checksums.

| file                | holds                                                                                  |
|---------------------|----------------------------------------------------------------------------------------|
| `model.safetensors` | parameters and buffers under torchvision's keys; any safetensors reader opens it        |
| `state.safetensors` | the arrays of the training state, such as momentum buffers                              |
| `state.json`        | the rest of it: param groups, schedule, sampler cursor, random state                    |
| `manifest.json`     | size and SHA-256 of the three                                                           |

Nothing in it depends on the time, the host or the number of ranks: the same state gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from . import atomic
from .encoding import Array, decode, encode, pack, unpack

MODEL = "model.safetensors"
STATE_ARRAYS = "state.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"
VERSION = 1


def save(
    directory: str | os.PathLike[str],
    model_state: Mapping[str, Array],
    training_state: Any,
    *,
    previous: str | os.PathLike[str] | None = None,
) -> None:
    """Writes one checkpoint as a new folder; it appears whole or not at all, whenever the process ends.

    Only one rank may call it; ranks that read what it wrote wait at a barrier first.

    Args:
        directory: the folder to make; its parents are made, it must not exist itself (``CheckpointManager`` gives every
            checkpoint a folder of its own and swings a link to it, which replaces atomically).
        model_state: name to array, as ``Module.state_dict`` gives it.
        training_state: nested dicts, lists and tuples of arrays and plain values, such as an optimizer's state_dict.
        previous: an older checkpoint, named in an error as the one to go on from.

    Raises:
        CheckpointError: it cannot be written (full disk, no permission, the folder exists); nothing is left behind.
        TypeError: the state holds something that is neither an array of numbers nor a plain value.
    """
    directory = Path(directory)
    document, arrays = encode(training_state)
    files = {MODEL: pack(dict(model_state)), STATE_ARRAYS: pack(arrays), STATE: document}
    entries = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    manifest = {"format": "distgrad checkpoint", "version": VERSION, "files": entries}
    files[MANIFEST] = json.dumps(manifest, indent=1).encode() + b"\n"

    if os.path.lexists(directory):
        raise CheckpointError(f"cannot write the checkpoint {directory}: it exists; remove it or choose another name.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_folder(directory, files)
    except OSError as error:
        raise cannot_write(directory, sum(map(len, files.values())), error, previous) from error


def cannot_write(
    path: Path, needed: int | None, error: OSError, previous: str | os.PathLike[str] | None = None
) -> CheckpointError:
    """The error for a checkpoint of ``needed`` bytes (where known) that the operating system did not let us write."""
    intact = f" The previous checkpoint, {previous}, is whole." if previous is not None else ""
    resume = " and go on with --resume" if previous is not None else " and start again"
    if error.errno not in atomic.NO_ROOM:
        return CheckpointError(
            f"cannot write the checkpoint {path}: {error.strerror} ({error.filename or path}).{intact} "
            f"Make the place writable{resume}."
        )
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    room = f"{shutil.disk_usage(place).free / 1e6:.1f} MB free"
    if needed is not None:
        room = f"{needed / 1e6:.1f} MB needed, {room}"
    return CheckpointError(f"cannot write the checkpoint {path}: {error.strerror} ({room}).{intact} Make room{resume}.")


def load(directory: str | os.PathLike[str]) -> tuple[dict[str, Array], Any]:
    """Reads and verifies a checkpoint.

    Returns:
        ``(model_state, training_state)`` as they were given to ``save``; arrays own their memory and are writable,
        NumPy scalars have become Python's.

    Raises:
        CheckpointError: there is none, it is damaged (the message names the file), or a newer distgrad wrote it.
    """
    directory = Path(directory)
    entries = _manifest(directory)
    model_state = _arrays(directory, MODEL, entries)
    arrays = _arrays(directory, STATE_ARRAYS, entries)
    document = _content(directory, STATE, entries)
    try:
        return model_state, decode(document, arrays)
    except (ValueError, KeyError) as error:
        raise _damaged(directory, STATE, f"it does not fit {STATE_ARRAYS} ({error})") from error


def load_model(directory: str | os.PathLike[str]) -> dict[str, Array]:
    """Reads and verifies only the model of a checkpoint; raises ``CheckpointError`` as ``load`` does."""
    directory = Path(directory)
    return _arrays(directory, MODEL, _manifest(directory))


def _manifest(directory: Path) -> dict[str, dict[str, Any]]:
    if not directory.is_dir():
        raise CheckpointError(f"there is no checkpoint at {directory}; check the path.")
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        version, entries = manifest["version"], manifest["files"]
        for name in (MODEL, STATE_ARRAYS, STATE):
            int(entries[name]["bytes"]), str(entries[name]["sha256"])
    except FileNotFoundError:
        raise CheckpointError(f"{directory} is not a checkpoint: it has no {MANIFEST}.") from None
    except OSError as error:
        raise CheckpointError(f"{directory / MANIFEST} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(directory, MANIFEST, "it is not a manifest") from error
    if version != VERSION:
        raise CheckpointError(
            f"the checkpoint {directory} has format version {version}, this distgrad reads version {VERSION}; "
            "use the distgrad that wrote it."
        )
    return dict(entries)


def _content(directory: Path, name: str, entries: dict[str, dict[str, Any]]) -> bytes:
    try:
        content = (directory / name).read_bytes()
    except FileNotFoundError:
        raise _damaged(directory, name, "it is missing") from None
    except OSError as error:
        raise CheckpointError(f"{directory / name} cannot be read: {error.strerror}.") from None
    expected = entries[name]
    if len(content) != expected["bytes"]:
        raise _damaged(directory, name, f"it has {len(content)} bytes instead of {expected['bytes']}")
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise _damaged(directory, name, f"its SHA-256 is not the one in {MANIFEST}")
    return content


def _arrays(directory: Path, name: str, entries: dict[str, dict[str, Any]]) -> dict[str, Array]:
    content = _content(directory, name, entries)
    try:
        return unpack(content)
    except ValueError as error:
        raise _damaged(directory, name, str(error)) from error


def _damaged(directory: Path, name: str, why: str) -> CheckpointError:
    real = directory.resolve()
    others = sorted(path.parent.name for path in real.parent.glob(f"*/{MANIFEST}") if path.parent != real)
    cure = "Use a copy of it, or start again."
    if others and directory.is_symlink():
        newest = os.path.relpath(real.parent / others[-1], directory.parent.resolve())
        cure = f"Go back to another one of this run, {', '.join(others)}: ln -sfn {newest} {directory}"
    return CheckpointError(f"the checkpoint {directory} is damaged: {directory / name}: {why}. {cure}")

"""Files of named tensors: PyTorch's formats and safetensors in, safetensors out, and a digest of what they hold."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import WeightsError
from . import torch_file

_NESTED_UNDER = ("state_dict", "model_state_dict", "model")
_SAFETENSORS_DTYPES = {
    "F16": "f2",
    "F32": "f4",
    "F64": "f8",
    "BF16": "u2",
    "C64": "c8",
    "I8": "i1",
    "I16": "i2",
    "I32": "i4",
    "I64": "i8",
    "U8": "u1",
    "U16": "u2",
    "U32": "u4",
    "U64": "u8",
    "BOOL": "?",
}


def load_state_dict_file(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a ``.pth``, ``.pt``, ``.bin``, ``.pkl`` or ``.safetensors`` file by name.

    The content decides on the format, not the suffix. A checkpoint that keeps its tensors under ``state_dict``,
    ``model_state_dict`` or ``model`` is opened there, and the prefix ``module.``, which DistributedDataParallel leaves
    on every name, is taken off. bfloat16 comes back as float32 of the same values; every array has memory of its own,
    C-contiguous and writable.

    Raises:
        WeightsError: the file cannot be read, was refused (see ``torch_file.load``), or an entry is not a tensor.
    """
    if _is_safetensors(path):
        return _strip_module_prefix(_load_safetensors(path))
    content = torch_file.load(path)
    for name in _NESTED_UNDER:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict):
        raise WeightsError(f"{os.fspath(path)} holds a {type(content).__name__}, not a dict of named tensors.")
    if not content:
        raise WeightsError(f"{os.fspath(path)} holds an empty dict, no tensors.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise WeightsError(
                f"{os.fspath(path)}: entry {name!r} is a {type(value).__name__}, not a tensor. A checkpoint may hold "
                f"its tensors under {', '.join(map(repr, _NESTED_UNDER))}; otherwise save model.state_dict() alone."
            )
    return _strip_module_prefix(content)


def save_state_dict_file(
    state: Mapping[str, npt.NDArray[Any]], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays as safetensors, whole or not at all: a reader never sees a part of the file under its name.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; what was at ``path`` is untouched.
    """
    from safetensors.numpy import save

    path = Path(path)
    content = save({name: np.asarray(value, order="C") for name, value in state.items()}, dict(metadata or {}))
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def state_dict_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text that a safetensors file carries beside its tensors; empty for a PyTorch file.

    Raises:
        WeightsError: the file cannot be read.
    """
    if not _is_safetensors(path):
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{os.fspath(path)} is a damaged safetensors file ({error}).") from error


def state_dict_digest(state: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 (hex) over the names, dtypes, shapes and values of the floating-point entries, in the order of names.

    The same tensors have the same digest whatever file they came from. Integer entries are BatchNorm's counters of
    batches, which inference does not use and which files older than PyTorch 0.4.1 lack, so they do not count.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if not np.issubdtype(value.dtype, np.floating):
            continue
        digest.update(f"{name}\0{value.dtype.name}\0{value.shape}\0".encode())
        digest.update(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def _is_safetensors(path: str | os.PathLike[str]) -> bool:
    """A length of eight bytes, then that many bytes of JSON; by the suffix where there is too little to tell."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}.") from error
    return head[8:] == b"{" or (len(head) < 9 and os.fspath(path).endswith(".safetensors"))


def _load_safetensors(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(Path(path).read_bytes())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise WeightsError(f"{os.fspath(path)} is a damaged safetensors file ({error}). Fetch it again.") from error
    except OSError as error:
        raise WeightsError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}.") from error
    state = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise WeightsError(
                f"{os.fspath(path)}: tensor {name!r} has dtype {entry['dtype']}, which NumPy has not. "
                "Convert it to F32 first."
            )
        # Each entry's data is a bytearray of its own, so the array can have it: no copy on a little-endian machine.
        array = np.frombuffer(entry["data"], np.dtype(_SAFETENSORS_DTYPES[entry["dtype"]]).newbyteorder("<"))
        array = array.reshape(entry["shape"])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            wide = array.astype(np.uint32)
            np.left_shift(wide, 16, out=wide)
            array = wide.view(np.float32)
        state[name] = array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("="))
    return state


def _strip_module_prefix(state: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state

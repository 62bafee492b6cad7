"""Nested Python state to JSON and named arrays, and back, without pickle.

JSON carries the shape of the state and every plain value; each array is replaced by ``{"__array__": NAME}`` and goes
into a safetensors file. What JSON lacks is tagged in the same way: dictionaries with keys that are not text (PyTorch's
optimizer state counts its parameters with integers), tuples, and floats that are not finite.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

Array = npt.NDArray[Any]

_TAGS = ("__array__", "__dict__", "__tuple__", "__float__")
_DTYPES = (
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
)


def encode(state: Any) -> tuple[bytes, dict[str, Array]]:
    """State to JSON text and the arrays it names.

    Args:
        state: nested dicts, lists and tuples of arrays, numbers, truth values, text and ``None``. NumPy scalars become
            Python's. Keys of a dict are text, integers, floats, truth values or ``None``.

    Raises:
        TypeError: something else is in it; the message says where.
    """
    arrays: dict[str, Array] = {}

    def walk(value: Any, where: str) -> Any:
        if isinstance(value, np.ndarray):
            name = where or "state"
            while name in arrays:  # {"a.b": ...} and {"a": {"b": ...}} may meet
                name += "'"
            arrays[name] = value
            return {"__array__": name}
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"__float__": repr(value)}
        if isinstance(value, list | tuple):
            entries = [walk(entry, f"{where}.{index}".lstrip(".")) for index, entry in enumerate(value)]
            return {"__tuple__": entries} if isinstance(value, tuple) else entries
        if isinstance(value, dict):
            for key in value:
                if not (key is None or isinstance(key, bool | int | float | str)):
                    raise TypeError(
                        f"the checkpoint's state has a key of type {type(key).__name__} in {where or 'it'!r}"
                    )
            walked = [[key, walk(entry, f"{where}.{key}".lstrip("."))] for key, entry in value.items()]
            if all(isinstance(key, str) for key in value) and not any(tag in value for tag in _TAGS):
                return dict(walked)
            return {"__dict__": [[walk(key, where), entry] for key, entry in walked]}
        raise TypeError(
            f"the checkpoint's state has a {type(value).__name__} at {where or 'its root'!r}; "
            "only numbers, text, lists, dicts and NumPy arrays can be written"
        )

    document = json.dumps(walk(state, ""), indent=1, allow_nan=False)
    return document.encode() + b"\n", arrays


def decode(document: bytes, arrays: dict[str, Array]) -> Any:
    """The inverse of ``encode``; raises ``ValueError`` or ``KeyError`` where the two do not belong together."""

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            tag, content = next(iter(value.items()))
            if tag == "__array__":
                return arrays[content]
            if tag == "__float__":
                return float(content)
            if tag == "__tuple__":
                return tuple(walk(entry) for entry in content)
            if tag == "__dict__":
                return {walk(key): walk(entry) for key, entry in content}
        return {key: walk(entry) for key, entry in value.items()}

    return walk(json.loads(document))


def pack(arrays: dict[str, Array]) -> bytes:
    """Arrays as a safetensors file; equal arrays give equal bytes, whatever their order in the dict and in memory.

    Raises:
        TypeError: a value is not an array of numbers or truth values.
    """
    plain: dict[str, Array] = {}
    for name in sorted(arrays):
        array = arrays[name]
        if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=").name not in _DTYPES:
            kind = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(
                f"{name!r} cannot be written to a checkpoint: it is of {kind}, not a NumPy array of numbers"
            )
        # The library reads memory from the first element on, so it must lie in C order. Not `ascontiguousarray`, which
        # makes a 0-d array one-dimensional.
        plain[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    # More than one metadata entry would be written in the order of a randomised hash table.
    return bytes(safetensors.numpy.save(plain, metadata={"format": "pt"}))


def unpack(content: bytes) -> dict[str, Array]:
    """The inverse of ``pack``: arrays that own their memory and are writable; ``ValueError`` where it is damaged."""
    try:
        return {name: array.copy() for name, array in safetensors.numpy.load(content).items()}
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error

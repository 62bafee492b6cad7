"""Reads the files of ``torch.save`` without PyTorch, and without running anything that a file asks for.

A PyTorch file is a pickle that refers to raw storages beside it, and a pickle is a program: the usual unpickler calls
any function the file names. The interpreter here knows only the instructions that build plain containers, and the few
functions in ``_Unpickler``'s table; each other name is refused by name before anything is called. Sizes, offsets and
strides are checked against the bytes that are there, and the memory that a file may ask for against its own size.

Three containers hold such a pickle:

* the zip archive of PyTorch 1.6 and later: ``<root>/data.pkl``, ``<root>/data/<key>``, ``<root>/byteorder``;
* the legacy stream before that: magic number, protocol version, system info, object, storage keys, storages;
* ``pickle.dump(state_dict)``, where each storage is a legacy stream of its own inside the pickle.

Format: https://docs.pytorch.org/docs/stable/notes/serialization.html and ``torch/serialization.py``.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import WeightsError

MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION: Final = 1001

# What a pickle's machine raises on bytes that are not a well-formed program of ours.
_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, RecursionError)
_UNREADABLE = (*_MALFORMED, struct.error, MemoryError)

_MOST_DIMENSIONS = 64

# Views expanded from few values (stride 0) are legitimate, so a file may grow in memory, but not without bounds.
_GROWTH_LIMIT = 16
_GROWTH_FLOOR = 64 << 20


class _Dtype(str):
    """An element type of PyTorch: its name, how its bytes lie in the file and what NumPy has for it."""

    raw: str  # NumPy's code of the stored bytes, without the byte order

    def __new__(cls, name: str, raw: str) -> _Dtype:
        dtype = super().__new__(cls, name)
        dtype.raw = raw
        return dtype

    @property
    def itemsize(self) -> int:
        return int(self.raw[1:])

    @property
    def in_memory(self) -> np.dtype[Any]:
        return np.dtype({"bfloat16": "f4", "bool": "?"}.get(self, self.raw))


_DTYPES = {
    name: _Dtype(name, raw)
    for name, raw in {
        "float16": "f2",
        "float32": "f4",
        "float64": "f8",
        "bfloat16": "u2",
        "complex64": "c8",
        "complex128": "c16",
        "int8": "i1",
        "int16": "i2",
        "int32": "i4",
        "int64": "i8",
        "uint8": "u1",
        "uint16": "u2",
        "uint32": "u4",
        "uint64": "u8",
        "bool": "u1",
    }.items()
}
_STORAGE_DTYPES = {
    "HalfStorage": _DTYPES["float16"],
    "FloatStorage": _DTYPES["float32"],
    "DoubleStorage": _DTYPES["float64"],
    "BFloat16Storage": _DTYPES["bfloat16"],
    "ComplexFloatStorage": _DTYPES["complex64"],
    "ComplexDoubleStorage": _DTYPES["complex128"],
    "CharStorage": _DTYPES["int8"],
    "ShortStorage": _DTYPES["int16"],
    "IntStorage": _DTYPES["int32"],
    "LongStorage": _DTYPES["int64"],
    "ByteStorage": _DTYPES["uint8"],
    "BoolStorage": _DTYPES["bool"],
    "UntypedStorage": None,
}


@dataclass(frozen=True, slots=True)
class _StorageType:
    """``torch.FloatStorage`` and its like, as a value on the pickle's stack; ``dtype`` is None for untyped bytes."""

    dtype: _Dtype | None


@dataclass(frozen=True, slots=True)
class _Call:
    """A function that a pickle may call."""

    function: Callable[..., object]


@dataclass(slots=True)
class _Bytes:
    """The bytes of one storage, shared by all its views. ``handed_out`` once an array of the result is this memory."""

    data: npt.NDArray[np.uint8]
    big_endian: bool = False
    handed_out: bool = False


@dataclass(frozen=True, slots=True)
class _Storage:
    """A storage, or a window into one, as a persistent id of the pickle describes it."""

    bytes: _Bytes
    start: int  # in bytes
    nbytes: int
    dtype: _Dtype | None
    placeholder: bool = False


@dataclass(slots=True)
class _Budget:
    """The memory that loading one file may take."""

    file: str
    limit: int
    taken: int = field(default=0, init=False)

    def take(self, nbytes: int) -> None:
        self.taken += nbytes
        if self.taken > self.limit:
            raise WeightsError(
                f"{self.file}: its tensors would take more than {self.limit:,} bytes of memory, far more than the file "
                "holds. If it is yours, it stores expanded views: save them with .contiguous()."
            )


def load(file: str | os.PathLike[str] | BinaryIO) -> Any:
    """Read what ``torch.save`` wrote: the zip format, the legacy format, or a plain pickle of tensors.

    Tensors and Parameters come back as NumPy arrays of their own memory (C-contiguous, aligned, writable); bfloat16 as
    float32 of the same values, every other dtype as itself. ``OrderedDict`` comes back as ``dict``, ``torch.Size`` as
    ``tuple``, ``torch.device`` and ``torch.dtype`` as ``str``; dict, list, tuple, str, bytes, int, float, bool and None
    as themselves. Attributes pickled beside them (a state_dict's ``_metadata``) are dropped.

    Args:
        file: a path, or a seekable binary file whose first byte is the first of the format.

    Raises:
        WeightsError: no such file, not a PyTorch file, damaged, or asking for anything that is not on the list; the
            message names it. Nothing of the file has been run.
    """
    if isinstance(file, (str, os.PathLike)):
        name = os.fspath(file)
        try:
            with open(name, "rb") as opened:
                return _load(opened, name)
        except OSError as error:
            raise WeightsError(f"{name}: cannot be read: {error.strerror or error}.") from error
    return _load(file, str(getattr(file, "name", None) or "the given file"))


def _load(file: BinaryIO, name: str) -> Any:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    _refuse_foreign_format(head, name)
    budget = _Budget(name, _GROWTH_FLOOR + _GROWTH_LIMIT * size)
    if head.startswith(b"PK\x03\x04"):
        return _load_zip(file, name, budget)
    return _load_stream(file, name, budget)


def _refuse_foreign_format(head: bytes, name: str) -> None:
    """Name the kinds of file that are taken for weights most often."""
    text = head.lstrip().lower()
    if not head:
        raise WeightsError(f"{name} is empty; fetch or save it again.")
    if head[257:262] == b"ustar":
        raise WeightsError(
            f"{name} is a tar archive: the format of the earliest PyTorch releases, or an archive with weights inside. "
            "Unpack it, or load it in PyTorch and save it again."
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{name} is a web page, not weights: an error or a login page was downloaded. Fetch it again."
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{name} is a Git LFS pointer, not the weights themselves. Fetch them with `git lfs pull`.")
    if head.startswith(b"\x89HDF"):
        raise WeightsError(f"{name} is an HDF5 file, as Keras writes them, not a PyTorch file.")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        raise WeightsError(f"{name} is a safetensors file; load_state_dict_file reads both formats.")


# --- the zip format ---------------------------------------------------------------------------------------------------


def _load_zip(file: BinaryIO, name: str, budget: _Budget) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            pickles = sorted((path for path in members if path.split("/")[-1] == "data.pkl"), key=len)
            if not pickles:
                raise WeightsError(f"{name} is a zip archive without a data.pkl, so not a PyTorch file.")
            root = pickles[0].removesuffix("data.pkl")
            if root + "constants.pkl" in members:
                raise WeightsError(
                    f"{name} is a TorchScript program (torch.jit.save), not a file of tensors. Load it in PyTorch with "
                    "torch.jit.load and save its state_dict() with torch.save."
                )
            big_endian = False
            if root + "byteorder" in members:
                order = _read_member(file, archive, members[root + "byteorder"], budget).tobytes()
                if order not in (b"little", b"big"):
                    raise WeightsError(f"{name}: its byte order {order!r} is neither b'little' nor b'big'.")
                big_endian = order == b"big"

            storages: dict[str, _Bytes] = {}

            def storage(key: str, nbytes: int, dtype: _Dtype | None) -> _Storage:
                if key not in storages:
                    info = members.get(f"{root}data/{key}")
                    if info is None:
                        raise WeightsError(f"{name} is damaged: it has no storage {root}data/{key}.")
                    storages[key] = _Bytes(_read_member(file, archive, info, budget), big_endian)
                return _window(name, storages[key], 0, nbytes, dtype)

            pickle = _read_member(file, archive, members[pickles[0]], budget)
            return _Unpickler(io.BytesIO(pickle.tobytes()), name, budget, storage).load()
    except (*_UNREADABLE, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise WeightsError(f"{name} is a damaged or truncated zip archive ({error}). Fetch it again.") from error


def _read_member(
    file: BinaryIO, archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget
) -> npt.NDArray[np.uint8]:
    """The bytes of one member, in memory of their own."""
    budget.take(info.file_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"compression method {info.compress_type} of {info.filename}")
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        return np.frombuffer(bytearray(archive.read(info)), np.uint8)
    # PyTorch stores members as they are, so they are read without zipfile, straight into the array: and zipfile would
    # refuse files written with torch.serialization.set_crc32_options(False), which have a checksum of 0 everywhere.
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile(f"no header for {info.filename}")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    file.seek(info.header_offset + 30 + name_length + extra_length)
    data = _read_exactly(file, info.file_size, f"{budget.file}: {info.filename}")
    if info.CRC and zlib.crc32(data.data) != info.CRC:
        raise zipfile.BadZipFile(f"bad CRC-32 for {info.filename}")
    return data


def _read_exactly(file: BinaryIO, nbytes: int, what: str) -> npt.NDArray[np.uint8]:
    """The next ``nbytes`` of the file, in aligned, writable memory of their own; fewer are a ``WeightsError``."""
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    if not 0 <= nbytes <= end - here:
        raise WeightsError(f"{what} is truncated: {nbytes:,} bytes are announced and {max(end - here, 0):,} are there.")
    file.seek(here)
    data = np.empty(nbytes, np.uint8)
    view = data.data
    done = 0
    while done < nbytes:
        read = file.readinto(view[done:])  # type: ignore[attr-defined]  # every binary file of the standard library has it
        if not read:
            raise WeightsError(f"{what} is truncated: {nbytes:,} bytes are announced and {done:,} are there.")
        done += read
    return data


# --- the legacy stream and plain pickles ------------------------------------------------------------------------------


def _load_stream(file: BinaryIO, name: str, budget: _Budget, *, nested: bool = False) -> Any:
    def no_storages(key: str, nbytes: int, dtype: _Dtype | None) -> _Storage:
        raise WeightsError(f"{name} is damaged: it refers to storage {key} outside of itself.")

    first = _Unpickler(file, name, budget, no_storages, storages_within=not nested).load()
    if not isinstance(first, int):
        return first
    if first != MAGIC_NUMBER:
        raise WeightsError(f"{name} is not a PyTorch file: it starts with {first}, not with PyTorch's magic number.")
    version = _Unpickler(file, name, budget, no_storages).load()
    if version != PROTOCOL_VERSION:
        raise WeightsError(f"{name} has version {version!r} of PyTorch's legacy format is not {PROTOCOL_VERSION}.")
    _Unpickler(file, name, budget, no_storages).load()  # system info; PyTorch ignores it, storages are little-endian

    # The storages follow the object that refers to them, and their lengths are counted in elements whose size only the
    # object knows: a first pass over the object collects the sizes, a second one builds.
    itemsizes: dict[str, int] = {}

    def collect(key: str, nbytes: int, dtype: _Dtype | None) -> _Storage:
        itemsizes[key] = dtype.itemsize if dtype else 1
        return _Storage(_Bytes(np.empty(0, np.uint8)), 0, nbytes, dtype, placeholder=True)

    start = file.tell()
    _Unpickler(file, name, budget, collect).load()
    storages: dict[str, _Bytes] = {}
    with _malformed_is_damage(name):
        for key in _Unpickler(file, name, budget, no_storages).load():
            count = struct.unpack("<q", _read_exactly(file, 8, f"{name}: storage {key}").tobytes())[0]
            budget.take(max(count, 0) * itemsizes[key])
            storages[key] = _Bytes(_read_exactly(file, count * itemsizes[key], f"{name}: storage {key}"))

    def storage(key: str, nbytes: int, dtype: _Dtype | None) -> _Storage:
        if key not in storages:
            raise WeightsError(f"{name} is damaged: it has no storage {key}.")
        return _window(name, storages[key], 0, nbytes, dtype)

    file.seek(start)
    return _Unpickler(file, name, budget, storage).load()


def _window(name: str, data: _Bytes, start: int, nbytes: int, dtype: _Dtype | None) -> _Storage:
    if start < 0 or nbytes < 0 or start + nbytes > data.data.nbytes:
        raise WeightsError(
            f"{name} is damaged: it describes bytes {start:,} to {start + nbytes:,} of a storage that has "
            f"{data.data.nbytes:,}."
        )
    return _Storage(data, start, nbytes, dtype)


@contextmanager
def _malformed_is_damage(name: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise WeightsError(f"{name} is damaged or not a PyTorch file ({type(error).__name__}: {error}).") from error


# --- the pickle -------------------------------------------------------------------------------------------------------

# fmt: off
_PUSHED_AS_IS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
})
# fmt: on
# Python itself refuses to print integers far beyond this, so a message about one would fail.
_LONGEST_INTEGER_BITS = 4096
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SCALARS = (str, bytes, int, float, type(None))


class _Unpickler:
    """The pickle machine without the instructions, and without the names, that tensors do not need.

    Not ``pickle.Unpickler`` with a ``find_class`` of its own: that one still calls what lies on its stack, sets
    attributes of what it meets, reaches ``copyreg``'s extensions past ``find_class`` and allocates what an opcode
    claims.

    Args:
        file: positioned at the pickle's first byte; left behind its last.
        name: the file's name in errors.
        budget: what tensors may still take.
        storage: finds a storage by (key, bytes, dtype).
        storages_within: whether storages may be pickled within the pickle, as ``pickle.dump`` of a tensor does.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        budget: _Budget,
        storage: Callable[[str, int, _Dtype | None], _Storage],
        *,
        storages_within: bool = False,
    ) -> None:
        self.file = file
        self.name = name
        self.budget = budget
        self.storage = storage
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): _Call(self._ordered_dict),
            ("torch", "Size"): _Call(self._size),
            ("torch", "device"): _Call(self._device),
            ("torch", "Tensor"): _Call(self._parameter),
            ("torch._utils", "_rebuild_tensor"): _Call(self._rebuild_tensor),
            ("torch._utils", "_rebuild_tensor_v2"): _Call(self._rebuild_tensor_v2),
            ("torch._utils", "_rebuild_tensor_v3"): _Call(self._rebuild_tensor_v3),
            ("torch._utils", "_rebuild_parameter"): _Call(self._parameter),
            ("torch._utils", "_rebuild_parameter_with_state"): _Call(self._parameter),
            ("torch._tensor", "_rebuild_from_type_v2"): _Call(self._rebuild_from_type),
            # Before PyTorch 0.4 parameters were pickled as calls of their class; torchvision's first files are such.
            ("torch.nn.parameter", "Parameter"): _Call(self._parameter),
            ("torch.autograd.variable", "Variable"): _Call(self._parameter),
            # How protocol 2 of Python 3 writes bytes.
            ("_codecs", "encode"): _Call(self._encode),
        }
        if storages_within:
            self.globals["torch.storage", "_load_from_bytes"] = _Call(self._load_from_bytes)

    def load(self) -> Any:
        """The object that the pickle describes."""
        with _malformed_is_damage(self.name):
            for opcode, argument, _position in pickletools.genops(self.file):
                self._step(opcode.name, argument)
            return self.stack.pop()

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _PUSHED_AS_IS:
            if isinstance(argument, int) and argument.bit_length() > _LONGEST_INTEGER_BITS:
                raise OverflowError(f"an integer of {argument.bit_length():,} bits")
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            if len(stack) < count:
                raise IndexError(f"{opcode} on a stack of {len(stack)}")
            stack[-count:] = [tuple(stack[-count:])]
        else:
            match opcode:
                case "PROTO" | "FRAME" | "STOP":
                    pass
                case "MARK":
                    self.marks.append(stack)
                    self.stack = []
                case "POP":
                    stack.pop()
                case "POP_MARK":
                    self._pop_mark()
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    self.memo[argument] = stack[-1]
                case "MEMOIZE":
                    self.memo[len(self.memo)] = stack[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    stack.append(self.memo[argument])
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "TUPLE":
                    items = self._pop_mark()
                    self.stack.append(tuple(items))
                case "LIST":
                    items = self._pop_mark()
                    self.stack.append(items)
                case "DICT":
                    items = self._pop_mark()
                    self.stack.append({})
                    self._set_items(items)
                case "APPEND":
                    items = [stack.pop()]
                    self._extend(items)
                case "APPENDS":
                    self._extend(self._pop_mark())
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    self._set_items([key, value])
                case "SETITEMS":
                    self._set_items(self._pop_mark())
                case "GLOBAL":
                    module, _, name = argument.partition(" ")
                    stack.append(self._find(module, name))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(self._find(module, name))
                case "INST":
                    module, _, name = argument.partition(" ")
                    self._find(module, name)
                    self._refuse_instruction(opcode)
                case "REDUCE":
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(self._call(function, arguments))
                case "BUILD":
                    # _metadata of a state_dict, requires_grad of an old Parameter: nothing that arrays carry
                    stack.pop()
                    if not isinstance(stack[-1], (dict, np.ndarray)):
                        self._refuse_instruction(f"BUILD on a {type(stack[-1]).__name__}")
                case "BINPERSID":
                    stack.append(self._persistent(stack.pop()))
                case _:
                    self._refuse_instruction(opcode)

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError(f"APPENDS to a {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError(f"SETITEMS of {len(items)} objects to a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    def _find(self, module: Any, name: Any) -> object:
        found = self.globals.get((module, name))
        if found is None and module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGE_DTYPES:
            return _StorageType(_STORAGE_DTYPES[name])
        if found is None and module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if found is not None:
            return found
        if str(module).partition(".")[0] in {*sys.stdlib_module_names, "__builtin__", "nt"}:
            cure = "A file of weights needs nothing of the kind: get it again from a source that you trust."
        else:
            cure = (
                "The file holds a whole object, such as a model saved with torch.save(model), not only tensors. "
                "Load it in PyTorch and save its tensors alone: torch.save(model.state_dict(), file)."
            )
        raise WeightsError(
            f"{self.name}: its pickle asks for {module}.{name}, which is not among the names that tensors need; "
            f"refused without running it. {cure}"
        )

    def _refuse_instruction(self, instruction: str) -> NoReturn:
        raise WeightsError(
            f"{self.name}: its pickle contains {instruction}, which tensors do not need; refused without running it. "
            "Load the file in PyTorch and save its tensors alone: torch.save(model.state_dict(), file)."
        )

    def _call(self, function: object, arguments: object) -> object:
        if not isinstance(function, _Call) or not isinstance(arguments, tuple):
            self._refuse_instruction(f"REDUCE on a {type(function).__name__}")
        return function.function(*arguments)

    def _persistent(self, identity: Any) -> _Storage:
        if isinstance(identity, tuple) and identity and identity[0] == "module":
            raise WeightsError(
                f"{self.name} holds a whole torch.nn.Module, code included; refused without running it. "
                "Load it in PyTorch and save its tensors alone: torch.save(model.state_dict(), file)."
            )
        # The legacy format adds a sixth entry: None, or (key, offset, size) of a window into the storage, in elements.
        kind, storage_type, key, _location, count, *view = identity
        if kind != "storage" or not isinstance(storage_type, _StorageType) or not isinstance(key, (str, int)):
            raise ValueError(f"{kind!r} of {type(storage_type).__name__} is no storage")
        itemsize = storage_type.dtype.itemsize if storage_type.dtype else 1
        storage = self.storage(str(key), _natural(count) * itemsize, storage_type.dtype)
        if view and view[0] is not None and not storage.placeholder:
            _view_key, offset, size = view[0]
            return _window(
                self.name, storage.bytes, _natural(offset) * itemsize, _natural(size) * itemsize, storage_type.dtype
            )
        return storage

    # --- what a pickle may call ---

    @staticmethod
    def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
        if not isinstance(pairs, (list, tuple)):
            raise TypeError(f"an OrderedDict of a {type(pairs).__name__}")
        return {_checked_key(key): value for key, value in pairs}

    @staticmethod
    def _size(entries: Any = ()) -> tuple[int, ...]:
        return tuple(_natural(n) for n in entries)

    @staticmethod
    def _device(kind: Any, index: Any = None) -> str:
        return str(kind) if index is None else f"{kind}:{_natural(index)}"

    @staticmethod
    def _encode(text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise TypeError(f"bytes written as {type(text).__name__} in {encoding!r}")
        return text.encode("latin-1")

    @staticmethod
    def _parameter(data: Any, *_autograd_state: Any) -> npt.NDArray[Any]:
        if not isinstance(data, np.ndarray):
            raise TypeError(f"a Parameter of a {type(data).__name__}")
        return data

    def _rebuild_from_type(self, function: Any, _type: Any, arguments: Any, _state: Any) -> object:
        return self._call(function, arguments)

    def _rebuild_tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> npt.NDArray[Any]:
        return self._array(storage, offset, size, stride, None)

    def _rebuild_tensor_v2(
        self, storage: Any, offset: Any, size: Any, stride: Any, _requires_grad: Any, _hooks: Any, _metadata: Any = None
    ) -> npt.NDArray[Any]:
        return self._array(storage, offset, size, stride, None)

    def _rebuild_tensor_v3(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        _requires_grad: Any,
        _hooks: Any,
        dtype: Any,
        _metadata: Any = None,
    ) -> npt.NDArray[Any]:
        if not isinstance(dtype, _Dtype):
            raise TypeError(f"a tensor of dtype {dtype!r}")
        return self._array(storage, offset, size, stride, dtype)

    def _load_from_bytes(self, data: Any) -> _Storage:
        if not isinstance(data, bytes):
            raise TypeError(f"a storage read from a {type(data).__name__}")
        storage = _load_stream(io.BytesIO(data), self.name, self.budget, nested=True)
        if not isinstance(storage, _Storage):
            raise TypeError(f"a {type(storage).__name__} where a storage belongs")
        return storage

    def _array(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: _Dtype | None) -> npt.NDArray[Any]:
        """The tensor that ``torch.as_strided(storage, size, stride, offset)`` is, with each bound checked."""
        if not isinstance(storage, _Storage):
            raise TypeError(f"a tensor in a {type(storage).__name__}")
        dtype = dtype or storage.dtype
        if dtype is None:
            raise TypeError("a tensor without a dtype")
        if len(size) > _MOST_DIMENSIONS:
            raise ValueError(f"{len(size)} dimensions; NumPy has at most {_MOST_DIMENSIONS}")
        offset, shape, steps = _natural(offset), tuple(map(_natural, size)), tuple(map(_natural, stride))
        if len(shape) != len(steps):
            raise ValueError(f"{len(shape)} sizes and {len(steps)} strides")
        count = math.prod(shape)
        available = storage.nbytes // dtype.itemsize
        last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        if count and last >= available:
            raise WeightsError(
                f"{self.name} is damaged: a tensor of size {shape}, stride {steps} and offset {offset} reaches element "
                f"{last} of a storage of {available}."
            )
        if storage.placeholder or not count:
            return np.empty(() if storage.placeholder else shape, dtype.in_memory)

        whole = storage.bytes
        raw = np.dtype((">" if whole.big_endian else "<") + dtype.raw)
        elements = whole.data[storage.start : storage.start + available * dtype.itemsize].view(raw)
        # A dimension of 1 takes no step, so its stride, which the bound above does not see, must not reach NumPy.
        step_bytes = [step * dtype.itemsize if n > 1 else 0 for n, step in zip(shape, steps, strict=True)]
        view = np.lib.stride_tricks.as_strided(elements[offset:], shape, step_bytes, writeable=True)
        if view.nbytes == whole.data.nbytes and not whole.handed_out and _usable_in_place(view, dtype):
            whole.handed_out = True
            return view.view(dtype.in_memory)
        self.budget.take(count * dtype.in_memory.itemsize)
        if dtype == "bfloat16":  # the upper half of a float32
            wide = view.astype(np.uint32, order="C")
            np.left_shift(wide, 16, out=wide)
            return wide.view(np.float32)
        if dtype == "bool":  # any byte but 0 is True; as NumPy's bool, bytes above 1 would be undefined
            return np.array(view != 0, order="C")
        return view.astype(dtype.in_memory, order="C", copy=True)


def _usable_in_place(view: npt.NDArray[Any], dtype: _Dtype) -> bool:
    return dtype.in_memory == view.dtype and view.flags.c_contiguous and view.flags.aligned


def _natural(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} where a size, stride or offset belongs")
    return value


def _checked_key(key: Any) -> Any:
    """The key of a dict, if it is a scalar or a flat tuple: hashing a nested one would recurse without bounds in C."""
    if isinstance(key, _SCALARS) or (isinstance(key, tuple) and all(isinstance(entry, _SCALARS) for entry in key)):
        return key
    raise TypeError(f"a {type(key).__name__} as key of a dict")

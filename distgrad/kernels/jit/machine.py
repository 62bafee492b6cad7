"""From LLVM's assembly to functions of this processor."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from distgrad import backends

from .code import INT, POINTER, Code
from .object_store import ObjectStore, cache_folder

_lock = threading.RLock()  # LLVM compiles one module at a time
_KINDS = {INT: ctypes.c_int64, POINTER: ctypes.c_void_p}


class Machine:
    """LLVM, told about this processor."""

    def __init__(self, llvm: Any) -> None:
        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        self._target = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3, jit=True
        )
        self.vector_bytes = 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._target)  # owns the functions' memory
        self.identity = f"{llvm.llvm_version_info} {llvm.get_host_cpu_name()} {features.flatten()} {_sources()}"
        self._store = ObjectStore(cache_folder())

    def compile(
        self,
        parameters: list[tuple[str, str]],
        dtype: np.dtype[Any],
        write: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> Callable[..., None]:
        """See ``compiled``."""
        identity = [
            self.identity,
            self.vector_bytes,
            write.__module__,
            parameters,
            dtype.str,
            *map(_description, arguments),
        ]
        key = hashlib.sha256(repr(identity).encode()).hexdigest()
        name = f"kernel_{key[:32]}"
        data = self._store.read(key)
        if data is None:
            code = Code(name, parameters, dtype.itemsize, self.vector_bytes // dtype.itemsize)
            write(code, *arguments)
            data = self._target.emit_object(self._optimized(code.text()))
            self._store.write(key, data)
        self._engine.add_object_file(self._llvm.object_file.ObjectFileRef.from_data(data))
        self._engine.finalize_object()
        prototype = ctypes.CFUNCTYPE(None, *(_KINDS[kind] for _, kind in parameters))
        return prototype(self._engine.get_function_address(name))

    def _optimized(self, text: str) -> Any:
        module = self._llvm.parse_assembly(text)
        module.triple = self._target.triple
        options = self._llvm.create_pipeline_tuning_options(speed_level=1)
        options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
        builder = self._llvm.create_pass_builder(self._target, options)
        builder.getModulePassManager().run(module, builder)
        return module


def _description(argument: Any) -> str:
    """What tells an argument of a kernel from others, alike in every process."""
    if isinstance(argument, np.ndarray):
        return f"{argument.shape} {argument.dtype.str} {argument.tobytes().hex()}"
    return argument.__qualname__ if callable(argument) else repr(argument)


def _sources() -> str:
    """A hash of the files of this folder: kernels change with them."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _machine() -> Machine | None:
    try:
        import llvmlite.binding as llvm
    except ImportError:
        return None
    return Machine(llvm)


def machine() -> Machine | None:
    """The compiler, or None where llvmlite isn't installed or ``backends.jit`` is ``"off"``."""
    if backends.jit == "off":
        return None
    with _lock:
        return _machine()


def identity() -> str:
    """What the bits of results depend on: the compiler's version, or that NumPy does all. Nothing is imported."""
    if backends.jit == "off" or find_spec("llvmlite") is None:
        return "numpy"
    return f"llvmlite {version('llvmlite')}"


def lanes(dtype: np.dtype[Any] | type) -> int:
    """How many floats a vector of this processor has."""
    found = _machine()
    assert found is not None
    return found.vector_bytes // np.dtype(dtype).itemsize


def compiled(
    parameters: list[tuple[str, str]], dtype: np.dtype[Any], write: Callable[..., None], *arguments: Any
) -> Callable[..., None]:
    """A function of this processor, which releases the interpreter's lock while it runs.

    Args:
        parameters: names and types of its arguments.
        dtype: of its vectors, float32 or float64.
        write: writes it: called with a ``Code`` and ``arguments``, unless it has been compiled before.
        arguments: all that its text depends on besides; arrays, functions, and what has a ``repr``.
    """
    with _lock:
        found = _machine()
        assert found is not None
        return found.compile(parameters, dtype, write, arguments)

"""What, besides the program and its data, decides the bits of a result: the same on all ranks, or an error says which.

A matrix product's bits depend on the kernels that BLAS chose for the processor and on how many threads share its rows,
and a sum's on NumPy's vector instructions. Ranks on hosts of one kind agree in all of this but the number of threads,
which by default depends on the number of ranks on a host; so it is set to one number that does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import backends
from ..errors import CommunicationError
from ..kernels import convolution_choice, small_products
from ..version import __version__
from .communicator import Communicator

_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def pin_threads(count: int) -> None:
    """From now on BLAS computes with ``count`` threads in this process.

    Told to OpenBLAS itself where NumPy has loaded it, and through threadpoolctl, where that is installed, to others.

    Raises:
        ValueError: ``count`` is less than 1.
        RuntimeError: BLAS uses another number of threads and cannot be told.
    """
    if count < 1:
        raise ValueError(f"pin_threads: count is {count}, must be at least 1")
    asked = small_products.blas_threads()
    library = _openblas()
    if library is not None:
        library.set_threads(count)
    elif asked != count:
        try:
            import threadpoolctl
        except ImportError:
            raise RuntimeError(
                f"BLAS computes with {asked} threads and cannot be told otherwise now, but results are only the same "
                f"on any number of ranks with the same number of threads: set {_VARIABLES[1]}={count} in the "
                "environment, or install threadpoolctl"
            ) from None
        threadpoolctl.threadpool_limits(count, user_api="blas")
    if asked != count:
        for name in _VARIABLES:
            os.environ[name] = str(count)
        small_products.forget_threads()
        convolution_choice.forget_choices()


def numerics() -> dict[str, str]:
    """What decides bits, by name, for people and for comparison."""
    found: Any = np.show_config(mode="dicts") or {}
    library = _openblas()
    blas = found.get("Build Dependencies", {}).get("blas", {})
    return {
        "distgrad": __version__,
        "NumPy": np.__version__,
        "BLAS": f"{blas.get('name')} {blas.get('version')}" if library is None else library.configuration,
        "BLAS kernels": os.environ.get("OPENBLAS_CORETYPE", "") if library is None else library.kernels,
        "BLAS threads": str(small_products.blas_threads() if library is None else library.threads()),
        "vector instructions": " ".join(found.get("SIMD Extensions", {}).get("found", [])),
        "convolutions": backends.convolution,
        "compiled kernels": backends.jit if importlib.util.find_spec("llvmlite") is not None else "not installed",
    }


_CURES = {
    "BLAS kernels": "set OPENBLAS_CORETYPE to the same name everywhere, one that every processor has",
    "BLAS threads": "set OPENBLAS_NUM_THREADS (or pass blas_threads) to the same number everywhere",
    "vector instructions": "run on processors of one kind, or set NPY_DISABLE_CPU_FEATURES to what some lack",
    "distgrad": "install the same version everywhere",
    "NumPy": "install the same version everywhere",
    "BLAS": "install the same wheel of NumPy everywhere",
    "compiled kernels": "install the extra 'fast' everywhere, or set distgrad.backends.jit = 'off' everywhere",
    "convolutions": "set distgrad.backends.convolution to the same value everywhere",
}


def check_same_numerics(communicator: Communicator) -> None:
    """Raises on every rank unless all of ``numerics`` agree. A collective.

    Raises:
        CommunicationError: names what differs, where, and the cure.
    """
    mine = numerics()
    everybody = [json.loads(text) for text in communicator.all_gather_bytes(json.dumps(mine).encode())]
    for name in mine:
        for rank, theirs in enumerate(everybody):
            if theirs.get(name) != everybody[0].get(name):
                raise CommunicationError(
                    f"reproducible=True needs the same arithmetic on every rank, but {name} is "
                    f"{everybody[0].get(name)!r} on rank 0 and {theirs.get(name)!r} on rank {rank}: {_CURES[name]}"
                )


class _OpenBLAS:
    """The library that NumPy has loaded, through its own functions."""

    def __init__(self, library: ctypes.CDLL, prefix: str, suffix: str) -> None:
        self._get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
        self._set = getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
        self.kernels = _text(getattr(library, f"{prefix}openblas_get_corename{suffix}"))
        self.configuration = _text(getattr(library, f"{prefix}openblas_get_config{suffix}"))

    def threads(self) -> int:
        return int(self._get())

    def set_threads(self, count: int) -> None:
        self._set(ctypes.c_int(count))


def _text(function: Any) -> str:
    function.restype = ctypes.c_char_p
    return (function() or b"").decode(errors="replace").strip()


@functools.cache
def _openblas() -> _OpenBLAS | None:
    """Found among what this process has mapped; None where there is none, or no way to look."""
    maps = Path("/proc/self/maps")
    with contextlib.suppress(OSError):
        paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "openblas" in line}
        for path in sorted(paths):
            with contextlib.suppress(OSError):
                library = ctypes.CDLL(path)
                for prefix in ("scipy_", ""):
                    for suffix in ("64_", "_64", ""):
                        with contextlib.suppress(AttributeError):
                            return _OpenBLAS(library, prefix, suffix)
    return None

"""distgrad: distributed data-parallel training in NumPy, with PyTorch's API and meaning.

``import distgrad as torch`` and type what you know. Importing it takes about half as long again as importing NumPy: the
rooms that need more (``nn`` does not; ``data``, ``distributed``, ``models`` and ``launch`` do) are imported when first
used, and MPI is never initialised by an import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import blas as _blas

_blas.share_cores_of_this_process()  # before NumPy is imported, or it has no effect

from math import e, inf, nan, pi

import numpy as _np

from . import autograd, backends, linalg, nn, ops, optim, tracing
from .autograd import (
    Size,
    Tensor,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .autograd.printing import set_printoptions
from .ops import *
from .registry import no_attribute as _no_attribute
from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import checkpoint, compiler, data, distributed, features, func, metrics, models, observe, utils
    from .compiler.compiled import compile
    from .func.vmap import vmap

float16 = half = _np.dtype(_np.float16)
float32 = float = _np.dtype(_np.float32)
float64 = double = _np.dtype(_np.float64)
uint8 = _np.dtype(_np.uint8)
int8 = _np.dtype(_np.int8)
int16 = short = _np.dtype(_np.int16)
int32 = int = _np.dtype(_np.int32)
int64 = long = _np.dtype(_np.int64)
bool = _np.dtype(_np.bool_)
newaxis = None

_LAZY = ("checkpoint", "compiler", "data", "distributed", "features", "func", "metrics", "models", "observe", "utils")


def __getattr__(name: str) -> Any:
    """Imports a room on first use, so that ``import distgrad`` stays light."""
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    if name == "compile":
        return importlib.import_module(".compiler", __name__).compile
    if name == "vmap":
        return importlib.import_module(".func", __name__).vmap
    raise _no_attribute("module 'distgrad'", name, __all__)


__all__ = [
    "Size",
    "Tensor",
    "autograd",
    "backends",
    "bool",
    "checkpoint",
    "compile",
    "compiler",
    "data",
    "distributed",
    "double",
    "e",
    "enable_grad",
    "features",
    "float",
    "float16",
    "float32",
    "float64",
    "func",
    "half",
    "inf",
    "inference_mode",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "linalg",
    "long",
    "metrics",
    "models",
    "nan",
    "newaxis",
    "nn",
    "no_grad",
    "observe",
    "optim",
    "pi",
    "set_grad_enabled",
    "set_printoptions",
    "short",
    "tracing",
    "uint8",
    "utils",
    "vmap",
]
__all__ += ops.__all__

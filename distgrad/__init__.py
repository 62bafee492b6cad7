"""distgrad: distributed data-parallel training in NumPy, with PyTorch's API and meaning.

``import distgrad as torch`` and type what you know. Importing it costs little more than importing NumPy: the rooms that
need more (``nn`` does not; ``data``, ``distributed``, ``models`` and ``launch`` do) are imported when first used, and
MPI is never initialised by an import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import blas as _blas

_blas.share_cores_of_this_process()  # before NumPy is imported, or it has no effect

import numpy as _np

from . import autograd, nn, optim
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
from .ops.convolution import conv2d
from .ops.creation import (
    allclose,
    arange,
    as_tensor,
    empty,
    equal,
    eye,
    from_numpy,
    full,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from .ops.elementwise import (
    abs,
    add,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    broadcast_to,
    clamp,
    clone,
    cos,
    div,
    eq,
    exp,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    log,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    pow,
    relu,
    sigmoid,
    sign,
    sin,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from .ops.indexing import (
    gather,
    index_select,
    masked_fill,
    masked_select,
    nonzero,
    scatter,
    scatter_add,
    take_along_dim,
)
from .ops.linalg import matmul, mm
from .ops.promotion import get_default_dtype, result_type, set_default_dtype
from .ops.random import Generator, default_generator, manual_seed, rand, randint, randn, randperm
from .ops.rearrange import (
    diag,
    diagonal,
    flip,
    roll,
    tile,
    tril,
    triu,
)
from .ops.reduction import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    softmax,
    std,
    sum,
    topk,
    var,
)
from .ops.shape import (
    cat,
    chunk,
    flatten,
    movedim,
    narrow,
    permute,
    reshape,
    select,
    split,
    squeeze,
    stack,
    t,
    transpose,
    unbind,
    unsqueeze,
)
from .ops.transcendental import (
    acos,
    asin,
    atan,
    atan2,
    cosh,
    erf,
    erfc,
    exp2,
    expm1,
    hypot,
    log1p,
    log2,
    log10,
    logaddexp,
    reciprocal,
    rsqrt,
    sinh,
    tan,
)

if TYPE_CHECKING:
    from . import checkpoint, data, distributed, models, observe

__version__ = "0.1.0"

float16 = half = _np.dtype(_np.float16)
float32 = float = _np.dtype(_np.float32)
float64 = double = _np.dtype(_np.float64)
uint8 = _np.dtype(_np.uint8)
int8 = _np.dtype(_np.int8)
int16 = short = _np.dtype(_np.int16)
int32 = int = _np.dtype(_np.int32)
int64 = long = _np.dtype(_np.int64)
bool = _np.dtype(_np.bool_)

_LAZY = ("checkpoint", "data", "distributed", "models", "observe")


def __getattr__(name: str) -> Any:
    """Imports a room on first use, so that ``import distgrad`` stays light."""
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    import difflib

    near = difflib.get_close_matches(name, __all__, n=1)
    hint = f"; the nearest name is {near[0]!r}" if near else ""
    raise AttributeError(f"module 'distgrad' has no attribute {name!r}{hint}")


__all__ = [
    "Generator",
    "Size",
    "Tensor",
    "abs",
    "acos",
    "add",
    "all",
    "allclose",
    "amax",
    "amin",
    "any",
    "arange",
    "argmax",
    "argmin",
    "as_tensor",
    "asin",
    "atan",
    "atan2",
    "autograd",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "bool",
    "broadcast_to",
    "cat",
    "checkpoint",
    "chunk",
    "clamp",
    "clone",
    "conv2d",
    "cos",
    "cosh",
    "data",
    "default_generator",
    "diag",
    "diagonal",
    "distributed",
    "div",
    "double",
    "empty",
    "enable_grad",
    "eq",
    "equal",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "eye",
    "flatten",
    "flip",
    "float",
    "float16",
    "float32",
    "float64",
    "from_numpy",
    "full",
    "gather",
    "ge",
    "get_default_dtype",
    "gt",
    "half",
    "hypot",
    "index_select",
    "inference_mode",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_softmax",
    "logaddexp",
    "logsumexp",
    "long",
    "lt",
    "manual_seed",
    "masked_fill",
    "masked_select",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mm",
    "models",
    "movedim",
    "mul",
    "narrow",
    "ne",
    "neg",
    "nn",
    "no_grad",
    "nonzero",
    "observe",
    "ones",
    "ones_like",
    "optim",
    "permute",
    "pow",
    "rand",
    "randint",
    "randn",
    "randperm",
    "reciprocal",
    "relu",
    "reshape",
    "result_type",
    "roll",
    "rsqrt",
    "scatter",
    "scatter_add",
    "select",
    "set_default_dtype",
    "set_grad_enabled",
    "set_printoptions",
    "short",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softmax",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "t",
    "take_along_dim",
    "tan",
    "tanh",
    "tensor",
    "tile",
    "topk",
    "transpose",
    "tril",
    "triu",
    "uint8",
    "unbind",
    "unsqueeze",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

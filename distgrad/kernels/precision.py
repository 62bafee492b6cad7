"""Half precision: stored in 16 bits, computed in 32."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")


def half_in_single(kernel: Callable[P, NDArray[Any]]) -> Callable[P, NDArray[Any]]:
    """Let ``kernel`` compute float16 arrays in float32, as PyTorch does: a long sum in half precision loses its digits,
    and NumPy has no GEMM for it."""

    def is_half(value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.dtype == np.float16

    @functools.wraps(kernel)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> NDArray[Any]:
        if not any(map(is_half, args)):
            return kernel(*args, **kwargs)
        single: Any = kernel
        result: NDArray[Any] = single(*(x.astype(np.float32) if is_half(x) else x for x in args), **kwargs)  # type: ignore[attr-defined]
        return result.astype(np.float16)

    return wrapped

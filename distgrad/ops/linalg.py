"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import sum_to
from .shape import _permute, _reshape, transpose

__all__ = [  # what distgrad itself offers
    "matmul",
    "mm",
]
METHODS = (  # what a Tensor offers
    "matmul mm"
).split()


def _adjoint(x: Any) -> Any:
    """The last two dimensions exchanged."""
    return _permute(x, dims=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


_matmul: Primitive = define(
    "Matmul",
    np.matmul,
    ("input", "other"),
    # (..., n, p) @ (..., p, m) -> (..., n, m), the gradient of (..., n, m)
    input=lambda g, other, input_shape: sum_to(_matmul(g, _adjoint(other)), input_shape),
    # (..., m, n) @ (..., n, p) -> (..., m, p), the gradient of (..., m, p)
    other=lambda g, input, other_shape: sum_to(_matmul(_adjoint(input), g), other_shape),
)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product, batched over leading dimensions, which broadcast; vectors as in ``torch.matmul``.

    Raises:
        RuntimeError: an operand is 0-d, dtypes differ, or the inner lengths do.
    """
    if not (isinstance(input, Tensor) and isinstance(other, Tensor)):
        raise TypeError(f"matmul(): arguments must be Tensors, not {type(input).__name__} and {type(other).__name__}")
    if input.ndim == 0 or other.ndim == 0:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {input.ndim}D and {other.ndim}D"
        )
    if input.dtype != other.dtype:
        raise RuntimeError(f"expected m1 and m2 to have the same dtype, but got: {input.dtype} != {other.dtype}")
    left, right = input.shape, other.shape
    inner = right[-2] if other.ndim > 1 else right[0]
    if left[-1] != inner:
        raise RuntimeError(
            f"matmul: mat1 and mat2 shapes cannot be multiplied ({list(left)} and {list(right)}): {left[-1]} columns "
            f"meet {inner} rows"
        )
    a = _reshape(input, shape=(1, *left)) if input.ndim == 1 else input
    b = _reshape(other, shape=(*right, 1)) if other.ndim == 1 else other
    try:
        out: Tensor = _matmul(a, b)
    except ValueError:
        raise RuntimeError(f"matmul: the batch dimensions of {list(left)} and {list(right)} do not broadcast") from None
    if input.ndim == 1 or other.ndim == 1:
        shape = list(out.shape)
        if other.ndim == 1:
            del shape[-1]
        if input.ndim == 1:
            del shape[-1 if other.ndim == 1 else -2]
        out = _reshape(out, shape=tuple(shape))
    return out


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices: (n, p) @ (p, m) -> (n, m)."""
    if input.ndim != 2 or mat2.ndim != 2:
        raise RuntimeError(f"mm: both arguments must be matrices, got {list(input.shape)} and {list(mat2.shape)}")
    return matmul(input, mat2)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``. Shapes: (..., in), (out, in), (out,) -> (..., out)."""
    if weight.ndim != 2 or not input.ndim or input.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            f"linear: mat1 and mat2 shapes cannot be multiplied: the input is {list(input.shape)}, the weight "
            f"{list(weight.shape)}, and the input's last dimension must equal the weight's last"
        )
    # (..., in) @ (in, out) -> (..., out)
    out = matmul(input, transpose(weight, 0, 1))
    return out if bias is None else out + bias

"""Products of matrices and vectors added to a tensor, each one operation: ``beta * input + alpha * product``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.product import product
from .elementwise import sum_to
from .linalg import (
    _adjoint,
    _beside,
    _check_batches,
    _check_expandable,
    _column,
    _dimensions,
    _gradient_of_left,
    _gradient_of_right,
    _mv,
    _refuse_bool,
    _refuse_others,
    _rows,
)
from .promotion import promoted
from .shape import _reshape

__all__ = [  # what distgrad itself offers
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
]
METHODS = (  # what a Tensor offers
    "addbmm addmm addmv addr baddbmm"
).split()
IN_PLACE = METHODS  # of these, what also exists as NAME_


def _accumulated(input: Array, mat1: Array, mat2: Array, beta: float, alpha: float) -> Array:
    if alpha == 0:  # what is multiplied by 0 may be NaN and does not count, in PyTorch and BLAS
        lead = np.broadcast_shapes(mat1.shape[:-2], mat2.shape[:-2])
        out = np.zeros((*lead, *mat1.shape[-2:-1], *mat2.shape[-1:]) if mat2.ndim > 1 else mat1.shape[:-1], mat1.dtype)
    else:
        out = product(mat1, mat2)
    if alpha not in (0, 1):
        out *= alpha
    if beta != 0:
        out += input if beta == 1 else input * beta
    return out


def _of_mat1(g: Any, mat2: Any, shape: tuple[int, ...]) -> Any:
    return _column(g) * mat2 if mat2.ndim == 1 else _gradient_of_left(g, mat2, shape)


def _of_mat2(g: Any, mat1: Any, shape: tuple[int, ...]) -> Any:
    return _mv(_adjoint(mat1), g) if len(shape) == 1 else _gradient_of_right(g, mat1, shape)


_addmm: Primitive = define(
    "Addmm",
    _accumulated,
    ("input", "mat1", "mat2"),
    input=lambda g, input_shape, beta: sum_to(g if beta == 1 else g * beta, input_shape),
    mat1=lambda g, mat2, mat1_shape, alpha: _of_mat1(g if alpha == 1 else g * alpha, mat2, mat1_shape),
    mat2=lambda g, mat1, mat2_shape, alpha: _of_mat2(g if alpha == 1 else g * alpha, mat1, mat2_shape),
)


def _add_product(name: str, input: Tensor, first: Tensor, second: Tensor, beta: float, alpha: float) -> Tensor:
    """``beta * input + alpha * first @ second``, whose shapes are known to fit; the dtypes are not."""
    if first.dtype != second.dtype:
        raise RuntimeError(f"{name}: mat1 and mat2 must have the same dtype, but got {first.dtype} and {second.dtype}")
    if input.dtype != second.dtype:
        raise RuntimeError(f"{name}: self and mat2 must have the same dtype, but got {input.dtype} and {second.dtype}")
    _refuse_bool(name, input.dtype)
    if input.dtype.kind != "f":
        beta, alpha = int(beta), int(alpha)
    columns = second.shape[-1:] if second.ndim > 1 else ()
    _check_expandable(name, "input", input, (*first.shape[:-1], *columns))
    out: Tensor = _addmm(input, first, second, beta=beta, alpha=alpha)
    return out


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * mat1 @ mat2``: (n, p) @ (p, m), and an input that broadcasts to (n, m).

    With ``beta`` 0 the input does not count, whatever is in it; with ``alpha`` 0 neither do the matrices.

    Raises:
        RuntimeError: shapes that do not fit, or dtypes that differ.
    """
    _refuse_others("addmm", input=input, mat1=mat1, mat2=mat2)
    _dimensions(mat1, 2, "addmm: mat1 must be a matrix")
    _dimensions(mat2, 2, "addmm: mat2 must be a matrix")
    if mat1.shape[1] != mat2.shape[0]:
        raise RuntimeError(
            f"addmm: mat1 and mat2 shapes cannot be multiplied ({list(mat1.shape)} and {list(mat2.shape)})"
        )
    return _add_product("addmm", input, mat1, mat2, beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * mat @ vec``: (n, m) @ (m), and an input that broadcasts to (n). See ``addmm``."""
    _refuse_others("addmv", input=input, mat=mat, vec=vec)
    if input.ndim > 1 or mat.ndim != 2 or vec.ndim != 1:
        raise RuntimeError(f"addmv: vector + matrix @ vector expected, got {input.ndim}, {mat.ndim}, {vec.ndim}")
    if mat.shape[1] != vec.shape[0]:
        raise RuntimeError(
            f"addmv: size mismatch, got input {list(input.shape)}, mat {list(mat.shape)}, vec {list(vec.shape)}"
        )
    return _add_product("addmv", input, mat, vec, beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``: (n) and (m), and an input that broadcasts to (n, m).

    Unlike the others here it promotes. See ``addmm`` for ``beta`` and ``alpha``.
    """
    _refuse_others("addr", input=input, vec1=vec1, vec2=vec2)
    for name, x in (("vec1", vec1), ("vec2", vec2)):
        if x.ndim != 1:
            raise RuntimeError(f"addr: Expected 1-D argument {name}, but got {x.ndim}-D")
    input, vec1, vec2 = promoted(input, vec1, vec2)
    for name, number in (("beta", beta), ("alpha", alpha)):
        if input.dtype.kind != "f" and isinstance(number, float):
            raise RuntimeError(
                f"For integral input tensors, argument {name} must not be a floating point number. Got {number}"
            )
    row = _reshape(vec2, shape=(1, *vec2.shape))
    return _add_product("addr", input, _column(vec1), row, beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * batch1 @ batch2``: (b, n, p) @ (b, p, m), and an input that broadcasts to (b, n, m).

    See ``addmm``.
    """
    _refuse_others("baddbmm", input=input, batch1=batch1, batch2=batch2)
    _check_batches("baddbmm", batch1, batch2)
    return _add_product("baddbmm", input, batch1, batch2, beta, alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * (batch1 @ batch2).sum(0)``: (b, n, p) @ (b, p, m), and an input that broadcasts to
    (n, m). The sum over the batch is part of one product of matrices. See ``addmm``.
    """
    _refuse_others("addbmm", input=input, batch1=batch1, batch2=batch2)
    _check_batches("addbmm", batch1, batch2)
    return _add_product("addbmm", input, _beside(batch1), _rows(batch2), beta, alpha)

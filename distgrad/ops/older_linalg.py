"""The linear algebra of ``torch`` itself and of tensors, where ``torch.linalg`` has since chosen another convention.

``torch.svd`` gives V and not its transpose, ``torch.qr`` asks for ``some``, ``torch.norm`` for ``p``, ``torch.cross``
looks for a dimension of length 3. They are here because programs are written with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from . import decomposition, linalg, lu_factorization, matrix_norm
from .dims import Dims
from .linalg import _adjoint, _refuse_others
from .rearrange import flip
from .return_types import Named, named

__all__ = [  # what distgrad itself offers
    "cholesky",
    "cross",
    "lu",
    "lu_solve",
    "norm",
    "qr",
    "svd",
    "vander",
]
METHODS = (  # what a Tensor offers
    "cholesky cross lu lu_solve norm qr svd"
).split()

_QrResult = named("qr", "Q", "R")
_SvdResult = named("svd", "U", "S", "V")


def norm(input: Tensor, p: Any = "fro", dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The ``p``-norm of what lies along ``dim``, one vector also of two dimensions, as ``torch.norm``.

    Args:
        input: floating point, any shape.
        p: a number; "fro" (or None) for 2; "nuc" for the sum of the singular values of matrices.
        dim: all dimensions without it.
        keepdim: keep them with length 1.
        dtype: compute in this floating-point dtype.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: integers, another ``p``, or a "nuc" of other than two dimensions.
    """
    _refuse_others("norm", input=input)
    dims = None if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if p == "nuc":
        axes = tuple(range(input.ndim)) if dims is None else dims
        if len(axes) != 2:
            raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {axes}")
        return matrix_norm.matrix_norm(input, "nuc", (axes[0], axes[1]), keepdim, dtype=dtype)
    if isinstance(p, str) and p != "fro":
        raise RuntimeError(f"linalg.matrix_norm: Order {p} not supported.")
    if p == "fro" and dims is not None and len(dims) > 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {dims}")
    return matrix_norm.vector_norm(input, 2 if p in ("fro", None) else p, dims, keepdim, dtype=dtype)


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """``linalg.cross`` along ``dim``, or along the first dimension of length 3."""
    _refuse_others("cross", input=input, other=other)
    if dim is None:
        if 3 not in input.shape:
            raise RuntimeError(f"no dimension of size 3 in input: its shape is {list(input.shape)}")
        dim = input.shape.index(3)
    return linalg.cross(input, other, dim=dim)


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """``linalg.cholesky``."""
    return decomposition.cholesky(input, upper=upper)


def qr(input: Tensor, some: bool = True) -> Named:
    """``linalg.qr`` in its mode "reduced", or "complete" if not ``some``."""
    return _QrResult(decomposition.qr(input, "reduced" if some else "complete"))


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Named:
    """U, S and V with ``input = U diag(S) V^T``, as ``torch.svd``: V is not transposed, unlike that of ``linalg.svd``.

    Args:
        input: (..., m, n).
        some: the first min(m, n) columns of U and V only.
        compute_uv: else U and V are zeros.
    """
    if compute_uv:
        U, S, Vh = decomposition.svd(input, full_matrices=not some)
        return _SvdResult((U, S, _adjoint(Vh)))
    S = decomposition.svdvals(input)
    *lead, rows, columns = input.shape
    U, V = (Tensor(np.zeros((*lead, n, n), input.dtype)) for n in (rows, columns))
    return _SvdResult((U, S, V))


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]:
    """``linalg.lu_factor`` that does not raise for singular matrices; with ``get_infos`` also what the factorization of
    each says (see ``linalg.lu_factor_ex``)."""
    factors = lu_factorization.lu_factor_ex(A, pivot=pivot)
    return tuple(factors) if get_infos else tuple(factors[:2])


def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """``linalg.lu_solve`` with the right-hand side first."""
    return lu_factorization.lu_solve(LU_data, LU_pivots, b)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of the elements of a vector, the highest first unless ``increasing``: (n) to (n, N).

    Args:
        x: numbers.
        N: how many powers, n without it.
        increasing: begin with the power 0.

    Raises:
        RuntimeError: ``x`` is not a vector, or ``N`` is negative.
    """
    _refuse_others("vander", x=x)
    if x.ndim != 1:
        raise RuntimeError(f"x must be a one-dimensional tensor. Got shape {list(x.shape)}")
    count = x.shape[0] if N is None else N
    if count < 0:
        raise RuntimeError(f"N must be non-negative. Got {N}")
    powers = linalg._powers(x, count)
    return powers if increasing else flip(powers, -1)

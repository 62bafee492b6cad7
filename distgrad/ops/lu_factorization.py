"""LU factorization, and what is solved with it.

NumPy keeps LAPACK's factors to itself, so ``kernels.lu`` computes them. The derivative is in the notes of PyTorch's
own, and follows from d(P^T A) = dL U + L dU: L^-1 P^T dA U^-1 = L^-1 dL + dU U^-1, a strictly lower and an upper
triangle.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.lu import lu_factor as kernel
from ..kernels.lu import permutation
from .decomposition import _check_info, _check_matrix, _eye, _trisolve
from .diagonals import _tril, _triu
from .linalg import _adjoint, _matmul, _refuse_others
from .return_types import Named, named
from .shape import _cat, _narrow
from .solver import _check_system

__all__ = [  # what distgrad itself offers
    "lu_unpack",
]

_LuResult = named("linalg_lu", "P", "L", "U")
_LuFactorResult = named("linalg_lu_factor", "LU", "pivots")
_LuFactorExResult = named("linalg_lu_factor_ex", "LU", "pivots", "info")


# P with A = P L U: column i has its 1 in the row that is number i after the exchanges.
_permutation_matrix: Primitive = define(
    "PermutationMatrix",
    lambda pivots, rows, dtype: np.swapaxes(_eye(rows, dtype)[permutation(pivots, rows)], -2, -1),
    ("pivots",),
)


def _split(LU: Any) -> tuple[Any, Any]:
    """The unit lower triangle (..., m, k) and the upper triangle (..., k, n) in what the kernel gives."""
    rows, columns = LU.shape[-2:]
    k, last = min(rows, columns), LU.ndim - 1
    L = _tril(_narrow(LU, dim=last, start=0, length=k), diagonal=-1) + np.eye(rows, k, dtype=LU.dtype)
    return L, _triu(_narrow(LU, dim=last - 1, start=0, length=k), diagonal=0)


def _lu_vjp(g: Any, LU: Any, pivots: Any) -> Any:
    """Of the leading square blocks P L^-T (tril(L^T gL - gU2 U2^T, -1) + triu(gU U^T - L2^T gL2)) U^-T, where L2 and U2
    are the rows of L and the columns of U beyond them, whose own gradients are solved for directly."""
    rows, columns = LU.shape[-2:]
    k, last = min(rows, columns), LU.ndim - 1
    L, U = _split(LU)
    gL = _tril(_narrow(g, dim=last, start=0, length=k), diagonal=-1)
    gU = _triu(_narrow(g, dim=last - 1, start=0, length=k), diagonal=0)

    def leading(x: Any, dim: int) -> Any:
        return _narrow(x, dim=dim, start=0, length=k)

    def rest(x: Any, dim: int) -> Any:
        return _narrow(x, dim=dim, start=k, length=x.shape[dim] - k)

    L1, U1 = leading(L, last - 1), leading(U, last)
    below = _matmul(_adjoint(L1), leading(gL, last - 1))
    above = _matmul(leading(gU, last), _adjoint(U1))
    if columns > k:
        below = below - _matmul(rest(gU, last), _adjoint(rest(U, last)))
    if rows > k:
        above = above - _matmul(_adjoint(rest(L, last - 1)), rest(gL, last - 1))
    core = _tril(below, diagonal=-1) + _triu(above, diagonal=0)
    out = _trisolve(_adjoint(L1), core, upper=True, unit=True)
    if rows > k:
        out = _cat(out, rest(gL, last - 1), dim=last - 1)
    # X U1^-T is (U1^-1 X^T)^T
    out = _adjoint(_trisolve(U1, _adjoint(out), upper=True, unit=False))
    if columns > k:
        out = _cat(out, _trisolve(_adjoint(L1), rest(gU, last), upper=True, unit=True), dim=last)
    return _matmul(_permutation_matrix(pivots, rows=rows, dtype=LU.dtype), out)


def _lu_forward(A: Array, check: str | None = None) -> tuple[Array, Array, Array]:
    LU, pivots, info = kernel(A)
    _check_info(check, info, _zero_on_diagonal)
    return LU, pivots, info


_lu: Primitive = define(
    "LinalgLuFactorEx",
    _lu_forward,
    ("A",),
    multiple=True,
    A=lambda g, output: None if g[0] is None else _lu_vjp(g[0], output[0], output[1]),
)


def _factors(name: str, A: Tensor, pivot: bool, check: bool) -> tuple[Tensor, Tensor, Tensor]:
    _check_matrix(name, A, square=False)
    if not pivot:
        raise RuntimeError(f"{name}: LU without pivoting is not implemented on the CPU")
    LU, pivots, info = _lu(A, check=f"torch.{name}" if check else None)
    return LU, pivots.detach(), info.detach()


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Named:
    """``lu_factor`` that does not raise for singular matrices: a triple with info, 0 or the first step whose pivot is
    zero, counted from 1. int32, (...). As ``torch.linalg.lu_factor_ex``."""
    return _LuFactorExResult(_factors("linalg.lu_factor_ex", A, pivot, check_errors))


def _zero_on_diagonal(step: int) -> str:
    return (
        f"U[{step},{step}] is zero and using it on lu_solve would result in a division by zero. If you still want to "
        "perform the factorization, consider calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)"
    )


def lu_factor(A: Tensor, *, pivot: bool = True) -> Named:
    """The factors of ``lu`` in one array, and the exchanges of rows, as ``torch.linalg.lu_factor``.

    Args:
        A: (..., m, n).
        pivot: whether to exchange rows; always.

    Returns:
        LU (..., m, n): U in the upper triangle, L without its ones below it; pivots, int32 (..., min(m, n)): for each
        step the row that was exchanged with it, counted from 1.

    Raises:
        LinAlgError: a zero on the diagonal of U.
        RuntimeError: ``A`` is not a batch of matrices in float32 or float64.
    """
    return _LuFactorResult(_factors("linalg.lu_factor", A, pivot, True)[:2])


def lu(A: Tensor, *, pivot: bool = True) -> Named:
    """A permutation matrix P, a unit lower triangle L and an upper triangle U with A = P L U, as ``torch.linalg.lu``.

    Args:
        A: (..., m, n); with k = min(m, n),
        pivot: whether to exchange rows for the largest pivots; always.

    Returns:
        P (..., m, m), L (..., m, k), U (..., k, n).

    Raises:
        RuntimeError: ``A`` is not a batch of matrices in float32 or float64.
    """
    LU, pivots, _ = _factors("linalg.lu", A, pivot, False)
    return lu_unpack(LU, pivots)


def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Named:
    """P, L and U of what ``lu_factor`` gives, as ``torch.lu_unpack``; empty tensors for those that are not asked for.

    Raises:
        RuntimeError: pivots that are not int32.
    """
    _refuse_others("lu_unpack", LU_data=LU_data, LU_pivots=LU_pivots)
    if LU_pivots.dtype != np.int32:
        raise RuntimeError(
            f"torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype, not "
            f"{LU_pivots.dtype}. Use the output of linalg.lu_factor"
        )
    nothing = Tensor(np.zeros(0, LU_data.dtype))
    rows = LU_data.shape[-2]
    P = _permutation_matrix(LU_pivots, rows=rows, dtype=LU_data.dtype) if unpack_pivots else nothing
    L, U = _split(LU_data) if unpack_data else (nothing, nothing)
    return _LuResult((P, L, U))


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X in ``A X = B`` by the factors that ``lu_factor`` found of A, as ``torch.linalg.lu_solve``.

    Args:
        LU: (..., n, n).
        pivots: int32 (..., n).
        B: (..., n, k). Batches broadcast.
        left: else solve ``X A = B``, for ``B`` (..., k, n).
        adjoint: with the transpose of A instead.

    Raises:
        RuntimeError: dimensions or dtypes that do not fit.
    """
    _refuse_others("linalg_lu_solve", LU=LU, pivots=pivots, B=B)
    _check_matrix("linalg.lu_solve", LU)
    if pivots.dtype != np.int32:
        raise RuntimeError(f"linalg.lu_solve: pivots should be a Tensor of scalar type torch.int32, not {pivots.dtype}")
    if tuple(pivots.shape) != tuple(LU.shape[:-1]):
        raise RuntimeError(
            "linalg.lu_solve: Number of pivots per batch should be same as the dimension of the matrix: "
            f"{list(pivots.shape)} for {list(LU.shape)}"
        )
    _check_system("linalg.lu_solve", LU, B, left)
    if not left:  # X A = B is A^T X^T = B^T
        transposed: Tensor = _adjoint(lu_solve(LU, pivots, _adjoint(B), adjoint=not adjoint))
        return transposed
    P = _permutation_matrix(pivots, rows=LU.shape[-1], dtype=LU.dtype)
    if adjoint:  # A^T = U^T L^T P^T
        half = _trisolve(_adjoint(LU), B, upper=False, unit=False)
        out: Tensor = _matmul(P, _trisolve(_adjoint(LU), half, upper=True, unit=True))
        return out
    half = _trisolve(LU, _matmul(_adjoint(P), B), upper=False, unit=True)
    solved: Tensor = _trisolve(LU, half, upper=True, unit=False)
    return solved

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg

from distgrad.ops import decomposition, lu_factorization

from .decomposition import ONLY_WIDE, batched, refused, regular
from .linalg import NO_SCALAR_MATRIX, in_torch_linalg, together
from .row import Op, Sample, Samples, Wrong
from .solver import MISFITS, SINGULAR, solved


def factors(A: Any) -> Any:
    """SciPy's P, L and U of each matrix."""
    rows, columns = A.shape[-2:]
    k = min(rows, columns)
    shapes = (rows, rows), (rows, k), (k, columns)
    P, L, U = (np.zeros((*A.shape[:-2], *shape)) for shape in shapes)
    for place in np.ndindex(A.shape[:-2]):
        if k:
            P[place], L[place], U[place] = scipy.linalg.lu(A[place])
    return P, L, U


def compact(A: Any) -> Any:
    """SciPy's two triangles in one array, and the rows that were exchanged, counted from 1."""
    k = min(A.shape[-2:])
    LU, pivots = np.zeros(A.shape), np.zeros((*A.shape[:-2], k), np.int32)
    for place in np.ndindex(A.shape[:-2]):
        if k:
            LU[place], found = scipy.linalg.lu_factor(A[place])
            pivots[place] = found + 1
    return LU, pivots


def differentiable_factors(function: Callable[..., Any]) -> Callable[..., Any]:
    """L and U; P has no gradient."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)[1:]

    return wrapped


def first(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)[0]

    return wrapped


def factored(*cases: tuple[tuple[int, ...], tuple[int, ...]], **keywords: Any) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size, other in cases:
            LU, pivots = compact(rng.standard_normal(size) + 3 * np.eye(size[-1])[::-1])
            yield Sample(LU, pivots, rng.standard_normal(other), **keywords)

    return samples


def by_factors(LU: Any, pivots: Any, B: Any, left: bool = True, adjoint: bool = False) -> Any:
    A = product_of(LU, pivots)
    return solved(np.swapaxes(A, -2, -1) if adjoint else A, B, left)


@batched("(n,n),(n)->(n,n)")
def product_of(LU: Any, pivots: Any) -> Any:
    """The matrix that the factors are of: the exchanges taken back, last first."""
    A = (np.tril(LU, -1) + np.eye(len(LU))) @ np.triu(LU)
    for k in reversed(range(len(LU))):
        other = int(pivots[k]) - 1
        A[[k, other]] = A[[other, k]]
    return A


def unpacked(rng: np.random.Generator) -> Iterator[Sample]:
    for size in ((3, 3), (2, 3, 2), (2, 3), (0, 2)):
        yield Sample(*compact(rng.standard_normal(size)))


def triangles(LU: Any, pivots: Any) -> Any:
    rows, columns = LU.shape[-2:]
    k = min(rows, columns)
    return np.tril(LU, -1)[..., :k] + np.eye(rows, k), np.triu(LU)[..., :k, :]


SHAPES = ((2, 3, 3), (1, 2, 3), (1, 3, 2), (2, 1, 2, 2), (2, 3, 1), (1, 1), (0, 3), (3, 0), (0, 2, 2))
PIVOTS = np.array([1, 2], np.int32)

ROWS = [
    Op(
        differentiable_factors(lu_factorization.lu),
        lambda A: factors(A)[1:],
        regular(*SHAPES, (3, 3), (4, 2), (2, 4)),
        (
            *refused("linalg.lu", square=False),
            Wrong(RuntimeError, "LU without pivoting is not implemented", np.eye(2), pivot=False),
        ),
        ("LinalgLuFactorEx",),
        torch=lambda torch, A: differentiable_factors(torch.linalg.lu)(A),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 5e-5),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same U is singular"},
    ),
    Op(
        lu_factorization.lu_factor,
        compact,
        regular(*SHAPES),
        (
            *refused("linalg.lu_factor", square=False),
            Wrong(decomposition.LinAlgError, r"lu_factor: \(Batch element 1\): U\[2,2\] is zero", SINGULAR),
            Wrong(RuntimeError, "LU without pivoting is not implemented", np.eye(2), pivot=False),
        ),
        ("LinalgLuFactorEx",),
        torch=in_torch_linalg("lu_factor"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 5e-5),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same U is singular"},
    ),
    Op(
        lu_factorization.lu_factor_ex,
        lambda A: (*compact(A), np.zeros(A.shape[:-2], np.int32)),
        regular(*SHAPES),
        (
            *refused("linalg.lu_factor_ex", square=False),
            Wrong(decomposition.LinAlgError, "lu_factor_ex: .Batch element 1.", SINGULAR, check_errors=True),
        ),
        ("LinalgLuFactorEx",),
        torch=in_torch_linalg("lu_factor_ex"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 5e-5),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same U is singular"},
    ),
    Op(
        differentiable_factors(lu_factorization.lu_unpack),
        triangles,
        unpacked,
        (
            Wrong(RuntimeError, "torch.int32 dtype, not int64", np.eye(2), PIVOTS.astype(np.int64)),
            Wrong(TypeError, "'LU_pivots' .position 2. must be Tensor", np.eye(2), 3),
        ),
        ("Tril", "Triu"),
        torch=lambda torch, *args: differentiable_factors(torch.lu_unpack)(*args),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        lu_factorization.lu_solve,
        by_factors,
        together(
            factored(((3, 3), (3, 2)), ((2, 3, 3), (2, 3, 1)), ((1, 1), (2, 1, 2)), ((0, 0), (0, 2))),
            factored(((2, 2), (2, 3)), ((2, 2, 2), (2, 1)), adjoint=True),
            factored(((2, 2), (3, 2)), left=False),
            factored(((2, 2), (3, 2)), left=False, adjoint=True),
        ),
        (
            *(
                Wrong(w.error, w.match, w.args[0], np.ones((*w.args[0].shape[:-1],), np.int32), *w.args[1:], **w.kwargs)
                for w in MISFITS
            ),
            Wrong(RuntimeError, "scalar type torch.int32, not int64", np.eye(2), np.ones(2, int), np.zeros((2, 1))),
            Wrong(RuntimeError, "Number of pivots per batch", np.eye(2), np.ones(1, np.int32), np.zeros((2, 1))),
            Wrong(RuntimeError, "at least 2 dimensions", np.eye(2), PIVOTS, np.zeros(2)),
            Wrong(RuntimeError, "they are 2 by 3", np.zeros((2, 3)), PIVOTS, np.zeros(2)),
        ),
        ("LinalgSolveTriangular", "PermutationMatrix"),
        torch=in_torch_linalg("lu_solve"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-11, 1e-4),
        lacks={**NO_SCALAR_MATRIX, "layouts": "repeated pivots are of another matrix"},
    ),
]
FAMILY = lu_factorization
EXEMPT: list[Any] = []

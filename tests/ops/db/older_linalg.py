from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import decomposition, older_linalg

from .decomposition import (
    NAN,
    ONLY_WIDE,
    SQUARE,
    TOO_FEW,
    distinct,
    factor,
    invariant,
    of_symmetric,
    orthogonal,
    positive,
    refused,
    regular,
    singular_values,
    symmetric_part,
)
from .linalg import NO_SCALAR_MATRIX, ONE_DTYPE, cross_of_rows, shapes, together
from .lu_factorization import by_factors, compact, factored
from .matrix_norm import NUMBERS, of_matrices, of_vectors
from .row import Op, Sample, Samples, Wrong


def flattened(x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if p == "nuc":
        return of_matrices(x, p, (-2, -1) if dim is None else dim, keepdim)
    return of_vectors(x, 2 if p in ("fro", None) else p, dim, keepdim)


def first_of_three(a: Any, b: Any, dim: Any = None) -> Any:
    return cross_of_rows(a, b, a.shape.index(3) if dim is None else dim)


def invariant_svd(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        U, S, V = function(*args, **kwargs)
        return invariant(U, S, V.transpose(-2, -1))

    return wrapped


def second(samples: Samples) -> Samples:
    """The last argument first."""

    def moved(rng: np.random.Generator) -> Iterator[Sample]:
        for sample in samples(rng):
            yield Sample(sample.args[-1], *sample.args[:-1])

    return moved


def vectors_of(*cases: Any) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for n, keywords in cases:
            yield Sample(rng.standard_normal(n), **keywords)
        yield Sample(np.array([2, -1, 3]))
        yield Sample(np.array([True, False]))
        yield Sample(np.zeros(0, int))

    return samples


def decreasing(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    x = x.astype(np.int64) if x.dtype == bool else x
    count = len(x) if N is None else N
    columns = [x**k for k in (range(count) if increasing else reversed(range(count)))]
    return np.stack(columns, axis=-1) if columns else np.zeros((len(x), 0), x.dtype)


def vander_in_torch(torch: Any, x: Any, N: int | None, increasing: bool) -> Any:
    if not x.requires_grad or not len(x):
        return torch.vander(x, N, increasing)
    powers = torch.linalg.vander(x, N=N)
    return powers if increasing else powers.flip(-1)


INF = math.inf

ROWS = [
    Op(
        older_linalg.norm,
        flattened,
        together(
            shapes(((2, 3, 2),), ((3,),), ((),), ((0, 2),)),
            *(shapes(((2, 3),), p=p) for p in (*NUMBERS, "fro", None)),
            *(shapes(((2, 3),), p=p, dim=1) for p in (3, INF, "fro", None)),
            shapes(((2, 3, 2),), p=1, dim=(0, 1)),
            shapes(((2, 3, 2),), dim=(0, 1), keepdim=True),
            distinct((2, 3), p="nuc"),
            distinct((2, 3, 2), p="nuc", dim=(0, 2), keepdim=True),
            shapes(((2, 3),), p=1, dtype=np.dtype("float64")),
        ),
        (
            Wrong(TypeError, "argument 'input' .* must be Tensor, not int", 3),
            Wrong(RuntimeError, "Got int64", np.ones(3, int)),
            Wrong(RuntimeError, "dim must be a 2-tuple. Got .0, 1, 2.", np.zeros((2, 2, 2)), "nuc"),
            Wrong(RuntimeError, "dim must be a 2-tuple. Got .0, 1, 2.", np.zeros((2, 2, 2)), "fro", (0, 1, 2)),
            Wrong(RuntimeError, "Order x not supported", np.zeros(3), "x"),
        ),
        ("PNorm", "LinalgSvd"),
        dtypes="only floating",
        tolerance=(1e-11, 1e-4),
    ),
    Op(
        older_linalg.cross,
        first_of_three,
        together(
            shapes(((3,), (3,)), ((2, 3), (2, 3)), ((3, 3), (3, 3)), ((2, 3, 2), (1, 3, 2)), ((0, 3), (0, 3))),
            shapes(((3, 3), (3, 3)), dim=1),
        ),
        (
            Wrong(RuntimeError, "no dimension of size 3 in input: its shape is .2.", np.zeros(2), np.zeros(2)),
            Wrong(RuntimeError, "must have length 3", np.zeros((3, 2)), np.zeros((3, 2)), 1),
        ),
        ("LinalgCross",),
        # PyTorch warns where no dimension is given
        torch=lambda torch, a, b, dim=None: torch.cross(a, b, dim=list(a.shape).index(3) if dim is None else dim),
        dtypes=ONE_DTYPE,
        lacks={"0-d": "vectors of three elements only: an error"},
    ),
    Op(
        of_symmetric(older_linalg.cholesky),
        of_symmetric(factor),
        together(positive(*SQUARE), positive((2, 3, 3), upper=True)),
        (
            *refused("linalg.cholesky")[1:],
            Wrong(decomposition.LinAlgError, "linalg.cholesky: .Batch element 1.: .* not positive-definite", TOO_FEW),
        ),
        ("LinalgCholeskyEx",),
        # PyTorch warns that it will go
        torch=lambda torch, A, upper=False: torch.linalg.cholesky(symmetric_part(A), upper=upper),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        older_linalg.qr,
        lambda A, some=True: orthogonal(A, "reduced" if some else "complete"),
        together(regular((3, 2), (2, 3), (2, 3, 2), (1, 1), (0, 3)), regular((2, 3), some=False)),
        refused("linalg.qr", square=False)[1:],
        ("LinalgQr",),
        torch=lambda torch, A, some=True: torch.linalg.qr(A, "reduced" if some else "complete"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 1e-4),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        invariant_svd(older_linalg.svd),
        lambda A, some=True: invariant(*singular_values(A)),
        together(distinct((3, 2), (2, 3), (2, 3, 2), (1, 1), (0, 3)), distinct((3, 2), some=False)),
        (
            *refused("linalg.svd", square=False)[1:],
            Wrong(decomposition.LinAlgError, "contained non-finite values", NAN),
        ),
        ("LinalgSvd", "Permute"),
        torch=lambda torch, *args, **kwargs: invariant_svd(torch.svd)(*args, **kwargs),
        dtypes=ONLY_WIDE,
        tolerance=(1e-11, 1e-4),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same the vectors are not determined"},
    ),
    Op(
        older_linalg.lu,
        lambda A, get_infos=False: (*compact(A), *((np.zeros(A.shape[:-2], np.int32),) if get_infos else ())),
        together(regular((2, 3, 3), (1, 1), (2, 3, 2), (0, 3)), regular((2, 2), get_infos=True)),
        (
            *refused("linalg.lu_factor_ex", square=False)[1:],
            Wrong(RuntimeError, "without pivoting", np.eye(2), pivot=False),
        ),
        ("LinalgLuFactorEx",),
        # PyTorch warns that it will go
        torch=lambda torch, A, get_infos=False: torch.linalg.lu_factor_ex(A)[: 3 if get_infos else 2],
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 5e-5),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same U is singular"},
    ),
    Op(
        older_linalg.lu_solve,
        lambda b, LU, pivots: by_factors(LU, pivots, b),
        second(factored(((3, 3), (3, 2)), ((2, 3, 3), (2, 3, 1)), ((0, 0), (0, 2)))),
        (Wrong(RuntimeError, "scalar type torch.int32, not int64", np.zeros((2, 1)), np.eye(2), np.ones(2, int)),),
        ("LinalgSolveTriangular",),
        torch=lambda torch, b, LU, pivots: torch.linalg.lu_solve(LU, pivots, b),
        dtypes=ONLY_WIDE,
        tolerance=(1e-11, 1e-4),
        lacks={**NO_SCALAR_MATRIX, "layouts": "repeated pivots are of another matrix"},
    ),
    Op(
        older_linalg.vander,
        decreasing,
        vectors_of(
            (3, {}),
            (2, {"N": 4}),
            (3, {"N": 2, "increasing": True}),
        ),
        (
            Wrong(RuntimeError, "x must be a one-dimensional tensor", np.zeros((2, 2))),
            Wrong(RuntimeError, "N must be non-negative. Got -1", np.zeros(2), -1),
        ),
        ("Pow", "Flip"),
        # PyTorch's own function raises in its backward pass
        torch=lambda torch, x, N=None, increasing=False: vander_in_torch(torch, x, N, increasing),
        dtypes="bools and integers give int64",
        lacks={"0-d": "vectors only: an error"},
    ),
]
FAMILY = older_linalg
EXEMPT: list[Any] = []

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg

from distgrad.ops import decomposition, solver

from .decomposition import NAN, ONLY_WIDE, SQUARE, batched, in_torch, refused, regular
from .linalg import NO_SCALAR_MATRIX, in_torch_linalg, product, together
from .row import Op, Sample, Samples, Wrong

SINGULAR = np.stack([np.eye(2), np.ones((2, 2))])


@batched("(n,n)->(n,n)")
def eliminated(A: Any) -> Any:
    """Gauss and Jordan: the rows that turn A into the identity turn the identity into its inverse."""
    n = len(A)
    table = np.concatenate([A, np.eye(n)], axis=1)
    for k in range(n):
        best = k + np.argmax(np.abs(table[k:, k]))
        table[[k, best]] = table[[best, k]]
        table[k] /= table[k, k]
        for i in range(n):
            if i != k:
                table[i] -= table[i, k] * table[k]
    return table[:, n:]


def solved(A: Any, B: Any, left: bool = True) -> Any:
    vector = B.ndim == 1 or (A.ndim - 1 == B.ndim and B.shape == A.shape[:-1])
    B = B[..., None] if vector else B
    X = product(eliminated(A), B) if left else product(B, eliminated(A))
    return X[..., 0] if vector else X


def no_info(function: Callable[..., Any]) -> Callable[..., Any]:
    def both(A: Any, *args: Any, **kwargs: Any) -> Any:
        return function(A, *args, **kwargs), np.zeros(A.shape[:-2], np.int32)

    return both


def systems(*cases: tuple[tuple[int, ...], tuple[int, ...]], **keywords: Any) -> Samples:
    """A matrix far from singular and a right-hand side for each case."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size, other in cases:
            A = rng.standard_normal(size) + 2 * size[-1] * np.eye(size[-1])
            yield Sample(A, rng.standard_normal(other), **keywords)

    return samples


# The first two dimensions that may be repeated in memory are never the rows of a matrix of more than one.
SYSTEMS = systems(
    ((2, 3, 3), (2, 3, 2)),
    ((2, 3, 3), (3, 2)),
    ((1, 2, 2), (2, 2, 1)),
    ((2, 1, 2, 2), (3, 2, 1)),
    ((1, 1), (2, 1, 3)),
    ((0, 0), (0, 2)),
    ((1, 2, 2), (2, 0)),
    ((0, 2, 2), (0, 2, 1)),
)
VECTORS = systems(((1, 1), (1,)), ((2, 3, 3), (3,)), ((2, 3, 3), (2, 3)), ((1, 2, 2), (1, 2)))
RIGHT = systems(((2, 3, 3), (4, 3)), ((1, 2, 2), (2, 1, 2)), ((0, 2, 2), (3, 2)), left=False)
MISFITS = (
    Wrong(RuntimeError, r"equation AX = B \(2x2 and 3x2\)", np.eye(2), np.zeros((3, 2))),
    Wrong(RuntimeError, r"equation XA = B \(2x2 and 2x3\)", np.eye(2), np.zeros((2, 3)), left=False),
    Wrong(RuntimeError, "A of type float64 and B of type int64", np.eye(2), np.ones((2, 1), int)),
    Wrong(RuntimeError, "do not broadcast", np.zeros((3, 2, 2)), np.zeros((4, 2, 1))),
)


def takes(name: str) -> tuple[Wrong, ...]:
    """``refused`` of the first of two arguments."""
    return tuple(Wrong(w.error, w.match, *w.args, np.zeros(2)) for w in refused(name) if not isinstance(w.args[0], int))


def substituted(A: Any, B: Any, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    triangle = np.triu(A) if upper else np.tril(A)
    if unitriangular:
        n = A.shape[-1]
        triangle = triangle * (1 - np.eye(n)) + np.eye(n)
    return solved(triangle, B, left)


def by_factor(B: Any, L: Any, upper: bool = False) -> Any:
    Lt = np.swapaxes(L, -2, -1)
    A = product(np.swapaxes(np.triu(L), -2, -1), np.triu(L)) if upper else product(np.tril(L), np.triu(Lt))
    return solved(A, B)


def factored_inverse(L: Any, upper: bool = False) -> Any:
    return by_factor(np.broadcast_to(np.eye(L.shape[-1]), L.shape), L, upper)


def of_triangle(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of the triangle of its last argument that it reads: PyTorch's gradient counts the other one too."""

    @functools.wraps(function)
    def wrapped(*args: Any, upper: bool = False) -> Any:
        *first, L = args
        if L.ndim > 1 and L.shape[-1] == L.shape[-2]:
            L = L.triu() if upper else L.tril()
        return function(*first, L, upper=upper)

    return wrapped


def swapped(samples: Samples) -> Samples:
    def other(rng: np.random.Generator) -> Iterator[Sample]:
        for sample in samples(rng):
            yield Sample(sample.args[1], sample.args[0], **sample.kwargs)

    return other


@batched("(m,n)->(n,m)")
def pseudoinverse(A: Any) -> Any:
    """By the normal equations; of matrices of full rank."""
    rows, columns = A.shape
    return eliminated(A.T @ A) @ A.T if rows >= columns else A.T @ eliminated(A @ A.T)


def of_low_rank(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 3, 1)), rng.standard_normal((1, 2)))


def through_product(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of a product of thin matrices, whose rank stays when its factors change."""

    @functools.wraps(function)
    def of_factors(a: Any, b: Any, **kwargs: Any) -> Any:
        return function(a @ b, **kwargs)

    return of_factors


@batched("(m,n)->(n,m)")
def scipy_pinv(A: Any) -> Any:
    return scipy.linalg.pinv(A)


def symmetrical(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(A: Any, *args: Any, **kwargs: Any) -> Any:
        At = np.swapaxes(A, -2, -1) if isinstance(A, np.ndarray) else A.transpose(-2, -1)
        return function((A + At) * 0.5, *args, **kwargs)

    return wrapped


def least_squares(A: Any, B: Any, rcond: Any = None, driver: str = "gelsy") -> Any:
    vector = A.ndim - 1 == B.ndim
    right = B[..., None] if vector else B
    X = product(pseudoinverse(A), right)
    solution = X[..., 0] if vector else X
    if driver == "gelsy" or A.shape[-2] <= A.shape[-1]:
        return solution
    return solution, ((product(A, X) - right) ** 2).sum(axis=-2)


def differentiable_parts(function: Callable[..., Any]) -> Callable[..., Any]:
    """The solution, and the residuals where there are some; the rest has no gradient."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        solution, residuals, _, _ = function(*args, **kwargs)
        return (solution, residuals) if residuals.shape != (0,) else solution

    return wrapped


def tall(*cases: tuple[tuple[int, ...], tuple[int, ...]], **keywords: Any) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size, other in cases:
            A = rng.standard_normal(size) + 3 * np.eye(*size[-2:])
            yield Sample(A, rng.standard_normal(other), **keywords)

    return samples


def cubes(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((6, 6)).reshape(2, 3, 6) + 4 * np.eye(6).reshape(2, 3, 6))
    yield Sample(rng.standard_normal((6, 6)).reshape(6, 3, 2) + 4 * np.eye(6).reshape(6, 3, 2), ind=1)
    yield Sample(np.zeros((0, 2, 0)), ind=1)


def tensor_systems(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(
        rng.standard_normal((6, 6)).reshape(2, 3, 6) + 4 * np.eye(6).reshape(2, 3, 6), rng.standard_normal((2, 3))
    )
    A = rng.standard_normal((6, 6)).reshape(6, 2, 3) + 4 * np.eye(6).reshape(6, 2, 3)
    yield Sample(A, rng.standard_normal((2, 3)), dims=(0,))
    yield Sample(np.zeros((0, 0)), np.zeros(0))


def tensor_solved(A: Any, B: Any, dims: Any = None) -> Any:
    if dims:
        A = np.moveaxis(A, dims, range(A.ndim - len(dims), A.ndim))
    last = A.shape[B.ndim :]
    return solved(A.reshape(B.size, B.size), B.reshape(-1)).reshape(last)


def tensor_inverse(A: Any, ind: int = 2) -> Any:
    n = int(np.prod(A.shape[:ind]))
    return eliminated(A.reshape(n, n)).reshape(A.shape[ind:] + A.shape[:ind])


NO_LAYOUTS = {"layouts": "of rows that are all the same there is no inverse"}

ROWS = [
    *(
        Op(
            function,
            eliminated,
            regular(*SQUARE),
            (
                *refused("linalg.inv")[1:],
                Wrong(
                    decomposition.LinAlgError,
                    r"linalg.inv: \(Batch element 1\): The diagonal element 2 is zero, .* the input matrix is singular",
                    SINGULAR,
                ),
                Wrong(decomposition.LinAlgError, "linalg.inv: The diagonal element 1 is zero", np.zeros((2, 2))),
            ),
            ("LinalgInvEx",),
            torch=in_torch_linalg("inv"),
            dtypes=ONLY_WIDE,
            lacks=NO_SCALAR_MATRIX,
        )
        for function in (solver.inv, solver.inverse)
    ),
    Op(
        solver.inv_ex,
        no_info(eliminated),
        regular(*SQUARE),
        (
            *refused("linalg.inv"),
            Wrong(decomposition.LinAlgError, "linalg.inv_ex: .Batch element 1.", SINGULAR, check_errors=True),
        ),
        ("LinalgInvEx",),
        torch=in_torch_linalg("inv_ex"),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        solver.pinv,
        lambda A, **tolerances: pseudoinverse(A),
        together(
            regular((3, 2), (2, 3), (3, 3), (2, 3, 2), (1, 1), (0, 3), (3, 0), (0, 2, 2)),
            regular((2, 3, 2), rcond=1e-3),
            regular((2, 3, 2), atol=1e-3, rtol=1e-4),
        ),
        (
            *refused("linalg.pinv", square=False),
            Wrong(decomposition.LinAlgError, "linalg.svd: .* contained non-finite values", NAN),
            Wrong(RuntimeError, "square matrices, but they are 2 by 3", np.zeros((2, 3)), hermitian=True),
            Wrong(RuntimeError, r"rtol \[3\] does not broadcast to the batch \[2\]", SINGULAR, rtol=np.zeros(3)),
            Wrong(TypeError, "'atol' must be Tensor or Number, not str", np.eye(2), atol="x"),
        ),
        ("LinalgPinv",),
        torch=in_torch_linalg("pinv"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 5e-5),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        through_product(solver.pinv),
        lambda a, b: scipy_pinv(a @ b),
        of_low_rank,
        (Wrong(RuntimeError, "Low precision", *(np.ones((2, 2), np.float16) for _ in range(2))),),
        ("LinalgPinv",),
        name="pinv of low rank",
        torch=in_torch("pinv", through_product),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 5e-5),
        lacks={**NO_SCALAR_MATRIX, "empty": "in the row of pinv"},
    ),
    Op(
        symmetrical(solver.pinv),
        lambda A, hermitian: pseudoinverse((A + np.swapaxes(A, -2, -1)) / 2),
        regular(*SQUARE, hermitian=True),
        (Wrong(RuntimeError, "Low precision", np.ones((2, 2), np.float16)),),
        ("LinalgPinv",),
        name="pinv of symmetric matrices",
        torch=in_torch("pinv", symmetrical),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 5e-5),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        solver.pinverse,
        lambda A, rcond=1e-15: pseudoinverse(A),
        together(regular((3, 2), (2, 3, 2), (1, 1), (0, 3)), regular((2, 3), rcond=1e-3)),
        refused("linalg.pinv", square=False)[1:],
        ("LinalgPinv",),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 5e-5),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        solver.solve,
        solved,
        together(SYSTEMS, VECTORS, RIGHT),
        (
            *takes("linalg.solve"),
            *MISFITS,
            Wrong(
                decomposition.LinAlgError,
                r"torch.linalg.solve: \(Batch element 1\): The solver failed because the input matrix is singular",
                SINGULAR,
                np.zeros(2),
            ),
            Wrong(TypeError, "argument 'B' .position 2. must be Tensor, not int", np.eye(2), 3),
            Wrong(RuntimeError, "B must have at least 2 dimensions", np.eye(2), np.zeros(())),
        ),
        ("LinalgSolveEx",),
        torch=in_torch_linalg("solve"),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        solver.solve_ex,
        no_info(solved),
        together(SYSTEMS, VECTORS),
        (
            *MISFITS,
            Wrong(decomposition.LinAlgError, "torch.linalg.solve_ex: ", SINGULAR, np.zeros(2), check_errors=True),
        ),
        ("LinalgSolveEx",),
        torch=in_torch_linalg("solve_ex"),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        solver.solve_triangular,
        substituted,
        together(
            *(
                systems(
                    ((3, 3), (3, 2)),
                    ((2, 3, 3), (3, 1)),
                    ((2, 2), (2, 2, 1)),
                    ((1, 1), (1, 3)),
                    ((0, 0), (0, 2)),
                    upper=upper,
                    unitriangular=unit,
                )
                for upper in (False, True)
                for unit in (False, True)
            ),
            systems(((2, 3, 3), (4, 3)), ((0, 2, 2), (3, 2)), upper=True, left=False),
            systems(((3, 3), (2, 3)), upper=False, left=False, unitriangular=True),
        ),
        tuple(
            Wrong(w.error, w.match, *w.args, **{"upper": True, **w.kwargs})
            for w in (
                *takes("linalg.solve_triangular"),
                *MISFITS,
                Wrong(RuntimeError, "B must have at least 2 dimensions", np.eye(2), np.zeros(2)),
            )
        ),
        ("LinalgSolveTriangular",),
        torch=in_torch_linalg("solve_triangular"),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        of_triangle(solver.cholesky_solve),
        by_factor,
        together(
            swapped(systems(((2, 2), (2, 3)), ((2, 3, 3), (3, 1)), ((1, 1), (2, 1, 2)), ((0, 0), (0, 2)))),
            swapped(systems(((2, 3, 3), (3, 1)), ((2, 2), (2, 2)), upper=True)),
        ),
        (
            Wrong(RuntimeError, r"AX = B \(2x2 and 3x3\)", np.zeros((3, 3)), np.eye(2)),
            Wrong(RuntimeError, "at least 2 dimensions", np.zeros(2), np.eye(2)),
            Wrong(RuntimeError, "square matrices, but they are 2 by 3", np.zeros((2, 2)), np.zeros((2, 3))),
            Wrong(RuntimeError, "A of type float64 and B of type int64", np.zeros((2, 2), int), np.eye(2)),
        ),
        ("LinalgSolveTriangular",),
        torch=lambda torch, *args, **kwargs: of_triangle(torch.cholesky_solve)(*args, **kwargs),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        of_triangle(solver.cholesky_inverse),
        factored_inverse,
        together(regular(*SQUARE, (3, 3)), regular((2, 2, 2), (3, 3), upper=True)),
        refused("cholesky_inverse")[1:],
        ("LinalgSolveTriangular", "Matmul"),
        torch=lambda torch, *args, **kwargs: of_triangle(torch.cholesky_inverse)(*args, **kwargs),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        differentiable_parts(solver.lstsq),
        least_squares,
        together(
            tall(
                ((4, 2), (4, 3)),
                ((2, 3), (2, 2)),
                ((3, 3), (3, 1)),
                ((4, 2), (4,)),
                ((2, 4, 2), (2, 4)),
                ((2, 4, 2), (2, 4, 1)),
                ((2, 1, 3, 2), (2, 1, 3, 2)),
                ((0, 2), (0, 3)),
                ((3, 0), (3, 2)),
            ),
            *(tall(((4, 2), (4, 3)), ((2, 4, 2), (2, 4, 1)), ((3, 3), (3, 2)), driver=d) for d in ("gels", "gelsd")),
            tall(((4, 2), (4, 3)), driver="gelss"),
        ),
        (
            *(
                Wrong(w.error, w.match, *w.args, np.zeros((2, 1)))
                for w in refused("torch.linalg.lstsq", square=False)
                if not isinstance(w.args[0], int)
            ),
            Wrong(RuntimeError, "should be one of .gels, gelsy,", np.eye(2), np.zeros((2, 1)), driver="x"),
            Wrong(RuntimeError, "input.size.-2. should match other.size.-2.", np.zeros((4, 2)), np.zeros((3, 1))),
            Wrong(RuntimeError, "input's dtype float64 and other's dtype int64", np.eye(2), np.ones((2, 1), int)),
            Wrong(RuntimeError, "do not broadcast", np.zeros((3, 4, 2)), np.zeros((2, 4, 1))),
        ),
        ("LinalgLstsq", "LinalgPinv"),
        torch=in_torch("lstsq", differentiable_parts),
        dtypes=ONLY_WIDE,
        tolerance=(1e-11, 5e-5),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same the rank is one"},
    ),
    Op(
        solver.tensorinv,
        tensor_inverse,
        cubes,
        (
            Wrong(RuntimeError, r"prod\(self.shape\[ind:\]\).* but got 6 != 4", np.zeros((4, 6)), ind=1),
            Wrong(RuntimeError, "strictly positive integer for 'ind', but got 0", np.eye(2), 0),
        ),
        ("LinalgInvEx", "View"),
        torch=in_torch_linalg("tensorinv"),
        dtypes=ONLY_WIDE,
        lacks={**NO_SCALAR_MATRIX, **NO_LAYOUTS},
    ),
    Op(
        solver.tensorsolve,
        tensor_solved,
        tensor_systems,
        (Wrong(RuntimeError, "but got 5 != 6", np.zeros((2, 3, 5)), np.zeros((2, 3))),),
        ("LinalgSolveEx", "View"),
        torch=in_torch_linalg("tensorsolve"),
        dtypes=ONLY_WIDE,
        lacks={**NO_SCALAR_MATRIX, **NO_LAYOUTS},
    ),
]
FAMILY = solver
EXEMPT: list[Any] = []

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import decomposition

from .linalg import NO_SCALAR_MATRIX, in_torch_linalg, shapes, together
from .row import Exempt, Op, Sample, Samples, Wrong

# Of repeated rows no inverse exists: the matrices whose first two are the same are those of a batch, or 1 x 1.
SQUARE = ((1, 1), (2, 3, 3), (1, 2, 2), (2, 1, 2, 2), (0, 0), (0, 2, 2), (2, 0, 0))


def regular(*sizes: tuple[int, ...], **keywords: Any) -> Samples:
    """Matrices far from singular."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size in sizes:
            n = min(size[-2:])
            yield Sample(rng.standard_normal(size) + 2 * n * np.eye(*size[-2:]), **keywords)

    return samples


def positive(*sizes: tuple[int, ...], **keywords: Any) -> Samples:
    """Symmetric and positive-definite matrices."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size in sizes:
            half = rng.standard_normal(size)
            yield Sample(half @ np.swapaxes(half, -2, -1) + np.eye(size[-1]), **keywords)

    return samples


def distinct(*sizes: tuple[int, ...], **keywords: Any) -> Samples:
    """Matrices whose singular values, and those of whose symmetric part the eigenvalues, are well apart."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size in sizes:
            scales = np.zeros(size[-2:])
            np.fill_diagonal(scales, 3.0 * np.arange(1, min(size[-2:]) + 1))
            yield Sample(rng.standard_normal(size) * 0.3 + scales, **keywords)

    return samples


def batched(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function of single matrices one of batches, by loops."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        outputs = signature.split("->")[1].count("(")

        @functools.wraps(function)
        def of_batches(*arrays: Any, **keywords: Any) -> Any:
            return np.vectorize(functools.partial(function, **keywords), signature=signature, otypes=["d"] * outputs)(
                *arrays
            )

        return of_batches

    return decorate


def symmetric_part(A: Any) -> Any:
    if isinstance(A, int) or A.ndim < 2 or A.shape[-1] != A.shape[-2] or str(A.dtype).endswith(("int64", "float16")):
        return A  # to be refused
    return (A + (np.swapaxes(A, -2, -1) if isinstance(A, np.ndarray) else A.transpose(-2, -1))) * 0.5


def of_symmetric(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of the symmetric part, so that finite differences stay among the matrices that it is meant for."""

    @functools.wraps(function)
    def wrapped(A: Any, *args: Any, **kwargs: Any) -> Any:
        return function(symmetric_part(A), *args, **kwargs)

    return wrapped


def in_torch(name: str, wrapper: Callable[..., Any] = lambda f: f) -> Callable[..., Any]:
    return lambda torch, *args, **kwargs: wrapper(getattr(torch.linalg, name))(*args, **kwargs)


def factor(A: Any, upper: bool = False) -> Any:
    """Cholesky and Banachiewicz: row by row."""
    n = A.shape[-1]
    L = np.zeros(A.shape)
    for i in range(n):
        for j in range(i + 1):
            rest = A[..., i, j] - (L[..., i, :j] * L[..., j, :j]).sum(axis=-1)
            L[..., i, j] = np.sqrt(rest) if i == j else rest / L[..., j, j]
    return np.swapaxes(L, -2, -1) if upper else L


@batched("(m,n)->(m,m),(m,n)")
def reflect(A: Any) -> Any:
    """Householder: reflections that clear one column after the other; LAPACK makes none of a single element."""
    rows, columns = A.shape
    Q, R = np.eye(rows), A.copy()
    for k in range(min(rows - 1, columns)):
        v = R[k:, k].copy()
        v[0] += np.copysign(np.linalg.norm(v), v[0])
        H = np.eye(rows)
        H[k:, k:] -= 2 * np.outer(v, v) / (v @ v)
        Q, R = Q @ H, H @ R
    return Q, R


def orthogonal(A: Any, mode: str = "reduced") -> Any:
    Q, R = reflect(A)
    k = min(A.shape[-2:])
    if mode == "complete":
        return Q, np.triu(R)
    return np.zeros(0) if mode == "r" else Q[..., :k], np.triu(R)[..., :k, :]


def invariant(U: Any, S: Any, Vh: Any) -> Any:
    """What does not depend on the signs of singular vectors, nor on the rest of the basis."""
    k = S.shape[-1]
    U, Vh = U[..., :k], Vh[..., :k, :]
    return U * U, S, Vh * Vh, U @ Vh


def invariant_svd(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return invariant(*function(*args, **kwargs))

    return wrapped


def singular_values(A: Any) -> Any:
    """U, S and Vh from the eigenvectors of A^T A and A A^T."""
    rows, columns = A.shape[-2:]
    At = np.swapaxes(A, -2, -1)
    k = min(rows, columns)
    square, vectors = np.linalg.eigh(At @ A if columns <= rows else A @ At)
    S, W = np.sqrt(square[..., ::-1]), vectors[..., ::-1]
    if columns <= rows:
        return A @ W / S[..., None, :], S, np.swapaxes(W, -2, -1)[..., :k, :]
    return W[..., :k], S, np.swapaxes(W, -2, -1) @ A / S[..., :, None]


def invariant_eigh(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        values, vectors = function(*args, **kwargs)
        return values, vectors * vectors, vectors[..., :, :1] * vectors[..., None, :, 0]

    return wrapped


def rotated(A: Any, UPLO: str = "L") -> Any:
    """Jacobi: rotations of two coordinates at a time until nothing is left off the diagonal."""
    vectors, A = np.broadcast_to(np.eye(A.shape[-1]), A.shape).copy(), A.copy()
    for place in np.ndindex(A.shape[:-2]):
        M, V = A[place], vectors[place]
        for _ in range(12):
            for p in range(len(M)):
                for q in range(p + 1, len(M)):
                    angle = 0.5 * np.arctan2(2 * M[p, q], M[q, q] - M[p, p])
                    G = np.eye(len(M))
                    G[[p, q], [p, q]], G[p, q], G[q, p] = np.cos(angle), np.sin(angle), -np.sin(angle)
                    M[...], V[...] = G.T @ M @ G, V @ G
    values = np.diagonal(A, axis1=-2, axis2=-1)
    order = np.argsort(values, axis=-1)
    return np.take_along_axis(values, order, -1), np.take_along_axis(vectors, order[..., None, :], -1)


def refused(name: str, square: bool = True) -> tuple[Wrong, ...]:
    """What no function of matrices takes."""
    matrix = (Wrong(RuntimeError, f"{name}: .* square matrices, but they are 2 by 3", np.zeros((2, 3))),)
    return (
        Wrong(TypeError, "argument 'A' .* must be Tensor, not int", 3),
        Wrong(RuntimeError, f"{name}: Expected a floating point .* Got int64", np.ones((2, 2), int)),
        Wrong(RuntimeError, f"{name}: Low precision dtypes not supported. Got float16", np.ones((2, 2), np.float16)),
        Wrong(RuntimeError, f"{name}: .* at least 2 dimensions. Its shape is .3", np.zeros(3)),
        *(matrix if square else ()),
    )


ONLY_WIDE = "float32 and float64 only; others are refused"
TOO_FEW = np.stack([np.eye(2), [[1.0, 2.0], [2.0, 1.0]]])
NAN = np.stack([np.eye(2), np.full((2, 2), np.nan)])

ROWS = [
    Op(
        of_symmetric(decomposition.cholesky),
        of_symmetric(factor),
        together(positive((3, 3), *SQUARE), positive((2, 3, 3), upper=True)),
        (
            *refused("linalg.cholesky"),
            Wrong(
                decomposition.LinAlgError,
                r"linalg.cholesky: \(Batch element 1\): .* not positive-definite .*minor of order 2 is not",
                TOO_FEW,
            ),
            Wrong(decomposition.LinAlgError, r"\(Batch element 1\): .*minor of order 1 is not", NAN),
        ),
        ("LinalgCholeskyEx", "LinalgSolveTriangular"),
        torch=in_torch("cholesky", of_symmetric),
        dtypes=ONLY_WIDE,
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same it does not exist"},
    ),
    Op(
        of_symmetric(decomposition.cholesky_ex),
        lambda A, upper=False: (factor(symmetric_part(A), upper), np.zeros(A.shape[:-2], np.int32)),
        positive(*SQUARE),
        (
            *refused("linalg.cholesky_ex"),
            Wrong(decomposition.LinAlgError, "linalg.cholesky_ex: .*Batch element 1", TOO_FEW, check_errors=True),
        ),
        ("LinalgCholeskyEx", "LinalgSolveTriangular"),
        torch=in_torch("cholesky_ex", of_symmetric),
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        decomposition.qr,
        orthogonal,
        together(
            regular((3, 3), (3, 2), (2, 3), (2, 3, 2), (2, 2, 3), (1, 1), (0, 3), (3, 0), (0, 3, 2)),
            regular((2, 3), (3, 3), mode="complete"),
        ),
        (
            *refused("linalg.qr", square=False),
            Wrong(RuntimeError, "unrecognized mode 'x' but expected one of", np.zeros((2, 2)), "x"),
        ),
        ("LinalgQr", "LinalgSolveTriangular"),
        torch=in_torch_linalg("qr"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 1e-4),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        decomposition.qr,
        orthogonal,
        together(
            regular((2, 3), (3, 2), (2, 4, 2), mode="r"),
            regular((3, 2), (2, 4, 2), mode="complete"),
        ),
        refused("linalg.qr", square=False),
        ("LinalgQr",),
        name="qr without a derivative",
        torch=in_torch_linalg("qr"),
        differentiable=False,
        dtypes=ONLY_WIDE,
        tolerance=(1e-12, 1e-5),
        lacks={**NO_SCALAR_MATRIX, "empty": "in the row of qr"},
    ),
    Op(
        invariant_svd(decomposition.svd),
        lambda A, full_matrices=True: invariant(*singular_values(A)),
        together(
            distinct((3, 3), (3, 2), (2, 3), (2, 3, 2), (2, 2, 3), (1, 1), full_matrices=False),
            distinct((3, 3), (3, 2), (2, 3), (0, 3), (3, 0), (0, 3, 2)),
        ),
        (
            *refused("linalg.svd", square=False),
            Wrong(decomposition.LinAlgError, r"\(Batch element 1\): .* contained non-finite values", NAN),
            Wrong(RuntimeError, "`driver=` is only supported on CUDA", np.eye(2), driver="gesvd"),
        ),
        ("LinalgSvd",),
        torch=in_torch("svd", invariant_svd),
        dtypes=ONLY_WIDE,
        tolerance=(1e-11, 1e-4),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same the vectors are not determined"},
    ),
    Op(
        decomposition.svdvals,
        lambda A: singular_values(A)[1],
        distinct((3, 3), (3, 2), (2, 3), (2, 3, 2), (1, 1), (0, 3), (0, 3, 2)),
        (
            *refused("linalg.svd", square=False),
            Wrong(decomposition.LinAlgError, "contained non-finite values", NAN),
            Wrong(RuntimeError, "`driver=` is only supported on CUDA", np.eye(2), driver="gesvd"),
        ),
        ("LinalgSvd", "LinalgSvdvals"),
        torch=in_torch_linalg("svdvals"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-11, 2e-5),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        of_symmetric(invariant_eigh(decomposition.eigh)),
        of_symmetric(invariant_eigh(rotated)),
        together(
            distinct((3, 3), (2, 2), (2, 3, 3), (1, 1), (2, 1, 2, 2), (0, 2, 2)),
            distinct((3, 3), UPLO="U"),
            lambda rng: iter([Sample(rng.standard_normal((2, 2, 2)), UPLO="l")]),
        ),
        (
            *refused("linalg.eigh"),
            Wrong(RuntimeError, "UPLO argument to be 'L' or 'U', but got X", np.eye(2), "X"),
        ),
        ("LinalgEigh",),
        torch=in_torch("eigh", lambda f: of_symmetric(invariant_eigh(f))),
        dtypes=ONLY_WIDE,
        tolerance=(1e-11, 1e-4),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        of_symmetric(decomposition.eigvalsh),
        lambda A, UPLO="L": rotated(symmetric_part(A))[0],
        together(shapes(((3, 3),), ((2, 3, 3),), ((1, 1),), ((0, 0),), ((0, 2, 2),)), distinct((2, 2), UPLO="U")),
        (
            *refused("linalg.eigh"),
            Wrong(RuntimeError, "UPLO argument to be 'L' or 'U', but got X", np.eye(2), "X"),
        ),
        ("LinalgEigh", "LinalgEigvalsh"),
        torch=in_torch("eigvalsh", of_symmetric),
        dtypes=ONLY_WIDE,
        tolerance=(1e-11, 2e-5),
        lacks=NO_SCALAR_MATRIX,
    ),
]
FAMILY = decomposition
EXEMPT: list[Any] = [Exempt(decomposition.LinAlgError, "an exception; in the rows of those that raise it")]

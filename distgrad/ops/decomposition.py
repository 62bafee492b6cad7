"""Matrix factorizations: Cholesky, QR, singular values, eigenvalues of symmetric matrices.

All take batches: the matrices are the last two dimensions. NumPy's LAPACK computes them in float32 and float64. The
derivatives are those of Giles, "An extended collection of matrix derivative results for forward and reverse mode
algorithmic differentiation" (2008), Seeger et al., "Auto-differentiating linear algebra" (2017), Murray,
"Differentiation of the Cholesky decomposition" (2016), and Townsend, "Differentiating the singular value
decomposition" (2016). Singular vectors and eigenvectors are determined up to their sign, and not even that where two
values are equal; gradients are right for functions that such a choice does not change, and infinite or NaN where
equal values would matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.triangular import solve_triangular as triangular_kernel
from .diagonals import _embed_diagonal, _tril, _triu
from .elementwise import sum_to
from .linalg import _adjoint, _matmul, _refuse_others
from .return_types import Named, named
from .shape import _cat, _narrow, _reshape

__all__: list[str] = []  # what distgrad itself offers: in older_linalg, with the conventions that it had first


_CholeskyResult = named("linalg_cholesky_ex", "L", "info")
_QrResult = named("linalg_qr", "Q", "R")
_SvdResult = named("linalg_svd", "U", "S", "Vh")
_EighResult = named("linalg_eigh", "eigenvalues", "eigenvectors")


class LinAlgError(RuntimeError):
    """A matrix for which the result does not exist or could not be computed: singular, not positive-definite, ..."""


# Checks -------------------------------------------------------------------------------------------------------------


def _check_matrix(name: str, A: Any, square: bool = True) -> None:
    """Raises unless ``A`` is a tensor of (square) matrices in float32 or float64."""
    _refuse_others(name.replace(".", "_"), A=A)
    if not A.is_floating_point():
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {A.dtype}")
    if A.dtype == np.float16:
        raise RuntimeError(f"{name}: Low precision dtypes not supported. Got {A.dtype}; use float() first")
    if A.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions. Its shape is {list(A.shape)}")
    rows, columns = A.shape[-2:]
    if square and rows != columns:
        raise RuntimeError(f"{name}: A must be batches of square matrices, but they are {rows} by {columns} matrices")


def _check_info(name: str | None, info: Array, message: Callable[[int], str]) -> None:
    """Raises a LinAlgError where LAPACK's ``info`` is not 0, for the first such matrix of the batch, and in the name of
    the function that was called; without a name nobody wants to know."""
    if name is None or not info.any():
        return
    number = int(np.flatnonzero(info)[0])
    where = f"(Batch element {number}): " if info.ndim else ""
    raise LinAlgError(f"{name}: {where}{message(int(info.reshape(-1)[number]))}")


def _each(function: Callable[[Array], Array], A: Array, failed: Callable[[Array], int]) -> tuple[Array, Array]:
    """``function`` of each matrix on its own, and an info: what ``failed`` says of those that NumPy refuses, else 0."""
    matrices = A.reshape(-1, *A.shape[-2:])
    info = np.zeros(len(matrices), np.int32)
    out = np.empty_like(matrices)
    for number, matrix in enumerate(matrices):
        try:
            out[number] = function(matrix)
        except np.linalg.LinAlgError:
            out[number], info[number] = np.nan, failed(matrix)
    return out.reshape(A.shape), info.reshape(A.shape[:-2])


# Cholesky -----------------------------------------------------------------------------------------------------------

_trisolve: Primitive = define(  # X in A X = B; public in ``solver``
    "LinalgSolveTriangular",
    lambda A, B, upper, unit: triangular_kernel(A, B, upper, unit),
    ("A", "B"),
    A=lambda g, A, output, A_shape, upper, unit: sum_to(
        -_triangle(_matmul(_trisolve(_adjoint(A), g, upper=not upper, unit=unit), _adjoint(output)), upper, unit),
        A_shape,
    ),
    B=lambda g, A, B_shape, upper, unit: sum_to(_trisolve(_adjoint(A), g, upper=not upper, unit=unit), B_shape),
)


def _triangle(x: Any, upper: bool, strict: bool) -> Any:
    """One triangle of the matrices, without the diagonal if ``strict``."""
    return _triu(x, diagonal=int(strict)) if upper else _tril(x, diagonal=-int(strict))


def _first_bad_minor(A: Array) -> int:
    """Of which order the first leading minor is that is not positive-definite."""
    for order in range(1, len(A)):
        try:
            factor = np.linalg.cholesky(A[:order, :order])
        except np.linalg.LinAlgError:
            return order
        if np.isnan(factor[-1, -1]):
            return order
    return len(A)


def _cholesky_forward(A: Array, check: str | None = None) -> tuple[Array, Array]:
    try:
        factor = np.linalg.cholesky(A)
        info = np.zeros(A.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        factor, info = _each(np.linalg.cholesky, A, _first_bad_minor)
    for place in np.argwhere(np.isnan(factor).any(axis=(-2, -1)) & (info == 0)):  # LAPACK lets NaN through
        info[tuple(place)] = _first_bad_minor(A[tuple(place)])
    _check_info(check, info, _not_positive)
    return factor, info


def _eye(n: int, dtype: Any) -> Any:
    return np.eye(n, dtype=dtype)


def _cholesky_vjp(g: Any, L: Any) -> Any:
    """Half of L^-T (Φ + Φ^T) L^-1, where Φ is the lower triangle of L^T g with half of its diagonal."""
    inner = _tril(_matmul(_adjoint(L), g), diagonal=0) * (1 - _eye(L.shape[-1], L.dtype) / 2)
    half = _trisolve(_adjoint(L), inner, upper=True, unit=False)
    whole = _trisolve(_adjoint(L), _adjoint(half), upper=True, unit=False)
    return (whole + _adjoint(whole)) * 0.5


_cholesky: Primitive = define(
    "LinalgCholeskyEx",
    _cholesky_forward,
    ("A",),
    multiple=True,
    A=lambda g, output: None if g[0] is None else _cholesky_vjp(g[0], output[0]),
)


def _not_positive(order: int) -> str:
    return (
        "The factorization could not be completed because the input is not positive-definite (the leading minor of "
        f"order {order} is not positive-definite)."
    )


def _cholesky_of(name: str, A: Tensor, upper: bool, check_errors: bool) -> Named:
    _check_matrix(name, A)
    factor, info = _cholesky(_adjoint(A) if upper else A, check=name if check_errors else None)
    return _CholeskyResult((_adjoint(factor) if upper else factor, info.detach()))


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangular L with A = L L^T, or with ``upper`` the U with A = U^T U, as ``torch.linalg.cholesky``.

    Only that triangle of ``A`` is read; the gradient is that of symmetric matrices, and symmetric.

    Args:
        A: (..., n, n), symmetric and positive-definite.
        upper: whether to give U.

    Raises:
        LinAlgError: a matrix is not positive-definite.
        RuntimeError: ``A`` is not a batch of square matrices in float32 or float64.
    """
    return _cholesky_of("linalg.cholesky", A, upper, True).L


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Named:
    """``cholesky`` that does not raise: a pair (L, info), where info is 0 or the order of the first leading minor that
    is not positive-definite, and the factor of such a matrix is NaN. int32, (...)."""
    return _cholesky_of("linalg.cholesky_ex", A, upper, check_errors)


# QR -----------------------------------------------------------------------------------------------------------------


def _qr_forward(A: Array, mode: str) -> tuple[Array, Array]:
    if mode == "r":
        return np.zeros(0, A.dtype), np.asarray(np.linalg.qr(A, mode="r"))
    Q, R = np.linalg.qr(A, mode="complete" if mode == "complete" else "reduced")
    return Q, R


def _qr_vjp(g: tuple[Any, Any], output: tuple[Any, Any], shape: tuple[int, ...], mode: str) -> Any:
    rows, columns = shape[-2:]
    if mode == "r":
        raise RuntimeError(
            "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please use linalg.qr(A, "
            "mode='reduced') if you are going to differentiate through linalg.qr."
        )
    if mode == "complete" and rows > columns:
        raise RuntimeError("The QR decomposition is not differentiable when mode='complete' and nrows > ncols.")
    Q, R = output
    gQ = np.zeros(Q.shape, Q.dtype) if g[0] is None else g[0]
    gR = np.zeros(R.shape, R.dtype) if g[1] is None else g[1]
    if rows >= columns:
        return _tall_qr_vjp(gQ, gR, Q, R)
    # A = [X, Y] = Q [U, V]: V = Q^T Y depends on Q, which is that of X
    last = len(shape) - 1
    U, V = (_narrow(R, dim=last, start=start, length=n) for start, n in ((0, rows), (rows, columns - rows)))
    gU, gV = (_narrow(gR, dim=last, start=start, length=n) for start, n in ((0, rows), (rows, columns - rows)))
    Y = _matmul(Q, V)
    gX = _tall_qr_vjp(_matmul(Y, _adjoint(gV)) + gQ, gU, Q, U)
    return _cat(gX, _matmul(Q, gV), dim=last)


def _tall_qr_vjp(gQ: Any, gR: Any, Q: Any, R: Any) -> Any:
    """(gQ + Q S) R^-T, where S is the symmetric matrix with the lower triangle of R gR^T - gQ^T Q."""
    inner = _matmul(R, _adjoint(gR)) - _matmul(_adjoint(gQ), Q)
    symmetric = _tril(inner, diagonal=0) + _adjoint(_tril(inner, diagonal=-1))
    return _adjoint(_trisolve(R, _adjoint(_matmul(Q, symmetric) + gQ), upper=True, unit=False))


_qr: Primitive = define(
    "LinalgQr",
    _qr_forward,
    ("A",),
    multiple=True,
    A=lambda g, output, A_shape, mode: _qr_vjp(g, output, A_shape, mode),
)


def qr(A: Tensor, mode: str = "reduced") -> Named:
    """An orthogonal Q and an upper triangular R with A = Q R, as ``torch.linalg.qr``.

    Args:
        A: (..., m, n); with k = min(m, n),
        mode: "reduced" for Q (..., m, k) and R (..., k, n); "complete" for Q (..., m, m) and R (..., m, n); "r" for an
            empty Q and the reduced R. Differentiable are "reduced" and, where m <= n, "complete", for matrices whose
            first k columns are independent.

    Raises:
        RuntimeError: another mode, or ``A`` is not a batch of matrices in float32 or float64.
    """
    _check_matrix("linalg.qr", A, square=False)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'"
        )
    return _QrResult(_qr(A, mode=mode))


# Singular values ----------------------------------------------------------------------------------------------------


def _svd_forward(A: Array, full_matrices: bool) -> tuple[Array, Array, Array]:
    try:
        U, S, Vh = np.linalg.svd(A, full_matrices=full_matrices)
    except np.linalg.LinAlgError:
        raise _no_convergence("linalg.svd", A) from None
    return U, S, Vh


def _no_convergence(name: str, A: Array) -> LinAlgError:
    finite = np.isfinite(A).all(axis=(-2, -1))
    where = ""
    if A.ndim > 2 and not finite.all():
        where = f"(Batch element {int(np.flatnonzero(~finite)[0])}): "
    reason = "is ill-conditioned" if finite.all() else "contained non-finite values"
    return LinAlgError(f"{name}: {where}The algorithm failed to converge because the input matrix {reason}.")


def _outer_pairs(x: Any) -> tuple[Any, Any]:
    """A vector as a row and as a column of a matrix, batched."""
    return _reshape(x, shape=(*x.shape[:-1], 1, x.shape[-1])), _reshape(x, shape=(*x.shape, 1))


def _on_diagonal(x: Any) -> Any:
    n = x.shape[-1]
    return _embed_diagonal(x, shape=(*x.shape, n), offset=0, dim1=x.ndim - 1, dim2=x.ndim)


def _skew(x: Any) -> Any:
    return x - _adjoint(x)


def _svd_vjp(g: tuple[Any, Any, Any], output: tuple[Any, Any, Any], shape: tuple[int, ...]) -> Any:
    gU, gS, gVh = g
    U, S, Vh = output
    rows, columns = shape[-2:]
    k = min(rows, columns)
    last = len(shape) - 1
    # of full matrices the first k vectors; the others are any basis of the rest, and no function may depend on it
    U, gU = (None if x is None else _narrow(x, dim=last, start=0, length=k) for x in (U, gU))
    Vh, gVh = (None if x is None else _narrow(x, dim=last - 1, start=0, length=k) for x in (Vh, gVh))
    row, column = _outer_pairs(S)
    if gU is None and gVh is None:
        return None if gS is None else _matmul(U * _outer_pairs(gS)[0], Vh)
    gaps = (row - column) * (row + column) + _eye(k, S.dtype)
    core: Any = None if gS is None else _on_diagonal(gS)
    outside: Any = None
    if gU is not None:
        along = _matmul(_adjoint(U), gU)
        core = _sum(core, (_skew(along) / gaps) * row)
        if rows > k:
            outside = _matmul((gU - _matmul(U, along)) / row, Vh)
    if gVh is not None:
        along = _matmul(gVh, _adjoint(Vh))
        core = _sum(core, column * (_skew(_adjoint(along)) / gaps))
        if columns > k:
            outside = _sum(outside, _matmul(U, (gVh - _matmul(along, Vh)) / column))
    return _sum(outside, _matmul(_matmul(U, core), Vh))


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a + b


_svd: Primitive = define(
    "LinalgSvd",
    _svd_forward,
    ("A",),
    multiple=True,
    A=lambda g, output, A_shape: _svd_vjp(g, output, A_shape),
)


def _svdvals_forward(A: Array) -> Array:
    try:
        return np.asarray(np.linalg.svd(A, compute_uv=False))
    except np.linalg.LinAlgError:
        raise _no_convergence("linalg.svd", A) from None


_svdvals: Primitive = define("LinalgSvdvals", _svdvals_forward, ("A",))  # for the derivative the vectors are needed


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Named:
    """Orthogonal U and Vh and singular values S, largest first, with A = U diag(S) Vh, as ``torch.linalg.svd``.

    Args:
        A: (..., m, n); with k = min(m, n),
        full_matrices: U (..., m, m) and Vh (..., n, n), else (..., m, k) and (..., k, n).
        driver: for other devices than the CPU, so always None.

    Raises:
        LinAlgError: NaN or infinity in a matrix.
        RuntimeError: ``A`` is not a batch of matrices in float32 or float64, or there is a driver.
    """
    _refuse_driver("linalg.svd", driver)
    _check_matrix("linalg.svd", A, square=False)
    return _SvdResult(_svd(A, full_matrices=full_matrices))


def _refuse_driver(name: str, driver: str | None) -> None:
    if driver is not None:
        raise RuntimeError(f"torch.{name}: keyword argument `driver=` is only supported on CUDA inputs, got {driver!r}")


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values of matrices, largest first: (..., m, n) to (..., min(m, n)), as ``torch.linalg.svdvals``.

    Differentiable also where values are equal, as far as the function made of them is.
    """
    _refuse_driver("linalg.svdvals", driver)
    _check_matrix("linalg.svd", A, square=False)
    if mode.enabled and A.requires_grad:
        return svd(A, full_matrices=False).S
    out: Tensor = _svdvals(A)
    return out


# Eigenvalues --------------------------------------------------------------------------------------------------------


def _eigh_forward(A: Array, UPLO: Any) -> tuple[Array, Array]:
    try:
        values, vectors = np.linalg.eigh(A, UPLO)
    except np.linalg.LinAlgError:
        raise _no_convergence("linalg.eigh", A) from None
    return values, vectors


def _eigh_vjp(g: tuple[Any, Any], output: tuple[Any, Any]) -> Any:
    """The symmetric part of V (diag(gL) + (V^T gV) / (l_j - l_i)) V^T, the quotient off the diagonal."""
    (gL, gV), (values, V) = g, output
    if gV is None:
        return None if gL is None else _matmul(V * _outer_pairs(gL)[0], _adjoint(V))
    row, column = _outer_pairs(values)
    one = _eye(values.shape[-1], values.dtype)
    core = (_matmul(_adjoint(V), gV) * (1 - one)) / (row - column + one)
    core = (core + _adjoint(core)) * 0.5
    core = _sum(None if gL is None else _on_diagonal(gL), core)
    return _matmul(_matmul(V, core), _adjoint(V))


_eigh: Primitive = define(
    "LinalgEigh",
    _eigh_forward,
    ("A",),
    multiple=True,
    A=lambda g, output: _eigh_vjp(g, output),
)


_eigvalsh: Primitive = define("LinalgEigvalsh", lambda A, UPLO: np.linalg.eigvalsh(A, UPLO), ("A",))


def _triangle_name(UPLO: str) -> Literal["L", "U"]:
    if UPLO not in ("L", "l", "U", "u"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return "L" if UPLO in ("L", "l") else "U"


def eigh(A: Tensor, UPLO: str = "L") -> Named:
    """Eigenvalues, smallest first, and orthonormal eigenvectors (as columns) of symmetric matrices, as
    ``torch.linalg.eigh``.

    Args:
        A: (..., n, n), symmetric.
        UPLO: which triangle is read, the lower ("L") or the upper one ("U").

    Returns:
        Eigenvalues (..., n) and eigenvectors (..., n, n).

    Raises:
        RuntimeError: another ``UPLO``, or ``A`` is not a batch of square matrices in float32 or float64.
    """
    _check_matrix("linalg.eigh", A)
    return _EighResult(_eigh(A, UPLO=_triangle_name(UPLO)))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, smallest first: (..., n, n) to (..., n), as ``torch.linalg.eigvalsh``."""
    _check_matrix("linalg.eigh", A)
    if mode.enabled and A.requires_grad:
        return eigh(A, UPLO).eigenvalues
    out: Tensor = _eigvalsh(A, UPLO=_triangle_name(UPLO))
    return out

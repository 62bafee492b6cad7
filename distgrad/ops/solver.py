"""Inverses and systems of equations.

NumPy's LAPACK solves them in float32 and float64; triangular systems are solved by blocks of its general solver. The
derivatives are those of Giles, "An extended collection of matrix derivative results for forward and reverse mode
algorithmic differentiation" (2008); that of the pseudoinverse is of Golub and Pereyra, "The differentiation of
pseudo-inverses and nonlinear least squares problems whose variables separate" (1973).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.lu import lu_factor as lu_kernel
from .decomposition import _check_info, _check_matrix, _each, _eye, _no_convergence, _trisolve
from .elementwise import sub, sum_to
from .linalg import _adjoint, _column, _matmul, _refuse_others, matmul
from .power import square
from .reduction import sum
from .return_types import Named, named
from .samples import all_values
from .shape import _permute, _reshape, normalize_dim

__all__ = [  # what distgrad itself offers
    "cholesky_inverse",
    "cholesky_solve",
    "inverse",
    "pinverse",
]
METHODS = (  # what a Tensor offers
    "cholesky_inverse cholesky_solve inverse pinverse"
).split()

_InvResult = named("linalg_inv_ex", "inverse", "info")
_SolveResult = named("linalg_solve_ex", "result", "info")
_LstsqResult = named("linalg_lstsq", "solution", "residuals", "rank", "singular_values")

# Inverses -----------------------------------------------------------------------------------------------------------


def _zero_pivot(A: Array) -> int:
    """Which pivot of a singular matrix is zero, counted from 1. LAPACK found one, so if rounding hides it, the last."""
    return int(lu_kernel(A)[2]) or len(A)


def _inverse_forward(A: Array, check: str | None = None) -> tuple[Array, Array]:
    try:
        return np.linalg.inv(A), np.zeros(A.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        inverse, info = _each(np.linalg.inv, A, _zero_pivot)
        _check_info(check, info, _singular)
        inverse[info != 0] = np.inf
        return inverse, info


_inv: Primitive = define(
    "LinalgInvEx",
    _inverse_forward,
    ("A",),
    multiple=True,
    A=lambda g, output: None if g[0] is None else _inverse_vjp(g[0], _adjoint(output[0])),
)


def _inverse_vjp(g: Any, transposed: Any) -> Any:
    return -_matmul(_matmul(transposed, g), transposed)


def _singular(pivot: int) -> str:
    return (
        f"The diagonal element {pivot} is zero, the inversion could not be completed because the input matrix is "
        "singular."
    )


def inv_ex(A: Tensor, *, check_errors: bool = False) -> Named:
    """``inv`` that does not raise: a pair (inverse, info), where info is 0 or the first zero pivot of a singular
    matrix, counted from 1, whose inverse is infinite. int32, (...)."""
    _check_matrix("linalg.inv", A)
    inverse, info = _inv(A, check="linalg.inv_ex" if check_errors else None)
    return _InvResult((inverse, info.detach()))


def inv(A: Tensor) -> Tensor:
    """The inverses of square matrices: (..., n, n) to the same, as ``torch.linalg.inv``.

    Raises:
        LinAlgError: a matrix is singular.
        RuntimeError: ``A`` is not a batch of square matrices in float32 or float64.
    """
    _check_matrix("linalg.inv", A)
    out: Tensor = _inv(A, check="linalg.inv")[0]
    return out


def inverse(input: Tensor) -> Tensor:
    """``linalg.inv``."""
    return inv(input)


# The pseudoinverse --------------------------------------------------------------------------------------------------


def _threshold(S: Array, shape: tuple[int, ...], atol: Any, rtol: Any) -> Array:
    """The singular values up to which one counts as zero, (...); ``S`` is (..., k), of matrices of this shape."""
    if rtol is None:
        default = np.finfo(S.dtype).eps * max(shape[-2:])
        # an absolute tolerance replaces the relative one
        rtol = default if atol is None else np.where(np.asarray(atol) > 0, 0, default)
    largest = S.max(axis=-1, initial=0)
    return np.asarray(np.maximum(0 if atol is None else atol, rtol * largest))


def _spectrum(A: Array, hermitian: bool) -> tuple[Array, Array, Array]:
    """U, S and Vh with A = U diag(S) Vh and S >= 0; of symmetric matrices from their eigenvalues."""
    if hermitian:
        values, vectors = np.linalg.eigh(A)
        return vectors * np.sign(values)[..., None, :], np.abs(values), np.swapaxes(vectors, -2, -1)
    try:
        U, S, Vh = np.linalg.svd(A, full_matrices=False)
    except np.linalg.LinAlgError:
        raise _no_convergence("linalg.svd", A) from None
    return U, S, Vh


def _inverse_values(S: Array, shape: tuple[int, ...], atol: Any, rtol: Any) -> Array:
    counts = _threshold(S, shape, atol, rtol)[..., None] < S
    return np.divide(1, S, out=np.zeros_like(S), where=counts)


def _pinv_forward(A: Array, atol: Any, rtol: Any, hermitian: bool) -> Array:
    U, S, Vh = _spectrum(A, hermitian)
    inverse = _inverse_values(S, A.shape, atol, rtol)
    return np.asarray((np.swapaxes(Vh, -2, -1) * inverse[..., None, :]) @ np.swapaxes(U, -2, -1))


def _pinv_vjp(g: Any, A: Any, P: Any) -> Any:
    """-P^T g P^T + (I - A P) g^T P P^T + P^T P g^T (I - P A), for matrices that keep their rank."""
    gt, Pt = _adjoint(g), _adjoint(P)
    left = gt - _matmul(A, _matmul(P, gt))
    right = gt - _matmul(_matmul(gt, P), A)
    return _matmul(_matmul(left, P), Pt) + _matmul(Pt, _matmul(P, right)) - _matmul(_matmul(Pt, g), Pt)


_pinv: Primitive = define(
    "LinalgPinv", _pinv_forward, ("A", "atol", "rtol"), A=lambda g, A, output: _pinv_vjp(g, A, output)
)


def _tolerances(name: str, shape: tuple[int, ...], **tolerances: Any) -> list[Any]:
    """Numbers, None, or tensors that fit the batch of matrices of this shape."""
    for argument, value in tolerances.items():
        if value is None or isinstance(value, (int, float)):
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}(): argument '{argument}' must be Tensor or Number, not {type(value).__name__}")
        try:
            fits = np.broadcast_shapes(value.shape, shape[:-2]) == tuple(shape[:-2])
        except ValueError:
            fits = False
        if not fits:
            raise RuntimeError(
                f"{name}: {argument} {list(value.shape)} does not broadcast to the batch {list(shape[:-2])}"
            )
    return [value.detach() if isinstance(value, Tensor) else value for value in tolerances.values()]


def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """The pseudoinverses of matrices, of Moore and Penrose: (..., m, n) to (..., n, m), as ``torch.linalg.pinv``.

    Differentiable for matrices whose rank does not change around them.

    Args:
        A: (..., m, n).
        rcond: another name of ``rtol``.
        hermitian: the matrices are symmetric; only the lower triangle is read.
        atol: singular values up to it count as zero; a number or a tensor of the batch's shape.
        rtol: likewise, relative to the largest; without both, max(m, n) times the dtype's precision.

    Raises:
        LinAlgError: NaN or infinity in a matrix.
        RuntimeError: ``A`` is not a batch of matrices in float32 or float64.
    """
    _check_matrix("linalg.pinv", A, square=hermitian)
    rtol = rcond if rtol is None else rtol
    out: Tensor = _pinv(A, *_tolerances("linalg.pinv", A.shape, atol=atol, rtol=rtol), hermitian=hermitian)
    return out


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """``linalg.pinv`` with another default."""
    return pinv(input, rcond)


# Systems of equations -----------------------------------------------------------------------------------------------


def _solve_forward(A: Array, B: Array, check: str | None = None) -> tuple[Array, Array]:
    try:
        return np.linalg.solve(A, B), np.zeros(A.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        _, info = _each(np.linalg.inv, A, _zero_pivot)
        _check_info(check, info, _no_solution)
        regular = np.where((info != 0)[..., None, None], _eye(A.shape[-1], A.dtype), A)
        X = np.linalg.solve(regular, B)
        X[np.broadcast_to(info != 0, X.shape[:-2])] = np.nan
        return X, info


_solve: Primitive = define(
    "LinalgSolveEx",
    _solve_forward,
    ("A", "B"),
    multiple=True,
    A=lambda g, A, output, A_shape: sum_to(-_matmul(_solve(_adjoint(A), g[0])[0], _adjoint(output[0])), A_shape),
    B=lambda g, A, B_shape: sum_to(_solve(_adjoint(A), g[0])[0], B_shape),
)


def _check_system(name: str, A: Tensor, B: Tensor, left: bool) -> None:
    """Raises unless ``A X = B`` (``X A = B`` without ``left``) has the right dimensions and dtypes."""
    if B.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor B must have at least 2 dimensions. Its shape is {list(B.shape)}")
    if A.dtype != B.dtype:
        raise RuntimeError(
            f"{name}: Expected A and B to have the same dtype, but found A of type {A.dtype} and B of type {B.dtype} "
            "instead"
        )
    if A.shape[-1] != B.shape[-2 if left else -1]:
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX' if left else 'XA'} = B "
            f"({A.shape[-2]}x{A.shape[-1]} and {B.shape[-2]}x{B.shape[-1]})"
        )
    try:
        np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    except ValueError:
        raise RuntimeError(
            f"{name}: the batch dimensions of {list(A.shape)} and {list(B.shape)} do not broadcast"
        ) from None


def _no_solution(_: int) -> str:
    return "The solver failed because the input matrix is singular."


def _solve_of(name: str, A: Tensor, B: Tensor, left: bool, check_errors: bool) -> Named:
    _refuse_others("linalg_solve", A=A, B=B)
    _check_matrix("linalg.solve", A)
    is_vector = B.ndim == 1 or (A.ndim - 1 == B.ndim and B.shape == A.shape[:-1])
    right = _column(B) if is_vector else B
    _check_system("linalg.solve", A, right, left)
    check = name if check_errors else None
    if left:
        result, info = _solve(A, right, check=check)
    else:  # X A = B is A^T X^T = B^T
        result, info = _solve(_adjoint(A), _adjoint(right), check=check)
        result = _adjoint(result)
    if is_vector:
        result = _reshape(result, shape=result.shape[:-1])
    return _SolveResult((result, info.detach()))


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X in ``A X = B``, as ``torch.linalg.solve``.

    Args:
        A: (..., n, n).
        B: (..., n, k), or vectors: (n), or (..., n) with the batch of ``A``. Batches of matrices broadcast.
        left: else solve ``X A = B``, for ``B`` (..., k, n).

    Raises:
        LinAlgError: a matrix is singular.
        RuntimeError: dimensions or dtypes that do not fit.
    """
    return _solve_of("torch.linalg.solve", A, B, left, True).result


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Named:
    """``solve`` that does not raise: a pair (result, info), where info is 0 or the first zero pivot of a singular
    matrix, counted from 1, whose result is NaN. int32, the batch of ``A``."""
    return _solve_of("torch.linalg.solve_ex", A, B, left, check_errors)


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X in ``A X = B`` for triangular ``A``, as ``torch.linalg.solve_triangular``.

    Blocks of the matrix are substituted into each other by products, and those on the diagonal are solved by NumPy's
    general solver, since NumPy has none for triangles.

    Args:
        A: (..., n, n), of which one triangle is read.
        B: (..., n, k); batches broadcast.
        upper: whether it is the upper one.
        left: else solve ``X A = B``, for ``B`` (..., k, n).
        unitriangular: the diagonal of ``A`` counts as ones.

    Returns:
        The shape of ``B`` with the broadcast batch; infinities or NaN where there is a zero on the diagonal.

    Raises:
        RuntimeError: dimensions or dtypes that do not fit.
    """
    _refuse_others("linalg_solve_triangular", A=A, B=B)
    _check_matrix("linalg.solve_triangular", A)
    _check_system("linalg.solve_triangular", A, B, left)
    if left:
        out: Tensor = _trisolve(A, B, upper=upper, unit=unitriangular)
        return out
    transposed: Tensor = _adjoint(_trisolve(_adjoint(A), _adjoint(B), upper=not upper, unit=unitriangular))
    return transposed


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X in ``A X = B``, where ``L`` is the Cholesky factor of A, as ``torch.cholesky_solve``.

    Args:
        B: (..., n, k); batches broadcast.
        L: (..., n, n), lower triangular, or with ``upper`` the upper triangular U with A = U^T U.
        upper: which it is.

    Raises:
        RuntimeError: dimensions or dtypes that do not fit.
    """
    _refuse_others("cholesky_solve", B=B, L=L)
    _check_matrix("cholesky_solve", L)
    _check_system("cholesky_solve", L, B, left=True)
    first, second = (_adjoint(L), L) if upper else (L, _adjoint(L))
    half = _trisolve(first, B, upper=False, unit=False)
    out: Tensor = _trisolve(second, half, upper=True, unit=False)
    return out


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A = L L^T, or with ``upper`` of U^T U: (..., n, n) to the same, as ``torch.cholesky_inverse``."""
    _check_matrix("cholesky_inverse", L)
    n = L.shape[-1]
    lower = _adjoint(L) if upper else L
    half = _trisolve(lower, np.broadcast_to(_eye(n, L.dtype), tuple(L.shape)), upper=False, unit=False)
    out: Tensor = _matmul(_adjoint(half), half)
    return out


# Least squares ------------------------------------------------------------------------------------------------------


def _lstsq_forward(A: Array, B: Array, rcond: float | None) -> tuple[Array, Array, Array]:
    """By singular values: the solution of least norm, the rank and the singular values."""
    U, S, Vh = _spectrum(A, hermitian=False)
    inverse = _inverse_values(S, A.shape, None, rcond)
    X = np.swapaxes(Vh, -2, -1) @ (inverse[..., None] * (np.swapaxes(U, -2, -1) @ B))
    return X, (inverse != 0).sum(axis=-1), S


_lstsq: Primitive = define(
    "LinalgLstsq",
    _lstsq_forward,
    ("A", "B"),
    multiple=True,
    # X = pinv(A) B
    A=lambda g, A, B, A_shape, rcond: _of_pinv(g[0], A, B, A_shape, rcond),
    B=lambda g, A, B_shape, rcond: sum_to(_matmul(_adjoint(_pinv(A, None, rcond, hermitian=False)), g[0]), B_shape),
)


def _of_pinv(g: Any, A: Any, B: Any, shape: tuple[int, ...], rcond: float | None) -> Any:
    return sum_to(_pinv_vjp(_matmul(g, _adjoint(B)), A, _pinv(A, None, rcond, hermitian=False)), shape)


_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Named:
    """The X of least norm among those that make the norm of ``A X - B`` smallest, as ``torch.linalg.lstsq``.

    Whatever the driver, singular values are what it is computed from. The driver decides what is returned besides, as
    in PyTorch: "gelsy" (the default) gives the rank, "gelsd" and "gelss" residuals and singular values too, "gels",
    meant for matrices of full rank, only residuals. What is not given is an empty tensor, and so are the residuals
    unless m > n and every matrix has full rank.

    Args:
        A: (..., m, n).
        B: (..., m, k), or vectors (..., m). Batches broadcast.
        rcond: singular values up to it times the largest count as zero; max(m, n) times the dtype's precision without
            it.
        driver: one of "gels", "gelsy", "gelsd" and "gelss".

    Returns:
        solution (..., n, k), residuals (..., k), rank (...), singular_values (..., min(m, n)). The solution is
        differentiable where the rank does not change.

    Raises:
        LinAlgError: NaN or infinity in a matrix.
        RuntimeError: another driver, or dimensions or dtypes that do not fit.
    """
    _refuse_others("linalg_lstsq", A=A, B=B)
    _check_matrix("torch.linalg.lstsq", A, square=False)
    kind = driver or "gelsy"
    if kind not in _DRIVERS:
        raise RuntimeError(
            f"torch.linalg.lstsq: parameter `driver` should be one of ({', '.join(_DRIVERS)}), got {driver!r}"
        )
    if A.dtype != B.dtype:
        raise RuntimeError(
            "torch.linalg.lstsq: Expected input and other to have the same dtype, but got input's dtype "
            f"{A.dtype} and other's dtype {B.dtype}"
        )
    is_vector = A.ndim - 1 == B.ndim
    right = _column(B) if is_vector else B
    if right.ndim < 2 or right.shape[-2] != A.shape[-2]:
        raise RuntimeError(
            f"torch.linalg.lstsq: input.size(-2) should match other.size(-2), got {list(A.shape)} and {list(B.shape)}"
        )
    try:
        solution, rank, values = _lstsq(A, right, rcond=rcond)
    except ValueError:
        raise RuntimeError(
            f"torch.linalg.lstsq: the batch dimensions of {list(A.shape)} and {list(B.shape)} do not broadcast"
        ) from None
    nothing = Tensor(np.zeros(0, A.dtype))
    rows, columns = A.shape[-2:]
    residuals = nothing
    if kind != "gelsy" and rows > columns and (kind == "gels" or bool((all_values(rank) == columns).all())):
        residuals = sum(square(sub(matmul(A, solution), right)), -2)
    if is_vector:
        solution = _reshape(solution, shape=solution.shape[:-1])
    rank = Tensor(np.zeros(0, np.int64)) if kind == "gels" else rank.detach()
    values = values.detach() if kind in ("gelsd", "gelss") else nothing
    return _LstsqResult((solution, residuals, rank, values))


# Of more dimensions -------------------------------------------------------------------------------------------------


def _check_halves(first: int, second: int, where: str) -> None:
    if first != second:
        raise RuntimeError(
            f"Expected self to satisfy the requirement prod(self.shape[{where}:]) == prod(self.shape[:{where}]), but "
            f"got {second} != {first}"
        )


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse for ``tensordot``: ``tensordot(tensorinv(A, ind), A, ind)`` is the identity, as
    ``torch.linalg.tensorinv``.

    Args:
        A: of a shape whose first ``ind`` lengths have the same product as the others.
        ind: that number, above 0.

    Returns:
        The last dimensions of ``A``, then its first ``ind``.

    Raises:
        LinAlgError: there is no inverse.
        RuntimeError: the products differ, or ``ind`` is not positive.
    """
    if ind <= 0:
        raise RuntimeError(f"Expected a strictly positive integer for 'ind', but got {ind}")
    _refuse_others("linalg_tensorinv", A=A)
    first, last = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    n = math.prod(first)
    _check_halves(n, math.prod(last), "ind")
    out: Tensor = _reshape(inv(_reshape(A, shape=(n, n))), shape=(*last, *first))
    return out


def tensorsolve(A: Tensor, B: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    """X in ``tensordot(A, X, X.ndim) = B``, as ``torch.linalg.tensorsolve``.

    Args:
        A: of the shape of ``B`` followed by that of X, with as many elements.
        B: any shape.
        dims: dimensions of ``A`` that are moved to its end first.

    Returns:
        The last dimensions of ``A``.

    Raises:
        LinAlgError: there is no solution.
        RuntimeError: the products of the lengths differ.
    """
    _refuse_others("linalg_tensorsolve", A=A, B=B)
    moved = [normalize_dim(d, A.ndim) for d in dims or ()]
    if moved:
        A = _permute(A, dims=(*(d for d in range(A.ndim) if d not in moved), *moved))
    last = tuple(A.shape[B.ndim :])
    n = math.prod(last)
    _check_halves(math.prod(A.shape[: B.ndim]), n, "other.ndim")
    out: Tensor = _reshape(solve(_reshape(A, shape=(n, n)), _reshape(B, shape=(n,))), shape=last)
    return out

"""Functions of square matrices that are not functions of their elements: powers and the exponential."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels.precision import half_in_single
from .decomposition import _check_matrix
from .elementwise import clone
from .linalg import _adjoint, _refuse_bool, _refuse_others, matmul
from .shape import _cat, _narrow
from .solver import inv

__all__ = [  # what distgrad itself offers
    "matrix_exp",
    "matrix_power",
]
METHODS = (  # what a Tensor offers
    "matrix_exp matrix_power"
).split()

# Higham, "The scaling and squaring method for the matrix exponential revisited" (2005): the coefficients of the Padé
# approximant of degree 13, and the 1-norm up to which it is exact in float64.
_PADE = (
    64764752532480000.0,
    32382376266240000.0,
    7771770303897600.0,
    1187353796428800.0,
    129060195264000.0,
    10559470521600.0,
    670442572800.0,
    33522128640.0,
    1323241920.0,
    40840800.0,
    960960.0,
    16380.0,
    182.0,
    1.0,
)
_LARGEST = 5.371920351148152


def _norm(A: Array) -> Array:
    """The 1-norm of each matrix, 0 of one that is not finite or empty."""
    norm = np.abs(A).sum(axis=-2).max(axis=-1, initial=0)
    return np.where(np.isfinite(norm), norm, 0)


@half_in_single
def _exponential(A: Array) -> Array:
    halvings = np.ceil(np.log2(np.maximum(_norm(A) / _LARGEST, 1))).astype(int)
    X = A * np.ldexp(np.ones((), A.dtype), -halvings)[..., None, None]
    c = [A.dtype.type(b) for b in _PADE]
    eye = np.eye(A.shape[-1], dtype=A.dtype)
    X2 = X @ X
    X4 = X2 @ X2
    X6 = X4 @ X2
    odd = X @ (X6 @ (c[13] * X6 + c[11] * X4 + c[9] * X2) + c[7] * X6 + c[5] * X4 + c[3] * X2 + c[1] * eye)
    even = X6 @ (c[12] * X6 + c[10] * X4 + c[8] * X2) + c[6] * X6 + c[4] * X4 + c[2] * X2 + c[0] * eye
    out = np.linalg.solve(even - odd, even + odd)
    for number in range(int(halvings.max(initial=0))):
        out = np.where((number < halvings)[..., None, None], out @ out, out)
    return np.asarray(out)


def _exponential_vjp(g: Any, A: Any) -> Any:
    """The derivative of exp at A^T in the direction g: the upper right block of exp([[A^T, g], [0, A^T]]) (Van Loan,
    1978; Al-Mohy and Higham, 2009)."""
    # It is linear in g, and large blocks beside A would cost accuracy.
    scale = _scale(g)
    n, last = A.shape[-1], A.ndim - 1
    At = _adjoint(A)
    upper = _cat(At, g / scale, dim=last)
    lower = _cat(np.zeros(tuple(A.shape), A.dtype), At, dim=last)
    block = _matrix_exp(_cat(upper, lower, dim=last - 1))
    return _narrow(_narrow(block, dim=last - 1, start=0, length=n), dim=last, start=n, length=n) * scale


def _scale_forward(A: Array) -> Array:
    norm = _norm(A)[..., None, None]
    return np.where(norm == 0, 1, norm).astype(A.dtype)


_scale: Primitive = define("MatrixScale", _scale_forward, ("A",))  # a number to divide by, constant for derivatives
_matrix_exp: Primitive = define("LinalgMatrixExp", _exponential, ("A",), A=lambda g, A: _exponential_vjp(g, A))


def matrix_exp(A: Tensor) -> Tensor:
    """The exponentials of square matrices: (..., n, n) to the same. Not those of the elements.

    Raises:
        RuntimeError: ``A`` is not a batch of square matrices in a floating-point dtype.
    """
    _refuse_others("linalg_matrix_exp", A=A)
    if A.dtype != np.float16:
        _check_matrix("linalg.matrix_exp", A)
    out: Tensor = _matrix_exp(A)
    return out


def matrix_power(A: Tensor, n: int) -> Tensor:
    """The product of ``n`` copies of square matrices: (..., n, n) to the same; of the inverse for negative ``n``, and
    the identity for 0.

    Raises:
        LinAlgError: ``n`` is negative and a matrix is singular.
        RuntimeError: ``A`` is not a batch of square matrices.
    """
    _refuse_others("linalg_matrix_power", A=A)
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"linalg_matrix_power(): argument 'n' must be int, not {type(n).__name__}")
    exponent = operator.index(n)
    if A.ndim < 2:
        raise RuntimeError(
            f"linalg.matrix_power: The input tensor A must have at least 2 dimensions. Its shape is {list(A.shape)}"
        )
    if A.shape[-1] != A.shape[-2]:
        raise RuntimeError(
            f"linalg.matrix_power: A must be batches of square matrices, but they are {A.shape[-2]} by {A.shape[-1]} "
            "matrices"
        )
    _refuse_bool("matrix_power", A.dtype)
    if exponent == 0:
        identity: Tensor = clone(A).copy_(Tensor(np.eye(A.shape[-1], dtype=A.dtype)))
        return identity
    base, exponent = (A, exponent) if exponent > 0 else (inv(A), -exponent)
    if exponent == 1:
        return clone(base)
    out: Tensor | None = None
    while True:  # by squaring
        if exponent & 1:
            out = base if out is None else matmul(out, base)
        exponent >>= 1
        if not exponent:
            break
        base = matmul(base, base)
    assert out is not None
    return out

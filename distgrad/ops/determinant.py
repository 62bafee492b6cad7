"""Determinants. Their gradients exist for singular matrices too, and are computed there as everywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from .decomposition import _check_matrix
from .elementwise import where
from .linalg import _adjoint
from .return_types import Named, named
from .shape import _reshape
from .solver import _inv, _inverse_forward

__all__ = [  # what distgrad itself offers
    "det",
    "logdet",
    "slogdet",
]
METHODS = (  # what a Tensor offers
    "det logdet slogdet"
).split()

_SlogdetResult = named("linalg_slogdet", "sign", "logabsdet")


def _scaled(g: Any, x: Any) -> Any:
    """A number for each matrix times the matrix."""
    return _reshape(g, shape=(*g.shape, 1, 1)) * x


# d det(A) / dA is the matrix of cofactors, det(A) A^-T where A is regular. Of A = U S V^T the cofactors are
# det(U) det(V) U C V^T, with the diagonal C of the products of all singular values but one: no division, and right for
# singular matrices.


def _all_but_one(x: Array) -> Array:
    """Along the last dimension, the products of all the other elements."""
    one = np.ones_like(x[..., :1])
    before = np.cumprod(np.concatenate([one, x[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([one, x[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    return before * after


def _factors(A: Array) -> tuple[Array, Array, Array, Array]:
    """U, S, Vh of A, and det(U) det(Vh), which is 1 or -1."""
    U, S, Vh = np.linalg.svd(A)
    return U, S, Vh, np.sign(np.linalg.det(U) * np.linalg.det(Vh))[..., None, None]


def _size(A: Array) -> Array:
    """The largest sum of magnitudes in a row."""
    return np.asarray(np.abs(A).sum(axis=-1).max(axis=-1, initial=0))


def _cofactors(A: Array) -> Array:
    if not np.isfinite(A).all():
        return np.full_like(A, np.nan)
    inverse, info = _inverse_forward(A)
    with np.errstate(all="ignore"):
        cofactors = np.linalg.det(A)[..., None, None] * np.swapaxes(inverse, -2, -1)
        condition = _size(A) * _size(inverse)
    # where the inverse has lost half of its digits, the slower way
    doubtful = (info != 0) | ~(condition < 1 / math.sqrt(np.finfo(A.dtype).eps))
    if doubtful.any():
        U, S, Vh, sign = _factors(A[doubtful])
        cofactors[doubtful] = sign * (U * _all_but_one(S)[..., None, :]) @ Vh
    return np.asarray(cofactors)


def _cofactors_vjp(g: Array, A: Array) -> Array:
    """In the coordinates of the singular vectors, an element of A on the diagonal changes the other cofactors there,
    and one off the diagonal its mirror image, both by the product of the singular values of neither row nor column."""
    if not np.isfinite(A).all():
        return np.full_like(A, np.nan)
    U, S, Vh, sign = _factors(A)
    inner = np.swapaxes(U, -2, -1) @ g @ np.swapaxes(Vh, -2, -1)
    eye = np.eye(A.shape[-1], dtype=A.dtype)
    # row i: all singular values but number i and one more
    without = _all_but_one(np.where(eye == 1, 1, S[..., None, :])) * (1 - eye)
    changed = -np.swapaxes(inner * without, -2, -1)
    diagonal = np.diagonal(inner, axis1=-2, axis2=-1)[..., None, :]
    changed += (diagonal @ without) * eye
    return np.asarray(U @ (sign * changed) @ Vh)


_cofactor: Primitive = define(
    "Cofactors",
    _cofactors,
    ("A",),
    decomposition=lambda A: _scaled(_det(A), _adjoint(_inv(A)[0])),
    A=lambda g, A: _cofactors_vjp(g, A),
)
_det: Primitive = define("LinalgDet", np.linalg.det, ("A",), A=lambda g, A: _scaled(g, _cofactor(A)))
_slogdet: Primitive = define(
    "LinalgSlogdet",
    lambda A: tuple(np.linalg.slogdet(A)),
    ("A",),
    multiple=True,
    # the sign does not change but where there is no derivative
    A=lambda g, A: None if g[1] is None else _scaled(g[1], _adjoint(_inv(A)[0])),
)


def det(A: Tensor) -> Tensor:
    """The determinants of square matrices: (..., n, n) to (...), 1 for an empty one.

    The gradient, and its gradient, are right for singular matrices too.

    Raises:
        RuntimeError: ``A`` is not a batch of square matrices in float32 or float64.
    """
    _check_matrix("linalg.det", A)
    out: Tensor = _det(A)
    return out


def slogdet(A: Tensor) -> Named:
    """Sign and logarithm of the magnitude of the determinants: (..., n, n) to a pair of (...).

    Of a singular matrix they are 0 and -inf, and the gradient is infinite.

    Raises:
        RuntimeError: ``A`` is not a batch of square matrices in float32 or float64.
    """
    _check_matrix("linalg.slogdet", A)
    return _SlogdetResult(_slogdet(A))


def logdet(A: Tensor) -> Tensor:
    """The logarithms of the determinants: (..., n, n) to (...); -inf where one is 0, NaN where it is negative.

    Raises:
        RuntimeError: ``A`` is not a batch of square matrices in float32 or float64.
    """
    _check_matrix("logdet", A)
    sign, logabsdet = slogdet(A)
    out: Tensor = where(sign.detach() < 0, math.nan, logabsdet)
    return out

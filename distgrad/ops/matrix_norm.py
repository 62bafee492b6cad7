"""Norms of vectors and matrices, and what is measured with them: condition and rank."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from .decomposition import _check_matrix, _eigvalsh, _svdvals, svdvals
from .dims import Dims, dims_argument
from .distance import _norm_along
from .elementwise import abs, sub, where
from .largest import amax, amin
from .linalg import _refuse_others
from .promotion import cast
from .reduction import sum
from .shape import movedim, normalize_dim, unsqueeze
from .solver import _threshold, _tolerances, inv_ex

__all__ = [  # what distgrad itself offers; ``norm`` is in older_linalg
    "dist",
]
METHODS = (  # what a Tensor offers
    "dist"
).split()

_ORDERS = ("fro", "nuc", math.inf, -math.inf, 1, -1, 2, -2)


def _in_dtype(name: str, x: Tensor, dtype: Any) -> Tensor:
    """``x``, of a floating-point dtype, in one that is not narrower."""
    if not x.is_floating_point():
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {x.dtype}")
    if dtype is None:
        return x
    wanted = np.dtype(dtype)
    if wanted.kind != "f":
        raise RuntimeError(f"{name}: dtype should be floating point or complex, but got {wanted}")
    if wanted.itemsize < x.dtype.itemsize:
        raise RuntimeError(
            f"{name}: the dtype of the input ({x.dtype}) should be convertible without narrowing to the specified "
            f"dtype ({wanted})"
        )
    wide: Tensor = cast(x, wanted)
    return wide


def vector_norm(x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The norm of vectors, ``(sum |x|^ord)^(1/ord)``, as ``torch.linalg.vector_norm``.

    Args:
        x: any shape.
        ord: inf is the largest magnitude, -inf the smallest, 0 the number of elements that are not zero.
        dim: the vectors are what lies along these dimensions; without it the whole tensor is one.
        keepdim: keep them with length 1.
        dtype: compute in this floating-point dtype, not narrower than that of ``x``.

    The gradient at a vector of zeros is 0; elements that are equally extreme share it.

    Raises:
        IndexError: a dimension is out of range.
        RuntimeError: integers, a narrower dtype, or a negative or infinite order of no elements.
        TypeError: ``ord`` is no number.
    """
    _refuse_others("linalg_vector_norm", x=x)
    if not isinstance(ord, (int, float)):
        raise TypeError(f"linalg_vector_norm(): argument 'ord' must be Number, not {type(ord).__name__}")
    x = _in_dtype("linalg.vector_norm", x, dtype)
    dims = dims_argument(dim, x.ndim)
    if ord < 0 or math.isinf(ord):
        for d in dims:
            if x.shape[d] == 0:
                raise RuntimeError(
                    f"linalg.vector_norm cannot compute the {ord} norm on the dimension {d} because this dimension is "
                    "empty and the operation does not have an identity"
                )
    return _norm_along(x, ord, dims, keepdim)


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: tuple[int, int] = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The norm of matrices, as ``torch.linalg.matrix_norm``.

    Args:
        A: at least two dimensions.
        ord: "fro": the root of the sum of squares; "nuc": the sum of the singular values; 2 and -2: the largest and the
            smallest of them; 1 and -1: the largest and the smallest sum of magnitudes of a column; inf and -inf: of a
            row.
        dim: the dimensions of the matrices' rows and columns.
        keepdim: keep them with length 1.
        dtype: compute in this floating-point dtype, not narrower than that of ``A``.

    Raises:
        IndexError: a dimension is out of range, or there is no smallest of nothing.
        RuntimeError: another order, dimensions that are not two different ones, integers or a narrower dtype.
    """
    _refuse_others("linalg_matrix_norm", A=A)
    name = "linalg.matrix_norm"
    A = _in_dtype(name, A, dtype)
    if A.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions. Its shape is {list(A.shape)}")
    if isinstance(dim, int) or len(dim) != 2:
        raise RuntimeError(f"{name}: dim must be a 2-tuple. Got {dim}")
    rows, columns = (normalize_dim(d, A.ndim) for d in dim)
    if rows == columns:
        raise RuntimeError(f"{name}: dims must be different. Got {dim}")
    if ord not in _ORDERS:
        raise RuntimeError(f"{name}: Order {ord} not supported.")
    if ord == "fro":
        return _norm_along(A, 2, (rows, columns), keepdim)
    if ord in ("nuc", 2, -2):
        values = svdvals(movedim(A, (rows, columns), (-2, -1)))
        measured = sum(values, -1) if ord == "nuc" else _extreme(values, -1, largest=ord == 2)
        if keepdim:
            for d in sorted((rows, columns)):
                measured = unsqueeze(measured, d)
        return measured
    along, across = (rows, columns) if math.fabs(ord) == 1 else (columns, rows)
    measured = _extreme(sum(abs(A), along, keepdim=True), across, largest=ord > 0, keepdim=True)
    return measured if keepdim else movedim(measured, (rows, columns), (-2, -1))[..., 0, 0]


def _extreme(x: Tensor, dim: int, largest: bool, keepdim: bool = False) -> Tensor:
    """The largest of nothing is 0, as a norm; a smallest there is not."""
    if largest and x.shape[dim] == 0:
        return sum(x, dim, keepdim)
    return amax(x, dim, keepdim) if largest else amin(x, dim, keepdim)


def norm(A: Tensor, ord: Any = None, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """``vector_norm`` or ``matrix_norm``, as ``torch.linalg.norm``: of vectors where one dimension is given or there is
    only one, of matrices where it is two; without ``ord`` the root of the sum of squares of everything.

    Raises:
        RuntimeError: an order without ``dim`` for more than two dimensions, or more than two in ``dim``.
    """
    _refuse_others("linalg_norm", A=A)
    dims = None if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if dims is not None and len(dims) not in (1, 2):
        raise RuntimeError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dims)}")
    if ord is None:
        return vector_norm(A, 2, dims, keepdim, dtype=dtype)
    if dims is None and A.ndim not in (1, 2):
        raise RuntimeError(
            f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D."
        )
    of_matrices = isinstance(ord, str) or (A.ndim if dims is None else len(dims)) == 2
    if not of_matrices:
        return vector_norm(A, ord, dims, keepdim, dtype=dtype)
    if dims is not None and len(dims) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {dims[0]}")
    return matrix_norm(A, ord, (-2, -1) if dims is None else (dims[0], dims[1]), keepdim, dtype=dtype)


def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number of matrices: norm of the matrix times norm of its inverse, as ``torch.linalg.cond``.

    Args:
        A: (..., m, n); square but for ``p`` None, 2 or -2, where it is a quotient of singular values.
        p: an order of ``matrix_norm``; None is 2.

    Returns:
        (...); infinite for singular matrices, 0 for empty ones.

    Raises:
        RuntimeError: another order, or matrices that are not square.
    """
    _refuse_others("linalg_cond", A=A)
    if A.ndim < 2:
        raise RuntimeError(
            f"linalg.cond: The input tensor must have at least 2 dimensions. Its shape is {list(A.shape)}"
        )
    order = 2 if p is None else p
    if order not in _ORDERS:
        raise RuntimeError(f"linalg.cond got an invalid norm type: {p}")
    _check_matrix(*(("linalg.cond", A, False) if order in (2, -2) else (f"linalg.cond(ord={order})", A)))
    if not A.numel():
        return Tensor(np.zeros(A.shape[:-2], A.dtype))
    if order in (2, -2):
        values = svdvals(A)
        largest, smallest = values[..., 0], values[..., -1]
        return largest / smallest if order == 2 else smallest / largest
    inverse, info = inv_ex(A)
    measured = matrix_norm(A, order) * matrix_norm(where(unsqueeze(unsqueeze(info, -1), -1) == 0, inverse, 0.0), order)
    out: Tensor = where(info == 0, measured, math.inf)
    return out


def _rank_forward(A: Array, atol: Any, rtol: Any, hermitian: bool) -> Array:
    values = np.abs(_eigvalsh(A, UPLO="L")) if hermitian else _svdvals(A)
    return np.asarray((values > _threshold(values, A.shape, atol, rtol)[..., None]).sum(axis=-1), np.int64)


_rank: Primitive = define(
    "LinalgMatrixRank", _rank_forward, ("A", "atol", "rtol")
)  # constant wherever it has a derivative


def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """How many singular values of matrices are not zero: (..., m, n) to int64 (...), as ``torch.linalg.matrix_rank``.

    Args:
        A: float32 or float64.
        tol: another name of ``atol``.
        hermitian: the matrices are symmetric; only the lower triangle is read.
        atol: singular values up to it count as zero; a number or a tensor of the batch's shape.
        rtol: likewise, relative to the largest; without both, max(m, n) times the dtype's precision.

    Raises:
        LinAlgError: NaN or infinity in a matrix.
        RuntimeError: ``A`` is not a batch of matrices in float32 or float64.
    """
    _check_matrix("linalg.matrix_rank", A, square=hermitian)
    atol = tol if atol is None else atol
    if tol is not None and rtol is None:
        rtol = 0.0
    out: Tensor = _rank(A, *_tolerances("linalg.matrix_rank", A.shape, atol=atol, rtol=rtol), hermitian=hermitian)
    return out


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The ``p``-norm of ``input - other``, which broadcast and are promoted; a 0-d tensor.

    Raises:
        RuntimeError: integers, or shapes that do not broadcast.
    """
    _refuse_others("dist", input=input, other=other)
    difference = sub(input, other)
    if not difference.is_floating_point():
        raise RuntimeError(
            f"norm(): input dtype should be either floating point or complex. Got {difference.dtype} instead."
        )
    return vector_norm(difference, p)

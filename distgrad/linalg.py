"""``torch.linalg``: products, factorizations, solvers and norms of matrices, batched over leading dimensions.

Without complex numbers there are no eigenvalues of general matrices here (``eig``, ``eigvals``).
"""

from __future__ import annotations

from .ops.decomposition import LinAlgError, cholesky, cholesky_ex, eigh, eigvalsh, qr, svd, svdvals
from .ops.determinant import det, slogdet
from .ops.linalg import cross, diagonal, matmul, multi_dot, vander, vecdot
from .ops.lu_factorization import lu, lu_factor, lu_factor_ex, lu_solve
from .ops.matrix_function import matrix_exp, matrix_power
from .ops.matrix_norm import cond, matrix_norm, matrix_rank, norm, vector_norm
from .ops.solver import (
    inv,
    inv_ex,
    lstsq,
    pinv,
    solve,
    solve_ex,
    solve_triangular,
    tensorinv,
    tensorsolve,
)
from .registry import no_attribute

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "inv_ex",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.linalg'", name, __all__)

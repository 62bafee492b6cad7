from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import decomposition, matrix_function

from .decomposition import SQUARE, refused, regular
from .linalg import NO_SCALAR_MATRIX, product, shapes, together
from .row import Op, Sample, Wrong
from .solver import SINGULAR, eliminated


def power(A: Any, n: int) -> Any:
    base = A if n >= 0 else eliminated(A)
    out = np.broadcast_to(np.eye(A.shape[-1], dtype=A.dtype), A.shape)
    for _ in range(abs(n)):
        out = product(out, base)
    return out


def series(A: Any) -> Any:
    """Taylor, of a matrix that is small enough to need few terms, squared back."""
    small, out = A / 64, np.broadcast_to(np.eye(A.shape[-1]), A.shape)
    term = out
    for k in range(1, 20):
        term = product(term, small) / k
        out = out + term
    for _ in range(6):
        out = product(out, out)
    return out


def powers(*exponents: int) -> Any:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for n in exponents:
            for size in ((2, 3, 3), (1, 2, 2), (0, 0), (0, 2, 2)):
                yield Sample(rng.standard_normal(size) + 3 * np.eye(size[-1]), n)
        yield Sample(np.array([[1, 2], [3, -4]]), 3)

    return samples


ROWS = [
    Op(
        matrix_function.matrix_exp,
        series,
        together(shapes(*((size,) for size in SQUARE), ((3, 3),)), regular((2, 2, 2))),
        (
            *(w for w in refused("linalg.matrix_exp") if "Low precision" not in w.match),
            Wrong(RuntimeError, "Got int64", np.ones((2, 2), int)),
        ),
        ("LinalgMatrixExp", "MatrixScale"),
        dtypes="floating point only, also float16",
        tolerance=(1e-11, 5e-5),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        matrix_function.matrix_power,
        power,
        powers(0, 1, 2, 3, 5, 8, -1, -3),
        (
            Wrong(TypeError, "argument 'A' .* must be Tensor, not int", 3, 2),
            Wrong(TypeError, "argument 'n' must be int, not float", np.eye(2), 2.0),
            Wrong(RuntimeError, "square matrices, but they are 2 by 3", np.zeros((2, 3)), 2),
            Wrong(RuntimeError, "at least 2 dimensions", np.zeros(3), 2),
            Wrong(NotImplementedError, "'Bool'", np.ones((2, 2), bool), 2),
            Wrong(RuntimeError, "linalg.inv: Expected a floating point .* Got int64", np.ones((2, 2), int), -1),
            Wrong(decomposition.LinAlgError, "linalg.inv: .*singular", SINGULAR, -1),
        ),
        ("Matmul", "LinalgInvEx"),
        dtypes="bools are refused",
        tolerance=(1e-11, 5e-5),
        lacks=NO_SCALAR_MATRIX,
    ),
]
FAMILY = matrix_function
EXEMPT: list[Any] = []

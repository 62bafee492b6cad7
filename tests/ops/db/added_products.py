from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.ops import added_products

from .linalg import ONE_DTYPE, product, shapes, together
from .row import Op, Samples, Wrong


def added(input: Any, first: Any, second: Any, beta: float = 1, alpha: float = 1) -> Any:
    out = alpha * product(first, second)
    return out if beta == 0 else beta * input + out


def summed_over_batch(input: Any, first: Any, second: Any, beta: float = 1, alpha: float = 1) -> Any:
    return beta * input + alpha * product(first, second).sum(axis=0)


def added_outer(input: Any, first: Any, second: Any, beta: float = 1, alpha: float = 1) -> Any:
    return beta * input + alpha * np.outer(first, second)


def accumulations(input: tuple[tuple[int, ...], ...], first: tuple[int, ...], second: tuple[int, ...]) -> Samples:
    """Inputs of several shapes, then one with each pair of factors."""
    return together(
        shapes(*((size, first, second) for size in input)),
        shapes((input[0], first, second), beta=0.5, alpha=-2.0),
        shapes((input[0], first, second), beta=0, alpha=2),
        shapes((input[0], first, second), beta=2, alpha=0),
    )


ROWS = [
    Op(
        added_products.addmm,
        added,
        together(
            accumulations(((2, 4), (4,), (2, 1), ()), (2, 3), (3, 4)),
            shapes(((4,), (2, 0), (0, 4)), ((3,), (0, 2), (2, 3))),
        ),
        (
            Wrong(RuntimeError, "mat1 must be a matrix", np.zeros(2), np.zeros(3), np.zeros((3, 2))),
            Wrong(RuntimeError, "mat2 must be a matrix", np.zeros(2), np.zeros((2, 3)), np.zeros(3)),
            Wrong(RuntimeError, "cannot be multiplied", np.zeros(2), np.zeros((2, 3)), np.zeros((2, 2))),
            Wrong(RuntimeError, "'input' at every", np.zeros(3), np.zeros((2, 3)), np.zeros((3, 2))),
            Wrong(RuntimeError, "self and mat2", np.zeros(2, int), np.zeros((2, 3)), np.zeros((3, 2))),
            Wrong(RuntimeError, "mat1 and mat2", np.zeros(2), np.zeros((2, 3), int), np.zeros((3, 2))),
        ),
        ("Addmm",),
        dtypes=ONE_DTYPE,
    ),
    Op(
        added_products.addmv,
        added,
        together(
            accumulations(((2,), (1,), ()), (2, 3), (3,)),
            shapes(((2,), (2, 0), (0,)), ((0,), (0, 2), (2,))),
        ),
        (
            Wrong(RuntimeError, "expected, got 2, 2, 1", np.zeros((2, 2)), np.zeros((2, 3)), np.zeros(3)),
            Wrong(RuntimeError, "size mismatch", np.zeros(2), np.zeros((2, 3)), np.zeros(2)),
            Wrong(RuntimeError, "'input' at every", np.zeros(3), np.zeros((2, 3)), np.zeros(3)),
        ),
        ("Addmm",),
        dtypes=ONE_DTYPE,
    ),
    Op(
        added_products.addr,
        added_outer,
        together(
            accumulations(((2, 3), (3,), (2, 1), ()), (2,), (3,)),
            shapes(((2, 0), (2,), (0,))),
        ),
        (
            Wrong(RuntimeError, "Expected 1-D argument vec1, but got 2-D", np.zeros(2), np.zeros((2, 1)), np.zeros(3)),
            Wrong(RuntimeError, "'input' at every", np.zeros(2), np.zeros(2), np.zeros(3)),
            Wrong(
                RuntimeError,
                "argument alpha must not be a floating point number",
                *(np.zeros(2, int) for _ in range(3)),
                alpha=0.5,
            ),
        ),
        ("Addmm",),
        dtypes="of all three, promoted",
    ),
    Op(
        added_products.baddbmm,
        added,
        together(
            accumulations(((2, 2, 1), (1,), (2, 1, 1), ()), (2, 2, 3), (2, 3, 1)),
            shapes(((1,), (0, 2, 3), (0, 3, 1))),
        ),
        (
            Wrong(RuntimeError, "batch1 must be a 3D", np.zeros(2), np.zeros((2, 3)), np.zeros((2, 3, 2))),
            Wrong(RuntimeError, r"to be: \[2, 3\]", np.zeros(2), np.zeros((2, 2, 3)), np.zeros((2, 2, 2))),
            Wrong(RuntimeError, "'input' at every", np.zeros(3), np.zeros((2, 2, 3)), np.zeros((2, 3, 2))),
        ),
        ("Addmm",),
        dtypes=ONE_DTYPE,
    ),
    Op(
        added_products.addbmm,
        summed_over_batch,
        together(
            accumulations(((2, 2), (2,), (2, 1), ()), (3, 2, 3), (3, 3, 2)),
            shapes(((2, 2), (0, 2, 3), (0, 3, 2))),
        ),
        (
            Wrong(RuntimeError, "batch2 must be a 3D", np.zeros(2), np.zeros((2, 2, 3)), np.zeros((3, 2))),
            Wrong(RuntimeError, "but got", np.zeros(2), np.zeros((2, 2, 3)), np.zeros((3, 3, 2))),
        ),
        ("Addmm",),
        dtypes=ONE_DTYPE,
    ),
]
FAMILY = added_products
EXEMPT: list[Any] = []

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import linalg

from .row import Op, Sample, Samples, Wrong


def product(a: Any, b: Any) -> Any:
    """Sums of products, one element of the result at a time."""
    left, right = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, lead + left.shape[-2:])
    right = np.broadcast_to(right, lead + right.shape[-2:])
    out = np.zeros((*lead, left.shape[-2], right.shape[-1]), np.result_type(a, b))
    for place in np.ndindex(out.shape):
        *batch, i, j = place
        out[place] = sum((left[(*batch, i, k)] * right[(*batch, k, j)] for k in range(a.shape[-1])), start=0)
    if b.ndim == 1:
        out = out[..., 0]
    return out[..., 0] if a.ndim == 1 and b.ndim == 1 else out[..., 0, :] if a.ndim == 1 else out


def shapes(*cases: tuple[tuple[int, ...], ...]) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for case in cases:
            yield Sample(*(rng.standard_normal(size) for size in case))

    return samples


NO_SCALAR = {"0-d": "a product needs a dimension to sum over: an error"}

ROWS = [
    Op(
        linalg.matmul,
        product,
        shapes(
            ((2, 3), (3, 4)),
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (3, 2)),
            ((2, 2, 3), (3, 2)),
            ((2, 1, 2, 3), (2, 3, 1)),
            ((3,), (2, 3, 2)),
            ((2, 2, 3), (3,)),
            ((0, 3), (3, 2)),
            ((2, 0), (0, 3)),
            ((0, 2, 3), (3, 2)),
        ),
        (
            Wrong(
                RuntimeError,
                r"cannot be multiplied \(\[2, 3\] and \[2, 3\]\): 3 columns meet 2 rows",
                np.zeros((2, 3)),
                np.zeros((2, 3)),
            ),
            Wrong(RuntimeError, "need to be at least 1D, but they are 0D and 1D", np.zeros(()), np.zeros(3)),
            Wrong(RuntimeError, "expected m1 and m2 to have the same dtype", np.zeros((2, 2)), np.ones((2, 2), int)),
            Wrong(RuntimeError, "batch dimensions", np.zeros((2, 2, 3)), np.zeros((3, 3, 1))),
            Wrong(TypeError, "arguments must be Tensors, not Tensor and int", np.zeros((2, 2)), 3),
        ),
        ("Matmul", "Permute", "SumToSize"),
        dtypes="operands must have one dtype: an error",
        lacks=NO_SCALAR,
    ),
    Op(
        linalg.mm,
        product,
        shapes(((2, 3), (3, 4)), ((0, 3), (3, 2)), ((2, 0), (0, 3))),
        (Wrong(RuntimeError, r"must be matrices, got \[3\] and \[3, 2\]", np.zeros(3), np.zeros((3, 2))),),
        ("Matmul",),
        dtypes="operands must have one dtype: an error",
        lacks=NO_SCALAR,
    ),
    Op(
        linalg.linear,
        lambda x, w, b=None: product(x, np.transpose(w)) + (0 if b is None else b),
        shapes(
            ((4, 3), (2, 3), (2,)),
            ((3,), (2, 3), (2,)),
            ((2, 2, 3), (4, 3)),
            ((0, 3), (2, 3), (2,)),
        ),
        (
            Wrong(RuntimeError, r"the input is \[4, 2\], the weight \[2, 3\]", np.zeros((4, 2)), np.zeros((2, 3))),
            Wrong(RuntimeError, "cannot be multiplied", np.zeros((4, 3)), np.zeros(3)),
        ),
        ("Matmul", "Add"),
        dtypes="operands must have one dtype: an error",
        lacks=NO_SCALAR,
    ),
]
FAMILY = linalg
EXEMPT: list[Any] = []

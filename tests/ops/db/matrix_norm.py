from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import matrix_norm

from .decomposition import ONLY_WIDE, distinct, refused, singular_values
from .linalg import NO_SCALAR_MATRIX, in_torch_linalg, shapes, together
from .row import Op, Sample, Samples, Wrong
from .solver import eliminated

INF = math.inf


def of_vectors(x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    dims = tuple(range(x.ndim)) if dim is None or dim == () else dim
    x = np.abs(x if dtype is None else x.astype(dtype))
    if ord in (INF, -INF):
        return (np.max if ord > 0 else np.min)(x, axis=dims, keepdims=keepdim)
    if ord == 0:
        return (x != 0).astype(x.dtype).sum(axis=dims, keepdims=keepdim)
    return (x**ord).sum(axis=dims, keepdims=keepdim) ** (1 / ord)


def of_matrices(A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, dtype: Any = None) -> Any:
    M = np.moveaxis(A, dim, (-2, -1))
    if ord == "fro":
        out = np.sqrt((M * M).sum(axis=(-2, -1)))
    elif ord in ("nuc", 2, -2):
        S = singular_values(M)[1]
        out = S.sum(axis=-1) if ord == "nuc" else S.max(axis=-1, initial=0) if ord > 0 else S.min(axis=-1)
    else:
        sums = np.abs(M).sum(axis=-2 if abs(ord) == 1 else -1)
        out = sums.max(axis=-1, initial=0) if ord > 0 else sums.min(axis=-1)
    return np.expand_dims(out, tuple(d % A.ndim for d in dim)) if keepdim else out


def either(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    count = A.ndim if dim is None else 1 if isinstance(dim, int) else len(dim)
    if ord is None or (count == 1 and not isinstance(ord, str)):
        return of_vectors(A, 2 if ord is None else ord, dim, keepdim)
    return of_matrices(A, ord, (-2, -1) if dim is None else dim, keepdim)


def condition(A: Any, p: Any = None) -> Any:
    order = 2 if p is None else p
    if 0 in A.shape[-2:]:
        return np.zeros(A.shape[:-2])
    if order in (2, -2):
        S = singular_values(A)[1]
        return S[..., 0] / S[..., -1] if order == 2 else S[..., -1] / S[..., 0]
    return of_matrices(A, order) * of_matrices(eliminated(A), order)


def each_order(*orders: Any, sizes: tuple[tuple[int, ...], ...], **keywords: Any) -> Samples:
    return together(*(distinct(*sizes, ord=ord, **keywords) for ord in orders))


def each_p(*orders: Any) -> Samples:
    return together(*(distinct((3, 3), (2, 2, 2), p=p) for p in orders))


def ranks(rng: np.random.Generator) -> Iterator[Sample]:
    low = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 3))
    full = rng.standard_normal((3, 3)) + 3 * np.eye(3)
    for A in (low, full, np.stack([low, full]), np.zeros((2, 3)), np.zeros((0, 3)), np.ones((3, 2)) * 0.5):
        yield Sample(A)
    yield Sample(np.diag([3.0, 1.0, 0.1]), 0.5)
    yield Sample(np.diag([3.0, 1.0, 0.1]), atol=0.5)
    yield Sample(np.diag([3.0, 1.0, 0.1]), rtol=0.5)
    yield Sample(np.diag([3.0, -1.0, 0.1]), rtol=0.1, hermitian=True)
    yield Sample(np.stack([np.diag([3.0, 1.0]), np.diag([0.3, 0.1])]), atol=np.array([2.0, 0.01]))


def rank(A: Any, tol: Any = None, hermitian: bool = False, atol: Any = None, rtol: Any = None) -> Any:
    A = A.astype(np.float64)
    S = np.sqrt(np.abs(np.linalg.eigvalsh(A @ np.swapaxes(A, -2, -1))))
    absolute = atol if tol is None else tol
    relative = rtol if rtol is not None else 0 if absolute is not None else 1e-5
    limit = np.maximum(0 if absolute is None else absolute, relative * S.max(axis=-1, initial=0))
    return np.asarray((limit[..., None] < S if limit.ndim else limit < S).sum(axis=-1))


ORDERS = ("fro", "nuc", INF, -INF, 1, -1, 2, -2)
NUMBERS = (2, 1, INF, -INF, 3, 0.5, 2.5, -1, -2)

ROWS = [
    Op(
        matrix_norm.vector_norm,
        of_vectors,
        together(
            *(shapes(((4,),), ((),), ((2, 3),), ord=ord) for ord in NUMBERS),
            *(shapes(((2, 0),), ((0,),), ord=ord) for ord in (1, 2, 3)),
            shapes(((2, 3),), dim=1, keepdim=True),
            shapes(((2, 3, 2),), ord=3, dim=(0, 2)),
            shapes(((2, 3),), dim=()),
            shapes(((0, 3),), ord=INF, dim=1),
            lambda rng: iter([Sample(np.array([-2.0, 1.0]), dtype=np.dtype("float64"))]),
        ),
        (
            Wrong(TypeError, "argument 'x' .* must be Tensor, not int", 3),
            Wrong(TypeError, "'ord' must be Number, not str", np.zeros(3), "fro"),
            Wrong(RuntimeError, "Expected a floating point .* Got int64", np.ones(3, int)),
            Wrong(RuntimeError, "dtype should be floating point or complex, but got int64", np.ones(3), dtype="int64"),
            Wrong(RuntimeError, "without narrowing .* .float32.", np.ones(3), dtype="float32"),
            Wrong(RuntimeError, "cannot compute the inf norm on the dimension 0", np.zeros(0), INF),
            Wrong(IndexError, "out of range", np.zeros(3), 2, 1),
            Wrong(RuntimeError, "dim 0 appears multiple times", np.zeros((2, 2)), 2, (0, 0)),
        ),
        ("PNorm",),
        torch=in_torch_linalg("vector_norm"),
        dtypes="only floating",
        tolerance=(1e-11, 1e-4),
    ),
    Op(
        matrix_norm.vector_norm,
        of_vectors,
        lambda rng: iter([Sample(np.array(x), ord=0) for x in ([0.0, 2.0, -1.0], 0.0, [[0.0], [1.0]], [])]),
        (Wrong(RuntimeError, "Got int64", np.ones(3, int), 0),),
        name="vector_norm that counts",
        torch=in_torch_linalg("vector_norm"),
        differentiable=False,
        dtypes="only floating",
    ),
    Op(
        matrix_norm.matrix_norm,
        of_matrices,
        together(
            each_order(*ORDERS, sizes=((2, 3), (2, 3, 2), (1, 1), (0, 2, 2))),
            each_order(*ORDERS, sizes=((2, 3, 2),), dim=(0, 1), keepdim=True),
            each_order("nuc", 1, INF, 2, sizes=((2, 3, 2),), dim=(2, 0)),
            distinct((2, 2), dtype=np.dtype("float64")),
        ),
        (
            Wrong(TypeError, "argument 'A' .* must be Tensor, not int", 3),
            Wrong(RuntimeError, "Expected a floating point .* Got int64", np.ones((2, 2), int)),
            Wrong(RuntimeError, "at least 2 dimensions", np.zeros(3)),
            Wrong(RuntimeError, "Order 3 not supported", np.eye(2), 3),
            Wrong(RuntimeError, "Order x not supported", np.eye(2), "x"),
            Wrong(RuntimeError, "dim must be a 2-tuple. Got 1", np.eye(2), "fro", 1),
            Wrong(RuntimeError, r"dims must be different. Got \(0, -2\)", np.eye(2), "fro", (0, -2)),
            Wrong(IndexError, "out of range", np.eye(2), "fro", (0, 2)),
            Wrong(IndexError, "amin", np.zeros((0, 3)), -2),
            Wrong(RuntimeError, "Low precision", np.ones((2, 2), np.float16), 2),
        ),
        ("PNorm", "LinalgSvd"),
        torch=in_torch_linalg("matrix_norm"),
        dtypes="only floating",
        tolerance=(1e-11, 5e-5),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        matrix_norm.norm,
        either,
        together(
            shapes(((2, 3, 2),), ((3,),), ((),), ((0, 2),)),
            shapes(((2, 3),), keepdim=True),
            shapes(((2, 3, 2),), dim=(0, 2)),
            shapes(((3,),), ord=3),
            shapes(((3,),), ord=2, keepdim=True),
            shapes(((2, 3),), ord=1, dim=0),
            each_order(*ORDERS, sizes=((2, 3),)),
            each_order("nuc", 1, 2, sizes=((2, 3, 2),), dim=(0, 2), keepdim=True),
        ),
        (
            Wrong(RuntimeError, "ord is, the input must be 1D or 2D. Got 3D", np.zeros((2, 2, 2)), 2),
            Wrong(RuntimeError, "length 1 or 2. Got .0, 1, 2.", np.zeros((2, 2, 2)), 2, (0, 1, 2)),
            Wrong(RuntimeError, "dim must be a 2-tuple. Got 1", np.eye(2), "fro", 1),
            Wrong(RuntimeError, "at least 2 dimensions", np.zeros(3), "fro"),
        ),
        ("PNorm", "LinalgSvd"),
        torch=in_torch_linalg("norm"),
        dtypes="only floating",
        tolerance=(1e-11, 5e-5),
    ),
    Op(
        matrix_norm.cond,
        condition,
        together(each_p(None, 2, -2), distinct((3, 2), (2, 2, 3), (0, 2, 2), (2, 0, 0), (0, 3))),
        (
            *refused("linalg.cond", square=False)[1:3],
            Wrong(RuntimeError, "linalg.cond: .* at least 2 dimensions", np.zeros(3)),
            Wrong(RuntimeError, "invalid norm type: 3", np.eye(2), 3),
            Wrong(RuntimeError, "linalg.cond.ord=1.: A must be .* they are 2 by 3", np.zeros((2, 3)), 1),
        ),
        ("LinalgSvd",),
        torch=in_torch_linalg("cond"),
        dtypes=ONLY_WIDE,
        tolerance=(1e-10, 1e-4),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same it depends on rounding"},
    ),
    Op(
        matrix_norm.cond,
        condition,
        together(each_p(*(ord for ord in ORDERS if ord not in (2, -2))), distinct((2, 0, 0), p=1)),
        (Wrong(RuntimeError, "linalg.cond.ord=nuc.: A must be .* they are 2 by 3", np.zeros((2, 3)), "nuc"),),
        ("LinalgInvEx",),
        name="cond by the inverse",
        # PyTorch's own function raises in its backward pass
        torch=lambda torch, A, p: torch.linalg.matrix_norm(A, p) * torch.linalg.matrix_norm(torch.linalg.inv(A), p),
        dtypes=ONLY_WIDE,
        tolerance=(1e-10, 1e-4),
        lacks={**NO_SCALAR_MATRIX, "layouts": "of rows that are all the same it depends on rounding"},
    ),
    Op(
        matrix_norm.matrix_rank,
        rank,
        ranks,
        (
            *refused("linalg.matrix_rank", square=False),
            Wrong(RuntimeError, "atol .3. does not broadcast", np.eye(2), atol=np.zeros(3)),
            Wrong(RuntimeError, "square matrices, but they are 2 by 3", np.zeros((2, 3)), hermitian=True),
        ),
        ("LinalgMatrixRank",),
        torch=in_torch_linalg("matrix_rank"),
        differentiable=False,
        dtypes=ONLY_WIDE,
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        matrix_norm.dist,
        lambda a, b, p=2: of_vectors(a - b, p),
        together(
            shapes(((2, 3), (3,)), ((), (2,)), ((0, 2), (2,))),
            *(shapes(((2, 3), (2, 1)), p=p) for p in NUMBERS),
        ),
        (
            Wrong(TypeError, "argument 'other' .* must be Tensor", np.zeros(3), 3),
            Wrong(RuntimeError, "Got int64 instead", np.ones(3, int), np.ones(3, int)),
            Wrong(RuntimeError, "do not broadcast", np.zeros(3), np.zeros(2)),
        ),
        ("PNorm",),
        dtypes="of the difference",
        tolerance=(1e-11, 1e-4),
    ),
]
FAMILY = matrix_norm
EXEMPT: list[Any] = []

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def shapes(*cases: tuple[tuple[int, ...], ...], **keywords: Any) -> Samples:
    """A call for each case, with arrays of these shapes."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for case in cases:
            yield Sample(*(rng.standard_normal(size) for size in case), **keywords)

    return samples


def together(*several: Samples) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for one in several:
            yield from one(rng)

    return samples


def in_torch_linalg(name: str) -> Callable[..., Any]:
    """Where PyTorch has the function: a row's ``torch``."""
    return lambda torch, *args, **kwargs: getattr(torch.linalg, name)(*args, **kwargs)


def integers(*cases: tuple[tuple[int, ...], ...]) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for case in cases:
            yield Sample(*(np.asarray(rng.integers(-9, 9, size)) for size in case))

    return samples


def chain(tensors: Any) -> Any:
    out = tensors[0]
    for x in tensors[1:]:
        out = product(out, x)
    return out


def chains(rng: np.random.Generator) -> Iterator[Sample]:
    for case in (
        [(2, 3), (3, 4)],
        [(2, 5), (5, 1), (1, 4), (4, 2)],
        [(3,), (3, 4), (4,)],
        [(3,), (3,)],
        [(2, 3), (3,)],
        [(2, 0), (0, 3), (3, 1)],
    ):
        yield Sample([rng.standard_normal(size) for size in case])


def cross_of_rows(a: Any, b: Any, dim: int = -1) -> Any:
    a, b = np.broadcast_arrays(a, b)
    out = np.zeros(a.shape)
    first, second, result = (np.moveaxis(x, dim, 0) for x in (a, b, out))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        result[i] = first[j] * second[k] - first[k] * second[j]
    return out


def powers(x: Any, N: int | None = None) -> Any:
    count = x.shape[-1] if N is None else N
    return np.stack([x**k for k in range(count)], axis=-1)


NO_SCALAR = {"0-d": "a product needs a dimension to sum over: an error"}
NO_SCALAR_MATRIX = {"0-d": "a matrix has two dimensions: an error"}
ONE_DTYPE = "operands must have one dtype: an error"


ROWS = [
    Op(
        linalg.matmul,
        product,
        together(
            shapes(
                ((2, 3), (3, 4)),
                ((3,), (3,)),
                ((2, 3), (3,)),
                ((3,), (3, 2)),
                ((2, 2, 3), (3, 2)),
                ((2, 3), (4, 3, 2)),
                ((2, 1, 2, 3), (2, 3, 1)),
                ((3,), (2, 3, 2)),
                ((2, 2, 3), (3,)),
                ((0, 3), (3, 2)),
                ((2, 0), (0, 3)),
                ((0, 2, 3), (3, 2)),
                ((2, 3), (0, 3, 2)),
            ),
            integers(((2, 3), (3, 2))),
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
            Wrong(TypeError, r"argument 'other' \(position 2\) must be Tensor, not int", np.zeros((2, 2)), 3),
            Wrong(NotImplementedError, "not implemented for 'Bool'", np.ones((2, 2), bool), np.ones((2, 2), bool)),
        ),
        ("Matmul", "Mv", "Dot", "Permute", "SumToSize"),
        dtypes=ONE_DTYPE,
        lacks=NO_SCALAR,
    ),
    Op(
        linalg.mm,
        product,
        shapes(((2, 3), (3, 4)), ((0, 3), (3, 2)), ((2, 0), (0, 3))),
        (
            Wrong(RuntimeError, r"self must be a matrix, but its shape is \[3\]", np.zeros(3), np.zeros((3, 2))),
            Wrong(RuntimeError, r"mat2 must be a matrix", np.zeros((2, 3)), np.zeros((1, 3, 2))),
        ),
        ("Matmul",),
        dtypes=ONE_DTYPE,
        lacks=NO_SCALAR,
    ),
    Op(
        linalg.mv,
        product,
        shapes(((2, 3), (3,)), ((0, 3), (3,)), ((2, 0), (0,))),
        (
            Wrong(RuntimeError, "matrix @ vector expected, got 2D .* and 2D", np.zeros((2, 3)), np.zeros((3, 1))),
            Wrong(RuntimeError, "cannot be multiplied", np.zeros((2, 3)), np.zeros(2)),
        ),
        ("Mv",),
        dtypes=ONE_DTYPE,
        lacks=NO_SCALAR,
    ),
    Op(
        linalg.bmm,
        product,
        shapes(((2, 2, 3), (2, 3, 1)), ((0, 2, 3), (0, 3, 2)), ((2, 1, 0), (2, 0, 2))),
        (
            Wrong(RuntimeError, "batch1 must be a 3D tensor", np.zeros((2, 3)), np.zeros((2, 3, 1))),
            Wrong(RuntimeError, "batch2 must be a 3D tensor", np.zeros((2, 2, 3)), np.zeros((3, 1))),
            Wrong(RuntimeError, r"to be: \[2, 3\] but got: \[1, 3\]", np.zeros((2, 2, 3)), np.zeros((1, 3, 1))),
        ),
        ("Matmul",),
        dtypes=ONE_DTYPE,
        lacks=NO_SCALAR,
    ),
    *(
        Op(
            function,
            product,
            shapes(((3,), (3,)), ((1,), (1,)), ((0,), (0,))),
            (
                Wrong(RuntimeError, "1D tensors expected, but got 2D and 1D", np.zeros((2, 3)), np.zeros(3)),
                Wrong(RuntimeError, r"inconsistent tensor size, expected tensor \[3\]", np.zeros(3), np.zeros(2)),
                Wrong(RuntimeError, "to have same dtype, but found float64 and int64", np.zeros(3), np.ones(3, int)),
            ),
            ("Dot",),
            dtypes=ONE_DTYPE,
            lacks=NO_SCALAR,
        )
        for function in (linalg.dot, linalg.vdot)
    ),
    Op(
        linalg.vecdot,
        lambda x, y, dim=-1: (x * y).sum(axis=dim),
        together(
            shapes(((2, 3), (2, 3)), ((3,), (2, 3)), ((), ()), ((2, 0), (2, 0))),
            shapes(((3, 2), (3, 1)), dim=0),
        ),
        (
            Wrong(RuntimeError, "Expected a floating point .* Got int64", np.ones(3, int), np.ones(3, int)),
            Wrong(RuntimeError, "x of type float64 and y of type int64", np.ones(3), np.ones(3, int)),
            Wrong(RuntimeError, "do not broadcast", np.ones((2, 3)), np.ones((2, 4))),
        ),
        torch=in_torch_linalg("vecdot"),
        dtypes=ONE_DTYPE,
    ),
    *(
        Op(
            function,
            lambda a, b: np.array([[x * y for y in b] for x in a]).reshape(len(a), len(b)),
            shapes(((2,), (3,)), ((0,), (3,)), ((1,), (1,))),
            (
                Wrong(RuntimeError, "Expected 1-D argument self, but got 2-D", np.zeros((2, 3)), np.zeros(3)),
                Wrong(RuntimeError, "Expected 1-D argument vec2, but got 0-D", np.zeros(3), np.zeros(())),
            ),
            dtypes="of the vectors' product",
            lacks={"0-d": "vectors only: an error"},
        )
        for function in (linalg.outer, linalg.ger)
    ),
    Op(
        linalg.linear,
        lambda x, w, b=None: product(x, np.transpose(w)) + (0 if b is None else b),
        shapes(
            ((4, 3), (2, 3), (2,)),
            ((3,), (2, 3), (2,)),
            ((2, 2, 3), (4, 3)),
            ((2, 1, 3), (2, 3), (2,)),
            ((4, 3), (2, 3), (1,)),
            ((4, 3), (2, 3), (4, 2)),
            ((4, 3), (3,)),
            ((0, 3), (2, 3), (2,)),
            ((2, 0), (3, 0), (3,)),
        ),
        (
            Wrong(RuntimeError, r"the input is \[4, 2\], the weight \[2, 3\]", np.zeros((4, 2)), np.zeros((2, 3))),
            Wrong(RuntimeError, "cannot be multiplied", np.zeros((4, 3)), np.zeros(3), np.zeros(())),
            Wrong(RuntimeError, "same dtype, but got: float64 != int64", np.zeros((4, 3)), np.zeros((2, 3), int)),
            Wrong(RuntimeError, "the bias", np.zeros((4, 3)), np.zeros((2, 3)), np.zeros(2, int)),
            Wrong(RuntimeError, r"expanded size .* \[4, 2\].* 'bias'", np.zeros((4, 3)), np.zeros((2, 3)), np.zeros(3)),
        ),
        ("Linear", "Matmul"),
        dtypes=ONE_DTYPE,
        lacks=NO_SCALAR,
    ),
    Op(
        linalg.multi_dot,
        chain,
        chains,
        (
            Wrong(RuntimeError, "expected at least 2 tensors but got 1", [np.zeros((2, 3))]),
            Wrong(RuntimeError, "first tensor must be 1D or 2D but got 3D", [np.zeros((2, 2, 3)), np.zeros((3, 3))]),
            Wrong(RuntimeError, "tensor 1 must be 2D but got 1D", [np.zeros((2, 3)), np.zeros(3), np.zeros(3)]),
            Wrong(
                RuntimeError,
                r"tensors 0 and 1 with shapes \[2, 3\] and \[4, 3\] cannot",
                [np.zeros((2, 3)), np.zeros((4, 3))],
            ),
            Wrong(RuntimeError, "tensor 1 int64", [np.zeros((2, 3)), np.zeros((3, 3), int)]),
        ),
        ("Matmul",),
        torch=in_torch_linalg("multi_dot"),
        dtypes=ONE_DTYPE,
        lacks=NO_SCALAR,
    ),
    Op(
        linalg.chain_matmul,
        lambda *matrices: chain(matrices),
        shapes(((2, 3), (3, 4), (4, 1)), ((2, 3),), ((0, 2), (2, 3))),
        (
            Wrong(RuntimeError, "Expected one or more matrices"),
            Wrong(RuntimeError, "dimension is 1, expected 2", np.zeros(3), np.zeros((3, 2))),
        ),
        ("Matmul",),
        # PyTorch warns that it will go
        torch=lambda torch, *matrices: torch.linalg.multi_dot(matrices) if len(matrices) > 1 else matrices[0],
        dtypes=ONE_DTYPE,
        lacks=NO_SCALAR,
    ),
    Op(
        linalg.kron,
        np.kron,
        shapes(((2, 3), (1, 2)), ((2,), (2, 1, 3)), ((2, 1, 2), (3,)), ((), (3,)), ((0, 2), (2, 2))),
        (Wrong(TypeError, r"argument 'other' \(position 2\) must be Tensor, not int", np.zeros(3), 2),),
        dtypes="of the product",
    ),
    Op(
        linalg.cross,
        cross_of_rows,
        together(
            shapes(((3,), (3,)), ((2, 3), (2, 3)), ((1, 3), (4, 3)), ((0, 3), (0, 3))),
            shapes(((3, 2), (3, 1)), dim=0),
        ),
        (
            Wrong(RuntimeError, "same number of dimensions", np.zeros(3), np.zeros((2, 3))),
            Wrong(RuntimeError, "dimension -1 must have length 3. Got 2 and 2", np.zeros(2), np.zeros(2)),
            Wrong(IndexError, "out of range", np.zeros(3), np.zeros(3), dim=1),
            Wrong(IndexError, "has no dimensions", np.zeros(()), np.zeros(())),
            Wrong(RuntimeError, "expected scalar type float64 but found int64", np.zeros(3), np.zeros(3, int)),
            Wrong(RuntimeError, "do not broadcast", np.zeros((2, 3)), np.zeros((4, 3))),
        ),
        ("LinalgCross",),
        torch=in_torch_linalg("cross"),
        dtypes=ONE_DTYPE,
        lacks={"0-d": "vectors of three elements only: an error"},
    ),
    Op(
        linalg.trace,
        lambda x: np.asarray(sum((x[i, i] for i in range(min(x.shape))), start=0.0)),
        shapes(((3, 3),), ((2, 4),), ((0, 3),)),
        (
            Wrong(RuntimeError, "expected a matrix, but got tensor with dim 3", np.zeros((1, 2, 2))),
            Wrong(NotImplementedError, "not implemented for 'Bool'", np.ones((2, 2), bool)),
        ),
        ("Diagonal",),
        dtypes="integers are summed in int64, bools refused",
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        linalg.adjoint,
        lambda x: np.moveaxis(x, -1, -2),
        shapes(((2, 3),), ((2, 1, 3),), ((0, 3),)),
        (Wrong(RuntimeError, "matrices or batches of matrices. Got 1-D tensor", np.zeros(3)),),
        ("Permute",),
        lacks={"0-d": "PyTorch warns that it will be refused"},
    ),
    Op(
        linalg.diagonal,
        lambda A, offset=0, dim1=-2, dim2=-1: np.stack(
            [np.moveaxis(A, (dim1, dim2), (0, 1))[i, i + offset] for i in range(A.shape[dim1] - offset)], axis=-1
        ),
        together(shapes(((2, 3, 3),), ((0, 2, 2),)), shapes(((3, 3),), offset=1), shapes(((2, 3, 2),), dim1=0)),
        (Wrong(RuntimeError, "cannot be identical", np.zeros((2, 2)), dim1=0, dim2=0),),
        ("Diagonal",),
        torch=in_torch_linalg("diagonal"),
        lacks=NO_SCALAR_MATRIX,
    ),
    Op(
        linalg.vander,
        powers,
        together(
            shapes(((3,),), ((2, 2),), ((0, 2),)), shapes(((2,),), N=4), lambda rng: iter([Sample(np.array([2, -1]))])
        ),
        (
            Wrong(RuntimeError, "N must be greater than 1. Got 1", np.zeros(3), 1),
            Wrong(RuntimeError, "N must be greater than 1", np.zeros(())),
            Wrong(RuntimeError, "but got bool", np.ones(2, bool)),
        ),
        ("Pow",),
        torch=in_torch_linalg("vander"),
        dtypes="integers give int64, bools are refused",
        lacks={"0-d": "a vector of one element has no powers: an error"},
    ),
]
FAMILY = linalg
EXEMPT: list[Any] = []

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import rearrange

from .row import Op, Sample, Samples, Wrong

DIM = "Dimension out of range"
SCALAR: tuple[int, ...] = ()


def calls(*cases: tuple[Any, ...]) -> Samples:
    """Each case: the shape of the input, then the other arguments."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size, *rest in cases:
            yield Sample(rng.standard_normal(size), *rest)

    return samples


def unpacked(values: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(values[0]) if len(values) == 1 and not isinstance(values[0], int) else values


def from_places(x: Any, size: tuple[int, ...], source: Callable[[tuple[int, ...]], tuple[int, ...] | None]) -> Any:
    """Element by element: which place of ``x`` each place of the result comes from, None for a zero."""
    out = np.zeros(size, x.dtype)
    for place in np.ndindex(*size):
        origin = source(place)
        if origin is not None:
            out[place] = x[origin]
    return out


def repeated(x: Any, *repeats: Any) -> Any:
    counts = unpacked(repeats)
    lengths = (1,) * (len(counts) - x.ndim) + x.shape
    size = tuple(n * r for n, r in zip(lengths, counts, strict=True))
    lead = len(counts) - x.ndim
    return from_places(x, size, lambda place: tuple(i % n for i, n in zip(place[lead:], x.shape, strict=True)))


def tiled(x: Any, *dims: Any) -> Any:
    counts = unpacked(dims)
    return repeated(x, (1,) * (x.ndim - len(counts)) + counts)


def flipped(x: Any, *dims: Any) -> Any:
    if not x.ndim:
        return x
    axes = {d % x.ndim for d in unpacked(dims)}
    return from_places(
        x, x.shape, lambda place: tuple(x.shape[d] - 1 - i if d in axes else i for d, i in enumerate(place))
    )


def rolled(x: Any, shifts: Any, dims: Any = ()) -> Any:
    steps, axes = unpacked((shifts,)), unpacked((dims,))
    if not axes:
        flat = [x[place] for place in np.ndindex(x.shape)]
        turned = [flat[(i - steps[0]) % len(flat)] for i in range(len(flat))]
        return np.array(turned, x.dtype).reshape(x.shape)
    moves = [0] * x.ndim
    for step, d in zip(steps, axes, strict=True):
        moves[d] += step
    return from_places(
        x, x.shape, lambda place: tuple((i - m) % n for i, m, n in zip(place, moves, x.shape, strict=True))
    )


def kept(x: Any, condition: Callable[[int, int], bool]) -> Any:
    return from_places(x, x.shape, lambda place: place if condition(place[-2], place[-1]) else None)


def on_diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    a, b = dim1 % x.ndim, dim2 % x.ndim
    rest = [d for d in range(x.ndim) if d not in (a, b)]
    row, column = max(-offset, 0), max(offset, 0)
    length = max(min(x.shape[a] - row, x.shape[b] - column), 0)

    def source(place: tuple[int, ...]) -> tuple[int, ...]:
        at = dict(zip(rest, place, strict=False)) | {a: place[-1] + row, b: place[-1] + column}
        return tuple(at[d] for d in range(x.ndim))

    return from_places(x, (*(x.shape[d] for d in rest), length), source)


def diag(x: Any, diagonal: int = 0) -> Any:
    if x.ndim == 2:
        return on_diagonal(x, diagonal)
    side = x.shape[0] + abs(diagonal)
    return from_places(x, (side, side), lambda p: (min(p),) if p[1] - p[0] == diagonal else None)


def method(name: str) -> Callable[..., Any]:
    return lambda torch, x, *args: getattr(x, name)(*args)


MATRICES = calls(
    ((3, 4),), ((4, 3), 1), ((3, 3), -1), ((2, 3, 3), 2), ((2, 2), 9), ((2, 2), -9), ((0, 3),), ((2, 0, 2),)
)
KEPT = "takes dims; test_new_places_keep_the_dtype"
NO_MATRIX = {"0-d": "there is no matrix: an error"}

ROWS = [
    Op(
        rearrange.repeat,
        repeated,
        calls(
            ((2, 3), 2, 1),
            ((2, 3), (1, 1)),
            ((2, 3), 2, 3, 2),
            ((1, 3), [3, 1]),
            ((2, 3), 0, 2),
            (SCALAR, 3),
            (SCALAR, ()),
            ((0, 2), (2, 2)),
            ((1,), 1, 3),
        ),
        (
            Wrong(RuntimeError, "can not be smaller than number of dimensions of tensor", np.zeros((2, 3)), 2),
            Wrong(RuntimeError, "Trying to create tensor with negative dimension -3", np.zeros((2, 3)), 2, -1),
            Wrong(TypeError, "float", np.zeros(3), 2.5),
        ),
        ("Repeat", "SumToSize", "Expand"),
        torch=method("repeat"),
        dtypes=KEPT,
    ),
    Op(
        rearrange.tile,
        tiled,
        calls(((2, 3), (2,)), ((2, 3), (2, 2)), ((2, 3), ()), ((2,), (2, 1, 3)), (SCALAR, (2, 2)), ((0, 2), (3,))),
        (
            Wrong(RuntimeError, "Trying to create tensor with negative dimension -3", np.zeros((2, 3)), (-1,)),
            Wrong(TypeError, "float", np.zeros(3), (2.5,)),
        ),
        ("Repeat",),
        dtypes=KEPT,
    ),
    Op(
        rearrange.flip,
        flipped,
        calls(((2, 3), (0,)), ((2, 3), [0, -1]), ((2, 3), ()), ((2, 3, 2), (1,)), (SCALAR, (0,)), ((0, 2), (0, 1))),
        (
            Wrong(RuntimeError, "dim 0 appears multiple times in the list of dims", np.zeros((2, 3)), (0, -2)),
            Wrong(IndexError, DIM, np.zeros((2, 3)), (2,)),
        ),
        ("Flip",),
        dtypes=KEPT,
    ),
    Op(
        rearrange.roll,
        rolled,
        calls(
            ((2, 3), 1),
            ((2, 3), -4, 1),
            ((2, 3), (1, 2), (0, -1)),
            ((2, 3), (1, 1), (1, 1)),
            ((4,), 7, 0),
            (SCALAR, 1),
            ((0, 3), 1, 0),
            ((0, 3), 2),
        ),
        (
            Wrong(RuntimeError, "must align. shifts: 2, dims:1", np.zeros((2, 3)), (1, 1), 0),
            Wrong(RuntimeError, "must align. shifts: 2, dims:0", np.zeros((2, 3)), (1, 1)),
            Wrong(RuntimeError, "must align. shifts: 1, dims:2", np.zeros((2, 3)), 1, (0, 1)),
            Wrong(RuntimeError, "`shifts` required", np.zeros((2, 3)), (), ()),
            Wrong(IndexError, DIM, np.zeros((2, 3)), 1, 2),
            Wrong(IndexError, "Dimension specified as 0 but tensor has no dimensions", np.zeros(()), 1, 0),
        ),
        ("Roll",),
        dtypes=KEPT,
    ),
    Op(
        rearrange.tril,
        lambda x, diagonal=0: kept(x, lambda i, j: j - i <= diagonal),
        MATRICES,
        (
            Wrong(RuntimeError, "tril: input tensor must have at least 2 dimensions", np.zeros(3)),
            Wrong(TypeError, "float", np.zeros((3, 3)), 0.5),
        ),
        ("Tril",),
        lacks=NO_MATRIX,
    ),
    Op(
        rearrange.triu,
        lambda x, diagonal=0: kept(x, lambda i, j: j - i >= diagonal),
        MATRICES,
        (Wrong(RuntimeError, "triu: input tensor must have at least 2 dimensions", np.zeros(3)),),
        ("Triu",),
        lacks=NO_MATRIX,
    ),
    Op(
        rearrange.diagonal,
        on_diagonal,
        calls(
            ((3, 4),),
            ((3, 4), 1),
            ((4, 3), -2),
            ((2, 3, 4), 0, -2, -1),
            ((2, 3, 4), 1, 2, 0),
            ((2, 3, 2, 2), -1, 3, 1),
            ((2, 2), 5),
            ((2, 2), -2),
            ((0, 3),),
        ),
        (
            Wrong(RuntimeError, "diagonal dimensions cannot be identical 0, -2", np.zeros((3, 3)), 0, 0, -2),
            Wrong(IndexError, DIM, np.zeros(3)),
            Wrong(IndexError, DIM, np.zeros((3, 3)), 0, 0, 2),
        ),
        ("Diagonal", "DiagonalAdjoint"),
        lacks=NO_MATRIX,
    ),
    Op(
        rearrange.diag,
        diag,
        calls(((3,),), ((2,), 1), ((2,), -2), ((3, 4),), ((3, 4), 2), ((3, 2), -1), ((2, 2), 9), ((0,),), ((0,), 2)),
        (
            Wrong(RuntimeError, r"diag\(\): Supports 1D or 2D tensors. Got 3D", np.zeros((2, 2, 2))),
            Wrong(RuntimeError, r"diag\(\): Supports 1D or 2D tensors. Got 0D", np.zeros(())),
        ),
        ("Diagonal", "DiagonalAdjoint"),
        lacks=NO_MATRIX,
    ),
]
FAMILY = rearrange
EXEMPT: list[Any] = []

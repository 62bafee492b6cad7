from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import rearrange

from .row import Op, Sample, Wrong
from .shape import DIM, SCALAR, calls, method, unpacked


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


def each_repeated(x: Any, repeats: Any = None, dim: int | None = None, output_size: int | None = None) -> Any:
    if repeats is None:
        return np.array([i for i, n in enumerate(x.tolist()) for _ in range(n)], x.dtype)
    if dim is None:
        x, dim = np.array([x[place] for place in np.ndindex(x.shape)]), 0
    slices = np.moveaxis(x, dim, 0)
    counts = [int(n) for n in np.broadcast_to(repeats, len(slices))]
    taken = [slices[i] for i, n in enumerate(counts) for _ in range(n)]
    return np.moveaxis(np.array(taken).reshape(len(taken), *slices.shape[1:]), 0, dim)


def repetitions(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 2))
    yield Sample(x, 2)
    yield Sample(x, 2, 0)
    yield Sample(x, 3, -1)
    yield Sample(x, 0, 1)
    yield Sample(x, np.array([1, 2, 0]), 0)
    yield Sample(x, np.array([1, 2, 0]), 0, output_size=3)
    yield Sample(x, np.array([2]), 0)
    yield Sample(x, np.array([2, 0], np.int32), 1)
    yield Sample(rng.standard_normal(()), 3)
    yield Sample(np.zeros((0, 2)), 2, 0)


def flipped(x: Any, *dims: Any) -> Any:
    if not x.ndim:
        return x
    axes = {d % x.ndim for d in unpacked(dims)}
    return from_places(
        x, x.shape, lambda place: tuple(x.shape[d] - 1 - i if d in axes else i for d, i in enumerate(place))
    )


def quarter_turns(x: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """One quarter after the other: the element at (i, j) of the plane comes from (j, last - i)."""
    a, b = (d % x.ndim for d in dims)
    for _ in range(k % 4):
        size = list(x.shape)
        size[a], size[b] = x.shape[b], x.shape[a]

        def source(place: tuple[int, ...], last: int = x.shape[b] - 1) -> tuple[int, ...]:
            at = list(place)
            at[a], at[b] = place[b], last - place[a]
            return tuple(at)

        x = from_places(x, tuple(size), source)
    return x


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


KEPT = "takes dims; test_new_places_keep_the_dtype"
COUNTS = np.array([1, 2, 0])

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
        rearrange.repeat_interleave,
        each_repeated,
        repetitions,
        (
            Wrong(RuntimeError, "Repeats must be non-negative, but got -1", np.zeros(3), -1),
            Wrong(RuntimeError, "repeats can not be negative", np.zeros(3), np.array([1, -2, 0])),
            Wrong(RuntimeError, r"repeats.size\(0\) = 2 and input.size\(0\) = 3", np.zeros(3), np.array([1, 2]), 0),
            Wrong(RuntimeError, "0-dim or 1-dim tensor", np.zeros(3), COUNTS[None], 0),
            Wrong(RuntimeError, "allocated size does not match", np.zeros(3), COUNTS, 0, output_size=4),
            Wrong(RuntimeError, "only accept 1D vector", np.array([[1]])),
            Wrong(NotImplementedError, "for repeats of float64", np.zeros(3), np.ones(3), 0),
            Wrong(IndexError, DIM, np.zeros(3), 2, 1),
            Wrong(IndexError, "no dimension to go along", np.zeros(()), 2, 0),
            Wrong(TypeError, "list", np.zeros(3), [1, 2, 0], 0),
            Wrong(TypeError, "float", np.zeros(3), 2.0),
        ),
        ("IndexSelect", "IndexSelectAdjoint", "Expand", "View"),
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
        rearrange.fliplr,
        lambda x: flipped(x, 1),
        calls(((2, 3),), ((2, 3, 2),), ((2, 0),)),
        (Wrong(RuntimeError, "Input must be >= 2-d", np.zeros(3)),),
        ("Flip",),
        lacks={"0-d": "it has no columns: an error"},
    ),
    Op(
        rearrange.flipud,
        lambda x: flipped(x, 0),
        calls(((3,),), ((2, 3),), ((0, 2),)),
        (Wrong(RuntimeError, "Input must be >= 1-d", np.zeros(())),),
        ("Flip",),
        lacks={"0-d": "it has no rows: an error"},
    ),
    Op(
        rearrange.rot90,
        quarter_turns,
        calls(
            ((2, 3),),
            ((2, 3), 2),
            ((2, 3), 3),
            ((2, 3), -1, (1, 0)),
            ((2, 3), 4),
            ((2, 3, 2), 5, (-1, 0)),
            ((0, 2),),
        ),
        (
            Wrong(RuntimeError, "expected total dims >= 2, but got total dims = 1", np.zeros(3)),
            Wrong(RuntimeError, "expected total rotation dims == 2, but got dims = 1", np.zeros((2, 3)), 1, (0,)),
            Wrong(RuntimeError, "to be different, but got dim0 = 0 and dim1 = -2", np.zeros((2, 3)), 1, (0, -2)),
            Wrong(IndexError, DIM, np.zeros((2, 3)), 1, (0, 2)),
        ),
        ("Flip", "Permute", "Clone"),
        lacks={"0-d": "there is no plane to turn: an error"},
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
]
FAMILY = rearrange
EXEMPT: list[Any] = []

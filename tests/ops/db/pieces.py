from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.ops import pieces

from .row import Op, Wrong
from .shape import DIM, calls


def cut(x: Any, lengths: list[int], dim: int = 0) -> Any:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return tuple(np.take(x, range(a, a + length), axis=dim) for a, length in zip(starts, lengths, strict=True))


def split(x: Any, size: Any, dim: int = 0) -> Any:
    n = x.shape[dim]
    if isinstance(size, int):
        size = [min(size, n - at) for at in range(0, n, size)] if n else [0]
    return cut(x, size, dim)


def between(x: Any, given: Any, dim: int = 0) -> Any:
    """Between the positions given, as ``range`` understands them; or in parts, the first of them one longer."""
    n = x.shape[dim]
    if isinstance(given, (int, np.ndarray)) and not np.ndim(given):
        given = int(given)
        return cut(x, [len(range(k, n, given)) for k in range(given)], dim)
    bounds = [0, *(int(i) for i in given), n]
    return tuple(np.take(x, range(n)[a:b], axis=dim) for a, b in itertools.pairwise(bounds))


def along(dim: Callable[[Any], int]) -> Callable[..., Any]:
    return lambda x, given: between(x, given, dim(x))


SEVERAL = "gives several tensors; test_views_keep_the_dtype"
NONE = {"0-d": "there is no dimension to split: an error"}


def along_errors(name: str, least: int, dim: int) -> tuple[Wrong, ...]:
    size = (4, 4, 4)
    return (
        Wrong(
            RuntimeError, f"torch.{name} requires a tensor with at least {least} dim", np.zeros(size[: least - 1]), 1
        ),
        Wrong(RuntimeError, f"along dimension {dim}, but the size of the dimension 4 is not", np.zeros(size), 3),
        Wrong(RuntimeError, "not divisible by the split_size 0", np.zeros(size), 0),
        Wrong(TypeError, "float", np.zeros(size), 2.0),
    )


ROWS = [
    Op(
        pieces.unbind,
        lambda x, dim=0: tuple(np.take(x, i, axis=dim) for i in range(x.shape[dim])),
        calls(((2, 3),), ((2, 3), 1), ((2, 3, 2), -1), ((2, 0),), ((0, 2),)),
        (Wrong(IndexError, "no dimensions", np.zeros(())), Wrong(IndexError, DIM, np.zeros((2, 3)), 2)),
        ("Unbind", "Cat"),
        dtypes=SEVERAL,
        lacks={"0-d": "there is no dimension to take apart: an error"},
    ),
    Op(
        pieces.narrow,
        lambda x, dim, start, length: np.take(
            x, range(start % (x.shape[dim] or 1), start % (x.shape[dim] or 1) + length), axis=dim
        ),
        calls(((4, 3), 0, 1, 2), ((4, 3), -1, 0, 1), ((4, 3), 0, -2, 2), ((4,), 0, 4, 0), ((0, 3), 0, 0, 0)),
        (
            Wrong(RuntimeError, r"start \(2\) \+ length \(3\) exceeds dimension size \(4\)", np.zeros((4, 3)), 0, 2, 3),
            Wrong(RuntimeError, r"start \(3\) \+ length \(2\) exceeds", np.zeros((4, 3)), 0, -1, 2),
            Wrong(RuntimeError, "length must be non-negative", np.zeros((4, 3)), 0, 0, -1),
            Wrong(RuntimeError, "cannot be applied to a 0-dim tensor", np.zeros(()), 0, 0, 1),
            Wrong(RuntimeError, "0-dim integral Tensor", np.zeros(3), 0, np.array([1]), 1),
            Wrong(IndexError, r"start out of range .* \[-4, 4\], but got -5", np.zeros((4, 3)), 0, -5, 1),
            Wrong(IndexError, DIM, np.zeros((4, 3)), 2, 0, 1),
        ),
        ("Narrow", "NarrowAdjoint"),
        dtypes="takes dims; test_views_keep_the_dtype",
        lacks={"0-d": "there is no dimension to narrow: an error"},
    ),
    Op(
        pieces.select,
        lambda x, dim, index: np.take(x, index, axis=dim),
        calls(((2, 3), 0, 1), ((2, 3), -1, -3), ((2, 3, 2), 1, 2), ((3,), 0, -1), ((2, 0, 3), 2, 1)),
        (
            Wrong(IndexError, r"select\(\): index 2 out of range for tensor of size \[2, 3\]", np.zeros((2, 3)), 0, 2),
            Wrong(IndexError, "index -4 out of range .* at dimension 1", np.zeros((2, 3)), 1, -4),
            Wrong(IndexError, "index 0 out of range", np.zeros((0, 3)), 0, 0),
            Wrong(IndexError, DIM, np.zeros((2, 3)), 2, 0),
            Wrong(IndexError, "cannot be applied to a 0-dim tensor", np.zeros(()), 0, 0),
            Wrong(TypeError, "float", np.zeros(3), 0, 1.5),
        ),
        ("Select", "NarrowAdjoint"),
        dtypes="takes dims; test_views_keep_the_dtype",
        lacks={"0-d": "there is no dimension to select from: an error"},
    ),
    Op(
        pieces.split,
        split,
        calls(((5, 2), 2), ((5, 2), [1, 4]), ((5, 2), (0, 5, 0)), ((2, 4), 3, 1), ((0, 2), 2), ((2, 0), 1, -1)),
        (
            Wrong(RuntimeError, "split_size can only be 0 if dimension size is 0", np.zeros(3), 0),
            Wrong(RuntimeError, "split_size be non-negative, but got split_size=-1", np.zeros(3), -1),
            Wrong(RuntimeError, "sum exactly to 3", np.zeros(3), [1, 1]),
            Wrong(RuntimeError, "only non-negative entries", np.zeros(3), [-1, 4]),
            Wrong(RuntimeError, "at least a 1-dimensional tensor", np.zeros(()), 1),
            Wrong(IndexError, DIM, np.zeros(3), 1, 1),
            Wrong(TypeError, "float", np.zeros(3), 2.0),
        ),
        ("Split", "Cat"),
        dtypes=SEVERAL,
        lacks=NONE,
    ),
    Op(
        pieces.split_with_sizes,
        cut,
        calls(((5, 2), [1, 4]), ((5, 2), (0, 5, 0)), ((2, 4), [3, 1], -1), ((0, 2), [0])),
        (
            Wrong(RuntimeError, "sum exactly to 3", np.zeros(3), [1, 1]),
            Wrong(RuntimeError, "only non-negative entries", np.zeros(3), [-1, 4]),
            Wrong(RuntimeError, "at least a 1-dimensional tensor", np.zeros(()), [1]),
            Wrong(TypeError, "'split_sizes' must be tuple of ints", np.zeros(3), [1.5, 1.5]),
        ),
        ("Split",),
        dtypes=SEVERAL,
        lacks=NONE,
    ),
    Op(
        pieces.chunk,
        lambda x, chunks, dim=0: split(x, -(-x.shape[dim] // chunks) or [0] * chunks, dim),
        calls(((5, 2), 2), ((5, 2), 4), ((2, 4), 3, 1), ((2, 4), 9, -1), ((4,), 1), ((0, 2), 3), ((2, 0), 2)),
        (
            Wrong(RuntimeError, "`chunks` to be greater than 0, got: 0", np.zeros(3), 0),
            Wrong(RuntimeError, "at least a 1-dimensional tensor", np.zeros(()), 1),
            Wrong(IndexError, DIM, np.zeros(3), 2, 1),
            Wrong(TypeError, "float", np.zeros(4), 2.0),
        ),
        ("Split",),
        dtypes=SEVERAL,
        lacks=NONE,
    ),
    Op(
        pieces.tensor_split,
        between,
        calls(
            ((5, 2), 2),
            ((7,), 3),
            ((2, 5), (1, 3), 1),
            ((2, 5), [-2, 9], -1),
            ((5,), (4, 2)),
            ((2,), 4),
            ((5,), ()),
            ((5,), np.array([1, 2])),
            ((0, 2), 2),
        ),
        (
            Wrong(RuntimeError, "number of sections must be larger than 0, got 0", np.zeros(3), 0),
            Wrong(RuntimeError, "got a tensor with 0 dims", np.zeros(()), 1),
            Wrong(RuntimeError, "zero-dimensional or one-dimensional tensor", np.zeros(3), np.array([[1]])),
            Wrong(RuntimeError, "to have dtype of long, but got float64", np.zeros(3), np.array([1.0])),
            Wrong(IndexError, DIM, np.zeros(3), 2, 1),
            Wrong(TypeError, "float", np.zeros(4), 2.0),
        ),
        ("Narrow",),
        dtypes=SEVERAL,
        lacks=NONE,
    ),
    Op(
        pieces.hsplit,
        along(lambda x: 0 if x.ndim < 2 else 1),
        calls(((2, 4), 2), ((4,), 2), ((2, 4, 1), [1, 3]), ((0, 2), 1)),
        along_errors("hsplit", 1, 1),
        ("Narrow",),
        dtypes=SEVERAL,
        lacks=NONE,
    ),
    Op(
        pieces.vsplit,
        along(lambda x: 0),
        calls(((4, 2), 2), ((4, 1, 2), (1, 3)), ((0, 2), 1)),
        along_errors("vsplit", 2, 0),
        ("Narrow",),
        dtypes=SEVERAL,
        lacks=NONE,
    ),
    Op(
        pieces.dsplit,
        along(lambda x: 2),
        calls(((2, 1, 4), 2), ((2, 1, 4), (1, 3)), ((0, 2, 2), 1)),
        along_errors("dsplit", 3, 2),
        ("Narrow",),
        dtypes=SEVERAL,
        lacks=NONE,
    ),
]
FAMILY = pieces
EXEMPT: list[Any] = []

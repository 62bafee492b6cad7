from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import indexing

from .row import Exempt, Op, Sample, Wrong

FLAGS = np.array([True, False, True])


def _view_dimensions(x: Any, index: Any) -> tuple[list[Any], list[tuple[int, list[Any]]]]:
    """For each dimension of the view: what it is ("new", or a dimension of ``x`` and the places it takes, or an array
    of positions for it); and the integers, which are no dimensions of it."""
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = [np.asarray(p) if isinstance(p, list) else p for p in parts]
    parts = [bool(p) if isinstance(p, np.ndarray) and p.shape == () and p.dtype == bool else p for p in parts]
    arrays = [p for p in parts if isinstance(p, np.ndarray)]
    used = sum(p.ndim if p.dtype == bool else 1 for p in arrays)
    used += sum(isinstance(p, (int, slice)) and not isinstance(p, bool) for p in parts)
    if not any(p is Ellipsis for p in parts):
        parts.append(Ellipsis)
    view: list[Any] = []
    fixed: list[tuple[int, list[Any]]] = []
    d = 0
    for p in parts:
        if p is None:
            view.append("new")
        elif p is Ellipsis:
            view += [(d + k, list(range(x.shape[d + k]))) for k in range(x.ndim - used)]
            d += x.ndim - used
        elif isinstance(p, bool):
            view.append((None, np.zeros(int(p), int)))
        elif isinstance(p, int):
            fixed.append((d, [range(x.shape[d])[p]]))
            d += 1
        elif isinstance(p, slice):
            view.append((d, list(range(x.shape[d]))[p]))
            d += 1
        elif p.dtype == bool:
            chosen = [place for place in np.ndindex(p.shape) if p[place]]
            for k in range(p.ndim):
                view.append((d + k, np.array([place[k] for place in chosen], int)))
            d += p.ndim
        elif not p.ndim:
            fixed.append((d, [range(x.shape[d])[int(p)]]))
            d += 1
        else:
            view.append((d, p % (x.shape[d] or 1)))
            d += 1
    return view, fixed


def picked(x: Any, index: Any) -> Any:
    """Element by element. Arrays are broadcast against each other; their dimensions stand where the first of them
    stands, or in front when other dimensions lie between them."""
    view, fixed = _view_dimensions(x, index)
    at = [i for i, v in enumerate(view) if v != "new" and isinstance(v[1], np.ndarray)]
    common = np.broadcast_shapes(*(view[i][1].shape for i in at)) if at else ()
    together = not at or at[-1] - at[0] == len(at) - 1
    front = at[0] if at and together else 0
    others = [v for i, v in enumerate(view) if i not in at]
    lengths = [1 if v == "new" else len(v[1]) for v in others]
    size = (*lengths[:front], *common, *lengths[front:])
    out = np.empty(size, x.dtype)
    for place in np.ndindex(*size):
        inner = place[front : front + len(common)]
        outer = place[:front] + place[front + len(common) :]
        source: list[int] = [0] * x.ndim
        for d, where in fixed:
            source[d] = where[0]
        for i, v in zip(outer, others, strict=True):
            if v != "new":
                source[v[0]] = v[1][i]
        for v in (view[i] for i in at):
            if v[0] is not None:
                source[v[0]] = np.broadcast_to(v[1], common)[inner]
        out[place] = x[tuple(source)]
    return out


def indices(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    for index in (
        1,
        -1,
        (0, 2),
        slice(1, 3),
        (slice(None), slice(None, None, 2)),
        (..., 1),
        (None, 2),
        (slice(0, 0), 1),
        np.array([2, 0, 2]),
        [1, 1, -1],
        (slice(None), np.array([3, 0])),
        (FLAGS, 1),
        FLAGS,
        np.array([], np.int64),
        ...,
        (),
        True,
        (False, 1),
        (np.array([0, 0, -1]), np.array([1, 1, 0])),
        (np.array([[0], [2]]), [1, -1, 1]),
        (FLAGS, np.array([3])),
        (None, np.array([0, 2], np.int32), None),
        np.array(2),
        (slice(1, None), None, np.array([[0, 0], [1, 2]])),
    ):
        yield Sample(x, index)
    y = rng.standard_normal((2, 3, 2))
    for index in (
        (np.array([0, 1, 1]), slice(None), np.array([1, 1, 0])),
        (0, slice(None), np.array([1, 0, 0])),
        (slice(None), 1, np.array([0, 0])),
        (np.array([1, 1]), 0),
        (np.array([1, 0]), None, np.array([2, 2])),
        (slice(None), FLAGS),
        np.array([[True, False, True], [False, True, False]]),
        (np.array([True, False]), slice(None), np.array([1, 1])),
        (True, np.array([0, 1]), slice(0, 2), 1),
        (..., np.array([[1]])),
    ):
        yield Sample(y, index)
    yield Sample(rng.standard_normal((3,)), 1)
    yield Sample(rng.standard_normal(()), ...)
    yield Sample(rng.standard_normal(()), None)
    yield Sample(rng.standard_normal(()), np.array(True))
    yield Sample(np.zeros((0, 3)), (slice(None), 1))
    yield Sample(np.zeros((3, 0)), np.array([7, 1]))  # what picks nothing is not looked at


def replaced(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """One element after the other, at the places that ``picked`` takes from the numbers of the elements."""
    numbers = np.empty(x.shape, int)
    for number, place in enumerate(np.ndindex(x.shape)):
        numbers[place] = number
    where = picked(numbers, tuple(i.reshape(1) if not i.ndim else i for i in indices))
    flat = np.array([x[place] for place in np.ndindex(x.shape)])
    for place, value in zip(where.flatten(), np.broadcast_to(values, where.shape).flatten(), strict=True):
        flat[place] = flat[place] + value if accumulate else value
    return flat.reshape(x.shape)


def writings(rng: np.random.Generator) -> Iterator[Sample]:
    x, y = rng.standard_normal((3, 4)), rng.standard_normal((2, 3, 2))
    rows, columns = np.array([0, 2]), np.array([1, -1])
    for accumulate in (False, True):
        yield Sample(x, (rows,), rng.standard_normal((2, 4)), accumulate)
        yield Sample(x, (rows, columns), rng.standard_normal(2), accumulate)
        yield Sample(x, (rows[:, None], columns), rng.standard_normal(2), accumulate)
        yield Sample(x, [rows, columns], rng.standard_normal(()), accumulate)
        yield Sample(x, (FLAGS,), rng.standard_normal(4), accumulate)
        yield Sample(x, (FLAGS, columns[:1]), rng.standard_normal((1,)), accumulate)
        yield Sample(y, (np.array([1]), rows), rng.standard_normal((2, 2)), accumulate)
        yield Sample(rng.standard_normal(3), (np.array(1),), rng.standard_normal(()), accumulate)
        yield Sample(np.zeros((0, 3)), (np.zeros(0, np.int64),), rng.standard_normal((1, 3)), accumulate)
    yield Sample(x, (np.array([0, 0, 2, 0]),), rng.standard_normal((4, 4)), True)
    yield Sample(x, (np.array([1, 1]), np.array([2, 2])), rng.standard_normal(2), accumulate=True)


def places_of(x: Any, as_tuple: bool = False) -> Any:
    if as_tuple and not x.ndim:
        x = x.reshape(1)
    places = [place for place in np.ndindex(x.shape) if x[place] != 0]
    if as_tuple:
        return tuple(np.array([place[d] for place in places], np.int64) for d in range(x.ndim))
    return np.array(places, np.int64).reshape(len(places), x.ndim)


X = np.array([[0.0, 2.0, -0.0], [math.nan, 0.0, 1e-30]])
VALUES = (X, X != 0, np.array([[0, 3], [1, 0]]), np.array(5.0), np.array(0.0), np.zeros((0, 3)), np.zeros(2))


def sparse(rng: np.random.Generator) -> Iterator[Sample]:
    for as_tuple in (False, True):
        for value in VALUES:
            yield Sample(value, as_tuple=as_tuple)


def out_of_bounds(index: Any, message: str, size: tuple[int, ...] = (3, 4)) -> Wrong:
    return Wrong(IndexError, message, np.zeros(size), index)


ROWS = [
    Op(
        indexing.getitem,
        picked,
        indices,
        (
            out_of_bounds(3, "index 3 is out of bounds for dimension 0 with size 3"),
            out_of_bounds((0, -5), "index -5 is out of bounds for dimension 1 with size 4"),
            out_of_bounds(np.array([0, 3]), "index 3 is out of bounds for dimension 0 with size 3"),
            out_of_bounds((slice(None), np.array([-5])), "index -5 is out of bounds for dimension 1 with size 4"),
            out_of_bounds(np.array([0]), "index is out of bounds for dimension with size 0", (0, 3)),
            out_of_bounds((0, 0, 0), "too many indices for tensor of dimension 2"),
            out_of_bounds((slice(None),) * 3, "too many indices for tensor of dimension 2"),
            out_of_bounds((..., ..., 0), "names more than 2 dimensions"),
            out_of_bounds(0, "invalid index of a 0-dim tensor", ()),
            out_of_bounds(np.zeros(2), "must be long, int, byte or bool"),
            out_of_bounds(np.zeros(2, np.int16), "must be long, int, byte or bool"),
            out_of_bounds(1.0, "only integers, slices"),
            out_of_bounds({0}, "only integers, slices"),
            out_of_bounds(FLAGS, r"mask \[3\] at index 0 .* indexed tensor \[4, 3\] at index 0", (4, 3)),
            out_of_bounds((slice(None), FLAGS), r"mask \[3\] at index 0 .* tensor \[3, 4\] at index 1"),
            out_of_bounds((np.array([0, 1]), np.array([0, 1, 2])), r"broadcast together with shapes \[2\], \[3\]"),
            Wrong(ValueError, "step must be greater than zero", np.zeros(3), slice(None, None, -1)),
            Wrong(ValueError, "step must be greater than zero", np.zeros(3), slice(None, None, 0)),
            Wrong(TypeError, "float", np.zeros(3), slice(1.0, None)),
            Wrong(TypeError, "invalid data type 'str'", np.zeros((3, 4)), (0, ["a"])),
        ),
        ("Slice", "SliceAdjoint", "Index", "IndexAdjoint"),
        torch=lambda torch, x, index: x[index],
        dtypes="takes an index; test_views_keep_the_dtype",
    ),
    Op(
        indexing.index_put,
        replaced,
        writings,
        (
            Wrong(IndexError, "index 3 is out of bounds", np.zeros(3), (np.array([3]),), np.ones(1)),
            Wrong(IndexError, "too many indices", np.zeros(3), (np.array([0]),) * 2, np.ones(1)),
            Wrong(IndexError, "a mask without dimensions", np.zeros(3), (np.array(True),), np.ones(1)),
            Wrong(IndexError, "must be long, int, byte or bool", np.zeros(3), (np.zeros(1),), np.ones(1)),
            Wrong(RuntimeError, "dtypes match, got float64 .* int64", np.zeros(3), (np.array([0]),), np.array([1])),
            Wrong(RuntimeError, r"value tensor of shape \[2\] cannot", np.zeros(3), (np.array([0]),), np.ones(2)),
            Wrong(RuntimeError, r"cannot be broadcast", np.zeros(3), (np.array([0]),), np.ones((1, 1))),
            Wrong(RuntimeError, "indices is empty", np.zeros(3), (), np.ones(1)),
            Wrong(TypeError, "'indices' .* must be tuple of Tensors, not Tensor", np.zeros(3), FLAGS, np.ones(1)),
            Wrong(TypeError, r"'indices\[0\]' .* must be Tensor, not NoneType", np.zeros(3), (None,), np.ones(1)),
            Wrong(TypeError, "'values' .* must be Tensor, not float", np.zeros(3), (np.array([0]),), 1.0),
        ),
        ("IndexPut", "IndexPutAdd", "Index", "IndexAdjoint"),
        dtypes="takes an index; test_new_places_keep_the_dtype",
    ),
    Op(
        indexing.nonzero,
        places_of,
        sparse,
        (Wrong(TypeError, r"nonzero\(\): argument 'input' .* must be Tensor, not list", [1]),),
        differentiable=False,
        dtypes="to int64",
    ),
    Op(
        indexing.argwhere,
        places_of,
        lambda rng: iter([Sample(value) for value in VALUES]),
        (Wrong(TypeError, r"argwhere\(\): argument 'input' .* must be Tensor, not list", [1]),),
        differentiable=False,
        dtypes="to int64",
    ),
]
FAMILY = indexing
EXEMPT = [
    Exempt(indexing.parse_index, "translates an index; getitem's row and test_indexing.py use it"),
    Exempt(indexing.Index, "what parse_index gives"),
]

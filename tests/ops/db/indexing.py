from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import indexing

from .row import Exempt, Op, Sample, Wrong

FLAGS = np.array([True, False, True])


def _positions(part: Any, n: int) -> list[int]:
    if isinstance(part, slice):
        return list(range(n))[part]
    if isinstance(part, int):
        return [range(n)[part]]
    values = np.asarray(part)
    return [i for i in range(n) if values[i]] if values.dtype == bool else [range(n)[i] for i in values.tolist()]


def picked(x: Any, index: Any) -> Any:
    """One dimension after the other, element by element. Of lists and arrays there is at most one in these samples."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if Ellipsis in [part for part in parts if not isinstance(part, np.ndarray)]:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (x.ndim - used)
    parts += [slice(None)] * (x.ndim - sum(part is not None for part in parts))
    real = [part for part in parts if part is not None]
    places = [_positions(part, n) for part, n in zip(real, x.shape, strict=True)]
    out = np.empty([len(p) for p in places], x.dtype)
    for place in np.ndindex(out.shape):
        out[place] = x[tuple(p[i] for p, i in zip(places, place, strict=True))]
    shape, rest = [], iter(zip(real, out.shape, strict=True))
    for part in parts:
        if part is None:
            shape.append(1)
        else:
            kind, n = next(rest)
            if not isinstance(kind, int):
                shape.append(n)
    return out.reshape(shape)


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
    ):
        yield Sample(x, index)
    yield Sample(rng.standard_normal((3,)), 1)
    yield Sample(rng.standard_normal(()), ...)
    yield Sample(rng.standard_normal(()), None)
    yield Sample(np.zeros((0, 3)), (slice(None), 1))


def along(x: Any, dim: int, index: Any) -> Any:
    out = np.empty(index.shape, x.dtype)
    for place in np.ndindex(index.shape):
        source = list(place)
        if source:
            source[dim] = index[place]
        out[place] = x[tuple(source)]
    return out


def gathers(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([[2, 0, 1, 1], [0, 0, 2, 2]]))
    yield Sample(x, 1, np.array([[3, 3], [0, 1], [2, 0]]))
    yield Sample(x, -1, np.array([[3], [1]]))
    yield Sample(x, 0, np.zeros((0, 4), np.int64))
    yield Sample(np.zeros((0, 3)), 1, np.zeros((0, 2), np.int64))
    yield Sample(rng.standard_normal(()), 0, np.array(0))


def along_dim(x: Any, indices: Any, dim: int | None = None) -> Any:
    if dim is None:
        return np.array([x.flatten()[i] for i in indices.flatten()], x.dtype)
    dim %= x.ndim
    size = [max(n, m) if 0 not in (n, m) else 0 for n, m in zip(x.shape, indices.shape, strict=True)]
    size[dim] = indices.shape[dim]
    out = np.empty(size, x.dtype)
    for place in np.ndindex(*size):
        at = [i if n > 1 else 0 for i, n in zip(place, x.shape, strict=True)]
        at[dim] = indices[tuple(i if n > 1 else 0 for i, n in zip(place, indices.shape, strict=True))]
        out[place] = x[tuple(at)]
    return out


def takes(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, np.array([[2, 0, 1, 1], [0, 0, 2, 2]]), 0)
    yield Sample(x, np.array([[3, 3, 0]]), 1)
    yield Sample(x, np.array([[3], [1], [-1]]), -1)
    yield Sample(x, np.array([[3, 11], [1, 3]]))
    yield Sample(rng.standard_normal((1, 3)), np.array([[0, 1], [2, 2]]), dim=1)
    yield Sample(rng.standard_normal(()), np.array(0))
    yield Sample(np.zeros((0, 3)), np.zeros((1, 2), np.int64), 1)


def written(x: Any, dim: int, index: Any, src: Any = None, value: Any = None, add: bool = False) -> Any:
    """One element after the other."""
    out = np.array(x)
    flat = out.reshape(-1) if not out.ndim else out
    for place in np.ndindex(index.shape):
        item = (
            value
            if src is None
            else src
            if isinstance(src, (int, float))
            else src[place]
            if place
            else src.reshape(-1)[0]
        )
        target = list(place) or [0]
        target[dim] = index[place]
        flat[tuple(target)] = flat[tuple(target)] + item if add else item
    return out


def scatters(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    once = np.array([[2, 0, 1, 1], [0, 1, 2, 2]])
    yield Sample(x, 0, once, rng.standard_normal((2, 4)))
    yield Sample(x, 0, once, rng.standard_normal((3, 5)))  # more than is written
    yield Sample(x, -1, np.array([[3, 0], [0, 1]], np.int32), rng.standard_normal((2, 2)))
    yield Sample(x, 1, np.array([[3, 3], [0, 1]]), 1.5)
    yield Sample(x, 1, np.array([[3, 3], [0, 1]]), value=-2)
    yield Sample(x, 0, np.zeros((0, 4), np.int64), rng.standard_normal((2, 4)))
    yield Sample(np.zeros((0, 3)), 1, np.zeros((0, 2), np.int64), value=1.0)
    yield Sample(rng.standard_normal(()), 0, np.array(0), rng.standard_normal(()))
    yield Sample(rng.standard_normal(3), 0, np.array(1), rng.standard_normal(1))
    yield Sample(rng.standard_normal(()), 0, np.array([0]), value=2.0)


def narrowed(name: str) -> Callable[..., Any]:
    """PyTorch differentiates by src only where its shape is that of the index."""

    def function(torch: Any, x: Any, dim: int, index: Any, src: Any = None, **rest: Any) -> Any:
        if isinstance(src, torch.Tensor):
            src = src[tuple(slice(n) for n in index.shape)].reshape(index.shape)
        return getattr(torch, name)(x, dim, index, *([] if src is None else [src]), **rest)

    return function


def additions(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([[2, 0, 1, 1], [2, 2, 1, 0], [2, 0, 1, 1]]), rng.standard_normal((3, 4)))
    yield Sample(x, 1, np.array([[3, 3, 3, 0, 3], [0, 1, 0, 1, 0]]), rng.standard_normal((2, 5)))
    yield Sample(x, -2, np.array([[1, 1]], np.int32), rng.standard_normal((2, 3)))
    yield Sample(rng.standard_normal(2), 0, np.array([1, 1, 1]), rng.standard_normal(3))
    yield Sample(x, 0, np.zeros((0, 4), np.int64), rng.standard_normal((0, 4)))
    yield Sample(rng.standard_normal(()), 0, np.array(0), rng.standard_normal(()))


def slices_at(x: Any, dim: int, index: Any) -> Any:
    if not x.ndim:
        return x
    parts = [x[(slice(None),) * (dim % x.ndim) + (slice(i, i + 1),)] for i in index.reshape(-1)]
    return np.concatenate(parts, axis=dim) if parts else x[(slice(None),) * (dim % x.ndim) + (slice(0),)]


def selections(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([2, 0, 2, 2]))
    yield Sample(x, -1, np.array([1, 3], np.int32))
    yield Sample(rng.standard_normal((2, 3, 2)), 1, np.array([2, 2, 0]))
    yield Sample(x, 0, np.array(1))
    yield Sample(x, 0, np.zeros(0, np.int64))
    yield Sample(np.zeros((0, 3)), 1, np.array([2, 2]))
    yield Sample(rng.standard_normal(()), 0, np.array([0]))


def filled(x: Any, mask: Any, value: Any) -> Any:
    size = np.broadcast_shapes(x.shape, mask.shape)
    wide, chosen = np.broadcast_to(x, size), np.broadcast_to(mask, size)
    out = np.empty(size, x.dtype)
    for place in np.ndindex(size):
        out[place] = value if chosen[place] else wide[place]
    return out


def fillings(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3))
    yield Sample(x, FLAGS, -1.5)
    yield Sample(x, FLAGS[None], rng.standard_normal(()))
    yield Sample(rng.standard_normal((2, 1)), FLAGS, 0.5)
    yield Sample(x, np.array(True), 2)
    yield Sample(rng.standard_normal(()), FLAGS, True)
    yield Sample(rng.standard_normal(()), np.array(False), 1.0)
    yield Sample(np.zeros((0, 3)), FLAGS, 1.0)


def chosen_by(x: Any, mask: Any) -> Any:
    size = np.broadcast_shapes(x.shape, mask.shape)
    wide, chosen = np.broadcast_to(x, size), np.broadcast_to(mask, size)
    return np.array([wide[place] for place in np.ndindex(size) if chosen[place]], x.dtype)


def masks(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3))
    yield Sample(x, rng.random((2, 3)) < 0.5)
    yield Sample(x, FLAGS)
    yield Sample(rng.standard_normal((2, 1)), FLAGS)
    yield Sample(rng.standard_normal(3), np.zeros(3, bool))
    yield Sample(rng.standard_normal(()), FLAGS)
    yield Sample(rng.standard_normal(()), np.array(True))
    yield Sample(np.zeros((0, 3)), FLAGS)


def places_of(x: Any, as_tuple: bool = False) -> Any:
    if as_tuple and not x.ndim:
        x = x.reshape(1)
    places = [place for place in np.ndindex(x.shape) if x[place] != 0]
    if as_tuple:
        return tuple(np.array([place[d] for place in places], np.int64) for d in range(x.ndim))
    return np.array(places, np.int64).reshape(len(places), x.ndim)


def sparse(rng: np.random.Generator) -> Iterator[Sample]:
    x = np.array([[0.0, 2.0, -0.0], [math.nan, 0.0, 1e-30]])
    for as_tuple in (False, True):
        for value in (
            x,
            x != 0,
            np.array([[0, 3], [1, 0]]),
            np.array(5.0),
            np.array(0.0),
            np.zeros((0, 3)),
            np.zeros(2),
        ):
            yield Sample(value, as_tuple=as_tuple)


NO_DTYPE = "takes an index; test_new_places_keep_the_dtype"
SIZES = "must match the size of tensor b"

ROWS = [
    Op(
        indexing.getitem,
        picked,
        indices,
        (
            Wrong(IndexError, "index 3 is out of bounds", np.zeros((3, 4)), 3),
            Wrong(IndexError, "too many indices", np.zeros((3, 4)), (0, 0, 0)),
            Wrong(IndexError, "must be long, int, byte or bool", np.zeros((3, 4)), np.zeros(2)),
            Wrong(IndexError, "boolean index did not match", np.zeros((4, 3)), FLAGS),
            Wrong(ValueError, "step must be greater than zero", np.zeros(3), slice(None, None, -1)),
        ),
        ("Index", "IndexPut"),
        torch=lambda torch, x, index: x[index],
        dtypes="takes an index; test_views_keep_the_dtype",
    ),
    Op(
        indexing.gather,
        along,
        gathers,
        (
            Wrong(RuntimeError, "same number of dimensions", np.zeros((3, 4)), 0, np.array([1])),
            Wrong(RuntimeError, "index 3 is out of bounds for dimension 0 with size 3", np.zeros(3), 0, np.array([3])),
            Wrong(RuntimeError, "index -1 is out of bounds for dimension 0", np.zeros(3), 0, np.array([-1])),
            Wrong(RuntimeError, "Expected dtype int64 for index", np.zeros(3), 0, np.zeros(2)),
            Wrong(RuntimeError, "Size does not match at dimension 1", np.zeros((2, 1)), 0, np.array([[0, 0]])),
            Wrong(IndexError, "Dimension out of range", np.zeros(3), 1, np.array([0])),
        ),
        ("Gather", "ScatterAdd"),
        dtypes="takes an index; test_views_keep_the_dtype",
    ),
    Op(
        indexing.take_along_dim,
        along_dim,
        takes,
        (
            Wrong(RuntimeError, "index 3 is out of bounds for dimension 0", np.zeros((3, 2)), np.array([[3, 0]]), 0),
            Wrong(RuntimeError, "index -4 is out of bounds for dimension 0", np.zeros((3, 2)), np.array([[3, -4]]), 0),
            Wrong(RuntimeError, "index 7 is out of bounds", np.zeros((3, 2)), np.array([7])),
            Wrong(RuntimeError, "dtype of indices should be Long but got int32", np.zeros(3), np.array([0], np.int32)),
            Wrong(RuntimeError, "2 dimensions for input, and 1 dimensions", np.zeros((3, 2)), np.array([1]), 0),
            Wrong(RuntimeError, SIZES, np.zeros((3, 2)), np.array([[1, 0, 1]]), 0),
            Wrong(IndexError, "tensor has no dimensions", np.zeros(()), np.array(0), 0),
            Wrong(IndexError, "Dimension out of range", np.zeros((3, 2)), np.array([[0, 0]]), 2),
        ),
        ("Gather", "ScatterAdd"),
        dtypes=NO_DTYPE,
    ),
    Op(
        indexing.scatter,
        written,
        scatters,
        (
            Wrong(
                RuntimeError, "index 3 is out of bounds for dimension 0 with size 3", np.zeros(3), 0, np.array([3]), 1.0
            ),
            Wrong(RuntimeError, "index -1 is out of bounds", np.zeros(3), 0, np.array([-1]), np.zeros(1)),
            Wrong(RuntimeError, "dtype int32/int64 for index", np.zeros(3), 0, np.zeros(1), 1.0),
            Wrong(RuntimeError, "self.dtype to be equal to src", np.zeros(3), 0, np.array([0]), np.array([1])),
            Wrong(RuntimeError, "dimensions as self tensor", np.zeros(3), 0, np.array([[0]]), 1.0),
            Wrong(RuntimeError, "dimensions as src tensor", np.zeros(3), 0, np.array([0]), np.zeros((1, 2))),
            Wrong(RuntimeError, r"larger size than src \[1\]", np.zeros(3), 0, np.array([0, 1]), np.zeros(1)),
            Wrong(RuntimeError, "apart from dimension 0$", np.zeros((3, 1)), 0, np.array([[0, 1]]), 1.0),
            Wrong(RuntimeError, "uint8 without overflow", np.zeros(3, np.uint8), 0, np.array([0]), 300),
            Wrong(IndexError, "Dimension out of range", np.zeros(3), 1, np.array([0]), 1.0),
            Wrong(TypeError, "either src", np.zeros(3), 0, np.array([0])),
            Wrong(TypeError, "either src", np.zeros(3), 0, np.array([0]), np.zeros(1), value=1.0),
        ),
        ("Scatter", "Gather"),
        torch=narrowed("scatter"),
        dtypes=NO_DTYPE,
    ),
    Op(
        indexing.scatter_add,
        lambda x, dim, index, src: written(x, dim, index, src, add=True),
        additions,
        (
            Wrong(RuntimeError, "index 5 is out of bounds", np.zeros(3), 0, np.array([0, 5]), np.zeros(2)),
            Wrong(RuntimeError, r"larger size than src \[1\]", np.zeros(3), 0, np.array([0, 1]), np.zeros(1)),
            Wrong(RuntimeError, "self.dtype to be equal to src", np.zeros(3), 0, np.array([0]), np.array([1])),
            Wrong(TypeError, "argument 'src' .* must be Tensor, not float", np.zeros(3), 0, np.array([0]), 1.0),
        ),
        ("ScatterAdd", "Gather"),
        torch=narrowed("scatter_add"),
        dtypes=NO_DTYPE,
    ),
    Op(
        indexing.index_select,
        slices_at,
        selections,
        (
            Wrong(IndexError, "index out of range in self: 3", np.zeros((3, 2)), 0, np.array([3])),
            Wrong(IndexError, "index out of range in self: -1", np.zeros((3, 2)), 1, np.array([-1])),
            Wrong(IndexError, "supposed to be a vector", np.zeros((3, 2)), 0, np.array([[1]])),
            Wrong(IndexError, "Dimension out of range", np.zeros((3, 2)), 2, np.array([1])),
            Wrong(RuntimeError, "Expected dtype int32 or int64 for index", np.zeros(3), 0, np.array([1], np.uint8)),
            Wrong(RuntimeError, r"can have only 1 value, got 2 value\(s\)", np.zeros(()), 0, np.array([0, 0])),
        ),
        ("IndexSelect", "IndexSelectAdjoint"),
        dtypes=NO_DTYPE,
    ),
    Op(
        indexing.masked_fill,
        filled,
        fillings,
        (
            Wrong(
                RuntimeError,
                "only supports boolean masks, but got mask with dtype int64",
                np.zeros(2),
                np.ones(2, int),
                1,
            ),
            Wrong(RuntimeError, "0-dimensional value tensor", np.zeros(3), FLAGS, np.zeros(1)),
            Wrong(RuntimeError, SIZES, np.zeros(2), FLAGS, 1.0),
            Wrong(RuntimeError, "float16 without overflow", np.zeros(3, np.float16), FLAGS, 1e9),
            Wrong(RuntimeError, "int64 without overflow", np.zeros(3, np.int64), FLAGS, math.nan),
            Wrong(TypeError, "must be real number", np.zeros(3), FLAGS, None),
        ),
        ("Where",),
        dtypes="takes a mask; test_new_places_keep_the_dtype",
    ),
    Op(
        indexing.masked_select,
        chosen_by,
        masks,
        (
            Wrong(RuntimeError, "expected BoolTensor for mask", np.zeros(3), np.ones(3, np.uint8)),
            Wrong(RuntimeError, SIZES, np.zeros(2), FLAGS),
        ),
        ("Index", "IndexPut"),
        dtypes="takes a mask; test_new_places_keep_the_dtype",
    ),
    Op(
        indexing.nonzero,
        places_of,
        sparse,
        (Wrong(TypeError, r"nonzero\(\): argument 'input' .* must be Tensor, not list", [1]),),
        differentiable=False,
        dtypes="to int64",
    ),
]
FAMILY = indexing
EXEMPT = [Exempt(indexing.array_index, "translates an index; getitem's row and the tests of setitem use it")]

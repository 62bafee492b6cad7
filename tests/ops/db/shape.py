from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import shape

from .row import Exempt, Op, Sample, Samples, Wrong


def draw(rng: np.random.Generator, *size: int) -> Any:
    return rng.standard_normal(size)


def calls(*cases: tuple[Any, ...]) -> Samples:
    """Each case: the shape of the input, then the other arguments."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size, *rest in cases:
            yield Sample(draw(rng, *size), *rest)

    return samples


def method(name: str) -> Callable[..., Any]:
    return lambda torch, x, *args: getattr(x, name)(*args)


def lists(*cases: tuple[Any, ...]) -> Samples:
    """Each case: the shapes of the listed inputs, then the other arguments."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for sizes, *rest in cases:
            yield Sample([draw(rng, *size) for size in sizes], *rest)

    return samples


def unpacked(size: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size


def in_order(x: Any, size: tuple[int, ...]) -> Any:
    """Row-major order spelled out, without NumPy's reshape."""
    flat = [x[place] for place in np.ndindex(x.shape)]
    if -1 in size:
        known = int(np.prod([n for n in size if n != -1]))
        size = tuple(len(flat) // known if n == -1 else n for n in size)
    out = np.empty(size, x.dtype)
    for place, value in zip(np.ndindex(*size), flat, strict=True):
        out[place] = value
    return out


def flat_between(x: Any, start: int = 0, end: int = -1) -> Any:
    if not x.ndim:
        return np.array([x[()]])
    start, end = start % x.ndim, end % x.ndim
    return in_order(x, (*x.shape[:start], int(np.prod(x.shape[start : end + 1])), *x.shape[end + 1 :]))


def one_after_another(parts: list[Any], dim: int = 0) -> Any:
    lengths = [part.shape[dim] for part in parts]
    size = list(parts[0].shape)
    size[dim] = sum(lengths)
    out = np.empty(size, np.result_type(*parts))
    for number, part in enumerate(parts):
        for place in np.ndindex(part.shape):
            target = list(place)
            target[dim] += sum(lengths[:number])
            out[tuple(target)] = part[place]
    return out


def pieces(x: Any, split: Any, dim: int = 0) -> Any:
    n = x.shape[dim]
    lengths = [min(split, n - at) for at in range(0, n, split)] or [0] if isinstance(split, int) else split
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return tuple(np.take(x, range(a, a + length), axis=dim) for a, length in zip(starts, lengths, strict=True))


def moved(x: Any, source: Any, destination: Any) -> Any:
    """Each result's dimension asks which of the input's it is."""
    if not x.ndim:
        return x
    source, destination = (
        [d % x.ndim for d in ([dims] if isinstance(dims, int) else dims)] for dims in (source, destination)
    )
    others = iter(d for d in range(x.ndim) if d not in source)
    order = [source[destination.index(d)] if d in destination else next(others) for d in range(x.ndim)]
    return np.einsum(x, list(range(x.ndim)), order)


SCALAR: tuple[int, ...] = ()
DIM = "Dimension out of range"

ROWS = [
    Op(
        shape.reshape,
        lambda x, *size: in_order(x, unpacked(size)),
        calls(((2, 3), (3, 2)), ((2, 3), 6), ((2, 3), (-1, 2)), (SCALAR, (1, 1)), ((1,), ()), ((0, 3), (3, 0, 2))),
        (
            Wrong(RuntimeError, r"shape '\[4, 2\]' is invalid for input of size 6", np.zeros((2, 3)), 4, 2),
            Wrong(RuntimeError, "only one dimension can be inferred", np.zeros((2, 3)), (-1, -1)),
            Wrong(RuntimeError, "is ambiguous", np.zeros((0, 3)), (-1, 0)),
            Wrong(RuntimeError, "is invalid for input of size 6", np.zeros((2, 3)), (-2, 3)),
        ),
        ("View",),
        torch=method("reshape"),
        dtypes="takes a size; test_views_keep_the_dtype",
    ),
    Op(
        shape.view,
        lambda x, *size: in_order(x, unpacked(size)),
        calls(((2, 3), (3, 2)), ((2, 3), -1), (SCALAR, (1,)), ((0, 3), (3, 0))),
        (Wrong(RuntimeError, "is invalid for input of size 6", np.zeros((2, 3)), 5),),
        ("View",),
        torch=method("view"),
        dtypes="takes a size; test_views_keep_the_dtype",
        lacks={"layouts": "it refuses to copy; test_view_refuses_to_copy"},
    ),
    Op(
        shape.flatten,
        flat_between,
        calls(((2, 3, 2),), ((2, 3, 2), 1), ((2, 3, 2), 0, 1), ((2, 3), -1), (SCALAR,), ((0, 3, 2), 1), ((2, 0, 3),)),
        (
            Wrong(RuntimeError, "start_dim cannot come after end_dim", np.zeros((2, 3)), 1, 0),
            Wrong(IndexError, DIM, np.zeros((2, 3)), 2),
        ),
        ("View",),
    ),
    Op(
        shape.squeeze,
        lambda x, dim=None: in_order(
            x,
            tuple(
                n
                for i, n in enumerate(x.shape)
                if n != 1
                or (dim is not None and i not in {d % x.ndim for d in ([dim] if isinstance(dim, int) else dim)})
            ),
        ),
        calls(((1, 3, 1),), ((1, 3, 1), 0), ((1, 3, 1), 1), ((1, 3, 1), (0, -1)), (SCALAR,), ((1, 0),)),
        (Wrong(IndexError, DIM, np.zeros((2, 3)), 2),),
        ("View",),
    ),
    Op(
        shape.unsqueeze,
        lambda x, dim: in_order(x, tuple(np.insert(np.array(x.shape, int), dim % (x.ndim + 1), 1))),
        calls(((2, 3), 0), ((2, 3), 2), ((2, 3), -1), (SCALAR, 0), ((0, 2), 1)),
        (Wrong(IndexError, r"range of \[-3, 2\], but got 3", np.zeros((2, 3)), 3),),
        ("View",),
        dtypes="takes dim; test_views_keep_the_dtype",
    ),
    Op(
        shape.permute,
        lambda x, *dims: np.einsum(x, list(range(x.ndim)), [d % max(x.ndim, 1) for d in unpacked(dims)]),
        calls(((2, 3, 4), (2, 0, 1)), ((2, 3), (-1, 0)), (SCALAR, ()), ((2, 0), (1, 0))),
        (
            Wrong(RuntimeError, "is not an ordering of the 2 dimensions", np.zeros((2, 3)), (0, 0)),
            Wrong(RuntimeError, "is not an ordering of the 2 dimensions", np.zeros((2, 3)), (0,)),
        ),
        ("Permute",),
        dtypes="takes dims; test_views_keep_the_dtype",
    ),
    Op(
        shape.transpose,
        lambda x, a, b: np.swapaxes(x, a, b) if x.ndim else x,
        calls(((2, 3, 4), 0, 2), ((2, 3), -1, -2), (SCALAR, 0, -1), ((2, 0, 3), 1, 2)),
        (Wrong(IndexError, DIM, np.zeros((2, 3)), 0, 2),),
        ("Permute",),
        dtypes="takes dims; test_views_keep_the_dtype",
    ),
    Op(
        shape.movedim,
        moved,
        calls(
            ((2, 3, 4), 0, 2),
            ((2, 3, 4), -1, 0),
            ((2, 3, 4), (0, 1), (-1, 0)),
            ((2, 3, 4, 2), [3, 0], [0, 1]),
            ((2, 3), (), ()),
            (SCALAR, 0, -1),
            ((2, 0, 3), 2, 0),
        ),
        (
            Wrong(IndexError, DIM, np.zeros((2, 3)), 2, 0),
            Wrong(IndexError, DIM, np.zeros((2, 3)), 0, -3),
            Wrong(RuntimeError, r"source \(\[0\] dims\) should contain the same number", np.zeros((2, 3)), 0, (0, 1)),
            Wrong(RuntimeError, r"repeated dim in `source` \(\[0, -2\]\)", np.zeros((2, 3)), (0, -2), (0, 1)),
            Wrong(RuntimeError, "repeated dim in `destination`", np.zeros((2, 3)), (0, 1), (1, 1)),
        ),
        ("Permute",),
        dtypes="takes dims; test_new_places_keep_the_dtype",
    ),
    Op(
        shape.t,
        lambda x: (
            np.array([[x[i, j] for i in range(x.shape[0])] for j in range(x.shape[1])]).reshape(x.shape[::-1])
            if x.ndim == 2
            else x
        ),
        calls(((2, 3),), ((3,),), (SCALAR,), ((0, 2),)),
        (Wrong(RuntimeError, r"t\(\) expects a tensor with <= 2 dimensions, but self is 3D", np.zeros((2, 3, 4))),),
        ("Permute",),
    ),
    Op(
        shape.cat,
        one_after_another,
        lists(([(2, 3), (1, 3)],), ([(2, 3), (2, 1), (2, 0)], 1), ([(2, 2)], -1), ([(0, 3), (0, 3)],)),
        (
            Wrong(RuntimeError, "non-empty list", []),
            Wrong(RuntimeError, "zero-dimensional tensor", [np.zeros(()), np.zeros(())]),
            Wrong(RuntimeError, "match except in dimension 0", [np.zeros((2, 3)), np.zeros((2, 2))]),
            Wrong(RuntimeError, "match except in dimension 1", [np.zeros((2, 3)), np.zeros(2)], 1),
            Wrong(IndexError, DIM, [np.zeros((2, 3))], 2),
        ),
        ("Cat", "Narrow", "NarrowAdjoint"),
        dtypes="takes a list; test_promotion_in_a_list",
        lacks={"0-d": "they have no dimension to go along: an error"},
    ),
    Op(
        shape.stack,
        lambda parts, dim=0: np.moveaxis(np.array(parts), 0, dim),
        lists(([(2, 3), (2, 3)],), ([(2,), (2,), (2,)], 1), ([(2, 2)], -1), ([(), ()],), ([(0, 3), (0, 3)], 1)),
        (
            Wrong(RuntimeError, "expects a non-empty TensorList", []),
            Wrong(RuntimeError, "to be equal size", [np.zeros(2), np.zeros(3)]),
        ),
        ("Cat", "View"),
        dtypes="takes a list; test_promotion_in_a_list",
    ),
    Op(
        shape.unbind,
        lambda x, dim=0: tuple(np.take(x, i, axis=dim) for i in range(x.shape[dim])),
        calls(((2, 3),), ((2, 3), 1), ((2, 3, 2), -1), ((2, 0),)),
        (Wrong(IndexError, "no dimensions", np.zeros(())), Wrong(IndexError, DIM, np.zeros((2, 3)), 2)),
        ("Unbind", "Cat"),
        dtypes="gives several tensors; test_views_keep_the_dtype",
        lacks={"0-d": "there is no dimension to take apart: an error"},
    ),
    Op(
        shape.narrow,
        lambda x, dim, start, length: np.take(
            x, range(start % (x.shape[dim] or 1), start % (x.shape[dim] or 1) + length), axis=dim
        ),
        calls(((4, 3), 0, 1, 2), ((4, 3), -1, 0, 1), ((4, 3), 0, -2, 2), ((4,), 0, 2, 0), ((0, 3), 0, 0, 0)),
        (
            Wrong(RuntimeError, r"start \(2\) \+ length \(3\) exceeds dimension size \(4\)", np.zeros((4, 3)), 0, 2, 3),
            Wrong(RuntimeError, "cannot be applied to a 0-dim tensor", np.zeros(()), 0, 0, 1),
            Wrong(IndexError, DIM, np.zeros((4, 3)), 2, 0, 1),
        ),
        ("Narrow", "NarrowAdjoint"),
        dtypes="takes dims; test_views_keep_the_dtype",
        lacks={"0-d": "there is no dimension to narrow: an error"},
    ),
    Op(
        shape.select,
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
        dtypes="takes dims; test_new_places_keep_the_dtype",
        lacks={"0-d": "there is no dimension to select from: an error"},
    ),
    Op(
        shape.chunk,
        lambda x, chunks, dim=0: pieces(x, -(-x.shape[dim] // chunks) or [0] * chunks, dim),
        calls(((5, 2), 2), ((5, 2), 4), ((2, 4), 3, 1), ((2, 4), 9, -1), ((4,), 1), ((0, 2), 3), ((2, 0), 2)),
        (
            Wrong(RuntimeError, "`chunks` to be greater than 0, got: 0", np.zeros(3), 0),
            Wrong(RuntimeError, "at least a 1-dimensional tensor", np.zeros(()), 1),
            Wrong(IndexError, DIM, np.zeros(3), 2, 1),
            Wrong(TypeError, "float", np.zeros(4), 2.0),
        ),
        ("Narrow",),
        dtypes="gives several tensors; test_new_places_keep_the_dtype",
        lacks={"0-d": "there is no dimension to split: an error"},
    ),
    Op(
        shape.split,
        pieces,
        calls(((5, 2), 2), ((5, 2), [1, 4]), ((2, 4), 3, 1), ((0, 2), 2)),
        (
            Wrong(RuntimeError, "split_size be positive, but got split_size=0", np.zeros(3), 0),
            Wrong(RuntimeError, "sum exactly to 3", np.zeros(3), [1, 1]),
            Wrong(RuntimeError, "at least a 1-dimensional tensor", np.zeros(()), 1),
        ),
        ("Narrow",),
        dtypes="gives several tensors; test_views_keep_the_dtype",
        lacks={"0-d": "there is no dimension to split: an error"},
    ),
    Op(
        shape.contiguous,
        lambda x: x,
        calls(((2, 3),), (SCALAR,), ((0, 2),)),
        (Wrong(AttributeError, "is_contiguous", 3),),
        torch=method("contiguous"),
    ),
]
FAMILY = shape
EXEMPT = [Exempt(shape.normalize_dim, "checks an argument, on integers; every row with a dim uses it")]

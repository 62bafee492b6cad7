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


def several(*cases: tuple[tuple[int, ...], ...]) -> Samples:
    """Each case: the shapes of the inputs."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for sizes in cases:
            yield Sample(*(draw(rng, *size) for size in sizes))

    return samples


def method(name: str) -> Callable[..., Any]:
    return lambda torch, x, *args: getattr(x, name)(*args)


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


def unflattened(x: Any, dim: int, sizes: Any) -> Any:
    dim %= x.ndim
    known = -int(np.prod(sizes)) if -1 in sizes else 1
    inner = tuple(x.shape[dim] // known if n == -1 else n for n in sizes)
    return in_order(x, (*x.shape[:dim], *inner, *x.shape[dim + 1 :]))


def without_ones(x: Any, dim: Any = None) -> Any:
    named = set() if dim is None else {d % max(x.ndim, 1) for d in ([dim] if isinstance(dim, int) else dim)}
    return in_order(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or (dim is not None and i not in named)))


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


def swapped(x: Any, a: int, b: int) -> Any:
    return np.swapaxes(x, a, b) if x.ndim else x


def repeated_to(x: Any, size: tuple[int, ...]) -> Any:
    out = np.empty(size, x.dtype)
    for place in np.ndindex(*size):
        out[place] = x[tuple(i if n > 1 else 0 for i, n in zip(place[len(size) - x.ndim :], x.shape, strict=True))]
    return out


def grown(least: int) -> Callable[..., Any]:
    """What PyTorch documents of atleast_1d, 2d and 3d: where the elements of a vector and of a matrix lie."""

    def one(x: Any) -> Any:
        if x.ndim >= least:
            return x
        sizes = {(0, 1): (1,), (0, 2): (1, 1), (0, 3): (1, 1, 1)}
        sizes |= {(1, 2): (1, x.size), (1, 3): (1, x.size, 1), (2, 3): (*x.shape, 1)}
        return in_order(x, sizes[x.ndim, least])

    def reference(*xs: Any) -> Any:
        if len(xs) == 1 and not isinstance(xs[0], (list, tuple)):
            return one(xs[0])
        return tuple(one(x) for x in (xs[0] if len(xs) == 1 else xs))

    return reference


def at_least(least: int) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size in (SCALAR, (3,), (2, 3), (2, 1, 2), (2, 1, 2, 1), (0,)):
            yield Sample(draw(rng, *size))
        yield Sample(draw(rng), draw(rng, 2))
        yield Sample([draw(rng, 2), draw(rng, 2, 2)])

    return samples


SCALAR: tuple[int, ...] = ()
DIM = "Dimension out of range"
SIZE = "takes a size; test_views_keep_the_dtype"
DIMS = "takes dims; test_views_keep_the_dtype"
SWAPS = calls(((2, 3, 4), 0, 2), ((2, 3), -1, -2), (SCALAR, 0, -1), ((2, 0, 3), 1, 2))
MOVES = calls(
    ((2, 3, 4), 0, 2),
    ((2, 3, 4), -1, 0),
    ((2, 3, 4), (0, 1), (-1, 0)),
    ((2, 3, 4, 2), [3, 0], [0, 1]),
    ((2, 3), (), ()),
    (SCALAR, 0, -1),
    ((2, 0, 3), 2, 0),
)
PAIRS = several(((2, 3), (3, 2)), ((2, 3), (6,)), ((), (1, 1)), ((0, 3), (3, 0)))


def views_of_bytes(rng: np.random.Generator) -> Iterator[Sample]:
    for array, dtype in (
        (np.array([[1, -2], [3, 4]], np.int32), np.float32),
        (np.array([1, 2], np.int64), np.float64),
        (np.array([1, 2], np.int32), np.int16),
        (np.array([[1, 2, 3, 4]], np.int16), np.int64),
        (np.array([1, 200], np.uint8), np.int8),
        (np.array([1, 2], np.int32), np.int32),
        (np.array(3, np.int32), np.float32),
        (np.zeros((0, 2), np.int32), np.float32),
    ):
        yield Sample(array, np.dtype(dtype))


BYTES = np.zeros((2, 3), np.int32)

ROWS = [
    Op(
        shape.reshape,
        lambda x, *size: in_order(x, unpacked(size)),
        calls(((2, 3), (3, 2)), ((2, 3), 6), ((2, 3), (-1, 2)), (SCALAR, (1, 1)), ((1,), ()), ((0, 3), (3, 0, 2))),
        (
            Wrong(RuntimeError, r"shape '\[4, 2\]' is invalid for input of size 6", np.zeros((2, 3)), 4, 2),
            Wrong(RuntimeError, r"shape '\[4, -1\]' is invalid for input of size 6", np.zeros((2, 3)), 4, -1),
            Wrong(RuntimeError, "only one dimension can be inferred", np.zeros((2, 3)), (-1, -1)),
            Wrong(RuntimeError, "is ambiguous", np.zeros((0, 3)), (-1, 0)),
            Wrong(RuntimeError, "invalid shape dimension -2 at index 0", np.zeros((2, 3)), (-2, 3)),
            Wrong(TypeError, "'shape' must be tuple of ints, but found element of type float", np.zeros(2), 2.0),
            Wrong(TypeError, "'shape' must be tuple of ints, but found element of type bool", np.zeros(1), True),
            Wrong(TypeError, r"argument 'input' \(position 1\) must be Tensor, not list", [1.0], 1),
        ),
        ("View",),
        torch=method("reshape"),
        dtypes=SIZE,
    ),
    Op(
        shape.reshape_as,
        lambda x, other: in_order(x, other.shape),
        PAIRS,
        (Wrong(RuntimeError, "is invalid for input of size 6", np.zeros((2, 3)), np.zeros(5)),),
        ("View",),
        torch=method("reshape_as"),
        dtypes=SIZE,
    ),
    Op(
        shape.view,
        lambda x, *size: in_order(x, unpacked(size)),
        calls(((2, 3), (3, 2)), ((2, 3), -1), (SCALAR, (1,)), ((0, 3), (3, 0))),
        (
            Wrong(RuntimeError, "is invalid for input of size 6", np.zeros((2, 3)), 5),
            Wrong(TypeError, "takes a shape or a dtype", np.zeros((2, 3))),
            Wrong(TypeError, "must be tuple of ints", np.zeros(2), 2.0),
        ),
        ("View",),
        torch=method("view"),
        dtypes=SIZE,
        lacks={"layouts": "it refuses to copy; test_view_refuses_to_copy"},
    ),
    Op(
        shape.view,
        lambda x, dtype: np.frombuffer(x.tobytes(), dtype).reshape(*x.shape[:-1], -1) if x.size > 1 else x.view(dtype),
        views_of_bytes,
        (
            Wrong(
                RuntimeError, r"self.size\(-1\) must be divisible by 2 to view int32 as int64", BYTES, np.dtype("int64")
            ),
            Wrong(RuntimeError, r"self.dim\(\) cannot be 0", np.zeros((), np.int32), np.dtype("int16")),
        ),
        ("ViewAsDtype",),
        name="view of a dtype",
        torch=method("view"),
        differentiable=False,
        dtypes="is asked for a dtype",
        lacks={"layouts": "it refuses other strides; test_view_of_a_dtype_refuses_other_strides"},
    ),
    Op(
        shape.view_as,
        lambda x, other: in_order(x, other.shape),
        PAIRS,
        (Wrong(RuntimeError, "is invalid for input of size 6", np.zeros((2, 3)), np.zeros(5)),),
        ("View",),
        torch=method("view_as"),
        dtypes=SIZE,
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
        shape.ravel,
        flat_between,
        calls(((2, 3, 2),), ((3,),), (SCALAR,), ((0, 3),)),
        (Wrong(AttributeError, "is_contiguous", 3),),
        ("View",),
    ),
    Op(
        shape.unflatten,
        unflattened,
        calls(
            ((6,), 0, (2, 3)),
            ((2, 6), -1, (3, -1)),
            ((2, 6), 0, [2, 1]),
            ((0, 3), 0, (0, 2)),
            ((0, 3), 0, (-1, 2)),
        ),
        (
            Wrong(RuntimeError, r"sizes \[2, 4\] don't multiply up to the size of dim 0 \(6\)", np.zeros(6), 0, (2, 4)),
            Wrong(RuntimeError, r"sizes \[4, -1\] don't multiply up", np.zeros(6), 0, (4, -1)),
            Wrong(RuntimeError, "only one dimension can be inferred", np.zeros(6), 0, (-1, -1)),
            Wrong(RuntimeError, "sizes must be non-empty", np.zeros(6), 0, ()),
            Wrong(RuntimeError, "tensor has no dimensions", np.zeros(()), 0, (1,)),
            Wrong(IndexError, DIM, np.zeros(6), 1, (6,)),
        ),
        ("View",),
        torch=method("unflatten"),
        dtypes=SIZE,
        lacks={"0-d": "there is no dimension to take apart: an error"},
    ),
    Op(
        shape.squeeze,
        without_ones,
        calls(
            ((1, 3, 1),),
            ((1, 3, 1), 0),
            ((1, 3, 1), 1),
            ((1, 3, 1), (0, -1)),
            ((1, 3), ()),
            (SCALAR,),
            (SCALAR, -1),
            ((1, 0),),
        ),
        (
            Wrong(IndexError, DIM, np.zeros((2, 3)), 2),
            Wrong(RuntimeError, "dim 0 appears multiple times in the list of dims", np.zeros((1, 3)), (0, -2)),
        ),
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
        shape.contiguous,
        lambda x: x,
        calls(((2, 3),), (SCALAR,), ((0, 2),)),
        (Wrong(AttributeError, "is_contiguous", 3),),
        torch=method("contiguous"),
    ),
    *(
        Op(
            getattr(shape, f"atleast_{least}d"),
            grown(least),
            at_least(least),
            (
                Wrong(TypeError, "must be Tensor, not int", 3),
                Wrong(TypeError, r"argument 'tensors' \(position 2\) must be Tensor, not int", np.zeros(2), 3),
            ),
            ("View",),
        )
        for least in (1, 2, 3)
    ),
    Op(
        shape.permute,
        lambda x, *dims: np.einsum(x, list(range(x.ndim)), [d % max(x.ndim, 1) for d in unpacked(dims)]),
        calls(((2, 3, 4), (2, 0, 1)), ((2, 3), (-1, 0)), (SCALAR, ()), ((2, 0), (1, 0))),
        (
            Wrong(RuntimeError, "is not an ordering of the 2 dimensions", np.zeros((2, 3)), (0, 0)),
            Wrong(RuntimeError, "is not an ordering of the 2 dimensions", np.zeros((2, 3)), (0,)),
            Wrong(IndexError, DIM, np.zeros((2, 3)), (0, 2)),
        ),
        ("Permute",),
        dtypes=DIMS,
    ),
    *(
        Op(
            getattr(shape, name),
            swapped,
            SWAPS,
            (Wrong(IndexError, DIM, np.zeros((2, 3)), 0, 2), Wrong(IndexError, DIM, np.zeros(()), 1, 0)),
            ("Permute",),
            dtypes=DIMS,
        )
        for name in ("transpose", "swapaxes", "swapdims")
    ),
    *(
        Op(
            getattr(shape, name),
            moved,
            MOVES,
            (
                Wrong(IndexError, DIM, np.zeros((2, 3)), 2, 0),
                Wrong(IndexError, DIM, np.zeros((2, 3)), 0, -3),
                Wrong(RuntimeError, r"source \(\[0\] dims\) should contain the same", np.zeros((2, 3)), 0, (0, 1)),
                Wrong(RuntimeError, r"repeated dim in `source` \(\[0, -2\]\)", np.zeros((2, 3)), (0, -2), (0, 1)),
                Wrong(RuntimeError, "repeated dim in `destination`", np.zeros((2, 3)), (0, 1), (1, 1)),
            ),
            ("Permute",),
            dtypes=DIMS,
        )
        for name in ("movedim", "moveaxis")
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
        shape.expand_as,
        lambda x, other: repeated_to(x, other.shape),
        several(((3,), (2, 3)), ((2, 1), (2, 3)), ((), (2,)), ((1, 3), (0, 3))),
        (
            Wrong(RuntimeError, r"expanded size of the tensor \(3\) must match", np.zeros(2), np.zeros(3)),
            Wrong(RuntimeError, "number of sizes provided", np.zeros((2, 2)), np.zeros(2)),
        ),
        ("Expand", "SumToSize"),
        torch=method("expand_as"),
        dtypes=SIZE,
    ),
    Op(
        shape.broadcast_tensors,
        lambda *xs: tuple(repeated_to(x, np.broadcast_shapes(*(y.shape for y in xs))) for x in xs),
        several(((2, 3), (3,), ()), ((2, 1), (1, 3)), ((2,),), ((0, 1), (1, 3))),
        (
            Wrong(RuntimeError, r"a \(3\) must match the size of tensor b \(2\)", np.zeros((2, 3)), np.zeros(2)),
            Wrong(TypeError, "must be Tensor, not list", [np.zeros(2)]),
        ),
        ("Expand",),
        dtypes="gives several tensors; test_views_keep_the_dtype",
    ),
]
FAMILY = shape
EXEMPT = [
    Exempt(shape.normalize_dim, "checks an argument, on integers; every row with a dim uses it"),
    Exempt(shape.broadcast_shapes, "is about shapes, not tensors; test_broadcast_shapes"),
]

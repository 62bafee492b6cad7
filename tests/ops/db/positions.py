from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import positions

from .row import Op, Sample, Wrong
from .shape import DIM

INDEX = "takes an index; test_new_places_keep_the_dtype"
SIZES = "must match the size of tensor b"


def along(x: Any, dim: int, index: Any) -> Any:
    out = np.empty(index.shape, x.dtype)
    for place in np.ndindex(index.shape):
        source = list(place) or [0]
        source[dim] = index[place]
        out[place] = x[tuple(source)] if x.ndim else x
    return out


def gathers(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([[2, 0, 1, 1], [0, 0, 2, 2]]))
    yield Sample(x, 1, np.array([[3, 3], [0, 1], [2, 0]], np.int32))
    yield Sample(x, -1, np.array([[3], [1]]))
    yield Sample(x, 0, np.zeros((0, 4), np.int64))
    yield Sample(np.zeros((0, 3)), 1, np.zeros((0, 2), np.int64))
    yield Sample(rng.standard_normal(()), 0, np.array(0))
    yield Sample(rng.standard_normal(()), 0, np.array([0, 0]))
    yield Sample(rng.standard_normal(3), 0, np.array(2))


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


def takes_along(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, np.array([[2, 0, 1, 1], [0, 0, 2, 2]]), 0)
    yield Sample(x, np.array([[3, 3, 0]]), 1)
    yield Sample(x, np.array([[3], [1], [-1]]), -1)
    yield Sample(x, np.array([[3, 11], [1, 3]]))
    yield Sample(rng.standard_normal((1, 3)), np.array([[0, 1], [2, 2]]), dim=1)
    yield Sample(rng.standard_normal(()), np.array(0))
    yield Sample(np.zeros((0, 3)), np.zeros((1, 2), np.int64), 1)


def flat_places(x: Any, index: Any) -> Any:
    flat = [x[place] for place in np.ndindex(x.shape)]
    return np.array([flat[i] for i in index.flatten()], x.dtype).reshape(index.shape)


def takes(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, np.array([0, 11, 5, 5]))
    yield Sample(x, np.array([[-1, -12], [3, 3]]))
    yield Sample(x, np.array(7))
    yield Sample(x, np.zeros((0, 2), np.int64))
    yield Sample(rng.standard_normal(()), np.array([0, 0]))
    yield Sample(np.zeros((0, 3)), np.zeros(0, np.int64))


def put(x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    out = np.array([x[place] for place in np.ndindex(x.shape)], x.dtype)
    for i, value in zip(index.flatten(), source.flatten(), strict=True):
        out[i] = out[i] + value if accumulate else value
    return out.reshape(x.shape)


def puts(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, np.array([0, 11, 5]), rng.standard_normal(3))
    yield Sample(x, np.array([[-1, 2]]), rng.standard_normal((2, 1)))
    yield Sample(x, np.array([[4, 4], [-8, 0]]), rng.standard_normal((2, 2)), accumulate=True)
    yield Sample(x, np.zeros(0, np.int64), np.zeros(0))
    yield Sample(rng.standard_normal(()), np.array(0), rng.standard_normal(()))
    yield Sample(rng.standard_normal(()), np.array(0), rng.standard_normal(()), True)


def written(x: Any, dim: int, index: Any, src: Any = None, value: Any = None, reduce: str | None = None) -> Any:
    """One element after the other."""
    out = np.array(x)
    flat = out.reshape(-1) if not out.ndim else out
    for place in np.ndindex(index.shape):
        if src is None or isinstance(src, (int, float)):
            item = value if src is None else src
        else:
            item = src[place] if place else src.reshape(-1)[0]
        target = list(place) or [0]
        target[dim] = index[place]
        old = flat[tuple(target)]
        flat[tuple(target)] = item if reduce is None else old + item if reduce == "add" else old * item
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


def combinations(rng: np.random.Generator) -> Iterator[Sample]:
    x, twice = rng.standard_normal((3, 4)), np.array([[2, 0, 1, 1], [2, 1, 2, 1]])
    yield Sample(x, 0, twice, rng.standard_normal((2, 4)), reduce="add")
    yield Sample(x, 0, twice, rng.standard_normal((2, 4)), reduce="multiply")
    yield Sample(x, 0, twice, 1.5, reduce="add")
    yield Sample(x, 1, twice, value=-2.0, reduce="multiply")
    yield Sample(rng.standard_normal(()), 0, np.array(0), rng.standard_normal(()), reduce="multiply")
    yield Sample(np.zeros((0, 3)), 1, np.zeros((0, 2), np.int64), value=1.0, reduce="add")


def narrowed(name: str) -> Callable[..., Any]:
    """PyTorch differentiates by src only where its shape is that of the index."""

    def function(torch: Any, x: Any, dim: int, index: Any, src: Any = None, *more: Any, **rest: Any) -> Any:
        if isinstance(src, torch.Tensor):
            src = src[tuple(slice(n) for n in index.shape)].reshape(index.shape)
        return getattr(torch, name)(x, dim, index, *([] if src is None else [src]), *more, **rest)

    return function


def additions(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 0, np.array([[2, 0, 1, 1], [2, 2, 1, 0], [2, 0, 1, 1]]), rng.standard_normal((3, 4)))
    yield Sample(x, 1, np.array([[3, 3, 3, 0, 3], [0, 1, 0, 1, 0]]), rng.standard_normal((2, 5)))
    yield Sample(x, -2, np.array([[1, 1]], np.int32), rng.standard_normal((2, 3)))
    yield Sample(rng.standard_normal(2), 0, np.array([1, 1, 1]), rng.standard_normal(3))
    yield Sample(x, 0, np.zeros((0, 4), np.int64), rng.standard_normal((0, 4)))
    yield Sample(rng.standard_normal(()), 0, np.array(0), rng.standard_normal(()))


REDUCERS: dict[str, Callable[..., Any]] = {
    "sum": sum,
    "mean": lambda values: sum(values) / len(values),
    "prod": np.prod,
    "amax": max,
    "amin": min,
}


def reduced(x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True) -> Any:
    """Everything for one place in a list, and then one element of it."""
    groups: dict[tuple[int, ...], list[Any]] = {}
    for place in np.ndindex(index.shape):
        target = list(place) or [0]
        target[dim] = int(index[place])
        groups.setdefault(tuple(target), []).append(src[place] if place else src.reshape(-1)[0])
    out = np.array(x)
    flat = out.reshape(-1) if not out.ndim else out
    for target, values in groups.items():
        flat[target] = REDUCERS[reduce]([flat[target], *values] if include_self else values)
    return out


def reductions(rng: np.random.Generator) -> Iterator[Sample]:
    x, index = rng.standard_normal((3, 4)), np.array([[2, 0, 1, 1], [2, 1, 2, 1], [2, 0, 2, 0]])
    for reduce in REDUCERS:
        for include_self in (True, False):
            yield Sample(x, 0, index, rng.standard_normal((3, 4)), reduce, include_self=include_self)
        yield Sample(x, -1, index[:2, :3], rng.standard_normal((2, 3)), reduce)
        yield Sample(rng.standard_normal(()), 0, np.array(0), rng.standard_normal(()), reduce)
        yield Sample(np.zeros((0, 3)), 1, np.zeros((0, 2), np.int64), np.zeros((0, 2)), reduce)
    zeros = np.array([[1.5, 0.0, -2.0], [0.5, 3.0, 0.0]])
    yield Sample(zeros, 1, np.array([[0, 0, 1], [1, 2, 1]]), np.array([[0.0, 2.0, -1.5], [0.7, 0.4, -3.0]]), "prod")


V, ONE = np.zeros(3), np.ones(1)
ROWS = [
    Op(
        positions.gather,
        along,
        gathers,
        (
            Wrong(RuntimeError, "same number of dimensions", np.zeros((3, 4)), 0, np.array([1])),
            Wrong(RuntimeError, "index 3 is out of bounds for dimension 0 with size 3", V, 0, np.array([3])),
            Wrong(RuntimeError, "index -1 is out of bounds for dimension 0", V, 0, np.array([-1])),
            Wrong(RuntimeError, "Expected dtype int32/int64 for index, got float64", V, 0, np.zeros(2)),
            Wrong(RuntimeError, "Expected dtype int32/int64 for index, got uint8", V, 0, np.zeros(2, np.uint8)),
            Wrong(RuntimeError, "Size does not match at dimension 1", np.zeros((2, 1)), 0, np.array([[0, 0]])),
            Wrong(IndexError, DIM, V, 1, np.array([0])),
        ),
        ("Gather", "ScatterAdd"),
        dtypes=INDEX,
    ),
    Op(
        positions.take_along_dim,
        along_dim,
        takes_along,
        (
            Wrong(RuntimeError, "index 3 is out of bounds for dimension 0", np.zeros((3, 2)), np.array([[3, 0]]), 0),
            Wrong(RuntimeError, "index -4 is out of bounds for dimension 0", np.zeros((3, 2)), np.array([[3, -4]]), 0),
            Wrong(RuntimeError, "index 7 is out of bounds", np.zeros((3, 2)), np.array([7])),
            Wrong(RuntimeError, "dtype of indices should be Long but got int32", V, np.array([0], np.int32)),
            Wrong(RuntimeError, "2 dimensions for input, and 1 dimensions", np.zeros((3, 2)), np.array([1]), 0),
            Wrong(RuntimeError, SIZES, np.zeros((3, 2)), np.array([[1, 0, 1]]), 0),
            Wrong(IndexError, "tensor has no dimensions", np.zeros(()), np.array(0), 0),
            Wrong(IndexError, DIM, np.zeros((3, 2)), np.array([[0, 0]]), 2),
        ),
        ("Gather", "ScatterAdd"),
        dtypes=INDEX,
    ),
    Op(
        positions.take,
        flat_places,
        takes,
        (
            Wrong(IndexError, "tried to access index 6 on a tensor of 6 elements", np.zeros((2, 3)), np.array([6])),
            Wrong(IndexError, "tried to access index -7", np.zeros((2, 3)), np.array([-7])),
            Wrong(IndexError, "tried to take from an empty tensor", np.zeros(0), np.array([0])),
            Wrong(RuntimeError, "Expected a long tensor for index, but got int32", V, np.array([0], np.int32)),
            Wrong(TypeError, r"'index' \(position 2\) must be Tensor, not int", V, 0),
        ),
        ("Gather", "ScatterAdd"),
        dtypes=INDEX,
    ),
    Op(
        positions.put,
        put,
        puts,
        (
            Wrong(IndexError, "tried to access index 3 on a tensor of 3 elements", V, np.array([3]), ONE),
            Wrong(IndexError, r"source.numel\(\) = 1, index.numel\(\) = 2", V, np.array([0, 1]), ONE),
            Wrong(RuntimeError, "expected to have the same dtype", V, np.array([0]), np.array([1])),
            Wrong(RuntimeError, "Expected a long tensor for index, but got int32", V, np.array([0], np.int32), ONE),
            Wrong(TypeError, r"'source' \(position 3\) must be Tensor, not float", V, np.array([0]), 1.0),
        ),
        ("Scatter", "ScatterAdd", "Gather"),
        torch=lambda torch, x, *args, **kwargs: x.put(*args, **kwargs),
        dtypes=INDEX,
    ),
    Op(
        positions.scatter,
        written,
        scatters,
        (
            Wrong(RuntimeError, "index 3 is out of bounds for dimension 0 with size 3", V, 0, np.array([3]), 1.0),
            Wrong(RuntimeError, "index -1 is out of bounds", V, 0, np.array([-1]), ONE),
            Wrong(RuntimeError, "dtype int32/int64 for index", V, 0, np.zeros(1), 1.0),
            Wrong(RuntimeError, "self.dtype to be equal to src", V, 0, np.array([0]), np.array([1])),
            Wrong(RuntimeError, "dimensions as self tensor", V, 0, np.array([[0]]), 1.0),
            Wrong(RuntimeError, "dimensions as src tensor", V, 0, np.array([0]), np.zeros((1, 2))),
            Wrong(RuntimeError, r"larger size than src \[1\]", V, 0, np.array([0, 1]), ONE),
            Wrong(RuntimeError, "apart from dimension 0$", np.zeros((3, 1)), 0, np.array([[0, 1]]), 1.0),
            Wrong(RuntimeError, "uint8 without overflow", np.zeros(3, np.uint8), 0, np.array([0]), 300),
            Wrong(RuntimeError, "must be either add or multiply", V, 0, np.array([0]), ONE, reduce="mean"),
            Wrong(IndexError, DIM, V, 1, np.array([0]), 1.0),
            Wrong(TypeError, "either src", V, 0, np.array([0])),
            Wrong(TypeError, "either src", V, 0, np.array([0]), ONE, value=1.0),
        ),
        ("Scatter", "Gather"),
        torch=narrowed("scatter"),
        dtypes=INDEX,
    ),
    Op(
        positions.scatter,
        written,
        combinations,
        (Wrong(RuntimeError, "must be either add or multiply", V, 0, np.array([0]), 1.0, reduce="sum"),),
        ("ScatterAdd", "ScatterProd"),
        name="scatter that combines",
        torch=lambda torch, x, dim, index, src=None, value=None, reduce="": torch.scatter_reduce(
            x,
            dim,
            index,
            torch.full(index.shape, value or src, dtype=x.dtype) if not isinstance(src, torch.Tensor) else src,
            {"add": "sum", "multiply": "prod"}[reduce],
        ),
        dtypes=INDEX,
    ),
    Op(
        positions.scatter_add,
        lambda x, dim, index, src: written(x, dim, index, src, reduce="add"),
        additions,
        (
            Wrong(RuntimeError, "index 5 is out of bounds", V, 0, np.array([0, 5]), np.zeros(2)),
            Wrong(RuntimeError, r"larger size than src \[1\]", V, 0, np.array([0, 1]), ONE),
            Wrong(RuntimeError, "self.dtype to be equal to src", V, 0, np.array([0]), np.array([1])),
            Wrong(TypeError, "argument 'src' .* must be Tensor, not float", V, 0, np.array([0]), 1.0),
        ),
        ("ScatterAdd", "Gather"),
        torch=narrowed("scatter_add"),
        dtypes=INDEX,
    ),
    Op(
        positions.scatter_reduce,
        reduced,
        reductions,
        (
            Wrong(RuntimeError, "either sum, prod, mean, amax or amin, got add", V, 0, np.array([0]), ONE, "add"),
            Wrong(RuntimeError, "index 5 is out of bounds", V, 0, np.array([5]), ONE, "sum"),
            Wrong(RuntimeError, "self.dtype to be equal to src", V, 0, np.array([0]), np.array([1]), "sum"),
            Wrong(NotImplementedError, "no mean of bools", V > 0, 0, np.array([0]), ONE > 0, "mean"),
            Wrong(TypeError, "argument 'src' .* must be Tensor, not float", V, 0, np.array([0]), 1.0, "sum"),
            Wrong(IndexError, DIM, V, 1, np.array([0]), ONE, "sum"),
        ),
        ("ScatterAdd", "ScatterProd", "ScatterAmax", "ScatterAmin", "Gather"),
        torch=narrowed("scatter_reduce"),
        dtypes=INDEX,
    ),
    Op(
        positions.one_hot,
        lambda x, classes=-1: np.array(
            [[int(i == c) for c in range(classes if classes > 0 else x.max() + 1)] for i in x.flatten().tolist()],
            np.int64,
        ).reshape(*x.shape, -1 if x.size else classes),
        lambda rng: iter(
            (
                Sample(np.array([0, 2, 1])),
                Sample(np.array([[0, 2]]), 4),
                Sample(np.array(1)),
                Sample(np.zeros((0, 2), np.int64), 3),
            )
        ),
        (
            Wrong(RuntimeError, "index tensor of type LongTensor, not int32", np.array([0], np.int32)),
            Wrong(RuntimeError, "class value 2 is out of bounds", np.array([0, 2]), 2),
            Wrong(RuntimeError, "must be non-negative: class value -1 is out of bounds", np.array([0, -1]), 2),
            Wrong(RuntimeError, "Can not infer total number of classes from empty", np.zeros(0, np.int64)),
            Wrong(RuntimeError, "smaller than num_classes", np.array([0]), -2),
        ),
        differentiable=False,
        dtypes="takes class indices, int64",
    ),
]
FAMILY = positions
EXEMPT: list[Any] = []

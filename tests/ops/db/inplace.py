from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import elementwise, inplace

from .row import Exempt, Op, Sample, Wrong


def on_a_copy(op: Any) -> Any:
    """In-place ops are tested as functions: of a non-leaf copy, which may be changed while its history is recorded."""

    def function(input: Any, *args: Any) -> Any:
        changed = elementwise.clone(input)
        result = op(changed, *args)
        assert result is changed
        return result

    return functools.update_wrapper(function, op)


def assigned(input: Any, index: Any, value: Any) -> Any:
    """``input[index] = value``, as a function."""
    changed = elementwise.clone(input)
    inplace.setitem(changed, index, value)
    return changed


def assigned_in_torch(torch: Any, input: Any, index: Any, value: Any) -> Any:
    changed = input.clone()
    changed[index] = value
    return changed


def written(x: Any, index: Any, value: Any) -> Any:
    """Element by element: the positions that the index names, in order, each with its value."""
    out = x.copy()
    positions = np.arange(x.size).reshape(x.shape)[index]
    value = np.asarray(value)
    value = value.reshape(value.shape[max(value.ndim - positions.ndim, 0) :])
    values = np.broadcast_to(value, positions.shape)
    for place, element in zip(np.ravel(positions).tolist(), np.ravel(values).tolist(), strict=True):
        out.reshape(-1)[place] = element
    return out


def assignments(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4))
    yield Sample(x, 1, rng.standard_normal(4))
    yield Sample(x, (slice(None), 2), rng.standard_normal(()))
    yield Sample(x, (slice(0, 3, 2), slice(1, 3)), rng.standard_normal((2, 2)))
    yield Sample(x, ..., rng.standard_normal((1, 4)))
    yield Sample(x, (1, 2), 5.0)
    yield Sample(x, np.array([2, 0]), rng.standard_normal((2, 4)))
    yield Sample(x, (np.array([2, 0]), np.array([1, 3])), rng.standard_normal(2))
    yield Sample(x, (slice(None), np.array([0, 3])), rng.standard_normal(()))
    mask = np.array([[True, False, False, True]] * 3)  # rows alike: some checks repeat the first
    yield Sample(x, mask, rng.standard_normal(()))
    yield Sample(x, mask, rng.standard_normal(int(mask.sum())))
    yield Sample(x, (None, 1), rng.standard_normal((1, 1, 4)))
    yield Sample(x, slice(0, 0), rng.standard_normal(4))
    yield Sample(np.zeros((0, 3)), (slice(None), 1), rng.standard_normal(()))


def torch_method(name: str) -> Any:
    return lambda torch, x, *args: getattr(x.clone(), name)(*args)


def sources(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 3)), rng.standard_normal((2, 3)))
    yield Sample(rng.standard_normal((2, 3)), rng.standard_normal(3))
    yield Sample(rng.standard_normal(()), rng.standard_normal(()))
    yield Sample(np.zeros((0, 3)), rng.standard_normal(3))
    yield Sample(rng.standard_normal((2,)), np.array([1, 2]))


def values(*more: Any) -> Any:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for size in ((2, 3), (), (0, 2)):
            yield Sample(rng.standard_normal(size), *more)

    return samples


ROWS = [
    Op(
        on_a_copy(inplace.copy_),
        lambda x, source: np.zeros_like(x) + source,
        sources,
        (Wrong(RuntimeError, "expanded size", np.zeros(2), np.zeros(3)),),
        ("Clone", "Copy"),
        torch=torch_method("copy_"),
        dtypes="keeps the dtype of what it writes to; test_in_place_keeps_the_dtype",
    ),
    Op(
        on_a_copy(inplace.fill_),
        lambda x, value: np.zeros_like(x) + value,
        values(2.5),
        (Wrong(TypeError, r"fill_\(\): value must be a number, not str", np.zeros(2), "a"),),
        ("Fill",),
        torch=torch_method("fill_"),
        dtypes="keeps the dtype of what it writes to; test_in_place_keeps_the_dtype",
    ),
    Op(
        on_a_copy(inplace.zero_),
        np.zeros_like,
        values(),
        (Wrong(TypeError, "argument 'input' must be Tensor", 3),),
        ("Fill",),
        torch=torch_method("zero_"),
        dtypes="keeps the dtype of what it writes to; test_in_place_keeps_the_dtype",
    ),
    Op(
        assigned,
        written,
        assignments,
        (
            Wrong(
                RuntimeError,
                r"value tensor of shape \[3\] cannot be broadcast .* of shape \[4\]",
                np.zeros((2, 4)),
                0,
                np.zeros(3),
            ),
            Wrong(IndexError, "out of bounds", np.zeros(2), 5, 1.0),
            Wrong(TypeError, "can't assign a list to a Tensor", np.zeros(2), 0, [1.0]),
        ),
        ("Copy", "CopySlices", "ZeroSlices", "IndexPut_"),
        name="setitem",
        torch=assigned_in_torch,
        dtypes="keeps the dtype of what it writes to; test_in_place_keeps_the_dtype",
    ),
]
FAMILY = inplace
EXEMPT = [
    Exempt(inplace.in_place, "makes the in-place form of an op with a row; test_in_place_forms runs them all"),
    Exempt(inplace.replace, "the machinery below the rows of this family"),
    Exempt(inplace.setitem, "returns nothing: the row named setitem makes it a function"),
]

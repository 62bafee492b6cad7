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
]
FAMILY = inplace
EXEMPT = [
    Exempt(inplace.in_place, "makes the in-place form of an op with a row; test_in_place_forms runs them all"),
    Exempt(inplace.replace, "the machinery below the rows of this family"),
    Exempt(inplace.setitem, "returns nothing; test_setitem"),
]

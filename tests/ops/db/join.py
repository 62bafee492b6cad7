from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import join

from .row import Op, Sample, Samples, Wrong
from .shape import DIM, draw, in_order


def lists(*cases: tuple[Any, ...]) -> Samples:
    """Each case: the shapes of the listed inputs, then the other arguments."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for sizes, *rest in cases:
            yield Sample([draw(rng, *size) for size in sizes], *rest)

    return samples


def one_after_another(parts: list[Any], dim: int = 0) -> Any:
    parts = [part for part in parts if part.shape != (0,)] or parts[:1]
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


def grown(shape_of: Callable[[Any], tuple[int, ...]], dim: Callable[[Any], int]) -> Callable[..., Any]:
    """``cat`` of the parts in the shape that the documentation gives them."""

    def reference(parts: list[Any]) -> Any:
        return one_after_another([in_order(x, shape_of(x)) for x in parts], dim(parts[0]))

    return reference


def rows_of(x: Any) -> tuple[int, ...]:
    return x.shape if x.ndim > 1 else (1, x.size)


def blocks(*parts: Any) -> Any:
    parts = tuple(in_order(x, rows_of(x)) for x in parts)
    out = np.zeros([sum(x.shape[d] for x in parts) for d in (0, 1)])
    for number, x in enumerate(parts):
        row, column = (sum(y.shape[d] for y in parts[:number]) for d in (0, 1))
        for i, j in np.ndindex(x.shape):
            out[row + i, column + j] = x[i, j]
    return out


def several(rng: np.random.Generator) -> Iterator[Sample]:
    for sizes in (((2, 3), (1, 2)), ((2,), (), (2, 2)), ((0, 2), (2, 0)), ((3, 1),)):
        yield Sample(*(draw(rng, *size) for size in sizes))


def stacks(*cases: tuple[Any, ...]) -> Samples:
    return lists(*((sizes,) for sizes in cases))


def wrong(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(RuntimeError, f"{name} expects a non-empty TensorList", []),
        Wrong(TypeError, rf"{name}\(\): argument 'tensors' .* must be tuple of Tensors, not Tensor", np.zeros(2)),
        Wrong(TypeError, "expected Tensor as element 1 in argument 'tensors', but got int", [np.zeros(2), 3]),
    )


LIST = "takes a list; test_promotion_in_a_list"
NO_DIMENSION = {"0-d": "they have no dimension to go along: an error"}
CAT = lists(
    ([(2, 3), (1, 3)],),
    ([(2, 3), (2, 1), (2, 0)], 1),
    ([(2, 2)], -1),
    ([(0, 3), (0, 3)],),
    ([(0,), (2, 3)], 1),
    ([(2, 3), (0,), (1, 3)],),
    ([(0,), (0,)], 0),
)
CAT_ERRORS = (
    Wrong(ValueError, "non-empty list", []),
    Wrong(RuntimeError, r"zero-dimensional tensor \(at position 0\)", [np.zeros(()), np.zeros(())]),
    Wrong(RuntimeError, r"zero-dimensional tensor \(at position 1\)", [np.zeros(2), np.zeros(())]),
    Wrong(RuntimeError, "in dimension 0. Expected size 3 but got size 2", [np.zeros((2, 3)), np.zeros((2, 2))]),
    Wrong(RuntimeError, "same number of dimensions: got 2 and 1", [np.zeros((2, 3)), np.zeros(2)], 1),
    Wrong(RuntimeError, "Expected size 3 but got size 4 for tensor number 1", [np.zeros((0, 3)), np.zeros((2, 4))]),
    Wrong(IndexError, DIM, [np.zeros((2, 3))], 2),
    Wrong(TypeError, "must be tuple of Tensors, not Tensor", np.zeros(2)),
)

ROWS = [
    *(
        Op(
            getattr(join, name),
            one_after_another,
            CAT,
            CAT_ERRORS,
            ("Cat", "Narrow", "NarrowAdjoint"),
            dtypes=LIST,
            lacks=NO_DIMENSION,
        )
        for name in ("cat", "concat", "concatenate")
    ),
    Op(
        join.stack,
        lambda parts, dim=0: np.moveaxis(np.array(parts), 0, dim),
        lists(([(2, 3), (2, 3)],), ([(2,), (2,), (2,)], 1), ([(2, 2)], -1), ([(), ()],), ([(0, 3), (0, 3)], 1)),
        (
            *wrong("stack"),
            Wrong(RuntimeError, "to be equal size", [np.zeros(2), np.zeros(3)]),
            Wrong(IndexError, r"range of \[-2, 1\], but got 2", [np.zeros(2)], 2),
        ),
        ("Cat", "View"),
        dtypes=LIST,
    ),
    Op(
        join.hstack,
        grown(lambda x: x.shape or (1,), lambda x: 0 if x.ndim < 2 else 1),
        stacks([(2, 3), (2, 1)], [(2,), (3,)], [(), (2,)], [(2, 0), (2, 1)], [(2, 1, 2)]),
        (*wrong("hstack"), Wrong(RuntimeError, "same number of dimensions", [np.zeros((2, 2)), np.zeros(2)])),
        ("Cat",),
        dtypes=LIST,
    ),
    *(
        Op(
            getattr(join, name),
            grown(rows_of, lambda x: 0),
            stacks([(2, 3), (1, 3)], [(2,), (2,)], [(), ()], [(2,), (3, 2)], [(0, 2), (1, 2)]),
            (*wrong(name), Wrong(RuntimeError, "Expected size 2 but got size 3", [np.zeros(2), np.zeros(3)])),
            ("Cat",),
            dtypes=LIST,
        )
        for name in ("vstack", "row_stack")
    ),
    Op(
        join.dstack,
        grown(lambda x: x.shape if x.ndim > 2 else (*x.shape, 1) if x.ndim == 2 else (1, x.size, 1), lambda x: 2),
        stacks([(2, 3), (2, 3)], [(2,), (2,)], [(), ()], [(2, 1, 2), (2, 1)], [(0, 2), (0, 2)]),
        (*wrong("dstack"), Wrong(RuntimeError, "Expected size 2 but got size 3", [np.zeros(2), np.zeros(3)])),
        ("Cat",),
        dtypes=LIST,
    ),
    Op(
        join.column_stack,
        grown(lambda x: x.shape if x.ndim > 1 else (x.size, 1), lambda x: 1),
        stacks([(2, 3), (2, 1)], [(2,), (2,)], [(), ()], [(2,), (2, 3)], [(0, 2), (0,)]),
        (*wrong("column_stack"), Wrong(RuntimeError, "Expected size 2 but got size 3", [np.zeros(2), np.zeros(3)])),
        ("Cat",),
        dtypes=LIST,
    ),
    Op(
        join.block_diag,
        blocks,
        several,
        (
            Wrong(RuntimeError, "Input 1 has 3 dimensions", np.zeros(2), np.zeros((2, 2, 2))),
            Wrong(TypeError, "must be Tensor, not list", [np.zeros(2)]),
        ),
        ("BlockDiag", "Narrow"),
        dtypes="takes several tensors; test_promotion_in_a_list",
    ),
]
FAMILY = join
EXEMPT: list[Any] = []

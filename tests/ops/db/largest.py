from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import largest

from .reduction import INTEGERS, dims, distinct, out_of_range, over
from .row import Exempt, Op, Sample, Wrong

EMPTY = np.zeros((0, 3))


def chosen(function: Callable[[list[float]], float]) -> Callable[..., Any]:
    """The first position of the extreme element."""
    inner = over(lambda values: values.index(function(values)))

    def reference(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        out = inner(x, dim, keepdim).astype(np.int64)
        return out.reshape((1,) * x.ndim) if dim is None and keepdim else out

    return reference


def with_indices(function: Callable[[list[float]], float]) -> Callable[..., Any]:
    def reference(x: Any, dim: Any = None, keepdim: bool = False, other: Any = None) -> Any:
        other = dim if isinstance(dim, np.ndarray) else other
        if other is not None:
            return np.where((x > other) == (function([1.0, 2.0]) == 2.0), x, other)
        values = over(function)(x, dim, keepdim)
        return values if dim is None else (values, chosen(function)(x, dim, keepdim))

    return reference


def extremes(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (2, 4))
    yield Sample(x)
    yield Sample(x, 1)
    yield Sample(x, 0, keepdim=True)
    yield Sample(x, -1, True)
    yield Sample(x, distinct(rng, (2, 4))[::-1] + 0.1)
    yield Sample(x, other=distinct(rng, (2, 4))[::-1] + 0.1)
    yield Sample(INTEGERS, 1)
    yield Sample(INTEGERS)
    yield Sample(distinct(rng, ()), 0)
    yield Sample(distinct(rng, ()))
    yield Sample(EMPTY, 1)


def ends(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (2, 4))
    yield Sample(x)
    yield Sample(x, keepdim=True)
    yield Sample(x, dim=-1)
    yield Sample(x, dim=0, keepdim=True)
    yield Sample(INTEGERS)
    yield Sample(distinct(rng, ()), dim=0)
    yield Sample(EMPTY, dim=1)


ROWS = [
    *(
        Op(
            getattr(largest, f"a{name}"),
            over(function),
            lambda rng: [*dims(empty=False)(rng), Sample(INTEGERS, 1)],
            (
                Wrong(IndexError, f"a{name}.*reduction dim 0 to have non-zero size", EMPTY, 0),
                Wrong(RuntimeError, f"a{name}.*Specify the reduction dim", EMPTY),
                Wrong(RuntimeError, "multiple times", np.zeros((2, 3)), (0, -2)),
                out_of_range(),
            ),
            (f"A{name}", "Where"),
            dtypes="same",
        )
        for name, function in {"max": max, "min": min}.items()
    ),
    Op(
        largest.aminmax,
        lambda x, dim=None, keepdim=False: (over(min)(x, dim, keepdim), over(max)(x, dim, keepdim)),
        ends,
        (
            Wrong(IndexError, "aminmax.*reduction dim 0 to have non-zero size", EMPTY, dim=0),
            Wrong(RuntimeError, "aminmax.*empty", EMPTY),
            Wrong(TypeError, "'dim' .*must be int, not tuple", np.zeros((2, 3)), dim=(0, 1)),
        ),
        ("Amin", "Amax"),
        dtypes="same",
    ),
    *(
        Op(
            getattr(largest, name),
            with_indices(function),
            extremes,
            (
                Wrong(IndexError, f"{name}.*reduction dim 0 to have non-zero size", EMPTY, 0),
                Wrong(RuntimeError, f"{name}.*Specify the reduction dim", EMPTY),
                Wrong(TypeError, "'dim' .*must be int, not tuple", np.zeros((2, 3)), (0, 1)),
                Wrong(TypeError, f"keepdim needs dim; a{name}", np.zeros((2, 3)), keepdim=True),
                out_of_range(),
            ),
            (
                f"Arg{name}",
                name.capitalize(),
                "PickAdjoint",
                f"{name.capitalize()}OfAll",
                f"{name.capitalize()}imum",
            ),
            dtypes="same",
        )
        for name, function in {"max": max, "min": min}.items()
    ),
    *(
        Op(
            getattr(largest, f"arg{name}"),
            chosen(function),
            lambda rng: [
                *dims(empty=False, several=False)(rng),
                Sample(INTEGERS, 1),
                Sample(np.array([1, 3, 3, 1]), 0),
                Sample(distinct(rng, (2, 2)), keepdim=True),
                Sample(distinct(rng, (2, 2)), None, True),
            ],
            (
                Wrong(IndexError, "Expected reduction dim to be specified", EMPTY),
                Wrong(IndexError, "Expected reduction dim 0 to have non-zero size", EMPTY, 0),
                Wrong(RuntimeError, "does not support bool", EMPTY > 0),
                Wrong(TypeError, "'dim' .*must be int, not tuple", np.zeros((2, 3)), (0, 1)),
                out_of_range(),
            ),
            differentiable=False,
            dtypes="int64 of everything but bools, which are refused; test_places_are_int64",
        )
        for name, function in {"max": max, "min": min}.items()
    ),
]
FAMILY = largest
EXEMPT = [
    Exempt(largest.picking, "defines primitives; the rows of max, sort, topk, median, ... use them"),
    Exempt(largest.shared_evenly, "a VJP; the rows of max, min, median and nanmedian use it"),
    Exempt(largest.check_not_empty, "says what is wrong; in the errors of the rows that call it"),
]

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import reduction

from .row import Exempt, Op, Sample, Samples, Wrong

INTEGERS = np.array([[3, -2, 0], [1, 7, -5]])


def distinct(rng: np.random.Generator, size: tuple[int, ...]) -> Any:
    """Every element different by far more than a finite difference, so that extrema do not change place."""
    return (rng.permutation(math.prod(size)) * 0.37 - 1.0).reshape(size)


def over(function: Callable[[list[float]], Any]) -> Callable[..., Any]:
    """A reference from a function of a list of numbers: loops over the positions that are kept."""

    def reference(x: Any, dim: Any = None, keepdim: bool = False, **keywords: Any) -> Any:
        dims = range(x.ndim) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
        reduced = {d % x.ndim for d in dims} if x.ndim else set()
        out = [
            function([x[_index(x, reduced, place, within)].item() for within in _places(x, reduced, True)], **keywords)
            for place in _places(x, reduced, False)
        ]
        kept = [1 if d in reduced else n for d, n in enumerate(x.shape) if keepdim or d not in reduced]
        exact = bool(out) and isinstance(out[0], (bool, int))
        return np.array(out, None if exact else np.float64).reshape(kept)

    return reference


def _places(x: Any, reduced: set[int], inside: bool) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(n) for d, n in enumerate(x.shape) if (d in reduced) == inside))


def _index(x: Any, reduced: set[int], place: tuple[int, ...], within: tuple[int, ...]) -> tuple[int, ...]:
    outside, inside = iter(place), iter(within)
    return tuple(next(inside) if d in reduced else next(outside) for d in range(x.ndim))


def _variance(values: list[float], correction: float = 1) -> float:
    if not values:
        return math.nan
    centre = math.fsum(values) / len(values)
    squares, degrees = math.fsum((v - centre) ** 2 for v in values), max(len(values) - correction, 0)
    return squares / degrees if degrees else (math.inf if squares else math.nan)


def dims(empty: bool = True, several: bool = True, positional: bool = True) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        x = distinct(rng, (2, 3, 2))
        if positional:
            yield Sample(x)
            yield Sample(distinct(rng, ()))
            yield Sample(distinct(rng, ()), 0)
        yield Sample(x, 1)
        yield Sample(x, -1, keepdim=True)
        yield Sample(distinct(rng, ()), -1, keepdim=True)
        if several:
            yield Sample(x, (0, -1))
            yield Sample(x, (2, 1), keepdim=True)
        yield Sample(np.zeros((0, 3)), 1)
        if empty:
            yield Sample(np.zeros((0, 3)), 0)
            if positional:
                yield Sample(np.zeros((0, 3)))

    return samples


def scattered(*functions: Callable[..., float]) -> Callable[..., Any]:
    """References of ``var`` and its relatives: functions of values and a correction, with PyTorch's older arguments."""

    def reference(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, correction: Any = None) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        if unbiased is not None:
            correction = int(unbiased)
        correction = 1 if correction is None else correction
        found = tuple(over(lambda values, f=function: f(values, correction))(x, dim, keepdim) for function in functions)
        return found if len(found) > 1 else found[0]

    return reference


def _deviation(values: list[float], correction: float) -> float:
    return math.sqrt(_variance(values, correction))


def _average(values: list[float], correction: float = 0) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def spreads(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 4))
    yield Sample(x)
    yield Sample(x, 0)
    yield Sample(x, (0, 1), correction=0, keepdim=True)
    yield Sample(x, 1, correction=2)
    yield Sample(x, False)
    yield Sample(x, 1, False, True)
    yield Sample(x, [-1, 0], unbiased=True)
    yield Sample(x, 0, correction=0.5)
    yield Sample(distinct(rng, ()), correction=0)
    yield Sample(np.zeros((0, 3)), 1)
    yield Sample(np.zeros((3, 0)), 0)


def truths(rng: np.random.Generator) -> Iterator[Sample]:
    x = np.array([[True, False, True], [False, False, True]])
    for values in (x, INTEGERS, x * 0.5):
        yield Sample(values)
        yield Sample(values, 0)
        yield Sample(values, -1, keepdim=True)
    yield Sample(np.array(True))
    yield Sample(np.zeros((0, 3), bool), 0)
    yield Sample(x, (0, 1))
    yield Sample(np.array([math.nan, 0.0]))


def holes(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 4))
    x[0, 1] = x[2] = math.nan
    yield Sample(x)
    yield Sample(x[:2], 1)
    yield Sample(x, (0, 1), keepdim=True)
    yield Sample(x[:2], -1, dtype=np.dtype(np.float64))
    yield Sample(np.array(2.0))
    yield Sample(np.zeros((0, 3)), 1)


def products(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (2, 3))
    yield Sample(x)
    yield Sample(x, 0)
    yield Sample(x, -1, keepdim=True)
    x = distinct(rng, (3, 4))
    x[0, 1] = x[2, 2] = x[2, 3] = 0.0
    yield Sample(x)
    yield Sample(x[:2])
    yield Sample(x, 0)
    yield Sample(x, 1, True)
    yield Sample(INTEGERS)
    yield Sample(INTEGERS[1:], 0, dtype=np.dtype(np.float64))
    yield Sample(INTEGERS > 0, 1)
    yield Sample(np.array(2.0))
    yield Sample(np.array(0.0), 0)
    yield Sample(np.zeros((0, 3)))
    yield Sample(np.zeros((0, 3)), 0)


def counted(x: Any, dim: Any = None) -> Any:
    return np.asarray(over(lambda values: sum(1 for v in values if v != 0))(x, dim), np.int64)


OUT_OF_RANGE = r"Dimension out of range \(expected to be in range of \[-2, 1\], but got 2\)"


def out_of_range(*more: Any) -> Wrong:
    return Wrong(IndexError, OUT_OF_RANGE, np.zeros((2, 3)), *more, 2)


ROWS = [
    Op(
        reduction.sum,
        lambda x, dim=None, keepdim=False, dtype=None: over(math.fsum)(x, dim, keepdim).astype(
            dtype or (np.int64 if x.dtype.kind != "f" else x.dtype)
        ),
        lambda rng: [
            *dims()(rng),
            Sample(distinct(rng, (2, 2)), ()),
            Sample(INTEGERS, 0),
            Sample(INTEGERS > 0),
            Sample(INTEGERS, dtype=np.dtype(np.float64)),
        ],
        (
            out_of_range(),
            Wrong(RuntimeError, "dim 1 appears multiple times", np.zeros((2, 3)), (1, -1)),
            Wrong(TypeError, "must be an int or a tuple of ints", np.zeros((2, 3)), 1.0),
            Wrong(TypeError, "'keepdim' must be bool, not int; several dimensions", np.zeros((2, 3)), 0, 1),
        ),
        ("Sum", "Expand", "View"),
        dtypes="sum",
    ),
    Op(
        reduction.nansum,
        lambda x, dim=None, keepdim=False, dtype=None: over(lambda v: math.fsum(e for e in v if e == e))(
            x, dim, keepdim
        ).astype(dtype or (np.int64 if x.dtype.kind != "f" else x.dtype)),
        lambda rng: [*holes(rng), Sample(INTEGERS, 0)],
        (out_of_range(),),
        ("Nansum", "Mul"),
        dtypes="sum",
    ),
    Op(
        reduction.mean,
        lambda x, dim=None, keepdim=False, dtype=None: over(_average)(x.astype(dtype or x.dtype), dim, keepdim),
        lambda rng: [*dims()(rng), Sample(INTEGERS, 1, dtype=np.dtype(np.float64))],
        (
            out_of_range(),
            Wrong(RuntimeError, "Input dtype must be", INTEGERS),
            Wrong(RuntimeError, "Optional dtype must be", INTEGERS, dtype=np.dtype(np.int64)),
        ),
        ("Mean",),
        dtypes="only floating",
    ),
    Op(
        reduction.nanmean,
        lambda x, dim=None, keepdim=False, dtype=None: over(lambda v: _average([e for e in v if e == e]))(
            x, dim, keepdim
        ),
        holes,
        (out_of_range(), Wrong(RuntimeError, "expected input to have floating point", INTEGERS)),
        ("Nansum", "Div"),
        dtypes="only floating",
    ),
    Op(
        reduction.prod,
        lambda x, dim=None, keepdim=False, dtype=None: over(math.prod)(x, dim, keepdim).astype(
            dtype or (np.int64 if x.dtype.kind != "f" else x.dtype)
        ),
        products,
        (
            out_of_range(),
            Wrong(TypeError, "'dim' .*must be int, not tuple", np.zeros((2, 3)), (0, 1)),
            Wrong(TypeError, "keepdim needs dim", np.zeros((2, 3)), keepdim=True),
        ),
        ("Prod", "Cumprod", "Shift"),
        dtypes="sum",
    ),
    *(
        Op(
            getattr(reduction, name),
            scattered(*functions),
            spreads,
            (
                Wrong(RuntimeError, f"{sentence} only support floating point", INTEGERS),
                Wrong(TypeError, "'correction' or 'unbiased'", np.zeros((2, 3)), 0, True, correction=1),
                Wrong(TypeError, "'unbiased' must be bool, not int", np.zeros((2, 3)), 0, 1),
                Wrong(TypeError, "not bool", np.zeros((2, 3)), True, True),
                out_of_range(),
            ),
            (primitive, "Mean"),
            dtypes="only floating",
        )
        for name, sentence, primitive, functions in (
            ("var", "std and var", "Var", (_variance,)),
            ("std", "std and var", "Std", (_deviation,)),
            ("var_mean", "var_mean", "Var", (_variance, _average)),
            ("std_mean", "std_mean", "Std", (_deviation, _average)),
        )
    ),
    *(
        Op(
            getattr(reduction, name),
            over(lambda values, function=function: bool(function(v != 0 for v in values))),
            truths,
            (out_of_range(),),
            (name.capitalize(),),
            differentiable=False,
            dtypes="bool, but uint8 of uint8; test_truth_of_uint8",
        )
        for name, function in {"any": any, "all": all}.items()
    ),
    Op(
        reduction.count_nonzero,
        counted,
        lambda rng: [
            Sample(INTEGERS),
            Sample(INTEGERS, 1),
            Sample(INTEGERS, (0, -1)),
            Sample(np.array([[0.0, math.nan], [0.0, 1.0]]), 0),
            Sample(np.array(True)),
            Sample(np.array(0.0), 0),
            Sample(np.zeros((0, 3)), 0),
        ],
        (out_of_range(),),
        ("CountNonzero",),
        differentiable=False,
        dtypes="to int64",
    ),
]
FAMILY = reduction
EXEMPT = [Exempt(reduction.spread, "the adjoint of a sum, for VJPs; every reduction's row uses it")]

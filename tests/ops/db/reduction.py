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


def spreads(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 4))
    yield Sample(x)
    yield Sample(x, 0)
    yield Sample(x, (0, 1), correction=0, keepdim=True)
    yield Sample(x, 1, correction=2)
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


def chosen(function: Callable[[list[float]], float]) -> Callable[..., Any]:
    """The first position of the extreme element."""
    inner = over(lambda values: values.index(function(values)))

    def reference(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        out = inner(x, dim, keepdim).astype(np.int64)
        return out.reshape((1,) * x.ndim) if dim is None and keepdim else out

    return reference


def with_indices(function: Callable[[list[float]], float]) -> Callable[..., Any]:
    def reference(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if isinstance(dim, np.ndarray):
            return np.where((x > dim) == (function([1.0, 2.0]) == 2.0), x, dim)
        values = over(function)(x, dim, keepdim)
        return values if dim is None else (values, chosen(function)(x, dim, keepdim))

    return reference


def best(x: Any, k: int, dim: int = -1, largest: bool = True) -> Any:
    rows = np.moveaxis(x, dim, -1)
    places = np.zeros((*rows.shape[:-1], k), np.int64)
    for place in np.ndindex(rows.shape[:-1]):
        order = sorted(
            range(rows.shape[-1]), key=lambda i, row=rows[place]: -row[i].item() if largest else row[i].item()
        )
        places[place] = order[:k]
    places = np.moveaxis(places, -1, dim)
    return np.take_along_axis(x, places, dim), places


def _shares(x: Any, dim: int) -> Any:
    if not x.ndim:
        return np.ones(())
    powers = np.exp(x.astype(np.float64))
    return np.divide(powers, powers.sum(axis=dim, keepdims=True))


def softmaxes(rng: np.random.Generator) -> Iterator[Sample]:
    for dim in (0, 1, -1):
        yield Sample(distinct(rng, (2, 3, 2)), dim)
    yield Sample(distinct(rng, ()), 0)
    yield Sample(np.zeros((0, 3)), 1)
    yield Sample(np.zeros((0, 3)), 0)
    yield Sample(INTEGERS, 1, dtype=np.dtype(np.float64))


def extremes(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (2, 4))
    yield Sample(x)
    yield Sample(x, 1)
    yield Sample(x, 0, keepdim=True)
    yield Sample(x, distinct(rng, (2, 4))[::-1] + 0.1)
    yield Sample(distinct(rng, ()), 0)
    yield Sample(np.zeros((0, 3)), 1)


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
        (out_of_range(), Wrong(RuntimeError, "multiple times", np.zeros((2, 3)), (1, -1))),
        ("Sum", "Expand", "View"),
        dtypes="sum",
    ),
    Op(
        reduction.mean,
        lambda x, dim=None, keepdim=False, dtype=None: over(lambda v: math.fsum(v) / len(v) if v else math.nan)(
            x.astype(dtype or x.dtype), dim, keepdim
        ),
        lambda rng: [*dims()(rng), Sample(INTEGERS, 1, dtype=np.dtype(np.float64))],
        (out_of_range(), Wrong(RuntimeError, "could not infer output dtype", INTEGERS)),
        ("Mean",),
        dtypes="only floating",
    ),
    Op(
        reduction.var,
        over(_variance),
        spreads,
        (Wrong(RuntimeError, "dtype", INTEGERS),),
        ("Mean", "Sum", "Mul"),
        dtypes="only floating",
        lacks={"0-d": "the variance of one element does not exist; test_var_of_one_element"},
    ),
    Op(
        reduction.std,
        over(lambda values, correction=1: math.sqrt(_variance(values, correction))),
        spreads,
        (Wrong(RuntimeError, "dtype", INTEGERS),),
        ("Sqrt",),
        dtypes="only floating",
        lacks={"0-d": "the variance of one element does not exist; test_var_of_one_element"},
    ),
    *(
        Op(
            getattr(reduction, f"a{name}"),
            over(function),
            dims(empty=False),
            (
                Wrong(IndexError, f"a{name}.*non-zero size", np.zeros((0, 3)), 0),
                out_of_range(),
            ),
            (f"A{name}", "Where"),
            dtypes="same",
        )
        for name, function in {"max": max, "min": min}.items()
    ),
    *(
        Op(
            getattr(reduction, name),
            with_indices(function),
            extremes,
            (
                Wrong(IndexError, "Expected reduction dim", np.zeros((0, 3)), 0),
                Wrong(IndexError, "non-zero size", np.zeros((0, 3))),
                out_of_range(),
            ),
            (f"A{name}", "Gather", "ScatterAdd", f"{name.capitalize()}imum"),
            dtypes="same",
        )
        for name, function in {"max": max, "min": min}.items()
    ),
    *(
        Op(
            getattr(reduction, f"arg{name}"),
            chosen(function),
            lambda rng: [
                *dims(empty=False, several=False)(rng),
                Sample(INTEGERS, 1),
                Sample(np.array([1, 3, 3, 1]), 0),
                Sample(distinct(rng, (2, 2)), keepdim=True),
            ],
            (Wrong(IndexError, "Expected reduction dim", np.zeros((0, 3))), out_of_range()),
            differentiable=False,
            dtypes="to int64",
        )
        for name, function in {"max": max, "min": min}.items()
    ),
    *(
        Op(
            getattr(reduction, name),
            over(lambda values, function=function: bool(function(v != 0 for v in values))),
            truths,
            (out_of_range(),),
            differentiable=False,
            dtypes="any and all of uint8 give bool here and uint8 in PyTorch; test_truth_is_bool",
        )
        for name, function in {"any": any, "all": all}.items()
    ),
    Op(
        reduction.topk,
        best,
        lambda rng: iter(
            [
                Sample(distinct(rng, (3, 5)), 2),
                Sample(distinct(rng, (3, 5)), 2, 0),
                Sample(distinct(rng, (3, 5)), 3, 1, False),
                Sample(np.array([[3, 0, 7]], np.uint8), 2),
                Sample(np.zeros((0, 3)), 1),
                Sample(distinct(rng, (3,)), 0),
            ]
        ),
        (Wrong(RuntimeError, "selected index k out of range", np.zeros((2, 3)), 4), out_of_range(1)),
        ("Gather",),
        dtypes="takes k; test_topk_orders_every_dtype",
        lacks={"0-d": "there is no dimension to choose along"},
    ),
    Op(
        reduction.softmax,
        lambda x, dim, dtype=None: _shares(x, dim),
        softmaxes,
        (out_of_range(),),
        ("Softmax",),
        dtypes="takes dim; test_softmax_of_integers",
    ),
    Op(
        reduction.log_softmax,
        lambda x, dim, dtype=None: np.log(_shares(x, dim)),
        softmaxes,
        (out_of_range(),),
        ("LogSoftmax",),
        dtypes="takes dim; test_softmax_of_integers",
    ),
    Op(
        reduction.logsumexp,
        over(lambda values: math.log(math.fsum(map(math.exp, values))) if values else -math.inf),
        dims(positional=False),
        (out_of_range(),),
        ("Exp", "Sum", "Log"),
        dtypes="takes dim; test_softmax_of_integers",
    ),
]
FAMILY = reduction
EXEMPT = [Exempt(reduction.spread, "the adjoint of a sum, for VJPs; every reduction's row uses it")]

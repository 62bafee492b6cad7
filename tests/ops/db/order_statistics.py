from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import order_statistics

from .reduction import INTEGERS, distinct, out_of_range, over
from .row import Op, Sample, Wrong

EMPTY = np.zeros((0, 3))
NAN = math.nan


def with_places(place: Callable[[list[float]], int]) -> Callable[..., Any]:
    """A reference from the position of the result in a list; without ``dim`` the value alone."""

    def reference(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        value = over(lambda values: values[place(values)] if values else NAN)
        if dim is None:
            return value(x)
        return value(x, dim, keepdim), np.asarray(over(place)(x, dim, keepdim), np.int64)

    return reference


def lower_median(values: list[float]) -> int:
    for i, v in enumerate(values):
        if v != v:
            return i
    return values.index(sorted(values)[(len(values) - 1) // 2])


def median_of_known(values: list[float]) -> int:
    known = sorted(v for v in values if v == v)
    return values.index(known[(len(known) - 1) // 2]) if known else 0


def most_frequent(values: list[float]) -> int:
    counts = Counter(values)
    value = min(counts, key=lambda v: (-counts[v], v))
    return max(i for i, v in enumerate(values) if v == value)


def medians(rng: np.random.Generator) -> Iterator[Sample]:
    for size in ((3, 4), (5,), (2, 3, 2)):
        x = distinct(rng, size)
        yield Sample(x)
        yield Sample(x, 0)
        yield Sample(x, -1, True)
    yield Sample(np.array([[4, 7, 1], [2, 9, 5]]))
    yield Sample(np.array([[4, 7, 1], [2, 9, 5]]), 1)
    yield Sample(distinct(rng, ()))
    yield Sample(distinct(rng, ()), 0)
    yield Sample(EMPTY, 1)
    yield Sample(EMPTY)


def holes(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 4))
    x[0, 1] = x[1, 2] = x[1, 3] = NAN
    yield Sample(x)
    yield Sample(x, 1)
    yield Sample(x, 0, True)


def ranked(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 4))
    yield Sample(x, 1)
    yield Sample(x, 3, 0)
    yield Sample(x, 2, -1, True)
    yield Sample(np.array([[4, 7, 1], [2, 9, 5]]), 2)
    yield Sample(distinct(rng, ()), 1)
    yield Sample(EMPTY, 2)


def of_rank(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    return with_places(lambda values: values.index(sorted(values)[k - 1]))(x, dim, keepdim)


def modes(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 4))
    yield Sample(x)
    yield Sample(x, 0, True)
    yield Sample(np.array([[3, 1, 3, 1, 2], [1, 1, 1, 0, 0]]))
    yield Sample(np.array([[3, 1], [3, 1], [2, 2]]), 0, keepdim=True)
    yield Sample(INTEGERS > 0)
    yield Sample(distinct(rng, ()))
    yield Sample(EMPTY)


def between(values: list[float], q: float, interpolation: str) -> float:
    values = sorted(values)
    rank = q * (len(values) - 1)
    low, high = values[math.floor(rank)], values[math.ceil(rank)]
    share = {
        "linear": rank - math.floor(rank),
        "lower": 0.0,
        "higher": 1.0,
        "midpoint": 0.5,
        "nearest": round(rank) - math.floor(rank),
    }[interpolation]
    return low + share * (high - low)


def quantiles(known: bool) -> Callable[..., Any]:
    def reference(x: Any, q: Any, dim: Any = None, keepdim: bool = False, interpolation: str = "linear") -> Any:
        def one(level: float) -> Any:
            def of(values: list[float]) -> float:
                kept = [v for v in values if v == v]
                return (
                    NAN if not kept or (not known and len(kept) < len(values)) else between(kept, level, interpolation)
                )

            return over(of)(x, dim, keepdim)

        if isinstance(q, np.ndarray) and q.ndim:
            return np.array([one(level) for level in q.tolist()]).reshape(-1, *one(0.5).shape)
        return one(float(q))

    return reference


def levels(rng: np.random.Generator) -> Iterator[Sample]:
    x = distinct(rng, (3, 4))
    yield Sample(x, 0.3)
    yield Sample(x, 0.8, 0)
    yield Sample(x, 0.7, -1, True)
    yield Sample(x, 0.55, keepdim=True)
    yield Sample(x, 1)
    yield Sample(x, np.array([0.11, 0.18, 0.93]))
    yield Sample(x, np.array([0.1, 0.15]), 1)
    yield Sample(x, np.array([0.6]), 0, True)
    yield Sample(x, np.array(0.45), 0)
    yield Sample(x, np.zeros(0), 1)
    for interpolation in ("lower", "higher", "midpoint", "nearest"):
        yield Sample(x, 0.3, 1, interpolation=interpolation)
    yield Sample(distinct(rng, (2, 3, 2)), 0.4, 1)
    yield Sample(distinct(rng, ()), 0.3)
    yield Sample(distinct(rng, ()), 0.3, 0)


def levels_of_known(rng: np.random.Generator) -> Iterator[Sample]:
    yield from levels(rng)
    x = distinct(rng, (3, 4))
    x[0, 1] = x[1, 2] = x[1, 3] = NAN
    yield Sample(x, 0.4)
    yield Sample(x, np.array([0.2, 0.7]), 1)
    yield Sample(x, 0.2, 0, interpolation="higher")


WRONG_LEVELS = (
    out_of_range(0.5),
    Wrong(RuntimeError, "q must be in the range", np.zeros((2, 3)), 1.3),
    Wrong(RuntimeError, "q values must be in the range", np.zeros((2, 3)), np.array([0.5, -1.0])),
    Wrong(RuntimeError, "q must be a scalar or 1D", np.zeros((2, 3)), np.zeros((1, 1))),
    Wrong(RuntimeError, "q tensor must be same dtype", np.zeros((2, 3)), np.zeros(1, np.float32)),
    Wrong(RuntimeError, "either float or double", INTEGERS, 0.5),
    Wrong(RuntimeError, "must be non-empty", EMPTY, 0.5),
    Wrong(RuntimeError, "interpolation must be one of", np.zeros((2, 3)), 0.5, interpolation="cubic"),
    Wrong(TypeError, "'q' .*must be float or Tensor, not list", np.zeros((2, 3)), [0.5]),
)
NOT_EMPTY = Wrong(IndexError, "reduction dim 0 to have non-zero size", EMPTY, 0)

ROWS = [
    Op(
        order_statistics.kthvalue,
        of_rank,
        ranked,
        (
            out_of_range(1),
            Wrong(RuntimeError, "selected number k out of range", np.zeros((2, 3)), 0),
            Wrong(RuntimeError, "selected number k out of range", np.zeros((2, 3)), 4),
            Wrong(IndexError, "reduction dim 0 to have non-zero size", EMPTY, 1, 0),
            Wrong(NotImplementedError, "not implemented for bool", INTEGERS > 0, 1),
        ),
        ("Kthvalue", "KthvalueIndex", "PickAdjoint"),
        dtypes="takes k; test_ranks_of_every_dtype",
    ),
    Op(
        order_statistics.median,
        with_places(lower_median),
        medians,
        (
            out_of_range(),
            NOT_EMPTY,
            Wrong(NotImplementedError, "not implemented for bool", INTEGERS > 0),
            Wrong(TypeError, "keepdim needs dim", np.zeros((2, 3)), keepdim=True),
        ),
        ("Median", "MedianIndex", "MedianOfAll", "PickAdjoint"),
        dtypes="bools are not implemented; test_ranks_of_every_dtype",
    ),
    Op(
        order_statistics.nanmedian,
        with_places(median_of_known),
        lambda rng: [*medians(rng), *holes(rng)],
        (out_of_range(), NOT_EMPTY, Wrong(NotImplementedError, "not implemented for bool", INTEGERS > 0)),
        ("Nanmedian", "NanmedianIndex", "NanmedianOfAll"),
        dtypes="bools are not implemented; test_ranks_of_every_dtype",
    ),
    Op(
        order_statistics.mode,
        lambda x, dim=-1, keepdim=False: with_places(most_frequent)(x, dim, keepdim),
        modes,
        (out_of_range(), NOT_EMPTY),
        ("Mode", "ModeIndex"),
        dtypes="same",
    ),
    Op(
        order_statistics.quantile,
        quantiles(known=False),
        levels,
        WRONG_LEVELS,
        ("QuantileOrder", "CountNan", "Gather"),
        dtypes="takes q; other dtypes than float32 and float64 are in the errors",
    ),
    Op(
        order_statistics.nanquantile,
        quantiles(known=True),
        levels_of_known,
        WRONG_LEVELS,
        ("QuantileOrder", "CountNan", "Gather"),
        dtypes="takes q; other dtypes than float32 and float64 are in the errors",
    ),
]
FAMILY = order_statistics
EXEMPT: list[Any] = []

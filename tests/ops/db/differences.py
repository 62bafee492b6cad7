from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import differences

from .reduction import INTEGERS, OUT_OF_RANGE, distinct
from .row import Op, Sample, Wrong

EMPTY = np.zeros((0, 3))


def along(x: Any, dim: int, function: Callable[[list[Any]], list[Any]]) -> Any:
    """Each line along ``dim`` replaced by another."""
    lines = np.moveaxis(x, dim, -1)
    kept = lines.shape[:-1]
    out = [function(lines[place].tolist()) for place in np.ndindex(kept)]
    length = len(out[0]) if out else len(function([0] * lines.shape[-1]))
    return np.moveaxis(np.array(out, x.dtype).reshape(*kept, length), -1, dim)


def differing(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    x = np.concatenate([part for part in (prepend, x, append) if part is not None], axis=dim)
    for _ in range(n):
        x = along(x, dim, lambda v: [b != a if isinstance(a, bool) else b - a for a, b in itertools.pairwise(v)])
    return x


def pieces(y: list[float], x: list[float]) -> list[float]:
    return [(y[i] + y[i + 1]) / 2 * (x[i + 1] - x[i]) for i in range(len(y) - 1)]


def integral(sums: bool) -> Callable[..., Any]:
    def reference(y: Any, x: Any = None, dx: float = 1, dim: int = -1) -> Any:
        y = y.astype(np.float64)
        width = y.shape[dim]
        places = np.arange(width) * float(dx) if x is None else x
        if places.ndim == 1:
            places = places.reshape([-1 if d == dim % y.ndim else 1 for d in range(y.ndim)])
        places = np.moveaxis(np.broadcast_to(places, y.shape), dim, -1)
        lines = np.moveaxis(y, dim, -1)
        out = np.zeros((*lines.shape[:-1], max(width - 1, 0)))
        for place in np.ndindex(lines.shape[:-1]):
            areas = pieces(lines[place].tolist(), places[place].tolist())
            out[place] = [sum(areas[: i + 1]) for i in range(len(areas))]
        if sums:
            return out[..., -1] if out.shape[-1] else np.zeros(out.shape[:-1])
        return np.moveaxis(out, -1, dim)

    return reference


def samples(rng: np.random.Generator) -> Iterator[Sample]:
    y = distinct(rng, (3, 4))
    yield Sample(y)
    yield Sample(y, dim=0)
    yield Sample(y, dx=0.5)
    yield Sample(y, np.array([0.0, 0.5, 2.0, 3.0]))
    yield Sample(y, np.array([0.0, 0.5, 2.0]), dim=0)
    yield Sample(y, distinct(rng, (3, 4)), dim=1)
    yield Sample(distinct(rng, (2, 3, 4)), distinct(rng, (3, 4)), dim=1)
    yield Sample(y[:, :1].copy())
    yield Sample(EMPTY)


LACKS = {"0-d": "there are no neighbours, as an error says"}


def wrong_samples(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(IndexError, OUT_OF_RANGE, np.zeros((2, 3)), dim=2),
        Wrong(IndexError, "no dimensions", np.zeros(())),
        Wrong(RuntimeError, f"{name}: received a bool input for `y`", INTEGERS > 0),
        Wrong(RuntimeError, f"{name}: received a bool input for `x`", np.zeros(2), np.array([True, False])),
        Wrong(RuntimeError, "one `x` value for each sample", np.zeros((2, 3)), np.zeros(2)),
        Wrong(RuntimeError, "one `x` value for each sample", np.zeros((2, 3)), np.zeros((2, 2))),
    )


ROWS = [
    Op(
        differences.diff,
        differing,
        lambda rng: iter(
            [
                Sample(distinct(rng, (3, 4))),
                Sample(distinct(rng, (3, 4)), 2),
                Sample(distinct(rng, (3, 4)), 0),
                Sample(distinct(rng, (3, 4)), 9),
                Sample(distinct(rng, (3, 4)), 1, 0, distinct(rng, (2, 4)), distinct(rng, (1, 4))),
                Sample(distinct(rng, (3, 4)), append=distinct(rng, (3, 1))),
                Sample(INTEGERS, dim=0),
                Sample(INTEGERS > 0, 2),
                Sample(EMPTY),
                Sample(EMPTY, dim=0),
            ]
        ),
        (
            Wrong(IndexError, OUT_OF_RANGE, np.zeros((2, 3)), 1, 2),
            Wrong(RuntimeError, "at least one-dimensional", np.zeros(())),
            Wrong(RuntimeError, "order must be non-negative", np.zeros((2, 3)), -1),
            Wrong(RuntimeError, "same dimension as input", np.zeros((2, 3)), prepend=np.zeros(3)),
        ),
        ("Narrow", "Sub"),
        dtypes="same",
        lacks=LACKS,
    ),
    *(
        Op(
            getattr(differences, name),
            integral(sums=True),
            samples,
            wrong_samples("trapezoid"),
            ("Narrow", "Sum"),
            dtypes="floating point of integers, bools are refused; test_dtypes_of_integrals",
            lacks=LACKS,
        )
        for name in ("trapezoid", "trapz")
    ),
    Op(
        differences.cumulative_trapezoid,
        integral(sums=False),
        samples,
        wrong_samples("cumulative_trapezoid"),
        ("Narrow", "Cumsum"),
        dtypes="floating point of integers, bools are refused; test_dtypes_of_integrals",
        lacks=LACKS,
    ),
]
FAMILY = differences
EXEMPT: list[Any] = []

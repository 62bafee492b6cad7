from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import extremum

from .elementwise import FLAGS, INTEGERS, NOTHING, SHAPES, elements, ints, two
from .row import Op, Sample, Wrong

X = np.array([[-2.0, -0.7, 0.1], [0.4, 0.9, 3.0]])
LOW = np.array([[-0.5, -1.5, 0.5], [0.2, 1.3, 2.1]])


def limits(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(X, -0.5, 0.5)
    yield Sample(X, min=0.0)
    yield Sample(X, max=0.6)
    yield Sample(X, 2.0, -2.0)
    yield Sample(np.array(5.0), 0, 1)
    yield Sample(NOTHING, 0, 1)
    yield Sample(INTEGERS, -1, 2)
    yield Sample(np.array([3, 200], np.uint8), -1, 300)
    yield Sample(X, LOW, LOW + 1.0)
    yield Sample(X, LOW, LOW - 0.25)
    yield Sample(X, np.array([[-0.5], [0.6]]), np.array([0.25, 1.5, 0.75]))
    yield Sample(X, min=np.array(-0.4))
    yield Sample(X[0], max=LOW)
    yield Sample(np.array(0.3), np.array(-1.0), np.array(0.2))
    yield Sample(INTEGERS, ints(0, -1, 2), ints(2, 5, 1))


def limited(x: Any, min: Any = None, max: Any = None) -> Any:
    def one(v: Any, low: Any, high: Any) -> Any:
        if low is not None and v < low:
            v = low
        return high if high is not None and v > high else v

    parts = [np.asarray(part, object) for part in (x, min, max)]
    triples = np.broadcast(*parts)
    return np.array([one(*triple) for triple in triples], np.asarray(x).dtype).reshape(triples.shape)


def bounds(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(X, 0.25)
    yield Sample(X, LOW)
    yield Sample(X[0], np.array([[0.25], [-1.0]]))
    yield Sample(INTEGERS, 1)
    yield Sample(np.array(0.3), np.array(0.5))
    yield Sample(np.zeros((0, 3)), np.ones(3))


def with_nan(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(numbers=False)(rng)
    yield Sample(ints(1, -5), ints(0, 3))
    # finite differences need numbers, so NaN comes as a value that is not differentiated
    yield Sample(np.array([np.nan, 1.0, np.nan], np.float32), np.array([2.0, np.nan, np.nan], np.float32))


def not_nan(choose: Callable[..., Any]) -> Callable[..., Any]:
    def one(a: float, b: float) -> float:
        known = [v for v in (a, b) if v == v]
        return choose(known) if known else np.nan

    def reference(a: Any, b: Any) -> Any:
        pairs = np.broadcast(a, b)
        return np.array([one(x, y) for x, y in pairs], a.dtype).reshape(pairs.shape)

    return reference


def takes_tensors(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
        Wrong(TypeError, rf"{name}\(\): argument 'other' \(position 2\) must be Tensor, not float", np.zeros(3), 1.0),
        Wrong(TypeError, rf"{name}\(\): argument 'input' \(position 1\) must be Tensor, not int", 1, np.zeros(3)),
    )


ROWS = [
    *(
        Op(
            getattr(extremum, name),
            elements(function),
            two(numbers=False),
            takes_tensors(name),
            (name.capitalize(),),
            dtypes="common",
            broadcasts=True,
        )
        for name, function in {"maximum": max, "minimum": min}.items()
    ),
    *(
        Op(
            getattr(extremum, name),
            not_nan(function),
            with_nan,
            takes_tensors(name),
            (name.capitalize(), "Isnan"),
            dtypes="common",
            broadcasts=True,
        )
        for name, function in {"fmax": max, "fmin": min}.items()
    ),
    Op(
        extremum.clamp,
        limited,
        limits,
        (
            Wrong(RuntimeError, "At least one of 'min' or 'max'", np.zeros(2)),
            Wrong(TypeError, "both tensors or both numbers, not Tensor and int", np.zeros(2), np.zeros(2), 1),
            Wrong(TypeError, r"clamp\(\): argument 'input' must be Tensor, not float", 1.0, 0.0, 1.0),
            Wrong(RuntimeError, "clamp is not defined for bool tensors", FLAGS, FLAGS, FLAGS),
            Wrong(RuntimeError, rf"the shapes \[3\], \[2\], \[\] {SHAPES}", np.zeros(3), np.zeros(2), np.zeros(())),
            Wrong(RuntimeError, SHAPES, np.zeros(3), max=np.zeros(2)),
            Wrong(TypeError, "expected a Tensor or a number, not str", np.zeros(3), "1"),
        ),
        ("Clamp", "ClampMin", "ClampMax", "ClampBetween"),
        # PyTorch takes 300 as a uint8 to be 44, and -1 to be 255
        torch=lambda torch, x, *a, **k: torch.clamp(x, *([0, 255] if x.dtype == torch.uint8 else a), **k),
        dtypes="number bounds widen as numbers do; test_promotion_of_clamp",
    ),
    Op(
        extremum.clamp_min,
        lambda x, low: limited(x, min=low),
        bounds,
        (
            Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
            Wrong(TypeError, r"clamp_min\(\): argument 'input' must be Tensor, not float", 1.0, 0.0),
        ),
        ("ClampMin", "Clamp"),
        dtypes="common",
        broadcasts=True,
    ),
    Op(
        extremum.clamp_max,
        lambda x, high: limited(x, max=high),
        bounds,
        (
            Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
            Wrong(TypeError, r"clamp_max\(\): argument 'input' must be Tensor, not float", 1.0, 0.0),
        ),
        ("ClampMax", "Clamp"),
        dtypes="common",
        broadcasts=True,
    ),
]
FAMILY = extremum
EXEMPT: list[Any] = []

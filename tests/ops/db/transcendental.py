from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import transcendental

from .elementwise import FLAGS, INTEGERS, SHAPES, away, elements, one, two
from .row import Op, Sample, Samples, Wrong


def also(samples: Samples, *points: float) -> Samples:
    """With values that the random ones miss, where a formula of the op changes or digits get lost."""

    def more(rng: np.random.Generator) -> Iterator[Sample]:
        yield from samples(rng)
        yield Sample(np.array(points))

    return more


def quadrants(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(numbers=False)(rng)
    yield Sample(away(rng, (3,)), away(rng, (2, 1)))
    yield Sample(np.array([1.0, 1.0, -1.0, -1.0, 0.0, 2.0]), np.array([1.0, -1.0, 1.0, -1.0, 2.0, 0.0]))


def far_apart(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(numbers=False)(rng)
    yield Sample(np.array([800.0, -800.0, 3.0]), np.array([-5.0, -799.0, 3.0]))


def magnitudes(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(numbers=False)(rng)
    yield Sample(np.array([3.0, -5.0, 0.0]), np.array([4.0, 12.0, -2.0]))


def probabilities(rng: np.random.Generator) -> Iterator[Sample]:
    for size in ((2, 3), (), (0,)):
        yield Sample(rng.uniform(0.05, 0.95, size))
    yield Sample(np.array([0.05, 0.2, 0.5, 0.8, 0.95]), 0.1)
    yield Sample(np.array([-0.5, 0.2, 0.5, 0.8, 1.5]), eps=1e-3)


def log_odds(v: float, eps: float | None) -> float:
    v = v if eps is None else min(max(v, eps), 1 - eps)
    return math.log(v) - math.log1p(-v)


def cardinal_sine(v: float) -> float:
    return math.sin(math.pi * v) / (math.pi * v) if v else 1.0


def entropies(rng: np.random.Generator) -> Iterator[Sample]:
    yield from two(signed=False)(rng)
    yield Sample(np.array([-1.5, 0.3]), np.array([0.2, 3.0]))
    yield Sample(2.0, np.array([0.2, 3.0]))
    yield Sample(0, np.array([0.2, 3.0]))


def from_the_larger(a: float, b: float) -> float:
    return max(a, b) + math.log(1 + math.exp(-abs(a - b)))


def unary(
    name: str,
    function: Callable[[float], float],
    samples: Samples,
    *uses: str,
    tolerance: tuple[float, float],
    module: Any = transcendental,
) -> Op:
    return Op(
        getattr(module, name),
        elements(function),
        samples,
        (Wrong(TypeError, rf"{name}\(\): argument 'input' must be Tensor, not float", 1.0),),
        (name.capitalize(), *uses),
        dtypes="floating",
        tolerance=tolerance,
    )


def takes_no_numbers(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(TypeError, rf"{name}\(\): argument 'other' \(position 2\) must be Tensor, not float", np.ones(3), 1.0),
        Wrong(TypeError, rf"{name}\(\): argument 'input' \(position 1\) must be Tensor, not int", 1, np.ones(3)),
        Wrong(RuntimeError, SHAPES, np.ones(3), np.ones(2)),
    )


def not_integers(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(RuntimeError, f"{name} is not defined for int64 tensors", INTEGERS, INTEGERS),
        Wrong(RuntimeError, f"{name} is not defined for bool tensors", FLAGS, FLAGS),
    )


USUAL: Any = (1e-13, 2e-5)

ROWS = [
    unary("exp2", lambda x: 2.0**x, one(0.1, 5.0), tolerance=USUAL),
    unary("expm1", math.expm1, also(one(0.1, 4.0), 1e-9, -1e-9, -30.0), tolerance=USUAL),
    unary("log1p", math.log1p, also(one(0.1, 0.8), 1e-9, -1e-9, 50.0), tolerance=USUAL),
    unary("log2", math.log2, one(0.2, 9.0, signed=False), tolerance=USUAL),
    unary("log10", math.log10, one(0.2, 9.0, signed=False), tolerance=USUAL),
    unary("rsqrt", lambda x: x**-0.5, one(0.2, 9.0, signed=False), tolerance=USUAL),
    unary("reciprocal", lambda x: x**-1, one(0.3, 5.0), tolerance=USUAL),
    unary("tan", lambda x: math.sin(x) / math.cos(x), one(0.0, 1.3), tolerance=USUAL),
    unary("asin", math.asin, one(0.0, 0.9), "Rsqrt", tolerance=USUAL),
    unary("acos", math.acos, one(0.0, 0.9), "Rsqrt", tolerance=USUAL),
    unary("atan", math.atan, also(one(0.0, 3.0), 40.0, -40.0), tolerance=USUAL),
    unary("sinh", math.sinh, one(0.0, 4.0), "Cosh", tolerance=USUAL),
    unary("cosh", math.cosh, one(0.0, 4.0), "Sinh", tolerance=USUAL),
    unary("acosh", math.acosh, also(one(1.2, 9.0, signed=False), 1.01), "Rsqrt", tolerance=USUAL),
    unary("asinh", math.asinh, also(one(0.0, 9.0), 0.0, 1e3, -1e-9), "Hypot", tolerance=USUAL),
    unary("atanh", math.atanh, also(one(0.0, 0.9), 0.0, 1e-9), tolerance=USUAL),
    unary("sinc", cardinal_sine, also(one(0.1, 3.0), 0.0, 0.29, 0.31), "Sin", "Cos", tolerance=USUAL),
    Op(
        transcendental.logit,
        lambda x, eps=None: elements(lambda v: log_odds(v, eps))(x),
        probabilities,
        (Wrong(TypeError, r"logit\(\): argument 'input' must be Tensor, not float", 0.5),),
        ("Logit",),
        # which is infinite at the 1 that the table of dtypes uses
        dtypes="floating",
    ),
    *(
        Op(
            getattr(transcendental, name),
            elements(function),
            one(0.0, 9.0),
            (Wrong(TypeError, rf"{name}\(\): argument 'input' must be Tensor, not float", 1.0),),
            (name.capitalize(),),
            dtypes="floating",
        )
        for name, function in {"deg2rad": math.radians, "rad2deg": math.degrees}.items()
    ),
    Op(
        transcendental.atan2,
        elements(math.atan2),
        quadrants,
        takes_no_numbers("atan2"),
        ("Atan2", "Hypot"),
        dtypes="common, floating",
        broadcasts=True,
    ),
    Op(
        transcendental.logaddexp,
        elements(from_the_larger),
        far_apart,
        (*takes_no_numbers("logaddexp"), *not_integers("logaddexp")),
        ("Logaddexp", "Sigmoid"),
        dtypes="common, only floating",
        broadcasts=True,
    ),
    Op(
        transcendental.logaddexp2,
        elements(lambda a, b: from_the_larger(a * math.log(2), b * math.log(2)) / math.log(2)),
        far_apart,
        (*takes_no_numbers("logaddexp2"), *not_integers("logaddexp2")),
        ("Logaddexp2", "Sigmoid"),
        dtypes="common, only floating",
        broadcasts=True,
    ),
    Op(
        transcendental.xlogy,
        elements(lambda x, y: 0.0 if x == 0 else x * math.log(y)),
        entropies,
        (Wrong(RuntimeError, SHAPES, np.ones(3), np.ones(2)),),
        ("Xlogy", "Log"),
        dtypes="common, floating",
        broadcasts=True,
    ),
    Op(
        transcendental.hypot,
        elements(lambda a, b: abs(complex(a, b))),
        magnitudes,
        (*takes_no_numbers("hypot"), *not_integers("hypot")),
        ("Hypot",),
        dtypes="common, only floating",
        broadcasts=True,
    ),
]
FAMILY = transcendental
EXEMPT: list[Any] = []

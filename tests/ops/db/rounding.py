from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from distgrad.ops import rounding

from .elementwise import FLAGS, INTEGERS, SHAPES, ints, one
from .row import Op, Sample, Samples, Wrong

BETWEEN = np.array([[-2.3, -0.6, 0.4], [1.23, 2.78, 130.8]])


def between(rng: np.random.Generator) -> Iterator[Sample]:
    """At least 0.2 from the next whole number, where the derivative jumps."""
    for size in ((2, 3), (), (0,), (2, 0, 3)):
        yield Sample(np.asarray(rng.integers(-9, 9, size) + rng.uniform(0.2, 0.45, size)))
    yield Sample(BETWEEN)


def with_integers(samples: Samples) -> Samples:
    def both(rng: np.random.Generator) -> Iterator[Sample]:
        yield from samples(rng)
        yield Sample(INTEGERS)
        yield Sample(np.array([0, 200], np.uint8))

    return both


def decimals(rng: np.random.Generator) -> Iterator[Sample]:
    yield from with_integers(between)(rng)
    yield Sample(BETWEEN, decimals=1)
    yield Sample(10 * BETWEEN, decimals=-1)
    yield Sample(np.array([1.23e-3, -4.56e-3]), decimals=4)
    # ties go to the even digit; these are not differentiated, since a finite difference would see the jump
    yield Sample(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 7.5], np.float32))
    yield Sample(np.array([0.125, 0.375, -0.625], np.float32), decimals=2)


def whole(function: Callable[[float], int]) -> Callable[..., Any]:
    def reference(x: Any) -> Any:
        return np.array([function(v) for v in x.reshape(-1).tolist()], x.dtype).reshape(x.shape)

    return reference


def rounded(x: Any, decimals: int = 0) -> Any:
    # Python rounds fractions exactly, ties to even
    values = [float(round(Fraction(v), decimals)) for v in x.reshape(-1).tolist()]
    return np.array(values, x.dtype).reshape(x.shape)


def steps(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(np.array([[-1.5, 0.0, 2.0], [0.0, -0.0, np.nan]]), np.array([[0.5], [7.0]]))
    yield Sample(INTEGERS, ints(4, 5, 6))
    yield Sample(FLAGS, np.array(True))
    yield Sample(np.array(0.0), np.array(0.25))
    yield Sample(np.zeros((0, 3)), np.zeros(3))


def refused(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(TypeError, rf"{name}\(\): argument 'input' must be Tensor, not float", 1.5),
        Wrong(RuntimeError, f"{name} is not defined for bool tensors", FLAGS),
    )


ROWS = [
    *(
        Op(
            getattr(rounding, name),
            whole(function),
            with_integers(between),
            refused(name),
            (name.capitalize(), "Zeros"),
            dtypes="not bool",
        )
        for name, function in {"floor": math.floor, "ceil": math.ceil, "trunc": math.trunc}.items()
    ),
    Op(
        rounding.round,
        rounded,
        decimals,
        (
            *refused("round"),
            Wrong(RuntimeError, "round with decimals=2 is not defined for int64 tensors", INTEGERS, decimals=2),
        ),
        ("Round", "Zeros"),
        dtypes="not bool",
    ),
    Op(
        rounding.frac,
        lambda x: np.array([math.modf(v)[0] for v in x.reshape(-1).tolist()], x.dtype).reshape(x.shape),
        between,
        (
            *refused("frac"),
            Wrong(RuntimeError, "frac is not defined for int64 tensors", INTEGERS),
        ),
        ("Frac",),
        dtypes="only floating",
    ),
    Op(
        rounding.sgn,
        whole(lambda v: (v > 0) - (v < 0)),
        with_integers(one(0.1, 2.0)),
        (Wrong(TypeError, r"sgn\(\): argument 'input' must be Tensor, not float", 3.0),),
        ("Sign", "Zeros"),
        # whose second derivative is a placeholder without memory
        torch=lambda torch, x: torch.sign(x),
    ),
    Op(
        rounding.heaviside,
        lambda x, values: np.array([v if a == 0 else int(a > 0) for a, v in np.broadcast(x, values)], x.dtype).reshape(
            np.broadcast_shapes(x.shape, values.shape)
        ),
        steps,
        (
            Wrong(RuntimeError, "tensors with different dtypes, int64 and float64 here", INTEGERS, np.ones(3)),
            Wrong(TypeError, r"argument 'other' \(position 2\) must be Tensor, not float", np.ones(3), 1.0),
            Wrong(RuntimeError, SHAPES, np.zeros(3), np.zeros(2)),
        ),
        ("Heaviside",),
        differentiable=False,
        dtypes="takes two tensors of one dtype",
        broadcasts=True,
    ),
]
FAMILY = rounding
EXEMPT: list[Any] = []

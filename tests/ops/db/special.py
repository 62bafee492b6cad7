from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special as scipy_special

from distgrad.ops import special

from .elementwise import one
from .row import Op, Sample, Samples, Wrong
from .transcendental import also, unary

TIGHT: Any = (1e-13, 2e-5)
ENDS = (0.0, 0.46, 0.48, -0.48, 0.5, -0.5, 3.99, 4.01, -7.0)
# the signs of the gamma function, its recurrence and its asymptotic series, and points beside the poles
GAMMA = (0.01, 0.49, 0.51, 1.46, 1.49, 2.51, 9.5, 10.5, 33.0, -0.3, -1.6, -4.5, -20.25)


def scipy_elements(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands: np.asarray(function(*operands), np.float64)


def orders(rng: np.random.Generator) -> Any:
    for n in (0, 1, 2, 5):
        yield Sample(n, rng.uniform(0.3, 6.0, (2, 3)))
    yield Sample(1, np.array(GAMMA))
    yield Sample(2, np.array(0.7))
    yield Sample(3, np.zeros((0, 2)))


def recurrence(n: int, x: Any) -> Any:
    """By the definition as a sum, from far out where scipy has no poles to fear."""
    steps = 40
    out = np.asarray(scipy_special.polygamma(n, x + steps), np.float64)
    for k in range(steps):
        out = out - (-1) ** n * math.factorial(n) / (x + k) ** (n + 1)
    return out


def in_special(name: str, function: Callable[[Any], Any], samples: Samples, *uses: str) -> Op:
    return unary(name, function, samples, *uses, tolerance=TIGHT, module=special)


ROWS = [
    in_special("erf", math.erf, also(one(0.0, 5.0), *ENDS), "Exp"),
    in_special("erfc", math.erfc, also(one(0.0, 5.0), *ENDS), "Exp"),
    Op(
        special.erfinv,
        scipy_elements(scipy_special.erfinv),
        also(one(0.0, 0.9), 0.0, 1e-9, 0.499, 0.501, -0.95),
        (Wrong(TypeError, r"erfinv\(\): argument 'input' must be Tensor, not float", 1.0),),
        ("Erfinv", "Exp"),
        dtypes="floating",
        tolerance=TIGHT,
    ),
    in_special("lgamma", math.lgamma, also(one(0.2, 7.0, signed=False), *GAMMA), "Digamma", "Polygamma"),
    Op(
        special.digamma,
        lambda x: recurrence(0, x),
        also(one(0.2, 7.0, signed=False), *GAMMA),
        (Wrong(TypeError, r"digamma\(\): argument 'input' must be Tensor, not float", 1.0),),
        ("Digamma", "Polygamma"),
        dtypes="floating",
        # PyTorch's own derivatives; test_digamma_in_float64 is stricter
        tolerance=(1e-10, 2e-4),
    ),
    Op(
        special.polygamma,
        recurrence,
        orders,
        (
            Wrong(RuntimeError, "does not support negative n, but n is -1", -1, np.ones(2)),
            Wrong(TypeError, r"argument 'n' \(position 1\) must be int, not float", 1.5, np.ones(2)),
            Wrong(TypeError, r"polygamma\(\): argument 'input' must be Tensor, not float", 1, 2.0),
        ),
        ("Polygamma",),
        dtypes="the order comes first; test_polygamma_of_integers",
        # PyTorch's own values and derivatives; test_polygamma_in_float64 is stricter
        tolerance=(1e-9, 2e-4),
    ),
]
FAMILY = special
EXEMPT: list[Any] = []

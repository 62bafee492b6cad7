from __future__ import annotations

from distgrad.ops import random

from .row import Exempt, Op

STATISTICAL = "its values are random; tests/ops/test_random.py checks distribution, seed, dtype, gradient and errors"

ROWS: list[Op] = []
FAMILY = random
EXEMPT = [
    *(
        Exempt(getattr(random, name), STATISTICAL)
        for name in ("rand", "randn", "randint", "randperm", "dropout", "manual_seed", "Generator")
    ),
]

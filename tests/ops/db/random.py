from __future__ import annotations

from distgrad.ops import random

from .row import Exempt, Op

STATISTICAL = "its values are random; tests/ops/test_random.py checks distribution, seed, dtype and errors"
STATE = "is about the state of a stream; tests/ops/test_random.py"

ROWS: list[Op] = []
FAMILY = random
EXEMPT = [
    *(
        Exempt(getattr(random, name), STATISTICAL)
        for name in ("rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm")
    ),
    *(
        Exempt(getattr(random, name), STATE)
        for name in (
            "Generator",
            "get_rng_state",
            "initial_seed",
            "manual_seed",
            "replace_default",
            "seed",
            "set_rng_state",
        )
    ),
]

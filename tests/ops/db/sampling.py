from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distgrad.ops import sampling

from .row import Exempt, Op, Sample, Wrong

STATISTICAL = "its values are random; tests/ops/test_sampling.py checks distribution, dtype, gradient and errors"


def certainties(rng: np.random.Generator) -> Iterator[Sample]:
    for size in ((2, 3), (), (0, 2)):
        yield Sample(rng.standard_normal(size), 1.0)
        yield Sample(rng.standard_normal(size), 0)
        yield Sample(rng.standard_normal(size), p=1)


ROWS = [
    Op(
        sampling.bernoulli,
        lambda x, p: np.zeros(x.shape) + p,
        certainties,
        (
            Wrong(RuntimeError, r"expects p to be in \[0, 1\], but got p=1.5", np.ones(2), 1.5),
            Wrong(RuntimeError, "p_in >= 0 && p_in <= 1", np.array([0.5, 1.5])),
            Wrong(RuntimeError, "p_in >= 0 && p_in <= 1", np.array([0.5, np.nan])),
            Wrong(NotImplementedError, "not implemented for int64", np.array([0, 1])),
            Wrong(TypeError, "must be Tensor, not float", 0.5),
        ),
        ("Sample",),
        torch=lambda torch, x, p: torch.bernoulli(x * 0 + p),  # it refuses to differentiate with one p for all
        dtypes="takes a probability too; tests/ops/test_sampling.py",
    ),
]
FAMILY = sampling
EXEMPT = [
    Exempt(getattr(sampling, name), STATISTICAL)
    for name in (
        "bernoulli_",
        "cauchy_",
        "exponential_",
        "geometric_",
        "log_normal_",
        "multinomial",
        "normal",
        "normal_",
        "poisson",
        "random_",
        "uniform_",
    )
]

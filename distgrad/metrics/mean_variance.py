"""``MeanVariance``: mean and variance of a stream of numbers, or of each feature of a stream of samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .exact_sum import UNIT, ExactSum, quotient
from .metric import Array, Metric, Values, array_of


class Moments(NamedTuple):
    """Mean and variance, float64 of the stream's shape, and how many samples they are of."""

    mean: Array
    variance: Array
    samples: int

    @property
    def std(self) -> Array:
        """The standard deviation."""
        return np.asarray(np.sqrt(self.variance))


class MeanVariance(Metric):
    """Mean and variance of everything that was given, without keeping it.

    Updates, merges and reductions add exact sums of the values and of their squares, from which ``(n * sum(x**2) -
    sum(x)**2) / (n * (n - correction))`` is formed in integers. So nothing cancels, which is what Welford's and Chan's
    recurrences are for, and unlike theirs the result has the same bits at any world size and in any order: both
    moments are the float64 numbers nearest to the exact ones.

    Args:
        shape: of a sample; () for a stream of numbers, (C,) for the mean and the variance of each of C features.
        correction: what is subtracted from the count, as in ``torch.var``: 1 for the unbiased variance, 0 for that of
            the values themselves.

    Attributes:
        sum, squares: exact sums, of this rank.
        count: int64, of this rank.

    Raises:
        ValueError: a negative ``correction``.
    """

    sum: ExactSum
    squares: ExactSum
    count: np.ndarray[Any, Any]

    def __init__(self, shape: tuple[int, ...] = (), correction: int = 1) -> None:
        super().__init__()
        if correction < 0:
            raise ValueError(f"MeanVariance: correction is {correction}, must be at least 0")
        self.shape = tuple(shape)
        self.correction = correction
        self.add_counts("count")
        self.add_sum("sum", self.shape)
        self.add_sum("squares", self.shape)

    def settings(self) -> dict[str, Any]:
        """``shape`` and ``correction``."""
        return {"shape": self.shape, "correction": self.correction}

    def update(self, value: Values) -> None:
        """Counts samples, each as float64.

        Args:
            value: (..., *shape), for any leading dimensions, which may be 0. Of images (N, C, H, W) and ``shape``
                (C,) give ``images.permute(0, 2, 3, 1)``.

        Raises:
            ValueError: its last dimensions are not ``shape``.
        """
        values = array_of(value)
        leading = values.shape[: values.ndim - len(self.shape)]
        if values.ndim < len(self.shape) or values.shape[len(leading) :] != self.shape:
            raise ValueError(f"MeanVariance: values must be (..., *{self.shape}), but their shape is {values.shape}")
        self.sum.add(values)
        if values.dtype in (np.float16, np.float32):  # whose squares are float64 numbers
            self.squares.add(np.square(values, dtype=np.float64))
        else:
            self.squares.add_products(values, values)
        self.count += int(np.prod(leading, dtype=np.int64))

    def compute(self) -> Moments:
        """The moments; NaN where there is no value, and the variance also where no more than ``correction`` are."""
        count = int(self.count)
        divisor = count << -UNIT
        mean = self.sum.over([divisor] * self.sum.size)
        freedom = max(0, count - self.correction)
        variances = [
            quotient(((count * square) << -UNIT) - total * total, (count * freedom) << (-2 * UNIT))
            for total, square in zip(self.sum.integers(), self.squares.integers(), strict=True)
        ]
        finite = self.sum.is_finite() & self.squares.is_finite()
        variance = np.where(finite, np.reshape(variances, self.shape), np.nan)
        return Moments(mean, variance, count)

"""``MeanMetric``: a weighted mean, such as the loss over all samples."""

from __future__ import annotations

import numpy as np

from .exact_sum import ExactSum
from .metric import Metric, Values, array_of


class MeanMetric(Metric):
    """``sum(value * weight) / sum(weight)``, as torchmetrics' ``MeanMetric``; products and sums exact, rounded once.

    The mean loss over an epoch, of losses a sample or of a batch's mean with its number of samples::

        loss.update(F.cross_entropy(logits, labels, reduction="none"))
        loss.update(F.cross_entropy(logits, labels), weight=len(labels))

    The first has the same bits however the samples were shared out, if the losses have. A value with weight 0 is not
    looked at: the mean over an empty batch is NaN and counts as nothing.

    Attributes:
        sum, weight: of this rank.
    """

    sum: ExactSum
    weight: ExactSum

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("sum")
        self.add_sum("weight")

    def update(self, value: Values, weight: Values = 1) -> None:
        """Counts values, each as float64.

        Args:
            value: a number, or a tensor or array of any shape, which may be empty.
            weight: at least 0; of a shape that broadcasts with ``value``'s.

        Raises:
            ValueError: a weight is negative, NaN or infinite.
        """
        values, weights = array_of(value), array_of(weight)
        if weights.ndim == 0 and weights == 1:
            self.sum.add(values)
            self.weight.add_count(values.size)
            return
        if not ((weights >= 0) & np.isfinite(weights)).all():
            raise ValueError(f"MeanMetric: a weight must be finite and at least 0, but there is {weights.min()}")
        values, weights = np.broadcast_arrays(values, weights)
        counts = weights > 0
        self.sum.add_products(values[counts], weights[counts])
        self.weight.add(weights)

    def compute(self) -> float:
        """The mean, the float64 nearest to the exact one; NaN without any weight."""
        return float(self.sum.over(self.weight.integers()))

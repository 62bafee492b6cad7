"""``Accuracy``: the part of the samples whose class is predicted."""

from __future__ import annotations

from typing import Any

import numpy as np

from .metric import Metric, Values, ratio
from .predictions import place_of_target, scores_and_target


class Accuracy(Metric):
    """Right predictions by samples, 0 to 1; that of several classes with equal scores is right that comes first.

    torchmetrics' ``MulticlassAccuracy(average="micro")``.

    Args:
        ignore_index: samples with this target are not counted.

    Attributes:
        correct, total: int64, of this rank.
    """

    correct: np.ndarray[Any, Any]
    total: np.ndarray[Any, Any]

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.add_counts("correct")
        self.add_counts("total")

    def settings(self) -> dict[str, Any]:
        """``ignore_index``."""
        return {"ignore_index": self.ignore_index}

    def update(self, preds: Values, target: Values) -> None:
        """Counts a batch.

        Args:
            preds: scores (N, C, ...) of a floating dtype, or classes (N, ...), integers.
            target: classes (N, ...).

        Raises:
            TypeError, ValueError: a dtype, a shape or a class that does not fit.
        """
        scores, predicted, truth = scores_and_target("Accuracy", preds, target, self.ignore_index)
        right = predicted == truth if scores is None else place_of_target(scores, truth) == 0
        self.correct += np.count_nonzero(right)
        self.total += truth.size

    def compute(self) -> float:
        """The accuracy, NaN without a sample."""
        return ratio(self.correct, self.total)

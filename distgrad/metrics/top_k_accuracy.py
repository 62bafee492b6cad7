"""``TopKAccuracy``: the part of the samples whose class is among the k most likely ones."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import numpy as np

from .metric import Metric, Values, ratio
from .predictions import place_of_target, scores_and_target


class TopKAccuracy(Metric):
    """Samples whose target has one of the ``k`` largest scores, by samples, 0 to 1.

    Among equal scores the lower class comes first; PyTorch's ``topk`` leaves open which one does. torchmetrics'
    ``MulticlassAccuracy(top_k=k, average="micro")``.

    Args:
        k: how many classes a sample may name, at least 1.
        ignore_index: samples with this target are not counted.

    Attributes:
        correct, total: int64, of this rank.

    Raises:
        ValueError: ``k`` is below 1.
    """

    correct: np.ndarray[Any, Any]
    total: np.ndarray[Any, Any]

    def __init__(self, k: SupportsIndex = 5, ignore_index: int | None = None) -> None:
        super().__init__()
        self.k = operator.index(k)
        if self.k < 1:
            raise ValueError(f"TopKAccuracy: k is {self.k}, must be at least 1")
        self.ignore_index = ignore_index
        self.add_counts("correct")
        self.add_counts("total")

    def settings(self) -> dict[str, Any]:
        """``k`` and ``ignore_index``."""
        return {"k": self.k, "ignore_index": self.ignore_index}

    def update(self, preds: Values, target: Values) -> None:
        """Counts a batch.

        Args:
            preds: scores (N, C, ...) of a floating dtype, larger for more likely classes; C at least ``k``.
            target: classes (N, ...).

        Raises:
            TypeError, ValueError: a dtype, a shape or a class that does not fit.
        """
        scores, _, truth = scores_and_target("TopKAccuracy", preds, target, self.ignore_index)
        if scores is None:
            raise ValueError(
                f"TopKAccuracy: preds must be scores (N, C, ...), not classes; the target is {truth.shape}"
            )
        if self.k > scores.shape[1]:
            raise ValueError(f"TopKAccuracy: k is {self.k}, but there are only {scores.shape[1]} classes")
        self.correct += np.count_nonzero(place_of_target(scores, truth) < self.k)
        self.total += truth.size

    def compute(self) -> float:
        """The top-k accuracy, NaN without a sample."""
        return ratio(self.correct, self.total)

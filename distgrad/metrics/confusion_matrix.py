"""``ConfusionMatrix``: which classes are taken for which, and precision, recall and F1 of each."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .metric import Metric, Values, ratio
from .predictions import check_classes, scores_and_target

Average: TypeAlias = Literal["micro", "macro", "weighted"]
Doubles = npt.NDArray[np.float64]


class ConfusionMatrix(Metric):
    """Counts samples by true class (row) and predicted class (column), as torchmetrics and scikit-learn do.

    Precision, recall and F1 are derived from the counts. A class for which one is not defined (none was predicted, or
    none exists) has 0. ``average`` makes one number of them, with torchmetrics' meaning:

    - ``None``: one for each class.
    - ``"macro"``: their mean, without the classes that are neither among the targets nor predicted.
    - ``"weighted"``: their mean, weighted by the samples of each class.
    - ``"micro"``: that of all classes taken together, which is the accuracy.

    Args:
        num_classes: C.
        ignore_index: samples with this target are not counted.

    Attributes:
        counts: int64 (C, C), of this rank.

    Raises:
        ValueError: ``num_classes`` is below 1.
    """

    counts: np.ndarray[Any, Any]

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"ConfusionMatrix: num_classes is {num_classes}, must be at least 1")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_counts("counts", (num_classes, num_classes))

    def settings(self) -> dict[str, Any]:
        """``num_classes`` and ``ignore_index``."""
        return {"num_classes": self.num_classes, "ignore_index": self.ignore_index}

    def update(self, preds: Values, target: Values) -> None:
        """Counts a batch.

        Args:
            preds: scores (N, C, ...) of a floating dtype, of which the first largest is predicted; or classes
                (N, ...), integers.
            target: classes (N, ...).

        Raises:
            TypeError, ValueError: a dtype, a shape or a class that does not fit.
        """
        size = self.num_classes
        scores, predicted, truth = scores_and_target("ConfusionMatrix", preds, target, self.ignore_index)
        if scores is not None:
            if scores.shape[1] != size:
                raise ValueError(f"ConfusionMatrix: num_classes is {size}, but there are scores of {scores.shape[1]}")
            predicted = scores.argmax(axis=1)
        assert predicted is not None
        check_classes("ConfusionMatrix", "preds", predicted, size)
        check_classes("ConfusionMatrix", "target", truth, size)
        self.counts += np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)

    def compute(self, normalize: Literal["true", "pred", "all"] | None = None) -> npt.NDArray[Any]:
        """The matrix (C, C), row by row the true classes.

        Args:
            normalize: None for counts, int64; "true" for parts of each row, "pred" of each column, "all" of everything,
                float64, and 0 where there is nothing.

        Raises:
            ValueError: another ``normalize``.
        """
        if normalize is None:
            return self.counts.copy()
        if normalize not in ("true", "pred", "all"):
            raise ValueError(f"ConfusionMatrix: normalize is {normalize!r}, must be 'true', 'pred', 'all' or None")
        axis = {"true": 1, "pred": 0, "all": None}[normalize]
        return _divide(self.counts, self.counts.sum(axis=axis, keepdims=True))

    def support(self) -> npt.NDArray[np.int64]:
        """How many samples each class has, (C,)."""
        return np.asarray(self.counts.sum(axis=1))

    def accuracy(self) -> float:
        """The part of the samples that is right, NaN without a sample."""
        return ratio(np.trace(self.counts), self.counts.sum())

    def precision(self, average: Average | None = None) -> Any:
        """Of the samples predicted as a class, the part that is of it: float64 (C,), or a float with ``average``."""
        return self._averaged(np.diagonal(self.counts), self.counts.sum(axis=0), average)

    def recall(self, average: Average | None = None) -> Any:
        """Of the samples of a class, the part that is predicted as it: float64 (C,), or a float with ``average``."""
        return self._averaged(np.diagonal(self.counts), self.support(), average)

    def f1(self, average: Average | None = None) -> Any:
        """The harmonic mean of precision and recall: float64 (C,), or a float with ``average``."""
        return self._averaged(2 * np.diagonal(self.counts), self.counts.sum(axis=0) + self.support(), average)

    def _averaged(self, part: Any, whole: Any, average: Average | None) -> Any:
        if average is None:
            return _divide(part, whole)
        if average == "micro":
            return ratio(part.sum(), whole.sum())
        if average not in ("macro", "weighted"):
            raise ValueError(f"ConfusionMatrix: average is {average!r}, must be 'micro', 'macro', 'weighted' or None")
        each = _divide(part, whole)
        if average == "macro":
            occurs = (self.support() > 0) | (self.counts.sum(axis=0) > 0)
            return float(each[occurs].mean()) if occurs.any() else float("nan")
        samples = self.support().sum()
        return float((each * self.support()).sum() / samples) if samples else float("nan")


def _divide(part: Any, whole: Any) -> Doubles:
    """Quotients of counts, 0 where there is nothing to divide by."""
    out = np.zeros(np.broadcast_shapes(part.shape, whole.shape))
    np.divide(part, whole, out=out, where=whole != 0)
    return out

"""What metrics of classification are given: scores or classes, beside the classes that are true."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .metric import Array, Values, array_of

Classes = npt.NDArray[np.int64]


def scores_and_target(
    metric: str, preds: Values, target: Values, ignore_index: int | None
) -> tuple[Array | None, Array | None, Classes]:
    """Predictions in one row a sample.

    Args:
        metric: who asks, for messages.
        preds: scores (N, C, ...) of a floating dtype, larger for more likely classes; or classes (N, ...), integers.
        target: classes (N, ...), integers.
        ignore_index: what counts as no sample where it is the target.

    Returns:
        Scores (M, C) or None, predicted classes (M,) or None, one of the two, and the targets (M,).

    Raises:
        TypeError: a dtype that is neither.
        ValueError: shapes that do not fit, or a target that is not one of the C classes.
    """
    given, truth = array_of(preds), array_of(target)
    if truth.dtype.kind not in "iub":
        if truth.size:
            raise TypeError(f"{metric}: target must be classes, integers, but its dtype is {truth.dtype}")
        truth = truth.astype(np.int64)  # an empty list
    if given.ndim == truth.ndim + 1 and given.ndim >= 2 and given.shape[:1] + given.shape[2:] == truth.shape:
        if given.dtype.kind != "f":
            raise TypeError(f"{metric}: preds of shape {given.shape} are scores, but their dtype is {given.dtype}")
        scores = np.moveaxis(given, 1, -1).reshape(truth.size, given.shape[1])
        kept, truth = _without(ignore_index, truth)
        scores = scores if kept is None else scores[kept]
        check_classes(metric, "target", truth, scores.shape[1])
        return scores, None, truth
    if given.shape != truth.shape:
        raise ValueError(
            f"{metric}: preds of shape {given.shape} do not fit target of shape {truth.shape}: they must be scores "
            "(N, C, ...) or classes (N, ...) for target (N, ...)"
        )
    if given.dtype.kind not in "iub" and given.size:
        raise TypeError(
            f"{metric}: preds of target's shape {truth.shape} are classes, integers, but their dtype is {given.dtype}; "
            "compare probabilities with a threshold first, or give scores of each class, (N, C, ...)"
        )
    kept, truth = _without(ignore_index, truth)
    predicted = given.reshape(-1).astype(np.int64)
    return None, predicted if kept is None else predicted[kept], truth


def _without(ignore_index: int | None, truth: Array) -> tuple[Any, Classes]:
    """Which samples count (None: all), and their targets."""
    flat = truth.reshape(-1).astype(np.int64)
    if ignore_index is None:
        return None, flat
    kept = flat != ignore_index
    return kept, flat[kept]


def check_classes(metric: str, name: str, classes: Classes, count: int) -> None:
    """Raises ValueError unless all ``classes`` are 0 to ``count - 1``."""
    if classes.size and not (classes.min() >= 0 and classes.max() < count):
        wrong = classes[(classes < 0) | (classes >= count)][0]
        raise ValueError(f"{metric}: {name} has the class {wrong}, but the classes are 0 to {count - 1}")


def place_of_target(scores: Array, target: Classes) -> Classes:
    """How many classes come before the target, by score: 0 where it is the first choice.

    Among equal scores the lower class comes first, as with ``argmax``. A score that is NaN comes before all others
    and, as the target's own, after all: who predicts NaN is never right.

    Args:
        scores: (M, C).
        target: (M,).

    Returns:
        (M,), 0 to C.
    """
    own = np.take_along_axis(scores, target[:, None], axis=1)  # (M, 1)
    before = (~(scores <= own)).sum(axis=1)
    tied = (scores == own) & (np.arange(scores.shape[1]) < target[:, None])
    return np.asarray(before + tied.sum(axis=1), dtype=np.int64)

"""How good a model is, over all samples of all ranks: metrics in the manner of torchmetrics.

Their state is counts and exact sums, so every value has the same bits at any world size.
"""

from __future__ import annotations

from ..registry import no_attribute
from .accuracy import Accuracy
from .confusion_matrix import ConfusionMatrix
from .exact_sum import ExactSum
from .mean_metric import MeanMetric
from .mean_variance import MeanVariance, Moments
from .metric import Metric
from .metric_collection import MetricCollection
from .top_k_accuracy import TopKAccuracy

__all__ = [
    "Accuracy",
    "ConfusionMatrix",
    "ExactSum",
    "MeanMetric",
    "MeanVariance",
    "Metric",
    "MetricCollection",
    "Moments",
    "TopKAccuracy",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.metrics'", name, __all__)

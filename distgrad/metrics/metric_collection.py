"""``MetricCollection``: several metrics that are given the same batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..distributed import Communicator
from .metric import Metric


class MetricCollection:
    """Metrics by name, as torchmetrics' ``MetricCollection``: each call goes to all of them.

    Example::

        scores = MetricCollection({"accuracy": Accuracy(), "top5": TopKAccuracy(5)})
        scores.update(logits, labels)
        scores.reduce().compute()  # {"accuracy": 0.71, "top5": 0.9}

    Args:
        metrics: in the order in which they are reduced, the same on every rank.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = dict(metrics)

    def __getitem__(self, name: str) -> Metric:
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Counts one batch in every metric."""
        for metric in self._metrics.values():
            metric.update(*args, **kwargs)

    def compute(self) -> dict[str, Any]:
        """The value of each metric."""
        return {name: metric.compute() for name, metric in self._metrics.items()}

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Updates with one batch and returns the values of this batch."""
        return {name: metric(*args, **kwargs) for name, metric in self._metrics.items()}

    def reset(self) -> None:
        """Forgets every batch."""
        for metric in self._metrics.values():
            metric.reset()

    def merge(self, *others: MetricCollection) -> MetricCollection:
        """Adds what other collections of the same metrics have counted; returns itself.

        Raises:
            ValueError: another one has other metrics.
        """
        for other in others:
            if list(other) != list(self):
                raise ValueError(f"a MetricCollection of {', '.join(self)} cannot be merged with {', '.join(other)}")
        for name, metric in self._metrics.items():
            metric.merge(*(other[name] for other in others))
        return self

    def reduce(self, communicator: Communicator | None = None) -> MetricCollection:
        """A new collection over all ranks; a collective. See ``Metric.reduce``."""
        return MetricCollection({name: metric.reduce(communicator) for name, metric in self._metrics.items()})

    def state_dict(self) -> dict[str, Any]:
        """The state of each metric, by name."""
        return {name: metric.state_dict() for name, metric in self._metrics.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave.

        Raises:
            ValueError: it belongs to other metrics.
        """
        if sorted(state_dict) != sorted(self._metrics):
            raise ValueError(f"a MetricCollection of {', '.join(self)} was given the state of {', '.join(state_dict)}")
        for name, metric in self._metrics.items():
            metric.load_state_dict(state_dict[name])

    def __repr__(self) -> str:
        return f"MetricCollection({self._metrics!r})"

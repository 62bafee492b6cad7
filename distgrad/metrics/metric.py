"""``Metric``: what every metric can do. Its state is counts and exact sums, which add up over batches and ranks."""

from __future__ import annotations

import copy
import json
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..autograd import Tensor
from ..distributed import Communicator, process_group
from ..errors import CommunicationError
from .exact_sum import ExactSum

Array = npt.NDArray[Any]
Values = Tensor | Array | list[Any] | tuple[Any, ...] | float


class Metric:
    """Base class of the metrics: batches go in by ``update``, the value over all of them comes out of ``compute``.

    The state consists of int64 counts and of sums that are never rounded (``ExactSum``). So the value does not depend
    on how samples were shared out among batches and ranks, nor on the order: it has the same bits at any world size,
    and means of means do not occur. A rank without samples, and an empty batch, add nothing.

    ``reduce`` gives a metric over all ranks and leaves the one it is called on as it is::

        accuracy = metrics.Accuracy()
        for inputs, labels in batches:  # this rank's
            accuracy.update(model(inputs), labels)
        print(accuracy.reduce().compute())  # of all ranks' samples, the same on every rank

    A subclass names its state with ``add_counts`` and ``add_sum``, and implements ``update`` and ``compute``; what
    distinguishes two metrics of one class is in ``settings``.

    As in torchmetrics, calling a metric updates it and gives the value of that batch alone.
    """

    def __init__(self) -> None:
        self._counts: list[str] = []
        self._sums: list[str] = []

    def add_counts(self, name: str, shape: tuple[int, ...] = ()) -> None:
        """Makes the attribute ``name``: an int64 array of zeros that ``update`` adds to."""
        self._counts.append(name)
        setattr(self, name, np.zeros(shape, np.int64))

    def add_sum(self, name: str, shape: tuple[int, ...] = ()) -> None:
        """Makes the attribute ``name``: an ``ExactSum`` that ``update`` adds to."""
        self._sums.append(name)
        setattr(self, name, ExactSum(shape))

    def settings(self) -> dict[str, Any]:
        """What two metrics have in common that can be merged, in JSON's values."""
        return {}

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Counts one batch."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def compute(self) -> Any:
        """The value over everything since the last ``reset``."""
        raise NotImplementedError(f"{type(self).__name__} has no compute")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Updates with one batch and returns the value of this batch."""
        batch = copy.deepcopy(self)
        batch.reset()
        batch.update(*args, **kwargs)
        self.merge(batch)
        return batch.compute()

    def reset(self) -> None:
        """Forgets every batch."""
        for name in self._counts:
            getattr(self, name)[...] = 0
        for name in self._sums:
            getattr(self, name).reset()

    def merge(self, *others: Self) -> Self:
        """Adds what other metrics of the same kind have counted; returns itself.

        Raises:
            ValueError: one of them is of another class or has other settings.
        """
        for other in others:
            if type(other) is not type(self) or other.settings() != self.settings():
                raise ValueError(f"{self!r} cannot be merged with {other!r}: they do not measure the same")
        for other in others:
            for name in self._counts:
                counts = getattr(self, name)
                counts += getattr(other, name)
            for name in self._sums:
                getattr(self, name).merge(getattr(other, name))
        return self

    def reduce(self, communicator: Communicator | None = None) -> Self:
        """A new metric that has counted what this one has on every rank: a collective, the same on all ranks.

        This one goes on with what this rank has seen, so reducing twice counts nothing twice.

        Args:
            communicator: the ranks; default: those of ``distgrad.distributed.init``.

        Raises:
            CommunicationError: the ranks have different metrics: raised on every rank.
        """
        ranks = process_group.communicator() if communicator is None else communicator
        shapes = ", ".join(f"{name} {getattr(self, name).shape}" for name in [*self._counts, *self._sums])
        mine = {
            "metric": f"{self!r} with {shapes}",
            "sums": {name: getattr(self, name).state_dict() for name in self._sums},
        }
        parts = [json.loads(part) for part in ranks.all_gather_bytes(json.dumps(mine).encode())]
        for rank, part in enumerate(parts):
            if part["metric"] != parts[0]["metric"]:
                raise CommunicationError(
                    f"reduce: rank 0 has {parts[0]['metric']} but rank {rank} has {part['metric']}; every rank must "
                    "reduce the same metrics in the same order"
                )
        total = copy.deepcopy(self)
        if self._counts:
            flat = np.concatenate([getattr(self, name).reshape(-1) for name in self._counts])  # (all counts,)
            ranks.all_reduce(flat)
            start = 0
            for name in self._counts:
                counts = getattr(total, name)
                counts[...] = flat[start : start + counts.size].reshape(counts.shape)
                start += counts.size
        for name in self._sums:
            theirs = getattr(total, name)
            theirs.reset()
            for part in parts:
                of_rank = ExactSum(theirs.shape)
                of_rank.load_state_dict(part["sums"][name])
                theirs.merge(of_rank)
        return total

    def state_dict(self) -> dict[str, Any]:
        """Everything counted so far, in values that a checkpoint can hold: copies, by name."""
        counts = {name: getattr(self, name).copy() for name in self._counts}
        return counts | {name: getattr(self, name).state_dict() for name in self._sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` gave; nothing is changed if it does not fit.

        Raises:
            ValueError: it belongs to another metric: names or shapes differ.
        """
        names = [*self._counts, *self._sums]
        if sorted(state_dict) != sorted(names):
            raise ValueError(f"{self!r} has the state {', '.join(names)}, but was given {', '.join(state_dict)}")
        for name in self._counts:
            expected, given = getattr(self, name).shape, np.shape(state_dict[name])
            if given != expected:
                raise ValueError(f"{self!r}: {name} has the shape {expected}, but was given {given}")
        sums = {name: ExactSum(getattr(self, name).shape) for name in self._sums}
        for name, value in sums.items():
            value.load_state_dict(state_dict[name])
        for name in self._counts:
            getattr(self, name)[...] = state_dict[name]
        for name, value in sums.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.settings().items())})"


def array_of(value: Values) -> Array:
    """The values of a tensor, an array, a list or a number."""
    return value._data if isinstance(value, Tensor) else np.asarray(value)


def ratio(part: Any, whole: Any) -> float:
    """``part / whole`` of two counts; NaN without anything to count."""
    return int(part) / int(whole) if int(whole) else float("nan")

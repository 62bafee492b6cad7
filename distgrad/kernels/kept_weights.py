"""What convolutions make of weights alone, kept as long as the weights stay what they are.

A pass forward and one backward bring each weight into the order in which products read it. Where several passes follow
each other before the optimizer steps, as over the slices of one batch, they would all do the same; between ``keep`` and
``forget`` the calling thread does it once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from numpy.typing import NDArray

R = TypeVar("R")


class _Store(threading.local):
    weights: frozenset[int] | None = None  # where those that stay lie; None: nothing is kept
    made: dict[Hashable, tuple[Any, Any]]


_store = _Store()


def keep(weights: Iterable[NDArray[Any]]) -> None:
    """From now until ``forget`` these arrays, which live on, are not written to."""
    _store.weights = frozenset(_address(weight) for weight in weights)
    _store.made = {}


def forget() -> None:
    """Frees what has been kept."""
    _store.weights = None
    _store.made = {}


def kept(weight: NDArray[Any], owner: object, use: Hashable, make: Callable[[], R]) -> R:
    """``make()``, or what it has given before for the same weight, owner and use.

    Args:
        weight: an array; one that ``keep`` was not told of is never kept.
        owner: the plan, which decides with ``use`` what is made.
        use: what it is for.
        make: makes it, of ``weight`` alone, in memory of its own that nobody writes to.
    """
    if _store.weights is None or (address := _address(weight)) not in _store.weights:
        return make()
    key = address, weight.shape, weight.strides, id(owner), use
    found = _store.made.get(key)
    if found is None:
        found = _store.made[key] = owner, make()  # with the owner, whose number would go to another one
    made: R = found[1]
    return made


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])

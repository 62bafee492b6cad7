"""Names to things: what a user types in a config resolves here, and an unknown name lists its siblings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from .errors import ConfigError

T = TypeVar("T")


def no_attribute(owner: str, name: str, names: Iterable[str]) -> AttributeError:
    """The error for a name that ``owner`` does not have; it says so, and which of ``names`` is nearest."""
    # a private name is a protocol's question, not a user's typing
    import difflib  # only for a message

    near = [] if name.startswith("_") else difflib.get_close_matches(name, names, n=1)
    hint = f": it is not in distgrad; the nearest name is {near[0]!r}" if near else ": it is not in distgrad"
    return AttributeError(f"{owner} has no attribute {name!r}{hint}", name=name)


def nearest(name: str, names: list[str]) -> str:
    """A clause that suggests the name most like ``name`` (empty when nothing is close)."""
    import difflib

    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


class Registry(Generic[T]):
    """A table from names to objects of one kind.

    Args:
        kind: what the names stand for, as it appears in errors ("optimizer", "model").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._table: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters its object under ``name``; entering a name twice is a ``ValueError``."""

        def enter(thing: T) -> T:
            if name in self._table:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._table[name] = thing
            return thing

        return enter

    def __getitem__(self, name: str) -> T:
        """The object called ``name``; raises ``ConfigError`` that lists what there is."""
        if name not in self._table:
            names = sorted(self._table)
            raise ConfigError(f"unknown {self.kind} {name!r}.{nearest(name, names)} There is: {', '.join(names)}.")
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._table))

    def __contains__(self, name: object) -> bool:
        return name in self._table

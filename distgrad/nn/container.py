"""Modules that hold modules: one after another, or by name."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, cast, overload

from ..autograd import Tensor
from .module import Module, _indented


class _Numbered(Module):
    """What ``Sequential`` and ``ModuleList`` share: access to the children by position."""

    def _values(self) -> list[Module]:
        return cast(list[Module], list(self._modules.values()))

    def _renumber(self, modules: Iterable[Module]) -> None:
        self._modules = {str(number): module for number, module in enumerate(modules)}

    def _position(self, index: int) -> int:
        """``index``, which may count from the end, checked."""
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is out of range")
        return position % len(self)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._values())

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, list(self._modules)[self._position(index)], module)

    def __delitem__(self, index: int | slice) -> None:
        modules = self._values()
        del modules[index if isinstance(index, slice) else self._position(index)]
        self._renumber(modules)

    def append(self, module: Module) -> Self:
        """Adds ``module`` at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds several at the end."""
        if not isinstance(modules, Iterable):
            raise TypeError(
                f"{type(self).__name__}.extend should be called with an iterable, but got {type(modules).__name__}"
            )
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Adds ``module`` before position ``index``."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        if not -len(self) <= index <= len(self):
            raise IndexError(f"Index out of range: {index}")
        modules = self._values()
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def pop(self, index: int) -> Module:
        """Takes out and returns the module at ``index``."""
        module = self._values()[self._position(index)]
        del self[index]
        return module


class Sequential(_Numbered):
    """Modules that are called one after another, each with the output of the one before.

    Args:
        args: the modules, named "0", "1", ...; or one ``OrderedDict`` of them by name.
    """

    @overload
    def __init__(self, *args: Module) -> None: ...

    @overload
    def __init__(self, arg: OrderedDict[str, Module], /) -> None: ...

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for number, module in enumerate(args):
                self.add_module(str(number), module)

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Module:
        """A module, or a ``Sequential`` of some of them under the names they have here."""
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(zip(self._modules, self._values(), strict=True))[index]))
        return self._values()[self._position(index)]

    def _modules_of(self, other: Any) -> list[Module]:
        if not isinstance(other, Sequential):
            raise ValueError(f"add operator supports only objects of Sequential class, but {type(other)} is given.")
        return list(other)

    def __add__(self, other: Any) -> Sequential:
        return Sequential(*self, *self._modules_of(other))

    def __iadd__(self, other: Any) -> Self:
        return self.extend(self._modules_of(other))

    def __mul__(self, other: int) -> Sequential:
        """The modules (not copies) ``other`` times in turn."""
        if not isinstance(other, int):
            raise TypeError(f"unsupported operand type(s) for *: {type(self)} and {type(other)}")
        if other <= 0:
            raise ValueError(f"Non-positive multiplication factor {other} for {type(self)}")
        return Sequential(*list(self) * other)

    def __rmul__(self, other: int) -> Sequential:
        return self * other

    def __imul__(self, other: int) -> Self:
        return self.extend(list(self * other)[len(self) :])

    def forward(self, input: Any) -> Any:
        """The input through all modules in turn."""
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]
        return input


class ModuleList(_Numbered):
    """A list of modules that the module around it knows, unlike those in a Python list. It cannot be called.

    Args:
        modules: what it holds at first.
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...

    def __getitem__(self, index: int | slice) -> Module:
        """A module, or a ``ModuleList`` of some of them, numbered anew."""
        if isinstance(index, slice):
            return type(self)(self._values()[index])
        return self._values()[self._position(index)]

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        """As any module's, with equal neighbours written once: ``(0-2): 3 x Linear(...)``."""
        runs: list[tuple[int, int, str]] = []  # first, last, text
        for number, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], number, text)
            else:
                runs.append((number, number, text))
        if not runs:
            return f"{type(self).__name__}()"
        lines = [
            _indented(f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}")
            for first, last, text in runs
        ]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _pairs(name: str, given: Any) -> list[tuple[Any, Any]]:
    """The keys and values of a mapping or of a sequence of pairs."""
    if isinstance(given, Mapping) or (isinstance(given, Module) and hasattr(given, "items")):
        return list(given.items())
    if not isinstance(given, Iterable) or isinstance(given, Tensor):
        raise TypeError(
            f"{name}.update should be called with an iterable of key/value pairs, but got {type(given).__name__}"
        )
    pairs = []
    for place, pair in enumerate(given):
        if not isinstance(pair, Iterable):
            raise TypeError(f"{name} update sequence element #{place} should be Iterable; is {type(pair).__name__}")
        entry = tuple(pair)
        if len(entry) != 2:
            raise ValueError(f"{name} update sequence element #{place} has length {len(entry)}; 2 is required")
        pairs.append(entry)
    return pairs


class ModuleDict(Module):
    """A dictionary of modules that the module around it knows, in the order in which they came. It cannot be called.

    Args:
        modules: what it holds at first, a mapping or a sequence of pairs.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        return cast(Module, self._modules[key])

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Takes everything out."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Takes out and returns the module called ``key``."""
        return cast(Module, self._modules.pop(key))

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Module]]:
        """The names and modules."""
        return cast(Iterable[tuple[str, Module]], self._modules.items())

    def values(self) -> Iterable[Module]:
        """The modules."""
        return cast(Iterable[Module], self._modules.values())

    def update(self, modules: Mapping[str, Module] | ModuleDict | Iterable[tuple[str, Module]]) -> None:
        """Adds modules from a mapping or a sequence of pairs, in the place of those that have their names."""
        for key, module in _pairs("ModuleDict", modules):
            self[key] = module

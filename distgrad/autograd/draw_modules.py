"""Which module an operation belongs to, as the names of the parameters that it uses tell, and modules as groups."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from .draw_graph import Vertex

_SEVERAL = 8  # modules around an operation; with more, none is taken for its own
Key = tuple[str, int]  # a group and its piece, or "" and a number of its own


def _common(first: str, second: str) -> str:
    """The dotted path that both begin with."""
    parts = []
    for a, b in zip(first.split("."), second.split("."), strict=False):
        if a != b:
            break
        parts.append(a)
    return ".".join(parts)


def _longest(firsts: Iterable[str], seconds: Iterable[str]) -> str:
    return max((_common(a, b) for a, b in itertools.product(firsts, seconds)), key=len, default="")


def _module_of(names: str) -> str:
    return names.split(", ")[0].rpartition(".")[0]


class Modules:
    """Which module each operation belongs to, as far as the parameters tell; "" for those that belong to none."""

    def __init__(self, vertices: Sequence[Vertex]) -> None:
        self.vertices = vertices
        self.users: list[list[int]] = [[] for _ in vertices]
        for number, vertex in enumerate(vertices):
            for source in dict.fromkeys(vertex.inputs):
                self.users[source].append(number)
        self.own = [self._own(vertex) for vertex in vertices]
        self.direct = {path for path in self.own if path}  # modules that have parameters of their own
        self.of = list(self.own)
        self._join()

    def _own(self, vertex: Vertex) -> str:
        """The module whose parameters an operation uses."""
        if vertex.kind != "operation":
            return ""
        sources = (self.vertices[source] for source in vertex.inputs)
        paths = {_module_of(source.name) for source in sources if source.parameter}
        paths.discard("")
        first = paths.pop() if paths else ""
        for path in paths:
            first = _common(first, path)
        return first

    def _join(self) -> None:
        """Gives operations without parameters to the module around them."""
        up = self._around(range(len(self.vertices)), lambda number: self.vertices[number].inputs)
        down = self._around(range(len(self.vertices) - 1, -1, -1), lambda number: self.users[number])
        closing: set[int] = set()
        for number, vertex in enumerate(self.vertices):
            if vertex.kind != "operation" or self.own[number]:
                continue
            self.of[number] = _longest(up[number], down[number])
            closed = self._closing(number)
            if closed:
                closing.add(number)
            elif len(vertex.inputs) == 1 and vertex.inputs[0] in closing and len(self.users[vertex.inputs[0]]) == 1:
                closed = self.of[vertex.inputs[0]]  # what directly follows, such as the activation of the block
            self.of[number] = max(self.of[number], closed, key=len)

    def _around(self, order: Iterable[int], neighbours: Callable[[int], Iterable[int]]) -> list[frozenset[str]]:
        """The nearest modules on one side of each vertex."""
        found: list[frozenset[str]] = [frozenset()] * len(self.vertices)
        for number in order:
            around: set[str] = set()
            for neighbour in neighbours(number):
                around.update([self.own[neighbour]] if self.own[neighbour] else found[neighbour])
            found[number] = frozenset(around if len(around) <= _SEVERAL else ())
        return found

    def _closing(self, number: int) -> str:
        """The module around which a second way leads that ends in this operation, as in a residual block."""
        inputs = [v for v in dict.fromkeys(self.vertices[number].inputs) if self.vertices[v].kind == "operation"]
        if len(inputs) < 2:
            return ""
        near = [{self.of[v], *(self.of[user] for user in self.users[v][:16] if user != number)} for v in inputs]
        best = ""
        for path in sorted(near[0]):
            for others in near[1:]:
                path = _longest([path], others)
            best = max(best, path, key=len)
        return best

    def depth(self) -> int:
        """How deep the deepest module lies."""
        return max((path.count(".") + 1 for path in self.direct), default=0)

    def groups(self, depth: int) -> list[str]:
        """What each vertex is folded into at ``depth``; "" for a vertex that stays alone."""
        return [self._group(path, depth) for path in self.of]

    def _group(self, path: str, depth: int) -> str:
        parts = path.split(".")
        if path and len(parts) >= depth:
            return ".".join(parts[:depth])
        return path if path in self.direct else ""


def instances(vertices: Sequence[Vertex], groups: list[str]) -> list[Key]:
    """The groups, split where one uses what another made of it, so that no arrows between groups go in a circle.

    A module that is applied again later would otherwise have to stand both above and below what lies between.
    """
    key = [(group, 0) if group else ("", -1 - number) for number, group in enumerate(groups)]
    component = _components(vertices, key)
    sizes = Counter(component[one] for one in set(key))
    # Within a component each step to another group begins a new age, so two pieces of one age have no arrow between.
    age = [0] * len(vertices)
    for number, vertex in enumerate(vertices):
        here = key[number]
        if sizes[component[here]] == 1:
            continue
        for source in vertex.inputs:
            there = key[source]
            if component[there] == component[here]:
                age[number] = max(age[number], age[source] + (there != here))
    return [(group, age[number]) if group else key[number] for number, group in enumerate(groups)]


def _components(vertices: Sequence[Vertex], key: list[Key]) -> dict[Key, int]:
    """The strongly connected component of each group (Kosaraju's two passes, without recursion)."""
    ahead: dict[Key, dict[Key, None]] = {one: {} for one in key}
    back: dict[Key, dict[Key, None]] = {one: {} for one in key}
    for number, vertex in enumerate(vertices):
        for source in vertex.inputs:
            if key[source] != key[number]:
                ahead[key[source]][key[number]] = None
                back[key[number]][key[source]] = None
    finished: list[Key] = []
    seen: set[Key] = set()
    for start in ahead:
        stack = [] if start in seen else [(start, iter(ahead[start]))]
        seen.add(start)
        while stack:
            one, rest = stack[-1]
            following = next((other for other in rest if other not in seen), None)
            if following is None:
                finished.append(one)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(ahead[following])))
    component: dict[Key, int] = {}
    for start in reversed(finished):
        waiting = [] if start in component else [start]
        label = len(component)
        while waiting:
            one = waiting.pop()
            if one not in component:
                component[one] = label
                waiting.extend(other for other in back[one] if other not in component)
    return component

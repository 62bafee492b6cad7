"""The boxes and arrows of a drawing: the vertices of a recorded graph, one by one or folded where they are many.

No loop here is recursive, and all are linear in the graph up to small sets.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .draw_graph import Shape, Vertex, read
from .draw_modules import Key, Modules, instances
from .tensor import Tensor

Kind = Literal["operation", "parameter", "constant", "module", "run", "rest", "output"]

FEW = 60  # boxes that an automatic folding aims at
_BEGINNINGS = 3  # operands without gradient that one box may begin with and that are drawn
MANY = 200  # boxes beyond which an automatic folding leaves out the beginning of the graph


@dataclass
class Box:
    """What is drawn as one: a vertex, or several."""

    kind: Kind
    title: str
    lines: list[str]
    names: list[str]  # the parameters in it, with shapes
    frozen: bool = False
    vertices: list[int] = field(default_factory=list)
    several: bool = False  # operations or parameters; drawn as a stack


@dataclass
class Picture:
    """Boxes (inputs before their users), arrows between them, and what stands beside the graph."""

    boxes: list[Box]
    edges: list[tuple[int, int]]
    frozen: list[Box]  # parameters that require no gradient and that no node has as an operand
    unreached: list[Box]  # parameters that require one and that the graph does not lead to
    notes: list[str]


def size_of(shape: Sequence[int]) -> str:
    """A shape as it is shown."""
    return "×".join(map(str, shape)) if len(shape) else "scalar"


def picture(outputs: Sequence[Tensor], params: Mapping[str, Tensor], fold: int | None, most: int | None) -> Picture:
    """Reads the graph and folds it.

    Args:
        outputs: tensors with a history.
        params: parameters by dotted name.
        fold: how many parts of the names say which module; 0 for no folding, None for what gives few boxes.
        most: boxes beyond which the beginning of the graph becomes one; None for no limit.
    """
    vertices = read(outputs, params)
    modules = Modules(vertices)
    notes: list[str] = []
    members = [[number] for number in range(len(vertices))]
    titles = [""] * len(vertices)
    depth = fold or 0
    if fold is None and len(vertices) > FEW:
        for depth in range(modules.depth(), 0, -1):
            members, titles = _folded(vertices, modules, depth)
            if len(members) <= FEW:
                break
    elif depth:
        members, titles = _folded(vertices, modules, depth)
    operations = sum(vertex.kind == "operation" for vertex in vertices)
    if any(titles):
        folded = sum(map(bool, titles))
        notes.append(f"{operations} operations, folded by module to depth {depth}: {folded} modules")
    if fold is None and len(members) > FEW:
        members, titles = _runs(vertices, members, titles)
        if most is None or most > MANY:
            most = MANY
    rest: list[int] = []
    if most is not None and len(members) > most:
        members, titles, rest = _cut(vertices, members, titles, most)
        notes.append(f"the graph has {operations} operations; only the last ones are shown one by one")
    leaving = _leaving(vertices, members)
    boxes = [_box(vertices, *what) for what in zip(members, titles, leaving, strict=True)]
    if rest:
        boxes.insert(0, _rest(vertices, rest))
    frozen, unreached = _beside(vertices, params, depth)
    return Picture(boxes, _edges(vertices, boxes), frozen, unreached, notes)


Members = list[list[int]]


def _folded(vertices: Sequence[Vertex], modules: Modules, depth: int) -> tuple[Members, list[str]]:
    """Vertices by box at ``depth``, and what the boxes of modules are called."""
    keys = instances(vertices, modules.groups(depth))
    beginnings: dict[Key, list[int]] = {}
    for number, vertex in enumerate(vertices):
        # A parameter goes into the box of its only user. So does another operand without gradient, unless it is what
        # the box starts from.
        if vertex.kind in ("parameter", "constant"):
            where = {keys[user] for user in modules.users[number]}
            inputs = [vertices[source].kind for user in modules.users[number] for source in vertices[user].inputs]
            if len(where) == 1 and (key := where.pop())[0]:
                if vertex.parameter or "operation" in inputs:
                    keys[number] = key
                else:
                    beginnings.setdefault(key, []).append(number)
    for key, numbers in beginnings.items():
        if len(numbers) > _BEGINNINGS:  # such as the inputs of a recurrence
            for number in numbers:
                keys[number] = key
    found: dict[Key, list[int]] = {}
    for number, key in enumerate(keys):
        found.setdefault(key, []).append(number)
    members = _in_order(vertices, list(found.values()))
    pieces = Counter(group for group, _ in found if group)
    seen: Counter[str] = Counter()
    titles = []
    for group in members:
        name = keys[group[0]][0]
        seen[name] += 1
        titles.append(f"{name} ({seen[name]} of {pieces[name]})" if pieces[name] > 1 else name)
    return members, titles


def _in_order(vertices: Sequence[Vertex], members: Members) -> Members:
    """Boxes in the order of the computation: inputs before users."""
    box_of = {vertex: number for number, group in enumerate(members) for vertex in group}
    sources = [
        {box_of[source] for v in group for source in vertices[v].inputs} - {n} for n, group in enumerate(members)
    ]
    users: list[list[int]] = [[] for _ in members]
    for number, before in enumerate(sources):
        for source in before:
            users[source].append(number)
    missing = [len(before) for before in sources]
    ready = [(members[number][0], number) for number, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        number = heapq.heappop(ready)[1]
        order.append(members[number])
        for user in users[number]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, (members[user][0], user))
    return order


def _runs(vertices: Sequence[Vertex], members: Members, titles: list[str]) -> tuple[Members, list[str]]:
    """Operations outside of modules that follow one another without a branch become one box."""
    box_of = {vertex: number for number, group in enumerate(members) for vertex in group}

    def is_leaf(box: int) -> bool:
        return all(vertices[v].kind in ("parameter", "constant") for v in members[box])

    before: list[set[int]] = [
        {box_of[source] for v in group for source in vertices[v].inputs} - {number}
        for number, group in enumerate(members)
    ]
    before = [{source for source in sources if not is_leaf(source)} for sources in before]
    after: list[set[int]] = [set() for _ in members]
    for number, sources in enumerate(before):
        for source in sources:
            after[source].add(number)

    def plain(box: int) -> bool:
        return not titles[box] and all(vertices[v].kind == "operation" for v in members[box])

    merged: Members = []
    names: list[str] = []
    run_of: dict[int, int] = {}
    for number, group in enumerate(members):
        source = next(iter(before[number])) if len(before[number]) == 1 else -1
        if source >= 0 and plain(number) and plain(source) and len(after[source]) == 1:
            run_of[number] = run_of[source]
            merged[run_of[source]].extend(group)
        else:
            run_of[number] = len(merged)
            merged.append(list(group))
            names.append(titles[number])
    ordered = _in_order(vertices, merged)
    title_of = {group[0]: name for group, name in zip(merged, names, strict=True)}
    return ordered, [title_of[group[0]] for group in ordered]


def _cut(
    vertices: Sequence[Vertex], members: Members, titles: list[str], most: int
) -> tuple[Members, list[str], list[int]]:
    """The last boxes, and the vertices of all others, none of which uses a box that is kept."""
    box_of = {vertex: number for number, group in enumerate(members) for vertex in group}
    before = [{box_of[source] for v in group for source in vertices[v].inputs} - {n} for n, group in enumerate(members)]
    missing = Counter(source for sources in before for source in sources)
    queue = [number for number in range(len(members)) if not missing[number]]
    for number in queue:  # grows: from the outputs, a box once all that use it have come
        if len(queue) >= most:
            break
        for source in sorted(before[number], reverse=True):
            missing[source] -= 1
            if not missing[source]:
                queue.append(source)
    kept = set(queue[:most])
    rest = [vertex for number, group in enumerate(members) if number not in kept for vertex in group]
    numbers = sorted(kept)
    return [members[number] for number in numbers], [titles[number] for number in numbers], rest


def _edges(vertices: Sequence[Vertex], boxes: Sequence[Box]) -> list[tuple[int, int]]:
    """Arrows between boxes; one for each edge of the graph between single vertices, otherwise one a pair of boxes."""
    box_of = {vertex: number for number, box in enumerate(boxes) for vertex in box.vertices}
    edges: list[tuple[int, int]] = []
    seen: set[tuple[int, int]] = set()
    for target, box in enumerate(boxes):
        for vertex in box.vertices:
            for source in vertices[vertex].inputs:
                edge = (box_of[source], target)
                single = len(box.vertices) == 1 and len(boxes[edge[0]].vertices) == 1
                if edge[0] != target and (single or edge not in seen):
                    seen.add(edge)
                    edges.append(edge)
    return edges


# ------------------------------------------------------------------------------------------------------ what boxes say


def _box(vertices: Sequence[Vertex], group: list[int], title: str, leaving: Shape | None) -> Box:
    """What stands in a box; ``leaving`` is the shape of what others use of it, where that is one."""
    if len(group) == 1 and not title:
        vertex = vertices[group[0]]
        frozen = vertex.kind == "constant"
        line = ", ".join(map(size_of, vertex.shapes)) if vertex.shapes is not None else ""
        if frozen:
            line += ", frozen" if vertex.parameter else f" {vertex.dtype}, no gradient"
        names = _described(vertices, group)
        return Box(vertex.kind, vertex.name, [line] if line else [], names, frozen, list(group))
    parameters = [vertices[v] for v in group if vertices[v].parameter]
    trained = [vertex for vertex in parameters if vertex.kind == "parameter"]
    lines = [_operations(vertices, group)]
    if leaving is not None:
        lines.append(f"→ {size_of(leaving)}")
    if parameters:
        values = sum(_values(vertex.shapes) for vertex in parameters)
        line = _counted(len(parameters), values)
        if not trained:
            line += ", frozen"
        elif len(trained) < len(parameters):
            line += f", {len(parameters) - len(trained)} frozen"
        lines.append(line)
    operations = sum(vertices[v].kind == "operation" for v in group)
    return Box(
        "module" if title else "run",
        title or f"{operations:,} operations",
        lines,
        _described(vertices, group),
        bool(parameters) and not trained,
        list(group),
        operations > 1,
    )


def _leaving(vertices: Sequence[Vertex], members: Members) -> list[Shape | None]:
    """Of each box the shape of what other boxes use, where all of that has one shape and it is known."""
    box_of = {vertex: number for number, group in enumerate(members) for vertex in group}
    shapes: list[set[Shape | None]] = [set() for _ in members]
    for number, vertex in enumerate(vertices):
        for source in vertex.inputs:
            box = box_of.get(source)
            if box is not None and box != box_of.get(number):
                known = vertices[source].shapes or ()
                shapes[box].update(known if len(known) == 1 else [None])
    return [one.copy().pop() if len(one) == 1 else None for one in shapes]


def _rest(vertices: Sequence[Vertex], rest: list[int]) -> Box:
    operations = sum(vertices[v].kind == "operation" for v in rest)
    return Box(
        "rest", f"{operations:,} earlier operations", ["not shown"], _described(vertices, rest), False, rest, True
    )


def _operations(vertices: Sequence[Vertex], group: Iterable[int]) -> str:
    """The operations of a box by name, the most frequent ones first."""
    kinds = Counter(vertices[v].name for v in group if vertices[v].kind == "operation")
    text = ""
    for name, count in kinds.most_common():
        following = name if count == 1 else f"{name} ×{count:,}"
        if text and len(text) + len(following) > 36:
            return f"{text}, …"
        text += f", {following}" if text else following
    return text


def _counted(parameters: int, values: int) -> str:
    return f"{parameters} parameter{'s' * (parameters != 1)}, {values:,} values"


def _values(shapes: Sequence[Shape] | None) -> int:
    total = 0
    for shape in shapes or ():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def _described(vertices: Sequence[Vertex], group: Iterable[int]) -> list[str]:
    """The named parameters of a box, with shapes."""
    parameters = (vertices[v] for v in group if vertices[v].parameter)
    return [
        f"{vertex.name} {', '.join(map(size_of, vertex.shapes or ()))}" + ", frozen" * (vertex.kind == "constant")
        for vertex in parameters
    ]


def _beside(vertices: Sequence[Vertex], params: Mapping[str, Tensor], depth: int) -> tuple[list[Box], list[Box]]:
    """Boxes for those parameters that the graph does not have: frozen ones, and ones that it does not reach."""
    present = {name for vertex in vertices if vertex.parameter for name in vertex.name.split(", ")}
    found: tuple[list[Box], list[Box]] = ([], [])
    for frozen in (True, False):
        absent = [(name, t) for name, t in params.items() if name not in present and t.requires_grad != frozen]
        level = depth or (1 if len(absent) > 12 else 0)
        groups: dict[str, list[tuple[str, Tensor]]] = {}
        for name, tensor in absent:
            path = name.split(".")[:-1][:level]
            groups.setdefault(".".join(path) or name, []).append((name, tensor))
        for title, entries in groups.items():
            values = sum(tensor.numel() for _, tensor in entries)
            single = len(entries) == 1 and entries[0][0] == title
            line = size_of(entries[0][1].shape) if single else _counted(len(entries), values)
            names = [f"{name} {size_of(tensor.shape)}{', frozen' * frozen}" for name, tensor in entries]
            kind: Kind = "parameter" if single else "module"
            found[not frozen].append(Box(kind, title, [line], names, frozen, several=len(entries) > 1))
    return found

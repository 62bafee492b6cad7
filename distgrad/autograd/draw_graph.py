"""The recorded graph as a list of vertices: what a drawing shows before anything is folded."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .engine import AccumulateGrad, Node, edge_of
from .recorded import OperationNode
from .tensor import Tensor

Shape = tuple[int, ...]


@dataclass
class Vertex:
    """One step of the recorded graph, or what enters or leaves it."""

    kind: Literal["operation", "parameter", "constant", "output"]
    name: str
    shapes: tuple[Shape, ...] | None = None
    inputs: list[int] = field(default_factory=list)  # vertices, one an edge
    parameter: bool = False  # a leaf or constant that ``params`` names
    dtype: str = ""  # of a constant
    sequence: int = -1  # when the operation was recorded


def named(params: Any) -> dict[str, Tensor]:
    """Parameters by name, from a mapping, pairs, a module, or None.

    Raises:
        TypeError: something else.
    """
    if params is None:
        return {}
    if hasattr(params, "named_parameters"):
        params = params.named_parameters()
    pairs = list(params.items() if isinstance(params, Mapping) else params)
    for pair in pairs:
        if not (
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Tensor)
        ):
            raise TypeError(
                f"draw: params takes names and tensors, such as module.named_parameters(), but one of them is {pair!r}"
            )
    return dict(pairs)


def read(outputs: Sequence[Tensor], params: Mapping[str, Tensor]) -> list[Vertex]:
    """The vertices that ``outputs`` were computed from and themselves, inputs before their users."""
    names: dict[int, list[str]] = {}
    for name, tensor in params.items():
        names.setdefault(id(tensor), []).append(name)
    vertices: list[Vertex] = []
    index: dict[Node, int] = {}
    constants: dict[int, tuple[int, Tensor]] = {}  # the tensor as well, so that its id stays its own

    def vertex_of(node: Node) -> int:
        if node not in index:
            index[node] = len(vertices)
            if isinstance(node, AccumulateGrad):
                known = names.get(id(node.variable), [])
                shape = tuple(node.variable.shape)
                vertices.append(Vertex("parameter", ", ".join(known) or "leaf", (shape,), parameter=bool(known)))
            else:
                title = re.sub(r"Backward\d*$", "", node.name())
                shapes = getattr(node, "shapes", None)
                vertices.append(Vertex("operation", title, shapes, sequence=node.sequence))
                stack.append(node)
        return index[node]

    def constant(tensor: Tensor) -> int:
        known = names.get(id(tensor)) or names.get(id(tensor._base)) or []
        key = id(tensor if id(tensor) in names or tensor._base is None else tensor._base)
        if key not in constants:
            constants[key] = (len(vertices), tensor)
            name = ", ".join(known) or "constant"
            shape = tuple(tensor.shape)
            vertices.append(Vertex("constant", name, (shape,), parameter=bool(known), dtype=str(tensor.dtype)))
        return constants[key][0]

    stack: list[Node] = []
    ends: list[tuple[int, Tensor]] = []
    for output in outputs:
        node, number = edge_of(output)
        vertex = vertex_of(node)
        ends.append((vertex, output))
        if vertices[vertex].kind == "operation" and vertices[vertex].shapes is None and node.outputs == 1:
            vertices[vertex].shapes = (tuple(output.shape),)
        while stack:
            node = stack.pop()
            without = _constants(node)
            inputs = []
            for position, edge in enumerate(node.edges):
                if edge is not None:
                    inputs.append(vertex_of(edge[0]))
                elif position in without:
                    inputs.append(constant(without[position]))
            vertices[index[node]].inputs = inputs
    for number, (vertex, output) in enumerate(ends):
        title = "output" if len(ends) == 1 else f"output {number}"
        vertices.append(Vertex("output", title, (tuple(output.shape),), [vertex], sequence=1 << 62))
    return _sorted(vertices)


def _constants(node: Node) -> dict[int, Tensor]:
    """The operands of ``node`` that need no gradient, by position, as far as it has saved them; no single numbers."""
    if not isinstance(node, OperationNode) or node._saved is None:
        return {}
    plan = node._plan
    kept = zip(plan.fetch[: plan.tensors], node._saved, strict=False)
    operands = {position: value for (_, position), value in kept if isinstance(value, Tensor)}
    return {position: x for position, x in operands.items() if node.edges[position] is None and x.numel() > 1}


def _sorted(vertices: list[Vertex]) -> list[Vertex]:
    """Inputs before users, otherwise as they were computed; what has no inputs comes just before its first user."""
    users: list[list[int]] = [[] for _ in vertices]
    missing = [0] * len(vertices)
    for number, vertex in enumerate(vertices):
        for source in set(vertex.inputs):
            users[source].append(number)
            missing[number] += bool(vertices[source].inputs)
    ready = [(v.sequence, number) for number, v in enumerate(vertices) if v.inputs and not missing[number]]
    heapq.heapify(ready)
    new: dict[int, int] = {}
    while ready:
        _, number = heapq.heappop(ready)
        for source in vertices[number].inputs:
            new.setdefault(source, len(new))
        new[number] = len(new)
        for user in users[number]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, (vertices[user].sequence, user))
    for vertex in vertices:
        vertex.inputs = [new[source] for source in vertex.inputs]
    return [vertices[old] for old in new]

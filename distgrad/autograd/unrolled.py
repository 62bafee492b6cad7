"""Recording and its backward without loops: functions written for one kind of call of one primitive.

``Primitive._record`` and ``OperationNode.apply`` serve any call, in loops over operands, over what is saved and over
VJPs. For small arrays these loops cost more than the arithmetic. So for each kind of call that comes (which operands
are tensors, which of these require a gradient) they are written out once, as source, and compiled. Of ``x * y``, both
tensors that require a gradient, this is::

    def record(out, keywords, extra, operands, state):
        x0, x1 = operands
        node = new(kind)
        node.edges = (
            (x0._node, x0._output_nr) if x0._node is not None else leaf_edge(x0),
            (x1._node, x1._output_nr) if x1._node is not None else leaf_edge(x1),
        )
        node._saved = [x0, x1, x0._data.shape, x1._data.shape]
        if (x0._counter is not None and x0._counter[0]) or (x1._counter is not None and x1._counter[0]):
            node._versions = versions_of(node._saved, 2)
        else:
            node._versions = None
        node.shape = out._data.shape
        node.outputs = 1
        node.hooks = node._metadata = None
        node.sequence = next(sequence)
        if anomaly.enabled or state.saved_hooks:
            node.observe()
        return node

    def apply(node, gradient, create_graph):
        saved = node._saved
        if create_graph or gradient is None or type(saved) is not list:
            return general(node, gradient, create_graph)
        v0, v1, v2, v3 = saved
        if (v0._counter is not None and v0._counter[0]) or (v1._counter is not None and v1._counter[0]):
            node.check_versions()
        try:
            g0 = primitive.vjps['input'](gradient, v1._data)
            if g0.shape != v2:
                g0 = primitive.broadcast(g0, v2)
        except Exception as error:
            note(node, error, 'input')
            raise
        if type(g0) is not ndarray and g0 is not None:
            g0 = asarray(g0)
        ...
        return (g0, g1)

The general form stays the reference, and does what is rare: graphs that are freed, packed or differentiated again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any

import numpy as np

from .anomaly import anomaly
from .engine import _sequence, leaf_edge
from .recorded import Fetch, OperationNode, Plan, versions_of

if TYPE_CHECKING:
    from .primitive import Primitive

# What an operand of a call may be; a kind of call has two bits for each.
TENSOR, REQUIRES_GRAD, OTHER = 0, 1, 2


def recorder(primitive: Primitive, plan: Plan, operands: Sequence[int]) -> Callable[..., OperationNode]:
    """The function ``record`` for calls of ``primitive`` whose operands are of these kinds.

    It takes the result, the call's keywords, the forward's extra results, the operands and the thread's state, and
    gives the node, which is of a class of its own with the function ``apply``.
    """
    body = {"__slots__": (), "__module__": __name__, "primitive": primitive, "_plan": plan}
    kind: Any = type(primitive.node_name, (OperationNode,), body)
    names: dict[str, Any] = {
        "kind": kind,
        "new": object.__new__,
        "leaf_edge": leaf_edge,
        "versions_of": versions_of,
        "sequence": _sequence,
        "anomaly": anomaly,
        "defaults": {name: primitive.default_of(name) for what, name in plan.fetch if what == Fetch.KEYWORD},
        "shape_of": np.shape,
        "asarray": np.asarray,
        "ndarray": np.ndarray,
        "general": OperationNode.apply,
        "primitive": primitive,
        "note": OperationNode.note,
    }
    source = _record(plan, operands, primitive.decomposition is not None) + _apply(plan, operands)
    exec(_compiled(source), names)
    kind.apply = names["apply"]
    if plan.frees:
        kind.release = _release
    record: Callable[..., OperationNode] = names["record"]
    return record


def _release(node: OperationNode) -> None:
    """``OperationNode.release`` of a plan that has something to free."""
    node._saved = None


@functools.lru_cache(maxsize=512)
def _compiled(source: str) -> CodeType:
    """Many primitives save the same things, so they share what is compiled."""
    # the name tells anomaly mode that these lines are the framework's own
    return compile(source, f"{__file__} (written)", "exec")


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _record(plan: Plan, operands: Sequence[int], decomposed: bool) -> str:
    """The source of ``record``."""
    tensors = [f"x{at}" for what, at in plan.fetch if what == Fetch.OPERAND and operands[at] != OTHER]
    lines = [f"{_tuple([f'x{i}' for i in range(len(operands))])} = operands", "node = new(kind)", "node.edges = ("]
    for i, what in enumerate(operands):
        edge = f"(x{i}._node, x{i}._output_nr) if x{i}._node is not None else leaf_edge(x{i})"
        lines.append(f"    {edge if what == REQUIRES_GRAD else None},")
    lines.append(")")
    if any(what == Fetch.OUTPUT for what, _ in plan.fetch):
        lines += ["counter = out._counter", "if counter is None:", "    counter = out._counter = [0]"]
    lines += [f"node._saved = [{', '.join(_saved(what, key, operands) for what, key in plan.fetch)}]"]
    if tensors:
        lines += [
            f"if {_any_changed(tensors)}:",
            f"    node._versions = versions_of(node._saved, {plan.tensors})",
            "else:",
        ]
    lines.append("    node._versions = None" if tensors else "node._versions = None")
    if decomposed:
        lines.append("node._keywords = keywords")
    lines += [
        "node.shape = out._data.shape",
        "node.outputs = 1",
        "node.hooks = node._metadata = None",
        "node.sequence = next(sequence)",
        "if anomaly.enabled or state.saved_hooks:",
        "    node.observe()",
        "return node",
    ]
    return _function("record(out, keywords, extra, operands, state)", lines)


def _saved(what: Fetch, key: Any, operands: Sequence[int]) -> str:
    """The expression for one thing that is saved."""
    if what == Fetch.OPERAND:
        return f"x{key}"
    if what == Fetch.SHAPE:
        return f"shape_of(x{key})" if operands[key] == OTHER else f"x{key}._data.shape"
    if what == Fetch.DTYPE:
        return f"asarray(x{key}).dtype" if operands[key] == OTHER else f"x{key}._data.dtype"
    if what == Fetch.RESIDUAL:
        return f"extra[{key}]"
    if what == Fetch.KEYWORD:
        return f"keywords[{key!r}] if {key!r} in keywords else defaults[{key!r}]()"
    return "((out._data, counter, counter[0]),)"  # an array: a Tensor would keep its own node alive


def _apply(plan: Plan, operands: Sequence[int]) -> str:
    """The source of ``apply``."""
    lines = [
        "saved = node._saved",
        "if create_graph or gradient is None or type(saved) is not list:",
        "    return general(node, gradient, create_graph)",
    ]
    if plan.fetch:
        lines.append(f"{_tuple([f'v{i}' for i in range(len(plan.fetch))])} = saved")
    values, tensors = [], []
    for i, (what, key) in enumerate(plan.fetch):
        if what == Fetch.OPERAND and operands[key] != OTHER:
            values.append(f"v{i}._data")
            tensors.append(f"v{i}")
        elif what == Fetch.OUTPUT:
            values.append(f"a{i}")
            lines += [
                f"((a{i}, counter, version),) = v{i}",
                "if counter[0] != version:",
                "    return general(node, gradient, create_graph)  # which refuses",
            ]
        else:
            values.append(f"v{i}")
    if tensors:
        lines += [f"if {_any_changed(tensors)}:", "    node.check_versions()"]
    for number, ((position, operand, _), arguments) in enumerate(zip(plan.vjps, plan.arguments, strict=True)):
        given = ", ".join(["gradient", *(values[i] for i in arguments)])
        lines += [
            "try:",
            f"    g{position} = primitive.vjps[{operand!r}]({given})",
            *(
                (
                    f"    if g{position}.shape != v{plan.shapes[number]}:",
                    f"        g{position} = primitive.broadcast(g{position}, v{plan.shapes[number]})",
                )
                if plan.shapes
                else ()
            ),
            "except Exception as error:",
            f"    note(node, error, {operand!r})",
            "    raise",
            f"if type(g{position}) is not ndarray and g{position} is not None:",
            f"    g{position} = asarray(g{position})",
        ]
    requested = {position for position, _, _ in plan.vjps}
    lines.append(f"return {_tuple([f'g{i}' if i in requested else 'None' for i in range(len(operands))])}")
    return _function("apply(node, gradient, create_graph)", lines)


def _any_changed(tensors: Sequence[str]) -> str:
    """The expression that is true where one of them has ever been changed in place, or is an inference tensor."""
    return " or ".join(f"({x}._counter is not None and {x}._counter[0])" for x in tensors)


def _function(signature: str, lines: Sequence[str]) -> str:
    return "\n    ".join([f"def {signature}:", *lines]) + "\n"

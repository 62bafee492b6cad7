"""Recording and its backward without loops: functions written for one kind of call of one primitive.

``Primitive._record`` and ``OperationNode.apply`` serve any call, in loops over operands, over what is saved and over
VJPs. For small arrays these loops cost more than the arithmetic. So for each kind of call that comes (which operands
are tensors, which of these require a gradient) they are written out once, as source, and compiled. Of ``x * y``, both
tensors that require a gradient, this is::

    def record(out, keywords, extra, state, x0, x1):
        node = new(kind)
        node.next = (
            n if (n := x0._node) is not None else node_of_leaf(x0),
            n if (n := x1._node) is not None else node_of_leaf(x1),
        )
        node.numbers = (x0._output_nr, x1._output_nr) if x0._output_nr or x1._output_nr else None
        node.shape = shape = out._data.shape
        node._saved = [
            x0,
            x1,
            s if (s := x0._data.shape) != shape else None,
            s if (s := x1._data.shape) != shape else None,
        ]
        if ((c := x0._counter) is not None and c[0]) or ((c := x1._counter) is not None and c[0]):
            node._versions = versions_of(node._saved, 2)
        else:
            node._versions = None
        node.hooks = None
        node.sequence = next(sequence)
        if anomaly.enabled or state.saved_hooks:
            node.observe()
        return node

    def apply(node, gradient, create_graph):
        saved = node._saved
        if create_graph or gradient is None or type(saved) is not list:
            return general(node, gradient, create_graph)
        v0, v1, v2, v3 = saved
        if ((c := v0._counter) is not None and c[0]) or ((c := v1._counter) is not None and c[0]):
            node.check_versions()
        d0 = v0._data
        d1 = v1._data
        if not gradient.ndim:
            gradient, d0, d1 = gradient[()], d0[()], d1[()]
        try:
            g0 = vjps['input'](gradient, d1)
            if v2 is not None:
                g0 = broadcast(g0, v2)
        except Exception as error:
            note(node, error, 'input')
            raise
        if type(g0) is not ndarray and g0 is not None:
            g0 = asarray(g0)
        ...
        return (g0, g1)

The general form stays the reference, and does what is rare: graphs that are freed, packed or differentiated again.
NumPy's scalars take a tenth of the time of arrays without dimensions: a primitive says whether its VJPs take them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from .anomaly import anomaly
from .engine import _sequence, node_of_leaf
from .recorded import Fetch, OperationNode, Plan, versions_of

if TYPE_CHECKING:
    from .primitive import Primitive

# What an operand of a call may be; a kind of call has two bits for each.
TENSOR, REQUIRES_GRAD, OTHER = 0, 1, 2


def recorder(primitive: Primitive, plan: Plan, operands: Sequence[int]) -> Callable[..., OperationNode]:
    """The function ``record`` for calls of ``primitive`` whose operands are of these kinds.

    It takes the result, the call's keywords, the forward's extra results, the thread's state and the operands, and
    gives the node, which is of a class of its own with the function ``apply``.
    """
    body = {"__slots__": (), "__module__": __name__, "primitive": primitive, "_plan": plan, "outputs": 1}
    kind: Any = type(primitive.node_name, (OperationNode,), body)
    names: dict[str, Any] = {
        "kind": kind,
        "new": object.__new__,
        "node_of_leaf": node_of_leaf,
        "versions_of": versions_of,
        "sequence": _sequence,
        "anomaly": anomaly,
        "defaults": {name: primitive.default_of(name) for what, name in plan.fetch if what == Fetch.KEYWORD},
        "shape_of": np.shape,
        "asarray": np.asarray,
        "ndarray": np.ndarray,
        "general": OperationNode.apply,
        "vjps": primitive.vjps,
        "broadcast": primitive.broadcast,
        "note": OperationNode.note,
    }
    source = _record(plan, operands, primitive.decomposition is not None)
    source += _apply(plan, operands, primitive.scalars)
    exec(_compiled(source), names)
    # Each with a code object of its own: the interpreter adapts one to the globals and types that it meets.
    record, kind.apply = (FunctionType(names[name].__code__.replace(), names, name) for name in ("record", "apply"))
    if plan.frees:
        kind.release = _release
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
    wanted = [what == REQUIRES_GRAD for what in operands]
    target = "n if (n := x{0}._node) is not None else node_of_leaf(x{0})"
    number = "x{0}._output_nr"
    targets = [target.format(i) if want else "None" for i, want in enumerate(wanted)]
    numbers = [number.format(i) if want else "0" for i, want in enumerate(wanted)]
    several = " or ".join(number.format(i) for i, want in enumerate(wanted) if want)
    # a shape that only serves to undo broadcasting
    spare = set(plan.shapes).difference(*plan.arguments)
    saved = [
        f"s if (s := {_saved(what, key, operands)}) != shape else None" if i in spare else _saved(what, key, operands)
        for i, (what, key) in enumerate(plan.fetch)
    ]
    lines = [
        "node = new(kind)",
        f"node.next = {_tuple(targets)}",
        f"node.numbers = {_tuple(numbers)} if {several} else None",
        "node.shape = shape = out._data.shape",
        f"node._saved = [{', '.join(saved)}]",
    ]
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
        "node.hooks = None",
        "node.sequence = next(sequence)",
        "if anomaly.enabled or state.saved_hooks:",
        "    node.observe()",
        "return node",
    ]
    return _function(
        f"record({', '.join(['out, keywords, extra, state', *[f'x{i}' for i in range(len(operands))]])})", lines
    )


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
    # An array: a Tensor would keep its own node alive. See ``OperationNode.counted``.
    return "out._data if out._counter is None else ((out._data, out._counter, out._counter[0]),)"


def _apply(plan: Plan, operands: Sequence[int], scalars: bool) -> str:
    """The source of ``apply``; ``scalars``: the VJPs take NumPy's scalars in the place of 0-d arrays."""
    lines = [
        "saved = node._saved",
        "if create_graph or gradient is None or type(saved) is not list:",
        "    return general(node, gradient, create_graph)",
    ]
    if plan.fetch:
        lines.append(f"{_tuple([f'v{i}' for i in range(len(plan.fetch))])} = saved")
    values, tensors, arrays = [], [], []
    for i, (what, key) in enumerate(plan.fetch):
        if what == Fetch.OPERAND and operands[key] != OTHER:
            values.append(f"v{i}._data")
            tensors.append(f"v{i}")
        else:
            values.append(f"v{i}")
        if what == Fetch.OUTPUT:
            lines += [
                f"if type(v{i}) is tuple:",
                "    return general(node, gradient, create_graph)  # it has a counter",
            ]
        if what == Fetch.OUTPUT or values[i] != f"v{i}":
            arrays.append(i)
    if tensors:
        lines += [f"if {_any_changed(tensors)}:", "    node.check_versions()"]
    if scalars:
        lines += [f"d{i} = {values[i]}" for i in arrays]
        values = [f"d{i}" if i in arrays else value for i, value in enumerate(values)]
        taken = ["gradient", *(f"d{i}" for i in arrays)]
        lines += ["if not gradient.ndim:", f"    {', '.join(taken)} = {', '.join(f'{name}[()]' for name in taken)}"]
    for number, ((position, operand, _), arguments) in enumerate(zip(plan.vjps, plan.arguments, strict=True)):
        given = ", ".join(["gradient", *(values[i] for i in arguments)])
        lines += [
            "try:",
            f"    g{position} = vjps[{operand!r}]({given})",
            *(
                (
                    f"    if v{plan.shapes[number]} is not None:",
                    f"        g{position} = broadcast(g{position}, v{plan.shapes[number]})",
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
    return " or ".join(f"((c := {x}._counter) is not None and c[0])" for x in tensors)


def _function(signature: str, lines: Sequence[str]) -> str:
    return "\n    ".join([f"def {signature}:", *lines]) + "\n"

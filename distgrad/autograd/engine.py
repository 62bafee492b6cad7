"""The graph and its traversal. No operation is named here: a node is anything with ``edges`` and ``apply``.

``run_backward`` is two loops. The first collects the nodes that can be reached and counts, for every leaf, how many
gradients will arrive there; the second applies the nodes, the one recorded last first, and each leaf when its count is
down to zero. A node is recorded after those that made its inputs, so its gradient is final before it is used, and a
leaf's gradient is handed on at the earliest moment. Both loops are iterative: depth costs no recursion.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from .anomaly import anomaly
from .grad_mode import mode
from .tensor import Handle, Hook, Tensor, plain

# A gradient in flight: a plain array, or a Tensor while the backward pass is itself being recorded.
Gradient = Any
NodeHook = Callable[[Sequence[Any], Sequence[Any]], "Sequence[Any] | None"]
NodePreHook = Callable[[Sequence[Any]], "Sequence[Any] | None"]

_sequence = itertools.count()
_by_sequence = attrgetter("sequence")
_LEAF = 1 << 62
_FIRST = itertools.repeat(0)
_ndarray = np.ndarray


class _Hooks:
    """What few nodes have, hooks and notes: made when the first one comes."""

    __slots__ = ("after", "before", "metadata", "retain", "tensor")

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.tensor: dict[int, dict[int, Hook]] = {}  # by output
        self.retain: dict[int, Callable[[Tensor], None]] = {}  # by output
        self.before: dict[int, NodePreHook] = {}
        self.after: dict[int, NodeHook] = {}


class Node:
    """One recorded step. ``edges[i]`` is where the gradient of input ``i`` goes: a node and which of its outputs.

    They are kept apart, as ``next`` and ``numbers``: nearly all nodes have one output, and then nothing is counted.
    """

    __slots__ = ("__weakref__", "hooks", "next", "numbers", "outputs", "sequence")

    next: tuple[Node | None, ...]  # for each input; None where no gradient is wanted
    numbers: tuple[int, ...] | None  # which output of each of them; None where it is always the first
    outputs: int
    sequence: int  # after those of the edges: the backward pass goes by it, as in PyTorch
    hooks: _Hooks | None

    def __init__(self, edges: Sequence[tuple[Node, int] | None], outputs: int = 1) -> None:
        self.next = tuple([None if edge is None else edge[0] for edge in edges])
        numbers = tuple([0 if edge is None else edge[1] for edge in edges])
        self.numbers = numbers if any(numbers) else None
        self.outputs = outputs
        self.sequence = next(_sequence)
        self.hooks = None
        if anomaly.enabled:
            self.metadata.update(anomaly.note())

    def name(self) -> str:
        """What ``repr`` of a tensor shows as its ``grad_fn``."""
        return type(self).__name__

    @property
    def metadata(self) -> dict[str, Any]:
        """A dictionary for whatever somebody wants to note of this node; anomaly mode notes where it was recorded."""
        return self._own_hooks().metadata

    @property
    def edges(self) -> tuple[tuple[Node, int] | None, ...]:
        """Where the gradients of the inputs go, None for an input that needs none."""
        numbers = self.numbers or (0,) * len(self.next)
        pairs = zip(self.next, numbers, strict=True)
        return tuple([None if node is None else (node, number) for node, number in pairs])

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """Where the gradients of the inputs go, ``(None, 0)`` for an input that needs none."""
        return tuple((None, 0) if edge is None else edge for edge in self.edges)

    def _own_hooks(self) -> _Hooks:
        if self.hooks is None:
            self.hooks = _Hooks()
        return self.hooks

    def register_hook(self, hook: NodeHook) -> Handle:
        """Calls ``hook(grad_inputs, grad_outputs)`` after this node; a tuple it returns replaces ``grad_inputs``."""
        return Handle.add(self._own_hooks().after, hook)

    def register_prehook(self, hook: NodePreHook) -> Handle:
        """Calls ``hook(grad_outputs)`` before this node; a tuple it returns replaces ``grad_outputs``."""
        return Handle.add(self._own_hooks().before, hook)

    def tensor_hooks_of(self, output: int) -> dict[int, Hook]:
        """The hooks of the tensor that is output ``output``, to be added to."""
        return self._own_hooks().tensor.setdefault(output, {})

    def retain(self, output: int, keep: Callable[[Tensor], None] | None) -> None:
        """Calls ``keep`` with the final gradient of output ``output``, after its hooks; None takes it back."""
        if keep is None:
            self._own_hooks().retain.pop(output, None)
        else:
            self._own_hooks().retain[output] = keep

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        """From the gradient of the output, those of the inputs, one an edge.

        ``gradient`` is a tuple where there are several outputs; None stands for a gradient that has not arrived.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Drops what was saved for the backward pass."""

    def counted(self, output: Tensor) -> None:
        """``output``, a result of this node, counts the changes of its memory from here on."""

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class AccumulateGrad(Node):
    """The end of the graph at a leaf: adds what arrives to ``variable.grad``."""

    __slots__ = ("variable",)

    def __init__(self, variable: Tensor) -> None:
        # what Node.__init__ does; a leaf has no place in the sequence, its turn is when the last gradient has come
        self.next = ()
        self.outputs = 1
        self.hooks = self.numbers = None
        self.sequence = _LEAF
        self.variable = variable

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        """Runs the leaf's hooks and accumulates."""
        variable = self.variable
        if gradient is None or not variable._requires_grad:  # it may have been detached since
            return ()
        if variable._hooks:
            gradient = run_hooks(variable._hooks.values(), gradient, create_graph)
        if variable._taker is not None and variable._taker(gradient):
            return ()
        present = variable._grad
        if create_graph:
            # A copy for the reason below, recorded.
            variable._grad = gradient.clone() if present is None else present + gradient
        elif present is not None:
            if present._node is not None:  # recorded by an earlier create_graph: leave that history alone
                variable._grad = plain(present._data + gradient)
            else:
                np.add(present._data, gradient, out=present._data)
                present._changed()
        elif variable._grad_slot is not None:
            slot = variable._grad_slot
            if gradient is not slot:  # NumPy copies by way of a buffer where they overlap
                np.copyto(slot, gradient)
            variable._grad = plain(slot)
        else:
            # A copy where anybody else holds the array, such as the other input of an addition.
            # A hook, too, may have returned a tensor that it keeps.
            if (
                sys.getrefcount(gradient) > _HOLDERS
                or gradient.base is not None
                or not gradient.flags.c_contiguous
                or variable._hooks
                or self.hooks is not None
            ):
                gradient = np.array(gradient, order="C")
            variable._grad = plain(gradient)
        if variable._post_accumulate_hooks:
            for hook in list(variable._post_accumulate_hooks.values()):
                hook(variable)
        return ()


class Dropped(Node):
    """The end of the graph at a view that was made without recording: what arrives goes nowhere."""

    __slots__ = ()

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        """Nothing."""
        return ()


def edge_of(tensor: Tensor) -> tuple[Node, int]:
    """Where the gradient of ``tensor``, which requires one, has to go."""
    while tensor._batched:
        tensor = tensor._value
    tensor._up_to_date()
    return (tensor._node, tensor._output_nr) if tensor._node is not None else (node_of_leaf(tensor), 0)


def node_of_leaf(leaf: Tensor) -> Node:
    """Where the gradient of a tensor that is known to be a leaf has to go."""
    accumulator: Node | None = leaf._accumulator() if leaf._accumulator is not None else None
    if accumulator is None:
        # The tensor refers to it weakly, the graph strongly: it lives as long as somebody may send a gradient.
        accumulator = AccumulateGrad(leaf) if not leaf._inherited else Dropped(())
        leaf._accumulator = weakref.ref(accumulator)
    return accumulator


def run_hooks(hooks: Iterable[Hook], gradient: Gradient, create_graph: bool) -> Gradient:
    """Passes a gradient through tensor hooks, each of which may replace it."""
    tensor = gradient if create_graph else Tensor(gradient)
    for hook in list(hooks):
        replaced = hook(tensor)
        if replaced is not None:
            _check_replacement(hook, tensor, replaced)
            tensor = replaced
    return tensor if create_graph else tensor._data


def _check_replacement(hook: Any, tensor: Tensor | None, replaced: Any) -> None:
    name = getattr(hook, "__name__", type(hook).__name__)
    if not isinstance(replaced, Tensor):
        raise TypeError(f"expected a Tensor, but hook {name!r} returned {type(replaced).__name__!r}")
    if tensor is not None and replaced.shape != tensor.shape:
        raise RuntimeError(
            f"hook {name!r} has changed the size of value (was {list(tensor.shape)} got {list(replaced.shape)})"
        )
    if tensor is not None and replaced.dtype != tensor.dtype:
        raise RuntimeError(f"hook {name!r} has changed the type of value (was {tensor.dtype} got {replaced.dtype})")


class _Running(NamedTuple):
    """A backward pass in progress: its final callbacks, what leaves await, what has arrived, and how a leaf ends."""

    callbacks: list[Callable[[], None]]
    awaited: dict[Node, int]
    pending: dict[Node, Any]
    finish: Callable[[Node], None]


class _Passes(threading.local):
    """The backward passes in progress on this thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[_Running] = []


_passes = _Passes()


def queue_callback(callback: Callable[[], None]) -> None:
    """Calls ``callback()`` once the backward pass that is now running on this thread has reached its end.

    Raises:
        RuntimeError: no backward pass is running.
    """
    if not _passes.stack:
        raise RuntimeError("Final callbacks can only be installed during backward pass.")
    _passes.stack[-1].callbacks.append(callback)


def reachable_leaves() -> list[Tensor]:
    """The leaves that the backward pass now running on this thread will still reach, in no particular order.

    Asked in a hook of a leaf, that leaf is not among them any more. One that is may still get no gradient, where every
    operation that uses it gives None.

    Raises:
        RuntimeError: no backward pass is running.
    """
    if not _passes.stack:
        raise RuntimeError("Which leaves will be reached can only be asked during backward pass.")
    return [leaf.variable for leaf in _passes.stack[-1].awaited if isinstance(leaf, AccumulateGrad)]


def awaits_one(leaf: Node) -> bool:
    """Whether ``leaf`` awaits one more gradient of the running backward pass, and none has come yet."""
    running = _passes.stack[-1]
    return running.awaited.get(leaf) == 1 and leaf not in running.pending


def hand_over(leaf: Node, gradient: Gradient) -> None:
    """Gives ``leaf``, which ``awaits_one``, its gradient at once.

    For a node that makes the gradients of many leaves one by one: it returns None for those that it has handed over.
    """
    running = _passes.stack[-1]
    running.pending[leaf] = gradient
    running.finish(leaf)


def run_backward(
    roots: Sequence[tuple[Node, int]],
    gradients: Sequence[Gradient],
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
    targets: Sequence[tuple[Node, int]] | None = None,
    accumulate: bool = False,
) -> list[Gradient | None]:
    """Walks the graph from ``roots``, each given its gradient.

    Args:
        roots: where to start, as ``edge_of`` gives it.
        gradients: one for each root: arrays, or Tensors with ``create_graph``.
        retain_graph: do not release what the nodes have saved.
        create_graph: pass Tensors to the nodes and record what they do.
        targets: return the gradients at these edges, and touch no leaf, instead of accumulating into leaves.
        accumulate: do not return but accumulate, into those leaves only that are targets.

    Returns:
        One gradient for each target (None where none arrived); empty without targets.
    """
    sources = [node for node, _ in roots]
    request = None if targets is None else _Request(targets, sources, accumulate)
    needed = None if request is None else request.needed
    order, awaited = _schedule(sources, needed)
    pending: dict[Node, Any] = {}  # the gradient of a node's output; of several outputs, a list
    special = request is not None or anomaly.enabled
    for (node, output), gradient in zip(roots, gradients, strict=True):
        _arrive(pending, node, output, gradient)

    def finish(leaf: Node) -> None:
        """Applies ``leaf``, whose last gradient has come."""
        del awaited[leaf]
        if special or leaf.hooks is not None:
            _watched(leaf, pending.pop(leaf, None), create_graph, request)
        else:
            leaf.apply(pending.pop(leaf, None), create_graph)

    state = mode.state
    before = state.enabled, state.retaining
    callbacks: list[Callable[[], None]] = []
    _passes.stack.append(_Running(callbacks, awaited, pending, finish))
    try:
        state.enabled, state.retaining = create_graph, retain_graph
        with np.errstate(all="ignore"):
            complete = [leaf for leaf, count in awaited.items() if not count]  # those that are roots and nothing else
            for leaf in complete:
                finish(leaf)
            complete = []
            for node in order:
                gradient = pending.pop(node, None)
                produced: Sequence[Gradient | None] | None
                if special or node.hooks is not None or node.outputs > 1:
                    produced = _watched(node, gradient, create_graph, request)
                    if produced is None:
                        continue
                else:
                    produced = node.apply(gradient, create_graph)
                gradient = None  # no array outlives its use
                if not retain_graph:
                    node.release()
                for target, part, number in zip(node.next, produced, node.numbers or _FIRST):  # noqa: B905 - innermost
                    if target is None or (needed is not None and target not in needed):
                        continue
                    if part is not None:
                        if target.outputs > 1:
                            _arrive(pending, target, number, part)
                        elif target in pending:
                            pending[target] = _added(pending[target], part)
                        else:
                            pending[target] = part
                    if not target.next and target in awaited:  # else it has been handed over
                        awaited[target] = left = awaited[target] - 1
                        if not left:
                            complete.append(target)
                produced = part = None
                if complete:
                    for leaf in complete:
                        finish(leaf)
                    complete.clear()
            for callback in callbacks:  # which one of them may add to
                callback()
    finally:
        state.enabled, state.retaining = before
        _passes.stack.pop()
    return [] if request is None or targets is None else [request.captured.get(target) for target in targets]


class _Request:
    """What a pass with targets is asked for.

    Attributes:
        needed: the nodes that lead to a target: the pass goes nowhere else.
        accumulate: gradients go into those leaves that are targets, and are not given back.
        capture: the edges at which gradients are to be read off.
        captured: those that have been.
    """

    __slots__ = ("accumulate", "capture", "captured", "needed")

    def __init__(self, targets: Sequence[tuple[Node, int]], sources: Sequence[Node], accumulate: bool) -> None:
        self.needed = _leading_to({node for node, _ in targets}, sources)
        self.accumulate = accumulate
        self.capture = set() if accumulate else set(targets)
        self.captured: dict[tuple[Node, int], Gradient] = {}

    def goes_on(self, node: Node) -> bool:
        """Whether ``node`` is to be applied, or is only where a requested gradient is read off."""
        if isinstance(node, AccumulateGrad):
            return self.accumulate
        return any(target is not None and target in self.needed for target in node.next)


def _watched(
    node: Node, gradient: Any, create_graph: bool, request: _Request | None
) -> Sequence[Gradient | None] | None:
    """``node.apply`` between the hooks, and reading off what is asked for; None where the walk ends."""
    if node.outputs > 1:
        gradient = tuple(gradient or [None] * node.outputs)
    if node.hooks is not None:
        gradient = _arrived(node, gradient, create_graph)
    if request is not None:
        for output, part in enumerate(gradient if node.outputs > 1 else (gradient,)):
            if (node, output) in request.capture and part is not None:
                request.captured[node, output] = _leaf_hooks(node, part, create_graph)
        if not request.goes_on(node):
            return None
    if node.hooks is not None and node.hooks.before:
        gradient = _before(node, gradient, create_graph)
    apply = anomaly.watch if anomaly.enabled else type(node).apply
    produced: Sequence[Gradient | None] = apply(node, gradient, create_graph)
    if node.hooks is not None and node.hooks.after:
        produced = _after(node, produced, gradient, create_graph)
    return produced


def _arrive(pending: dict[Node, Any], node: Node, output: int, gradient: Gradient) -> None:
    """Adds a gradient of one output of ``node`` to what has come."""
    if node.outputs == 1:
        pending[node] = _added(pending[node], gradient) if node in pending else gradient
    else:
        slots = pending.setdefault(node, [None] * node.outputs)
        slots[output] = gradient if slots[output] is None else _added(slots[output], gradient)


def _added(present: Gradient, gradient: Gradient) -> Gradient:
    if type(present) is _ndarray and not present.ndim:
        return np.asarray(present[()] + gradient[()])  # NumPy adds scalars sooner, and makes one of 0-d arrays anyway
    return present + gradient


def _shown(values: Sequence[Gradient | None]) -> tuple[Tensor | None, ...]:
    return tuple(value if value is None or isinstance(value, Tensor) else Tensor(value) for value in values)


def _unwrapped(hook: Any, before: Sequence[Tensor | None], values: Any, create_graph: bool) -> list[Gradient | None]:
    """What a node's hook has returned, once it is found to fit."""
    values = (values,) if isinstance(values, Tensor) else tuple(values)
    if len(values) != len(before):
        raise RuntimeError(
            f"hook {getattr(hook, '__name__', type(hook).__name__)!r} has returned an incorrect number of values "
            f"(got {len(values)}, but expected {len(before)})"
        )
    for old, new in zip(before, values, strict=True):
        if new is not None:
            _check_replacement(hook, old, new)
    return [value if create_graph or value is None else value._data for value in values]


def _arrived(node: Node, gradient: Any, create_graph: bool) -> Any:
    """The hooks of the node's outputs."""
    hooks = node.hooks
    assert hooks is not None
    slots = list(gradient) if node.outputs > 1 else [gradient]
    for output, tensor_hooks in hooks.tensor.items():
        if slots[output] is not None:
            slots[output] = run_hooks(tensor_hooks.values(), slots[output], create_graph)
    for output, keep in hooks.retain.items():
        if slots[output] is not None:
            keep(slots[output] if create_graph else Tensor(slots[output].copy()))
    return tuple(slots) if node.outputs > 1 else slots[0]


def _before(node: Node, gradient: Any, create_graph: bool) -> Any:
    """The hooks of the node itself, before it is applied."""
    assert node.hooks is not None
    slots = list(gradient) if node.outputs > 1 else [gradient]
    for pre_hook in list(node.hooks.before.values()):
        shown = _shown(slots)
        replaced = pre_hook(shown)
        if replaced is not None:
            slots = _unwrapped(pre_hook, shown, replaced, create_graph)
    return tuple(slots) if node.outputs > 1 else slots[0]


def _after(node: Node, produced: Sequence[Any], gradient: Any, create_graph: bool) -> Sequence[Any]:
    """The hooks that see what the node has made of its gradient."""
    assert node.hooks is not None
    given = _shown(gradient if node.outputs > 1 else (gradient,))
    for hook in list(node.hooks.after.values()):
        shown = _shown(produced)
        replaced = hook(shown, given)
        if replaced is not None:
            produced = _unwrapped(hook, shown, replaced, create_graph)
    return produced


def _leaf_hooks(node: Node, gradient: Gradient, create_graph: bool) -> Gradient:
    if isinstance(node, AccumulateGrad) and node.variable._hooks:
        return run_hooks(node.variable._hooks.values(), gradient, create_graph)
    return gradient


def _schedule(roots: Sequence[Node], needed: set[Node] | None) -> tuple[list[Node], dict[Node, int]]:
    """What can be reached from ``roots``: the operations, the latest first, and how many gradients each leaf awaits."""
    order: list[Node] = []
    awaited: dict[Node, int] = {}
    for root in roots:
        if root.next:
            order.append(root)
        else:
            awaited[root] = 0
    if len(order) > 1:
        order = list(dict.fromkeys(order))
    seen = set(order)
    for node in order:  # which grows on the way
        for target in node.next:
            if target is None or target in seen:
                continue
            if target.next:
                if needed is None or target in needed:
                    seen.add(target)
                    order.append(target)
            elif needed is None or target in needed:
                awaited[target] = awaited.get(target, 0) + 1
    order.sort(key=_by_sequence, reverse=True)
    return order, awaited


def _leading_to(targets: set[Node], roots: Sequence[Node]) -> set[Node]:
    """The nodes reachable from ``roots`` from which a target can be reached, targets and roots among them."""
    users: dict[Node, list[Node]] = {}
    stack, seen = list(dict.fromkeys(roots)), set(roots)
    while stack:
        node = stack.pop()
        for target in node.next:
            if target is not None:
                users.setdefault(target, []).append(node)
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
    stack = [node for node in targets if node in seen]
    leading = set(stack)
    while stack:
        for user in users.get(stack.pop(), ()):
            if user not in leading:
                leading.add(user)
                stack.append(user)
    return leading.union(roots)


class _Probe(Node):
    """Sends a new array to a leaf, to see how many references the engine itself holds to one on its way."""

    __slots__ = ()

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        return [np.ones(1)]


class _Counter(Node):
    """In the place of ``AccumulateGrad``: counts as it does."""

    __slots__ = ("count",)

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        self.count = sys.getrefcount(gradient)
        return ()


def _count_holders() -> int:
    counter = _Counter(())
    run_backward([(_Probe([(counter, 0)]), 0)], [np.ones(1)])
    return counter.count


# References to an array that nobody but the engine holds when it arrives at a leaf: such an array can be kept as it is.
# Their number is the interpreter's business, so it is measured.
_HOLDERS = _count_holders()

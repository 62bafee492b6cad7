"""The graph and its traversal. No operation is named here: a node is anything with ``edges`` and ``apply``.

``run_backward`` is two loops. The first counts, for every node that can be reached, how many gradients will arrive
there; the second applies each node when its count is down to zero, so that a gradient is final before it is used and a
leaf's gradient is handed on at the earliest moment. Both loops are iterative: depth costs no recursion.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .grad_mode import set_grad_enabled
from .tensor import Handle, Hook, Tensor

# A gradient in flight: a plain array, or a Tensor while the backward pass is itself being recorded.
Gradient = Any
NodeHook = Callable[[Sequence[Any], Sequence[Any]], "Sequence[Any] | None"]
NodePreHook = Callable[[Sequence[Any]], "Sequence[Any] | None"]

_sequence = itertools.count()


class Node:
    """One recorded step. ``edges[i]`` is where the gradient of input ``i`` goes: a node and which of its outputs."""

    # Nearly no node has hooks, so the dictionaries are made when the first one comes.
    tensor_hooks: dict[int, dict[int, Hook]] | None = None  # by output
    retain_hooks: dict[int, Callable[[Tensor], None]] | None = None  # by output
    _pre_hooks: dict[int, NodePreHook] | None = None
    _hooks: dict[int, NodeHook] | None = None

    def __init__(self, edges: tuple[tuple[Node, int] | None, ...], outputs: int = 1) -> None:
        self.edges = edges
        self.outputs = outputs
        self.sequence = next(_sequence)  # later nodes first: among those that are ready, PyTorch's order

    def name(self) -> str:
        """What ``repr`` of a tensor shows as its ``grad_fn``."""
        return type(self).__name__

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """Where the gradients of the inputs go, ``(None, 0)`` for an input that needs none."""
        return tuple((None, 0) if edge is None else edge for edge in self.edges)

    def register_hook(self, hook: NodeHook) -> Handle:
        """Calls ``hook(grad_inputs, grad_outputs)`` after this node; a tuple it returns replaces ``grad_inputs``."""
        if self._hooks is None:
            self._hooks = {}
        return Handle.add(self._hooks, hook)

    def register_prehook(self, hook: NodePreHook) -> Handle:
        """Calls ``hook(grad_outputs)`` before this node; a tuple it returns replaces ``grad_outputs``."""
        if self._pre_hooks is None:
            self._pre_hooks = {}
        return Handle.add(self._pre_hooks, hook)

    def tensor_hooks_of(self, output: int) -> dict[int, Hook]:
        """The hooks of the tensor that is output ``output``, to be added to."""
        if self.tensor_hooks is None:
            self.tensor_hooks = {}
        return self.tensor_hooks.setdefault(output, {})

    def retain(self, output: int, keep: Callable[[Tensor], None] | None) -> None:
        """Calls ``keep`` with the final gradient of output ``output``, after its hooks; None takes it back."""
        if self.retain_hooks is None:
            self.retain_hooks = {}
        if keep is None:
            self.retain_hooks.pop(output, None)
        else:
            self.retain_hooks[output] = keep

    def apply(self, gradients: list[Gradient | None], create_graph: bool) -> Sequence[Gradient | None]:
        """From the gradients of the outputs (None: no gradient arrived), those of the inputs, one an edge."""
        raise NotImplementedError

    def release(self) -> None:
        """Drops what was saved for the backward pass."""

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class AccumulateGrad(Node):
    """The end of the graph at a leaf: adds what arrives to ``variable.grad``."""

    def __init__(self, variable: Tensor) -> None:
        super().__init__(())
        self.sequence = -1
        self.variable = variable

    def apply(self, gradients: list[Gradient | None], create_graph: bool) -> Sequence[Gradient | None]:
        """Runs the leaf's hooks and accumulates."""
        variable, gradient = self.variable, gradients[0]
        if gradient is None:
            return ()
        if variable._hooks:
            gradient = run_hooks(variable._hooks.values(), gradient, create_graph)
        if create_graph:
            # A copy for the reason below, recorded.
            variable._grad = gradient.clone() if variable._grad is None else variable._grad + gradient
        elif variable._grad is None:
            # A copy: the same array may have been handed to several leaves (the two inputs of an addition).
            variable._grad = Tensor(np.array(gradient, order="C"))
        else:
            if variable._grad._node is not None:  # recorded by an earlier create_graph: leave that history alone
                variable._grad = Tensor(variable._grad._data + gradient)
            else:
                np.add(variable._grad._data, gradient, out=variable._grad._data)
                variable._grad._changed()
        if variable._post_accumulate_hooks:
            for hook in list(variable._post_accumulate_hooks.values()):
                hook(variable)
        return ()


def edge_of(tensor: Tensor) -> tuple[Node, int]:
    """Where the gradient of ``tensor`` has to go."""
    if tensor._node is not None:
        return tensor._node, tensor._output_nr
    accumulator = tensor._accumulator() if tensor._accumulator is not None else None
    if accumulator is None:
        # The tensor refers to it weakly, the graph strongly: it lives as long as somebody may send a gradient.
        accumulator = AccumulateGrad(tensor)
        tensor._accumulator = weakref.ref(accumulator)
    return accumulator, 0


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


class _Callbacks(threading.local):
    def __init__(self) -> None:
        self.stack: list[list[Callable[[], None]]] = []  # one list a backward pass in progress on this thread


_callbacks = _Callbacks()


def queue_callback(callback: Callable[[], None]) -> None:
    """Calls ``callback()`` once the backward pass that is now running on this thread has reached its end.

    Raises:
        RuntimeError: no backward pass is running.
    """
    if not _callbacks.stack:
        raise RuntimeError("Final callbacks can only be installed during backward pass.")
    _callbacks.stack[-1].append(callback)


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
    needed = None if targets is None else _leading_to({node for node, _ in targets}, [node for node, _ in roots])
    arrivals = _count_arrivals([node for node, _ in roots], needed)
    pending: dict[Node, list[Gradient | None]] = {}
    ready: list[tuple[int, int, Node]] = []
    tie = itertools.count()
    captured: dict[tuple[Node, int], Gradient] = {}
    capture = set() if accumulate else set(targets or ())

    def arrive(node: Node, output: int, gradient: Gradient) -> None:
        slots = pending.get(node)
        if slots is None:
            slots = pending[node] = [None] * node.outputs
        present = slots[output]
        if present is not None:
            gradient = present + gradient
            if isinstance(gradient, np.generic):  # what NumPy makes of two 0-d arrays
                gradient = np.asarray(gradient)
        slots[output] = gradient

    def push(node: Node) -> None:
        # A leaf at once, so that its gradient is on its way as soon as it is final; then the most recent operation.
        heapq.heappush(ready, (-node.sequence if node.sequence >= 0 else -(1 << 62), next(tie), node))

    for (node, output), gradient in zip(roots, gradients, strict=True):
        arrive(node, output, gradient)
    for node in {node: None for node, _ in roots}:
        if arrivals.get(node, 0) == 0:
            push(node)

    _callbacks.stack.append([])
    try:
        with set_grad_enabled(create_graph), np.errstate(all="ignore"):
            while ready:
                node = heapq.heappop(ready)[2]
                slots = pending.pop(node, None) or [None] * node.outputs
                _tensor_hooks(node, slots, create_graph)
                for output in range(node.outputs if capture else 0):
                    if (node, output) in capture and slots[output] is not None:
                        captured[node, output] = _leaf_hooks(node, slots[output], create_graph)
                if not _goes_on(node, needed, accumulate):
                    continue
                produced = _apply(node, slots, create_graph)
                del slots
                if not retain_graph:
                    node.release()
                for edge, gradient in zip(node.edges, produced, strict=True):
                    if edge is None or (needed is not None and edge[0] not in needed):
                        continue
                    if gradient is not None:
                        arrive(edge[0], edge[1], gradient)
                    arrivals[edge[0]] -= 1
                    if arrivals[edge[0]] == 0:
                        push(edge[0])
                produced, gradient = (), None  # no array outlives its use
            for callback in _callbacks.stack[-1]:
                callback()
    finally:
        _callbacks.stack.pop()
    return [captured.get(target) for target in targets or ()]


def _apply(node: Node, slots: list[Gradient | None], create_graph: bool) -> Sequence[Gradient | None]:
    def shown(values: Sequence[Gradient | None]) -> tuple[Tensor | None, ...]:
        return tuple(value if value is None or isinstance(value, Tensor) else Tensor(value) for value in values)

    def unwrapped(hook: Any, before: Sequence[Tensor | None], values: Any) -> list[Gradient | None]:
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

    for pre_hook in list(node._pre_hooks.values()) if node._pre_hooks else ():
        before = shown(slots)
        replaced = pre_hook(before)
        if replaced is not None:
            slots = unwrapped(pre_hook, before, replaced)
    given = shown(slots) if node._hooks else ()
    produced = node.apply(slots, create_graph)
    for hook in list(node._hooks.values()) if node._hooks else ():
        before = shown(produced)
        replaced = hook(before, given)
        if replaced is not None:
            produced = unwrapped(hook, before, replaced)
    return produced


def _tensor_hooks(node: Node, slots: list[Gradient | None], create_graph: bool) -> None:
    for output, hooks in node.tensor_hooks.items() if node.tensor_hooks else ():
        if slots[output] is not None:
            slots[output] = run_hooks(hooks.values(), slots[output], create_graph)
    for output, keep in node.retain_hooks.items() if node.retain_hooks else ():
        gradient = slots[output]
        if gradient is not None:
            keep(gradient if create_graph else Tensor(gradient.copy()))


def _leaf_hooks(node: Node, gradient: Gradient, create_graph: bool) -> Gradient:
    if isinstance(node, AccumulateGrad) and node.variable._hooks:
        return run_hooks(node.variable._hooks.values(), gradient, create_graph)
    return gradient


def _goes_on(node: Node, needed: set[Node] | None, accumulate: bool) -> bool:
    """Whether ``node`` is to be applied, or is only where a requested gradient is read off."""
    if needed is None:
        return True
    if isinstance(node, AccumulateGrad):
        return accumulate
    return any(edge is not None and edge[0] in needed for edge in node.edges)


def _count_arrivals(roots: Sequence[Node], needed: set[Node] | None) -> dict[Node, int]:
    """How many gradients each node reachable from ``roots`` will be sent."""
    arrivals: dict[Node, int] = {}
    stack = list(dict.fromkeys(roots))
    seen = set(stack)
    while stack:
        for edge in stack.pop().edges:
            if edge is None or (needed is not None and edge[0] not in needed):
                continue
            node = edge[0]
            arrivals[node] = arrivals.get(node, 0) + 1
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return arrivals


def _leading_to(targets: set[Node], roots: Sequence[Node]) -> set[Node]:
    """The nodes reachable from ``roots`` from which a target can be reached, targets and roots among them."""
    users: dict[Node, list[Node]] = {}
    stack, seen = list(dict.fromkeys(roots)), set(roots)
    while stack:
        node = stack.pop()
        for edge in node.edges:
            if edge is not None:
                users.setdefault(edge[0], []).append(node)
                if edge[0] not in seen:
                    seen.add(edge[0])
                    stack.append(edge[0])
    leading, stack = set(roots), [node for node in targets if node in seen]
    leading.update(stack)
    while stack:
        for user in users.get(stack.pop(), ()):
            if user not in leading:
                leading.add(user)
                stack.append(user)
    return leading

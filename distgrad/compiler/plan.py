"""A graph made executable: its steps, where their values lie, and the node that takes gradients back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.anomaly import anomaly
from ..autograd.engine import AccumulateGrad, Node, awaits_one, edge_of, hand_over
from ..autograd.grad_mode import mode
from ..autograd.tensor import Array
from ..func.pytree import unflatten
from ..kernels.workspace import Workspace
from .fusion import steps_of
from .graph import Graph, Value
from .memory import Pool
from .steps import Run, Step


class Plan:
    """What is run in place of a function, for inputs of one shape.

    Args:
        graph: what was captured.
        pool: memory for its arrays.
        spaces: scratch memory; a run borrows one and puts it back, so that no two runs share one.
        algorithm: of convolutions, as ``backends.convolution``.
    """

    def __init__(self, graph: Graph, pool: Pool, spaces: list[Workspace], algorithm: str) -> None:
        graph.without_unused()
        self.graph = graph
        self.pool = pool
        self._spaces = spaces
        self.steps: list[Step] = steps_of(graph, algorithm)
        self.places: dict[Value, int] = {}
        self.externals = graph.externals()
        for value in (*graph.inputs, *self.externals, *graph.outputs):
            self.places.setdefault(value, len(self.places))
        for number, step in enumerate(self.steps):
            step.number, step.places = number, self.places
            for value in (*step.inputs, *step.outputs):
                self.places.setdefault(value, len(self.places))
        self.recorded = any(value.differentiable for value in graph.outputs)
        self._drops = self._last_uses()
        self._state: list[Any] | None = None
        # the tensors that gradients go to, in the order of the node's edges
        self.targets = [v for v in (*graph.inputs, *self.externals) if v.differentiable]
        # of each step, those whose gradients are complete after its backward, and how many steps make each
        self.users = {v: [step.number for step in self.steps if v in step.inputs] for v in self.targets}
        self.completes: list[list[int]] = [[] for _ in self.steps]
        for number, value in enumerate(self.targets):
            if self.users[value]:
                self.completes[min(self.users[value])].append(number)

    def _last_uses(self) -> list[list[int]]:
        """For each step the places that nobody reads after it."""
        stays = {self.places[value] for value in (*self.graph.inputs, *self.externals, *self.graph.outputs)}
        drops: list[list[int]] = [[] for _ in self.steps]
        for step in reversed(self.steps):
            for value in (*step.inputs, *step.outputs):
                place = self.places[value]
                if place not in stays:
                    stays.add(place)
                    drops[step.number].append(place)
        return drops

    def describe(self) -> str:
        """The steps, a line each."""
        return "\n".join(f"{step.number:4d} {step.describe()}" for step in self.steps)

    # What tensors from outside have become ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Lets the steps pack their constants, the first time and whenever one of these has changed."""
        state: list[Any] = [(v.tensor._data, v.tensor._version) for v in self.externals if v.tensor is not None]
        statistics = [
            array for o in self.graph.operations for array in o.keywords.values() if isinstance(array, np.ndarray)
        ]
        if self._state is not None:
            tensors, copies = self._state
            same = all(a is b and x == y for (a, x), (b, y) in zip(tensors, state, strict=True)) and all(
                a is b or np.array_equal(a, b) for a, b in zip(copies, statistics, strict=True)
            )
            if same:
                return
        for step in self.steps:
            step.prepare()
        self._state = [state, [array.copy() for array in statistics]]

    def borrow(self) -> Workspace:
        """Scratch memory that nobody else uses until it is put back."""
        try:
            return self._spaces.pop()
        except IndexError:
            return Workspace()

    def put_back(self, run: Run) -> None:
        """Ends a run's use of its scratch memory."""
        self._spaces.append(run.space)

    # Running ---------------------------------------------------------------------------------------------------------

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Runs the plan; recorded as one node where a gradient may be asked for."""
        self._prepare()
        run = Run(len(self.places), len(self.steps), self.pool, self.borrow())
        values = run.values
        for value, tensor in zip(self.graph.inputs, inputs, strict=True):
            values[self.places[value]] = tensor._data
        for value in self.externals:
            assert value.tensor is not None
            values[self.places[value]] = value.tensor._data
        with np.errstate(all="ignore"):
            for step, drops in zip(self.steps, self._drops, strict=True):
                step.forward(run)
                for place in drops:
                    values[place] = None
        self.put_back(run)
        results = [Tensor(values[self.places[value]]) for value in self.graph.outputs]
        if self.recorded and mode.enabled:
            node = PlanNode(self, run, inputs)
            for number, (value, tensor) in enumerate(zip(self.graph.outputs, results, strict=True)):
                if value.differentiable:
                    tensor._node, tensor._output_nr, tensor._requires_grad = node, number, True
        run.values = [None] * len(values)
        return unflatten(results, self.graph.structure)


class PlanNode(Node):
    """The plan's place in the graph of autograd: gradients of the outputs in, of inputs and parameters out."""

    __slots__ = ("_plan", "_run", "_versions")

    def __init__(self, plan: Plan, run: Run, inputs: Sequence[Tensor]) -> None:
        given = dict(zip(plan.graph.inputs, inputs, strict=True))
        tensors = [given.get(value, value.tensor) for value in plan.targets]
        super().__init__([edge_of(tensor) for tensor in tensors if tensor is not None], len(plan.graph.outputs))
        self._plan = plan
        self._run: Run | None = run
        read = [*inputs, *(value.tensor for value in plan.externals)]
        self._versions = [(tensor, tensor._version) for tensor in read if tensor is not None]

    def name(self) -> str:
        """As ``repr`` of a tensor shows it."""
        return "CompiledBackward"

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Array | None]:
        """The steps' backward passes, in reverse order."""
        run, plan = self._run, self._plan
        if create_graph:
            raise RuntimeError(
                "backward(create_graph=True) through a compiled function: its backward pass cannot be recorded. Call "
                "the function that was given to compile() for higher derivatives."
            )
        if run is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Specify retain_graph=True if you need to backward a second time. (compiled)"
            )
        for tensor, version in self._versions:
            if tensor._version != version:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an inplace operation: "
                    f"a {list(tensor.shape)} tensor that a compiled function reads is at version {tensor._version}, it "
                    f"was at version {version} when the function ran. Call backward() before changing it."
                )
        run.space = plan.borrow()
        run.start_backward()
        gradients = gradient if self.outputs > 1 else (gradient,)
        for value, part in zip(plan.graph.outputs, gradients, strict=True):
            if part is not None and value.differentiable:
                run.add_gradient(plan.places[value], part, owned=False)
        retaining = mode.state.retaining
        early = self._early(run)
        for step in reversed(plan.steps):
            step.backward(run)
            if not retaining:
                run.kept[step.number] = None  # at once: the gradients that are to come take its memory
            if early:
                for number in plan.completes[step.number]:
                    found = run.take_gradient(plan.places[plan.targets[number]]) if number in early else None
                    if found is not None:
                        hand_over(early.pop(number), found[0])
        plan.put_back(run)
        run.gradient_memory = {}
        taken = [run.take_gradient(plan.places[value]) for value in plan.targets]
        return [None if part is None else part[0] for part in taken]

    def _early(self, run: Run) -> dict[int, Node]:
        """The leaves whose gradients somebody wants as soon as they are final: those that have a place for them.

        Where nothing else has come and one step makes a gradient, that step writes to the place itself.
        """
        early: dict[int, Node] = {}
        if self.hooks is not None or anomaly.enabled:  # they see all gradients together
            return early
        for number, (value, edge) in enumerate(zip(self._plan.targets, self.edges, strict=True)):
            if edge is None or not isinstance(edge[0], AccumulateGrad):
                continue
            slot = edge[0].variable._grad_slot
            if slot is None or not awaits_one(edge[0]):
                continue
            early[number] = edge[0]
            if edge[0].variable._grad is None and len(self._plan.users[value]) == 1:
                run.gradient_memory[self._plan.places[value]] = slot
        return early

    def release(self) -> None:
        """Gives the memory back to the pool."""
        self._run = None

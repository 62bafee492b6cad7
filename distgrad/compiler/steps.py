"""What a plan is made of: steps that read and write numbered places, forward and, in reverse order, backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.engine import Node
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive
from ..autograd.tensor import Array
from ..kernels.layout import is_hwnc
from ..kernels.workspace import Workspace
from .graph import Operation, Value
from .memory import Pool


class Run:
    """One pass through a plan, forward and perhaps backward.

    Attributes:
        values: the array at each place, None where there is none yet or no more.
        kept: what each step keeps for its backward, by the step's number.
        pool: memory for arrays that live beyond a step.
        space: scratch memory within a step.
        again: (H, W, N, C) values that the backward pass has computed a second time, by place.
        gradient_memory: where the only step that says something about a parameter's gradient should write it, by place.
    """

    __slots__ = ("_destinations", "_grads", "again", "gradient_memory", "kept", "pool", "space", "values")

    def __init__(self, places: int, steps: int, pool: Pool, space: Workspace) -> None:
        self.values: list[Any] = [None] * places
        self.kept: list[Any] = [None] * steps
        self.again: dict[int, Array] = {}
        self.gradient_memory: dict[int, Array] = {}
        self.pool = pool
        self.space = space
        self._grads: list[tuple[Array, bool] | None] = []
        self._destinations: dict[int, Array] = {}

    def set_destination(self, place: int, array: Array) -> None:
        """Where the step that writes images at ``place`` has to put them: (H, W, N, C)."""
        self._destinations[place] = array

    def destination(self, place: int, value: Value) -> Array:
        """That, or new memory: (H, W, N, C) for a value (N, C, H, W)."""
        found = self._destinations.pop(place, None)
        n, c, h, w = value.shape
        return self.pool.empty((h, w, n, c), value.dtype) if found is None else found

    def start_backward(self) -> None:
        """Forgets the gradients of a pass before."""
        self._grads = [None] * len(self.values)

    def empty_gradient(self, place: int, value: Value) -> Array:
        """Memory for the gradient of a parameter, in its shape and row-major order."""
        found = self.gradient_memory.get(place)
        return np.empty(value.shape, value.dtype) if found is None else found

    def add_gradient(self, place: int, gradient: Array, owned: bool) -> None:
        """Adds what one user of a value says about it.

        Args:
            place: of the value.
            gradient: of its shape.
            owned: nobody else reads the array, so that it may be written over.
        """
        present = self._grads[place]
        if present is None:
            self._grads[place] = gradient, owned
        elif present[1] and present[0].dtype == gradient.dtype:
            np.add(present[0], gradient, out=present[0])
        elif owned and present[0].dtype == gradient.dtype:
            np.add(present[0], gradient, out=gradient)
            self._grads[place] = gradient, True
        else:
            self._grads[place] = np.asarray(present[0] + gradient), True

    def take_gradient(self, place: int) -> tuple[Array, bool] | None:
        """The gradient of a value, complete, and whether it may be written over; None where none has come."""
        found = self._grads[place]
        self._grads[place] = None
        return found


class Step(ABC):
    """One step of a plan.

    Attributes:
        inputs: the values that it reads.
        outputs: the values that it writes.
        number: its place among the steps.
        places: of every value, its number; set by the plan.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    number: int
    places: dict[Value, int]

    @abstractmethod
    def forward(self, run: Run) -> None:
        """Writes the outputs; where gradients will be asked for, keeps what the backward needs."""

    @abstractmethod
    def backward(self, run: Run) -> None:
        """From the outputs' gradients to the inputs'."""

    def prepare(self) -> None:  # noqa: B027 - most steps depend on nothing outside
        """Computes what depends on tensors from outside alone. Called before the first run, and when these change."""

    @abstractmethod
    def describe(self) -> str:
        """A line for people."""


class PrimitiveStep(Step):
    """A primitive as eager calls it, and its own VJPs."""

    def __init__(self, operation: Operation) -> None:
        assert operation.primitive is not None
        self.primitive: Primitive = operation.primitive
        self.operands = operation.operands
        self.keywords = operation.keywords
        self.recorded = operation.recorded
        self.inputs = tuple(operation.values())
        self.outputs = operation.outputs

    def forward(self, run: Run) -> None:
        """Runs the forward; recorded, as a graph of one node."""
        arrays = [run.values[self.places[x]] if isinstance(x, Value) else x for x in self.operands]
        if not self.recorded or not mode.enabled:
            result = mode.state.quietly(_call, self.primitive, arrays, self.keywords)
            results = result if self.primitive.multiple else (result,)
            for value, array in zip(self.outputs, results, strict=True):
                run.values[self.places[value]] = array if type(array) is np.ndarray else np.asarray(array)
            return
        tensors: list[Any] = []
        for operand, array in zip(self.operands, arrays, strict=True):
            if isinstance(operand, Value):
                array = Tensor(array)
                array._requires_grad = operand.differentiable
            tensors.append(array)
        before, mode.state.enabled = mode.state.enabled, True
        try:
            results = self.primitive(*tensors, **self.keywords)
        finally:
            mode.state.enabled = before
        results = results if self.primitive.multiple else (results,)
        for value, tensor in zip(self.outputs, results, strict=True):
            run.values[self.places[value]] = tensor._data
        run.kept[self.number] = next(r._node for r in results if r._node is not None)

    def backward(self, run: Run) -> None:
        """Applies that node."""
        node: Node | None = run.kept[self.number]
        if node is None:
            return
        taken = [run.take_gradient(self.places[value]) for value in self.outputs]
        gradients = [None if found is None else found[0] for found in taken]
        if all(gradient is None for gradient in gradients):
            return
        produced = node.apply(tuple(gradients) if len(gradients) > 1 else gradients[0], False)
        for operand, gradient in zip(self.operands, produced, strict=True):
            if gradient is not None and isinstance(operand, Value) and operand.differentiable:
                run.add_gradient(self.places[operand], gradient, owned=False)

    def describe(self) -> str:
        """The primitive's name and the shape of its result."""
        return f"{self.primitive.name} {list(self.outputs[0].shape)}"


def _call(primitive: Primitive, arrays: list[Any], keywords: dict[str, Any]) -> Any:
    result = primitive.forward(*arrays, **keywords)
    return result[0] if primitive.residuals else result


class EffectStep(Step):
    """Draws random numbers, checks values, or counts a batch."""

    def __init__(self, operation: Operation) -> None:
        assert operation.effect is not None
        self.effect: Callable[..., Array | None] = operation.effect
        self.keywords = operation.keywords
        self.inputs = tuple(operation.values())
        self.outputs = operation.outputs

    def forward(self, run: Run) -> None:
        """Does it."""
        array = self.effect(*(run.values[self.places[value]] for value in self.inputs), **self.keywords)
        for value in self.outputs:
            run.values[self.places[value]] = array

    def backward(self, run: Run) -> None:
        """Nothing: no gradient comes here."""

    def describe(self) -> str:
        """What it draws."""
        return "draw" if self.outputs else "check" if self.inputs else "count"


def pixels(images: Array) -> Array:
    """(N, C, H, W) as (H, W, N, C), whatever the order of its memory."""
    return images.transpose(2, 3, 0, 1)


def ordered(run: Run, images: Array) -> Array:
    """(N, C, H, W) as (H, W, N, C) with contiguous runs: a view, or a copy in the pool."""
    if is_hwnc(images):
        return images.transpose(2, 3, 0, 1)
    copy = run.pool.empty_hwnc(images.shape, images.dtype)
    np.copyto(copy, images)
    return copy.transpose(2, 3, 0, 1)

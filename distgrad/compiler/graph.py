"""What a capture gives: operations in the order in which they ran, and the values between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..autograd import Tensor
from ..autograd.primitive import Primitive
from ..autograd.tensor import Array


class Value:
    """Something that an operation reads: an input of the graph, a result, or a tensor from outside.

    Attributes:
        shape: its shape.
        dtype: its dtype.
        tensor: of a tensor from outside (a parameter, a buffer, a constant): that tensor; it is read anew in each run.
        differentiable: a gradient may have to come here.
    """

    __slots__ = ("differentiable", "dtype", "shape", "tensor")

    def __init__(self, shape: tuple[int, ...], dtype: Any, tensor: Tensor | None = None, differentiable: bool = False):
        self.shape = shape
        self.dtype = dtype
        self.tensor = tensor
        self.differentiable = differentiable

    def __repr__(self) -> str:
        kind = "value" if self.tensor is None else "tensor"
        return f"<{kind} {self.dtype} {list(self.shape)}{' differentiable' * self.differentiable}>"


@dataclass(eq=False)
class Operation:
    """One call of a primitive, or an effect.

    Attributes:
        primitive: what was called; None for an effect.
        operands: values, None and Python numbers, as the primitive takes them.
        keywords: the rest of the call.
        outputs: its results.
        recorded: autograd was recording, and an operand is differentiable.
        effect: what else a run has to do here, called with operands and keywords: draw random numbers, whose array is
            the output, check values, or count a batch.
    """

    primitive: Primitive | None
    operands: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: tuple[Value, ...]
    recorded: bool = False
    effect: Callable[..., Array | None] | None = None

    @property
    def name(self) -> str:
        """The primitive's name."""
        return "Effect" if self.primitive is None else self.primitive.name

    @property
    def output(self) -> Value:
        """The only result."""
        return self.outputs[0]

    def values(self) -> Iterator[Value]:
        """The operands that are values."""
        return (x for x in self.operands if isinstance(x, Value))


@dataclass
class Graph:
    """A captured function.

    Attributes:
        inputs: the tensors among the arguments, in order.
        operations: in the order in which they ran.
        outputs: the tensors of the result, in order.
        structure: how the result is put together again from them.
    """

    inputs: list[Value]
    operations: list[Operation] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    structure: Any = None

    def users(self) -> dict[Value, list[Operation]]:
        """For each value the operations that read it, one entry for each time."""
        found: dict[Value, list[Operation]] = {}
        for operation in self.operations:
            for value in operation.values():
                found.setdefault(value, []).append(operation)
        return found

    def externals(self) -> list[Value]:
        """The tensors from outside that are read, each once."""
        seen: dict[int, Value] = {}
        for operation in self.operations:
            for value in operation.values():
                if value.tensor is not None:
                    seen.setdefault(id(value.tensor), value)
        return list(seen.values())

    def without_unused(self) -> None:
        """Drops operations whose results nobody reads, unless they move something or draw random numbers."""
        wanted = set(self.outputs)
        kept: list[Operation] = []
        for operation in reversed(self.operations):
            if operation.effect is not None or _moves(operation) or wanted.intersection(operation.outputs):
                kept.append(operation)
                wanted.update(operation.values())
        self.operations = kept[::-1]


def _moves(operation: Operation) -> bool:
    return operation.keywords.get("running_mean") is not None and operation.name == "NativeBatchNorm"

"""A model in two parts: what its trainable parameters have no influence on, and the rest.

Which is which follows from ``requires_grad``: everything that is computed from the input and from frozen tensors alone,
without random numbers and without moving statistics, gives the same features for the same input as long as training
lasts. They can be computed without recording, and once.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .. import backends
from ..autograd import Tensor
from ..autograd.grad_mode import enable_grad, no_grad
from ..kernels.workspace import Workspace
from ..nn import Module
from .batch import BatchGraph
from .capture import CaptureError
from .graph import Graph, Operation, Value
from .memory import Pool
from .plan import Plan


class Split:
    """A model cut at its frozen features; ``head(features(x))`` is the model's output for ``x``.

    Attributes:
        feature_shape: of the features of one sample.
        feature_dtype: their dtype.
    """

    def __init__(self, whole: BatchGraph) -> None:
        self._whole = whole
        prefix, _, boundary = _cut(whole.at(2))
        self.feature_shape: tuple[int, ...] = boundary.shape[1:]
        self.feature_dtype = boundary.dtype
        self._operations = prefix.operations
        self._pool = Pool()
        self._spaces: list[Workspace] = []
        self._plans: dict[tuple[str, int, str], Plan] = {}

    def features(self, input: Tensor) -> Tensor:
        """The features (N, *feature_shape) of a batch; nothing is recorded."""
        with no_grad():
            out: Tensor = self._plan("features", input.shape[0])([input])
        return out

    def head(self, features: Tensor) -> Tensor:
        """The model's output for a batch of features, recorded for ``backward`` like any operation."""
        return self._plan("head", features.shape[0])([features])  # type: ignore[no-any-return]

    def _plan(self, part: str, size: int) -> Plan:
        key = part, size, backends.convolution
        if key not in self._plans:
            prefix, suffix, _ = _cut(self._whole.at(size))
            graph = prefix if part == "features" else suffix
            self._plans[key] = Plan(graph, self._pool, self._spaces, backends.convolution)
        return self._plans[key]

    def digest(self) -> str:
        """A digest of all that the features depend on besides the input: the operations, their arguments, the weights.

        The same on every machine; it changes exactly when the features may.
        """
        found = hashlib.sha256(f"{backends.convolution} {self.feature_shape} {self.feature_dtype}".encode())
        numbers: dict[Any, int] = {}
        for operation in self._operations:
            found.update(f"\n{operation.name}".encode())
            for x in (*operation.operands, *operation.outputs):
                if isinstance(x, Value):
                    first = x not in numbers
                    found.update(f" %{numbers.setdefault(x, len(numbers))}".encode())
                    if first and x.tensor is not None:
                        _update(found, x.tensor._data)
                else:
                    found.update(f" {x!r}".encode())
            for name, argument in operation.keywords.items():
                found.update(f" {name}=".encode())
                if isinstance(argument, np.ndarray):
                    _update(found, argument)
                else:
                    found.update(repr(argument).encode())
        return found.hexdigest()


def _update(digest: Any, array: np.ndarray[Any, Any]) -> None:
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


def split_frozen(module: Module, example: Tensor) -> Split | None:
    """Cuts ``module`` at the last values that its trainable parameters have no influence on.

    Args:
        module: in the mode in which it will be trained; what is frozen there (``nn.freeze``) is in evaluation mode.
        example: an input, at least one sample; only its shape but for the batch and its dtype count.

    Returns:
        None where nothing is frozen, everything is, or the frozen part reaches the rest by more than one value.

    Raises:
        CaptureError: the operations depend on values or the batch size, so that there is nothing to cut.
    """
    with enable_grad():
        whole = BatchGraph(module, example.detach())
    try:
        return Split(whole)
    except _NoCut:
        return None


class _NoCut(Exception):
    pass


def _cut(graph: Graph) -> tuple[Graph, Graph, Value]:
    """The frozen operations, the rest, and the value between them."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or graph.inputs[0].differentiable:
        raise _NoCut
    frozen: set[Value] = {graph.inputs[0]}
    before: list[Operation] = []
    after: list[Operation] = []
    for operation in graph.operations:
        inputs = [v for v in operation.values() if v.tensor is None]
        still = (
            operation.effect is None
            and operation.name != "NativeBatchNorm"
            and all(v in frozen for v in inputs)
            and not any(v.differentiable for v in operation.values())
        )
        (before if still else after).append(operation)
        if still:
            frozen.update(operation.outputs)
    crossing = {v for operation in after for v in operation.values() if v in frozen}
    crossing.update(v for v in graph.outputs if v in frozen)
    if not before or not after or len(crossing) != 1 or graph.inputs[0] in crossing:
        raise _NoCut
    boundary = crossing.pop()
    if len(boundary.shape) == 0 or boundary.shape[0] != graph.inputs[0].shape[0]:
        raise _NoCut
    prefix = Graph(list(graph.inputs), before, [boundary], None)
    suffix = Graph([boundary], after, list(graph.outputs), graph.structure)
    return prefix, suffix, boundary


__all__ = ["CaptureError", "Split", "split_frozen"]

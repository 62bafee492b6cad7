"""A graph for any batch size, from two captures at small ones.

Every number in a graph (a length in a shape, an argument) that is the same in both captures is taken for a constant,
every other one for a linear function of the batch size. A function for which that is not so is found out by a third
capture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from .capture import CaptureError, capture
from .graph import Graph, Operation, Value

_SIZES = 2, 3, 5


class BatchGraph:
    """The graph of a function of one tensor whose first dimension is the batch.

    Args:
        function: takes the tensor; what it computes of a sample must not depend on the batch size.
        example: a tensor of the right shape but for the batch, at least one sample.

    Raises:
        CaptureError: it cannot be captured, or its graph is not the same for all batch sizes.
    """

    def __init__(self, function: Callable[[Tensor], Any], example: Tensor) -> None:
        if example.ndim == 0 or example.shape[0] == 0:
            raise CaptureError("the example has no sample")
        first, second, third = (
            capture(function, (Tensor(np.resize(example._data, (size, *example.shape[1:]))),), {}) for size in _SIZES
        )
        self._first, self._second = first, second
        found = self.at(_SIZES[2])
        same = len(found.operations) == len(third.operations) and all(
            a.primitive is b.primitive
            and [v.shape for v in (*a.values(), *a.outputs)] == [v.shape for v in (*b.values(), *b.outputs)]
            and _same(a.keywords, b.keywords)
            for a, b in zip(found.operations, third.operations, strict=True)
        )
        if not same:
            raise CaptureError("its operations depend on the batch size in more than the length of a dimension")

    def at(self, size: int) -> Graph:
        """The graph for batches of ``size``."""
        first, second = self._first, self._second
        if len(first.operations) != len(second.operations):
            raise CaptureError("its operations depend on the batch size")
        known: dict[Value, Value] = {}

        def value(a: Any, b: Any) -> Any:
            if not isinstance(a, Value):
                return _between(a, b, size)
            if a not in known:
                if a.tensor is not None and a.shape != b.shape:
                    raise CaptureError("it makes a constant whose shape depends on the batch size")
                shape = _between(a.shape, b.shape, size)
                known[a] = Value(shape, a.dtype, a.tensor, a.differentiable)
            return known[a]

        graph = Graph([value(a, b) for a, b in zip(first.inputs, second.inputs, strict=True)])
        for a, b in zip(first.operations, second.operations, strict=True):
            if a.primitive is not b.primitive or len(a.operands) != len(b.operands):
                raise CaptureError("its operations depend on the batch size")
            operands = tuple(value(x, y) for x, y in zip(a.operands, b.operands, strict=True))
            outputs = tuple(value(x, y) for x, y in zip(a.outputs, b.outputs, strict=True))
            keywords = _between(a.keywords, b.keywords, size)
            graph.operations.append(Operation(a.primitive, operands, keywords, outputs, a.recorded, a.effect))
        graph.outputs = [value(a, b) for a, b in zip(first.outputs, second.outputs, strict=True)]
        graph.structure = first.structure
        return graph


def _between(a: Any, b: Any, size: int) -> Any:
    """What stands in a graph of ``size`` where ``a`` and ``b`` stand in those of the first two sizes."""
    if isinstance(a, (tuple, list)) and type(a) is type(b) and len(a) == len(b):
        made = [_between(x, y, size) for x, y in zip(a, b, strict=True)]
        return type(a)(made) if type(a) in (tuple, list) else tuple(made)
    if isinstance(a, dict):
        return {key: _between(x, b.get(key), size) for key, x in a.items()}
    if isinstance(a, slice) and isinstance(b, slice):
        return slice(*(_between(getattr(a, end), getattr(b, end), size) for end in ("start", "stop", "step")))
    if isinstance(a, np.ndarray):
        if a is b or (isinstance(b, np.ndarray) and a.shape == b.shape and np.array_equal(a, b)):
            return a
        raise CaptureError("an array among its arguments depends on the batch size")
    if type(a) is int and type(b) is int and a != b:
        return a + (b - a) * (size - _SIZES[0])
    if a is b or a == b:
        return a
    if isinstance(a, float) and isinstance(b, float):
        raise CaptureError("a number in it depends on the batch size")
    if callable(a) and callable(b):
        return a
    raise CaptureError(f"{a!r} in it depends on the batch size")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return set(a) == set(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a is b or np.array_equal(a, b)
    return bool(a == b) or callable(a)

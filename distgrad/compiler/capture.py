"""Runs a function once and notes which primitives it calls, on what, in which order.

The function sees ``Traced`` tensors in place of its inputs. They have a shape and a dtype and no values to look at: a
branch on a value, ``item()`` or ``numpy()`` ends the capture with ``CaptureError``, because another input could go
another way. The primitives run for real, on values that are kept beside, so that every shape is known. What they move
in place (running statistics) is put back, and so is the generator of random numbers: a capture leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive
from ..autograd.tensor import Array
from ..func.pytree import flatten, unflatten
from ..ops.random import default_generator
from .graph import Graph, Operation, Value


class CaptureError(Exception):
    """A function whose operations depend on the values of its inputs, or that does what a plan cannot repeat."""


def _refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
    raise CaptureError("it looks at the values of a tensor (item(), bool(), numpy(), or a shape that depends on them)")


class _Placeholder(np.ndarray[Any, Any]):
    """Shape and dtype of a value; whoever reads values from it ends the capture."""

    __array_ufunc__ = __array_function__ = copy = astype = tolist = item = __bool__ = __float__ = __int__ = _refuse
    all = any = max = min = sum = nonzero = argsort = sort = argmax = argmin = reshape = transpose = take = _refuse
    __getitem__ = __setitem__ = __iter__ = __index__ = _refuse


class Traced(Tensor):
    """A tensor inside a capture.

    Attributes:
        value: its place in the graph.
        real: its values.
        shared: other tensors may lie in the same memory, so that a change in place could reach them.
    """

    value: Value
    real: Tensor
    shared: bool

    def __init__(self, value: Value, real: Tensor, shared: bool = False) -> None:
        array = real._data
        filler = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min if array.dtype.kind in "iu" else True
        super().__init__(np.broadcast_to(np.full((), filler, array.dtype), array.shape).view(_Placeholder))
        self.value = value
        self.real = real
        self.shared = shared
        self._requires_grad = value.differentiable

    numpy = item = tolist = data_ptr = __bool__ = __float__ = __int__ = __index__ = __array__ = _refuse

    def _cannot(self, *args: Any, **kwargs: Any) -> Any:
        raise CaptureError("it uses backward(), a hook, a change of history or an assignment on a tensor in the middle")

    backward = register_hook = retain_grad = requires_grad_ = detach_ = __deepcopy__ = __setitem__ = _cannot

    def detach(self) -> Tensor:
        """The same values without history: another name for them in the graph, which no gradient passes."""
        tracer = mode.state.batching
        if not isinstance(tracer, Tracer):
            raise CaptureError("a tensor from inside a capture was kept")
        return tracer.detached(self)

    data = property(detach, _cannot)

    def is_contiguous(self) -> bool:
        """That of the values: shape and order are known."""
        return self.real.is_contiguous()

    def stride(self, dim: int | None = None) -> Any:
        """Those of the values."""
        return self.real.stride(dim)

    def __repr__(self) -> str:
        return f"Traced({self.value!r})"


class Tracer:
    """What ``mode.state.batching`` is during a capture: takes over the calls of primitives."""

    captures = True

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.moved: dict[int, tuple[Array, Array]] = {}  # what may be changed in place, and its values before
        self._externals: dict[int, Value] = {}

    # The calls of ops -----------------------------------------------------------------------------------------------

    def __call__(self, primitive: Primitive, operands: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Runs ``primitive`` on the values and notes the call."""
        state = mode.state
        recording = state.enabled
        for value in keywords.values():
            _check_keyword(primitive, value)
            if isinstance(value, np.ndarray) and value.flags.writeable:
                self.moved.setdefault(id(value), (value, value.copy()))
        if not any(isinstance(x, Traced) for x in operands):
            self._leave()
            try:
                return primitive(*operands, **keywords)  # a constant
            finally:
                self._return(recording)
        real = tuple(x.real if isinstance(x, Traced) else x for x in operands)
        self._leave()
        try:
            result = primitive(*real, **keywords)
        finally:
            self._return(recording)
        inputs = tuple(self._value(x) for x in operands)
        recorded = recording and bool(primitive.vjps) and any(isinstance(x, Value) and x.differentiable for x in inputs)
        results = result if isinstance(result, tuple) else (result,)
        outputs = tuple(
            Value(r._data.shape, r._data.dtype, None, recorded and r._data.dtype.kind == "f") for r in results
        )
        shared = primitive.view or any(
            isinstance(x, Tensor) and np.may_share_memory(x._data, r._data) for x in real for r in results
        )
        self.operations.append(Operation(primitive, inputs, keywords, outputs, recorded))
        if shared:
            for x in operands:
                if isinstance(x, Traced):
                    x.shared = True
        traced = tuple(Traced(value, r, shared) for value, r in zip(outputs, results, strict=True))
        return traced if isinstance(result, tuple) else traced[0]

    def _leave(self) -> None:
        mode.state.batching, mode.state.enabled = None, False

    def _return(self, recording: bool) -> None:
        mode.state.batching, mode.state.enabled = self, recording

    def traces(self, x: Any) -> bool:
        """Whether ``x`` is a value of the graph."""
        return isinstance(x, Traced)

    def _value(self, x: Any) -> Any:
        if isinstance(x, Traced):
            return x.value
        if not isinstance(x, Tensor):
            if isinstance(x, np.ndarray):
                return self._external(Tensor(x))
            return x
        return self._external(x)

    def _external(self, tensor: Tensor) -> Value:
        found = self._externals.get(id(tensor))
        if found is None:
            if tensor._node is not None:
                raise CaptureError("it uses a tensor from outside that has a history of its own")
            array = tensor._data
            if array.dtype.kind == "f" and array.size and np.isnan(array).all() and not tensor._requires_grad:
                raise CaptureError("it computes a constant from the values of a tensor")
            found = Value(array.shape, array.dtype, tensor, tensor.requires_grad)
            self._externals[id(tensor)] = found  # the value keeps the tensor, and so its id, alive
        return found

    def detached(self, tensor: Traced) -> Traced:
        """The same values under a name that needs no gradient."""
        value = Value(tensor.value.shape, tensor.value.dtype)
        self.operations.append(Operation(_IDENTITY, (tensor.value,), {}, (value,)))
        tensor.shared = True
        return Traced(value, tensor.real, shared=True)

    def replace(self, tensor: Tensor, result: Tensor) -> Tensor:
        """A change in place: from here on the name ``tensor`` means ``result``."""
        if not isinstance(tensor, Traced):
            return self._counted(tensor, result)
        if tensor.shared:
            raise CaptureError("it changes in place what other tensors share memory with")
        if not isinstance(result, Traced) or result.value.dtype != tensor.value.dtype:
            raise CaptureError("an in-place change that also changes the dtype")
        if tensor.value.differentiable and not mode.state.enabled:
            raise CaptureError("it changes values under no_grad() and keeps the history that they had")
        tensor.value, tensor.real, tensor._requires_grad = result.value, result.real, result._requires_grad
        return tensor

    def _counted(self, tensor: Tensor, result: Tensor) -> Tensor:
        """``counter.add_(1)`` on a tensor from outside: whole numbers that every run adds again."""
        if (
            isinstance(result, Traced)
            or tensor._data.dtype.kind not in "iu"
            or result._data.dtype != tensor._data.dtype
        ):
            raise CaptureError("it changes a tensor from outside in place")
        step = result._data - tensor._data

        def add() -> None:
            np.add(tensor._data, step, out=tensor._data)
            tensor._changed()

        self.operations.append(Operation(None, (), {}, (), effect=add))
        return tensor

    def check_values(self, check: Callable[[Array], None], x: Tensor) -> None:
        """A check of values, which each run does again."""
        check(x.real._data if isinstance(x, Traced) else x._data)
        if isinstance(x, Traced):
            self.operations.append(Operation(None, (x.value,), {}, (), effect=check))

    # What functions inside vmap ask as well ---------------------------------------------------------------------------

    def has_batched_positions(self, index: Any) -> bool:
        """Called before an index is read: positions that are computed cannot be baked in."""
        if any(isinstance(x, Traced) for x in (index if isinstance(index, tuple) else (index,))):
            raise CaptureError("it indexes with computed positions")
        return False

    def refuse(self, what: str) -> None:
        """Ends the capture."""
        raise CaptureError(what)

    def check_random(self) -> None:
        """Random numbers that a plan would not draw again."""
        raise CaptureError("it draws random numbers in a way that a plan cannot repeat")

    def drawn(self, draw: Callable[[tuple[int, ...]], Array], size: tuple[int, ...]) -> Tensor:
        """Notes a draw; each run of the plan draws anew, from the same generator and in the same order as eager."""
        array = draw(size)
        value = Value(array.shape, array.dtype)
        self.operations.append(Operation(None, (), {"size": size}, (value,), effect=draw))
        return Traced(value, Tensor(array))


def _check_keyword(primitive: Primitive, value: Any) -> None:
    items = value if isinstance(value, tuple | list) else (value,)
    if any(isinstance(item, Traced | _Placeholder) for item in items):
        raise CaptureError(f"{primitive.name} takes computed values as an argument that is not an operand")


# Not offered: it only names a value anew inside a graph.
_IDENTITY = Primitive("Detach", lambda input: input, ("input",), {}, view=True)


def capture(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    """Runs ``function`` on ``args`` and gives its graph. Gradient recording is as the caller has it.

    Args:
        function: takes and returns tensors, nested in tuples, lists and dictionaries, and constants.
        args: example arguments, real ones.
        kwargs: the same.

    Raises:
        CaptureError: the operations depend on values, or something happens that a plan cannot repeat.
    """
    state = mode.state
    if state.batching is not None or state.saved_hooks:
        raise CaptureError("it is called inside vmap, another capture or saved_tensors_hooks")
    leaves, structure = flatten((args, kwargs))
    inputs = [
        Value(x._data.shape, x._data.dtype, None, x.requires_grad) if isinstance(x, Tensor) else None for x in leaves
    ]
    traced = [x if value is None else Traced(value, x.detach(), True) for x, value in zip(leaves, inputs, strict=True)]
    graph = Graph([value for value in inputs if value is not None])
    tracer = Tracer()
    recording, random_state = state.enabled, default_generator.get_state()
    tracer._return(recording)
    try:
        some, named = unflatten(traced, structure)
        result = function(*some, **named)
    finally:
        state.batching, state.enabled = None, recording
        default_generator.set_state(random_state)
        for array, before in tracer.moved.values():
            array[...] = before
    results, graph.structure = flatten(result)
    for x in results:
        if not isinstance(x, Tensor):
            raise CaptureError(f"it returns a {type(x).__name__}, and a plan returns tensors")
        graph.outputs.append(tracer._value(x))
    graph.operations = tracer.operations
    return graph

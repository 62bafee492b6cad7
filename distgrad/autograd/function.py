"""A user's own operations: ``Function``, with a forward and a backward in tensors, as ``torch.autograd.Function``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .engine import Gradient, Node, edge_of
from .grad_mode import enable_grad, mode, no_grad
from .inplace import check, rebase
from .primitive import alias
from .recorded import Packed, pack
from .tensor import Tensor


class FunctionCtx(Node):
    """What ``forward`` leaves for ``backward``, and the recorded node at once: the ``ctx`` of both.

    Attributes of the user's own can be set on it.
    """

    function: type[Function]
    needs_input_grad: tuple[bool, ...] = ()
    materialize_grads = True
    _to_save: tuple[Tensor | None, ...] | None = None
    _saved: list[Any] | None = None
    _non_differentiable: tuple[Tensor, ...] = ()
    _dirty: tuple[Tensor, ...] = ()
    _freed = False

    def name(self) -> str:
        """The class's name and ``Backward``."""
        return f"{self.function.__name__}Backward"

    # For forward -----------------------------------------------------------------------------------------------------

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors (or None) for ``saved_tensors``; changes of them in place before the backward are noticed."""
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument {len(tensors)} is of type "
                    f"{type(tensor).__name__}: keep what is no tensor as an attribute of ctx"
                )
        self._to_save = tensors

    def mark_dirty(self, *args: Tensor) -> None:
        """Says which inputs ``forward`` has changed in place; they have to be among its outputs."""
        self._dirty = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Says which outputs have no gradient."""
        self._non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros (the default) or None for an output that no gradient has reached."""
        self.materialize_grads = value

    # For backward ----------------------------------------------------------------------------------------------------

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What ``save_for_backward`` was given.

        Raises:
            RuntimeError: it has been freed by an earlier backward, or was changed in place.
        """
        if self._freed:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
                f"autograd.grad(). Specify retain_graph=True if you need to backward a second time. ({self.name()})"
            )
        if self._saved is None:
            return self._to_save or ()
        return tuple(self._taken_back(entry) for entry in self._saved)

    def _taken_back(self, entry: Any) -> Tensor | None:
        if entry is None:
            return None
        tensor, version, number = entry
        if isinstance(tensor, Packed):
            tensor = tensor.take_back()
        elif tensor._version != version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"{self.name()} saved a {tensor.dtype} {list(tensor.shape)} at version {version}; it is at version "
                f"{tensor._version} now. Save a clone()."
            )
        if number is None:
            return tensor  # type: ignore[no-any-return]
        output = Tensor(tensor._data)  # one of this node's own: a reference to the very tensor would be a cycle
        output._node, output._output_nr, output._requires_grad = self, number, True
        return output

    # The node --------------------------------------------------------------------------------------------------------

    def record(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Becomes the node of ``outputs``, the results that are tensors among them."""
        self._inputs = [(x._data.shape, x._data.dtype) if isinstance(x, Tensor) else None for x in inputs]
        self._outputs = [(x._data.shape, x._data.dtype) if isinstance(x, Tensor) else None for x in outputs]
        self.shapes = tuple(x._data.shape for x in outputs if isinstance(x, Tensor))

    def save(self, outputs: Sequence[Any]) -> None:
        """Puts away what is to be saved, with its version, or through the hooks of ``saved_tensors_hooks``."""
        numbers = {id(out): number for number, out in enumerate(outputs) if isinstance(out, Tensor)}
        saved: list[Any] = []
        for tensor in self._to_save or ():
            if tensor is None:
                saved.append(None)
                continue
            number = numbers.get(id(tensor)) if tensor._node is self else None
            if mode.state.saved_hooks:
                edge = edge_of(tensor) if number is None and tensor._requires_grad else None
                saved.append((pack(tensor, edge), 0, number))
            elif number is not None:
                values = Tensor(tensor._data)
                values._counter = tensor._versions()
                saved.append((values, tensor._version, number))
            else:
                saved.append((tensor, tensor._version, None))
        self._saved, self._to_save = saved, None

    def release(self) -> None:
        """Drops the saved tensors."""
        if self._saved:
            self._saved, self._freed = [], True

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        """Runs the user's ``backward`` on tensors."""
        given = list(gradient) if self.outputs > 1 else [gradient]
        if all(part is None for part in given):
            return [None] * len(self.next)
        shown: list[Any] = []
        for part, like in zip(given, self._outputs, strict=True):
            if part is not None:
                shown.append(part if isinstance(part, Tensor) else Tensor(part))
            elif self.materialize_grads and like is not None:
                shown.append(Tensor(np.zeros(*like)))
            else:
                shown.append(None)
        returned = self.function.backward(self, *shown)
        returned = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
        count = len(self.next)
        if len(returned) > count and all(x is None for x in returned[count:]):
            returned = returned[:count]
        if len(returned) != count:
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients (expected {count}, got "
                f"{len(returned)})"
            )
        return [self._checked(number, value, create_graph) for number, value in enumerate(returned)]

    def _checked(self, number: int, value: Any, create_graph: bool) -> Gradient | None:
        """One gradient, made to fit the input it belongs to."""
        like = self._inputs[number]
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{self.name()}: expected Variable or None (got {type(value).__name__}) as gradient {number}"
            )
        if like is None:
            raise RuntimeError(
                f"function {self.name()} returned a gradient different from None at position {number + 1}, but the "
                "corresponding forward input was not a Variable"
            )
        if self.next[number] is None:
            return None
        shape, dtype = like
        if value._data.shape != shape:
            try:
                fits = np.broadcast_shapes(value._data.shape, shape) == value._data.shape
            except ValueError:
                fits = False
            if not fits:
                raise RuntimeError(
                    f"Function {self.name()} returned an invalid gradient at index {number} - got "
                    f"{list(value.shape)} but expected shape compatible with {list(shape)}"
                )
            value = value.sum_to_size(shape)
        if value._data.dtype != dtype:
            value = value.to(dtype)
        return value if create_graph else value._data


class Function:
    """Base class of a user's own operations: static methods ``forward`` and ``backward``, called through ``apply``.

    ``forward(ctx, *inputs)``, or ``forward(*inputs)`` with ``setup_context(ctx, inputs, output)``, computes; nothing in
    it is recorded. ``backward(ctx, *gradients)`` gets one gradient for each output and returns one, or None, for each
    input. It is recorded under ``create_graph``, so it can be differentiated unless it is ``once_differentiable``.

        class Cube(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x**3

            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                return g * 3 * x**2

        y = Cube.apply(x)
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the result, or a tuple of them."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> Any:
        """Saves what ``backward`` needs, where ``forward`` takes no ``ctx``."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Any) -> Any:
        """From the gradients of the outputs those of the inputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    vjp = backward

    # For ``func.vmap``: run forward and backward on tensors that stand for many samples, or ...
    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        """... computes all samples at once.

        Args:
            info: ``batch_size`` and ``randomness``.
            in_dims: for each argument, which of its dimensions is the batch; None for one that all samples share.
            args: those of ``apply``.

        Returns:
            The result, or a tuple of them, and where the batch is in it, nested likewise.
        """
        raise NotImplementedError("To use autograd.Function with vmap, implement the vmap staticmethod.")

    def __init__(self) -> None:
        raise RuntimeError(
            "Legacy autograd function with non-static forward method is deprecated: use static methods and apply()"
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs ``forward`` and records the node whose backward is the user's.

        Raises:
            RuntimeError: inside ``vmap``, a dirty input that may not be changed, or an output that is neither.
        """
        batching: Any = mode.state.batching
        if batching is not None and batching.captures:
            batching.refuse(f"it calls {cls.__name__}.apply, whose backward cannot be looked into")
        if batching is not None and any(getattr(x, "_batched", False) for x in args):
            return batching.function(cls, args, kwargs)
        tensors = [isinstance(x, Tensor) for x in args]
        needs = tuple(is_tensor and x.requires_grad for is_tensor, x in zip(tensors, args, strict=True))
        recorded = mode.enabled and any(needs)
        edges = [edge_of(x) if recorded and need else None for x, need in zip(args, needs, strict=True)]
        ctx = FunctionCtx(edges)
        ctx.function, ctx.needs_input_grad = cls, needs
        with no_grad():
            if cls.setup_context is not Function.setup_context:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args, **kwargs)
        several = isinstance(result, (tuple, list))
        outputs = list(result) if several else [result]
        if recorded:
            outputs = ctx_outputs(ctx, args, outputs)
        return tuple(outputs) if several else outputs[0]


def ctx_outputs(ctx: FunctionCtx, inputs: Sequence[Any], outputs: list[Any]) -> list[Any]:
    """The results of ``forward`` with ``ctx`` as their history."""
    plain = {id(x) for x in ctx._non_differentiable}
    dirty = {id(x) for x in ctx._dirty}
    given = {id(x): x for x in inputs if isinstance(x, Tensor)}
    if missing := dirty - {id(out) for out in outputs}:
        raise RuntimeError(
            f"{len(missing)} elements of mark_dirty are not outputs of {ctx.function.__name__}.forward: return the "
            "inputs that it changes in place"
        )
    ctx.outputs = len(outputs)
    ctx.record(inputs, outputs)
    results: list[Any] = []
    for number, out in enumerate(outputs):
        if not isinstance(out, Tensor) or id(out) in plain or out.dtype.kind != "f":
            results.append(out)
            continue
        if id(out) in dirty:
            with enable_grad():
                check(out, True)
            out._changed()
            history = Tensor(out._data)
            history._node, history._output_nr, history._requires_grad = ctx, number, True
            rebase(out, history)
        else:
            if id(out) in given:
                with no_grad():
                    out = alias(out)  # an input that is handed on: a tensor of its own in the same memory
                out._view = None
            out._node, out._output_nr, out._requires_grad = ctx, number, True
        results.append(out)
    ctx.save(results)
    return results


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a ``backward`` that uses more than differentiable operations: a second derivative raises."""

    @functools.wraps(function)
    def wrapped(ctx: FunctionCtx, *gradients: Any) -> Any:
        with no_grad():
            returned = function(ctx, *gradients)
        recorded = [g for g in gradients if isinstance(g, Tensor) and g.requires_grad]
        if not mode.enabled or not recorded:
            return returned
        several = isinstance(returned, tuple)
        values = returned if several else (returned,)
        refused = tuple(_Refusing.of(x, recorded) if isinstance(x, Tensor) else x for x in values)
        return refused if several else refused[0]

    return wrapped


class _Refusing(Node):
    """The history of a gradient that must not be differentiated."""

    @classmethod
    def of(cls, tensor: Tensor, sources: Sequence[Tensor]) -> Tensor:
        out = Tensor(tensor._data)
        out._node, out._requires_grad = cls([edge_of(source) for source in sources]), True
        return out

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")

"""How a module is called: ``forward`` between the hooks that were registered on the module.

Forward hooks see arguments and results. Backward hooks see gradients: an identity is put in front of the module and one
behind it, which gives each of them one node in the graph through which all gradients of the inputs, or of the outputs,
pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..autograd import Tensor
from ..autograd.engine import Node, edge_of
from ..autograd.grad_mode import mode
from ..autograd.tensor import Handle

if TYPE_CHECKING:
    from .module import Module

Gradients = tuple[Tensor | None, ...]


class _Hook(NamedTuple):
    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


def _add(hooks: dict[int, Any], hook: Any, prepend: bool) -> Handle:
    """Enters ``hook`` behind or in front of those that are there."""
    handle = Handle.add(hooks, hook)
    if prepend:
        *before, last = hooks.items()
        hooks.clear()
        hooks.update([last, *before])
    return handle


class HookedCalls:
    """The part of ``Module`` that calls it."""

    forward: Callable[..., Any]
    _forward_pre_hooks: dict[int, _Hook]
    _forward_hooks: dict[int, _Hook]
    _backward_pre_hooks: dict[int, _Hook]
    _backward_hooks: dict[int, _Hook]

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> Handle:
        """Calls ``hook(module, args)`` before every ``forward``; what it returns, unless None, replaces ``args``.

        Args:
            hook: the function.
            prepend: call it before the hooks that are registered already.
            with_kwargs: call ``hook(module, args, kwargs)``; what it returns, unless None, is a pair of both.
        """
        return _add(self._forward_pre_hooks, _Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> Handle:
        """Calls ``hook(module, args, output)`` after every ``forward``; unless None, its result replaces the output.

        Args:
            hook: the function.
            prepend: call it before the hooks that are registered already.
            with_kwargs: call ``hook(module, args, kwargs, output)``.
            always_call: call it (with the output None) also when ``forward`` or a hook before it raises.
        """
        return _add(self._forward_hooks, _Hook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Calls ``hook(module, grad_output)`` before gradients pass the module; a tuple it returns replaces them.

        Args:
            hook: the function; ``grad_output`` has an entry for each output, None for what is no tensor.
            prepend: call it before the hooks that are registered already.
        """
        return _add(self._backward_pre_hooks, _Hook(hook), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Handle:
        """Calls ``hook(module, grad_input, grad_output)`` when the gradients of the module's inputs are known.

        Unless None, what it returns replaces ``grad_input``. Where no input requires a gradient it is called once those
        of the outputs are known.

        Args:
            hook: the function. The gradients are tuples with an entry for each positional argument, None for what is no
                tensor, and for each output, None where no gradient came.
            prepend: call it before the hooks that are registered already.
        """
        return _add(self._backward_hooks, _Hook(hook), prepend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs ``forward`` between the hooks."""
        if not (self._forward_pre_hooks or self._forward_hooks or self._backward_hooks or self._backward_pre_hooks):
            return self.forward(*args, **kwargs)
        return self._call_with_hooks(args, kwargs)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output: Any = None
        called: set[int] = set()
        try:
            for pre_hook in tuple(self._forward_pre_hooks.values()):
                args, kwargs = _changed_arguments(pre_hook, self, args, kwargs)
            watch = _BackwardWatch(self) if self._backward_hooks or self._backward_pre_hooks else None
            if watch is not None:
                args = watch.inputs(args)
            output = self.forward(*args, **kwargs)
            for key, hook in tuple(self._forward_hooks.items()):
                called.add(key)
                changed = _observe(hook, self, args, kwargs, output)
                output = output if changed is None else changed
            return output if watch is None else watch.outputs(output)
        except Exception:
            for key, hook in tuple(self._forward_hooks.items()):
                if hook.always_call and key not in called:
                    try:
                        changed = _observe(hook, self, args, kwargs, output)
                        output = output if changed is None else changed
                    except Exception as second:  # the first is what the caller has to see
                        warnings.warn(
                            f"the forward hook {_name(hook)}, called because of another error, raised {second!r}",
                            stacklevel=3,
                        )
            raise


def _name(hook: _Hook) -> str:
    return repr(getattr(hook.function, "__name__", type(hook.function).__name__))


def _changed_arguments(
    hook: _Hook, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not hook.with_kwargs:
        changed = hook.function(module, args)
        if changed is not None:
            args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs
    changed = hook.function(module, args, kwargs)
    if changed is None:
        return args, kwargs
    if not isinstance(changed, tuple) or len(changed) != 2:
        raise RuntimeError(
            f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
        )
    return changed


def _observe(hook: _Hook, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    return hook.function(module, args, kwargs, output) if hook.with_kwargs else hook.function(module, args, output)


# Backward hooks -----------------------------------------------------------------------------------------------------


class BackwardHookFunctionBackward(Node):
    """An identity of several tensors, named as in PyTorch: what hooks of modules are put on."""

    __slots__ = ()

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Any]:
        """The gradients as they come."""
        return gradient if self.outputs > 1 else (gradient,)


def _through_one_node(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[int, ...], Node | None]:
    """``values`` with the tensors that require a gradient passed through one node; where they stand; and the node."""
    places = tuple(place for place, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad)
    if not places or not mode.enabled:
        return values, (), None
    node = BackwardHookFunctionBackward([edge_of(values[place]) for place in places], len(places))
    changed = list(values)
    for number, place in enumerate(places):
        tensor = Tensor(values[place]._data.view())
        tensor._node, tensor._output_nr, tensor._requires_grad = node, number, True
        tensor._counter = values[place]._versions()  # the memory is the same, so a change of one is one of both
        changed[place] = tensor
    return tuple(changed), places, node


def _spread(values: Any, places: tuple[int, ...], length: int) -> Gradients:
    """A tuple of ``length`` with ``values`` at ``places`` and None elsewhere."""
    out: list[Tensor | None] = [None] * length
    for place, value in zip(places, values, strict=True):
        out[place] = value
    return tuple(out)


def _checked(returned: Any, kind: str, expected: int) -> Gradients:
    gradients = (returned,) if isinstance(returned, Tensor) else tuple(returned)
    if len(gradients) != expected:
        raise RuntimeError(f"{kind}, got {len(gradients)}, but expected {expected}")
    return gradients


class _BackwardWatch:
    """The backward hooks of one call of a module: what is in front of it and what is behind it."""

    def __init__(self, module: Any) -> None:
        self.module: Module = module
        self.hooks = [hook.function for hook in module._backward_hooks.values()]
        self.pre_hooks = [hook.function for hook in module._backward_pre_hooks.values()]
        self.input_places: tuple[int, ...] = ()  # of those that require a gradient
        self.input_kinds: list[tuple[tuple[int, ...], Any] | None] = []  # shape and dtype of each, None for no tensor
        self.grad_outputs: Gradients | None = None  # from when those of the outputs are known to when the inputs' are

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """``args``, from where their gradients are reported."""
        self.input_kinds = [(tuple(x.shape), x.dtype) if isinstance(x, Tensor) else None for x in args]
        args, self.input_places, node = _through_one_node(args)
        if node is not None:
            node.register_hook(self._inputs_are_known)
        return args

    def outputs(self, output: Any) -> Any:
        """``output``, a tensor or a tuple, from where its gradients are reported."""
        values = output if isinstance(output, tuple) else (output,)
        values, places, node = _through_one_node(values)
        if node is None:
            return output
        count = len(values)
        node.register_hook(lambda grad_inputs, _: self._outputs_are_known(grad_inputs, places, count))
        return values if isinstance(output, tuple) else values[0]

    def _outputs_are_known(self, gradients: Any, places: tuple[int, ...], count: int) -> Any:
        grad_outputs = _spread(gradients, places, count)
        for pre_hook in self.pre_hooks:
            returned = pre_hook(self.module, grad_outputs)
            if returned is not None:
                kind = "Backward pre hook returned an invalid number of grad_output"
                grad_outputs = _checked(returned, kind, count)
        if self.input_places:
            self.grad_outputs = grad_outputs
        elif self.hooks:
            self._report_without_inputs(grad_outputs)
        return tuple(grad_outputs[place] for place in places)

    def _report_without_inputs(self, grad_outputs: Gradients) -> None:
        warnings.warn(
            "Full backward hook is firing when gradients are computed with respect to module outputs since no inputs "
            f"require gradients ({type(self.module).__name__}).",
            stacklevel=5,
        )
        for hook in self.hooks:
            returned = hook(self.module, (None,) * len(self.input_kinds), grad_outputs)
            if returned is not None and any(gradient is not None for gradient in returned):
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should always return None or None for "
                    "all gradients."
                )

    def _inputs_are_known(self, gradients: Any, _: Any) -> Any:
        if self.grad_outputs is None:  # no gradient has come through the outputs
            return None
        grad_inputs = _spread(gradients, self.input_places, len(self.input_kinds))
        # as in PyTorch, a tensor that gets no gradient gets zeros
        grad_inputs = tuple(
            Tensor(np.zeros(*kind)) if gradient is None and kind is not None else gradient
            for gradient, kind in zip(grad_inputs, self.input_kinds, strict=True)
        )
        for hook in self.hooks:
            returned = hook(self.module, grad_inputs, self.grad_outputs)
            if returned is not None:
                kind = "Backward hook returned an invalid number of grad_input"
                grad_inputs = _checked(returned, kind, len(self.input_kinds))
        self.grad_outputs = None
        return tuple(grad_inputs[place] for place in self.input_places)

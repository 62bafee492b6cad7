"""Looking at and into the graph, as ``torch.autograd.graph``: hooks on what is saved, hooks on several gradients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from ..registry import no_attribute
from .engine import Node, _passes, edge_of, queue_callback
from .grad_mode import mode
from .tensor import Handle, Tensor


class saved_tensors_hooks:
    """A ``with`` block in which what is saved for the backward pass goes through ``pack_hook``.

    ``pack_hook(tensor)`` gives anything, ``unpack_hook`` of that gives the tensor back when the backward pass needs it:
    to keep residuals compressed, on disk, or not at all (``utils.checkpoint``). Of nested blocks the innermost counts.
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self._pair = (pack_hook, unpack_hook)

    def __enter__(self) -> None:
        if _disabled.message is not None:
            raise RuntimeError(_disabled.message)
        mode.state.saved_hooks = (*mode.state.saved_hooks, self._pair)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mode.state.saved_hooks = mode.state.saved_hooks[:-1]


class _Disabled(threading.local):
    message: str | None = None


_disabled = _Disabled()


class disable_saved_tensors_hooks:
    """A ``with`` block in which entering ``saved_tensors_hooks`` raises ``error_message``."""

    def __init__(self, error_message: str) -> None:
        self._message = error_message
        self._before: str | None = None

    def __enter__(self) -> None:
        if mode.state.saved_hooks:
            raise RuntimeError(self._message)
        self._before, _disabled.message = _disabled.message, self._message

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _disabled.message = self._before


class GradientEdge(NamedTuple):
    """Where the gradient of a tensor goes: a node and which of its outputs."""

    node: Node
    output_nr: int


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge of ``tensor``, which has to require a gradient."""
    if not tensor.requires_grad:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(*edge_of(tensor))


def increment_version(tensor: Tensor | Sequence[Tensor]) -> None:
    """Notes a change of memory that was made behind autograd's back, as with ``numpy()``."""
    for one in [tensor] if isinstance(tensor, Tensor) else tensor:
        one._changed()


class _Handles:
    """Removes several hooks at once."""

    def __init__(self, handles: Sequence[Handle]) -> None:
        self._handles = tuple(handles)

    def remove(self) -> None:
        """Takes all of them out."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> _Handles:
        return self

    def __exit__(self, *unused: object) -> None:
        self.remove()


class _Pass(threading.local):
    """What has come in the backward pass that is running on this thread, which its entry on the stack stands for."""

    callbacks: object = None

    def __init__(self) -> None:
        self.arrived: dict[int, Tensor] = {}


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[..., None], *, mode: str = "all") -> _Handles:
    """Calls ``fn`` once in a backward pass that reaches any of ``tensors``, with their gradients.

    Args:
        tensors: those whose gradients are waited for.
        fn: gets a sequence of gradients (``mode="all"``, after the last has come, with None for those that the pass has
            not reached when it ends) or one (``mode="any"``, the first).
        mode: "all" or "any".
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    now = _Pass()

    def finish() -> None:
        if mode == "all" and len(now.arrived) < len(tensors):
            fn([now.arrived.get(number) for number in range(len(tensors))])
        now.callbacks, now.arrived = None, {}

    def watch(number: int) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            running = _passes.stack[-1]
            if now.callbacks is not running:  # also where the last pass was broken off by an error
                now.callbacks, now.arrived = running, {}
                queue_callback(finish)
            now.arrived[number] = gradient
            if mode == "any":
                if len(now.arrived) == 1:
                    fn(gradient)
            elif len(now.arrived) == len(tensors):
                fn([now.arrived[k] for k in range(len(tensors))])

        return hook

    return _Handles([tensor.register_hook(watch(number)) for number, tensor in enumerate(tensors)])


__all__ = [
    "GradientEdge",
    "disable_saved_tensors_hooks",
    "get_gradient_edge",
    "increment_version",
    "register_multi_grad_hook",
    "saved_tensors_hooks",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.autograd.graph'", name, __all__)

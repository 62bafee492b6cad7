"""Recomputation instead of memory, as ``torch.utils.checkpoint``: what a part of the forward saves is computed anew.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016). While the part runs, a hook puts a number in place
of each tensor that would be saved; the first of them that the backward pass asks for runs the part again and fills in
all. The graph is the ordinary one, so hooks, ``autograd.grad`` and ``create_graph`` see nothing of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..autograd import Tensor, enable_grad
from ..autograd.graph import saved_tensors_hooks
from ..ops.random import default_generator
from ..registry import no_attribute


class CheckpointError(RuntimeError):
    """The part did not save, the second time, what it had saved the first time."""


class _Enough(Exception):
    """Everything that was saved has been computed again."""


def _metadata(tensor: Tensor) -> tuple[tuple[int, ...], Any]:
    return tuple(tensor.shape), tensor.dtype


class _Part:
    """One run of a part of the forward: what it saved, and how to compute that again."""

    def __init__(self, again: Callable[[], Any], early_stop: bool, check: bool) -> None:
        self._again = again
        self._early_stop = early_stop
        self._check = check
        self._saved: list[tuple[tuple[int, ...], Any]] = []
        self._computed: dict[int, Tensor] = {}
        self._taken: set[int] = set()

    def pack(self, tensor: Tensor) -> int:
        """Keeps the place of ``tensor`` only."""
        self._saved.append(_metadata(tensor))
        return len(self._saved) - 1

    def unpack(self, number: int) -> Tensor:
        """The tensor, computed again with all others where it is not there (or was taken, in another backward)."""
        if number not in self._computed:
            self._computed.clear()
            self._taken.clear()
            self._compute()
        tensor = self._computed[number]
        self._taken.add(number)
        if len(self._taken) == len(self._saved):
            self._computed = {}  # the last one has been asked for: the memory goes with it
        return tensor

    def _compute(self) -> None:
        seen = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal seen
            if seen < len(self._saved):
                if self._check and self._saved[seen] != _metadata(tensor):
                    raise CheckpointError(
                        "checkpoint: Recomputed values for the following tensors have different metadata than during "
                        f"the forward pass: tensor {seen} was {self._saved[seen]} and is {_metadata(tensor)} now. The "
                        "function has to compute the same when it is called again: it must not depend on state that "
                        "it changes."
                    )
                self._computed[seen] = tensor.detach()
            seen += 1
            if self._early_stop and seen == len(self._saved):
                raise _Enough
            return tensor

        with contextlib.suppress(_Enough), enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
            self._again()
        if seen != len(self._saved):
            raise CheckpointError(
                f"checkpoint: A different number of tensors was saved during the original forward and recomputation: "
                f"{len(self._saved)} and {seen}. The function has to compute the same when it is called again."
            )


def _no_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return contextlib.nullcontext(), contextlib.nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool = False,
    context_fn: Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]] = _no_contexts,
    determinism_check: str = "default",
    debug: bool = False,
    preserve_rng_state: bool = True,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, without keeping what its backward will need; that is computed again then.

    Args:
        function: has to compute the same when it is called again.
        args: its arguments; they are kept.
        use_reentrant: only False, PyTorch's recommended form.
        context_fn: gives two context managers, around the first run and around the second.
        determinism_check: "default" compares shapes and dtypes of what is saved, "none" only counts.
        debug: accepted; the messages say what they can.
        preserve_rng_state: run the second time with the random numbers (of ``default_generator``) of the first.
        early_stop: end the second run as soon as everything that was saved is there.
        kwargs: more arguments of ``function``.

    Raises:
        CheckpointError: in the backward pass, when the second run saves something else.
        ValueError: another form is asked for.
    """
    if use_reentrant:
        raise ValueError("checkpoint: use_reentrant=True is not here; use_reentrant=False computes the same and more")
    if determinism_check not in ("default", "none"):
        raise ValueError(f"checkpoint: determinism_check is 'default' or 'none', not {determinism_check!r}")
    first, second = context_fn()
    state = default_generator.get_state() if preserve_rng_state else None

    def again() -> None:
        present = default_generator.get_state()
        try:
            if state is not None:
                default_generator.set_state(state)
            with second:
                function(*args, **kwargs)
        finally:
            default_generator.set_state(present)

    part = _Part(again, early_stop, determinism_check == "default")
    with saved_tensors_hooks(part.pack, part.unpack), first:
        return function(*args, **kwargs)


def checkpoint_sequential(
    functions: Sequence[Callable[[Any], Any]] | Iterable[Callable[[Any], Any]],
    segments: int,
    input: Any,
    use_reentrant: bool = False,
    **kwargs: Any,
) -> Any:
    """Runs layers (a list or ``nn.Sequential``) in ``segments`` parts, all but the last of which are checkpointed.

    Args:
        functions: each takes the result of the one before.
        segments: into how many parts of about equal length they are cut.
        input: of the first.
        use_reentrant: as of ``checkpoint``.
        kwargs: as of ``checkpoint``.
    """
    layers = list(functions)
    if not 1 <= segments <= max(len(layers), 1):
        raise ValueError(f"checkpoint_sequential: segments is between 1 and the {len(layers)} layers, not {segments}")

    def run(part: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
        def forward(value: Any) -> Any:
            for layer in part:
                value = layer(value)
            return value

        return forward

    size = len(layers) // segments
    for start in range(0, size * (segments - 1), size):
        part = run(layers[start : start + size])
        input = checkpoint(part, input, use_reentrant=use_reentrant, **kwargs)
    return run(layers[size * (segments - 1) :])(input)


__all__ = [
    "CheckpointError",
    "checkpoint",
    "checkpoint_sequential",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.utils.checkpoint'", name, __all__)

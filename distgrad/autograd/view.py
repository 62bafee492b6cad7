"""What a view remembers, so that changes in place reach the history of everything that shares the memory.

A change in place of a base gives it a new history; its views get theirs by being taken again from the base, when they
are next asked for it (``View.refresh``). A change in place of a view is a change of its base (``inplace.rebase``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .grad_mode import mode, set_grad_enabled

if TYPE_CHECKING:
    from .tensor import Tensor


# One operation on the way from a base to a view: the primitive, its operands but the first, its keywords, and which of
# several results the view is (None: the only one).
Step = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], int | None]


_new = object.__new__


class View:
    """The way from ``base`` to a view of it, and the version of the memory at which the view's history was right."""

    __slots__ = ("base", "multiple", "previous", "recorded", "step", "version")

    base: Tensor
    previous: View | None
    multiple: bool
    recorded: bool

    def __init__(self, source: Tensor, step: Step, version: int, recorded: bool) -> None:
        before = self.previous = source._view
        self.step = step
        self.version = version
        # PyTorch forbids to change views of several in place, and such as were made without recording: see ``check``.
        if before is None:
            self.base = source
            self.multiple = step[3] is not None
            self.recorded = recorded
        else:
            self.base = before.base
            self.multiple = before.multiple or step[3] is not None
            self.recorded = before.recorded and recorded

    @classmethod
    def of_one(cls, source: Tensor, step: Step, version: int, recorded: bool) -> View:
        """``View(...)`` where the step has one result, at half its cost."""
        view: View = _new(cls)
        before = view.previous = source._view
        view.step = step
        view.version = version
        if before is None:
            view.base = source
            view.multiple = False
            view.recorded = recorded
        else:
            view.base = before.base
            view.multiple = before.multiple
            view.recorded = before.recorded and recorded
        return view

    def steps(self) -> tuple[Step, ...]:
        """From the base to here."""
        steps: list[Step] = []
        view: View | None = self
        while view is not None:
            steps.append(view.step)
            view = view.previous
        return tuple(reversed(steps))

    def refresh(self, tensor: Tensor) -> None:
        """Gives ``tensor``, whose record this is, the history that its base has now."""
        version = tensor._counter[0]  # type: ignore[index]
        if self.base._requires_grad and mode.enabled:
            self.check(tensor, "its base or another view of its base has been")
            with set_grad_enabled(True):
                fresh = replay(self.base, self.steps())
            if tensor._inherited:
                tensor._inherited = False
            self.version = version
            take_history(tensor, fresh)
        elif self.base._requires_grad:
            return  # nothing is recorded now: put off
        self.version = version

    def inherit(self, tensor: Tensor) -> None:
        """Follows a base that was told to require a gradient, or to do so no longer, after the view was made.

        As in PyTorch the view then says the same of itself, but a gradient that arrives at it goes nowhere.
        """
        if self.base._requires_grad:
            if tensor._data.dtype.kind == "f" and not tensor._inference:
                tensor._requires_grad = tensor._inherited = True
        elif tensor._inherited:
            tensor._requires_grad = tensor._inherited = False

    def check(self, tensor: Tensor, what: str) -> None:
        """Refuses a recorded change that would have no meaning; ``what`` says whose it is."""
        if not self.recorded:
            raise RuntimeError(
                f"A view was created in no_grad mode and {what} modified inplace with grad mode enabled. Given that "
                "this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both "
                "the view and the inplace either both inside the no_grad block (if you don't want the inplace to be "
                "tracked) or both outside (if you want the inplace to be tracked)."
            )
        if self.multiple:
            name = tensor._node.name() if tensor._node is not None else self.step[0]
            raise RuntimeError(
                f"Output {tensor._output_nr} of {name} is a view and {what} modified inplace. This view is the output "
                "of a function that returns multiple views. Such functions do not allow the output views to be "
                "modified inplace. You should replace the inplace operation by an out-of-place one."
            )


def take_history(tensor: Tensor, result: Tensor) -> None:
    """Gives ``tensor`` the history of ``result``; a gradient that was to be retained is that of its new values."""
    retained = tensor._retains_grad and tensor._node is not None
    if retained and tensor._node is not None:
        tensor._node.retain(tensor._output_nr, None)
        tensor._retains_grad = False
    tensor._node, tensor._output_nr = result._node, result._output_nr
    tensor._requires_grad = result._requires_grad
    if retained:
        tensor.retain_grad()


def replay(source: Any, steps: tuple[Step, ...]) -> Any:
    """Takes the view again, of a tensor or an array."""
    for primitive, operands, keywords, number in steps:
        source = primitive(source, *operands, **keywords)
        if number is not None:
            source = source[number]
    return source

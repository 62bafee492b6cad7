"""Whether operations are recorded: a setting of each thread, with PyTorch's context managers."""

from __future__ import annotations

import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


class State:
    """The settings of one thread."""

    __slots__ = ("batching", "enabled", "inference", "quietly", "retaining", "saved_hooks")

    def __init__(self) -> None:
        self.enabled = True
        self.inference = False
        self.retaining = False  # the backward pass that runs leaves what nodes have saved
        # Inside vmap: what takes over the calls of primitives.
        self.batching: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = None
        # The pairs of pack and unpack of ``saved_tensors_hooks``, innermost last.
        self.saved_hooks: tuple[tuple[Callable[[Any], Any], Callable[[Any], Any]], ...] = ()
        # Infinities and NaN are values here, as in PyTorch, not warnings. Entering np.errstate costs three times what
        # a small operation does; running it in a context whose setting was changed once costs next to nothing.
        context = contextvars.copy_context()
        context.run(np.seterr, all="ignore")
        self.quietly = context.run


class _Mode(threading.local):
    """Each thread starts recording, as in PyTorch: a data-loading thread must not inherit a trainer's ``no_grad``."""

    def __init__(self) -> None:
        self.state = State()

    # For those who are not in a hurry.

    @property
    def enabled(self) -> bool:
        """Whether operations are recorded."""
        return self.state.enabled

    @property
    def inference(self) -> bool:
        """Whether results are inference tensors."""
        return self.state.inference


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations on this thread are being recorded."""
    return mode.enabled


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside ``inference_mode``."""
    return mode.inference


class _Switch:
    """A context manager, also usable as a decorator, that sets this thread's mode and puts back what was there."""

    def __init__(self, enabled: bool, inference: bool | None = None) -> None:
        self._set = (enabled, inference)
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((mode.enabled, mode.inference))
        mode.state.enabled = self._set[0]
        if self._set[1] is not None:
            mode.state.inference = self._set[1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mode.state.enabled, mode.state.inference = self._before.pop()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function):
            return self._each_step(function)

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            # A new switch a call: one instance shared by two threads would mix up what to put back.
            with _Switch(*self._set):
                return function(*args, **kwargs)

        return wrapped

    def _each_step(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A generator runs between the caller's own steps, so the mode is set for each of its steps alone."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            resume: Callable[[], Any] = functools.partial(next, generator)
            try:
                while True:
                    try:
                        with _Switch(*self._set):
                            value = resume()
                    except StopIteration as end:
                        return end.value
                    try:
                        resume = functools.partial(generator.send, (yield value))
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        resume = functools.partial(generator.throw, error)
            finally:
                with _Switch(*self._set):
                    generator.close()

        return wrapped


class no_grad(_Switch):
    """Operations inside are not recorded; their results do not require a gradient. Also a decorator: ``@no_grad()``."""

    def __init__(self) -> None:
        super().__init__(False)

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """``@no_grad`` without parentheses decorates, as in PyTorch."""
        return super().__new__(cls) if function is None else no_grad()(function)


class enable_grad(_Switch):
    """Operations inside are recorded, also within ``no_grad``."""

    def __init__(self) -> None:
        super().__init__(True)

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """``@enable_grad`` without parentheses decorates, as in PyTorch."""
        return super().__new__(cls) if function is None else enable_grad()(function)


class inference_mode(_Switch):
    """``no_grad`` whose results can never take part in a recorded operation that would have to save them.

    Args:
        mode: ``False`` leaves inference mode and records again.
    """

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode, inference=mode)

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        """``@inference_mode`` without parentheses decorates, as in PyTorch."""
        return super().__new__(cls) if isinstance(mode, bool) else inference_mode()(mode)


class set_grad_enabled(_Switch):
    """Recording on or off, at once when called as a function, or for a ``with`` block.

    Args:
        mode: whether to record.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        super().__enter__()
        self._applied = True

    def __enter__(self) -> None:
        # The constructor has applied it already; entering the block must not lose what was there before it.
        if self._applied:
            self._applied = False
            return
        super().__enter__()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """As a decorator it only holds inside the function: what the constructor applied is put back."""
        if self._applied:
            self._applied = False
            self.__exit__(None, None, None)
        return super().__call__(function)

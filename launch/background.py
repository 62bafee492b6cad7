"""One thing at a time in a thread of its own, while the training goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Background:
    """Runs calls one after the other in a thread; leaving its ``with`` block waits for the last."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="distgrad-background")
        self._running: Future[Any] | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)

    def start(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Begins a call when the one before has ended; raises what that one raised."""
        self.wait()
        self._running = self._pool.submit(function, *args, **kwargs)

    def wait(self) -> None:
        """Returns when nothing runs any more; raises what it raised, once."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

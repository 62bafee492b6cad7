"""How far it is: a bar on a terminal, a line now and then in a log file, on rank 0 only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TextIO

_LAUNCHERS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")  # set for a process that an MPI launcher started
_DELAY = 0.5  # seconds before a bar appears: by then a line printed before it has come through the launcher's pipe
_BAR = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {rate_noinv_fmt}, {remaining} left{postfix}"
_PARENTS_STDERR = "/proc/{pid}/fd/2"


class Progress:
    """Counts images against a total and shows images/s and the time left.

    On a terminal it is a bar (tqdm). Elsewhere, as in a log file, it is a line every ``interval`` seconds, none for
    what takes less. Ranks other than 0 show nothing.

    Args:
        total: images to come, over all ranks.
        description: what is counted, such as "epoch 2/3".
        rank: this process's rank.
        initial: images that an interrupted run has counted already.
        style: "bar", "lines" or "none"; "auto" asks if ``stream`` ends at a terminal, even through ``mpirun``.
        interval: seconds between two lines.
        stream: where to; standard error by default.
        clock: gives seconds.
    """

    def __init__(
        self,
        total: int,
        description: str,
        *,
        rank: int = 0,
        initial: int = 0,
        style: Literal["auto", "bar", "lines", "none"] = "auto",
        interval: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.count = initial
        self.description = description
        self._stream = stream if stream is not None else sys.stderr
        self._interval = interval
        self._clock = clock
        self._initial = initial
        self._started = self._shown = clock()
        self._style = style if rank == 0 else "none"
        self._bar: Any = None
        self._terminal = terminal_of(self._stream) if self._style in ("auto", "bar") else None
        if self._style == "auto":
            self._style = "lines" if self._terminal is None else "bar"
        if self._style == "bar":
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=description,
                unit=" images",
                file=self._terminal or self._stream,
                ncols=columns(self._terminal) if self._terminal is not None else None,
                leave=False,
                delay=_DELAY,
                bar_format=_BAR,
            )

    def update(self, images: int, **values: float) -> None:
        """Counts ``images`` more, over all ranks; ``values`` such as ``loss`` are shown beside."""
        self.count += images
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
            self._bar.update(images)
        elif self._style == "lines":
            now = self._clock()
            if now - self._shown >= self._interval:
                self._shown = now
                self._stream.write(self._line(now, values) + "\n")
                self._stream.flush()

    @property
    def images_per_second(self) -> float:
        """The mean rate since the start, over all ranks; 0 before the first image."""
        return self._rate(self._clock())

    def close(self) -> None:
        """Takes the bar away; the report's line stands in its place. Closing twice is fine."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            if self._terminal is not None and self._terminal is not self._stream:
                self._terminal.close()
        self._style = "none"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rate(self, now: float) -> float:
        elapsed = now - self._started
        return (self.count - self._initial) / elapsed if elapsed > 0 else 0.0

    def _line(self, now: float, values: dict[str, float]) -> str:
        rate = self._rate(now)
        parts = [f"{self.description}: {self.count}/{self.total} images", f"{rate:.1f} images/s"]
        if rate > 0:
            parts.append(f"{duration((self.total - self.count) / rate)} left")
        parts += [f"{name} {value:.4g}" for name, value in values.items()]
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def terminal_of(stream: TextIO) -> TextIO | None:
    """The terminal that ``stream`` ends at, opened for writing; ``None`` where it ends elsewhere.

    A launcher such as ``mpirun`` passes its ranks' standard error on through a pipe, and only whole lines of it, so
    that a bar would appear when it is over. So a rank asks where the launcher's own standard error goes, and if that
    is a terminal, the bar goes there directly. The rank's standard output says nothing: Open MPI gives every rank a
    pseudo-terminal there, also when its own output goes to a file.
    """
    try:
        if stream.isatty():
            return stream
        if stream.fileno() != 2 or not any(name in os.environ for name in _LAUNCHERS):
            return None
        descriptor = os.open(_PARENTS_STDERR.format(pid=os.getppid()), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except (OSError, ValueError):  # a stream without a descriptor, a closed one, no /proc, another user's launcher
        return None
    if not os.isatty(descriptor):
        os.close(descriptor)
        return None
    os.set_blocking(descriptor, True)
    return open(descriptor, "w", encoding=stream.encoding or "utf-8")


def columns(terminal: TextIO) -> int:
    """Width of a terminal, in characters; 80 where it does not say."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns or 80
    except OSError:
        return 80

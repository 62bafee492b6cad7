"""Which channel hides communication behind computation on this machine: found out by trying each.

Most MPI libraries move a message only while somebody is inside of MPI. A thread that stays inside needs a core; one
that looks in now and then costs less and moves less; and where every core computes and memory is the wire, doing all of
it at the end may be fastest. A short step of matrix products with an all-reduce meanwhile tells.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from ..registry import nearest
from .channel import CHANNELS, Channel
from .communicator import Communicator

# What is tried: products of about this many milliseconds, and a message of a usual bucket's size or of all gradients.
COMPUTE_SECONDS = 0.02
MESSAGE_BYTES = 8 << 20
ROUNDS = 3
# Below so many bytes of gradients a step has nothing worth hiding, and the trial would take longer than it can save.
WORTH_HIDING = 4 << 20


class Progress(NamedTuple):
    """How gradients travel, and why.

    Attributes:
        name: "thread", "patient", "poll" or "none".
        reason: a clause that says why: what was asked for, or what was measured.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_progress(wanted: str, communicator: Communicator, gradient_bytes: int) -> Progress:
    """The channel for a model, the same on every rank. A collective.

    Args:
        wanted: the name of a channel, or "auto".
        communicator: the ranks; used for the trial.
        gradient_bytes: of all gradients together.

    Raises:
        ValueError: there is no such channel.
    """
    if wanted != "auto":
        if wanted not in CHANNELS:
            names = ["auto", *CHANNELS]
            raise ValueError(f"progress is {wanted!r}, must be one of {', '.join(names)}.{nearest(wanted, names)}")
        return Progress(wanted, "as asked")
    if communicator.world_size == 1:
        return Progress("none", "one rank")
    if gradient_bytes < WORTH_HIDING:
        return Progress("none", f"{gradient_bytes / (1 << 20):.1f} MiB of gradients: nothing worth hiding")
    if communicator.backend != "mpi":
        return Progress("none", f"ranks are {communicator.backend}")
    names = [name for name in CHANNELS if communicator.concurrent or name in ("poll", "none")]
    seconds = dict(zip(names, measure(names, communicator, min(gradient_bytes, MESSAGE_BYTES)), strict=True))
    best = min(names, key=lambda name: seconds[name])
    figures = ", ".join(f"{name} {1000 * seconds[name]:.1f}" for name in names)
    return Progress(best, f"ms of a trial step: {figures}")


def measure(names: list[str], communicator: Communicator, message_bytes: int) -> list[float]:
    """Seconds of a step that computes for a while and all-reduces meanwhile, a channel each. A collective.

    The slowest rank counts, and of several rounds the median: every rank gets the same figures.
    """
    own = communicator.duplicate()
    channels = [CHANNELS[name]() for name in names]
    message = np.zeros(message_bytes // 4, dtype=np.float32)
    matrix = np.ones((256, 256), dtype=np.float32)
    product = np.empty_like(matrix)
    products = _calibrated(matrix, product, own)
    figures = np.zeros((ROUNDS + 1, len(names)))
    for row in figures:  # the first round is for warming up: connections, threads
        for column, channel in enumerate(channels):
            own.barrier()
            begin = time.perf_counter()
            ticket = channel.submit(channel.reduce(own, message, f"trial of the channel {channel.name!r}"))
            for _ in range(products):
                np.matmul(matrix, matrix, out=product)
                channel.poll()
            channel.wait(ticket)
            row[column] = time.perf_counter() - begin
    for channel in channels:
        channel.close()
    own.all_reduce(figures, "max")
    own.free()
    return [float(seconds) for seconds in np.median(figures[1:], axis=0)]


def _calibrated(matrix: np.ndarray, product: np.ndarray, communicator: Communicator) -> int:
    """How many products take COMPUTE_SECONDS on the slowest rank."""
    np.matmul(matrix, matrix, out=product)
    begin = time.perf_counter()
    for _ in range(10):
        np.matmul(matrix, matrix, out=product)
    seconds = np.array([(time.perf_counter() - begin) / 10])
    communicator.all_reduce(seconds, "max")
    return max(1, round(COMPUTE_SECONDS / float(seconds[0])))


def channel_for(progress: Progress) -> Channel:
    """A channel of this kind."""
    return CHANNELS[progress.name]()

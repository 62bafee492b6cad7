"""Who carries the buckets while backward goes on: a thread, the backward pass itself, or nobody before its end.

A task is a generator that communicates; where it yields a :class:`Work` it wants to go on when that is done. Tasks run
one after the other in the order in which they are submitted, the same on every rank. Which channel hides the most
depends on the MPI library, the network and whether there is a core to spare, so :mod:`progress` measures it.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

from .collective_log import labelled
from .communicator import Array, Communicator, Work

Task: TypeAlias = Iterator[Work]

# Seconds between two looks at a message by a thread that leaves the core to others: at first, as coarse as a timer of
# the kernel, and at most, for messages that take long. Over 1 Gbit/s a look each millisecond moves as much as twenty
# do, and costs a third of the time on the core.
PATIENCE = 5e-5, 1e-3


class Ticket:
    """A task on its way."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Runs the task to its end here, waiting for each message."""
        try:
            for work in self.task:
                work.wait()
        except BaseException as error:
            self.error = error
        self.done.set()


class Channel:
    """Carries tasks at the end of the backward pass, when somebody waits for them: the channel "none".

    After a task has failed the ones behind it fail with the same exception, since the ranks are not in step any more.
    """

    name = "none"

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._broken: BaseException | None = None

    def reduce(self, communicator: Communicator, array: Array, label: str) -> Task:
        """The sum of ``array``, contiguous, over all ranks in the way that suits this channel.

        Args:
            communicator: the ranks.
            array: overwritten by the sum.
            label: what it is, for logs.
        """
        with labelled(label):
            communicator.all_reduce(array)
        yield from ()

    def submit(self, task: Task) -> Ticket:
        """Takes a task on."""
        ticket = Ticket(task)
        self._waiting.append(ticket)
        return ticket

    def poll(self) -> None:
        """Called between operations of a backward pass: a moment to look after what is on its way."""

    def wait(self, ticket: Ticket) -> None:
        """Returns when the task is done; raises what it raised."""
        while not ticket.done.is_set():
            self._run(self._waiting.popleft())
        self._check(ticket)

    def close(self) -> None:
        """Ends the channel, when nothing is on its way any more."""

    def _run(self, ticket: Ticket) -> None:
        if self._broken is not None:
            ticket.error = self._broken
            ticket.done.set()
        else:
            ticket.run()
            self._broken = ticket.error

    def _check(self, ticket: Ticket) -> None:
        if ticket.error is not None:
            raise ticket.error


class PollChannel(Channel):
    """Starts messages and looks after them between operations: no thread, no core, progress only when polled."""

    name = "poll"

    def __init__(self) -> None:
        super().__init__()
        self._work: Work | None = None

    def reduce(self, communicator: Communicator, array: Array, label: str) -> Task:
        """Started, to be tested."""
        with labelled(label):
            work = communicator.start_all_reduce(array)
        yield work

    def submit(self, task: Task) -> Ticket:
        """Takes a task on, and begins it if nothing is before it."""
        ticket = super().submit(task)
        self.poll()
        return ticket

    def poll(self) -> None:
        """Goes on with the first task as far as that does not mean to wait, then with the next."""
        while self._waiting and (self._work is None or self._work.test()):
            self._step(self._waiting[0])

    def wait(self, ticket: Ticket) -> None:
        """Returns when the task is done; raises what it raised."""
        while not ticket.done.is_set():
            if self._work is not None:
                self._work.wait()
            self._step(self._waiting[0])
        self._check(ticket)

    def _step(self, ticket: Ticket) -> None:
        """The first task up to its next message."""
        self._work = None
        try:
            if self._broken is not None:
                raise self._broken
            self._work = next(ticket.task)
        except StopIteration:
            self._waiting.popleft()
            ticket.done.set()
        except BaseException as error:
            self._broken = ticket.error = error
            self._waiting.popleft()
            ticket.done.set()


class ThreadChannel(Channel):
    """A thread that does blocking collectives. MPI spins in them, so it is best with a core of its own."""

    name = "thread"

    def __init__(self) -> None:
        super().__init__()
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, task: Task) -> Ticket:
        """Hands a task to the thread."""
        ticket = Ticket(task)
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self._serve,), name=f"{threading.current_thread().name} buckets", daemon=True
            )
            self._thread.start()
        self._queue.put(ticket)
        return ticket

    def wait(self, ticket: Ticket) -> None:
        """Returns when the task is done; raises what it raised."""
        ticket.done.wait()
        self._check(ticket)

    def close(self) -> None:
        """Lets the thread end after what it has been given."""
        self._queue.put(None)

    def _serve(self) -> None:
        while (ticket := self._queue.get()) is not None:
            self._run(ticket)
            del ticket  # with its arrays, while the next one is awaited


class PatientChannel(ThreadChannel):
    """A thread that starts a message, looks after it and sleeps in between: it leaves the core to the computation.

    As soon as somebody waits there is nothing to leave the core to, and it sleeps no more.
    """

    name = "patient"

    def __init__(self) -> None:
        super().__init__()
        self._urgent = False

    def reduce(self, communicator: Communicator, array: Array, label: str) -> Task:
        """Started, to be tested."""
        with labelled(label):
            work = communicator.start_all_reduce(array)
        yield _Patient(work, self)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits."""
        return self._urgent

    def wait(self, ticket: Ticket) -> None:
        """Returns when the task is done; raises what it raised."""
        self._urgent = True
        try:
            super().wait(ticket)
        finally:
            self._urgent = False


class _Patient:
    """Work that is waited for with sleep."""

    def __init__(self, work: Work, channel: PatientChannel) -> None:
        self._work = work
        self._channel = channel

    def test(self) -> bool:
        return self._work.test()

    def wait(self) -> None:
        pause, longest = PATIENCE
        while not self._work.test():
            if self._channel.urgent:
                self._work.wait()
                return
            time.sleep(pause)
            pause = min(1.5 * pause, longest)


class AtTheEnd:
    """Work that is done as soon as somebody waits for it: what a task does next may block, but not in between."""

    def test(self) -> bool:
        """False: polling does not go beyond."""
        return False

    def wait(self) -> None:
        """Returns."""


CHANNELS: dict[str, type[Channel]] = {c.name: c for c in (ThreadChannel, PatientChannel, PollChannel, Channel)}

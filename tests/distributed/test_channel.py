"""The channels: each carries the same tasks in the same order, and none hangs when one of them fails."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from distgrad import distributed
from distgrad.distributed import threads
from distgrad.distributed.channel import CHANNELS, PollChannel, Task, Ticket
from distgrad.distributed.progress import choose_progress, measure
from distgrad.errors import CommunicationError

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_tasks_run_in_the_order_of_submission(name: str, world_size: int) -> None:
    def body() -> None:
        world = distributed.communicator()
        channel = CHANNELS[name]()
        done: list[int] = []

        def task(number: int) -> Task:
            array = np.full(3, number + world.rank)
            yield from channel.reduce(world, array, f"message {number}")
            np.testing.assert_array_equal(array, number * world_size + sum(range(world_size)))
            done.append(number)

        tickets = []
        for number in range(6):
            tickets.append(channel.submit(task(number)))
            channel.poll()
        channel.wait(tickets[3])
        assert done[:4] == [0, 1, 2, 3]
        for ticket in tickets:
            channel.wait(ticket)
        assert done == list(range(6))
        channel.close()

    generator = np.random.default_rng(0)
    jitter = generator.uniform(0, 0.003, (world_size, 6))
    threads.run(world_size, body, delay=lambda rank, sequence: float(jitter[rank, sequence % 6]))


@pytest.mark.parametrize("name", CHANNELS)
def test_a_task_that_fails_is_raised_where_it_is_waited_for_and_by_all_behind_it(name: str) -> None:
    channel = CHANNELS[name]()

    def failing() -> Task:
        yield from ()
        raise KeyError("lost")

    def fine() -> Task:
        yield from ()

    tickets = [channel.submit(fine()), channel.submit(failing()), channel.submit(fine())]
    channel.wait(tickets[0])
    for ticket in tickets[1:]:
        with pytest.raises(KeyError, match="lost"):
            channel.wait(ticket)
    channel.close()


@pytest.mark.parametrize("name", ["thread", "patient"])
def test_a_thread_carries_while_the_rank_computes(name: str) -> None:
    """Rank 0 submits and never looks again; its message is through before it waits."""

    def body() -> bool:
        world = distributed.communicator()
        channel = CHANNELS[name]()
        ticket = channel.submit(channel.reduce(world, np.ones(2), "message"))
        through = ticket.done.wait(30)
        channel.close()
        return through

    assert threads.run(2, body) == [True, True]


def test_polling_starts_a_message_and_goes_on_when_it_is_through() -> None:
    started = threading.Event()

    def body() -> None:
        world, channel = distributed.communicator(), PollChannel()
        if world.rank == 0:
            assert started.wait(30)
        first, second = np.ones(2), np.ones(2)
        tickets: list[Ticket] = [channel.submit(channel.reduce(world, array, "message")) for array in (first, second)]
        if world.rank == 1:
            channel.poll()
            assert not tickets[0].done.is_set()  # rank 0 has not come
            started.set()
        deadline = time.monotonic() + 30
        while not tickets[1].done.is_set() and time.monotonic() < deadline:
            channel.poll()
        np.testing.assert_array_equal([first, second], 2.0)

    threads.run(2, body)


def test_a_failed_message_breaks_a_thread_but_not_the_interpreter() -> None:
    """Rank 1 leaves; the thread of rank 0 learns it, and rank 0 where it waits."""

    def body() -> None:
        world = distributed.communicator()
        if world.rank == 0:
            channel = CHANNELS["thread"]()
            ticket = channel.submit(channel.reduce(world, np.ones(2), "message"))
            with pytest.raises(CommunicationError, match="rank 1 ended without joining"):
                channel.wait(ticket)

    threads.run(2, body)


def test_the_choice_is_the_same_on_every_rank_and_says_why() -> None:
    def body() -> list[str]:
        world = distributed.communicator()
        figures = measure(list(CHANNELS), world, 1 << 16)
        assert len(figures) == len(CHANNELS) and min(figures) > 0
        assert str(choose_progress("auto", world, 1 << 10)) == "none (0.0 MiB of gradients: nothing worth hiding)"
        assert str(choose_progress("auto", world, 1 << 30)) == "none (ranks are threads)"
        assert str(choose_progress("poll", world, 1 << 30)) == "poll (as asked)"
        return [repr(figures)]

    assert len({str(result) for result in threads.run(3, body)}) == 1


def test_an_unknown_channel_lists_its_siblings() -> None:
    with pytest.raises(ValueError, match=r"must be one of auto, thread, patient, poll, none\. Did you mean 'thread'"):
        choose_progress("threads", distributed.SingleCommunicator(), 0)

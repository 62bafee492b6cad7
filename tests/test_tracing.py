"""Spans: what is recorded, by which thread, how much is kept, and that nothing happens while nobody records."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator

import pytest

import distgrad
from distgrad import tracing
from distgrad.data import DataLoader


@pytest.fixture(autouse=True)
def nothing_is_left_recording() -> Iterator[None]:
    yield
    if tracing.is_recording():
        tracing.stop()
        pytest.fail("a test has left a recording open")


def test_off_is_one_shared_object_and_keeps_nothing() -> None:
    assert not tracing.is_recording()
    first, second = tracing.span("forward"), tracing.span("all_reduce", "communication", bytes=3)
    assert first is second
    with first, second:  # and may be used by many at once
        tracing.instant("now")
    tracing.start()
    assert tracing.stop().events == []


def test_off_lets_exceptions_through() -> None:
    with pytest.raises(ZeroDivisionError), tracing.span("forward"):
        _ = 1 / 0


def test_spans_have_their_place_in_time_and_what_was_said_about_them() -> None:
    tracing.start()
    before = tracing.clock()
    with tracing.span("step", "other"), tracing.span("all_reduce", "communication", bucket="bucket 2", bytes=4):
        tracing.instant("half", number=1)
    after = tracing.clock()
    events, dropped, main = tracing.stop()
    assert [event.name for event in events] == ["half", "all_reduce", "step"]  # in the order of their ends
    half, inner, outer = events
    assert half.end is None and inner.end is not None and outer.end is not None
    assert before <= outer.start <= inner.start <= half.start <= inner.end <= outer.end <= after
    assert (inner.category, inner.arguments) == ("communication", {"bucket": "bucket 2", "bytes": 4})
    assert half.arguments == {"number": 1} and outer.arguments == {}
    assert dropped == 0 and {event.track for event in events} == {main}


def test_a_span_that_raises_is_recorded() -> None:
    tracing.start()
    with pytest.raises(ZeroDivisionError), tracing.span("forward"):
        _ = 1 / 0
    assert [event.name for event in tracing.stop().events] == ["forward"]


def test_the_oldest_give_way_and_are_counted() -> None:
    tracing.start(limit=10)
    for number in range(35):
        tracing.instant(str(number))
    events, dropped, _ = tracing.stop()
    assert [event.name for event in events] == [str(number) for number in range(25, 35)]
    assert dropped == 25


def test_many_threads_lose_nothing_and_are_told_apart() -> None:
    tracing.start()
    gate = threading.Barrier(4)

    def work() -> None:
        gate.wait(10)
        for number in range(500):
            with tracing.span("work", number=number):
                pass

    for _ in range(2):  # the second four may get the numbers that the system gave to the first ones
        threads = [threading.Thread(target=work, name="worker") for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events, dropped, main = tracing.stop()
    tracks = {event.track for event in events}
    assert len(events) == 4000 and dropped == 0
    assert len(tracks) == 8 and main not in tracks and {track.name for track in tracks} == {"worker"}
    for track in tracks:
        assert [event.arguments["number"] for event in events if event.track == track] == list(range(500))


def test_ranks_that_are_threads_record_each_for_itself() -> None:
    found: dict[int, list[str]] = {}
    gate = threading.Barrier(2)

    def rank(number: int) -> None:
        tracing.record_apart()
        inherits = contextvars.copy_context()  # also before it begins
        tracing.start()
        gate.wait(10)
        helper = threading.Thread(target=inherits.run, args=(tracing.instant, f"helper of {number}"))
        stranger = threading.Thread(target=tracing.instant, args=("whose?",))
        for thread in (helper, stranger):
            thread.start()
            thread.join()
        tracing.instant(f"rank {number}")
        gate.wait(10)
        found[number] = [event.name for event in tracing.stop().events]

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [f"helper of {number}", f"rank {number}"] for number in range(2)}


def test_start_and_stop_come_in_pairs() -> None:
    with pytest.raises(RuntimeError, match="nothing is recorded"):
        tracing.stop()
    with pytest.raises(ValueError, match="limit is 0"):
        tracing.start(limit=0)
    tracing.start()
    with pytest.raises(RuntimeError, match="going on already"):
        tracing.start()
    tracing.stop()


def test_backward_and_loading_are_marked() -> None:
    weight = distgrad.ones(3, requires_grad=True)
    tracing.start()
    for batch in DataLoader([1.0, 2.0, 3.0], batch_size=2):
        (weight.sum() * batch.sum()).backward()
    (weight * weight).sum().backward(inputs=[weight])
    events = tracing.stop().events
    assert [event.name for event in events] == ["data loading", "backward"] * 2 + ["data loading", "backward"]
    assert {event.category for event in events if event.name == "data loading"} == {"data"}

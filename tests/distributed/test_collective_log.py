"""The log of collectives: whose line, which label, and signatures that two ranks can compare at different moments."""

from __future__ import annotations

import inspect
import threading
import time
from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.distributed import collective_log, threads
from distgrad.distributed.collective_log import CollectiveLog, labelled
from distgrad.distributed.monitored import MonitoredCommunicator

FLOAT = np.dtype("float32")


def filled(count: int, odd: int | None = None) -> CollectiveLog:
    log = CollectiveLog("world", (0, 1))
    for number in range(count):
        log.leave(log.enter("all_reduce", FLOAT, 7 if number == odd else 4))
    return log


def test_what_a_record_says() -> None:
    log = CollectiveLog("world", (0, 1, 2))
    with labelled("outer"):
        with labelled("bucket 2"):
            record = log.enter("broadcast", FLOAT, 12, "src=1")
            line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
        other = log.enter("barrier")
    assert (record.call, record.label, other.call, other.label) == (
        "broadcast(float32, 12, src=1)",
        "bucket 2",
        "barrier()",
        "outer",
    )
    assert record.site == f"test_collective_log.py:{line}" and record.of_user
    assert (record.sequence, other.sequence, log.sequence) == (0, 1, 2) and log.last is other
    assert list(log.pending) == [0, 1]
    log.leave(record)
    assert list(log.pending) == [1] and record.left is not None and record.left >= record.entered
    assert log.enter("barrier").label == ""


def test_a_label_belongs_to_its_thread_and_ends_with_an_error() -> None:
    log = CollectiveLog("world", (0,))
    seen: list[str] = []
    with labelled("main"):
        worker = threading.Thread(target=lambda: seen.append(log.enter("barrier").label))
        worker.start()
        worker.join()
    assert seen == [""]
    with pytest.raises(ZeroDivisionError), labelled("lost"):
        1 // 0  # noqa: B018
    assert log.enter("barrier").label == ""


def test_the_line_is_the_users_through_the_layers_of_the_package() -> None:
    def body() -> tuple[str, str, bool]:
        world = distributed.communicator()
        assert isinstance(world, MonitoredCommunicator)
        distributed.all_reduce(np.ones(2))  # through process_group and monitored
        mine = world.log.last
        assert mine is not None
        # a thread of the package's own has no line of the user's: that of the caller of the communicator serves
        worker = threading.Thread(target=world.barrier, daemon=True)
        worker.start()
        worker.join()
        its = world.log.last
        assert its is not None and its.call == "barrier()"
        return mine.site, its.site, its.of_user

    (mine, its, of_user), _ = threads.run(2, body, check=True)
    lines = inspect.getsource(inspect.getmodule(filled)).splitlines()  # type: ignore[arg-type]
    number = next(n for n, line in enumerate(lines, 1) if "distributed.all_reduce(np.ones(2))  #" in line)
    assert mine == f"test_collective_log.py:{number}"
    assert its.startswith(("threading.py:", "monitored.py:"))
    assert not of_user


def test_signatures_are_those_of_everything_before() -> None:
    same, other = filled(40), filled(40)
    assert (same.signature, same.lines) == (other.signature, other.lines)
    changed = filled(40, odd=3)
    assert changed.signature != same.signature
    assert len({filled(40, odd=n).signature for n in range(40)} | {same.signature, filled(39).signature}) == 42
    # the order counts
    first, second = CollectiveLog("a", (0,)), CollectiveLog("a", (0,))
    for log, calls in ((first, ("barrier", "split")), (second, ("split", "barrier"))):
        for call in calls:
            log.leave(log.enter(call))
    assert first.signature != second.signature


@pytest.mark.parametrize(
    ("mine", "theirs", "least"),
    [(10, 10, 9), (100, 130, 80), (5000, 5003, 4096), (5000, 9000, 4096), (3000, 60_000, 0)],
)
def test_two_logs_have_a_mark_in_common_however_far_apart(mine: int, theirs: int, least: int) -> None:
    ahead, behind = filled(theirs), filled(mine)
    marks = {sequence: (signature, lines) for sequence, signature, lines in ahead.marks()}
    common = [(s, marks[s] == (signature, lines)) for s, signature, lines in behind.marks() if s in marks]
    assert common and all(equal for _, equal in common)
    assert max(s for s, _ in common) >= least
    assert len(ahead.marks()) < 60
    apart = {sequence: signature for sequence, signature, _ in filled(theirs, odd=0).marks()}
    assert any(apart[s] != signature for s, signature, _ in behind.marks() if s in apart)


def test_the_ring_forgets_the_oldest() -> None:
    log = CollectiveLog("world", (0,), capacity=8)
    for _ in range(20):
        log.leave(log.enter("barrier"))
    assert [record.sequence for record in log.recent()] == list(range(12, 20))
    assert [record.sequence for record in log.recent(3)] == [17, 18, 19]
    assert log.record(11) is None and log.record(12) is not None and log.record(20) is None


def test_a_call_that_was_refused_leaves_nothing() -> None:
    log, clean = filled(17), filled(17)  # the next one sets a mark of its own: 16 was the last
    for count in range(16):
        refused = log.enter("all_reduce", FLOAT, 99)
        log.retract(refused)
        log.leave(refused)
        assert (log.sequence, log.signature, log.lines) == (clean.sequence, clean.signature, clean.lines), count
        for each in (log, clean):
            each.leave(each.enter("all_reduce", FLOAT, 4))
    assert [mark[:2] for mark in log.marks()] == [mark[:2] for mark in clean.marks()] and not log.pending
    empty = CollectiveLog("world", (0,))
    empty.retract(empty.enter("barrier"))
    assert (empty.sequence, empty.signature, empty.marks()) == (0, 0, [])


def test_the_newest_mark_waits_until_it_cannot_be_retracted() -> None:
    log = filled(3)
    record = log.enter("barrier")
    assert [mark[0] for mark in log.marks()] == [0, 1, 2]
    time.sleep(0.06)
    assert [mark[0] for mark in log.marks()] == [0, 1, 2, 3]
    log.leave(record)


def test_waiting_is_told_from_work_that_goes_on() -> None:
    log = CollectiveLog("world", (0,))
    record = log.enter("start_all_reduce", FLOAT, 4)
    now = time.monotonic()
    assert record.waited(now + 5, 1.0) is not None and record.waited(now + 5, 1.0) > 4  # type: ignore[operator]
    record.started()
    assert record.waited(now + 5, 1.0) is None
    record.asked(time.monotonic())  # test()
    assert record.waited(time.monotonic() + 0.5, 1.0) is not None
    assert record.waited(time.monotonic() + 5, 1.0) is None  # it has asked once, and has gone on
    record.asked(float("inf"))  # wait()
    assert record.waited(time.monotonic() + 5, 1.0) is not None
    log.leave(record)
    assert record.waited(time.monotonic() + 5, 1.0) is None


def test_code_that_is_made_up_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collective_log, "_KEPT", 50)
    monkeypatch.setattr(collective_log, "_calls", {})
    monkeypatch.setattr(collective_log, "_users", {})
    log = CollectiveLog("world", (0,))
    sites: set[Any] = set()
    for number in range(200):
        scope = {"log": log}
        exec(compile("\n" * number + "log.enter('barrier')", f"made_up_{number}.py", "exec"), scope)
        assert log.last is not None
        sites.add(log.last.site)
    assert len(sites) == 200 and f"made_up_7.py:{8}" in sites
    assert len(collective_log._calls) <= 50 and len(collective_log._users) <= 50

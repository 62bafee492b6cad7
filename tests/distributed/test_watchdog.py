"""Ranks that are stuck or apart, on purpose: the watchdog names the right rank and line, and ends the run.

As threads, where a schedule is exact; the deaths of processes are in ``test_watchdog_processes.py``.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.distributed import threads, watchdog
from distgrad.distributed.collective_log import labelled
from distgrad.distributed.line_socket import STRANGER_LIMIT, LineSocket, connect, own_addresses
from distgrad.distributed.monitored import MonitoredCommunicator, monitor
from distgrad.distributed.watchdog import Watchdog
from distgrad.errors import CommunicationError, ConfigError

pytestmark = pytest.mark.timeout(60)

LIMIT = 0.4
HERE = "test_watchdog.py"


def ones(count: int = 4, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.ones(count, dtype=dtype)


def line_of(text: str) -> int:
    """The line of this file that ends with the comment ``# text``."""
    source = inspect.getsource(inspect.getmodule(line_of) or line_of).splitlines()
    (number,) = [n for n, line in enumerate(source, 1) if line.endswith(f"# {text}")]
    return number


def report_of(world_size: int, function: Callable[..., Any], *, watch: float = LIMIT, **options: Any) -> str:
    started = time.monotonic()
    with pytest.raises(CommunicationError) as raised:
        threads.run(world_size, function, watch=watch, timeout=5.0, **options)
    assert time.monotonic() - started < 20
    return str(raised.value)


def stuck() -> None:
    """Does not come back before the run has been broken."""
    world: Any = distributed.communicator()
    broken = threading.Event()

    def look() -> None:
        while world.inner._group.world.failure is None:
            time.sleep(0.01)
        broken.set()

    threading.Thread(target=look, daemon=True).start()
    broken.wait(10)  # stuck here


# ---- Who does not come


@pytest.mark.parametrize(("world_size", "late"), [(2, 0), (3, 1), (4, 3)])
def test_a_rank_that_does_not_come_is_named_with_its_line(
    world_size: int, late: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        distributed.barrier()
        if distributed.rank() == late:
            stuck()
        with labelled("bucket 2, layer3.0.conv1.weight"):
            distributed.all_reduce(ones())  # the others wait

    report = report_of(world_size, body)
    name = "all_reduce #1 (bucket 2, layer3.0.conv1.weight)"
    # the label is that of the ranks that wait: the missing one has not said what it would send
    assert f"{name} of world, all_reduce(float32, 4), has outlasted its limit of {LIMIT:g} s" in report
    assert re.search(
        rf"rank {late} on \S+ has not entered {re.escape(name)}; it is in {HERE}:{line_of('stuck here')} \(stuck\)",
        report,
    )
    assert f"its last collective here was barrier #0 at {HERE}:" in report
    others = [rank for rank in range(world_size) if rank != late]
    place = f"{HERE}:{line_of('the others wait')}"
    if len(others) == 1:
        assert f"  rank {others[0]} waits in it at {place}" in report
    else:
        assert re.search(rf"  ranks {others[0]}.* wait in it, rank \d on \S+ at {place}", report)

    printed = capsys.readouterr().err
    for rank in range(world_size):
        (own,) = re.findall(
            rf"\[rank {rank} on [^\]]+\] watchdog: where this rank is\n(?:.|\n)*?thread rank {rank}:", printed
        )
        last = "barrier #0" if rank == late else name
        assert f"last collective of world: {last}" in own
    assert "broken.wait(10)" in printed  # the stack of the late one
    assert printed.index(report.splitlines()[0]) > printed.rindex("where this rank is")  # the report comes last


def test_a_rank_that_computes_while_nobody_waits_is_left_alone() -> None:
    def body() -> int:
        distributed.barrier()
        time.sleep(3 * LIMIT)
        distributed.barrier()
        return distributed.rank()

    assert threads.run(3, body, watch=LIMIT) == [0, 1, 2]


def test_a_rank_that_comes_late_but_in_time_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        for step in range(6):
            if distributed.rank() == step % 3:
                time.sleep(LIMIT / 2)
            distributed.all_reduce(ones())

    threads.run(3, body, watch=LIMIT)
    assert capsys.readouterr().err == ""


def test_time_in_which_the_whole_job_was_suspended_does_not_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after SIGSTOP and SIGCONT of all processes: the watchdogs themselves have not run meanwhile."""
    began = time.monotonic()
    listen = Watchdog._listen

    def suspended(self: Watchdog, timeout: float) -> None:
        if 0.3 < time.monotonic() - began < 2.0:
            time.sleep(max(0.0, began + 2.0 - time.monotonic()))
        listen(self, timeout)

    monkeypatch.setattr(Watchdog, "_listen", suspended)

    def body() -> None:
        if distributed.rank() == 1:
            time.sleep(2.3)
        distributed.barrier()

    threads.run(2, body, watch=0.8)
    assert capsys.readouterr().err == ""


def test_ranks_that_wait_in_two_groups_for_each_other() -> None:
    """Each has entered a collective, on another communicator: no collective is wrong, and none can ever end."""

    def body() -> None:
        world = distributed.communicator()
        other = world.duplicate()
        if distributed.rank() == 0:
            world.all_reduce(ones())  # on the first
        else:
            other.all_reduce(ones())  # on the second

    report = report_of(2, body)
    first, second = f"{HERE}:{line_of('on the first')}", f"{HERE}:{line_of('on the second')}"
    assert f"has not entered all_reduce #1; it waits in all_reduce #0 of world/duplicate 1 at {second}; its" in report
    assert f"has not entered all_reduce #0; it waits in all_reduce #1 of world at {first}" in report


def test_the_member_of_a_group_is_named_by_its_rank_in_the_world() -> None:
    def body() -> None:
        group = distributed.communicator().split(distributed.rank() % 2)
        assert group is not None
        if distributed.rank() == 3:
            stuck()
        group.all_reduce(ones())

    report = report_of(4, body)
    assert re.search(
        r"all_reduce #0 of world/split 1 color 1, .*\n  rank 3 on \S+ has not entered all_reduce #0", report
    )
    assert "rank 1 waits in it" in report and "rank 0" not in report and "color 0" not in report


def test_work_that_was_started_and_is_not_waited_for() -> None:
    """With MPI it makes no progress while its rank is elsewhere; here the meeting waits for a third rank."""

    def body() -> None:
        work = None
        if distributed.rank() != 2:
            work = distributed.communicator().start_all_reduce(ones())  # started
        if distributed.rank() != 0:
            stuck()
        if work is not None:
            work.wait()

    report = report_of(3, body)
    assert re.search(
        rf"rank 1 on \S+ has started start_all_reduce #0 at {HERE}:{line_of('started')} and has not", report
    )
    assert re.search(r"rank 2 on \S+ has not entered start_all_reduce #0", report)
    assert "rank 0 waits in it" in report


def test_work_that_is_polled_counts_as_waited_for() -> None:
    def body() -> None:
        if distributed.rank() == 1:
            stuck()
        work = distributed.communicator().start_all_reduce(ones())
        while not work.test():
            time.sleep(0.01)

    report = report_of(2, body)
    assert re.search(r"rank 1 on \S+ has not entered start_all_reduce #0", report) and "rank 0 waits in it" in report


# ---- Another way


class Careless:
    """A communicator that, as MPI, does not notice that ranks call different things."""

    def __init__(self, inner: distributed.Communicator) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def all_reduce(self, array: Any, op: str = "sum") -> None:
        self.inner.barrier()

    def broadcast(self, array: Any, src: int = 0) -> None:
        self.inner.barrier()


def careless() -> MonitoredCommunicator:
    world = distributed.communicator()
    assert isinstance(world, MonitoredCommunicator)
    world.inner = Careless(world.inner)  # type: ignore[assignment]
    return world


@pytest.mark.parametrize(("world_size", "odd"), [(2, 1), (3, 0), (4, 2)])
def test_another_collective_is_found_in_passing_and_both_lines_are_named(world_size: int, odd: int) -> None:
    """Nobody hangs: the ranks go on, with values that are wrong."""

    def body() -> None:
        world = careless()
        for step in range(100):
            if step == 5 and world.rank == odd:
                world.broadcast(ones(7))  # the odd one
            else:
                world.all_reduce(ones())  # the right one
            time.sleep(0.05)

    report = report_of(world_size, body, watch=2.0)
    right = f"all_reduce(float32, 4) at {HERE}:{line_of('the right one')}"
    wrong = f"broadcast(float32, 7, src=0) at {HERE}:{line_of('the odd one')}"
    assert "ranks have not made the same calls on world" in report
    if odd == 0:
        assert f"rank 0 called {wrong} but rank 1 called {right}, as collective #5" in report
    else:
        assert f"rank 0 called {right} but rank {odd} called {wrong}, as collective #5" in report


@pytest.mark.parametrize("what", ["dtype", "size", "op", "skip"])
def test_what_makes_a_signature(what: str) -> None:
    def body() -> None:
        world = careless()
        for step in range(100):
            odd = step == 3 and world.rank == 1
            if odd and what == "skip":
                continue
            dtype = "int32" if odd and what == "dtype" else "float32"
            world.all_reduce(ones(5 if odd and what == "size" else 4, dtype), "max" if odd and what == "op" else "sum")
            if step % 2:
                world.broadcast(ones())
            time.sleep(0.05)

    report = report_of(2, body, watch=2.0)
    other = {
        "dtype": "all_reduce(int32, 4)",
        "size": "all_reduce(float32, 5)",
        "op": "all_reduce(float32, 4, op=max)",
        "skip": "all_reduce(float32, 4)",
    }[what]
    assert re.search(rf"rank 0 called .* but rank 1 called {re.escape(other)} at {HERE}:\d+, as collective #\d", report)


def test_a_difference_longer_ago_than_is_remembered() -> None:
    def body() -> None:
        world = careless()
        for step in range(5_000):
            if step == 800:
                time.sleep(0.6)  # they are seen to agree before they part
            world.all_reduce(ones(4 if step != 1000 or world.rank == 0 else 5))
        stuck()

    report = report_of(2, body, watch=1.5)
    match = re.search(
        r"they parted after #(\d+), longer ago than they remember\n.*rank 0 on \S+ is at all_reduce", report
    )
    assert match is not None and 0 < int(match[1]) < 1000


def test_the_same_call_on_different_lines_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        for _ in range(12):
            if distributed.rank() == 0:
                distributed.broadcast(ones())  # sends
            else:
                distributed.broadcast(ones())  # receives
            time.sleep(0.1)

    threads.run(2, body, watch=2.0)
    printed = capsys.readouterr().err
    assert printed.count("a note") == 1
    assert f"at {HERE}:{line_of('sends')} on rank 0 but at {HERE}:{line_of('receives')} on rank 1" in printed


# ---- Compared before each collective


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_check_raises_on_every_rank_and_nothing_is_sent(world_size: int) -> None:
    odd = world_size - 1

    def body() -> str:
        world = careless()
        world.all_reduce(ones())
        try:
            if world.rank == odd:
                world.broadcast(ones(3, "int64"))  # checked, odd
            else:
                world.all_reduce(ones(100))  # checked, right
        except CommunicationError as error:
            return str(error)
        raise AssertionError("nothing was raised")

    messages = threads.run(world_size, body, check=True)
    assert set(messages) == {
        f"rank 0 called all_reduce(float32, 100) at {HERE}:{line_of('checked, right')} but rank {odd} called "
        f"broadcast(int64, 3, src=0) at {HERE}:{line_of('checked, odd')}, as collective #1 of world; every rank must "
        "make the same calls in the same order"
    }


def test_check_lets_equal_calls_pass_also_in_groups() -> None:
    def body() -> float:
        world = distributed.communicator()
        twin, half = world.duplicate(), world.split(world.rank % 2)
        assert half is not None
        total = ones(1)
        for group in (world, twin, half):
            group.all_reduce(total)
        work = twin.start_all_reduce(total)
        work.wait()
        twin.free()
        half.free()
        return float(total[0])

    assert threads.run(4, body, check=True) == [128.0] * 4


def test_check_covers_groups() -> None:
    def body() -> None:
        twin = distributed.communicator().duplicate()
        twin.all_reduce(ones(4 + distributed.rank()))

    with pytest.raises(
        CommunicationError, match=r"all_reduce\(float32, 4\) .* all_reduce\(float32, 5\) .* of world/dup"
    ):
        threads.run(2, body, check=True)


def test_arguments_that_are_refused_do_not_count() -> None:
    """One rank makes a mistake and goes on: it has sent nothing, and is where the others are."""

    def body() -> list[int]:
        world = distributed.communicator()
        assert isinstance(world, MonitoredCommunicator)
        for _ in range(20):
            world.all_reduce(ones())
            if world.rank == 1:
                with pytest.raises(TypeError):
                    world.all_reduce(np.array(["text"]))
                with pytest.raises(ValueError, match="op"):
                    world.start_all_reduce(ones(), "mean")  # type: ignore[arg-type]
                with pytest.raises(ValueError, match="src"):
                    world.broadcast(ones(), src=5)
            time.sleep(0.02)
        world.barrier()
        return [world.log.sequence, world.log.signature]

    first, second = threads.run(2, body, watch=2.0)
    assert first == second and first[0] == 21


# ---- Settings


def test_a_limit_that_comes_later_holds_for_groups_made_before() -> None:
    def body() -> None:
        world = distributed.communicator()
        assert isinstance(world, MonitoredCommunicator) and world.watchdog is None
        twin = world.duplicate()
        twin.configure(timeout=LIMIT)
        assert twin.watchdog is world.watchdog is not None and world.watchdog.limit == LIMIT
        if world.rank == 1:
            stuck()
        twin.barrier()

    assert "has not entered barrier #0" in report_of(2, body, watch=0.0, check=True)


def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> tuple[float | None, bool]:
        world = distributed.communicator()
        watched = monitor(world, threads=(threading.get_ident(),))
        assert isinstance(watched, MonitoredCommunicator) and watched.inner is world
        watched.barrier()
        found = None if watched.watchdog is None else watched.watchdog.limit
        checks = watched._checker is not None
        watched.stop()
        return found, checks

    assert threads.run(2, body) == [(600.0, False)] * 2
    monkeypatch.setenv("DISTGRAD_TIMEOUT", "12.5")
    monkeypatch.setenv("DISTGRAD_CHECK", "1")
    assert threads.run(2, body) == [(12.5, True)] * 2
    monkeypatch.setenv("DISTGRAD_TIMEOUT", "0")
    monkeypatch.setenv("DISTGRAD_CHECK", "0")
    assert threads.run(2, body) == [(None, False)] * 2
    for text in ("soon", "-1", "nan"):
        monkeypatch.setenv("DISTGRAD_TIMEOUT", text)
        with pytest.raises(ConfigError, match=f"DISTGRAD_TIMEOUT is '{text}', must be a number of seconds"):
            threads.run(2, body)


# ---- The channel


def test_strangers_are_turned_away() -> None:
    def body() -> None:
        world = distributed.communicator()
        assert isinstance(world, MonitoredCommunicator) and world.watchdog is not None
        if world.rank == 0:
            server = world.watchdog._server
            assert server is not None
            address = server._listeners[0].getsockname()
            assert address[0] == "127.0.0.1"
            hello = {"token": "guessed", "rank": 1, "host": "x", "readable": [1, -1, 0], "limit": 1.0}
            assert connect([address], hello, "guessed", 2.0) is None
            for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"x" * (STRANGER_LIMIT * 20), b'{"token": 3}\n', b"[]\n"):
                with socket.create_connection(address, timeout=2.0) as stranger:
                    stranger.sendall(nonsense)
                    stranger.settimeout(2.0)
                    with contextlib.suppress(ConnectionError):
                        assert stranger.recv(100) == b""
            assert set(server._peers) == {0, 1}
        world.barrier()

    threads.run(2, body, watch=5.0)


def late_rank(late: int) -> Callable[[], None]:
    def body() -> None:
        distributed.barrier()
        if distributed.rank() == late:
            stuck()
        distributed.barrier()

    return body


def test_without_a_connection_each_rank_judges_for_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watchdog, "connect", lambda *_: None)
    report = report_of(3, late_rank(2))
    printed = capsys.readouterr().err
    assert "watchdog: ranks 0, 1, 2 do not reach rank 0 over TCP" in printed
    assert re.search(
        r"barrier #1 of world, barrier\(\), has outlasted its limit of 0\.4 s; rank [01] waits in it at", report
    )
    assert "there is no connection to rank 0, which could tell who is missing" in report


def test_where_loopback_leads_elsewhere_the_addresses_of_the_host_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that seem to share a host may be in network namespaces of their own."""
    if not own_addresses():
        pytest.skip("this host has loopback only")
    tried: list[str] = []

    def refusing(addresses: list[tuple[str, int]], *rest: Any) -> Any:
        tried.extend(address for address, _ in addresses)
        return connect([entry for entry in addresses if not entry[0].startswith("127.")], *rest)

    monkeypatch.setattr(watchdog, "connect", refusing)
    report = report_of(2, late_rank(1))
    assert re.search(r"rank 1 on \S+ has not entered barrier #1; it is in", report)
    assert tried[:2] == ["127.0.0.1"] * 2 and set(tried[2:]) == set(own_addresses())


def test_when_the_server_has_gone_the_others_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        world = distributed.communicator()
        assert isinstance(world, MonitoredCommunicator) and world.watchdog is not None
        world.barrier()
        if world.rank == 0:
            world.stop()  # its program is at its end
            stuck()
        world.barrier()

    assert re.search(r"rank 1 waits in it at \S+\n  rank 0 on \S+ has ended its program", report_of(2, body))


def test_when_rank_0_is_silent_or_dead_the_others_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(dead: bool) -> None:
        world = distributed.communicator()
        assert isinstance(world, MonitoredCommunicator) and world.watchdog is not None
        world.barrier()
        time.sleep(0.2)
        if world.rank == 0:
            server = world.watchdog._server
            assert server is not None
            if dead:
                for peer in server._peers.values():
                    peer.line.close()
            server._hear = lambda timeout: time.sleep(timeout)  # type: ignore[method-assign]
            server._judge = lambda: None  # type: ignore[method-assign]
            stuck()
        world.barrier()

    silent = report_of(2, lambda: body(False))
    assert re.search(
        r"rank 1 waits in it at .*\n  rank 0 on \S+, which judges, has not answered for [\d.]+ s; ", silent
    )
    assert f"it was last seen in {HERE}:" in silent
    dead = report_of(2, lambda: body(True))
    assert re.search(r"rank 0 on \S+ is dead: its process has ended without a word; it was last seen in", dead)


def test_a_network_that_fails_is_no_death(capsys: pytest.CaptureFixture[str]) -> None:
    """The job goes on; only if somebody waits too long does it matter that nothing was heard of the rank."""

    def body(then: bool) -> None:
        world = distributed.communicator()
        assert isinstance(world, MonitoredCommunicator) and world.watchdog is not None
        if world.rank == 1:
            assert world.watchdog._line is not None
            world.watchdog._line.lost = True  # as at its end of the connection
        world.barrier()
        if world.rank == 0:
            server = world.watchdog._server
            assert server is not None
            server._peers[1].line._fail(TimeoutError("as after minutes without an answer"))
        world.barrier()
        time.sleep(0.5)
        if then and world.rank == 1:
            stuck()
        world.barrier()

    threads.run(3, body, False, watch=5.0)
    assert capsys.readouterr().err == ""
    report = report_of(3, lambda: body(True))
    assert re.search(r"rank 1 on \S+ has not entered barrier #2: it has had no connection", report)


def test_many_ranks() -> None:
    def body() -> int:
        total = ones(1, "int64")
        for _ in range(3):
            distributed.all_reduce(total)
        return int(total[0])

    assert threads.run(48, body, watch=30.0) == [48**3] * 48


def test_lines_in_pieces() -> None:
    a, b = socket.socketpair()
    left, right = LineSocket(a), LineSocket(b)
    big = {"text": "é" * 200_000}
    left.send(big)
    left.send({"n": 2})
    received: list[Any] = []
    for _ in range(1000):
        left.flush()
        received += right.receive()
        if len(received) == 2:
            break
    assert received == [big, {"n": 2}] and not left.sending
    b.send(b"") if right.open else None
    right._connection.send(json.dumps({"n": 3}).encode() + b"\nno json\n")
    assert left.receive() == [{"n": 3}] and not left.open
    assert right.receive() == [] and not right.open
    left.send({"n": 4})  # to nobody

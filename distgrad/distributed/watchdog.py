"""The watchdog of one rank: a thread outside of MPI that tells rank 0 how this rank is, and ends a job that is stuck.

Its channel is a TCP connection of its own (JSON lines, no pickle; whoever does not know a random token is turned away),
so that it works while MPI does not. The server is in :mod:`~distgrad.distributed.watchdog_server`, the sentences in
:mod:`~distgrad.distributed.verdict`. If rank 0 itself answers no more, each rank judges by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from . import verdict
from .collective_log import CollectiveLog, Record
from .communicator import Communicator
from .line_socket import LineSocket, Message, connect, own_addresses, ready
from .stacks import Readable, look_at, make_readable, position_of, stacks
from .watchdog_server import DEATH_TIME, WatchdogServer, say

DEFAULT_LIMIT = 600.0  # seconds, PyTorch's default for NCCL

RECENT_IN_BEAT = 4  # collectives that a rank tells of each time
CONNECT_TIME = 3.0  # seconds for each address of rank 0
SERVER_TIME = 2.5  # seconds after the report in which rank 0 ends the job, before each rank does
ALONE_TIME = 1.0  # seconds, times its rank, that one waits before it ends the job without rank 0
LEAVING_TIME = 0.3  # seconds to tell the server that this rank ends the job


class Watchdog:
    """Watches the collectives of one rank. Made by all ranks together; its threads are daemons.

    Args:
        communicator: the ranks; used here, and no more afterwards.
        limit: seconds that a collective may take.
        end: called with the report when the job has to end; in a thread of the watchdog.
        threads: identifiers of the threads that belong to this rank, the main one first; None: all of the process.

    Attributes:
        limit: may be changed at any time; infinite: nothing is ever too long.
    """

    def __init__(
        self,
        communicator: Communicator,
        limit: float,
        end: Callable[[str], None],
        threads: tuple[int, ...] | None = None,
    ) -> None:
        self.limit = limit
        self.rank = communicator.rank
        self._host = communicator.hostname
        self._end = end
        self._threads = threads
        main = threading.main_thread().ident
        self._main = threads[0] if threads else (main if main is not None else 0)
        self._logs: dict[str, weakref.ref[CollectiveLog]] = {}
        self._told: dict[str, int] = {}  # by name, up to where the server knows a log
        self._readable = make_readable()
        self._server: WatchdogServer | None = None
        self._leaving = threading.Event()
        self._said_so = threading.Event()
        self._stopping = threading.Event()
        self._beats = 0
        self._heard = time.monotonic()  # when the server last answered
        self._head = ""  # where rank 0 was by then
        self._server_left = False
        self._server_died: float | None = None
        self._wake, self._waker = socket.socketpair()
        self._line, self._head_host, self._head_readable = self._join(communicator)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    @property
    def interval(self) -> float:
        """Seconds between two messages to the server."""
        return min(1.0, max(0.05, self.limit / 10))

    @property
    def patience(self) -> float:
        """Seconds without an answer after which a rank counts as silent."""
        return min(10.0, max(1.0, self.limit / 4))

    def watch(self, log: CollectiveLog) -> None:
        """From now on the collectives of ``log`` are watched, until it is garbage or :meth:`forget` is called."""
        self._logs[log.name] = weakref.ref(log)

    def forget(self, log: CollectiveLog) -> None:
        """The opposite of :meth:`watch`."""
        self._logs.pop(log.name, None)

    def leave(self) -> None:
        """Tells all watchdogs that this rank is about to end the job, so that they have nothing to report."""
        self._leaving.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            with contextlib.suppress(OSError):
                self._waker.send(b"x")
            self._said_so.wait(LEAVING_TIME)

    def stop(self) -> None:
        """Says goodbye and ends the threads."""
        atexit.unregister(self.stop)
        if self._stopping.is_set():
            return
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join(2.0)
        if self._server is not None:
            self._server.stop()

    # ---- Joining

    def _join(self, communicator: Communicator) -> tuple[LineSocket | None, str, Readable]:
        """Starts the server on rank 0 and connects to it, through loopback where all are on one host."""
        near = communicator.backend == "threads" or communicator.local_world_size == communicator.world_size
        line: LineSocket | None = None
        host, readable = self._host, self._readable
        for addresses in ([["127.0.0.1"]] if near else []) + [own_addresses()]:
            offer = self._offer(communicator, addresses) if self.rank == 0 and self._server is None else None
            texts = communicator.all_gather_bytes(b"" if offer is None else json.dumps(offer).encode())
            given = json.loads(texts[0])
            host, readable = str(given["host"]), Readable(*given["readable"])
            hello = {
                "token": given["secrets"][0],
                "rank": self.rank,
                "host": self._host,
                "readable": self._readable,
                "limit": self._told_limit,
            }
            line = connect([(str(a), int(p)) for a, p in given["addresses"]], hello, given["secrets"][1], CONNECT_TIME)
            missing = [r for r, ok in enumerate(communicator.all_gather_bytes(b"" if line is None else b"1")) if not ok]
            if not missing:
                break
            if line is not None:
                line.close()
            if self._server is not None:
                self._server.stop()
                self._server = None
            line = None
        if line is None and self.rank == 0:
            say(
                f"watchdog: ranks {', '.join(map(str, missing))} do not reach rank 0 over TCP, so a collective that "
                "hangs is reported by each rank for itself; allow connections between the hosts for one report"
            )
        return line, host, readable

    def _offer(self, communicator: Communicator, addresses: list[str]) -> Message:
        listeners = []
        for address in addresses:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listener.bind((address, 0))
                listener.listen(min(communicator.world_size + 16, 1024))
                listener.setblocking(False)
            except OSError:
                listener.close()
                continue
            listeners.append(listener)
        tokens = (secrets.token_hex(16), secrets.token_hex(16))
        self._server = WatchdogServer(
            communicator.world_size, self._host, listeners, tokens, self.patience, self._end, self._leaving.is_set
        )
        return {
            "addresses": [listener.getsockname() for listener in listeners],
            "secrets": tokens,
            "host": self._host,
            "readable": self._readable,
        }

    # ---- Running

    def _run(self) -> None:
        try:
            due = awake = time.monotonic()
            while not self._stopping.is_set():
                now = time.monotonic()
                if now - awake > self.interval + self.patience:
                    self._forgive(now)
                awake = now
                if now >= due:
                    self._beat()
                    due = now + self.interval
                self._judge(now)
                self._listen(max(0.0, due - time.monotonic()))
        except Exception as error:  # it must never be the watchdog that breaks a job
            say(f"{self._title}watchdog: it has failed and watches no more ({type(error).__name__}: {error})")
        finally:
            if self._line is not None:
                self._line.send({"bye": True})
                self._line.close()
            self._wake.close()
            self._waker.close()

    def _forgive(self, now: float) -> None:
        """Time in which this thread has not run counts for nothing: the job was suspended."""
        self._heard = now
        for known in list(self._logs.values()):
            log = known()
            for record in [] if log is None else list(log.pending.values()):
                if record.waiting is not None:
                    record.waiting = now

    def _listen(self, timeout: float) -> None:
        line = self._line if self._line is not None and self._line.open else None
        readers: list[Any] = [self._wake] if line is None else [self._wake, line]
        readable, writable = ready(readers, [line] if line is not None and line.sending else [], timeout)
        if self._wake in readable:
            self._wake.recv(64)
        if self._leaving.is_set() and not self._said_so.is_set():
            if line is not None:
                line.send({"leaving": True})
            self._said_so.set()
        if line is None:
            return
        if writable:
            line.flush()
        if line in readable:
            for message in line.receive():
                self._take(line, message)

    def _take(self, line: LineSocket, message: Message) -> None:
        self._heard = time.monotonic()
        if "head" in message:
            self._head = str(message["head"])
        if "asks" in message:
            line.send({"answers": message["asks"], **self._state(int(message["recent"]), whole=True)})
        if "look" in message:
            seen = look_at(Readable(*map(int, message["readable"])))
            line.send({"seen": message["look"], "learnt": seen})
        if message.get("bye"):
            self._server_left = True
        if message.get("leaving"):
            self._leaving.set()
            self._said_so.set()
        if "end" in message and not self._leaving.is_set():
            self._say_stacks()
            line.send({"said": True})
            if not self._stopping.wait(SERVER_TIME):
                self._finish(str(message["end"]))

    def _beat(self) -> None:
        if self._line is not None and self._line.open:
            self._beats += 1
            self._line.send({"beat": self._beats, **self._state(RECENT_IN_BEAT, whole=False)})

    @property
    def _told_limit(self) -> float:
        return min(self.limit, 1e9)  # JSON knows no infinity

    def _state(self, count: int, whole: bool) -> Message:
        """What this rank tells: where it is, and what it has done on each communicator; if not whole, what is new."""
        logs = []
        live = {name: log for name, known in list(self._logs.items()) if (log := known()) is not None}
        for name, log in live.items():
            if whole or log.pending or self._told.get(name) != log.sequence:
                told = verdict.tell(log, self._told_limit, count)
                if not whole:
                    told["marks"] = log.marks()
                    # the newest mark waits until it is sure, and is told then
                    self._told[name] = -1 if log.pending else told["sequence"]
                logs.append(told)
        freed = [name for name in self._told if name not in live]
        for name in freed:
            del self._told[name]
        return {
            "position": position_of(self._main),
            "limit": self._told_limit,
            "logs": logs,
            "whole": whole,
            "freed": freed,
        }

    # ---- Judging alone

    def _judge(self, now: float) -> None:
        """Ends the job when a collective has lasted too long, or rank 0 has died, and rank 0 does not see to it."""
        if self._leaving.is_set():
            return
        line = self._line
        if line is not None and not (line.open or line.lost or self._server_left):
            self._judge_death(now)
            return
        waits = [
            (waited, log, record)
            for known in list(self._logs.values())
            if (log := known()) is not None
            for record in list(log.pending.values())
            if (waited := record.waited(now, self.limit / 2)) is not None and waited > self.limit
        ]
        if not waits:
            return
        waited, log, record = max(waits, key=lambda wait: wait[0])
        head, silence = f"rank 0 on {self._head_host}", now - self._heard
        if line is None or line.lost:
            reason = "there is no connection to rank 0, which could tell who is missing"
        elif self._server_left:
            reason = f"{head} has ended its program"
        elif silence > self.patience + 2 * self.interval or waited > 2 * self.limit + 60:
            reason = f"{head}, which judges, has not answered for {silence:.1f} s"
        else:
            return
        self._say_stacks()
        call = _as_call(record)
        text = (
            f"{call.name} of {log.name}, {call.call}, has outlasted its limit of {self.limit:g} s; rank {self.rank} "
            f"waits in it at {call.site}\n  {reason}"
        )
        self._finish_alone(text, look=line is not None and line.open and not self._server_left)

    def _judge_death(self, now: float) -> None:
        """What the server does when another rank has died, here for rank 0: one line at once, and then the end."""
        if self._server_died is None:
            self._server_died = now
            if self.rank == 1:
                say(f"{self._title}watchdog: {self._death}")
        elif now > self._server_died + DEATH_TIME:
            self._say_stacks()
            self._finish_alone(self._death, look=False)

    @property
    def _death(self) -> str:
        head = f"rank 0 on {self._head_host}"
        return f"{head} is dead: its process has ended without a word" + (f"; {self._head}" if self._head else "")

    def _about_head(self) -> str:
        """What can be found out about rank 0, which does not answer."""
        found = ""
        if self._head_host == self._host:
            seen = look_at(self._head_readable)
            found = f"; its process {seen.state}" if seen.state else ""
            if seen.place:
                found += f"; it seems to hold the interpreter lock in {seen.place}"
                say(f"[rank 0 on {self._head_host}] its stacks, as rank {self.rank} could see them:\n{seen.stack}")
                return found
        return f"{found}; {self._head}" if self._head else found

    def _finish_alone(self, text: str, look: bool) -> None:
        # All get to print their stacks, and one is enough to do the rest: the lowest that lives.
        if self._stopping.wait(min(ALONE_TIME * max(1, self.rank), 6.0)):
            return
        if look:
            text += self._about_head()
        say(f"{self._title}watchdog: {text}\n  the job ends here, with a status that is not 0")
        self._finish(text)

    def _finish(self, text: str) -> None:
        self._leaving.set()
        self._stopping.set()
        self._end(text)

    def _say_stacks(self) -> None:
        lines = []
        for known in list(self._logs.values()):
            log = known()
            last = None if log is None else log.last
            if log is None or last is None:
                continue
            call = _as_call(last)
            state = "which it has left" if last.left is not None else "which it has not left"
            lines.append(f"  last collective of {log.name}: {call.name}, {call.call} at {call.site}, {state}\n")
        say(f"{self._title}watchdog: where this rank is\n{''.join(lines)}{stacks(self._threads)}".rstrip("\n"))

    @property
    def _title(self) -> str:
        return f"[rank {self.rank} on {self._host}] "


def _as_call(record: Record) -> verdict.Call:
    left = record.left is not None
    return verdict.Call(record.sequence, record.call, record.site, record.label, record.of_user, None, left)

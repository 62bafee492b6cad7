"""The watchdog's server, a thread of rank 0: it hears how all ranks are, finds out who keeps the others, and says so.

It hears each rank about once a second. When one has waited too long, or signatures differ, or a connection breaks, it
asks all of them where they are, looks at those that do not answer as far as the system allows, prints one report, and
tells all to end. A rank that computes for hours while nobody waits for it is none of its business.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import verdict
from .line_socket import LINE_LIMIT, STRANGER_LIMIT, LineSocket, Message, ready
from .stacks import Readable, look_at
from .verdict import Log, Rank

REMEMBERED = 4096  # marks of a communicator that are compared with those that come later
RECENT_IN_INQUIRY = 512  # collectives that a rank tells of when it is asked

HELLO_TIME = 10.0  # seconds that a stranger has to say who it is
APART_TIME = 10.0  # seconds that all ranks have to tell what they did, where nobody is stuck
DEATH_TIME = 1.0  # seconds between a rank's death and the end: mpirun itself, or a rank that aborts, is mostly faster
STACKS_TIME = 1.0  # seconds that all ranks get to print their stacks before the report
ON_BEHALF_TIME = 1.5  # seconds that another rank has to look at a process of its host


@dataclass
class _Peer:
    """A rank as the server knows it."""

    rank: int
    line: LineSocket
    host: str
    readable: Readable
    heard: float
    limit: float
    position: str = "an unknown place"
    logs: dict[str, Log] = field(default_factory=dict)
    overdue: bool = False  # it has waited for something too long
    ended: bool = False  # it has said goodbye
    answered: int = 0  # the last inquiry it has answered
    said: bool = False  # it has printed its stacks
    condition: str = ""
    stack: str = ""

    @property
    def dead(self) -> bool:
        return not self.line.open and not self.ended and not self.line.lost

    def as_rank(self, condition: str) -> Rank:
        return Rank(self.rank, self.host, self.limit, self.position, dict(self.logs), condition, self.stack)


@dataclass
class _Inquiry:
    """A question to all ranks, and what made the server ask it."""

    number: int
    deadline: float
    reason: str  # "stuck", "apart", "dead", or "lines": no more than a note
    name: str = ""  # of the communicator, for "apart"
    agreed: int = -1
    ranks: list[Rank] = field(default_factory=list)  # as they were when it was over


class WatchdogServer:
    """Hears the ranks and judges.

    Args:
        world_size: how many ranks there will be.
        host: where this runs.
        listeners: bound sockets that listen.
        secrets: what a rank has to say, and what it is answered.
        patience: seconds that a rank may take for an answer.
        end: called once the report is printed; ends the job.
        quiet: whether the job is being ended by other means, so that nothing is to be reported.
    """

    def __init__(
        self,
        world_size: int,
        host: str,
        listeners: list[socket.socket],
        secrets: tuple[str, str],
        patience: float,
        end: Callable[[str], None],
        quiet: Callable[[], bool],
    ) -> None:
        self._world_size = world_size
        self._host = host
        self._listeners = listeners
        self._secrets = secrets
        self._patience = patience
        self._end = end
        self._quiet = quiet
        self._strangers: list[tuple[LineSocket, float]] = []
        self._peers: dict[int, _Peer] = {}
        self._marks: dict[str, dict[int, tuple[int, int, int]]] = {}  # signature, lines, and whose
        self._agreed: dict[str, int] = {}  # the last collective of a communicator that two ranks had in common
        self._apart: tuple[str, int] | None = None
        self._noted = False  # whether a note on lines was printed, or is not going to be
        self._lines_apart: str | None = None
        self._mourned: set[int] = set()
        self._died_at: float | None = None
        self._looked_at: set[int] = set()
        self._inquiry: _Inquiry | None = None
        self._inquiries = 0
        self._leaving = False  # a rank has said that it ends the job
        self._stop = False
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="watchdog server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes what is open."""
        self._stop = True
        with contextlib.suppress(OSError):  # it has stopped by itself
            self._waker.send(b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join(2.0)

    def _run(self) -> None:
        try:
            while not self._stop:
                self._hear(0.05 if self._inquiry is not None or self._died_at is not None else 1.0)
                if not (self._stop or self._leaving or self._quiet()):
                    self._judge()
        except Exception as error:  # it must never be the watchdog that breaks a job
            say(f"watchdog: the server has failed and watches no more ({type(error).__name__}: {error})")
        finally:
            for peer in self._peers.values():
                peer.line.send({"bye": True})
                peer.line.close()
            for line, _ in self._strangers:
                line.close()
            for listener in self._listeners:
                listener.close()
            self._wake.close()
            self._waker.close()

    # ---- Hearing

    def _hear(self, timeout: float) -> None:
        lines = [peer.line for peer in self._peers.values() if peer.line.open]
        readers: list[Any] = [*self._listeners, *(line for line, _ in self._strangers), *lines, self._wake]
        readable, writable = ready(readers, [line for line in lines if line.sending], timeout)
        for line in writable:
            line.flush()
        for listener in self._listeners:
            if listener in readable:
                self._accept(listener)
        now = time.monotonic()
        for stranger in list(self._strangers):
            line, deadline = stranger
            if line in readable:
                self._admit(stranger, line.receive(), now)
            elif now > deadline:
                line.close()
            if not line.open and stranger in self._strangers:
                self._strangers.remove(stranger)
        for peer in list(self._peers.values()):
            if peer.line in readable:
                for message in peer.line.receive():
                    self._take(peer, message, now)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if len(self._strangers) >= self._world_size + 16:  # more than can be ours
            connection.close()
            return
        self._strangers.append((LineSocket(connection, STRANGER_LIMIT), time.monotonic() + HELLO_TIME))

    def _admit(self, stranger: tuple[LineSocket, float], messages: list[Message], now: float) -> None:
        line, _ = stranger
        if not messages:
            return
        hello = messages[0]
        try:
            known = hmac.compare_digest(str(hello["token"]).encode(), self._secrets[0].encode())
            rank, host, readable = int(hello["rank"]), str(hello["host"]), Readable(*map(int, hello["readable"]))
            limit = float(hello["limit"])
        except (KeyError, TypeError, ValueError):
            known = False
        if not known or not 0 <= rank < self._world_size:
            line.close()
            return
        self._strangers.remove(stranger)
        line.limit = LINE_LIMIT
        line.send({"answer": self._secrets[1]})
        peer = self._peers[rank] = _Peer(rank, line, host, readable, now, limit)
        for message in messages[1:]:
            self._take(peer, message, now)

    def _take(self, peer: _Peer, message: Message, now: float) -> None:
        peer.heard = now
        if "position" in message:
            peer.position, peer.limit = str(message["position"]), float(message["limit"])
            logs = [verdict.read_log(told) for told in message["logs"]]
            if message.get("whole"):
                peer.logs.clear()
            peer.logs.update((log.name, log) for log in logs)
            for gone in message.get("freed", ()):
                peer.logs.pop(gone, None)
                self._marks.pop(gone, None)
            peer.overdue = verdict.overdue([peer.as_rank("")])
            for told in message["logs"]:
                self._compare(peer.rank, told["name"], told.get("marks", ()))
        if "answers" in message:
            peer.answered = int(message["answers"])
        if "seen" in message:
            seen = self._peers.get(int(message["seen"]))
            if seen is not None:
                self._learn(seen, *map(str, message["learnt"]))
        if message.get("said"):
            peer.said = True
        if message.get("bye"):
            peer.ended = True
        if "leaving" in message and not self._leaving:
            self._leaving = True
            for other in self._peers.values():
                other.line.send({"leaving": True})
        if "beat" in message:
            head = self._peers.get(0)
            peer.line.send({"heard": message["beat"], "head": "" if head is None else _summary(head)})

    def _compare(self, rank: int, name: str, marks: Any) -> None:
        """Compares signatures with those that other ranks had after the same number of collectives."""
        table = self._marks.setdefault(name, {})
        for sequence, signature, lines in marks:
            known = table.setdefault(sequence, (signature, lines, rank))
            if known[0] != signature:
                if self._apart is None:
                    self._apart = (name, self._agreed.get(name, -1))
                return
            if known[1] != lines and self._lines_apart is None:
                self._lines_apart = name
            if known[2] != rank:
                self._agreed[name] = max(sequence, self._agreed.get(name, -1))
        if len(table) > 2 * REMEMBERED:
            for sequence in sorted(table)[:REMEMBERED]:
                del table[sequence]

    # ---- Judging

    def _judge(self) -> None:
        now = time.monotonic()
        for peer in self._peers.values():
            if peer.dead and peer.rank not in self._mourned:
                self._mourned.add(peer.rank)
                self._died_at = now if self._died_at is None else self._died_at
                # At once: the launcher is about to end all ranks, this one too.
                say(f"{self._title}watchdog: {verdict.gone([peer.as_rank('is dead')])}")
        inquiry = self._inquiry
        if inquiry is None:
            self._begin(now)
        elif now >= inquiry.deadline or all(
            peer.answered >= inquiry.number for peer in self._peers.values() if peer.line.open and not peer.ended
        ):
            self._conclude(inquiry, now)

    def _begin(self, now: float) -> None:
        """Asks all ranks where they are, if there is a reason to."""
        if self._apart is not None:
            name, agreed = self._apart
            inquiry = _Inquiry(self._inquiries + 1, now + APART_TIME, "apart", name, agreed)
        elif self._died_at is not None and now > self._died_at + DEATH_TIME:
            inquiry = _Inquiry(self._inquiries + 1, now + self._patience, "dead")
        elif any(peer.overdue for peer in self._peers.values()):
            inquiry = _Inquiry(self._inquiries + 1, now + self._patience, "stuck")
        elif self._lines_apart is not None and not self._noted:
            inquiry = _Inquiry(self._inquiries + 1, now + self._patience, "lines", self._lines_apart)
        else:
            return
        self._inquiries += 1
        self._inquiry = inquiry
        for peer in self._peers.values():
            peer.line.send({"asks": inquiry.number, "recent": RECENT_IN_INQUIRY})

    def _conclude(self, inquiry: _Inquiry, now: float) -> None:
        if inquiry.reason == "lines":
            self._inquiry = None
            self._noted = True
            note = verdict.lines_apart(self._ranks(inquiry, now), inquiry.name)
            if note is not None:
                say(f"{self._title}watchdog, a note: {note}")
            return
        if not inquiry.ranks:
            inquiry.ranks = self._ranks(inquiry, now)
            if not self._text(inquiry):  # the rank that all waited for has come meanwhile
                self._inquiry = None
                return
            # From here on there is no way back: to look at a process sends it a signal, which may wake it up.
            silent = [
                peer
                for peer in self._peers.values()
                if peer.answered < inquiry.number and not peer.ended and not peer.dead
            ]
            if self._look(silent):
                inquiry.deadline = now + ON_BEHALF_TIME
                return
        found = {peer.rank: peer for peer in self._peers.values() if peer.rank in self._looked_at}
        inquiry.ranks = [
            rank._replace(
                condition=self._condition(found[rank.rank], inquiry, now),
                position=found[rank.rank].position,
                stack=found[rank.rank].stack,
            )
            if rank.rank in found
            else rank
            for rank in inquiry.ranks
        ]
        text = self._text(inquiry)
        for peer in self._peers.values():
            peer.line.send({"end": text})
        deadline = time.monotonic() + STACKS_TIME
        talking = [peer for peer in self._peers.values() if peer.answered >= inquiry.number]
        while time.monotonic() < deadline and not all(peer.said or not peer.line.open for peer in talking):
            self._hear(0.05)
        for rank in inquiry.ranks:
            if rank.stack:
                say(f"[{rank.title}] does not answer; its stacks, as another process could see them:\n{rank.stack}")
        say(f"{self._title}watchdog: {text}\n  the job ends here, with a status that is not 0")
        self._stop = True
        self._end(text)

    def _ranks(self, inquiry: _Inquiry, now: float) -> list[Rank]:
        peers = sorted(self._peers.values(), key=lambda peer: peer.rank)
        return [peer.as_rank(self._condition(peer, inquiry, now)) for peer in peers]

    def _text(self, inquiry: _Inquiry) -> str:
        ranks = inquiry.ranks
        parts = [verdict.apart(ranks, inquiry.name, inquiry.agreed) if inquiry.reason == "apart" else None]
        parts += [verdict.gone(ranks), verdict.stuck(ranks)]
        return "\n".join(part for part in parts if part)

    def _condition(self, peer: _Peer, inquiry: _Inquiry, now: float) -> str:
        """What is wrong with a rank, as a clause."""
        if peer.dead:
            return "is dead"
        if peer.ended:
            return "has ended its program"
        if not peer.line.open:
            return f"has had no connection for {now - peer.heard:.1f} s, and may be alive"
        if peer.answered >= inquiry.number:
            return ""
        silence = f"has not answered for {now - peer.heard:.1f} s"
        if peer.condition:
            return f"{peer.condition} and {silence}"
        return f"{silence}: its interpreter is stuck in a call that holds the lock, or its host is overloaded"

    def _look(self, silent: list[_Peer]) -> bool:
        """Finds out about ranks that do not answer; returns whether other ranks have been asked to."""
        asked = False
        for peer in silent:
            if peer.host == self._host:
                self._learn(peer, *look_at(peer.readable))
                continue
            for other in self._peers.values():
                if other.host == peer.host and other not in silent and other.line.open:
                    other.line.send({"look": peer.rank, "readable": peer.readable})
                    asked = True
                    break
        return asked

    def _learn(self, peer: _Peer, state: str, place: str, stack: str) -> None:
        self._looked_at.add(peer.rank)
        peer.condition = state or peer.condition
        if place:
            peer.condition = peer.condition or "seems to hold the interpreter lock"
            peer.position = place
        peer.stack = stack

    @property
    def _title(self) -> str:
        return f"[rank 0 on {self._host}] "


def _summary(peer: _Peer) -> str:
    """Where rank 0 was, for ranks that will have to say it when it answers no more."""
    calls = [log.recent[-1] for log in peer.logs.values() if log.recent]
    if not calls:
        return f"it was last seen in {peer.position}"
    return f"it was last seen in {peer.position}, after {calls[0].name} at {calls[0].site}"


def say(text: str) -> None:
    """Prints to standard error in one piece, so that ranks do not mix their lines."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # a closed stream must not keep the job alive
        pass

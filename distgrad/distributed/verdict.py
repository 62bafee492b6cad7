"""What the states of all ranks mean: who waits for whom, who has gone another way, and the sentences that say so.

Pure functions over what ranks have told about themselves; the watchdog's server calls them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .collective_log import CollectiveLog, Record

LINES = 24  # of a report about one collective; a thousand ranks shall not fill the screen


class Call(NamedTuple):
    """One collective as another rank tells of it.

    Attributes:
        sequence, call, site, label, of_user: see ``collective_log.Record``.
        waited: seconds that the rank has waited for it; None: it does something else meanwhile, or has left.
        left: whether it is done.
    """

    sequence: int
    call: str
    site: str
    label: str
    of_user: bool
    waited: float | None
    left: bool

    @property
    def name(self) -> str:
        """The collective for people: "all_reduce #412 (bucket 2, layer3.0.conv1.weight)"."""
        operation = self.call.partition("(")[0]
        return f"{operation} #{self.sequence}" + (f" ({self.label})" if self.label else "")


class Log(NamedTuple):
    """What a rank has done on one communicator.

    Attributes:
        name, members: see ``collective_log.CollectiveLog``.
        sequence: the number of the next collective.
        pending: those that were entered and not left.
        recent: the last ones, the oldest first.
    """

    name: str
    members: tuple[int, ...]
    sequence: int
    pending: tuple[Call, ...]
    recent: tuple[Call, ...]

    def call(self, sequence: int) -> Call | None:
        """The collective of that number, if it is known."""
        return next((call for call in (*self.pending, *reversed(self.recent)) if call.sequence == sequence), None)


class Rank(NamedTuple):
    """What is known about one rank.

    Attributes:
        rank: in the world.
        host: its name.
        limit: seconds that its collectives may take.
        position: the line its main thread is at, or was when it last told.
        logs: one a communicator, by name.
        condition: "": it answers; else a clause on what is wrong, "is dead", "has not answered for 3.1 s".
        stack: of a rank that does not answer, as far as it could be found; or "".
    """

    rank: int
    host: str
    limit: float
    position: str
    logs: dict[str, Log]
    condition: str = ""
    stack: str = ""

    @property
    def title(self) -> str:
        """ "rank 3 on node-b"."""
        return f"rank {self.rank} on {self.host}"


# ---- Told and read


def tell(log: CollectiveLog, limit: float, count: int) -> dict[str, Any]:
    """What this rank has done on a communicator, for JSON.

    Args:
        log: of the communicator.
        limit: seconds that a collective may take.
        count: how many of the last collectives are told.
    """
    now = time.monotonic()
    return {
        "name": log.name,
        "members": log.members,
        "sequence": log.sequence,
        "pending": [_tell_call(record, now, limit) for record in list(log.pending.values())],
        "recent": [_tell_call(record, now, limit) for record in log.recent(count)],
    }


def _tell_call(record: Record, now: float, limit: float) -> list[Any]:
    waited = record.waited(now, limit / 2)
    return [
        record.sequence,
        record.call,
        record.site,
        record.label,
        record.of_user,
        waited,
        record.left is not None,
    ]


def read_log(told: dict[str, Any]) -> Log:
    """The opposite of :func:`tell`."""
    return Log(
        told["name"],
        tuple(told["members"]),
        told["sequence"],
        tuple(Call(*call) for call in told["pending"]),
        tuple(Call(*call) for call in told["recent"]),
    )


# ---- Waiting too long


def overdue(ranks: Iterable[Rank]) -> bool:
    """Whether somebody has waited for a collective longer than its limit."""
    return any(
        call.waited is not None and call.waited > rank.limit
        for rank in ranks
        for log in rank.logs.values()
        for call in log.pending
    )


def stuck(ranks: Sequence[Rank]) -> str | None:
    """The report on all collectives that somebody waits for too long; None: nobody does."""
    paragraphs = []
    by_rank = {rank.rank: rank for rank in ranks}
    for name in dict.fromkeys(name for rank in ranks for name in rank.logs):
        logs = {rank.rank: rank.logs[name] for rank in ranks if name in rank.logs}
        waits = [
            (call.sequence, rank, call)
            for rank, log in logs.items()
            for call in log.pending
            if call.waited is not None and call.waited > by_rank[rank].limit
        ]
        if waits:
            _, rank, call = min(waits, key=lambda wait: wait[0])
            paragraphs.append(_about_wait(name, call, by_rank[rank], by_rank))
    return "\n".join(paragraphs) or None


def _about_wait(name: str, awaited: Call, waiter: Rank, ranks: dict[int, Rank]) -> str:
    """Who keeps the others waiting in ``awaited``, a collective on the communicator ``name``."""
    lines: list[str] = []
    waiting: list[int] = []
    left: list[int] = []
    for member in waiter.logs[name].members:
        rank = ranks.get(member)
        if rank is None:
            lines.append(f"rank {member} has never reached the watchdog, so nothing is known about it")
            continue
        log = rank.logs.get(name)
        call = None if log is None else log.call(awaited.sequence)
        if call is None and (log is None or log.sequence <= awaited.sequence):
            lines.append(_not_entered(rank, log, name, awaited))
        elif call is not None and call.call != awaited.call:
            lines.append(f"{_mismatch(waiter, awaited, rank, call)}{_aside(rank)}")
        elif rank.condition:
            lines.append(f"{rank.title} {rank.condition}, inside {awaited.name}; {_whereabouts(rank)}")
        elif call is None or call.left:
            left.append(member)
        elif call.waited is None:
            lines.append(
                f"{rank.title} has started {awaited.name} at {call.site} and has not come back to wait for it; it is "
                f"in {rank.position}"
            )
        else:
            waiting.append(member)
    if not lines:
        lines.append(
            "all ranks have entered it and none is missing: the network between them, or the MPI library, is stuck"
        )
    if len(lines) > LINES:
        lines[LINES - 1 :] = [f"... and {len(lines) - LINES + 1} ranks more"]
    if len(waiting) == 1:
        lines.append(f"rank {waiting[0]} waits in it at {awaited.site}")
    elif waiting:
        lines.append(f"{_names(waiting)} wait in it, {waiter.title} at {awaited.site}")
    if left:
        lines.append(f"{_names(left)} {'has' if len(left) == 1 else 'have'} left it")
    head = f"{awaited.name} of {name}, {awaited.call}, has outlasted its limit of {waiter.limit:g} s"
    return "\n".join([head, *(f"  {line}" for line in lines)])


def _not_entered(rank: Rank, log: Log | None, name: str, awaited: Call) -> str:
    text = f"{rank.title} has not entered {awaited.name}"
    if rank.condition:
        text += f": it {rank.condition}; {_whereabouts(rank)}"
    else:
        elsewhere = [
            f"{call.name} of {other.name} at {call.site}"
            for other in rank.logs.values()
            for call in other.pending
            if call.waited is not None and other.name != name
        ]
        text += f"; it waits in {', '.join(elsewhere)}" if elsewhere else f"; it is in {rank.position}"
    last = log.recent[-1] if log is not None and log.recent else None
    if last is not None:
        state = "which it has left" if last.left else "which it has not left"
        text += f"; its last collective here was {last.name} at {last.site}, {state}"
    return text


def _whereabouts(rank: Rank) -> str:
    return f"it was last seen in {rank.position}"


def _aside(rank: Rank) -> str:
    return f" ({rank.title} {rank.condition})" if rank.condition else ""


def gone(ranks: Sequence[Rank]) -> str | None:
    """The report on ranks that have died; None: all live."""
    lines = []
    for rank in ranks:
        if rank.condition == "is dead":
            pending = [
                f"{call.name} of {log.name} at {call.site}" for log in rank.logs.values() for call in log.pending
            ]
            inside = f" inside {', '.join(pending)}" if pending else ""
            last = [] if pending else [log.recent[-1] for log in rank.logs.values() if log.recent]
            after = f", after {last[0].name} at {last[0].site}" if last else ""
            lines.append(
                f"{rank.title} is dead: its process has ended without a word{inside}{after}; {_whereabouts(rank)}"
            )
    return "\n".join(lines) or None


# ---- Different ways


def first_difference(
    ranks: Sequence[Rank], name: str, key: Callable[[Call], Any]
) -> tuple[tuple[Rank, Call], tuple[Rank, Call]] | None:
    """The first collective on the communicator ``name`` in which ranks differ, as far back as they remember.

    Args:
        ranks: what they have told.
        name: of the communicator.
        key: what has to be the same.

    Returns:
        The first two that differ: most often the lowest rank, and the first that is unlike it.
    """
    tables = [(rank, {call.sequence: call for call in rank.logs[name].recent}) for rank in ranks if name in rank.logs]
    for sequence in sorted(set(itertools.chain.from_iterable(table for _, table in tables))):
        known = [(rank, table[sequence]) for rank, table in tables if sequence in table]
        for rank, call in known[1:]:
            if key(call) != key(known[0][1]):
                return known[0], (rank, call)
    return None


def apart(ranks: Sequence[Rank], name: str, agreed: int) -> str:
    """The report on ranks whose signatures differ.

    Args:
        ranks: what they have told.
        name: of the communicator.
        agreed: up to which collective their signatures were the same; -1: none is known.
    """
    found = first_difference(ranks, name, lambda call: call.call)
    head = f"ranks have not made the same calls on {name}; every rank must make the same ones in the same order"
    if found is not None:
        (one, its), (other, others) = found
        return f"{head}\n  {_mismatch(one, its, other, others)}"
    now = [
        f"{rank.title} is at {log.recent[-1].name}, {log.recent[-1].call} at {log.recent[-1].site}"
        for rank in ranks
        if (log := rank.logs.get(name)) is not None and log.recent
    ]
    since = f"after #{agreed}" if agreed >= 0 else "early"
    return "\n  ".join([f"{head}; they parted {since}, longer ago than they remember", *now[:LINES]])


def lines_apart(ranks: Sequence[Rank], name: str) -> str | None:
    """The note on ranks that made the same call on different lines of the program; None: there is none to show."""
    found = first_difference(ranks, name, lambda call: call.site)
    if found is None:
        return None
    (one, its), (other, others) = found
    if its.call != others.call or not (its.of_user and others.of_user):
        return None
    return (
        f"{its.name} of {name} is {its.call} at {its.site} on rank {one.rank} but at {others.site} on rank "
        f"{other.rank}: they have exchanged values on different lines. That is right where the program says so, as "
        "where one rank sends what the others receive"
    )


def _mismatch(one: Rank, its: Call, other: Rank, others: Call) -> str:
    return (
        f"rank {one.rank} called {its.call} at {its.site} but rank {other.rank} called {others.call} at {others.site}, "
        f"as collective #{its.sequence}"
    )


def _names(ranks: Sequence[int]) -> str:
    """ "rank 3", "ranks 0 to 2 and 5"."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    parts = [part for a, b in runs for part in ([f"{a} to {b}"] if b > a + 1 else [str(r) for r in range(a, b + 1)])]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"rank{'s' * (len(ranks) > 1)} {listed}"

"""A timeline of all ranks: one trace that browsers draw, and a few lines that say where the time of a step goes.

What is drawn is what the rooms mark with :mod:`distgrad.tracing`: forward and backward, each bucket's all-reduce and
the wait for it, data loading, and whatever a program marks itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import tracing
from ..distributed import Communicator
from ..distributed import communicator as default_communicator
from .clocks import Alignment, Offsets, compare_clocks
from .timeline_summary import RankEvents, Span, TimelineSummary, summarize

STEP = "step"  # the name of the moments at which a step begins
BUCKETS_LANE = 1_000_000  # the line of a rank's communication in the trace, whichever thread does it


class Timeline:
    """Records what all ranks do, from ``__enter__`` to ``__exit__``, and writes it as one trace.

    The file is in Chrome's trace event format; https://ui.perfetto.dev and chrome://tracing open it. A rank is a
    process there and a thread a thread; a rank's communication has a line of its own, and arrows lead from the rank
    that came last to an all-reduce to the others, which waited for it. All moments are on rank 0's clock, as exactly as
    the summary's ``clock_error`` says.

    Entering and leaving are collectives, and so is the ``step`` with which a recording begins or ends: all ranks call
    it equally often. A body that raises on this rank leaves no file and sends no message.

        with Timeline("timeline.json") as timeline:
            for images, labels in loader:
                ...
                timeline.step()
        print(timeline.summary)  # on every rank

    Args:
        path: of the file, which rank 0 writes, and its folder where there is none.
        communicator: the ranks; default: those of ``distgrad.distributed.init``.
        steps: stop after so many steps; None: at the end.
        skip: begin after so many steps, which are slower than others: memory is new, plans are made.
        limit: events that a rank keeps; the oldest give way.

    Attributes:
        summary: a :class:`TimelineSummary`, once the file is written; None before.

    Raises:
        ValueError: ``steps`` below 1, or ``skip`` below 0.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        communicator: Communicator | None = None,
        steps: int | None = None,
        skip: int = 0,
        limit: int = tracing.DEFAULT_LIMIT,
    ) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"Timeline: steps is {steps}, must be at least 1")
        if skip < 0:
            raise ValueError(f"Timeline: skip is {skip}, must not be negative")
        self.path = Path(path)
        self.summary: TimelineSummary | None = None
        self._communicator = default_communicator() if communicator is None else communicator
        self._steps, self._skip, self._limit = steps, skip, limit
        self._done = 0  # steps
        self._before: Offsets | None = None  # while it records

    def __enter__(self) -> Timeline:
        if self._skip == 0:
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        elif self._before is not None:  # others may be in the same trouble, or wait for this rank somewhere else
            self._before = None
            tracing.stop()

    def step(self) -> None:
        """Says that a step is over. Without these marks a step begins with each "forward" of the main thread."""
        self._done += 1
        if self._before is not None:
            tracing.instant(STEP, number=self._done)
            if self._steps is not None and self._done == self._skip + self._steps:
                self.finish()
        elif self._done == self._skip:
            self._start()

    def _start(self) -> None:
        self._before = compare_clocks(self._communicator)
        tracing.start(self._limit)
        tracing.instant(STEP, number=self._done)

    def finish(self) -> None:
        """Ends the recording and writes the file, now instead of at ``__exit__``; does nothing where that is done."""
        if self._before is None:
            return
        recording = tracing.stop()
        before, self._before = self._before, None
        align = Alignment(before, compare_clocks(self._communicator), self._communicator.rank)
        mine = {
            "rank": self._communicator.rank,
            "host": self._communicator.hostname,
            "process": os.getpid(),
            "main": recording.main.number,
            "dropped": recording.dropped,
            "error": align.error,
            "events": [
                [
                    event.name,
                    event.category,
                    event.track.number,
                    event.track.name,
                    align(event.start),
                    None if event.end is None else align(event.end),
                    event.arguments,
                ]
                for event in recording.events
            ],
        }
        text = json.dumps(mine, default=str).encode()
        ranks = [_rank_events(json.loads(part)) for part in self._communicator.all_gather_bytes(text)]
        self.summary = summarize(ranks)
        if self._communicator.rank == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "w", encoding="utf-8") as file:
                json.dump(trace(ranks, self.summary), file)


def _rank_events(text: dict[str, Any]) -> RankEvents:
    spans = [Span(*event) for event in text.pop("events")]
    return RankEvents(spans=sorted(spans, key=lambda span: span.start), **text)


def trace(ranks: list[RankEvents], summary: TimelineSummary) -> dict[str, Any]:
    """The events of all ranks as the content of a file in Chrome's trace event format."""
    origin = min((rank.spans[0].start for rank in ranks if rank.spans), default=0)

    def microseconds(moment: int) -> float:
        return (moment - origin) / 1000

    events: list[dict[str, Any]] = []
    for rank in ranks:
        place = {"ph": "M", "pid": rank.rank, "tid": 0}
        title = f"rank {rank.rank} on {rank.host} (process {rank.process})"
        events.append(place | {"name": "process_name", "args": {"name": title}})
        events.append(place | {"name": "process_sort_index", "args": {"sort_index": rank.rank}})
        threads = {span.thread: span.thread_name for span in rank.spans if span.category != "communication"}
        for number, name in [*sorted(threads.items()), (BUCKETS_LANE, "communication")]:
            events.append(place | {"tid": number, "name": "thread_name", "args": {"name": name}})
        for span in rank.spans:
            lane = BUCKETS_LANE if span.category == "communication" else span.thread
            event = {"name": span.name, "cat": span.category, "pid": rank.rank, "tid": lane}
            event |= {"ts": microseconds(span.start), "args": span.arguments}
            if span.end is None:
                events.append(event | {"ph": "i", "s": "t"})
            else:
                events.append(event | {"ph": "X", "dur": (span.end - span.start) / 1000})
    for number, (last, others) in enumerate(_meetings(ranks)):
        arrow = {"name": "came last", "cat": "communication", "tid": BUCKETS_LANE}
        late, theirs = last
        events.append(arrow | {"ph": "s", "id": number, "pid": late, "ts": microseconds(theirs.start)})
        for other, theirs in others:
            assert theirs.end is not None
            finish = {"ph": "f", "bp": "e", "id": number, "pid": other, "ts": microseconds(theirs.end)}
            events.append(arrow | finish)
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": summary.as_dict()}


def _meetings(ranks: list[RankEvents]) -> list[tuple[tuple[int, Span], list[tuple[int, Span]]]]:
    """Of each all-reduce that all ranks have recorded: who came last, and the others."""
    per_rank = [[span for span in rank.spans if span.category == "communication"] for rank in ranks]
    found = []
    for index in range(min(map(len, per_rank), default=0)):
        # Counted from the end: what has given way is at the beginning, of as many events as the limit says.
        spans = [(rank.rank, own[len(own) - 1 - index]) for rank, own in zip(ranks, per_rank, strict=True)]
        if len(spans) > 1 and len({(span.name, span.bucket) for _, span in spans}) == 1:
            last = max(spans, key=lambda one: one[1].start)
            found.append((last, [one for one in spans if one is not last]))
    return found

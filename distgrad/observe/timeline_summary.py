"""What a timeline says in a few lines: how much communication is hidden, who comes last, what a step consists of."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

# Moments that are less apart than this are one event and its consequence, ns.
SAME = 200_000
OTHER = "other"


class Span(NamedTuple):
    """An event on rank 0's clock.

    Attributes:
        name, category, arguments: as in :class:`distgrad.tracing.Event`.
        thread, thread_name: which thread of the rank it was.
        start, end: ns; ``end`` is None for a moment.
    """

    name: str
    category: str
    thread: int
    thread_name: str
    start: int
    end: int | None
    arguments: dict[str, Any]

    @property
    def bucket(self) -> Any:
        """What a message is called, None where nobody said."""
        return self.arguments.get("bucket")


@dataclass
class RankEvents:
    """What one rank has recorded.

    Args:
        rank: which one.
        host: where it runs.
        process: its number there.
        main: the thread that started the recording.
        dropped: how many older events had to give way.
        error: ns by which its moments may be wrong.
        spans: in the order of their beginning.
    """

    rank: int
    host: str
    process: int
    main: int
    dropped: int
    error: int
    spans: list[Span]


@dataclass
class TimelineSummary:
    """The figures; ``str`` of it is lines for people.

    Attributes:
        ranks: how many.
        steps: how many whole steps all ranks have recorded.
        step_seconds: the middle step, from its begin on the first rank to its end on the last one.
        communication_seconds: of a step, mean over steps and ranks: the time in which a message was on its way.
        hidden: the share of that in which the main thread did not wait; None where there was no communication.
        hidden_per_step: the same, step by step.
        waiting: share of the steps in which main threads waited for messages.
        loading: share of the steps in which main threads waited for data.
        straggler: the rank that most often ends its computation last; None with one rank.
        straggler_share: in what share of the steps.
        straggler_seconds: how much later than the mean of the others then, in the middle.
        critical_path: what the length of the steps consists of, in order of size: who, doing what, and which share.
        clock_error: seconds by which moments of different ranks may be wrong.
        dropped: events that had to give way, over all ranks.
    """

    ranks: int
    steps: int = 0
    step_seconds: float = 0.0
    communication_seconds: float = 0.0
    hidden: float | None = None
    hidden_per_step: list[float] = field(default_factory=list)
    waiting: float = 0.0
    loading: float = 0.0
    straggler: int | None = None
    straggler_share: float = 0.0
    straggler_seconds: float = 0.0
    critical_path: list[tuple[str, float]] = field(default_factory=list)
    clock_error: float = 0.0
    dropped: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Numbers, text and lists."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.steps:
            return f"timeline of {self.ranks} ranks: no whole step was recorded{self._dropped()}"
        lines = [
            f"timeline of {self.steps} step{'s' * (self.steps > 1)} on {self.ranks} rank{'s' * (self.ranks > 1)}: "
            f"{1000 * self.step_seconds:.1f} ms a step; clocks agree within {1e6 * self.clock_error:.0f} us"
            f"{self._dropped()}"
        ]
        if self.hidden is not None:
            least, most = min(self.hidden_per_step), max(self.hidden_per_step)
            lines.append(
                f"  communication: {1000 * self.communication_seconds:.1f} ms a step, {100 * self.hidden:.0f} % of it "
                f"hidden ({100 * least:.0f} to {100 * most:.0f} %); main threads wait {100 * self.waiting:.0f} % of "
                f"the time for messages, {100 * self.loading:.0f} % for data"
            )
        if self.straggler is not None:
            lines.append(
                f"  straggler: rank {self.straggler} computes longest in {100 * self.straggler_share:.0f} % of the "
                f"steps, then {1000 * self.straggler_seconds:.1f} ms longer than the others"
            )
        path = ", ".join(f"{what} {100 * share:.0f} %" for what, share in self.critical_path[:6])
        lines.append(f"  critical path: {path}")
        return "\n".join(lines)

    def _dropped(self) -> str:
        return f"; {self.dropped} older events were dropped, raise the limit" if self.dropped else ""


def summarize(ranks: Sequence[RankEvents]) -> TimelineSummary:
    """The figures of events of all ranks, in rank order."""
    summary = TimelineSummary(len(ranks))
    summary.clock_error = max(rank.error for rank in ranks) / 1e9
    summary.dropped = sum(rank.dropped for rank in ranks)
    bounds = [_step_bounds(rank) for rank in ranks]
    # Steps are counted from the end: where events were dropped it is the first ones that are missing.
    summary.steps = max(0, min(len(own) for own in bounds) - 1)
    if not summary.steps:
        return summary
    bounds = [own[len(own) - 1 - summary.steps :] for own in bounds]
    steps = [
        [_Step(rank, start, end) for start, end in itertools.pairwise(own)]
        for rank, own in zip(ranks, bounds, strict=True)
    ]
    seconds, last_to_compute, path, lengths = [], [], Counter[str](), 0
    for number in range(summary.steps):
        step = [own[number] for own in steps]
        seconds.append((max(one.end for one in step) - min(one.start for one in step)) / 1e9)
        communication = sum(one.communication for one in step)
        if communication:
            summary.hidden_per_step.append(1 - sum(one.exposed for one in step) / communication)
        if len(ranks) > 1:
            last_to_compute.append(_last(step))
        for what, length in _critical_path(step).items():
            path[what] += length
            lengths += length
    every = [one for own in steps for one in own]
    whole, communication = sum(one.end - one.start for one in every), sum(one.communication for one in every)
    summary.step_seconds = statistics.median(seconds)
    summary.communication_seconds = communication / len(every) / 1e9
    if communication:
        summary.hidden = 1 - sum(one.exposed for one in every) / communication
    summary.waiting = sum(_length(one.waits) for one in every) / whole
    summary.loading = sum(_length(one.loads) for one in every) / whole
    if last_to_compute:
        summary.straggler, times = Counter(rank for rank, _ in last_to_compute).most_common(1)[0]
        summary.straggler_share = times / summary.steps
        late = [lateness for rank, lateness in last_to_compute if rank == summary.straggler]
        summary.straggler_seconds = statistics.median(late) / 1e9
    summary.critical_path = [(what, length / lengths) for what, length in path.most_common() if length]
    return summary


def _step_bounds(rank: RankEvents) -> list[int]:
    """Where steps begin, and where the last one ends."""
    main = [span for span in rank.spans if span.thread == rank.main]
    marks = [span.start for span in main if span.name == "step" and span.end is None]
    if len(marks) > 1:
        return marks
    starts = [span.start for span in main if span.name == "forward"]
    return [*starts, max(span.end or span.start for span in main)] if starts else []


class _Step:
    """One step of one rank.

    Attributes:
        rank: which one.
        start, end: ns.
        messages: what communicated, in order.
        waits, loads: intervals in which the main thread waited for messages, for data.
        communication: ns in which a message was on its way.
        exposed: ns of these in which the main thread waited.
        computed: when the main thread first waited for messages, or the step's end.
        segments: what the main thread did: start, end and span (None: nothing that was marked), one after the other.
    """

    def __init__(self, rank: RankEvents, start: int, end: int) -> None:
        self.rank, self.start, self.end = rank.rank, start, end
        inside = [span for span in rank.spans if span.end is not None and start <= span.start < end]
        self.messages = [span for span in inside if span.category == "communication"]
        main = [span for span in inside if span.thread == rank.main and span.category != "communication"]
        self.waits = _union(main, "wait")
        self.loads = _union(main, "data")
        on_their_way = _union(self.messages, "communication")
        self.communication = _length(on_their_way)
        self.exposed = _length(_common(on_their_way, self.waits))
        self.computed = self.waits[0][0] if self.waits else end
        self.segments = _flatten(main, start, end)

    def doing(self, moment: int) -> tuple[int, int, Span | None]:
        """The segment of the main thread that reaches up to ``moment``, or the first one."""
        return next((one for one in reversed(self.segments) if one[0] < moment), self.segments[0])

    def before(self, message: Span) -> Any:
        """The bucket of the message whose end let ``message`` begin; None where that was something else."""
        for one in reversed(self.messages):
            if one.start < message.start and one.end is not None:
                return one.bucket if abs(message.start - one.end) < SAME else None
        return None


def _last(step: Sequence[_Step]) -> tuple[int, float]:
    """Who ends its computation last, counted from the step's own begin, and by how much after the others' mean."""
    taken = [one.computed - one.start for one in step]
    last = max(range(len(step)), key=lambda rank: taken[rank])
    return last, taken[last] - statistics.mean(time for rank, time in enumerate(taken) if rank != last)


def _critical_path(step: Sequence[_Step]) -> Counter[str]:
    """What the step's length consists of, ns, found backwards from the end of the rank that ends last.

    Where that rank waits for a message, the message had to be carried since the last rank came to it, and before that
    is what that rank did: the message before, if it came from that, else its computation.
    """
    found: Counter[str] = Counter()
    by_rank = {one.rank: one for one in step}
    at = max(step, key=lambda one: one.end)
    moment = at.end
    bucket: Any = None  # the message whose end led to this moment
    while moment > at.start:
        start, _, span = at.doing(moment)
        if bucket is None and span is not None and span.category == "wait":
            bucket = span.bucket
        met = None if bucket is None else _meeting(step, bucket, moment)
        if met is None:
            found[f"rank {at.rank} {OTHER if span is None else span.name}"] += moment - start
            moment, bucket = start, None
        else:
            rank, message = met
            found[message.name] += moment - message.start
            at, moment = by_rank[rank], message.start
            bucket = at.before(message)
    return found


def _meeting(step: Sequence[_Step], bucket: Any, moment: int) -> tuple[int, Span] | None:
    """The rank that came last to the message ``bucket``, and its span; None where a rank has none before ``moment``."""
    spans = []
    for one in step:
        own = next((m for m in reversed(one.messages) if m.bucket == bucket and m.start < moment), None)
        if own is None:
            return None
        spans.append((one.rank, own))
    return max(spans, key=lambda pair: pair[1].start)


# ---- Intervals


def _union(spans: Iterable[Span], category: str) -> list[tuple[int, int]]:
    """The time in which there is a span of ``category``, as intervals in order; spans come by their start."""
    found: list[tuple[int, int]] = []
    for span in spans:
        if span.category != category or span.end is None:
            continue
        if found and span.start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], span.end))
        else:
            found.append((span.start, span.end))
    return found


def _common(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    pairs = [(max(a, c), min(b, d)) for a, b in first for c, d in second]
    return [(start, end) for start, end in pairs if start < end]


def _length(intervals: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in intervals)


def _flatten(spans: Sequence[Span], start: int, end: int) -> list[tuple[int, int, Span | None]]:
    """Nested spans as segments of the innermost one, without gaps from ``start`` to ``end``."""
    found: list[tuple[int, int, Span | None]] = []
    stack: list[Span] = []
    now = start

    def up_to(moment: int) -> None:
        nonlocal now
        moment = min(moment, end)
        if moment > now:
            found.append((now, moment, stack[-1] if stack else None))
            now = moment

    for span in sorted(spans, key=lambda one: (one.start, -(one.end or 0))):
        while stack and (stack[-1].end or 0) <= span.start:
            up_to(stack[-1].end or 0)
            stack.pop()
        up_to(span.start)
        stack.append(span)
    while stack:
        up_to(stack[-1].end or 0)
        stack.pop()
    up_to(end)
    return found

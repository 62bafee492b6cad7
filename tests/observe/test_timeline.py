"""The timeline of all ranks: clocks, the figures of known events, the file, and what is recorded of a real step."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import distgrad
from distgrad import nn, tracing
from distgrad.distributed import Communicator, DistributedDataParallel, SingleCommunicator, communicator, threads
from distgrad.nn import functional as F
from distgrad.observe import Timeline
from distgrad.observe.clocks import Alignment, Offsets, compare_clocks
from distgrad.observe.timeline import BUCKETS_LANE, trace
from distgrad.observe.timeline_summary import RankEvents, Span, summarize

pytestmark = pytest.mark.timeout(60, method="thread")
MS = 1_000_000
MAIN, HELPER = 0, 1


def rank_events(rank: int, *spans: tuple[str, str, int, float, float | None], dropped: int = 0) -> RankEvents:
    """Events as name, category, thread, start and end in ms; "name:bucket" names a bucket."""
    made = []
    for name, category, thread, start, end in dict.fromkeys(spans):  # a step ends where the next one begins
        name, _, bucket = name.partition(":")
        moments = (round(start * MS), None if end is None else round(end * MS))
        made.append(Span(name, category, thread, "t", *moments, {"bucket": bucket} if bucket else {}))
    return RankEvents(rank, "node", 7, MAIN, dropped, 500, sorted(made, key=lambda span: span.start))


def step(begin: float, forward: float, backward: float, message: tuple[float, float], over: float) -> list:
    """A step of ms: forward and backward until these moments, a message, an update until it is over."""
    return [
        ("step", "other", MAIN, begin, None),
        ("forward", "compute", MAIN, begin, begin + forward),
        ("backward", "compute", MAIN, begin + forward, begin + message[1]),
        ("wait:b", "wait", MAIN, begin + backward, begin + message[1]),
        ("all_reduce:b", "communication", HELPER, begin + message[0], begin + message[1]),
        ("step", "other", MAIN, begin + over, None),
    ]


# ------------------------------------------------------------------------------------------------------------- clocks


def test_the_difference_of_clocks_is_found_within_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = {0: 0, 1: 5_000_000_000, 2: -123_456_789}
    of_thread = threading.local()
    monkeypatch.setattr(tracing, "clock", lambda: time.monotonic_ns() + of_thread.ahead)

    def rank() -> Offsets:
        of_thread.ahead = ahead[communicator().rank]
        return compare_clocks(communicator())

    for offsets in threads.run(3, rank):
        assert offsets.ahead[0] == offsets.error[0] == 0
        for number in (1, 2):
            assert abs(offsets.ahead[number] - ahead[number]) <= offsets.error[number] < 50 * MS


def test_a_clock_that_runs_faster_is_followed() -> None:
    """A thousandth too fast: 2 ms ahead at its 2 s, 4 ms at its 4 s."""
    align = Alignment(Offsets(2_000 * MS, [0, 2 * MS], [0, 10]), Offsets(4_000 * MS, [0, 4 * MS], [0, 30]), rank=1)
    assert [align(moment * MS) for moment in (2_000, 3_000, 4_000)] == [1_998 * MS, 2_997 * MS, 3_996 * MS]
    assert align.error == 30


# ------------------------------------------------------------------------------------------------------------ figures


def test_hidden_is_what_nobody_waits_for() -> None:
    # 40 ms of communication, of which the last 10 are waited for; then 20 ms that are all waited for.
    both = [*step(0, 20, 60, (30, 70), 80), *step(80, 20, 40, (40, 60), 70)]
    summary = summarize([rank_events(0, *both), rank_events(1, *both)])
    assert (summary.ranks, summary.steps, summary.dropped) == (2, 2, 0)
    assert summary.hidden_per_step == pytest.approx([0.75, 0.0]) and summary.hidden == pytest.approx(0.5)
    assert summary.communication_seconds == pytest.approx(0.030) and summary.step_seconds == pytest.approx(0.075)
    assert summary.waiting == pytest.approx((10 + 20) / 150) and summary.loading == 0
    assert summary.clock_error == pytest.approx(5e-7)
    assert "50 % of it hidden (0 to 75 %)" in str(summary)


def test_communication_in_several_threads_counts_once() -> None:
    spans = [*step(0, 20, 60, (30, 70), 80), ("all_reduce:c", "communication", 2, 40, 70)]
    summary = summarize([rank_events(0, *spans)])
    assert summary.communication_seconds == pytest.approx(0.040) and summary.hidden == pytest.approx(0.75)


def test_the_straggler_is_named_with_how_late_and_how_often() -> None:
    quick = [*step(0, 20, 40, (40, 90), 100), *step(100, 20, 40, (40, 90), 100), *step(200, 20, 85, (80, 90), 100)]
    slow = [*step(0, 20, 80, (80, 90), 100), *step(100, 20, 80, (80, 90), 100), *step(200, 20, 80, (80, 90), 100)]
    summary = summarize([rank_events(0, *quick), rank_events(1, *slow), rank_events(2, *quick)])
    assert summary.straggler == 1 and summary.straggler_share == pytest.approx(2 / 3)
    assert summary.straggler_seconds == pytest.approx(0.040)
    assert "rank 1 computes longest in 67 % of the steps, then 40.0 ms longer" in str(summary)


def test_the_critical_path_goes_through_the_rank_that_came_last() -> None:
    quick, slow = step(0, 20, 40, (40, 90), 100), step(0, 30, 80, (80, 90), 100)
    summary = summarize([rank_events(0, *quick), rank_events(1, *slow)])
    path = dict(summary.critical_path)
    # back from the end: 10 ms of update on rank 0, 10 ms of the message since rank 1 came, rank 1's 50 ms and 30 ms
    assert path == pytest.approx(
        {"rank 0 other": 0.1, "all_reduce": 0.1, "rank 1 backward": 0.5, "rank 1 forward": 0.3}
    )
    assert next(iter(path)) == "rank 1 backward"


def test_the_critical_path_follows_messages_that_wait_for_each_other() -> None:
    spans = [
        ("step", "other", MAIN, 0, None),
        ("forward", "compute", MAIN, 0, 10),
        ("backward", "compute", MAIN, 10, 90),
        ("all_reduce:a", "communication", HELPER, 20, 50),
        ("all_reduce:b", "communication", HELPER, 50, 90),
        ("wait:a", "wait", MAIN, 40, 50),
        ("wait:b", "wait", MAIN, 50, 90),
        ("step", "other", MAIN, 100, None),
    ]
    path = dict(summarize([rank_events(0, *spans), rank_events(1, *spans)]).critical_path)
    assert path == pytest.approx(
        {"all_reduce": 0.7, "rank 0 forward": 0.1, "rank 0 backward": 0.1, "rank 0 other": 0.1}
    )


def test_steps_begin_with_forward_where_nobody_marks_them() -> None:
    marked = [*step(0, 20, 60, (30, 70), 80), *step(80, 20, 40, (40, 60), 70)]
    spans = [span for span in marked if span[0] != "step"]
    summary = summarize([rank_events(0, *spans)])
    assert summary.steps == 2 and summary.hidden == pytest.approx(0.5)


def test_dropped_events_are_said_and_steps_still_match() -> None:
    both = [*step(0, 20, 60, (30, 70), 80), *step(80, 20, 40, (40, 60), 70)]
    short = [span for span in both if span[3] >= 80]  # of rank 1 the first step is gone
    summary = summarize([rank_events(0, *both), rank_events(1, *short, dropped=5)])
    assert summary.steps == 1 and summary.hidden == pytest.approx(0.0)
    assert summary.dropped == 5 and "5 older events were dropped" in str(summary)


def test_nothing_recorded_is_no_error() -> None:
    summary = summarize([rank_events(0), rank_events(1)])
    assert summary.steps == 0 and "no whole step" in str(summary)
    assert json.loads(json.dumps(trace([rank_events(0), rank_events(1)], summary)))["otherData"]["steps"] == 0


# --------------------------------------------------------------------------------------------------------------- files


def test_the_trace_has_what_viewers_need() -> None:
    ranks = [rank_events(0, *step(5, 20, 60, (30, 70), 80)), rank_events(1, *step(5, 20, 60, (40, 70), 80))]
    content = trace(ranks, summarize(ranks))
    events = content["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"rank 0 on node (process 7)", "rank 1 on node (process 7)"}
    first = next(event for event in events if event["name"] == "forward" and event["pid"] == 0)
    assert (first["ph"], first["ts"], first["dur"], first["tid"]) == ("X", 0.0, 20_000.0, MAIN)
    message = next(event for event in events if event["name"] == "all_reduce" and event["pid"] == 1)
    assert (message["tid"], message["ts"], message["args"]) == (BUCKETS_LANE, 40_000.0, {"bucket": "b"})
    assert all("dur" not in event and event["s"] == "t" for event in events if event["ph"] == "i")
    arrows = [(event["ph"], event["pid"], event["ts"], event["id"]) for event in events if event["ph"] in "sf"]
    assert arrows == [("s", 1, 40_000.0, 0), ("f", 0, 70_000.0, 0)]  # from rank 1, which came last


class Step:
    """A model, data and an optimizer; ``run`` takes a step."""

    def __init__(self, ranks: Communicator, **options: object) -> None:
        distgrad.manual_seed(0)
        self.model = DistributedDataParallel(
            nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), ranks, **options
        )
        self.optimizer = distgrad.optim.SGD(self.model.parameters(), lr=0.1)
        self.inputs, self.labels = distgrad.ones(3, 8), distgrad.tensor([0, 1, 2])

    def run(self) -> None:
        loss = F.cross_entropy(self.model(self.inputs), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


@pytest.mark.parametrize("progress", ["none", "thread", "patient", "poll"])
def test_a_data_parallel_step_on_rank_threads(tmp_path: Path, progress: str) -> None:
    path = tmp_path / "new" / "timeline.json"

    def rank() -> dict[str, object]:
        ranks = communicator()
        with Timeline(path, ranks, steps=2, skip=1) as timeline:
            training = Step(ranks, progress=progress)
            for _ in range(5):
                training.run()
                timeline.step()
        assert timeline.summary is not None
        return timeline.summary.as_dict()

    summaries = threads.run(3, rank, ranks_per_host=2)
    assert summaries[0] == summaries[1] == summaries[2]
    assert summaries[0]["steps"] == 2 and summaries[0]["ranks"] == 3
    assert 0.0 <= summaries[0]["hidden"] <= 1.0 and summaries[0]["straggler"] in (0, 1, 2)
    content = json.loads(path.read_text())
    spans = [event for event in content["traceEvents"] if event["ph"] == "X"]
    for number in range(3):
        names = [event["name"] for event in spans if event["pid"] == number]
        assert names.count("forward") == names.count("backward") == 2
        assert names.count("all_reduce") == names.count("wait") == 4  # the header and one bucket
        assert "optimizer" not in names
    hosts = {event["args"]["name"].split()[3] for event in content["traceEvents"] if event["name"] == "process_name"}
    assert hosts == {"host0", "host1"}
    assert not tracing.is_recording()


def test_one_rank_and_a_users_own_marks(tmp_path: Path) -> None:
    with Timeline(tmp_path / "timeline.json", SingleCommunicator()) as timeline:
        for number in range(2):
            with tracing.span("my part", bytes=np.int64(3)):
                time.sleep(0.002)
            tracing.instant("there", number=number)
            timeline.step()
    summary = timeline.summary
    assert summary is not None and summary.steps == 2 and summary.hidden is None and summary.straggler is None
    assert summary.critical_path[0][0] == "rank 0 my part"
    names = [event["name"] for event in json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]]
    assert names.count("my part") == names.count("there") == 2


def test_an_error_leaves_no_file_and_no_recording(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Timeline(tmp_path / "timeline.json", SingleCommunicator()):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == [] and not tracing.is_recording()


@pytest.mark.parametrize(("options", "message"), [({"steps": 0}, "steps is 0"), ({"skip": -1}, "skip is -1")])
def test_numbers_of_steps_that_make_no_sense(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Timeline(tmp_path / "timeline.json", SingleCommunicator(), **options)

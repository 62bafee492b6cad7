"""The timeline under MPI: one file, one clock, the same figures on every rank."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import distgrad
from distgrad import nn, tracing
from distgrad.distributed import Communicator, DistributedDataParallel, init
from distgrad.nn import functional as F
from distgrad.observe import Timeline
from distgrad.observe.clocks import compare_clocks

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread")]


@pytest.fixture
def ranks() -> Communicator:
    return init("mpi")


def test_processes_of_one_host_have_one_clock(ranks: Communicator) -> None:
    offsets = compare_clocks(ranks)
    if ranks.local_world_size == ranks.world_size:
        assert all(abs(ahead) <= error for ahead, error in zip(offsets.ahead, offsets.error, strict=True))
    assert all(error < 100_000_000 for error in offsets.error)


@pytest.mark.parametrize("progress", ["none", "patient", "poll"])
def test_a_data_parallel_step(tmp_path: Path, ranks: Communicator, progress: str) -> None:
    folder = Path(ranks.all_gather_bytes(str(tmp_path).encode())[0].decode())  # rank 0's, which writes
    distgrad.manual_seed(0)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 4)), ranks, bucket_cap_mb=0.01, progress=progress
    )
    inputs, labels = distgrad.ones(3 + ranks.rank, 64), distgrad.tensor([0] * (3 + ranks.rank))
    with Timeline(folder / "timeline.json", ranks, steps=3, skip=2) as timeline:
        for _ in range(6):
            model.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            timeline.step()
    assert not tracing.is_recording()
    summary = timeline.summary
    assert summary is not None and (summary.steps, summary.ranks, summary.dropped) == (3, ranks.world_size, 0)
    figures = ranks.all_gather_bytes(json.dumps(summary.as_dict()).encode())
    assert figures == figures[:1] * ranks.world_size
    ranks.barrier()
    if ranks.rank == 0:
        events = json.loads((folder / "timeline.json").read_text())["traceEvents"]
        spans = [event for event in events if event["ph"] == "X"]
        assert {event["pid"] for event in spans} == set(range(ranks.world_size))
        for number in range(ranks.world_size):
            own = [event["name"] for event in spans if event["pid"] == number]
            assert own.count("forward") == own.count("backward") == 3
    if ranks.world_size > 1:
        assert summary.hidden is not None and 0 <= summary.hidden <= 1
        assert summary.straggler in range(ranks.world_size)
        if ranks.rank == 0:
            arrows = [event for event in events if event["ph"] == "s"]
            assert len(arrows) >= 3 * 2  # at least the header and a bucket a step

"""The choice of buckets and hook: the same on every rank, by the slowest, and nothing that changes what is learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad import distributed
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel, threads
from distgrad.distributed.autotune import Autotune, Candidate, hooks_worth_trying, sizes_worth_trying
from distgrad.distributed.comm_hooks import HierarchicalState, PowerSGDState, allreduce_hook
from distgrad.distributed.communicator import Array
from distgrad.distributed.single import SingleCommunicator
from distgrad.errors import ConfigError
from distgrad.nn import Linear, Module, ReLU, Sequential
from distgrad.optim import SGD

pytestmark = pytest.mark.timeout(60)

SIZES = (25.0, 1.0, 5.0)
NAMES = ("all_reduce", "fp16", "reduce_scatter")


def choose(times: Callable[[int, Candidate], float], world_size: int = 3, **options: Any) -> tuple[Any, list[str]]:
    """What the ranks agree on where a step takes so long, what was tried on the way, and what was reported."""
    lines: list[str] = []

    def body() -> tuple[Candidate | None, list[Candidate], dict[Candidate, float], list[Any]]:
        tuner = Autotune(
            distributed.communicator(), SIZES, NAMES, steps_each=3, warm_up_steps=1, report=lines.append, **options
        )
        tried, pins = [], []
        while tuner.choice is None:
            tried.append(tuner.candidate)
            before = tuner.candidate
            changed = tuner.record(times(distributed.rank(), tuner.candidate))
            assert changed == (tuner.candidate != before)
            pins.append(tuner.pin)
        return tuner.choice, tried, tuner.figures, pins

    ranks = threads.run(world_size, body)
    assert all(rank == ranks[0] for rank in ranks)
    return ranks[0], lines


def test_first_the_sizes_then_the_hooks() -> None:
    cost = {25.0: 3.0, 1.0: 2.0, 5.0: 1.0, "all_reduce": 0.5, "fp16": 0.9, "reduce_scatter": 0.1}
    (choice, tried, figures, pins), lines = choose(lambda rank, c: cost[c.bucket_cap_mb] + cost[c.comm_hook])
    assert choice == Candidate(5.0, "reduce_scatter")
    assert pins == [None] * 19 + [{"bucket_cap_mb": 5.0, "comm_hook": "reduce_scatter"}]
    order = [(25.0, "all_reduce"), (1.0, "all_reduce"), (5.0, "all_reduce"), (5.0, "fp16"), (5.0, "reduce_scatter")]
    assert tried == [Candidate(*each) for each in order for _ in range(4)]  # one step to warm up, three that count
    assert figures[choice] == pytest.approx(1.1)
    assert lines == [
        "autotune: bucket_cap_mb=5, comm_hook='reduce_scatter' (ms of forward and backward on the slowest rank: 25 MiB "
        "all_reduce 3500.0, 1 MiB all_reduce 2500.0, 5 MiB all_reduce 1500.0, 5 MiB fp16 1900.0, 5 MiB reduce_scatter "
        "1100.0); give these two to pin the choice"
    ]


def test_the_slowest_rank_counts() -> None:
    """Rank 2 is slow with small buckets, the others like them best."""
    (choice, _, figures, _), _ = choose(lambda rank, c: {25.0: 2.0, 1.0: 9.0 if rank == 2 else 1.0, 5.0: 3.0}[c[0]])
    assert choice == Candidate(25.0, "all_reduce")
    assert figures[Candidate(1.0, "all_reduce")] == 9.0


def test_the_median_of_the_steps_counts() -> None:
    """One step in three meets something else, such as an evaluation."""
    steps = [0] * 2

    def times(rank: int, candidate: Candidate) -> float:
        steps[rank] += 1
        return 100.0 if steps[rank] % 4 == 2 and candidate.bucket_cap_mb == 5.0 else candidate.bucket_cap_mb % 5 + 1

    (choice, *_), _ = choose(times, world_size=2)
    assert choice.bucket_cap_mb == 25.0  # as fast as 5, and the default


def test_the_warm_up_does_not_count() -> None:
    seen: list[Candidate] = []

    def times(rank: int, candidate: Candidate) -> float:
        seen.append(candidate)
        return 50.0 if seen.count(candidate) == 1 else candidate.bucket_cap_mb

    (choice, _, figures, _), _ = choose(times, world_size=1)
    assert choice.bucket_cap_mb == 1.0 and max(figures.values()) == 25.0


def test_noise_does_not_beat_the_default() -> None:
    (choice, *_), _ = choose(lambda rank, c: 1.0 if c == (25.0, "all_reduce") else 0.985)
    assert choice == Candidate(25.0, "all_reduce")


def test_nothing_to_choose() -> None:
    lines: list[str] = []
    tuner = Autotune(SingleCommunicator(), [5], ["top_k"], report=lines.append)
    assert tuner.choice == tuner.candidate == Candidate(5.0, "top_k")
    assert not tuner.record(1.0) and lines == [] and tuner.pin is None


def test_the_line_while_trying() -> None:
    assert Autotune(SingleCommunicator()).summary() == "autotune: trying 25 MiB all_reduce"


def test_printed_on_rank_0(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        tuner = Autotune(distributed.communicator(), [1, 2], steps_each=1, warm_up_steps=0)
        tuner.record(1.0)
        tuner.record(2.0)

    threads.run(2, body)
    assert capsys.readouterr().err.count("autotune: bucket_cap_mb=1, comm_hook='all_reduce'") == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], ["all_reduce"]), ValueError, "must each have an entry"),
        (([1], []), ValueError, "must each have an entry"),
        (([1], ["all_reduce", "top_k"]), ValueError, "the hook 'top_k' changes what is learned"),
        (([1], ["all_reduce", "fp15"]), ConfigError, "unknown comm_hook 'fp15'"),
        (([1], ["all_reduce"], 0), ValueError, "steps_each is 0"),
    ],
)
def test_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Autotune(SingleCommunicator(), *arguments)


@pytest.mark.parametrize(
    ("megabytes", "expected"),
    [(200, [25, 1, 5, 100]), (45, [25, 1, 5, 100]), (25, [25, 1, 5]), (4, [25, 1]), (1, [25])],
)
def test_sizes_worth_trying(megabytes: float, expected: list[float]) -> None:
    assert sizes_worth_trying(int(megabytes * 2**20)) == expected


def test_hooks_worth_trying() -> None:
    def body() -> list[str]:
        return hooks_worth_trying(distributed.communicator())

    assert threads.run(4, body, ranks_per_host=1) == [["all_reduce", "reduce_scatter"]] * 4
    # one of three hosts has a single rank
    assert threads.run(5, body, ranks_per_host=2) == [["all_reduce", "reduce_scatter", "hierarchical"]] * 5


# ---- In DistributedDataParallel


def network() -> Module:
    generator = np.random.default_rng(0)
    model = Sequential(Linear(6, 16), ReLU(), Linear(16, 2))
    for parameter in model.parameters():
        parameter.detach().numpy()[...] = generator.standard_normal(parameter.shape) * 0.3
    return model


def train(steps: int, **options: Any) -> tuple[list[Array], Any]:
    """Ragged shards; with no_sync in between, and evaluation, which take no part in the choice."""
    ranks, rank = distributed.world_size(), distributed.rank()
    model = DistributedDataParallel(network(), **options)
    optimizer = SGD(model.parameters(), lr=0.05)
    for step in range(steps):
        x = np.random.default_rng([1, step]).standard_normal((3 * ranks + 1, 6)).astype(np.float32)
        own = slice(3 * rank, None if rank == ranks - 1 else 3 * rank + 3)
        optimizer.zero_grad()
        if step % 3 == 1:
            with model.no_sync():
                (model(Tensor(x[own])) ** 2).mean().backward()
        ((model(Tensor(x[own])) - 1.0) ** 2).mean().backward()
        optimizer.step()
        model(Tensor(x[own]))  # recorded, and never gone back
    return [p.detach().numpy().copy() for p in model.parameters()], model


def test_training_goes_on_as_if_nothing_had_been_tried(capsys: pytest.CaptureFixture[str]) -> None:
    """Two sizes and three hooks, seven steps each."""
    steps = 4 * 7 + 3

    def tuned() -> tuple[list[Array], Candidate | None, Any]:
        values, model = train(steps, bucket_cap_mb=(25, 1e-4), comm_hook="auto")
        return values, model.autotune.choice, model

    plain, _ = threads.run(3, train, steps)[0]
    ranks = threads.run(3, tuned)
    assert ranks[0][1] is not None and ranks[0][1].comm_hook in ("all_reduce", "reduce_scatter", "hierarchical")
    for values, choice, model in ranks:
        assert choice == ranks[0][1]
        assert set(model.autotune.figures) >= {Candidate(25.0, "all_reduce"), Candidate(1e-4, "all_reduce")}
        assert len(model.autotune.figures) == 4
        for value, first, expected in zip(values, ranks[0][0], plain, strict=True):
            assert value.tobytes() == first.tobytes()
            np.testing.assert_allclose(value, expected, rtol=2e-4, atol=2e-6)
    assert capsys.readouterr().err.count("autotune: ") == 1


def test_what_was_chosen_is_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Candidate(1e-4, "hierarchical")

    def record(self: Autotune, seconds: float) -> bool:
        return original(self, float(self.candidate.bucket_cap_mb) + (self.candidate.comm_hook != "hierarchical"))

    original = Autotune.record
    monkeypatch.setattr(Autotune, "record", record)

    def body() -> tuple[Any, Any, int, int]:
        _, model = train(31, bucket_cap_mb=[25, 1e-4], comm_hook=["all_reduce", "reduce_scatter", "hierarchical"])
        return model.autotune.choice, model.comm_hook_state, len(model.reports), len(model._reducer.buckets)

    for choice, state, reports, buckets in threads.run(2, body):
        assert choice == wanted and isinstance(state, HierarchicalState)
        assert reports == buckets > 1


def test_a_pinned_choice() -> None:
    def body() -> tuple[Any, Any]:
        _, model = train(2, bucket_cap_mb=5, comm_hook="hierarchical")
        return model.autotune, model.comm_hook_state

    for autotune, state in threads.run(2, body):
        assert autotune is None and isinstance(state, HierarchicalState)


def test_a_hook_with_memory_while_sizes_are_tried() -> None:
    """Its residuals are kept by name, so that other buckets lose nothing."""

    def body() -> tuple[Any, Any]:
        _, model = train(16, bucket_cap_mb=(25, 1e-4), comm_hook="top_k")
        return model.autotune.choice, model.comm_hook_state

    for choice, state in threads.run(2, body):
        assert choice is not None and choice.comm_hook == "top_k"
        assert state.iter == 16 and len(state.residual) == 3  # a bias of two travels whole


def test_a_hook_of_ones_own_while_sizes_are_tried() -> None:
    def body() -> None:
        model = DistributedDataParallel(network(), bucket_cap_mb=(25, 1e-4))
        state = PowerSGDState()
        model.register_comm_hook(state, allreduce_hook)
        for _ in range(15):
            model(Tensor(np.ones((2, 6), np.float32))).sum().backward()
        assert model.autotune is not None and model.autotune.choice is not None
        assert model.comm_hook_state is state and model.reports

    threads.run(2, body)


def test_no_other_hook_while_one_is_chosen() -> None:
    def body() -> None:
        model = DistributedDataParallel(network(), comm_hook="auto")
        with pytest.raises(RuntimeError, match="leave comm_hook out to register one"):
            model.register_comm_hook(None, allreduce_hook)

    threads.run(2, body)


def test_one_rank_has_nothing_to_choose() -> None:
    def body() -> None:
        _, model = train(3, bucket_cap_mb="auto", comm_hook="auto")
        assert model.autotune.choice == Candidate(25.0, "all_reduce") and model.autotune.figures == {}

    threads.run(1, body)


def test_nothing_is_tried_inside_join() -> None:
    """Where ranks take different numbers of steps they cannot meet for a decision."""

    def body() -> dict[Candidate, float]:
        model = DistributedDataParallel(network(), bucket_cap_mb=(25, 1e-4))
        with model.join():
            for _ in range(8 + 5 * distributed.rank()):
                model(Tensor(np.ones((2, 6), np.float32))).sum().backward()
        assert model.autotune is not None
        return model.autotune.figures

    assert threads.run(3, body) == [{}] * 3


def test_reproducible_leaves_nothing_to_the_clock() -> None:
    def body() -> None:
        with pytest.raises(ValueError, match="with reproducible=True nothing can be left to the clock"):
            DistributedDataParallel(network(), reproducible=True, bucket_cap_mb="auto")

    threads.run(2, body)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bucket_cap_mb": "big"}, ValueError, "bucket_cap_mb is 'big', must be a number of MiB, several, or 'auto'"),
        ({"bucket_cap_mb": (25, 0)}, ValueError, "bucket_cap_mb is 0, must be above 0"),
        ({"comm_hook": "fp61"}, ConfigError, "unknown comm_hook 'fp61'"),
        ({"comm_hook": ("fp16", "power_sgd")}, ValueError, "the hook 'power_sgd' changes what is learned"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    def body() -> None:
        with pytest.raises(error, match=message):
            DistributedDataParallel(network(), **options)

    threads.run(2, body)

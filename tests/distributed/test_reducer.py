"""Buckets that travel during the backward pass: a zoo of models on many worlds and channels against one process."""

from __future__ import annotations

import copy
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import distributed, nn, optim
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel, threads
from distgrad.distributed.bucket import GradBucket
from distgrad.distributed.channel import CHANNELS
from distgrad.distributed.comm_hooks.report import Report
from distgrad.distributed.communicator import Array

pytestmark = pytest.mark.timeout(60)

BUILDING = threading.Lock()  # the generator belongs to the process, and ranks are threads
SMALL = 1e-4  # MiB: nearly a bucket a parameter
Batch = tuple[Array, Array]


class Shared(nn.Module):
    """One layer used twice, and its weight a third time."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.layer = nn.Linear(4, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.layer(self.into(x)).tanh())
        return x @ self.layer.weight[:, :3]


class Branches(nn.Module):
    """A branch chosen by the data, another that nothing reaches, and a number of layers that the data say."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.never = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)
        self.more = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        choice = float(x.detach().sum()) if x.shape[0] else 0.0
        x = self.left(x) if choice > 0 else self.right(x)
        for layer in list(self.more)[: int(abs(choice)) % 3]:
            x = layer(x).tanh()
        return x


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.words((x.detach().abs() * 3).long().clamp(0, 10)).mean(1))


class Images(nn.Module):
    """A small residual network of images ``(N, 1, 2, 2)``."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm, self.out = nn.BatchNorm2d(4) if norm else nn.Identity(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.reshape(-1, 1, 2, 2)).relu()
        return self.out((x + self.norm(self.conv(x)).relu()).flatten(1))


def half_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].weight.requires_grad_(False)
    return model


ZOO: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)),
    "shared": Shared,
    "embedding": Embedded,
    "images": lambda: Images(norm=False),
    "half frozen": half_frozen,
}


def batch(step: int, samples: int) -> Batch:
    generator = np.random.default_rng([step, 4])
    return generator.standard_normal((samples, 4)), generator.integers(0, 3, samples)


def shares(samples: int, world_size: int) -> list[slice]:
    """Uneven parts; some ranks of many have none."""
    weights = np.array([1.0 + 2 * (r % 3) for r in range(world_size)])
    bounds = [0, *np.rint(np.cumsum(weights) / weights.sum() * samples).astype(int).tolist()]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def build(name: str) -> nn.Module:
    with BUILDING:
        distgrad.manual_seed(3)
        return ZOO[name]().double()


def loss_of(model: nn.Module, data: Batch) -> Tensor:
    output = model(Tensor(data[0]))
    if len(data[1]) == 0:
        return output.sum() * float("nan")  # the mean over no sample
    return nn.functional.cross_entropy(output, Tensor(data[1]))


def sgd(model: nn.Module) -> optim.SGD:
    return optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)


def values(model: nn.Module) -> dict[str, Array]:
    return {name: array.numpy().copy() for name, array in model.state_dict().items()}


def digest(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in values(model).values())).hexdigest()


STEPS, SAMPLES = 4, 13


def alone(name: str) -> dict[str, Array]:
    model = build(name)
    optimizer = sgd(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, batch(step, SAMPLES)).backward()
        optimizer.step()
    return values(model)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 7, 8])
@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_of_models_trains_like_one_process(name: str, world_size: int) -> None:
    expected = alone(name)
    cut = shares(SAMPLES, world_size)
    channel = list(CHANNELS)[world_size % len(CHANNELS)]

    def body() -> tuple[dict[str, Array], str]:
        model = build(name)
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL, progress=channel)
        optimizer = sgd(model)
        for step in range(STEPS):
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            x, y = batch(step, SAMPLES)
            loss_of(parallel, (x[cut[distributed.rank()]], y[cut[distributed.rank()]])).backward()
            optimizer.step()
        return values(model), digest(model)

    results = threads.run(world_size, body)
    assert len({bits for _, bits in results}) == 1
    for key, value in expected.items():
        np.testing.assert_allclose(results[0][0][key], value, rtol=1e-10, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("views", [True, False])
def test_graphs_that_differ_between_ranks_and_steps(channel: str, views: bool) -> None:
    """Each rank's own graphs, weighted by samples: the sum that one process makes of them."""
    counts = [4, 1, 3]
    reference = Branches().double()
    start = {name: p.detach().numpy().copy() for name, p in reference.named_parameters()}

    def load(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            p.detach().numpy()[...] = start[name]

    def gradient_of(model: nn.Module) -> dict[str, Array | None]:
        return {name: None if p.grad is None else p.grad.numpy().copy() for name, p in model.named_parameters()}

    expected: list[dict[str, Array | None]] = []
    for step in range(6):
        total: dict[str, Array | None] = dict.fromkeys(start)
        for rank, count in enumerate(counts):
            reference.zero_grad()
            loss_of(reference, batch(10 * step + rank, count)).backward()
            for key, gradient in gradient_of(reference).items():
                if gradient is not None:
                    before = total[key]
                    total[key] = gradient * count / 8 if before is None else before + gradient * count / 8
        expected.append(total)
    assert all(step["never.weight"] is None for step in expected)
    assert len({tuple(v is None for v in step.values()) for step in expected}) > 1  # the graphs do change

    def body() -> None:
        rank = distributed.rank()
        model = Branches().double()
        load(model)
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL, progress=channel, gradient_as_bucket_view=views)
        for step, wanted in enumerate(expected):
            model.zero_grad()
            loss_of(parallel, batch(10 * step + rank, counts[rank])).backward()
            for key, gradient in gradient_of(model).items():
                want = wanted[key]
                assert (gradient is None) == (want is None), key
                if gradient is not None:
                    np.testing.assert_allclose(gradient, want, rtol=1e-12, atol=1e-15, err_msg=key)

    generator = np.random.default_rng(5)
    jitter = generator.uniform(0, 0.002, (3, 97))
    threads.run(3, body, delay=lambda rank, sequence: float(jitter[rank, sequence % 97]))


@pytest.mark.parametrize("channel", CHANNELS)
def test_batch_norm_uses_the_statistics_of_each_rank(channel: str) -> None:
    """As with PyTorch's: equal parts of the same data give what one process gives for one part."""

    def body() -> tuple[dict[str, Array], dict[str, Array]]:
        results = []
        for wrap in (False, True):
            with BUILDING:
                distgrad.manual_seed(0)
                model = Images(norm=True).double()
            used = DistributedDataParallel(model, bucket_cap_mb=SMALL, progress=channel) if wrap else model
            optimizer = sgd(model)
            for step in range(3):
                optimizer.zero_grad()
                loss_of(used, batch(step, 6)).backward()
                optimizer.step()
            results.append(values(model))
        return results[0], results[1]

    for single, parallel in threads.run(2, body):
        for key, value in single.items():
            np.testing.assert_array_equal(parallel[key], value, err_msg=key)  # halves of the same gradient: no rounding


# ---- Accumulation


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("parts", [1, 3])
def test_no_sync_adds_up_and_the_last_part_is_reduced(channel: str, parts: int) -> None:
    size = 4
    reference = build("mlp")
    x, y = batch(0, 2 * parts * size)
    loss_of(reference, (x, y)).backward()

    def body() -> None:
        rank, world = distributed.rank(), distributed.communicator()
        model = build("mlp")
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL, progress=channel)
        for _ in range(2):
            model.zero_grad()
            mine = np.split(np.arange(rank * parts * size, (rank + 1) * parts * size), parts)
            with parallel.no_sync():
                for part in mine[:-1]:
                    (loss_of(parallel, (x[part], y[part])) / parts).backward()
            if parts > 1:
                rows = world.all_gather(next(model.parameters()).grad.numpy())  # type: ignore[union-attr]
                assert not np.array_equal(rows[0], rows[1])  # each rank's own
            (loss_of(parallel, (x[mine[-1]], y[mine[-1]])) / parts).backward()
            for p, q in zip(model.parameters(), reference.parameters(), strict=True):
                np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12, atol=1e-15)  # type: ignore[union-attr]

    threads.run(2, body)


def test_uneven_parts_count_all_their_samples() -> None:
    """Rank 0 has 2 + 4 samples in two parts, rank 1 has 3 in one: summed losses give the exact mean of all 9."""
    x, y = batch(0, 9)
    reference = build("mlp")
    loss_of(reference, (x, y)).backward()

    def body() -> None:
        model = build("mlp")
        parallel = DistributedDataParallel(model)
        parts = [slice(0, 2), slice(2, 6)] if distributed.rank() == 0 else [slice(6, 9)]
        whole = sum(part.stop - part.start for part in parts)
        for number, part in enumerate(parts):
            share = (part.stop - part.start) / whole
            if number < len(parts) - 1:
                with parallel.no_sync():
                    (loss_of(parallel, (x[part], y[part])) * share).backward()
            else:
                (loss_of(parallel, (x[part], y[part])) * share).backward()
        for p, q in zip(model.parameters(), reference.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12, atol=1e-15)  # type: ignore[union-attr]

    threads.run(2, body)


# ---- Uneven numbers of batches


@pytest.mark.parametrize("channel", CHANNELS)
def test_join_lets_ranks_leave_early(channel: str) -> None:
    """Ranks with 3, 1 and 0 batches: steps over what is left, and the same model everywhere at the end."""
    batches = [3, 1, 0]
    reference = build("mlp")
    optimizer = sgd(reference)
    for step in range(3):
        parts = [batch(10 * rank + step, 2 + rank) for rank in range(3) if step < batches[rank]]
        optimizer.zero_grad()
        x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
        loss_of(reference, (x, y)).backward()
        optimizer.step()

    def body() -> dict[str, Array]:
        rank = distributed.rank()
        model = build("mlp")
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL, progress=channel)
        own = sgd(model)
        with parallel.join():
            for step in range(batches[rank]):
                own.zero_grad()
                loss_of(parallel, batch(10 * rank + step, 2 + rank)).backward()
                own.step()
        return values(model)

    for result in threads.run(3, body):
        for key, value in values(reference).items():
            np.testing.assert_allclose(result[key], value, rtol=1e-11, atol=1e-13, err_msg=key)


def test_join_tells_every_rank_on_request() -> None:
    def body() -> None:
        model = build("mlp")
        parallel = DistributedDataParallel(model)
        with (
            pytest.raises(RuntimeError, match="1 of 2 ranks have no batches left"),
            parallel.join(throw_on_early_termination=True),
        ):
            for step in range(1 + 3 * distributed.rank()):
                loss_of(parallel, batch(step, 2)).backward()

    threads.run(2, body)


def test_join_changes_nothing_when_all_have_as_many() -> None:
    def body() -> list[str]:
        digests = []
        for enable in (True, False):
            model = build("mlp")
            parallel = DistributedDataParallel(model)
            optimizer = sgd(model)
            with parallel.join(enable=enable):
                for step in range(2):
                    optimizer.zero_grad()
                    loss_of(parallel, batch(step + distributed.rank(), 2)).backward()
                    optimizer.step()
            digests.append(digest(model))
        return digests

    assert len({bits for digests in threads.run(2, body) for bits in digests}) == 1


# ---- Memory


def test_gradients_lie_in_the_buckets_and_nothing_is_copied() -> None:
    def body() -> None:
        model = build("mlp")
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL)
        for _ in range(3):
            model.zero_grad()
            loss_of(parallel, batch(0, 3)).backward()
            flats = [bucket.buffer() for bucket in parallel._reducer.buckets]
            for p in model.parameters():
                assert p.grad is not None and any(np.may_share_memory(p.grad.numpy(), flat) for flat in flats)

    threads.run(2, body)


def test_a_gradient_that_somebody_keeps_keeps_its_values() -> None:
    def body() -> None:
        model = build("mlp")
        parallel = DistributedDataParallel(model)
        loss_of(parallel, batch(0, 3)).backward()
        kept = next(model.parameters()).grad
        assert kept is not None
        before = kept.numpy().copy()
        model.zero_grad()
        loss_of(parallel, batch(1, 3)).backward()
        np.testing.assert_array_equal(kept.numpy(), before)

    threads.run(2, body)


def test_slots_go_with_the_wrapper() -> None:
    def body() -> None:
        model = build("mlp")
        parallel = DistributedDataParallel(model)
        assert all(p._grad_slot is not None for p in model.parameters())
        del parallel
        assert all(p._grad_slot is None for p in model.parameters())
        loss_of(model, batch(0, 3)).backward()

    threads.run(2, body)


# ---- Order


class Backwards(nn.Module):
    """Registers its layers in the order opposite to that of their use."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x).tanh()).tanh())


def test_buckets_follow_the_order_of_use_after_the_first_pass() -> None:
    def body() -> None:
        model = Backwards().double()
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL)
        assert parallel._reducer.buckets[0].names[0].startswith("first.")
        optimizer = sgd(model)
        for step in range(2):
            optimizer.zero_grad()
            loss_of(parallel, batch(step, 3)).backward()
            optimizer.step()
            assert parallel._reducer.buckets[0].names[0].startswith("last.")
            assert parallel._reducer.buckets[-1].names[-1].startswith("first.")

    threads.run(2, body)


def watched_backward(parallel: DistributedDataParallel, data: Batch) -> Iterator[int]:
    """How many buckets were on their way each time a gradient became final."""
    seen: list[int] = []
    handles = [
        p.register_post_accumulate_grad_hook(
            lambda _: seen.append(parallel._reducer._pass.launched)  # type: ignore[union-attr]
        )
        for p in parallel.module.parameters()
    ]
    loss_of(parallel, data).backward()
    for handle in handles:
        handle.remove()
    yield from seen


@pytest.mark.parametrize("channel", CHANNELS)
def test_buckets_leave_while_backward_goes_on(channel: str) -> None:
    def body() -> None:
        model = build("mlp")
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL, progress=channel)
        loss_of(parallel, batch(0, 3)).backward()
        launched = list(watched_backward(parallel, batch(1, 3)))
        assert launched == sorted(launched) and launched[-1] == len(parallel._reducer.buckets) > 2
        assert launched[1] == 1  # the last layer's, before anything else is final

    threads.run(2, body)


@pytest.mark.parametrize("norm", [False, True])
def test_a_compiled_model_hands_over_its_gradients_one_by_one(norm: bool) -> None:
    """As eager: the same gradients, buckets leave before the pass ends, and convolutions write to the buckets."""

    def body() -> None:
        with BUILDING:
            distgrad.manual_seed(0)
            eager = Images(norm).double()
        model = copy.deepcopy(eager)
        ours = DistributedDataParallel(distgrad.compile(model), bucket_cap_mb=SMALL, progress="thread")
        theirs = DistributedDataParallel(eager, bucket_cap_mb=SMALL)
        for step in range(3):
            data = batch(10 * step + distributed.rank(), 4)
            launched = list(watched_backward(ours, data))
            assert launched == sorted(launched)
            if step:
                assert launched[1] == 1 and launched[-1] == len(ours._reducer.buckets) > 2
            loss_of(theirs, data).backward()
            for (name, p), q in zip(model.named_parameters(), eager.parameters(), strict=True):
                assert p.grad is not None and q.grad is not None and p.grad._data is p._grad_slot
                np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)
            if step == 0:  # the second pass adds to what is there, the third writes anew
                continue
            model.zero_grad()
            eager.zero_grad()

    threads.run(2, body)


def test_a_compiled_model_that_is_called_twice_adds_both_gradients() -> None:
    def body() -> None:
        with BUILDING:
            distgrad.manual_seed(0)
            eager = Images(norm=False).double()
        model = copy.deepcopy(eager)
        ours = DistributedDataParallel(distgrad.compile(model), bucket_cap_mb=SMALL, progress="thread")
        theirs = DistributedDataParallel(eager, bucket_cap_mb=SMALL)
        for parallel in (ours, theirs):
            first, second = (loss_of(parallel, batch(distributed.rank() + s, 4)) for s in (0, 7))
            (first + 2 * second).backward()
        for (name, p), q in zip(model.named_parameters(), eager.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)

    threads.run(2, body)


# ---- Hooks


def test_a_hook_gets_each_bucket_in_order_and_its_reports_are_kept() -> None:
    class State:
        communicator: Any = None
        seen: list[tuple[int, bool, tuple[str, ...]]]

        def __init__(self) -> None:
            self.seen = []

    def hook(state: State, bucket: GradBucket) -> Report:
        state.seen.append((bucket.index(), bucket.is_last(), bucket.names))
        state.communicator.all_reduce(bucket.buffer())
        return Report(bucket.buffer().nbytes, 0.0)

    def body() -> tuple[list[Any], str]:
        model = build("mlp")
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL, progress="thread")
        state = State()
        parallel.register_comm_hook(state, hook)
        loss_of(parallel, batch(distributed.rank(), 3)).backward()
        assert sum(report.bytes_sent for report in parallel.reports) == 8 * sum(p.numel() for p in model.parameters())
        gradients = b"".join(p.grad.numpy().tobytes() for p in model.parameters())  # type: ignore[union-attr]
        plain = build("mlp")
        without = DistributedDataParallel(plain, bucket_cap_mb=SMALL)
        loss_of(without, batch(distributed.rank(), 3)).backward()
        assert b"".join(p.grad.numpy().tobytes() for p in plain.parameters()) == gradients  # type: ignore[union-attr]
        return state.seen, hashlib.sha256(gradients).hexdigest()

    first, second = threads.run(2, body)
    assert first == second
    assert [index for index, _, _ in first[0]] == list(range(len(first[0])))
    assert [last for _, last, _ in first[0]] == [False] * (len(first[0]) - 1) + [True]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_hook_and_collectives_of_the_users_backward_pass_do_not_wait_for_each_other(channel: str) -> None:
    """A hook blocks: polled in the middle of a pass it would, on a rank that is ahead, while others are elsewhere."""

    def body() -> None:
        model = build("mlp")
        parallel = DistributedDataParallel(model, bucket_cap_mb=SMALL, progress=channel, comm_hook="fp16")
        seen = []

        def communicate(gradient: Tensor) -> None:
            total = np.ones(1)
            distributed.all_reduce(total)
            seen.append(total[0])

        for parameter in model.parameters():
            parameter.register_hook(communicate)
        for step in range(5):
            loss_of(parallel, batch(step, 3)).backward()
        assert seen == [3.0] * 5 * len(list(model.parameters()))

    generator = np.random.default_rng(9)
    jitter = generator.uniform(0, 0.002, (3, 89))
    threads.run(3, body, timeout=20, delay=lambda rank, sequence: float(jitter[rank, sequence % 89]))


# ---- Many ranks


@pytest.mark.parametrize("world_size", [64, 256])
def test_many_ranks_end_with_the_same_bits_under_random_delays(world_size: int) -> None:
    generator = np.random.default_rng(world_size)
    jitter = generator.uniform(0, 0.002, (world_size, 13)) * (generator.random((world_size, 13)) < 0.02)
    x, y = batch(0, world_size + 3)
    cut = shares(world_size + 3, world_size)

    def body() -> str:
        model = build("mlp")
        parallel = DistributedDataParallel(model, progress="poll")
        optimizer = sgd(model)
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(parallel, (x[cut[distributed.rank()]], y[cut[distributed.rank()]])).backward()
            optimizer.step()
        return digest(model)

    delayed = threads.run(world_size, body, delay=lambda rank, sequence: float(jitter[rank, sequence % 13]))
    assert len(set(delayed)) == 1

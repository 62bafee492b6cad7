"""Training with slices: the same bits on any number of ranks, and close to one process with the whole batch."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import distributed, nn, no_grad
from distgrad.autograd import Tensor
from distgrad.data import GlobalBatchSampler
from distgrad.distributed import DistributedDataParallel, threads
from distgrad.distributed.tree_sum import block
from distgrad.errors import CommunicationError

pytestmark = pytest.mark.timeout(60)

SAMPLES, FEATURES = 43, 5


class Net(nn.Module):
    """A bit of everything: BatchNorm, dropout, a weight used twice, a branch that depends on the data, unused parts."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(FEATURES, 8)
        self.norm = nn.BatchNorm1d(8)
        self.square = nn.Linear(8, 8)
        self.sometimes = nn.Linear(8, 8)
        self.never = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(8, 3)
        self.register_buffer("constant", Tensor(np.array([1 / 3, -0.1], np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.into(x)) if len(x) != 1 else self.into(x)
        x = self.square(self.square(x).tanh())
        if float(x.sum()) > 0:
            x = self.sometimes(x)
        return self.out(self.dropout(x))


def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(1)
    return generator.standard_normal((SAMPLES, FEATURES)).astype(np.float32), generator.integers(0, 3, SAMPLES)


def built(seed: int = 0) -> Net:
    distgrad.manual_seed(seed)
    return Net()


def train(
    virtual_ranks: int = 8,
    batch_size: int = 20,
    epochs: int = 2,
    make: Callable[[], nn.Module] = built,
    hook: Callable[[DistributedDataParallel], None] | None = None,
    state: dict[str, Any] | None = None,
    stop_after: int | None = None,
    **options: Any,
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the trained model, and what a checkpoint would hold."""
    x, y = data()
    model = make()
    ddp = DistributedDataParallel(model, reproducible=True, virtual_ranks=virtual_ranks, **options)
    if hook is not None:
        hook(ddp)
    optimizer = distgrad.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sampler = GlobalBatchSampler(SAMPLES, batch_size, virtual_ranks=virtual_ranks, seed=3)
    steps = 0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        sampler.load_state_dict(state["sampler"])
        distgrad.set_rng_state(state["generator"])
        if ddp.comm_hook_state is not None:
            ddp.comm_hook_state.load_state_dict(state["hook"])
    for epoch in range(sampler.epoch, epochs):
        sampler.set_epoch(epoch)
        for slices in sampler:
            optimizer.zero_grad()
            for indices in slices:
                nn.functional.cross_entropy(ddp(Tensor(x[indices])), Tensor(y[indices])).backward()
            optimizer.step()
            steps += 1
            if steps == stop_after:
                break
        if steps == stop_after:
            break
    if ddp.comm_hook_state is not None:
        ddp.comm_hook_state.consolidate_state_dict()
    saved = {
        "model": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "sampler": sampler.state_dict(),
        "generator": distgrad.get_rng_state(),
        "hook": None if ddp.comm_hook_state is None else ddp.comm_hook_state.state_dict(),
    }
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values()), saved


def on(world_size: int, *args: Any, delay: Any = None, **options: Any) -> list[bytes]:
    def rank() -> bytes:
        return train(*args, **options)[0]

    return threads.run(world_size, rank, delay=delay)


@pytest.mark.parametrize("virtual_ranks", [1, 3, 8])
def test_the_bits_do_not_depend_on_the_ranks(virtual_ranks: int) -> None:
    wanted = on(1, virtual_ranks)[0]
    for world_size in [p for p in (2, 3, 5, 8) if p <= virtual_ranks]:
        assert on(world_size, virtual_ranks) == [wanted] * world_size, world_size
    assert on(1, virtual_ranks + 1)[0] != wanted  # what they do depend on


@pytest.mark.parametrize("progress", ["thread", "patient", "poll", "none"])
def test_the_bits_do_not_depend_on_who_carries_them_or_on_the_buckets(progress: str) -> None:
    wanted = on(1)[0]
    slow = random.Random(5)
    delays = {(r, s): slow.random() / 100 for r in range(3) for s in range(60)}
    found = on(3, progress=progress, bucket_cap_mb=0.0002, delay=lambda r, s: delays.get((r, s), 0.0))
    assert found == [wanted] * 3


def test_batches_smaller_than_the_slices() -> None:
    wanted = on(1, 8, batch_size=6)[0]
    for world_size in (3, 8):
        assert on(world_size, 8, batch_size=6) == [wanted] * world_size


def test_a_resume_on_other_numbers_of_ranks() -> None:
    wanted = on(2, epochs=3)[0]

    def leg(state: Any, stop_after: int | None) -> tuple[bytes, dict[str, Any]]:
        return train(epochs=3, state=state, stop_after=stop_after)

    _, saved = threads.run(4, leg, None, 2)[0]
    _, saved = threads.run(3, leg, saved, 2)[0]
    assert [found for found, _ in threads.run(8, leg, saved, None)] == [wanted] * 8


class Sparse:
    """A hook with a memory: only the larger numbers travel, the others wait."""

    def __init__(self) -> None:
        self.communicator: Any = None
        self.residual: dict[int, Any] = {}
        self.world_size = 0

    def consolidate_state_dict(self, to: int) -> None:
        keys = sorted(self.residual)
        self.all = {key: self.communicator.all_gather(self.residual[key]) for key in keys}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.all}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.residual = {key: rows[self.communicator.rank].copy() for key, rows in state["rows"].items()}


def sparse_hook(state: Sparse, bucket: Any) -> Any:
    from distgrad.distributed.comm_hooks.report import Report

    buffer = bucket.buffer()
    state.world_size = state.communicator.world_size
    buffer += state.residual.get(bucket.index(), 0.0)
    large = np.abs(buffer) > np.median(np.abs(buffer))
    state.residual[bucket.index()] = np.where(large, 0, buffer)
    buffer[~large] = 0
    state.communicator.all_reduce(buffer)
    return Report(buffer.nbytes, 0.5)


def test_a_hook_with_a_memory_and_a_resume() -> None:
    reports: list[Any] = []

    def register(ddp: DistributedDataParallel) -> None:
        ddp.register_comm_hook(Sparse(), sparse_hook)
        reports.append(ddp)

    wanted = on(1, hook=register)[0]
    assert wanted != on(1)[0]
    assert len(reports[0].reports) == 1 and reports[0].reports[0].error_bound == 0.5
    for world_size in (3, 8):
        assert on(world_size, hook=register) == [wanted] * world_size

    def leg(state: Any, stop_after: int | None) -> tuple[bytes, dict[str, Any]]:
        return train(hook=register, state=state, stop_after=stop_after)

    _, saved = threads.run(4, leg, None, 2)[0]
    assert [found for found, _ in threads.run(5, leg, saved, None)] == [wanted] * 5


@pytest.mark.parametrize("world_size", [64, 256])
def test_simulated_at_many_ranks_under_random_delays(world_size: int) -> None:
    wanted = on(1, 256, batch_size=40, epochs=1, make=lambda: seeded_linear())[0]
    chance = random.Random(world_size)
    late = {(chance.randrange(world_size), chance.randrange(12)): chance.random() / 20 for _ in range(60)}
    found = on(world_size, 256, batch_size=40, epochs=1, make=seeded_linear, delay=lambda r, s: late.get((r, s), 0.0))
    assert found == [wanted] * world_size


def seeded_linear() -> nn.Module:
    distgrad.manual_seed(1)
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.Dropout(0.2), nn.Linear(4, 3))


def test_a_hook_without_a_memory_has_nothing_to_save() -> None:
    ddp = sliced()
    ddp.register_comm_hook(None, distributed.comm_hooks.allreduce_hook)
    for _ in range(2):
        half(ddp).backward()
    ddp.comm_hook_state.consolidate_state_dict()
    assert ddp.comm_hook_state.state_dict() == {}
    ddp.comm_hook_state.load_state_dict({})


# ---- Against one process with the whole batch


def plain(batch_size: int, make: Callable[[], nn.Module]) -> nn.Module:
    x, y = data()
    model = make()
    optimizer = distgrad.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sampler = GlobalBatchSampler(SAMPLES, batch_size, 1, 0, seed=3)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for indices in sampler:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(Tensor(x[indices])), Tensor(y[indices])).backward()
            optimizer.step()
    return model


def two_layers() -> nn.Module:
    distgrad.manual_seed(2)
    return nn.Sequential(nn.Linear(FEATURES, 7), nn.Tanh(), nn.Linear(7, 3))


@pytest.mark.parametrize("world_size", [1, 3])
def test_it_is_the_gradient_of_the_mean_over_the_batch(world_size: int) -> None:
    wanted = b"".join(value.numpy().tobytes() for value in plain(20, two_layers).state_dict().values())
    for found in on(world_size, make=two_layers):
        np.testing.assert_allclose(np.frombuffer(found, np.float32), np.frombuffer(wanted, np.float32), atol=1e-6)


def test_running_statistics_are_one_update_by_the_whole_batch() -> None:
    x, _ = data()

    def rank() -> tuple[Any, ...]:
        norm = nn.BatchNorm1d(FEATURES)
        norm.register_buffer("untouched", Tensor(np.array([1 / 3], np.float32)))
        ddp = DistributedDataParallel(norm, reproducible=True, virtual_ranks=4)
        parts = np.array_split(x[:22], 4)  # 6, 6, 5 and 5
        mine = parts if distributed.world_size() == 1 else [parts[v] for v in block(4, 3, distributed.rank())]
        for part in mine:
            ddp(Tensor(part)).sum().backward()
        counts = norm.num_batches_tracked, norm.untouched
        return norm.running_mean.numpy().copy(), norm.running_var.numpy().copy(), *(c.numpy().tobytes() for c in counts)

    mean, variance, counted, untouched = threads.run(1, rank)[0]
    np.testing.assert_allclose(mean, 0.1 * x[:22].mean(axis=0), atol=1e-6)
    weighted = sum(len(part) * part.var(axis=0, ddof=1) for part in np.array_split(x[:22], 4)) / 22
    np.testing.assert_allclose(variance, 0.9 + 0.1 * weighted, atol=1e-6)
    assert np.frombuffer(counted, np.int64)[0] == 1
    assert untouched == np.array([1 / 3], np.float32).tobytes()
    for other in threads.run(3, rank):
        assert other[0].tobytes() == mean.tobytes() and other[1].tobytes() == variance.tobytes()
        assert other[2:] == (counted, untouched)


def test_gradients_of_several_steps_add_up() -> None:
    x, y = data()

    def grads(steps: list[slice], between: bool) -> Any:
        model = two_layers()
        ddp = DistributedDataParallel(model, reproducible=True, virtual_ranks=2)
        kept = []
        for part in steps:
            for half in np.array_split(np.arange(SAMPLES)[part], 2):
                output = ddp(Tensor(x[half]))
                if between:
                    model.zero_grad()  # as many loops do it, after the forward pass
                nn.functional.cross_entropy(output, Tensor(y[half])).backward()
            kept.append(model[0].weight.grad)
        return kept

    first, second = slice(0, 20), slice(20, 40)
    both = grads([first, second], False)
    assert both[0] is both[1]
    apart = grads([first], False)[0].numpy() + grads([second], False)[0].numpy()
    np.testing.assert_array_equal(both[0].numpy(), apart)
    kept = grads([first, second], True)
    np.testing.assert_array_equal(kept[0].numpy(), grads([first], False)[0].numpy())  # not overwritten by the next step
    np.testing.assert_array_equal(kept[1].numpy(), grads([second], False)[0].numpy())


# ---- What it refuses


def sliced(**options: Any) -> DistributedDataParallel:
    return DistributedDataParallel(two_layers(), reproducible=True, virtual_ranks=2, **options)


def half(ddp: nn.Module, **options: Any) -> Tensor:
    x, y = data()
    return nn.functional.cross_entropy(ddp(Tensor(x[:4])), Tensor(y[:4]), **options)


def test_an_optimizer_step_between_slices_is_noticed() -> None:
    ddp = sliced()
    half(ddp).backward()
    with no_grad():
        for parameter in ddp.parameters():
            parameter.add_(1.0)
    with pytest.raises(RuntimeError, match="parameters have changed after slice 1 of 2"):
        half(ddp)


def test_a_second_backward_pass_of_a_slice_is_refused() -> None:
    ddp = sliced()
    loss = half(ddp)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one forward pass through DistributedDataParallel and then one backward"):
        loss.backward()


def test_a_backward_pass_that_raised_ends_the_step() -> None:
    ddp = sliced()
    loss = half(ddp)
    handle = ddp.module[0].bias.register_hook(lambda gradient: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loss.backward()
    handle.remove()
    with pytest.raises(RuntimeError, match="raised in the middle"):
        half(ddp)


def test_generators_apart_are_noticed() -> None:
    def rank() -> None:
        model = two_layers()
        ddp = DistributedDataParallel(model, reproducible=True, virtual_ranks=2)
        if distributed.rank() == 1:
            distgrad.rand(3)
        half(ddp).backward()

    with pytest.raises(CommunicationError, match="default random generator of rank 1 does not stand where"):
        threads.run(2, rank)


def test_the_default_generator_is_put_back() -> None:
    ddp = DistributedDataParallel(seeded_linear(), reproducible=True, virtual_ranks=2)
    half(ddp).backward()
    half(ddp).backward()
    state = distgrad.get_rng_state().numpy()
    assert state.tobytes() == distgrad.get_rng_state().numpy().tobytes()
    after = distgrad.rand(4).numpy()
    seeded_linear()
    distgrad.ops.random.default_generator.stream.integers(0, 2**64, 2, np.uint64)  # a step's key, and no more
    np.testing.assert_array_equal(distgrad.rand(4).numpy(), after)


def test_more_ranks_than_slices_join_and_sync_batch_norm_are_refused() -> None:
    def rank() -> None:
        sliced()

    with pytest.raises(ValueError, match="2 virtual ranks cannot be shared by 3 ranks"):
        threads.run(3, rank)
    with pytest.raises(RuntimeError, match="join: with reproducible=True"), sliced().join():
        pass
    with pytest.raises(ValueError, match="1 is a SyncBatchNorm"):
        DistributedDataParallel(nn.Sequential(nn.Linear(2, 2), distributed.SyncBatchNorm(2)), reproducible=True)


def test_other_arithmetic_on_one_rank_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from distgrad.distributed import same_numerics

    honest = same_numerics.numerics

    def lying() -> dict[str, str]:
        found = honest()
        return found | ({"BLAS kernels": "Prescott"} if distributed.rank() == 1 else {"BLAS kernels": "Haswell"})

    monkeypatch.setattr(same_numerics, "numerics", lying)
    with pytest.raises(
        CommunicationError, match=r"BLAS kernels is 'Haswell' on rank 0 and 'Prescott' on rank 1: set OP"
    ):
        threads.run(2, lambda: sliced())


def test_the_number_of_blas_threads_is_pinned() -> None:
    from distgrad.distributed.same_numerics import numerics, pin_threads

    sliced()
    assert numerics()["BLAS threads"] == "1"
    with pytest.raises(ValueError, match="must be at least 1"):
        pin_threads(0)

"""Batch normalization over ranks against one process with the whole batch."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import distributed, nn, no_grad, optim
from distgrad.autograd import Tensor, grad
from distgrad.distributed import (
    DistributedDataParallel,
    SyncBatchNorm,
    ZeroRedundancyOptimizer,
    communicator,
    threads,
)
from distgrad.distributed.comm_hooks import Report
from distgrad.distributed.sync_batch_norm import combined
from distgrad.distributed.threads import ThreadCommunicator
from distgrad.metrics import MeanMetric
from distgrad.utils.checkpoint import checkpoint

pytestmark = pytest.mark.timeout(60)

CHANNELS = 3
LAYERS: dict[int, Callable[..., Any]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
SHARDS = {"equal": (3, 3, 3), "ragged": (1, 6, 2), "empty": (4, 0, 2), "all on one": (0, 0, 5)}


def batch(samples: int, ndim: int, dtype: Any = np.float64, seed: int = 0) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(seed)
    shape = (samples, CHANNELS, *(4, 3, 2)[: ndim - 2])
    return (generator.standard_normal(shape) * 2 + 5).astype(dtype)


def part_of(counts: Sequence[int], rank: int) -> slice:
    bounds = np.cumsum([0, *counts])
    return slice(int(bounds[rank]), int(bounds[rank + 1]))


def layer_of(kind: Callable[..., Any], dtype: Any, **options: Any) -> Any:
    layer = kind(CHANNELS, dtype=np.dtype(dtype), **options)
    with no_grad():
        for parameter, start in zip(layer.parameters(), (0.5, -1.0), strict=False):
            parameter.copy_(Tensor(np.arange(CHANNELS) * 0.7 + start))
    return layer


def run_whole(
    kind: Any, x: np.ndarray[Any, Any], g: np.ndarray[Any, Any], steps: int = 1, **options: Any
) -> dict[str, np.ndarray[Any, Any]]:
    """Output, gradients and statistics of a layer after some steps on ``x`` with the output's gradient ``g``."""
    layer = layer_of(kind, x.dtype, **options)
    for _ in range(steps):
        layer.zero_grad()
        inputs = Tensor(x.copy(), requires_grad=True)
        out = layer(inputs)
        (out * Tensor(g)).sum().backward()
    assert inputs.grad is not None
    found = {"output": out.detach().numpy(), "input": inputs.grad.numpy()}
    found |= {name: parameter.grad.numpy() for name, parameter in layer.named_parameters()}
    return found | {name: buffer.numpy() for name, buffer in layer.named_buffers()}


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("ndim", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ranks_compute_what_one_process_does(shards: str, ndim: int, dtype: Any) -> None:
    counts = SHARDS[shards]
    x, g = batch(sum(counts), ndim, dtype), batch(sum(counts), ndim, dtype, seed=1)
    expected = run_whole(LAYERS[ndim], x.astype(np.float64), g.astype(np.float64), steps=2)

    def rank() -> dict[str, np.ndarray[Any, Any]]:
        mine = part_of(counts, distributed.rank())
        return run_whole(SyncBatchNorm, x[mine], g[mine], steps=2)

    found = threads.run(3, rank, timeout=20)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == np.float64 else {"rtol": 4e-6, "atol": 4e-6}
    for name in ("output", "input"):
        np.testing.assert_allclose(np.concatenate([f[name] for f in found]), expected[name], err_msg=name, **tolerance)
    for name in ("weight", "bias"):  # each rank has its part
        total = sum(f[name].astype(np.float64) for f in found)
        np.testing.assert_allclose(total, expected[name], rtol=1e-12 if dtype == np.float64 else 1e-4, err_msg=name)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        np.testing.assert_allclose(found[0][name], expected[name], rtol=1e-13 if dtype == np.float64 else 1e-6)
        assert len({f[name].tobytes() for f in found}) == 1, "the same bits on every rank"


@pytest.mark.parametrize(
    "options",
    [
        {"affine": False},
        {"bias": False},
        {"track_running_stats": False},
        {"momentum": None},
        {"eps": 0.1, "momentum": 1.0},
    ],
)
def test_options_mean_what_they_mean_for_one_process(options: dict[str, Any]) -> None:
    counts = (2, 5)
    x, g = batch(7, 4), batch(7, 4, seed=1)
    expected = run_whole(nn.BatchNorm2d, x, g, steps=3, **options)

    def rank() -> dict[str, np.ndarray[Any, Any]]:
        mine = part_of(counts, distributed.rank())
        return run_whole(SyncBatchNorm, x[mine], g[mine], steps=3, **options)

    found = threads.run(2, rank, timeout=20)
    assert found[0].keys() == expected.keys()
    for name in ("output", "input"):
        np.testing.assert_allclose(np.concatenate([f[name] for f in found]), expected[name], rtol=1e-11, atol=1e-12)
    for name in found[0].keys() - {"output", "input", "weight", "bias"}:
        np.testing.assert_allclose(found[1][name], expected[name], rtol=1e-13)


def test_evaluation_needs_nobody() -> None:
    x = batch(4, 4)

    def rank() -> None:
        layer, plain = SyncBatchNorm(CHANNELS, dtype=np.dtype(np.float64)), nn.BatchNorm2d(CHANNELS).double()
        layer(Tensor(x + distributed.rank()))
        plain.load_state_dict(layer.state_dict())
        layer.eval(), plain.eval()
        if distributed.rank() == 0:
            assert layer(Tensor(x)).tolist() == plain(Tensor(x)).tolist()
        frozen = nn.freeze(SyncBatchNorm(CHANNELS)).train()
        without = SyncBatchNorm(CHANNELS, track_running_stats=False, dtype=np.dtype(np.float64)).eval()
        if distributed.rank() == 1:
            frozen(Tensor(x.astype(np.float32)))
            np.testing.assert_allclose(without(Tensor(x)).detach().numpy().mean((0, 2, 3)), 0, atol=1e-12)

    threads.run(2, rank, timeout=5)


def test_statistics_do_not_cancel_where_the_mean_is_large() -> None:
    generator = np.random.default_rng(0)
    x = (generator.standard_normal((64, CHANNELS)) * 0.01 + 4000).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)

    def rank() -> np.ndarray[Any, Any]:
        return SyncBatchNorm(CHANNELS)(Tensor(x[distributed.rank() :: 4])).detach().numpy()

    for place, found in enumerate(threads.run(4, rank, timeout=20)):
        np.testing.assert_allclose(found, expected[place::4], atol=2e-6)


def test_batches_are_combined_as_chan_golub_and_leveque_do() -> None:
    x = batch(50, 2) * 1e3 + 1e6
    pieces = np.split(x, [0, 7, 8, 30])
    parts = [
        np.concatenate([p.mean(0), ((p - p.mean(0)) ** 2).sum(0), [len(p)]]) if len(p) else np.zeros(2 * CHANNELS + 1)
        for p in pieces
    ]
    mean, var, count = combined(np.stack(parts))
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(var, x.var(0), rtol=1e-9)
    assert count == 50
    mean, var, count = combined(np.zeros((3, 2 * CHANNELS + 1)))
    assert count == 0 and not mean.any() and not var.any()


def test_no_sample_anywhere_leaves_the_statistics() -> None:
    def rank() -> list[float]:
        layer = SyncBatchNorm(CHANNELS)
        assert layer(Tensor(np.zeros((0, CHANNELS, 2), np.float32))).shape == (0, CHANNELS, 2)
        return [*layer.running_mean.tolist(), *layer.running_var.tolist()]

    assert threads.run(2, rank, timeout=20) == [[0.0] * 3 + [1.0] * 3] * 2


# ---- A whole model


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = np.random.default_rng(5)
        self.first = nn.Conv2d(2, 4, 3)
        self.norm1 = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 3, 2)
        self.norm2 = nn.BatchNorm2d(3)
        self.norm3 = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 2)
        with no_grad():
            for parameter in self.parameters():
                parameter.copy_(Tensor(generator.standard_normal(parameter.shape) * 0.5 + 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.first(x)).relu()
        x = self.norm2(self.second(x)).relu().mean((2, 3))
        return self.last(self.norm3(x))


def loss_of(prediction: Tensor, target: np.ndarray[Any, Any]) -> Tensor:
    if not len(target):
        return prediction.sum() * math.nan  # the mean over no sample
    return ((prediction - Tensor(target)) ** 2).mean()


def train(model: nn.Module, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], wrapped: Any = None) -> dict[str, Any]:
    optimizer = distgrad.optim.SGD(model.parameters(), lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        loss_of((wrapped or model)(Tensor(x + 0.1 * step)), y).backward()
        optimizer.step()
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("counts", [(4, 4), (2, 5, 1), (3, 0, 4)])
@pytest.mark.parametrize("bucket_cap_mb", [25, 1e-6])
def test_a_model_learns_what_one_process_learns(counts: tuple[int, ...], bucket_cap_mb: float) -> None:
    """Also with more messages of the gradients on their way than there are layers."""
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((sum(counts), 2, 6, 6)), generator.standard_normal((sum(counts), 2))
    expected = train(Network().double(), x, y)

    def rank() -> dict[str, Any]:
        mine = part_of(counts, distributed.rank())
        model = SyncBatchNorm.convert_sync_batchnorm(Network().double())
        return train(model, x[mine], y[mine], DistributedDataParallel(model, bucket_cap_mb=bucket_cap_mb))

    found = threads.run(len(counts), rank, timeout=20)
    for name, value in expected.items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-9, atol=1e-11, err_msg=name)
        assert len({f[name].tobytes() for f in found}) == 1, f"{name} differs between ranks"


def test_set_samples_weighs_the_layer_too() -> None:
    """A loss that is a mean over something else than samples, such as positions with a label."""
    x, y = np.random.default_rng(0).standard_normal((6, 2, 6, 6)), np.random.default_rng(1).standard_normal((6, 2))
    counted = np.array([1, 1, 1, 0, 1, 0], bool)

    def losses(prediction: Tensor, target: Any, counts: Any) -> Tensor:
        return ((prediction - Tensor(target)) ** 2)[Tensor(counts)].mean()

    alone = Network().double()
    losses(alone(Tensor(x)), y, counted).backward()

    def rank() -> dict[str, Any]:
        mine = slice(3 * distributed.rank(), 3 * distributed.rank() + 3)
        model = SyncBatchNorm.convert_sync_batchnorm(Network().double())
        wrapped = DistributedDataParallel(model)
        prediction = wrapped(Tensor(x[mine]))
        wrapped.set_samples(int(counted[mine].sum()))
        losses(prediction, y[mine], counted[mine]).backward()
        return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}

    for found in threads.run(2, rank, timeout=20):
        for name, parameter in alone.named_parameters():
            np.testing.assert_allclose(found[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_without_a_wrapper_the_gradient_is_that_of_the_sum_of_losses() -> None:
    x = batch(5, 2)
    inputs = Tensor(x, requires_grad=True)
    layer = layer_of(nn.BatchNorm1d, np.float64)
    out = layer(inputs)
    ((out[:2] ** 3).mean() + (out[2:] ** 3).mean()).backward()

    def rank() -> np.ndarray[Any, Any]:
        mine = Tensor(x[part_of((2, 3), distributed.rank())], requires_grad=True)
        (layer_of(SyncBatchNorm, np.float64)(mine) ** 3).mean().backward()
        return mine.grad.numpy()

    np.testing.assert_allclose(np.concatenate(threads.run(2, rank, timeout=20)), inputs.grad.numpy(), rtol=1e-10)


@pytest.mark.parametrize("slow", [0, 1])
def test_delays_change_no_bit_and_messages_never_mix(slow: int) -> None:
    x, y = np.random.default_rng(0).standard_normal((5, 2, 6, 6)), np.random.default_rng(1).standard_normal((5, 2))

    def rank() -> list[bytes]:
        mine = part_of((3, 2), distributed.rank())
        model = SyncBatchNorm.convert_sync_batchnorm(Network().double())
        state = train(model, x[mine], y[mine], DistributedDataParallel(model, bucket_cap_mb=1e-6))
        return [value.tobytes() for value in state.values()]

    undisturbed = threads.run(2, rank, timeout=20)
    delayed = threads.run(2, rank, timeout=20, delay=lambda r, sequence: 0.002 * (r == slow) * (sequence % 3))
    assert undisturbed == delayed


@pytest.mark.parametrize("progress", ["thread", "patient", "poll", "none"])
@pytest.mark.parametrize("hooked", [False, True])
def test_whoever_carries_the_buckets_nobody_waits_for_ever(progress: str, hooked: bool) -> None:
    """Polled, a hook could block before a layer's message on one rank and behind it on another."""
    generator = np.random.default_rng(3)
    seconds = generator.random(1000) * 0.002
    x, y = generator.standard_normal((5, 2, 6, 6)), generator.standard_normal((5, 2))
    expected = train(Network().double(), x, y)

    def hook(ranks: Any, bucket: Any) -> Report:
        ranks.all_reduce(bucket.buffer())
        return Report(bucket.buffer().nbytes, 0.0)

    def rank() -> dict[str, Any]:
        mine = part_of((3, 2), distributed.rank())
        model = SyncBatchNorm.convert_sync_batchnorm(Network().double())
        wrapped = DistributedDataParallel(model, bucket_cap_mb=1e-6, progress=progress)
        if hooked:
            wrapped.register_comm_hook(None, hook)
        return train(model, x[mine], y[mine], wrapped)

    found = threads.run(2, rank, timeout=10, delay=lambda r, sequence: seconds[(2 * sequence + r) % 1000])
    for name, value in expected.items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-9, atol=1e-11, err_msg=name)


def test_forward_passes_that_are_repeated_in_backward() -> None:
    """Recomputation: the layer's forward message comes while the backward pass is on its way."""
    x, y = np.random.default_rng(0).standard_normal((5, 2, 6, 6)), np.random.default_rng(1).standard_normal((5, 2))

    def gradients(recompute: bool) -> list[dict[str, Any]]:
        class Recomputed(Network):
            def forward(self, x: Tensor) -> Tensor:
                return checkpoint(super().forward, x, use_reentrant=False) if recompute else super().forward(x)

        def rank() -> dict[str, Any]:
            mine = part_of((3, 2), distributed.rank())
            model = SyncBatchNorm.convert_sync_batchnorm(Recomputed().double())
            loss_of(DistributedDataParallel(model)(Tensor(x[mine])), y[mine]).backward()
            return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}

        return threads.run(2, rank, timeout=20)

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        for name, value in plain.items():
            assert value.tobytes() == again[name].tobytes(), name


def test_a_compiled_model_goes_on_uncompiled() -> None:
    x, y = np.random.default_rng(0).standard_normal((5, 2, 6, 6)), np.random.default_rng(1).standard_normal((5, 2))
    expected = train(Network().double(), x, y)

    def rank() -> dict[str, Any]:
        mine = part_of((3, 2), distributed.rank())
        model = SyncBatchNorm.convert_sync_batchnorm(Network().double())
        return train(model, x[mine], y[mine], DistributedDataParallel(distgrad.compile(model)))

    for found in threads.run(2, rank, timeout=20):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


def test_half_precision_is_computed_in_single() -> None:
    x = batch(6, 4, np.float16)
    layer = nn.BatchNorm2d(CHANNELS)
    expected = layer(Tensor(x)).detach().numpy()

    def rank() -> tuple[np.ndarray[Any, Any], list[float]]:
        layer = SyncBatchNorm(CHANNELS)
        inputs = Tensor(x[3 * distributed.rank() :][:3], requires_grad=True)
        out = layer(inputs)
        out.sum().backward()
        assert inputs.grad is not None and inputs.grad.dtype == np.float16
        return out.detach().numpy(), layer.running_var.tolist()

    (first, var), (second, _) = threads.run(2, rank, timeout=20)
    assert first.dtype == np.float16
    np.testing.assert_allclose(np.concatenate([first, second]), expected, atol=2e-3)
    np.testing.assert_allclose(var, layer.running_var.numpy(), rtol=1e-6)


def test_as_few_messages_as_pytorch_and_one_duplicate_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = ThreadCommunicator._meet

    def meet(self: Any, call: Any, *args: Any) -> Any:
        if self.rank == 0:
            seen.append(call.name)
        return original(self, call, *args)

    monkeypatch.setattr(ThreadCommunicator, "_meet", meet)

    def two_layers() -> None:
        model = nn.Sequential(SyncBatchNorm(CHANNELS), nn.ReLU(), SyncBatchNorm(CHANNELS))
        model(Tensor(batch(2, 4, np.float32), requires_grad=True)).sum().backward()

    threads.run(1, two_layers, timeout=20)
    assert seen == [], "one rank alone has nobody to talk to"
    threads.run(2, two_layers, timeout=20)
    assert seen == ["duplicate", "all_gather", "all_gather", "all_reduce", "all_reduce"]
    seen.clear()

    def first_layer_of_a_model() -> None:
        SyncBatchNorm(CHANNELS)(Tensor(batch(2, 4, np.float32))).sum().backward()

    threads.run(2, first_layer_of_a_model, timeout=20)
    assert seen == ["duplicate", "all_gather"], "its input needs no gradient"


@pytest.mark.parametrize("size", [64, 256])
def test_many_ranks_with_everything_at_once(size: int) -> None:
    """The layer, gradients in buckets, a sharded optimizer, exact metrics; late at random, many ranks without data."""
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((size // 2, 4)), generator.standard_normal((size // 2, 1))
    seconds = generator.random(1009) * 0.01

    def model() -> nn.Module:
        layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double()
        with no_grad():
            for number, parameter in enumerate(layers.parameters()):
                values = np.random.default_rng(number).standard_normal(parameter.shape)
                parameter.copy_(Tensor(values))
        return layers

    def steps(called: nn.Module, optimizer: Any, mine: slice) -> float:
        loss = MeanMetric()
        for _ in range(2):
            optimizer.zero_grad()
            value = loss_of(called(Tensor(x[mine])), y[mine])
            value.backward()
            optimizer.step()
            loss.update(value.item(), weight=len(y[mine]))
        return loss.reduce().compute()

    alone = model()
    expected = steps(alone, optim.AdamW(alone.parameters(), lr=0.1), slice(None))

    def rank() -> tuple[float, bytes, list[Any]]:
        shared = SyncBatchNorm.convert_sync_batchnorm(model())
        wrapped = DistributedDataParallel(shared)
        optimizer = ZeroRedundancyOptimizer(shared.parameters(), optim.AdamW, lr=0.1)
        loss = steps(wrapped, optimizer, slice(distributed.rank(), None, size))
        values = [value.detach().numpy() for value in shared.state_dict().values()]
        return loss, b"".join(value.tobytes() for value in values), values

    found = threads.run(size, rank, timeout=30, delay=lambda r, sequence: seconds[(7 * r + sequence) % 1009])
    assert len({(loss, values) for loss, values, _ in found}) == 1, "every rank has the same bits"
    assert found[0][0] == pytest.approx(expected, rel=1e-9)
    for value, (name, other) in zip(found[0][2], alone.state_dict().items(), strict=True):
        np.testing.assert_allclose(value, other.numpy(), rtol=1e-8, atol=1e-10, err_msg=name)


# ---- Conversion and copies


def test_conversion_keeps_tensors_modes_and_what_is_frozen() -> None:
    shared = nn.BatchNorm1d(4)
    model = nn.Sequential(
        nn.freeze(nn.BatchNorm2d(3, momentum=None)),
        nn.Sequential(shared, nn.Linear(4, 4), shared),
        nn.BatchNorm3d(2, affine=False, eps=0.5).eval(),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.InstanceNorm2d(3),
    )
    before = {name: id(value) for name, value in [*model.named_parameters(), *model.named_buffers()]}
    converted = SyncBatchNorm.convert_sync_batchnorm(model)
    assert converted is model
    assert {name: id(value) for name, value in [*model.named_parameters(), *model.named_buffers()]} == before
    assert all(isinstance(model[i], SyncBatchNorm) for i in (0, 2, 3)) and isinstance(model[4], nn.InstanceNorm2d)
    assert model[1][0] is model[1][2] and isinstance(model[1][0], SyncBatchNorm)
    assert model[0].momentum is None and model[2].eps == 0.5 and not model[2].affine
    assert not model[0].weight.requires_grad and not model[0].training and not model[2].training
    assert model.train()[0].training is False and model[2].training is True
    assert nn.is_frozen(model[0])
    assert not model[3].track_running_stats and model[3].running_mean is None
    assert "SyncBatchNorm(3, eps=1e-05, momentum=None" in repr(model)

    alone = SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(3))
    assert type(alone) is SyncBatchNorm and alone.affine and alone.track_running_stats
    linear = nn.Linear(2, 2)
    assert SyncBatchNorm.convert_sync_batchnorm(linear) is linear


def test_a_given_communicator_is_used_and_shared_by_copies() -> None:
    def rank() -> float:
        half = communicator().split(communicator().rank % 2)
        model = SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm1d(1)), half)
        twin = copy.deepcopy(model)
        assert twin[0].communicator is half and twin[0].weight is not model[0].weight
        twin(Tensor(np.full((2, 1), float(communicator().rank), np.float32)))
        return float(twin[0].running_mean)

    assert threads.run(4, rank, timeout=20) == pytest.approx([0.1, 0.2, 0.1, 0.2])


def test_it_is_where_pytorch_users_look_and_can_be_pickled() -> None:
    assert nn.SyncBatchNorm is SyncBatchNorm
    layer = pickle.loads(pickle.dumps(SyncBatchNorm(2)))
    assert layer.communicator.world_size == 1

    def rank() -> None:
        model = nn.Sequential(SyncBatchNorm(2), nn.Linear(2, 1))
        wrapped = DistributedDataParallel(model)
        again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
        for one in (wrapped, again):
            one(Tensor(np.ones((2, 2), np.float32))).sum().backward()

    threads.run(2, rank, timeout=20)


# ---- What is refused


def test_what_does_not_fit_is_refused() -> None:
    layer = SyncBatchNorm(CHANNELS)
    with pytest.raises(ValueError, match="expected at least 2D input"):
        layer(Tensor(np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match=r"expected an input \(N, 3, ...\), got \[2, 4\]"):
        layer(Tensor(np.zeros((2, 4), np.float32)))

    def one_value() -> str:
        with pytest.raises(ValueError) as refused:
            SyncBatchNorm(CHANNELS)(Tensor(np.zeros((distributed.rank(), CHANNELS), np.float32)))
        with pytest.raises(RuntimeError, match="expected floating numbers, got int64"):
            SyncBatchNorm(CHANNELS)(Tensor(np.zeros((2, CHANNELS), np.int64)))
        return str(refused.value)

    messages = threads.run(2, one_value, timeout=20)
    assert all("more than 1 value per channel" in message and "on all ranks" in message for message in messages)

    def twice() -> None:
        x = Tensor(batch(3, 2), requires_grad=True)
        (first,) = grad((SyncBatchNorm(CHANNELS).double()(x) ** 2).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            first.sum().backward()

    threads.run(2, twice, timeout=20)


def test_a_forward_without_tensors_says_what_to_do() -> None:
    class Source(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(Tensor(np.ones(2)))
            self.norm = SyncBatchNorm(2, dtype=np.dtype(np.float64))

        def forward(self, count: int) -> Tensor:
            return self.norm(self.scale * Tensor(np.arange(2.0 * count).reshape(count, 2)))

    def rank() -> None:
        wrapped = DistributedDataParallel(Source())
        with pytest.raises(RuntimeError, match="set_samples"):
            (wrapped(3) ** 2).mean().backward()

    threads.run(2, rank, timeout=20)

"""N ranks with ragged shards against one process with the whole batch, and everything that must be refused."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import distributed, nn, no_grad
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel, threads
from distgrad.distributed.communicator import Array, Communicator
from distgrad.errors import CommunicationError
from distgrad.models import resnet18
from distgrad.nn.freeze import freeze
from distgrad.nn.module import Module
from distgrad.nn.parameter import Parameter

pytestmark = pytest.mark.timeout(60)


class Affine(Module):
    def __init__(self, inputs: int, outputs: int, seed: int, dtype: str = "float64") -> None:
        super().__init__()
        generator = np.random.default_rng(seed)
        self.weight = Parameter(generator.standard_normal((inputs, outputs)).astype(dtype))
        self.bias = Parameter(generator.standard_normal(outputs).astype(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Perceptron(Module):
    def __init__(self, seed: int = 0, dtype: str = "float64", hidden: int = 6) -> None:
        super().__init__()
        self.first = Affine(4, hidden, seed, dtype)
        self.second = Affine(hidden, 3, seed + 1, dtype)
        self.register_buffer("calls", Tensor(np.array(seed)))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


def batch(step: int, samples: int) -> tuple[Array, Array]:
    generator = np.random.default_rng([step, 99])
    return generator.standard_normal((samples, 4)), generator.standard_normal((samples, 3))


def mean_squared_error(prediction: Tensor, target: Array) -> Tensor:
    """A mean over samples; of none it is 0/0 with NaN gradients, as in PyTorch, without NumPy's warning."""
    if prediction.shape[0] == 0:
        return prediction.sum() * float("nan")
    return ((prediction - Tensor(target)) ** 2).mean()


def descend(model: Module, learning_rate: float) -> None:
    with no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.detach().numpy()[...] -= learning_rate * parameter.grad.numpy()


def clear(model: Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def gradients(model: Module) -> dict[str, Array | None]:
    return {name: None if p.grad is None else p.grad.numpy().copy() for name, p in model.named_parameters()}


def arrays(model: Module) -> dict[str, Array]:
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def train_alone(steps: int, samples: int) -> tuple[dict[str, Array], list[float]]:
    model, losses = Perceptron(), []
    for step in range(steps):
        x, y = batch(step, samples)
        clear(model)
        loss = mean_squared_error(model(Tensor(x)), y)
        loss.backward()
        losses.append(loss.item())
        descend(model, 0.1)
    return arrays(model), losses


SHARDS = [
    [8],
    [4, 4],
    [7, 1],
    [8, 0],
    [3, 3, 2],
    [0, 5, 3],
    [2, 2, 2, 2],
    [5, 0, 0, 3],
    [1, 1, 1, 1, 1, 1, 1, 1],
]


@pytest.mark.parametrize("shards", SHARDS, ids=str)
@pytest.mark.parametrize("bucket_cap_mb", [25, 1e-4], ids=["one bucket", "many buckets"])
def test_ragged_shards_train_like_one_process(shards: list[int], bucket_cap_mb: float) -> None:
    steps = 6
    expected, _ = train_alone(steps, sum(shards))
    bounds = np.cumsum([0, *shards])

    def body() -> dict[str, Array]:
        rank = distributed.rank()
        # Every rank starts from a model of its own: rank 0's must win.
        model = DistributedDataParallel(Perceptron(seed=rank * 10), bucket_cap_mb=bucket_cap_mb)
        for step in range(steps):
            x, y = (part[bounds[rank] : bounds[rank + 1]] for part in batch(step, sum(shards)))
            clear(model)
            mean_squared_error(model(Tensor(x)), y).backward()
            descend(model, 0.1)
        return arrays(model.module)

    results = threads.run(len(shards), body)
    for name, value in expected.items():
        np.testing.assert_allclose(results[0][name], value, rtol=1e-12, atol=1e-13)
        for other in results[1:]:
            assert other[name].tobytes() == results[0][name].tobytes(), name


def test_one_rank_rounds_nothing() -> None:
    expected, _ = train_alone(3, 7)

    def body() -> dict[str, Array]:
        model = DistributedDataParallel(Perceptron())
        for step in range(3):
            x, y = batch(step, 7)
            clear(model)
            mean_squared_error(model(Tensor(x)), y).backward()
            descend(model, 0.1)
        return arrays(model.module)

    (result,) = threads.run(1, body)
    assert {k: v.tobytes() for k, v in result.items()} == {k: v.tobytes() for k, v in expected.items()}


def test_gradients_accumulate_over_backward_passes_and_keep_their_object() -> None:
    """Two batches without clearing: the sum of both gradients, each the mean over all ranks."""
    reference = Perceptron()
    for step in range(2):
        x, y = batch(step, 5)
        mean_squared_error(reference(Tensor(x)), y).backward()

    def body() -> dict[str, Array | None]:
        part = slice(0, 4) if distributed.rank() == 0 else slice(4, 5)
        model = DistributedDataParallel(Perceptron())
        kept = []
        for step in range(2):
            x, y = batch(step, 5)
            mean_squared_error(model(Tensor(x[part])), y[part]).backward()
            kept.append([p.grad for p in model.parameters()])
        assert all(a is b for a, b in zip(*kept, strict=True))
        return gradients(model.module)

    for result in threads.run(2, body):
        for name, value in gradients(reference).items():
            np.testing.assert_allclose(result[name], value, rtol=1e-12)


def test_a_second_backward_through_the_same_graph_is_reduced_too() -> None:
    reference = Perceptron()
    x, y = batch(0, 6)
    mean_squared_error(reference(Tensor(x)), y).backward()

    def body() -> dict[str, Array | None]:
        model = DistributedDataParallel(Perceptron())
        part = slice(0, 2) if distributed.rank() == 0 else slice(2, 6)
        loss = mean_squared_error(model(Tensor(x[part])), y[part])
        loss.backward(retain_graph=True)
        clear(model)
        loss.backward()
        return gradients(model.module)

    for result in threads.run(2, body):
        for name, value in gradients(reference).items():
            np.testing.assert_allclose(result[name], value, rtol=1e-12)


# ---- Parameters that are not used


class Branches(Module):
    """Which branch computes depends on the caller; ``spare`` never does."""

    def __init__(self) -> None:
        super().__init__()
        self.left = Affine(4, 3, 1)
        self.right = Affine(4, 3, 2)
        self.spare = Affine(4, 3, 3)

    def forward(self, x: Tensor, go_left: bool) -> Tensor:
        return self.left(x) if go_left else self.right(x)


def test_unused_on_one_rank_counts_as_zero_and_unused_everywhere_stays_none() -> None:
    x, y = batch(0, 6)
    reference = Branches()
    # The global mean over 6 samples, of which the first 2 go left and the other 4 right.
    loss = (mean_squared_error(reference(Tensor(x[:2]), True), y[:2]) * (2 / 6)) + (
        mean_squared_error(reference(Tensor(x[2:]), False), y[2:]) * (4 / 6)
    )
    loss.backward()
    expected = gradients(reference)

    def body() -> dict[str, Array | None]:
        model = DistributedDataParallel(Branches())
        first = distributed.rank() == 0
        part = slice(0, 2) if first else slice(2, 6)
        mean_squared_error(model(Tensor(x[part]), first), y[part]).backward()
        return gradients(model.module)

    for result in threads.run(2, body):
        assert result["spare.weight"] is None and result["spare.bias"] is None
        for name in ("left.weight", "left.bias", "right.weight", "right.bias"):
            np.testing.assert_allclose(result[name], expected[name], rtol=1e-12)


def test_unused_everywhere_keeps_an_earlier_gradient() -> None:
    def body() -> None:
        model = DistributedDataParallel(Branches())
        x, y = batch(distributed.rank(), 3)
        mean_squared_error(model(Tensor(x), True), y).backward()
        before = gradients(model.module)["left.weight"]
        mean_squared_error(model(Tensor(x), False), y).backward()
        np.testing.assert_array_equal(gradients(model.module)["left.weight"], before)

    threads.run(2, body)


# ---- What counts as a sample


class Flexible(Module):
    """Takes its input wrapped in anything."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Parameter(np.ones(()))

    def forward(self, value: Any, **more: Any) -> Tensor:
        while not isinstance(value, Tensor):
            value = next(iter(value.values())) if isinstance(value, dict) else value[-1]
        return (value * self.scale).mean()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: ((x,), {}),
        lambda x: (([x],), {}),
        lambda x: ((["name", (3, x)],), {}),
        lambda x: (({"image": x},), {}),
        lambda x: ((), {"value": x}),
        lambda x: (([Tensor(np.array(2.0)), x],), {}),  # 0-d: no samples to count
    ],
)
def test_samples_are_counted_in_the_first_tensor(wrap: Callable[[Tensor], tuple[Any, Any]]) -> None:
    def body() -> float:
        model = DistributedDataParallel(Flexible())
        rank = distributed.rank()
        args, kwargs = wrap(Tensor(np.full((3, 2) if rank == 0 else (1, 2), rank + 1.0)))
        model(*args, **kwargs).backward()
        return float(model.module.scale.grad.item())

    np.testing.assert_allclose(threads.run(2, body), (3 * 1 + 1 * 2) / 4)


def test_set_samples_overrides_one_backward() -> None:
    def body() -> list[float]:
        rank = distributed.rank()
        model = DistributedDataParallel(Flexible())
        x = Tensor(np.full((2,), rank + 1.0))
        seen = []
        for override in ("before", "after", None):
            clear(model)
            if override == "before":
                model.set_samples(np.int64(3 if rank == 0 else 1))
            output = model(x)
            with no_grad():
                model(Tensor(np.ones(50)))  # an evaluation in between is not counted
            if override == "after":
                model.set_samples(0 if rank == 0 else 1)
            output.backward()
            seen.append(float(model.module.scale.grad.item()))
        return seen

    for seen in threads.run(2, body):
        np.testing.assert_allclose(seen, [(3 * 1 + 1 * 2) / 4, 2.0, 1.5], rtol=1e-15)


def test_misuse_of_set_samples() -> None:
    model = DistributedDataParallel(Flexible())
    with pytest.raises(ValueError, match="-1 samples; the number cannot be negative"):
        model.set_samples(-1)
    with pytest.raises(TypeError):
        model.set_samples(1.5)  # type: ignore[arg-type]


def test_without_a_tensor_argument_the_samples_must_be_given() -> None:
    class Constant(Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = Parameter(np.ones(()))

        def forward(self, factor: float) -> Tensor:
            return self.value * factor

    model = DistributedDataParallel(Constant())
    with pytest.raises(RuntimeError, match=r"no argument of forward was a tensor: call set_samples\(n\)"):
        model(2.0).backward()
    model.set_samples(1)
    model(2.0).backward()
    assert model.module.value.grad.item() == 4.0  # the first backward had accumulated too


def test_no_samples_anywhere_is_an_error_on_every_rank() -> None:
    seen: list[int] = []

    def body() -> None:
        model = DistributedDataParallel(Perceptron())
        try:
            mean_squared_error(model(Tensor(np.zeros((0, 4)))), np.zeros((0, 3))).backward()
        except CommunicationError:
            seen.append(distributed.rank())
            raise

    with pytest.raises(CommunicationError, match="no rank had a sample in this step"):
        threads.run(3, body)
    assert sorted(seen) == [0, 1, 2]


def test_forward_without_recording_communicates_nothing() -> None:
    def body() -> None:
        model = DistributedDataParallel(Perceptron())
        distributed.barrier()
        if distributed.rank() == 0:  # alone: any collective would be refused
            with no_grad():
                model(Tensor(np.ones((2, 4))))
        distributed.barrier()
        model.eval()  # frozen BatchNorm, say: gradients are still those of all ranks
        x, y = batch(distributed.rank(), 2)
        mean_squared_error(model(Tensor(x)), y).backward()
        assert all(
            np.array_equal(row, rows[0])
            for rows in (distributed.all_gather(p.grad.numpy()) for p in model.parameters())  # type: ignore[union-attr]
            for row in rows
        )

    threads.run(2, body)


def test_a_backward_that_raises_does_not_spoil_the_next() -> None:
    def body() -> None:
        rank = distributed.rank()
        model = DistributedDataParallel(Perceptron())
        x, y = batch(rank, 2)

        def fail(_: Tensor) -> None:
            raise KeyError("hook")

        handle = model.module.first.bias.register_hook(fail)
        with pytest.raises(KeyError):
            mean_squared_error(model(Tensor(x)), y).backward()
        handle.remove()
        clear(model)
        mean_squared_error(model(Tensor(x)), y).backward()
        rows = distributed.all_gather(model.module.first.bias.grad.numpy())
        np.testing.assert_array_equal(rows[0], rows[1])

    threads.run(2, body)


def test_higher_derivatives_are_refused() -> None:
    model = DistributedDataParallel(Flexible())
    with pytest.raises(RuntimeError, match=r"backward\(create_graph=True\) through DistributedDataParallel"):
        model(Tensor(np.ones(2))).backward(create_graph=True)


def test_slow_ranks_change_nothing() -> None:
    def body() -> bytes:
        model = DistributedDataParallel(Perceptron(), bucket_cap_mb=1e-4)
        for step in range(2):
            x, y = batch(10 * step + distributed.rank(), 2)
            clear(model)
            mean_squared_error(model(Tensor(x)), y).backward()
            descend(model, 0.1)
        return b"".join(array.tobytes() for array in arrays(model.module).values())

    generator = np.random.default_rng(3)
    jitter = generator.uniform(0, 0.004, (3, 64))
    calm = threads.run(3, body)
    shaken = threads.run(3, body, delay=lambda rank, sequence: float(jitter[rank, sequence % 64]))
    assert len({*calm, *shaken}) == 1


# ---- Construction


class Counted:
    """A communicator that notes the bytes of each broadcast."""

    def __init__(self, inner: distributed.Communicator) -> None:
        self.inner = inner
        self.broadcasts: list[int] = []

    def broadcast(self, array: Array, src: int = 0) -> None:
        self.broadcasts.append(array.nbytes)
        self.inner.broadcast(array, src)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Backbone(Module):
    """A frozen part with statistics, and a head with a buffer of its own."""

    def __init__(self, seed: int, frozen_seed: int = 0, by_freeze: bool = False) -> None:
        super().__init__()
        self.body = Affine(4, 4, frozen_seed)
        self.body.register_buffer("mean", Tensor(np.full(4, float(frozen_seed))))
        self.scaling = Module()  # no parameter of its own: frozen only when nn.freeze says so
        self.scaling.register_buffer("factor", Tensor(np.array(float(seed))))
        if by_freeze:
            freeze(self.scaling)
        self.body.requires_grad_(False)
        self.head = Affine(4, 3, seed)
        self.head.register_buffer("seen", Tensor(np.array([seed], dtype=np.int64)))
        self.head.register_buffer("flag", Tensor(np.array(seed == 0)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


HEAD_BYTES = (4 * 3 + 3) * 8 + 8 + 1


def test_frozen_parts_are_neither_sent_nor_reduced() -> None:
    def body() -> tuple[list[int], list[int]]:
        rank = distributed.rank()
        counted = Counted(distributed.communicator())
        module = Backbone(seed=rank, by_freeze=False)
        model = DistributedDataParallel(module, counted)  # type: ignore[arg-type]
        assert module.head.seen.tolist() == [0] and module.head.flag.item() is True
        np.testing.assert_array_equal(module.head.weight.detach().numpy(), Backbone(0).head.weight.detach().numpy())
        in_buckets = [p for bucket in model._reducer.buckets for p in bucket.parameters()]
        assert {id(p) for p in in_buckets} == {id(module.head.weight), id(module.head.bias)}
        assert module.body.weight._post_accumulate_hooks is None
        constructed = counted.broadcasts.copy()
        counted.broadcasts.clear()
        module.head.seen.numpy()[...] = rank + 5
        model.broadcast_buffers()
        assert module.head.seen.tolist() == [5]
        return constructed, counted.broadcasts

    for constructed, later in threads.run(3, body):
        assert constructed == [HEAD_BYTES + 8]  # with scaling.factor
        assert later == [8 + 1 + 8]


def test_buffers_that_nn_freeze_holds_are_only_compared() -> None:
    def body() -> list[int]:
        counted = Counted(distributed.communicator())
        DistributedDataParallel(Backbone(seed=0, by_freeze=True), counted)  # type: ignore[arg-type]
        return counted.broadcasts

    assert threads.run(2, body) == [[HEAD_BYTES]] * 2


def test_frozen_values_that_differ_follow_rank_0() -> None:
    def body() -> None:
        module = Backbone(seed=0, frozen_seed=distributed.rank())
        model = DistributedDataParallel(module)
        np.testing.assert_array_equal(module.body.weight.detach().numpy(), Backbone(0).body.weight.detach().numpy())
        np.testing.assert_array_equal(module.body.mean.numpy(), 0.0)
        # Running statistics of a layer whose weights alone are frozen move on their own on each rank.
        module.body.mean.numpy()[...] = distributed.rank() + 1.0
        model.broadcast_buffers()
        np.testing.assert_array_equal(module.body.mean.numpy(), 1.0)

    threads.run(3, body)


def changed(**changes: Any) -> Callable[[], Module]:
    def build() -> Module:
        model = Perceptron()
        for name, value in changes.items():
            if name == "rename":
                model.final, model.second = model.second, None
            elif name == "freeze":
                model.second.bias.requires_grad = False
            elif name == "buffer":
                model.register_buffer("calls", Tensor(np.zeros(value)))
            elif name == "extra":
                model.extra = Affine(1, 1, 0)
            elif name == "model":
                model = value()
        return model

    return build


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            changed(model=lambda: Perceptron(hidden=7)),
            r"parameter 'first\.weight' has shape \[4, 6\] on rank 0 but \[4, 7\] on rank 2",
        ),
        (
            changed(model=lambda: Perceptron(dtype="float32")),
            r"parameter 'first\.weight' has dtype float64 on rank 0 but float32 on rank 2",
        ),
        (changed(rename=True), r"parameter 2 is 'second\.weight' on rank 0 but 'final\.weight' on rank 2"),
        (changed(freeze=True), r"parameter 'second\.bias' has requires_grad True on rank 0 but False on rank 2"),
        (
            changed(extra=True),
            r"parameter 'extra\.weight' exists on rank 2 but not on rank 0 \(4 parameters on rank 0, 6 on rank 2\)",
        ),
        (changed(buffer=3), r"buffer 'calls' has shape \[\] on rank 0 but \[3\] on rank 2"),
    ],
)
def test_models_that_differ_are_refused_on_every_rank(build: Callable[[], Module], expected: str) -> None:
    messages: list[str] = []

    def body() -> None:
        model = build() if distributed.rank() == 2 else Perceptron()
        try:
            DistributedDataParallel(model)
        except CommunicationError as error:
            messages.append(str(error))
            raise

    with pytest.raises(CommunicationError, match=expected):
        threads.run(4, body)
    assert len(messages) == 4 and len(set(messages)) == 1
    assert messages[0].endswith("every rank must wrap the same model in DistributedDataParallel")


def test_bucket_sizes_that_differ_are_refused() -> None:
    def body() -> None:
        DistributedDataParallel(Perceptron(), bucket_cap_mb=25 + distributed.rank())

    with pytest.raises(CommunicationError, match="bucket_cap_mb is 25 on rank 0 but 26 on rank 1"):
        threads.run(2, body)


def test_nothing_to_train_is_refused() -> None:
    model = Perceptron().requires_grad_(False)
    with pytest.raises(
        RuntimeError, match="not needed when a module doesn't have any parameters that require a gradient"
    ):
        DistributedDataParallel(model)


@pytest.mark.parametrize("cap", [0, -1, float("nan")])
def test_impossible_bucket_size_is_refused(cap: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        DistributedDataParallel(Perceptron(), bucket_cap_mb=cap)


def replace_head(model: Perceptron) -> None:
    model.second = Affine(6, 3, 5)


def freeze_bias(model: Perceptron) -> None:
    model.first.bias.requires_grad = False


def add_layer(model: Perceptron) -> None:
    model.third = Affine(1, 1, 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (replace_head, r"parameter 'second\.weight' was replaced after wrapping"),
        (freeze_bias, r"requires_grad of parameter 'first\.bias' became False after wrapping"),
        (lambda model: model.float(), r"parameter 'first\.weight' became float32 from float64"),
        (add_layer, r"the module has 6 parameters but had 4 when wrapped"),
    ],
)
def test_a_model_changed_after_wrapping_is_noticed(change: Callable[[Perceptron], None], expected: str) -> None:
    model = DistributedDataParallel(Perceptron())
    change(model.module)
    with no_grad():
        model(Tensor(np.ones((1, 4), dtype=model.module.first.weight.dtype)))  # evaluation goes on
    with pytest.raises(RuntimeError, match=expected):
        model(Tensor(np.ones((1, 4))))


def test_wrapping_again_after_unfreezing() -> None:
    def body() -> None:
        module = Perceptron(seed=0)
        module.first.requires_grad_(False)
        model = DistributedDataParallel(module)
        x, y = batch(distributed.rank(), 2)
        mean_squared_error(model(Tensor(x)), y).backward()
        assert module.first.weight.grad is None
        module.first.requires_grad_(True)
        model = DistributedDataParallel(module)
        gc.collect()
        assert len(module.second.weight._post_accumulate_hooks) == 1  # those of the first wrapper are gone
        mean_squared_error(model(Tensor(x)), y).backward()
        rows = distributed.all_gather(module.first.weight.grad.numpy())
        np.testing.assert_array_equal(rows[0], rows[1])

    threads.run(2, body)


def test_the_wrapper_is_a_module_as_in_pytorch() -> None:
    module = Perceptron()
    model = DistributedDataParallel(module)
    assert list(model.state_dict()) == [f"module.{key}" for key in module.state_dict()]
    assert next(name for name, _ in model.named_parameters()) == "module.first.weight"
    model.eval()
    assert not module.training
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    assert model(Tensor(np.ones((2, 4)))).shape == (2, 3)


def test_gradients_of_the_module_used_directly_stay_local() -> None:
    def body() -> None:
        model = DistributedDataParallel(Perceptron())
        if distributed.rank() == 0:  # before any forward of the wrapper: a backward of one rank alone
            x, y = batch(0, 2)
            mean_squared_error(model.module(Tensor(x)), y).backward()
            clear(model)

    threads.run(2, body)


class Counting:
    """A communicator that notes how many bytes each collective on arrays carries."""

    def __init__(self, ranks: Communicator) -> None:
        self._ranks = ranks
        self.sent: list[tuple[str, int]] = []

    def duplicate(self) -> Counting:
        other = Counting(self._ranks.duplicate())
        other.sent = self.sent
        return other

    def all_reduce(self, array: Any, op: Any = "sum") -> None:
        self.sent.append(("all_reduce", array.nbytes))
        self._ranks.all_reduce(array, op)

    def broadcast(self, array: Any, src: int = 0) -> None:
        self.sent.append(("broadcast", array.nbytes))
        self._ranks.broadcast(array, src)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranks, name)


def test_of_a_frozen_resnet18_only_the_classifier_travels() -> None:
    classifier = (512 * 3 + 3) * 4  # bytes of fc.weight and fc.bias in float32

    def step() -> list[tuple[str, int]]:
        counting = Counting(distributed.communicator())
        model = freeze(resnet18())
        rng = np.random.default_rng(0)
        with no_grad():
            for parameter in model.parameters():  # the same file on every rank, but another start of the classifier
                parameter.copy_(distgrad.from_numpy(rng.standard_normal(parameter.shape).astype(np.float32) * 0.01))
        model.fc = nn.Linear(512, 3)
        parallel = DistributedDataParallel(model, counting)
        parallel.train()
        images = distgrad.from_numpy(rng.standard_normal((2, 3, 32, 32)).astype(np.float32))
        nn.functional.cross_entropy(parallel(images), distgrad.tensor([0, 1])).backward()
        assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("fc."))
        return counting.sent

    for sent in threads.run(2, step):
        assert [entry for entry in sent if entry[0] == "broadcast"] == [("broadcast", classifier)]
        header = 8 * (2 + 2)  # samples, whether there are batches left, which of the two parameters are reached
        reduced = [size for kind, size in sent if kind == "all_reduce"]
        assert reduced[0] == header and sum(reduced[1:]) == classifier

"""Communication hooks over real processes: sums within their bounds, the same bits, memory through a checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad import checkpoint
from distgrad.autograd import Tensor
from distgrad.distributed import Communicator, DistributedDataParallel
from distgrad.distributed.bucket import GradBucket
from distgrad.distributed.channel import CHANNELS
from distgrad.distributed.comm_hooks import (
    HOOKS,
    HierarchicalState,
    PeriodicModelAverager,
    PostLocalSGDOptimizer,
    PostLocalSGDState,
    hierarchical_hook,
    make,
    post_localSGD_hook,
)
from distgrad.distributed.communicator import Array
from distgrad.launch import recipe
from distgrad.launch.finetune import finetune
from distgrad.launch.settings import load_settings
from distgrad.nn import Linear, Module, Sequential, Tanh
from distgrad.nn.functional import mse_loss
from distgrad.nn.parameter import Parameter
from distgrad.optim import SGD

from ..launch.conftest import SmallNetwork, write_photos

# By a thread: a rank that hangs inside of MPI never comes back to Python to see a signal.
pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60, method="thread"), pytest.mark.usefixtures("world")]

SHAPES = {"conv.weight": (16, 8, 3, 3), "fc.weight": (40, 133), "fc.bias": (40,), "scale": ()}
OPTIONS: dict[str, dict[str, Any]] = {
    "top_k": {"density": 0.02},
    "power_sgd": {"matrix_approximation_rank": 2, "start_powerSGD_iter": 1},
    "hierarchical": {"chunk_mb": 0.004},
}


@pytest.fixture
def folder(world: Communicator) -> Iterator[Path]:
    """The same empty folder on all ranks."""
    with tempfile.TemporaryDirectory() as mine:
        yield Path(world.all_gather_bytes(mine.encode())[0].decode())
        world.barrier()


def gradients_of(rank: int, step: int) -> list[Array]:
    generator = np.random.default_rng([rank, step])
    return [np.asarray(generator.standard_normal(shape) * 10.0 ** (rank - 2), np.float32) for shape in SHAPES.values()]


def bucket_of(gradients: list[Array]) -> GradBucket:
    bucket = GradBucket([Parameter(np.zeros_like(g)) for g in gradients], range(len(gradients)), list(SHAPES), 0, True)
    for view, gradient in zip(bucket.gradients(), gradients, strict=True):
        view[...] = gradient
    return bucket


def assert_same_bits(world: Communicator, array: Array) -> None:
    rows = world.all_gather_bytes(array.tobytes())
    assert all(row == rows[0] for row in rows)


@pytest.mark.parametrize("name", sorted(set(HOOKS) - {"post_local_sgd"}))
def test_the_sum_is_within_the_bound_and_the_same_everywhere(world: Communicator, name: str) -> None:
    """With what was left out added: over all steps nothing is lost."""
    state, hook = make(name, world, **OPTIONS.get(name, {}))
    sent, given, scale, bound = 0.0, 0.0, 0.0, 0.0
    for step in range(4):
        bucket = bucket_of(gradients_of(world.rank, step))
        bound = max(bound, hook(state, bucket).error_bound)
        assert_same_bits(world, bucket.buffer())
        sent = sent + bucket.buffer().astype(np.float64)
        rows = [np.concatenate([g.reshape(-1) for g in gradients_of(r, step)]) for r in range(world.world_size)]
        given = given + np.sum(rows, 0, dtype=np.float64)
        scale += sum(float(abs(row).max()) for row in rows)
    if name in ("top_k", "power_sgd"):
        left = np.zeros(len(given))
        residuals = state.residual  # type: ignore[attr-defined]
        place = 0
        for key, shape in SHAPES.items():
            size = int(np.prod(shape))
            left[place : place + size] = residuals[key].reshape(-1) if key in residuals else 0
            place += size
        world.all_reduce(left)
        sent, bound = sent + left, 1e-5
    assert (abs(sent - given) <= max(bound, 1e-6) * scale).all()
    if isinstance(state, HierarchicalState):
        state.free()


@pytest.mark.parametrize("hosts", ["one", "two", "ragged", "each"])
def test_two_levels_in_real_shared_memory(world: Communicator, hosts: str) -> None:
    """Exact with integers: rank r's numbers over and over, in many chunks, so that a race would show."""
    size = world.world_size
    numbers = {
        "one": [0] * size,
        "two": [r % 2 for r in range(size)],
        "ragged": [max(0, r - 1) for r in range(size)],
        "each": list(range(size)),
    }[hosts]
    state = HierarchicalState(world, chunk_mb=0.004, hosts=numbers)
    gradient = np.arange(5000, dtype=np.float32)
    for step in range(4):
        parameter = Parameter(np.zeros_like(gradient))
        bucket = GradBucket([parameter], [0], ["w"], 0, True)
        bucket.buffer()[...] = gradient * (world.rank + 1) + step
        hierarchical_hook(state, bucket)
        np.testing.assert_array_equal(bucket.buffer(), gradient * (size * (size + 1) // 2) + size * step)
    state.free()


def network() -> Module:
    generator = np.random.default_rng(0)
    model = Sequential(Linear(6, 24), Tanh(), Linear(24, 24), Tanh(), Linear(24, 1))
    for parameter in model.parameters():
        parameter.detach().numpy()[...] = generator.standard_normal(parameter.shape) * 0.4
    return model


def data(world: Communicator, step: int) -> tuple[Tensor, Tensor]:
    """Rank r has r + 1 samples."""
    size, rank = world.world_size, world.rank
    x = np.random.default_rng(step).standard_normal((size * (size + 1) // 2, 6)).astype(np.float32)
    own = slice(rank * (rank + 1) // 2, (rank + 1) * (rank + 2) // 2)
    return Tensor(x[own]), Tensor(np.sin(x[own].sum(1, keepdims=True)))


def train(world: Communicator, model: Any, first: int, last: int) -> None:
    optimizer = SGD(model.parameters(), lr=0.05)
    for step in range(first, last):
        x, y = data(world, step)
        optimizer.zero_grad()
        mse_loss(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("name", ["fp16", "power_sgd", "hierarchical"])
def test_hooks_on_every_channel(world: Communicator, channel: str, name: str) -> None:
    """In the backward pass, at its end, or in another thread."""
    model = DistributedDataParallel(network(), bucket_cap_mb=0.001, progress=channel)
    model.register_comm_hook(*make(name, **OPTIONS.get(name, {})))
    train(world, model, 0, 5)
    for parameter in model.parameters():
        assert_same_bits(world, parameter.detach().numpy())
    assert len(model.reports) > 1


@pytest.mark.parametrize("name", ["top_k", "power_sgd"])
def test_a_resume_has_the_same_bits(world: Communicator, name: str, folder: Path) -> None:
    def fresh() -> Any:
        model = DistributedDataParallel(network(), bucket_cap_mb=0.001)
        model.register_comm_hook(*make(name, **OPTIONS[name]))
        return model

    straight, broken = fresh(), fresh()
    train(world, straight, 0, 6)
    train(world, broken, 0, 3)
    broken.comm_hook_state.consolidate_state_dict()
    if world.rank == 0:
        parameters = {name: value.detach().numpy() for name, value in broken.module.state_dict().items()}
        checkpoint.save(folder / name, parameters, {"comm_hook": broken.comm_hook_state.state_dict()})
    world.barrier()
    parameters, saved = checkpoint.load(folder / name)
    resumed = fresh()
    resumed.module.load_state_dict({name: Tensor(value) for name, value in parameters.items()})
    resumed.comm_hook_state.load_state_dict(saved["comm_hook"])
    train(world, resumed, 3, 6)
    for value, expected in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert value.detach().numpy().tobytes() == expected.detach().numpy().tobytes()


RECIPE = """
[model]
weights = "none"
[data]
train = "{folder}/photos/train"
val = "{folder}/photos/val"
image_size = 33
batch_size = 8
workers = 0
[train]
epochs = 2
[run]
output = "{folder}/runs"
[checkpoint]
every_steps = 4
"""


@pytest.mark.parametrize("settings", [("top_k", "25"), ("auto", "0")])
def test_a_recipe_goes_on_with_what_a_hook_had_left_out(
    world: Communicator, folder: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, str]
) -> None:
    """In the middle of an epoch; two epochs of three steps are too short to choose in, and end with the default."""
    monkeypatch.setattr(recipe, "architecture", lambda settings, classes: SmallNetwork(classes))
    if world.rank == 0:
        write_photos(folder / "photos" / "train", ("blue", "green", "red"), 7)
        write_photos(folder / "photos" / "val", ("blue", "green", "red"), 1)
        (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    world.barrier()
    chosen = ["--distributed.comm_hook", settings[0], "--distributed.bucket_cap_mb", settings[1]]

    def run(name: str, *more: str, resume: bool = False) -> Array:
        overrides = ["--run.name", name, "--model.freeze", "false", *chosen, *more]
        finetune(load_settings(folder / "recipe.toml", overrides), world, resume=resume)
        world.barrier()
        model, state = checkpoint.load(folder / "runs" / name / "last")
        hook = state["comm_hook"]
        if settings[0] == "top_k":
            assert hook["iter"] == state["position"]["step"] and hook["ranks"] == list(range(world.world_size))
            assert (len(hook["residual"]) > 0) == (world.world_size > 1)
        return np.concatenate([model[name].reshape(-1) for name in sorted(model)])

    straight = run("straight")
    run("broken", "--train.max_steps", "4")
    resumed = run("broken", resume=True)
    if settings[0] == "top_k":
        assert resumed.tobytes() == straight.tobytes()
    np.testing.assert_allclose(resumed, straight, rtol=1e-4, atol=1e-5)


def test_post_local_sgd(world: Communicator) -> None:
    """Apart between two averagings, and the same again after one."""
    model = DistributedDataParallel(network())
    subgroup = world.split(world.rank)
    model.register_comm_hook(PostLocalSGDState(subgroup=subgroup, start_localSGD_iter=2), post_localSGD_hook)
    averager = PeriodicModelAverager(period=3, warmup_steps=2)
    optimizer = PostLocalSGDOptimizer(SGD(model.parameters(), lr=0.05), averager)
    apart = []
    for step in range(9):
        x, y = data(world, step)
        optimizer.zero_grad()
        mse_loss(model(x), y).backward()
        optimizer.step()
        weights = world.all_gather_bytes(next(model.parameters()).detach().numpy().tobytes())
        apart.append(len(set(weights)) > 1)
    # averaged after steps 2, 5 and 8
    expected = [False, False, False, True, True, False, True, True, False]
    assert apart == (expected if world.world_size > 1 else [False] * 9)


def test_all_ranks_choose_the_same(world: Communicator, capsys: pytest.CaptureFixture[str]) -> None:
    model = DistributedDataParallel(network(), bucket_cap_mb=(25, 0.001), comm_hook="auto")
    train(world, model, 0, 4 * 7 + 2)
    tuned = model.autotune
    assert tuned is not None and tuned.choice is not None
    assert len(set(world.all_gather_bytes(repr((tuned.choice, tuned.figures)).encode()))) == 1
    for parameter in model.parameters():
        assert_same_bits(world, parameter.detach().numpy())
    told = world.rank == 0 and world.world_size > 1
    assert ("autotune: bucket_cap_mb=" in capsys.readouterr().err) == told

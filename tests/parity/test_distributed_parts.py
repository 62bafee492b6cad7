"""What is shared out among ranks, against PyTorch: layers and optimizers that several processes keep together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from distgrad import nn, optim
from distgrad.autograd import Tensor
from distgrad.distributed import SyncBatchNorm, ZeroRedundancyOptimizer, threads

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # of PyTorch's own optimizers, when imported
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
]


@pytest.fixture
def process_group() -> Iterator[None]:
    """PyTorch's, of one process; its layers and optimizers refuse to work without."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_sync_batch_norm_takes_pytorchs_arguments_and_state() -> None:
    theirs, ours = torch.nn.SyncBatchNorm(3), SyncBatchNorm(3)
    arguments = list(inspect.signature(torch.nn.SyncBatchNorm).parameters)
    assert [name.replace("process_group", "communicator") for name in arguments] == list(
        inspect.signature(SyncBatchNorm).parameters
    )[: len(arguments)]
    generator = np.random.default_rng(0)
    state = {
        name: generator.random(value.shape).astype(np.float32)
        for name, value in ours.state_dict().items()
        if value.ndim
    }
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=False)
    ours.load_state_dict({name: Tensor(value) for name, value in state.items()}, strict=False)
    x = generator.standard_normal((4, 3, 5)).astype(np.float32)
    expected = theirs.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours.eval()(Tensor(x)).detach().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_conversion_replaces_what_pytorch_replaces() -> None:
    def model(library: Any) -> Any:
        return library.Sequential(
            library.BatchNorm1d(4, momentum=None),
            library.Sequential(library.BatchNorm2d(3, affine=False), library.Dropout(), library.InstanceNorm2d(3)),
            library.BatchNorm3d(2, track_running_stats=False),
        )

    theirs = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model(torch.nn))
    ours = nn.SyncBatchNorm.convert_sync_batchnorm(model(nn))
    assert [type(part).__name__ for part in ours.modules()] == [type(part).__name__ for part in theirs.modules()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for mine, other in zip(ours.modules(), theirs.modules(), strict=True):
        if isinstance(mine, SyncBatchNorm):
            for name in ("num_features", "eps", "momentum", "affine", "track_running_stats", "training"):
                assert getattr(mine, name) == getattr(other, name), name


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_parameters_belong_to_the_rank_that_pytorch_gives_them_to(process_group: None, world_size: int) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer as TorchZero

    sizes = [[int(size) for size in group] for group in np.random.default_rng(0).integers(1, 60, (3, 7))]
    groups = [{"params": [torch.nn.Parameter(torch.zeros(size)) for size in group]} for group in sizes]
    zero = TorchZero(groups, torch.optim.SGD, lr=0.1)
    zero._clear_cache()
    zero.world_size = world_size
    parts = zero._partition_parameters()
    owner = {id(param): rank for rank, part in enumerate(parts) for group in part for param in group["params"]}
    expected = [owner[id(param)] for group in groups for param in group["params"]]

    def rank() -> list[int]:
        mine = [{"params": [nn.Parameter(Tensor(np.zeros(size))) for size in group]} for group in sizes]
        optimizer = ZeroRedundancyOptimizer(mine, optim.SGD, lr=0.1)
        return [optimizer.owner(param) for group in mine for param in group["params"]]

    assert threads.run(world_size, rank, timeout=20) == [expected] * world_size


def test_a_consolidated_state_has_pytorchs_layout(process_group: None) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer as TorchZero

    values = [np.random.default_rng(seed).standard_normal((3, 2)) for seed in range(2)]
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in values]
    ours = [nn.Parameter(Tensor(value.copy())) for value in values]
    optimizers = TorchZero(theirs, torch.optim.AdamW, lr=0.1), ZeroRedundancyOptimizer(ours, optim.AdamW, lr=0.1)
    for _ in range(2):
        for param, other in zip(ours, theirs, strict=True):
            param.grad, other.grad = Tensor(param.detach().numpy() * 2), other.detach() * 2
        for optimizer in optimizers:
            optimizer.step()
    for optimizer in optimizers:
        optimizer.consolidate_state_dict(to=0)
    expected, found = (optimizer.state_dict() for optimizer in optimizers)
    assert found["state"].keys() == expected["state"].keys()
    for number, entry in expected["state"].items():
        assert found["state"][number].keys() == entry.keys()
        for name, value in entry.items():
            np.testing.assert_allclose(found["state"][number][name].numpy(), value.numpy(), rtol=1e-12)
    assert found["param_groups"][0]["params"] == expected["param_groups"][0]["params"]
    for param, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), other.detach().numpy(), rtol=1e-12)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"eps": 1e-3, "momentum": 0.3},
    {"momentum": None},
    {"momentum": 0.0},
    {"affine": False},
    {"bias": False},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False},
]


def test_running_statistics_move_in_training_only() -> None:
    layer = nn.BatchNorm2d(2, momentum=0.5)
    x = distgrad.tensor(np.arange(16.0, dtype=np.float32).reshape(2, 2, 2, 2))
    mean = x.numpy().mean((0, 2, 3))
    var = x.numpy().var((0, 2, 3), ddof=1)
    layer(x)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.5 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.5 + 0.5 * var, rtol=1e-5)
    assert layer.num_batches_tracked.item() == 1 and layer.num_batches_tracked.dtype == np.int64
    assert layer.num_batches_tracked.shape == ()
    before = {name: value.tolist() for name, value in layer.state_dict().items()}
    layer.eval()(x)
    assert {name: value.tolist() for name, value in layer.state_dict().items()} == before
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0, 0] and layer.running_var.tolist() == [1, 1]
    assert layer.num_batches_tracked.item() == 0


def test_without_gradients_it_still_learns_the_statistics() -> None:
    layer = nn.BatchNorm2d(2).requires_grad_(False)
    layer(distgrad.randn(4, 2, 3, 3) + 5)
    assert layer.running_mean.numpy().min() > 0.1


@pytest.mark.parametrize(
    ("kind", "right", "wrong"), [(nn.BatchNorm1d, "2D or 3D", 4), (nn.BatchNorm2d, "4D", 3), (nn.BatchNorm3d, "5D", 4)]
)
def test_dimensions_are_checked(kind: Any, right: str, wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"expected {right} input \(got {wrong}D input\)"):
        kind(2)(distgrad.ones(*[2] * wrong))


def test_one_value_per_channel_cannot_be_trained_on() -> None:
    layer = nn.BatchNorm2d(2)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer(distgrad.ones(1, 2, 1, 1))
    assert layer.eval()(distgrad.ones(1, 2, 1, 1)).shape == (1, 2, 1, 1)


def test_state_from_before_batches_were_counted() -> None:
    layer = nn.BatchNorm2d(2)
    state = {name: value for name, value in layer.state_dict().items() if name != "num_batches_tracked"}
    layer(distgrad.randn(2, 2, 2, 2))
    layer.load_state_dict(state)
    assert layer.num_batches_tracked.item() == 1


def test_dtype() -> None:
    layer = nn.BatchNorm2d(2, dtype=distgrad.float64)
    assert {str(value.dtype) for value in layer.state_dict().values()} == {"float64", "int64"}
    layer.half()
    assert layer.running_mean.dtype == np.float16 and layer.num_batches_tracked.dtype == np.int64


@pytest.mark.parity
@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("BatchNorm2d", (3, 4, 5, 2)),
        ("BatchNorm1d", (6, 4)),
        ("BatchNorm1d", (3, 4, 5)),
        ("BatchNorm3d", (2, 4, 2, 3, 1)),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_parity(
    against_torch: Callable[..., None], arguments: dict[str, Any], name: str, shape: tuple[int, ...], training: bool
) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(nn, name)(4, **arguments), getattr(torch.nn, name)(4, **arguments)
    against_torch(ours.train(training), theirs.train(training), shape, steps=3)


def test_a_second_backward_takes_its_own_gradient() -> None:
    layer, x = nn.BatchNorm2d(3), distgrad.randn(4, 3, 5, 6)
    x.requires_grad_()
    leaves, out, g = [x, *layer.parameters()], layer(x * 1), distgrad.randn(4, 3, 5, 6)
    first = distgrad.autograd.grad(out, leaves, g, retain_graph=True)
    assert distgrad.autograd.grad(out, leaves[2:], g, retain_graph=True)[0].tolist() == first[2].tolist()
    g.mul_(-2)  # the same array with other values: nothing that was found for the first may be taken for it
    for one, other in zip(distgrad.autograd.grad(out, leaves, g), first, strict=True):
        np.testing.assert_allclose(one.numpy(), -2 * other.numpy(), rtol=1e-5, atol=1e-5)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.nn import functional as F

CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("LayerNorm", (4,), {}, (3, 5, 4)),
    ("LayerNorm", ((5, 4),), {"eps": 0.1}, (3, 5, 4)),
    ("LayerNorm", ([4],), {"bias": False}, (4,)),
    ("LayerNorm", (4,), {"elementwise_affine": False}, (3, 4)),
    ("RMSNorm", (4,), {}, (3, 5, 4)),
    ("RMSNorm", ((5, 4),), {"eps": 0.1}, (3, 5, 4)),
    ("RMSNorm", (4,), {"elementwise_affine": False}, (3, 4)),
    ("GroupNorm", (2, 4), {}, (3, 4)),
    ("GroupNorm", (1, 4), {"eps": 0.1}, (3, 4, 5)),
    ("GroupNorm", (4, 4), {"affine": False}, (3, 4, 5, 2)),
    ("GroupNorm", (2, 4), {"bias": False}, (3, 4, 5, 2)),
    ("InstanceNorm1d", (4,), {}, (3, 4, 5)),
    ("InstanceNorm1d", (4,), {"affine": True}, (4, 5)),
    ("InstanceNorm2d", (4,), {"affine": True, "eps": 0.1}, (3, 4, 5, 2)),
    ("InstanceNorm2d", (4,), {"affine": True, "bias": False}, (4, 5, 2)),
    ("InstanceNorm2d", (4,), {"track_running_stats": True, "momentum": 0.3}, (3, 4, 5, 2)),
    ("InstanceNorm3d", (4,), {"track_running_stats": True, "affine": True}, (2, 4, 3, 2, 2)),
    ("InstanceNorm1d", (4,), {"track_running_stats": True, "momentum": None}, (3, 4, 5)),
    ("LocalResponseNorm", (2,), {}, (3, 4, 5)),
    ("LocalResponseNorm", (3,), {"alpha": 0.5, "beta": 0.5, "k": 2.0}, (3, 4, 5, 2)),
]


@pytest.mark.parity
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "sizes", "options", "shape"), CASES, ids=[f"{n}{s}{o}" for n, s, o, _ in CASES])
def test_parity(
    against_torch: Callable[..., None],
    name: str,
    sizes: tuple[Any, ...],
    options: dict[str, Any],
    shape: tuple[int, ...],
    training: bool,
) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(nn, name)(*sizes, **options), getattr(torch.nn, name)(*sizes, **options)
    against_torch(ours.train(training), theirs.train(training), shape, steps=2)


def test_initial_values_and_dtype() -> None:
    layer = nn.LayerNorm((2, 3), dtype=distgrad.float64)
    assert layer.weight.tolist() == [[1.0] * 3] * 2 and layer.bias.tolist() == [[0.0] * 3] * 2
    assert layer.weight.dtype == np.float64 and layer.normalized_shape == (2, 3)
    assert nn.GroupNorm(1, 2, device="cpu").weight.tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError, match="there is no device 'cuda'"):
        nn.RMSNorm(3, device="cuda")


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match=r"num_channels \(4\) must be divisible by num_groups \(3\)"):
        nn.GroupNorm(3, 4)


def test_instance_norm_checks_its_input() -> None:
    x = distgrad.randn(2, 4, 5)
    with pytest.raises(ValueError, match=r"expected 2D or 3D input \(got 4D input\)"):
        nn.InstanceNorm1d(4)(x.unsqueeze(0))
    with pytest.raises(ValueError, match=r"expected 3D or 4D input \(got 2D input\)"):
        nn.InstanceNorm2d(4)(x[0])
    with pytest.raises(ValueError, match=r"input's size at dim=1 to match num_features \(3\), but got: 4"):
        nn.InstanceNorm1d(3, affine=True)(x)
    with pytest.warns(UserWarning, match="size at dim=0 does not match num_features"):
        assert nn.InstanceNorm1d(3)(x[0]).shape == (4, 5)
    with pytest.raises(ValueError, match="Expected more than 1 spatial element when training"):
        nn.InstanceNorm1d(4)(x[:, :, :1])


@pytest.mark.parametrize(
    "normalize",
    [
        lambda x, w, b: F.layer_norm(x, (8,), w, b),
        lambda x, w, b: F.rms_norm(x, (8,), w),
        lambda x, w, b: F.group_norm(x, 2, w, b),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        lambda x, w, b: F.batch_norm(x, distgrad.zeros(8), distgrad.ones(8), w, b),
        lambda x, w, b: F.instance_norm(x.unsqueeze(2).expand(6, 8, 2), None, None, w, b),
    ],
    ids=["layer", "rms", "group", "batch", "batch in evaluation", "instance"],
)
@pytest.mark.parametrize("of_parameters", [np.float16, np.float32])
def test_half_precision_is_computed_in_single(normalize: Callable[..., Any], of_parameters: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(50, 60, (6, 8)).astype(np.float16)
    w, b = (rng.uniform(0.5, 2.0, 8).astype(np.float16).astype(of_parameters) for _ in range(2))
    half = [distgrad.tensor(v, requires_grad=True) for v in (x, w, b)]
    single = [distgrad.tensor(v.astype(np.float32), requires_grad=True) for v in (x, w, b)]
    out, exact = normalize(*half), normalize(*single)
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.detach().numpy(), exact.detach().numpy(), rtol=2e-3, atol=1e-4)
    g = distgrad.tensor(rng.standard_normal(tuple(out.shape)).astype(np.float16))
    out.backward(g)
    exact.backward(g.float())
    for mine, other in zip(half, single, strict=True):
        assert (mine.grad is None) == (other.grad is None)
        if mine.grad is not None:
            assert mine.grad.dtype == mine.dtype
            np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=4e-3, atol=4e-3)


def test_parameters_of_another_precision_are_refused() -> None:
    x = distgrad.randn(2, 4)
    with pytest.raises(RuntimeError, match="layer_norm: the weight is float64 and the input float32"):
        F.layer_norm(x, (4,), distgrad.ones(4, dtype=distgrad.float64))
    with pytest.raises(RuntimeError, match="group_norm: the bias is float16 and the input float32"):
        F.group_norm(x, 2, bias=distgrad.ones(4, dtype=distgrad.float16))


def test_statistics_that_move_later_do_not_change_a_gradient() -> None:
    """In evaluation the backward pass needs the running statistics of the forward pass."""
    layer = nn.BatchNorm1d(2).eval()
    x = distgrad.randn(4, 2, requires_grad=True)
    expected = distgrad.autograd.grad(layer(x).sum(), x)[0]
    out = layer(x)
    layer.running_var.fill_(9.0)
    assert distgrad.equal(distgrad.autograd.grad(out.sum(), x)[0], expected)

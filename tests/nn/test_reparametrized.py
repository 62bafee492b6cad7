"""Weights that are computed from other parameters before every forward pass."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.nn import utils


@pytest.mark.parametrize("dim", [0, 1, None, -1])
def test_weight_norm_keeps_the_values(dim: int | None) -> None:
    distgrad.manual_seed(0)
    layer = nn.Conv2d(2, 3, 2)
    x, before = distgrad.randn(1, 2, 4, 4), layer.weight.detach().clone()
    expected = layer(x)
    assert utils.weight_norm(layer, dim=dim) is layer
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight_g", "weight_v"]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    with distgrad.no_grad():
        layer.weight_g.mul_(2.0)
    layer(x).sum().backward()
    np.testing.assert_allclose(layer.weight.detach().numpy(), 2 * before.numpy(), rtol=1e-5)
    assert layer.weight_g.grad is not None and layer.weight_v.grad is not None
    utils.remove_weight_norm(layer)
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight"] and not layer._forward_pre_hooks
    np.testing.assert_allclose(layer.weight.detach().numpy(), 2 * before.numpy(), rtol=1e-5)


def test_spectral_norm_finds_the_largest_singular_value() -> None:
    distgrad.manual_seed(0)
    layer = utils.spectral_norm(nn.Linear(5, 4))
    x = distgrad.randn(2, 5)
    for _ in range(200):
        layer(x)
    largest = np.linalg.svd(layer.weight_orig.detach().numpy(), compute_uv=False)[0]
    np.testing.assert_allclose(layer.weight.detach().numpy() * largest, layer.weight_orig.detach().numpy(), rtol=1e-4)
    layer.eval()
    before = layer.weight_u.tolist()
    layer(x).sum().backward()
    assert layer.weight_u.tolist() == before and layer.weight_orig.grad is not None
    values = layer.weight.detach().numpy()
    utils.remove_spectral_norm(layer)
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight"] and not list(layer.buffers())
    np.testing.assert_allclose(layer.weight.detach().numpy(), values, rtol=1e-6)


def test_spectral_norm_of_a_transposed_convolution() -> None:
    layer = utils.spectral_norm(nn.ConvTranspose2d(2, 3, 2), n_power_iterations=50)
    layer(distgrad.randn(1, 2, 4, 4))
    matrix = layer.weight.detach().numpy().swapaxes(0, 1).reshape(3, -1)
    assert np.linalg.svd(matrix, compute_uv=False)[0] == pytest.approx(1.0, rel=1e-4)


def test_what_is_refused() -> None:
    layer = utils.weight_norm(utils.spectral_norm(nn.Linear(2, 3)), "bias")
    with pytest.raises(RuntimeError, match="Cannot register two weight_norm hooks on the same parameter bias"):
        utils.weight_norm(layer, "bias")
    with pytest.raises(RuntimeError, match="Cannot register two spectral_norm hooks on the same parameter weight"):
        utils.spectral_norm(layer)
    with pytest.raises(ValueError, match="weight_norm of 'weight' not found in Linear"):
        utils.remove_weight_norm(layer)
    with pytest.raises(ValueError, match="spectral_norm of 'weight' not found in Linear"):
        utils.remove_spectral_norm(nn.Linear(2, 3))
    with pytest.raises(ValueError, match="Expected n_power_iterations to be positive"):
        utils.spectral_norm(nn.Linear(2, 3), n_power_iterations=0)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_is_pytorchs(dim: int | None) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = utils.weight_norm(nn.Linear(3, 4).double(), dim=dim), torch.nn.Linear(3, 4).double()
    theirs = torch.nn.utils.weight_norm(theirs, dim=dim)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() * 1.5 for name, value in theirs.state_dict().items()})
    theirs.load_state_dict({name: value * 1.5 for name, value in theirs.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 3))
    out, expected = ours(distgrad.tensor(x)), theirs(torch.tensor(x))
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parity
def test_spectral_norm_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = (library.nn.utils.spectral_norm(library.nn.Linear(3, 4).double()) for library in (distgrad, torch))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 3))
    for _ in range(3):
        out, expected = ours(distgrad.tensor(x)), theirs(torch.tensor(x))
        np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-11)
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-10, atol=1e-13)
    for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-11)

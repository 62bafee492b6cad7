from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import distgrad
from distgrad import nn

LAYERS = {
    nn.Dropout: (100, 100),
    nn.Dropout1d: (100, 100, 2),
    nn.Dropout2d: (100, 100, 2, 1),
    nn.Dropout3d: (100, 100, 1, 2, 1),
    nn.AlphaDropout: (100, 100),
    nn.FeatureAlphaDropout: (100, 100, 2),
}
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)


@every_layer
def test_it_drops_in_training_only(layer: type[nn.Module]) -> None:
    distgrad.manual_seed(0)
    module, x = layer(0.25), distgrad.ones(LAYERS[layer], requires_grad=True)
    out = module(x)
    values = np.unique(out.detach().numpy())
    assert len(values) == 2
    first = out.detach().numpy().reshape(100, 100, -1)[..., 0]
    assert abs((first == values[0]).mean() - 0.25) < 0.03
    if "Alpha" not in layer.__name__:
        assert values.tolist() == [0.0, pytest.approx(1 / 0.75)]
        out.sum().backward()
        assert x.grad is not None and x.grad.tolist() == out.tolist()
    assert module.eval()(x) is x
    distgrad.manual_seed(0)
    assert module.train()(x).tolist() == out.tolist()


@every_layer
def test_in_place(layer: type[nn.Module]) -> None:
    leaf = distgrad.ones(LAYERS[layer], requires_grad=True)
    x = leaf * 1.0
    out = layer(0.5, inplace=True)(x)
    assert out is x and 0 < (x < 0.5).sum().item() < x.numel()
    out.sum().backward()
    assert leaf.grad is not None and (leaf.grad == 0).sum().item() == (x < 0.5).sum().item()


@every_layer
def test_bad_probability(layer: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"has to be between 0 and 1, but got 1.5"):
        layer(1.5)


@every_layer
def test_repr(layer: type[nn.Module]) -> None:
    assert repr(layer(0.3, inplace=True)) == f"{layer.__name__}(p=0.3, inplace=True)"


@pytest.mark.parity
@every_layer
def test_parity(layer: type[nn.Module], against_torch: Callable[..., None]) -> None:
    torch = pytest.importorskip("torch")
    theirs, shape = getattr(torch.nn, layer.__name__), (2, 3, *LAYERS[layer][2:])
    against_torch(layer(0.3).eval(), theirs(0.3).eval(), shape)
    against_torch(layer(1.0), theirs(1.0), shape)
    against_torch(layer(0.0, inplace=True), theirs(0.0, inplace=True), shape)
    assert repr(layer(0.2)) == repr(theirs(0.2))

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import distgrad
from distgrad import nn


def test_it_drops_in_training_only() -> None:
    distgrad.manual_seed(0)
    layer, x = nn.Dropout(0.25), distgrad.ones(100, 100, requires_grad=True)
    out = layer(x)
    assert set(np.unique(out.detach().numpy())) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(out.mean().item() - 1) < 0.03
    out.sum().backward()
    assert x.grad is not None and x.grad.tolist() == out.tolist()
    assert layer.eval()(x) is x
    distgrad.manual_seed(0)
    assert layer.train()(x).tolist() == out.tolist()


def test_in_place() -> None:
    leaf = distgrad.ones(1000, requires_grad=True)
    x = leaf * 1.0
    out = nn.Dropout(0.5, inplace=True)(x)
    assert out is x and 0 < (x == 0).sum().item() < 1000
    out.sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == x.tolist()


def test_bad_probability() -> None:
    with pytest.raises(ValueError, match=r"has to be between 0 and 1, but got 1.5"):
        nn.Dropout(1.5)


@pytest.mark.parity
def test_parity(against_torch: Callable[..., None]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(nn.Dropout(0.3).eval(), torch.nn.Dropout(0.3).eval(), (2, 3))
    against_torch(nn.Dropout(1.0), torch.nn.Dropout(1.0), (2, 3))
    against_torch(nn.Dropout(0.0, inplace=True), torch.nn.Dropout(0.0, inplace=True), (2, 3))

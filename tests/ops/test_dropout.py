"""Dropout: how much is dropped, of what, and what the rest is scaled by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import gradcheck, gradgradcheck
from distgrad.nn import functional as F

N = 20_000


def test_elements() -> None:
    x = dg.ones(N, dtype=dg.float64, requires_grad=True)
    y = F.dropout(x, 0.25, generator=dg.Generator(0))
    kept = y.detach().numpy() != 0
    assert kept.mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / N))
    assert np.unique(y.tolist()).tolist() == [0.0, pytest.approx(4 / 3)]
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert not F.dropout(x, 1.0).detach().numpy().any()


@pytest.mark.parametrize("dtype", [dg.float16, dg.float32, dg.float64])
@pytest.mark.parametrize("name", ["dropout", "alpha_dropout"])
def test_the_dtype_stays(name: str, dtype: Any) -> None:
    x = dg.ones((2, 3), dtype=dtype, requires_grad=True)
    y = getattr(F, name)(x, 0.5, True)
    assert y.dtype == dtype
    assert dg.autograd.grad(y.sum(), x)[0].dtype == dtype


# name, shape, the shape of what shares one draw
CHANNELS: list[tuple[str, tuple[int, ...], int]] = [
    ("dropout1d", (40, 50, 3), 2),
    ("dropout1d", (2000, 3), 1),
    ("dropout2d", (40, 50, 3, 2), 2),
    ("dropout3d", (40, 50, 2, 1, 3), 2),
    ("dropout3d", (2000, 2, 1, 3), 1),
    ("feature_alpha_dropout", (40, 50, 3), 2),
]


@pytest.mark.parametrize(("name", "shape", "lead"), CHANNELS)
def test_channels_are_dropped_as_a_whole(name: str, shape: tuple[int, ...], lead: int) -> None:
    y = getattr(F, name)(dg.ones(shape), 0.3, True, generator=dg.Generator(1)).numpy()
    channels = y.reshape(2000, -1)
    assert y.shape == shape
    assert (channels == channels[:, :1]).all()
    low, high = sorted(set(channels[:, 0].tolist()))
    assert (channels[:, 0] == low).mean() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 2000))
    if name != "feature_alpha_dropout":
        assert (low, high) == (0.0, pytest.approx(1 / 0.7))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(p: float) -> None:
    x = dg.randn(10 * N, generator=dg.Generator(0), dtype=dg.float64)
    y = F.alpha_dropout(x, p, True, generator=dg.Generator(1))
    assert y.mean().item() == pytest.approx(0.0, abs=0.03)
    assert y.var().item() == pytest.approx(1.0, abs=0.05)
    assert F.alpha_dropout(x, p) is x  # as in PyTorch it is off unless asked for


@pytest.mark.parity
@pytest.mark.parametrize("name", ["alpha_dropout", "feature_alpha_dropout"])
def test_values_of_alpha_dropout(name: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for t, functional in ((dg, F), (torch, torch.nn.functional)):
        y = getattr(functional, name)(t.full((50, 40), 1.5, dtype=t.float64), 0.3, True)
        found.append(sorted(set(np.round(y.numpy().flatten(), 12).tolist())))
    assert len(found[0]) == 2 and found[0] == pytest.approx(found[1], abs=1e-11)


def test_derivatives() -> None:
    x = dg.tensor(np.random.default_rng(0).standard_normal((4, 3, 2)), requires_grad=True)
    for function in (F.dropout, F.dropout1d, F.alpha_dropout, F.feature_alpha_dropout):

        def dropped(v: Any, function: Any = function) -> Any:
            return function(v * v, 0.5, True, generator=dg.Generator(2))

        assert gradcheck(dropped, [x])
        assert gradgradcheck(dropped, [x])


@pytest.mark.parametrize("name", ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"])
def test_in_place(name: str) -> None:
    shape = {"dropout1d": (4, 3), "dropout3d": (4, 2, 3, 2)}.get(name, (4, 3, 2, 2))
    leaf = dg.ones(shape, requires_grad=True)
    x = leaf * 2.0
    expected = getattr(F, name)(x, 0.5, True, generator=dg.Generator(3))
    out = getattr(F, name)(x, 0.5, True, True, generator=dg.Generator(3))
    assert out is x and x.tolist() == expected.tolist()
    first = dg.autograd.grad(expected.sum(), leaf, retain_graph=True)[0]
    assert dg.autograd.grad(x.sum(), leaf)[0].tolist() == first.tolist()


def test_infinity_that_is_dropped_is_nan() -> None:
    y = F.dropout(dg.full((100,), math.inf), 0.5)
    assert set(np.isnan(y.numpy()).tolist()) == {True, False}


def test_other_dimensions_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="assuming that channel-wise 1D dropout behavior is desired"):
        F.dropout2d(dg.ones(2, 3, 4))
    with pytest.warns(UserWarning, match="Received a 2-D input to dropout2d, which is deprecated"):
        F.dropout2d(dg.ones(2, 3))
    with pytest.warns(UserWarning, match="Received a 3-D input to dropout3d, which is deprecated"):
        F.dropout3d(dg.ones(2, 3, 4))
    with pytest.raises(RuntimeError, match="Expected 2D or 3D input, but received a 4D input"):
        F.dropout1d(dg.ones(2, 3, 4, 5))

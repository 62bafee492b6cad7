"""Random tensors: the same seed gives the same numbers, and the numbers are distributed as they say."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as dg
from distgrad.ops.random import dropout

N = 20_000


def test_the_seed_decides() -> None:
    dg.manual_seed(7)
    a = [dg.rand(3).tolist(), dg.randn(3).tolist(), dg.randperm(9).tolist(), dg.randint(0, 9, (5,)).tolist()]
    assert dg.manual_seed(7).initial_seed() == 7
    b = [dg.rand(3).tolist(), dg.randn(3).tolist(), dg.randperm(9).tolist(), dg.randint(0, 9, (5,)).tolist()]
    assert a == b
    dg.manual_seed(8)
    assert dg.rand(3).tolist() != a[0]


def test_generators_are_streams_of_their_own() -> None:
    dg.manual_seed(1)
    expected = dg.rand(4).tolist()
    dg.manual_seed(1)
    g = dg.Generator(5)
    g.manual_seed(5)
    first = dg.rand(4, generator=g).tolist()
    assert dg.rand(4).tolist() == expected
    assert dg.rand(4, generator=dg.Generator(5)).tolist() == first


def test_a_state_is_continued() -> None:
    g = dg.Generator(3)
    dg.randn(7, generator=g)
    state = g.get_state()
    after = dg.randn(5, generator=g).tolist()
    other = dg.Generator(0).set_state(state)
    assert other.initial_seed() == 3
    assert dg.randn(5, generator=other).tolist() == after


@pytest.mark.parametrize("dtype", [dg.float32, dg.float64])
def test_distributions(dtype: np.dtype) -> None:
    g = dg.Generator(0)
    u, z = dg.rand(N, generator=g, dtype=dtype), dg.randn(N, generator=g, dtype=dtype)
    assert u.dtype == z.dtype == dtype
    assert (u >= 0).all()
    assert (u < 1).all()
    assert u.mean().item() == pytest.approx(0.5, abs=5 / np.sqrt(12 * N))
    assert z.mean().item() == pytest.approx(0.0, abs=5 / np.sqrt(N))
    assert z.std().item() == pytest.approx(1.0, abs=5 / np.sqrt(2 * N))


def test_integers() -> None:
    g = dg.Generator(0)
    x = dg.randint(-2, 3, (N,), generator=g)
    assert x.dtype == dg.int64
    counts = np.bincount(x.numpy() + 2)
    assert len(counts) == 5
    assert np.abs(counts - N / 5).max() < 5 * np.sqrt(N * 0.16)
    assert sorted(dg.randperm(50, generator=g).tolist()) == list(range(50))
    assert dg.randperm(0).shape == (0,)


def test_shapes_and_gradients() -> None:
    assert dg.rand(2, 3).shape == dg.rand((2, 3)).shape == (2, 3)
    assert dg.randn(()).shape == ()
    assert dg.rand((5, 5), requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match="negative dimension"):
        dg.rand(-1)


def test_dropout() -> None:
    g = dg.Generator(0)
    x = dg.ones(N, dtype=dg.float64, requires_grad=True)
    y = dropout(x, 0.25, generator=g)
    kept = y.detach().numpy() != 0
    assert kept.mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / N))
    assert np.unique(y.tolist()).tolist() == [0.0, pytest.approx(4 / 3)]
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x
    assert not dropout(x, 1.0).detach().numpy().any()
    with pytest.raises(ValueError, match=r"between 0 and 1, but got 1.5"):
        dropout(x, 1.5)

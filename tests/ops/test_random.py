"""Random tensors: the same seed gives the same numbers, and the numbers are distributed as they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.ops.random import replace_default

N = 20_000


# Streams -------------------------------------------------------------------------------------------------------------


def test_the_seed_decides() -> None:
    dg.manual_seed(7)
    a = [dg.rand(3).tolist(), dg.randn(3).tolist(), dg.randperm(9).tolist(), dg.randint(0, 9, (5,)).tolist()]
    assert dg.manual_seed(7).initial_seed() == dg.initial_seed() == 7
    b = [dg.rand(3).tolist(), dg.randn(3).tolist(), dg.randperm(9).tolist(), dg.randint(0, 9, (5,)).tolist()]
    assert a == b
    dg.manual_seed(8)
    assert dg.rand(3).tolist() != a[0]


def test_generators_are_streams_of_their_own() -> None:
    dg.manual_seed(1)
    expected = dg.rand(4).tolist()
    dg.manual_seed(1)
    g = dg.Generator(device="cpu")
    g.manual_seed(5)
    first = dg.rand(4, generator=g).tolist()
    assert dg.rand(4).tolist() == expected
    assert dg.rand(4, generator=dg.Generator().manual_seed(5)).tolist() == first
    assert dg.rand(4, generator=dg.Generator(5)).tolist() == first
    assert dg.rand(4, generator=dg.Generator()).tolist() == dg.rand(4, generator=dg.Generator()).tolist()
    assert str(g.device) == "cpu"
    with pytest.raises(TypeError, match="'generator' must be Generator, not int"):
        dg.rand(4, generator=5)
    with pytest.raises(RuntimeError, match="there is no device 'cuda'"):
        dg.Generator("cuda")


def test_seeds() -> None:
    g = dg.Generator()
    assert g.manual_seed(-1).initial_seed() == 2**64 - 1
    assert dg.rand(2, generator=g).tolist() == dg.rand(2, generator=dg.Generator(2**64 - 1)).tolist()
    seed = g.seed()
    assert g.initial_seed() == seed != g.seed() and 0 <= seed < 2**64
    for wrong in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match="has to fit into 64 bits"):
            g.manual_seed(wrong)
    assert dg.seed() == dg.initial_seed()


@pytest.mark.parametrize("draw", [lambda g: dg.randn(5, generator=g), lambda g: dg.randint(9, (5,), generator=g)])
def test_a_state_is_continued(draw: Callable[[Any], dg.Tensor]) -> None:
    g = dg.Generator(3)
    dg.randn(7, generator=g)
    dg.randint(9, (3,), generator=g, dtype=dg.int32)
    state = g.get_state()
    assert state.dtype == dg.uint8 and state.ndim == 1
    after = draw(g).tolist()
    for saved in (state, state.numpy(), state.clone()):
        other = dg.Generator(0).set_state(saved)
        assert other.initial_seed() == 3
        assert draw(other).tolist() == after
    assert draw(dg.Generator(0).set_state(state).clone_state()).tolist() == after


def test_the_state_of_the_default_generator() -> None:
    state = dg.get_rng_state()
    first = dg.rand(3).tolist()
    dg.set_rng_state(state)
    assert dg.rand(3).tolist() == first


def test_wrong_states() -> None:
    g = dg.Generator()
    with pytest.raises(TypeError, match=r"expected a torch\.ByteTensor, but got int"):
        g.set_state(3)
    with pytest.raises(TypeError, match=r"must be a torch\.ByteTensor, not float32"):
        g.set_state(dg.zeros(3))
    with pytest.raises(RuntimeError, match="found the input RNG state size to be 3"):
        g.set_state(dg.zeros(3, dtype=dg.uint8))


# Draws ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [dg.float16, dg.float32, dg.float64])
def test_distributions(dtype: np.dtype) -> None:
    g = dg.Generator(0)
    u, z = dg.rand(N, generator=g, dtype=dtype), dg.randn(N, generator=g, dtype=dtype)
    assert u.dtype == z.dtype == dtype
    u, z = u.double(), z.double()
    assert (u >= 0).all()
    assert (u < 1).all()
    assert u.mean().item() == pytest.approx(0.5, abs=5 / np.sqrt(12 * N))
    assert z.mean().item() == pytest.approx(0.0, abs=5 / np.sqrt(N))
    assert z.std().item() == pytest.approx(1.0, abs=5 / np.sqrt(2 * N))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float16", "float32"])
def test_integers(dtype: str) -> None:
    low = 0 if dtype == "uint8" else -2
    x = dg.randint(low, low + 5, (N,), generator=dg.Generator(0), dtype=np.dtype(dtype))
    assert x.dtype == dtype
    counts = np.bincount(x.numpy().astype(int) - low)
    assert len(counts) == 5
    assert np.abs(counts - N / 5).max() < 5 * np.sqrt(N * 0.16)


def test_signatures_of_randint() -> None:
    for x in (
        dg.randint(3, (2, 4)),
        dg.randint(0, 3, (2, 4)),
        dg.randint(0, 3, size=[2, 4]),
        dg.randint(high=3, size=(2, 4)),
        dg.randint(low=0, high=3, size=(2, 4)),
        dg.randint(0, high=3, size=(2, 4)),
        dg.randint(dg.tensor(3), (2, 4)),
    ):
        assert x.shape == (2, 4) and x.dtype == dg.int64 and set(x.flatten().tolist()) <= {0, 1, 2}
    assert dg.randint(2, (5,), dtype=dg.bool).dtype == dg.bool
    like = dg.randint_like(dg.zeros(3, 2), 5)
    assert like.shape == (3, 2) and like.dtype == dg.float32
    assert dg.randint_like(dg.zeros(3), low=4, high=5, dtype=dg.int32).tolist() == [4, 4, 4]


def test_wrong_integers() -> None:
    with pytest.raises(RuntimeError, match="expects 'from' to be less than 'to', but got from=3 >= to=3"):
        dg.randint(3, 3, (2,))
    with pytest.raises(RuntimeError, match="to - 1 is out of bounds for uint8"):
        dg.randint(0, 300, (2,), dtype=dg.uint8)
    with pytest.raises(RuntimeError, match="from is out of bounds for uint8"):
        dg.randint(-1, 3, (2,), dtype=dg.uint8)
    with pytest.raises(TypeError, match="needs `high`"):
        dg.randint(size=(2,))
    with pytest.raises(TypeError, match=r"takes \(high, size\)"):
        dg.randint(3)
    with pytest.raises(TypeError, match="float"):
        dg.randint(0, 5.5, (2,))


def test_permutations() -> None:
    g = dg.Generator(0)
    assert sorted(dg.randperm(50, generator=g).tolist()) == list(range(50))
    assert dg.randperm(0).shape == (0,)
    assert dg.randperm(4, dtype=dg.float32).dtype == dg.float32
    firsts = [dg.randperm(3, generator=g)[0].item() for _ in range(3000)]
    assert np.abs(np.bincount(firsts) - 1000).max() < 5 * np.sqrt(3000 * 2 / 9)
    with pytest.raises(RuntimeError, match="negative dimension -1"):
        dg.randperm(-1)
    with pytest.raises(RuntimeError, match="cannot be converted to type int8 without overflow"):
        dg.randperm(300, dtype=dg.int8)
    with pytest.raises(TypeError, match="float"):
        dg.randperm(4.0)


def test_shapes_and_gradients() -> None:
    for draw in (dg.rand, dg.randn):
        assert draw(2, 3).shape == draw((2, 3)).shape == draw(size=(2, 3)).shape == (2, 3)
        assert draw(()).shape == ()
        assert draw((5, 5), requires_grad=True).requires_grad
        assert draw(2, device="cpu").dtype == dg.float32
        with pytest.raises(RuntimeError, match="negative dimension"):
            draw(-1)
        with pytest.raises(RuntimeError, match="computes on the cpu"):
            draw(2, device="cuda:0")
        with pytest.raises(NotImplementedError, match="not implemented for int64"):
            draw(2, dtype=dg.int64)
    x = dg.zeros((2, 3), dtype=dg.float64)
    for like in (dg.rand_like, dg.randn_like):
        assert like(x).shape == (2, 3) and like(x).dtype == dg.float64
        assert like(x, dtype=dg.float32, requires_grad=True).requires_grad
        assert like(x, generator=dg.Generator(1)).tolist() == like(x, generator=dg.Generator(1)).tolist()
        with pytest.raises(NotImplementedError, match="not implemented for int64"):
            like(x.long())


def test_streams_with_a_key_are_apart_and_repeatable() -> None:
    first, again, other = (dg.Generator.keyed([1, 2], index, seed=7) for index in (0, 0, 1))
    assert first.initial_seed() == 7
    drawn = dg.rand(1000, generator=first)
    assert (drawn == dg.rand(1000, generator=again)).all()
    assert not (drawn == dg.rand(1000, generator=other)).any()
    continued = dg.Generator().set_state(first.get_state())
    assert (dg.rand(3, generator=continued) == dg.rand(3, generator=first)).all()


def test_a_thread_may_have_a_default_generator_of_its_own() -> None:
    dg.manual_seed(3)
    expected = dg.rand(4)
    dg.manual_seed(3)
    before = replace_default(dg.Generator(11))
    try:
        assert (dg.rand(4) == dg.rand(4, generator=dg.Generator(11))).all()
        dg.manual_seed(12)  # of the one in its place
        assert dg.initial_seed() == 12
        assert (dg.nn.functional.dropout(dg.ones(50)) != 1).any()
    finally:
        assert replace_default(before) is not None
    assert (dg.rand(4) == expected).all()

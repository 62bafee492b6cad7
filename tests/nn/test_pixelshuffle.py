from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import distgrad
from distgrad import nn


def test_unshuffle_undoes_shuffle() -> None:
    x = distgrad.rand(2, 18, 2, 3)
    shuffled = nn.PixelShuffle(3)(x)
    assert shuffled.shape == (2, 2, 6, 9)
    np.testing.assert_array_equal(nn.PixelUnshuffle(3)(shuffled).numpy(), x.numpy())
    np.testing.assert_array_equal(nn.ChannelShuffle(3)(nn.ChannelShuffle(6)(x)).numpy(), x.numpy())


@pytest.mark.parametrize("factor", [1, 2])
def test_the_result_is_a_copy(factor: int) -> None:
    x = distgrad.zeros(4, 1, 1)
    nn.PixelShuffle(factor)(x).add_(1)
    nn.PixelUnshuffle(1)(x).add_(1)
    assert x.sum().item() == 0


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "argument", "shape"),
    [("PixelShuffle", 2, (2, 8, 2, 3)), ("PixelUnshuffle", 2, (2, 4, 6)), ("ChannelShuffle", 2, (2, 6, 2, 2))],
)
def test_parity(against_torch: Callable[..., None], name: str, argument: int, shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(getattr(nn, name)(argument), getattr(torch.nn, name)(argument), shape)

from __future__ import annotations

from collections.abc import Callable

import pytest

import distgrad
from distgrad import nn


def test_flatten() -> None:
    x = distgrad.randn(2, 3, 4, 5)
    assert nn.Flatten()(x).shape == (2, 60) and nn.Flatten(0, 1)(x).shape == (6, 4, 5)
    assert repr(nn.Flatten(0, 1)) == "Flatten(start_dim=0, end_dim=1)"


def test_unflatten_refuses_other_sizes() -> None:
    with pytest.raises(TypeError, match="unflattened_size must be a tuple of ints, but found type int"):
        nn.Unflatten(1, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="but found element of type float at pos 1"):
        nn.Unflatten(1, (2, 3.0))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="don't multiply up to the size of dim 1"):
        nn.Unflatten(1, (2, 3))(distgrad.ones(2, 7))


@pytest.mark.parity
@pytest.mark.parametrize("arguments", [(), (0,), (1, 2), (-2,)])
def test_flatten_parity(against_torch: Callable[..., None], arguments: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(nn.Flatten(*arguments), torch.nn.Flatten(*arguments), (2, 3, 4, 5))


@pytest.mark.parity
@pytest.mark.parametrize(("dim", "sizes"), [(1, (2, 3)), (-1, (3, -1)), (1, [6, 1])])
def test_unflatten_parity(against_torch: Callable[..., None], dim: int, sizes: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    against_torch(nn.Unflatten(dim, sizes), torch.nn.Unflatten(dim, sizes), (4, 6))

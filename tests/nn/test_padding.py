from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import distgrad
from distgrad import nn

SHAPES = {1: ((2, 3, 5), (3, 5)), 2: ((2, 3, 5, 4), (3, 5, 4)), 3: ((2, 2, 3, 5, 4), (2, 3, 5, 4))}
WIDTHS: dict[int, tuple[Any, ...]] = {1: (2, (1, 2)), 2: (1, (2, 1, 0, 3)), 3: (1, (0, 1, 2, 0, 1, 2))}
EACH_DIMENSION = pytest.mark.parametrize("dims", [1, 2, 3])


@pytest.mark.parity
@EACH_DIMENSION
@pytest.mark.parametrize("name", ["ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad", "ConstantPad"])
def test_parity(against_torch: Callable[..., None], name: str, dims: int) -> None:
    torch = pytest.importorskip("torch")
    value = (-1.5,) if name == "ConstantPad" else ()
    for padding in WIDTHS[dims]:
        for shape in SHAPES[dims]:
            ours, theirs = (getattr(library, f"{name}{dims}d")(padding, *value) for library in (nn, torch.nn))
            against_torch(ours, theirs, shape)


def test_negative_widths_cut() -> None:
    x = distgrad.arange(6).reshape(1, 2, 3)
    assert nn.ConstantPad1d((-1, 1), 7)(x).tolist() == [[[1, 2, 7], [4, 5, 7]]]
    assert nn.ZeroPad2d((-1, 0, 0, -1))(x).tolist() == [[[1, 2]]]


def test_a_circular_pad_knows_its_dimensions() -> None:
    with pytest.raises(ValueError, match=r"expected 2D or 3D input \(got 4D input\)"):
        nn.CircularPad1d(1)(distgrad.zeros(1, 1, 3, 3))

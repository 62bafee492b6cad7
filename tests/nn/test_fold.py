from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn


def test_fold_adds_what_unfold_copied() -> None:
    x = distgrad.rand(2, 3, 5, 6)
    window: dict[str, Any] = {"kernel_size": (2, 3), "padding": 1, "stride": (1, 2)}
    fold, unfold = nn.Fold((5, 6), **window), nn.Unfold(**window)
    covered = fold(unfold(distgrad.ones(2, 3, 5, 6)))
    np.testing.assert_allclose(fold(unfold(x)).numpy(), (x * covered).numpy(), rtol=1e-6)


def test_a_convolution_is_a_product_with_unfolded_windows() -> None:
    layer, x = nn.Conv2d(3, 4, (2, 3), stride=2, padding=1), distgrad.rand(2, 3, 5, 6)
    columns = nn.Unfold((2, 3), stride=2, padding=1)(x)
    out = layer.weight.reshape(4, -1) @ columns + layer.bias.reshape(4, 1)
    np.testing.assert_allclose(
        out.reshape(2, 4, 3, 3).detach().numpy(), layer(x).detach().numpy(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Unfold", {"kernel_size": 2}, (2, 3, 4, 5)),
        ("Unfold", {"kernel_size": (2, 3), "dilation": 2, "padding": (0, 1), "stride": 2}, (3, 5, 6)),
        ("Fold", {"output_size": 4, "kernel_size": 2}, (2, 8, 9)),
        ("Fold", {"output_size": (4, 5), "kernel_size": 3, "padding": 1, "stride": (2, 1)}, (9, 10)),
    ],
)
def test_parity(
    against_torch: Callable[..., None], name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch")
    against_torch(getattr(nn, name)(**arguments), getattr(torch.nn, name)(**arguments), shape)

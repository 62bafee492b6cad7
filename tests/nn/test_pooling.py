from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import distgrad
from distgrad import nn


def test_the_stride_is_the_window_by_default() -> None:
    assert nn.MaxPool2d(3).stride == 3 and nn.AvgPool2d((2, 3)).stride == (2, 3)
    assert nn.MaxPool2d(2)(distgrad.ones(1, 1, 4, 6)).shape == (1, 1, 2, 3)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("MaxPool2d", {"kernel_size": (2, 3), "dilation": 2}),
        ("MaxPool2d", {"kernel_size": 2, "ceil_mode": True}),
        ("AvgPool2d", {"kernel_size": 2}),
        ("AvgPool2d", {"kernel_size": 3, "stride": (1, 2), "padding": 1, "count_include_pad": False}),
        ("AvgPool2d", {"kernel_size": 2, "ceil_mode": True}),
        ("AdaptiveAvgPool2d", {"output_size": 1}),
        ("AdaptiveAvgPool2d", {"output_size": (1, 1)}),
        ("AdaptiveAvgPool2d", {"output_size": (None, 3)}),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (3, 7, 9)])
def test_parity(
    against_torch: Callable[..., None], name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch")
    against_torch(getattr(nn, name)(**arguments), getattr(torch.nn, name)(**arguments), shape)

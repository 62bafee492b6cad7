from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn


def test_the_stride_is_the_window_by_default() -> None:
    assert nn.MaxPool2d(3).stride == 3 and nn.AvgPool2d((2, 3)).stride == (2, 3)
    assert nn.AvgPool1d(3).stride == (3,) and nn.MaxUnpool2d(2).stride == (2, 2)
    assert nn.MaxPool2d(2)(distgrad.ones(1, 1, 4, 6)).shape == (1, 1, 2, 3)


@pytest.mark.parametrize("name", ["MaxPool1d", "MaxPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d"])
def test_indices(name: str) -> None:
    x = distgrad.randn(2, 3, 6, 8) if name.endswith("2d") else distgrad.randn(2, 3, 8)
    values, indices = getattr(nn, name)(2, return_indices=True)(x)
    assert indices.dtype == np.int64 and indices.shape == values.shape and not indices.requires_grad
    flat = x.reshape(2, 3, -1).numpy()
    chosen = np.take_along_axis(flat, indices.numpy().reshape(2, 3, -1), 2)
    np.testing.assert_array_equal(chosen.reshape(values.shape), values.numpy())
    np.testing.assert_array_equal(getattr(nn, name)(2)(x).numpy(), values.numpy())


@pytest.mark.parametrize(("dims", "size"), [(1, (7,)), (2, (5, 7))])
def test_unpooling_undoes_pooling(dims: int, size: tuple[int, ...]) -> None:
    pool, unpool = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True), getattr(nn, f"MaxUnpool{dims}d")(2)
    x = distgrad.rand(2, 3, *size) + 0.1
    values, indices = pool(x)
    back = unpool(values, indices, output_size=x.shape)
    assert back.shape == x.shape
    np.testing.assert_array_equal(pool(back)[0].numpy(), values.numpy())
    np.testing.assert_array_equal(back.numpy(), np.where(np.isin(x.numpy(), values.numpy()), x.numpy(), 0))
    even = distgrad.rand(2, 3, *(n - 1 for n in size))
    assert unpool(*pool(even)).shape == even.shape


IMAGES: list[tuple[str, dict[str, Any]]] = [
    ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("MaxPool2d", {"kernel_size": (2, 3), "dilation": 2}),
    ("MaxPool2d", {"kernel_size": 2, "ceil_mode": True}),
    ("AvgPool2d", {"kernel_size": 2}),
    ("AvgPool2d", {"kernel_size": 3, "stride": (1, 2), "padding": 1, "count_include_pad": False}),
    ("AvgPool2d", {"kernel_size": 2, "ceil_mode": True}),
    ("AvgPool2d", {"kernel_size": 2, "divisor_override": 3}),
    ("AdaptiveAvgPool2d", {"output_size": 1}),
    ("AdaptiveAvgPool2d", {"output_size": (1, 1)}),
    ("AdaptiveAvgPool2d", {"output_size": (None, 3)}),
    ("AdaptiveMaxPool2d", {"output_size": (4, None)}),
    ("LPPool2d", {"norm_type": 2, "kernel_size": 2, "stride": (1, 2)}),
]
LINES: list[tuple[str, dict[str, Any]]] = [
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("AvgPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ("AvgPool1d", {"kernel_size": (2,), "ceil_mode": True}),
    ("AdaptiveAvgPool1d", {"output_size": 4}),
    ("AdaptiveMaxPool1d", {"output_size": 4}),
    ("LPPool1d", {"norm_type": 2, "kernel_size": 3, "ceil_mode": True}),
]


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        *((*layer, shape) for layer in IMAGES for shape in ((2, 3, 7, 9), (3, 7, 9))),
        *((*layer, shape) for layer in LINES for shape in ((2, 3, 9), (3, 9))),
    ],
)
def test_parity(
    against_torch: Callable[..., None], name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch")
    against_torch(getattr(nn, name)(**arguments), getattr(torch.nn, name)(**arguments), shape)


@pytest.mark.parity
def test_signatures_and_texts() -> None:
    torch = pytest.importorskip("torch")
    for arguments in ((3, 2, 1, 1, True, True), (2, None, 0, 2, False, True)):
        ours, theirs = nn.MaxPool2d(*arguments), torch.nn.MaxPool2d(*arguments)
        assert ours.return_indices == theirs.return_indices and repr(ours) == repr(theirs)
    for name in ("MaxUnpool1d", "MaxUnpool2d"):
        assert repr(getattr(nn, name)(2, 3, 1)) == repr(getattr(torch.nn, name)(2, 3, 1))

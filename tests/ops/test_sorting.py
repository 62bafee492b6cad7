"""Order and counts: at ties and NaN, in every dtype, and of many elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import distgrad as dg

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("descending", [False, True])
def test_equal_elements_keep_their_order(descending: bool) -> None:
    values = np.random.default_rng(0).integers(0, 5, 200)
    expected = sorted(range(200), key=lambda i: values[i], reverse=descending)
    for dtype in (dg.uint8, dg.int64, dg.float16, dg.float32):
        x = dg.tensor(values).to(dtype)
        assert x.argsort(descending=descending).tolist() == x.sort(0, descending).indices.tolist() == expected


def test_nan_is_larger_than_everything() -> None:
    x = dg.tensor([1.0, NAN, INF, 0.0])
    assert x.argsort().tolist() == [3, 0, 2, 1]
    assert x.argsort(descending=True).tolist() == [1, 2, 0, 3]
    assert x.topk(2).indices.tolist() == [1, 2]
    assert x.topk(2, largest=False).indices.tolist() == [3, 0]
    wide = dg.cat([x, dg.arange(20.0) / 40.0])  # few of many are found another way
    assert wide.topk(2).indices.tolist() == [1, 2]
    assert wide.kthvalue(24).indices.item() == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "float16", "float32"])
def test_topk_orders_every_dtype(dtype: str) -> None:
    x = dg.tensor([1, 0, 1, 1], dtype=np.dtype(dtype))
    values, indices = x.topk(4)
    assert [int(v) for v in values.tolist()] == [1, 1, 1, 0]
    assert indices.tolist() == [0, 2, 3, 1]
    assert x.topk(1, largest=False).indices.tolist() == [1]
    assert values.dtype == dtype


@pytest.mark.parametrize("dim", [0, 1])
def test_few_of_many(dim: int) -> None:
    x = np.random.default_rng(0).permutation(600).reshape(20, 30)
    for largest in (True, False):
        for k in (1, 3, 4):
            order = np.argsort(-x if largest else x, axis=dim)
            expected = np.take_along_axis(x, order, dim)[:k] if dim == 0 else np.take_along_axis(x, order, dim)[:, :k]
            values, indices = dg.tensor(x).topk(k, dim, largest)
            assert values.tolist() == expected.tolist()
            assert np.take_along_axis(x, indices.numpy(), dim).tolist() == expected.tolist()
            unordered = dg.tensor(x).topk(k, dim, largest, sorted=False).values.numpy()
            assert np.sort(unordered, axis=dim).tolist() == np.sort(expected, axis=dim).tolist()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_ranks_of_every_dtype(dtype: str) -> None:
    x = dg.tensor([[5, 1, 4, 2]], dtype=np.dtype(dtype))
    for name, args, expected in (
        ("kthvalue", (3,), (4, 2)),
        ("median", (1,), (2, 3)),
        ("nanmedian", (-1,), (2, 3)),
        ("mode", (), (1, 1)),
    ):
        values, indices = getattr(x, name)(*args)
        assert (values.dtype, indices.dtype) == (dtype, dg.int64)
        assert (values.item(), indices.item()) == expected
    assert x.median().dtype == dtype and x.median().item() == 2


def test_median_of_nothing() -> None:
    assert math.isnan(dg.zeros(0).median().item())
    assert dg.zeros(0, dtype=dg.int64).median().item() == np.iinfo(np.int64).min


def test_quantiles_pass_gradients_to_their_level() -> None:
    x, q = dg.tensor([1.0, 2.0, 4.0], requires_grad=True), dg.tensor(0.3, requires_grad=True)
    x.quantile(q).backward()
    assert q.grad.item() == pytest.approx(2.0)  # two steps for the whole of [0, 1], of length 1 here
    np.testing.assert_allclose(x.grad.numpy(), [0.4, 0.6, 0.0], rtol=1e-6)


def test_an_element_of_two_quantiles_gets_both_gradients() -> None:
    x = dg.tensor([1.0, 2.0, 4.0], requires_grad=True)
    x.quantile(dg.tensor([0.5, 0.5, 1.0])).sum().backward()
    assert x.grad.tolist() == [0.0, 2.0, 1.0]


# Counting ------------------------------------------------------------------------------------------------------------


def test_dtypes_of_counts() -> None:
    for dtype in (dg.uint8, dg.int32, dg.int64, dg.float16, dg.float32):
        x = dg.tensor([3, 1, 3]).to(dtype)
        values, inverse, counts = x.unique(return_inverse=True, return_counts=True)
        assert (values.dtype, inverse.dtype, counts.dtype) == (dtype, dg.int64, dg.int64)
        assert dg.isin(x, 3).dtype == dg.bool
        assert dg.searchsorted(dg.tensor([1, 2]), x).tolist() == [2, 0, 2]
        assert dg.bucketize(x, dg.tensor([1, 2]), out_int32=True).dtype == dg.int32
        if dtype in (dg.float16, dg.float32):
            assert x.histc(2).dtype == dtype
        else:
            assert dg.bincount(x).dtype == dg.int64
    index = dg.tensor([0, 1, 1])
    for dtype, expected in ((dg.float32, dg.float32), (dg.float64, dg.float64), (dg.int64, dg.float64)):
        assert dg.bincount(index, dg.ones(3, dtype=dtype)).dtype == expected


def test_each_nan_is_a_value_of_its_own() -> None:
    x = dg.tensor([NAN, 1.0, NAN])
    values, inverse, counts = x.unique(return_inverse=True, return_counts=True)
    assert values.shape == (3,) and inverse.tolist() == [1, 0, 2] and counts.tolist() == [1, 1, 1]
    assert dg.tensor([[NAN, 1.0], [NAN, 1.0]]).unique(dim=0).shape == (2, 2)
    assert dg.tensor([NAN, NAN, 1.0]).unique_consecutive().shape == (3,)
    assert dg.tensor([NAN, NAN]).unique().shape == (2,)


def test_nan_lies_behind_every_boundary() -> None:
    values = dg.tensor([NAN, 3.0])
    for right in (False, True):
        assert dg.searchsorted(dg.tensor([1.0, 2.0, 4.0]), values, right=right).tolist() == [3, 2]
        assert dg.searchsorted(dg.tensor([1.0, 2.0, NAN]), values, right=right).tolist() == [3, 3]


@pytest.mark.parametrize("function", [dg.unique, dg.unique_consecutive])
def test_unique_refuses_a_gradient(function: Any) -> None:
    """As in PyTorch: silence would be a gradient that is missing."""
    x = dg.tensor([1.0, 2.0, 2.0], requires_grad=True)
    values, counts = function(x, return_counts=True)
    assert values.requires_grad and not counts.requires_grad
    with pytest.raises(RuntimeError, match="derivative for unique is not implemented"):
        values.sum().backward()


def test_counts_carry_no_gradient() -> None:
    x = dg.tensor([1.0, 2.0, 2.0], requires_grad=True)
    for result in (x.histc(3), dg.searchsorted(x, x), dg.bucketize(x, x), x.argsort(), dg.isin(x, x)):
        assert not result.requires_grad
    assert not dg.bincount(dg.tensor([0, 1, 1]), x).requires_grad


@pytest.mark.parity
def test_bins_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 1000, 5000).astype(np.float32) / 100  # many elements lie on edges
    for bins, low, high in ((100, 0, 10), (37, 0, 0), (10, 2, 5), (3, -1.5, 9.99)):
        mine, theirs = dg.tensor(x).histc(bins, low, high), torch.tensor(x).histc(bins, low, high)
        assert mine.tolist() == theirs.tolist(), (bins, low, high)

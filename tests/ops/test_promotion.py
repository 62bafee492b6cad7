"""Dtypes: what is not a matter of one row. The table itself is checked against PyTorch in ``test_table.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.ops.promotion import cast, promoted

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


@pytest.fixture
def float64_by_default() -> Any:
    dg.set_default_dtype(dg.float64)
    yield
    dg.set_default_dtype(dg.float32)


def test_the_default_dtype(float64_by_default: None) -> None:
    assert dg.get_default_dtype() == dg.float64
    assert dg.tensor([1.5]).dtype == dg.ones(2).dtype == dg.rand(2).dtype == dg.float64
    assert (dg.tensor([1]) / 2).dtype == (dg.tensor([1]) * 0.5).dtype == dg.float64
    assert dg.tensor([1]).dtype == dg.int64


def test_only_floating_defaults() -> None:
    with pytest.raises(TypeError, match="only floating-point types are supported as the default type, not int32"):
        dg.set_default_dtype(dg.int32)
    assert dg.get_default_dtype() == dg.float32


def test_three_operands() -> None:
    one = dg.ones((), dtype=dg.float64)
    assert dg.result_type(one, dg.ones(2, dtype=dg.int64), 1.0) == dg.float64
    assert dg.result_type(dg.ones(2, dtype=dg.float16), one, dg.ones(2, dtype=dg.int64)) == dg.float16
    assert dg.result_type(True, 1, 1.5) == dg.float32


def test_gradients_come_back_in_the_dtype_of_the_operand() -> None:
    a = dg.ones(2, dtype=dg.float64, requires_grad=True)
    b = dg.ones(2, requires_grad=True)
    (a * b).sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (dg.float64, dg.float32)


def test_cast() -> None:
    x = dg.ones(2, requires_grad=True)
    assert cast(x, np.float32) is x
    assert cast(x, np.float64).requires_grad
    assert not cast(x, np.int64).requires_grad
    assert promoted(x, 2.0) == (x, 2.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_promotion_in_a_list(dtype: str) -> None:
    parts = [dg.Tensor(np.ones(2, dtype)), dg.Tensor(np.ones(2, np.int32))]
    expected = dg.result_type(*parts)
    assert dg.cat(parts).dtype == dg.stack(parts).dtype == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_promotion_of_where(dtype: str) -> None:
    x, condition = dg.Tensor(np.ones(2, dtype)), dg.tensor([True, False])
    for other in (dg.ones(2, dtype=dg.int16), 2.5, 3, dg.ones((), dtype=dg.float64)):
        assert dg.where(condition, x, other).dtype == dg.result_type(x, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_keep_the_dtype(dtype: str) -> None:
    x = dg.Tensor(np.ones((2, 3), dtype))
    views = [
        x.reshape(3, 2), x.view(6), x.expand(4, 2, 3), x.broadcast_to((1, 2, 3)), x.unsqueeze(0), x.permute(1, 0),
        x.transpose(0, 1), x.unbind()[0], x.narrow(0, 0, 1), x.split(1)[1], x[0], x[[0]], x[0, 1], x.clone(),
        x.gather(1, dg.tensor([[0], [1]])), x.flatten(), x.t(), x.contiguous(),
    ]  # fmt: skip
    assert {view.dtype.name for view in views} == {dtype}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_stay(dtype: str) -> None:
    from distgrad.ops import loss, normalization, pointwise_loss, pooling

    x = dg.Tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(dtype))
    rows, labels = x[:, :, 0, 0], dg.tensor([0, 2])
    results = [
        pooling.max_pool2d(x, 2), pooling.avg_pool2d(x, 2), pooling.adaptive_avg_pool2d(x, 1),
        normalization.batch_norm(x, None, None, training=True), loss.cross_entropy(rows, labels),
        loss.nll_loss(rows, labels), pointwise_loss.mse_loss(rows, rows),
        normalization.batch_norm(x, *(dg.ones(3, dtype=np.dtype(dtype)) for _ in range(2))),
    ]  # fmt: skip
    assert {result.dtype.name for result in results} == {dtype}


def test_in_place_keeps_the_dtype() -> None:
    x = dg.zeros(2, dtype=dg.int32)
    assert x.copy_(dg.tensor([1.9, -1.9])).tolist() == [1, -1]
    assert x.fill_(2.7).tolist() == [2, 2]
    assert x.dtype == dg.int32

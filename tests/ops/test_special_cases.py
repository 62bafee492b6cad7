"""Behaviour of single ops that the table has no column for: values at ties, edges and infinities, memory, state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.ops import creation, elementwise, loss

NAN, INF = math.nan, math.inf


def leaf(*values: float) -> dg.Tensor:
    return dg.tensor(list(values), dtype=dg.float64, requires_grad=True)


def slopes(t: Any, function: Any, *values: list[float]) -> list[Any]:
    """Values and gradients as lists, for distgrad or PyTorch as ``t``."""
    tensors = [t.tensor(v, dtype=t.float64, requires_grad=True) for v in values]
    out = function(t, *tensors)
    out.sum().backward()
    return [out.tolist(), *(x.grad.tolist() for x in tensors)]


X = [-INF, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0, INF, NAN]
EDGES: dict[str, tuple[Any, list[list[float]]]] = {
    "relu": (lambda t, x: t.relu(x), [X]),
    "abs": (lambda t, x: t.abs(x), [X]),
    "sign": (lambda t, x: t.sign(x), [X]),
    "exp": (lambda t, x: t.exp(x), [X]),
    "log": (lambda t, x: t.log(x), [X]),
    "sqrt": (lambda t, x: t.sqrt(x), [X]),
    "sigmoid": (lambda t, x: t.sigmoid(x), [[-1000.0, *X, 1000.0]]),
    "tanh": (lambda t, x: t.tanh(x), [X]),
    "clamp": (lambda t, x: t.clamp(x, -1.0, 1.0), [X]),
    "clamp crossed": (lambda t, x: t.clamp(x, 1.0, -1.0), [X]),
    "pow 0": (lambda t, x: x**0, [X]),
    "pow 0.5": (lambda t, x: x**0.5, [X[1:]]),
    "pow -1": (lambda t, x: x**-1, [X]),
    "0 ** x": (lambda t, x: 0.0**x, [[0.0, 1.0, 2.0]]),
    "0-d exponent": (lambda t, x, y: x ** y[0], [[0.0, 1.0, 2.0], [0.0]]),
    "powers": (lambda t, x, y: x**y, [[0.0, 0.0, 2.0, 0.0], [0.0, 2.0, 0.0, 1.0]]),
    "div": (lambda t, x, y: x / y, [[0.0, 1.0, -1.0], [0.0, 0.0, INF]]),
    "maximum": (lambda t, x, y: t.maximum(x, y), [[1.0, 2.0, NAN, 3.0], [1.0, 3.0, 0.0, NAN]]),
    "minimum": (lambda t, x, y: t.minimum(x, y), [[1.0, 2.0, NAN, 3.0], [1.0, 3.0, 0.0, NAN]]),
    "max at a tie": (lambda t, x: x.max(), [[1.0, 3.0, 3.0]]),
    "max(0) at a tie": (lambda t, x: x.max(0).values, [[1.0, 3.0, 3.0]]),
    "min(0) at a tie": (lambda t, x: x.min(0).values, [[1.0, 1.0, 3.0]]),
    "amin at a tie": (lambda t, x: x.amin(0), [[1.0, 1.0, 3.0]]),
    "std of a constant": (lambda t, x: x.std(), [[2.0, 2.0, 2.0]]),
    "softmax": (lambda t, x: t.softmax(x, 0), [[-INF, 0.0, 1000.0]]),
    "log_softmax": (lambda t, x: t.log_softmax(x, 0), [[-1000.0, 0.0, 1000.0]]),
    "logsumexp": (lambda t, x: t.logsumexp(x, 0), [[-1000.0, 0.0, 1000.0]]),
    "logsumexp of -inf": (lambda t, x: t.logsumexp(x, 0), [[-INF, 0.0]]),
    "index twice": (lambda t, x: x[[0, 0, 1]] * 2, [[1.0, 2.0]]),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", EDGES)
def test_edges_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    function, values = EDGES[name]
    for mine, theirs in zip(slopes(dg, function, *values), slopes(torch, function, *values), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13, atol=1e-15)


def test_var_of_one_element() -> None:
    assert math.isnan(dg.tensor(3.0).var().item())
    assert dg.tensor(3.0).var(correction=0).item() == 0.0
    assert math.isnan(dg.tensor([3.0]).std().item())
    assert leaf(3.0).var(correction=0).item() == 0.0


def test_mean_of_nothing() -> None:
    assert math.isnan(dg.zeros(0).mean().item())
    assert dg.zeros(0, 2).mean(1).shape == (0,)
    assert dg.zeros(0).sum().item() == 0.0


def test_half_precision_means_do_not_overflow() -> None:
    assert dg.full((1000,), 300.0, dtype=dg.float16).mean().item() == 300.0


def test_truth_is_bool() -> None:
    for dtype in (dg.bool, dg.uint8, dg.int64, dg.float32):
        x = dg.ones(2, dtype=dtype)
        assert x.any().dtype == x.all(0).dtype == dg.bool


def test_softmax_of_integers() -> None:
    for function in (dg.softmax, dg.log_softmax):
        assert function(dg.tensor([1, 2]), 0).dtype == dg.float32
        assert function(dg.tensor(1), 0).dtype == dg.float32
        assert function(dg.tensor([1, 2]), 0, dtype=dg.float64).dtype == dg.float64
    assert dg.logsumexp(dg.tensor([1, 2]), 0).dtype == dg.float32


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float16", "float32"])
def test_topk_orders_every_dtype(dtype: str) -> None:
    x = dg.tensor([1, 0, 1, 1], dtype=np.dtype(dtype))
    values, indices = x.topk(4)
    assert [int(v) for v in values.tolist()] == [1, 1, 1, 0]
    assert indices.tolist() == [0, 2, 3, 1]
    assert x.topk(1, largest=False).indices.tolist() == [1]
    assert values.dtype == dtype


def test_topk_puts_nan_first() -> None:
    assert dg.tensor([1.0, NAN, 3.0]).topk(2).indices.tolist() == [1, 2]


def test_integer_powers() -> None:
    assert dg.tensor([2, -1, 1, -1]).pow(dg.tensor([-1, -1, -3, -2])).tolist() == [0, -1, 1, 1]
    assert (dg.tensor([2, 3]) ** 3).tolist() == [8, 27]
    assert (dg.tensor([2.0]) ** dg.tensor([2])).dtype == dg.float32
    assert (dg.tensor([True, False]) ** dg.tensor([True, False])).tolist() == [True, True]


def test_promotion_of_clamp() -> None:
    assert dg.tensor([1, 5]).clamp(max=3).dtype == dg.int64
    assert dg.tensor([1.0, 5.0]).clamp(max=3).dtype == dg.float32


def test_view_refuses_to_copy() -> None:
    x = dg.ones(2, 3).t()
    with pytest.raises(RuntimeError, match=r"view size is not compatible .* Use .reshape\(...\) instead"):
        x.view(6)
    assert x.reshape(6).shape == (6,)
    assert x.contiguous().view(6).shape == (6,)


def test_to_another_tensor() -> None:
    assert elementwise.to(dg.ones(1), dg.ones(1, dtype=dg.float64)).dtype == dg.float64
    assert dg.ones(1).type_as(dg.ones(1, dtype=dg.float64)).dtype == dg.float64


# Indexing ------------------------------------------------------------------------------------------------------------


def test_a_changed_index_does_not_change_the_gradient() -> None:
    x, index = leaf(1.0, 2.0, 3.0), dg.tensor([0, 2])
    y = x[index]
    index[0] = 1
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 1.0]
    z = x.gather(0, index)
    index += 1
    with pytest.raises(RuntimeError, match="Gather saved its operand 'index'"):
        z.sum().backward()


def test_setitem() -> None:
    x = dg.zeros(2, 3)
    x[0] = 1.0
    x[1, 2] = dg.tensor(5)
    x[:, 1] = dg.tensor([7.0, 8.0])
    x[x == 0] = -1.0
    assert x.tolist() == [[1.0, 7.0, 1.0], [-1.0, 8.0, 5.0]]
    assert x._version == 4
    x[dg.tensor([0, 1]), [0, 0]] = 2.0
    assert x[:, 0].tolist() == [2.0, 2.0]
    x[0] = leaf(1.0).sum()
    assert x.requires_grad and x[0].tolist() == [1.0, 1.0, 1.0]


# In place ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["add_", "sub_", "mul_", "div_", "pow_"])
def test_in_place_forms(name: str) -> None:
    x = dg.tensor([2.0, 3.0])
    expected = getattr(dg, name[:-1])(x, 2)
    assert getattr(x, name)(2) is x
    assert x.tolist() == expected.tolist()
    assert x._version == 1


@pytest.mark.parametrize("name", ["relu_", "sqrt_", "exp_", "neg_"])
def test_in_place_forms_of_one_operand(name: str) -> None:
    x = leaf(2.0, 3.0)
    y = x * 1
    expected = getattr(dg, name[:-1])(x)
    assert getattr(y, name)() is y
    assert y.tolist() == expected.tolist()
    first = dg.autograd.grad(y.sum(), x)[0]
    assert first.tolist() == dg.autograd.grad(expected.sum(), x)[0].tolist()


# Creation ------------------------------------------------------------------------------------------------------------


def test_empty() -> None:
    assert (dg.empty(2, 3).shape, dg.empty((2,), dtype=dg.int64).dtype) == ((2, 3), dg.int64)


def test_from_numpy() -> None:
    a = np.zeros(3)
    x = dg.from_numpy(a)
    a[0] = 1
    x[1] = 2.0
    assert x.tolist() == a.tolist() == [1.0, 2.0, 0.0]
    with pytest.raises(TypeError, match=r"expected np.ndarray \(got list\)"):
        dg.from_numpy([1])
    with pytest.raises(TypeError, match=r"can't convert np.ndarray of type complex128"):
        dg.from_numpy(np.zeros(1, complex))


def test_tensor_copies_and_as_tensor_does_not() -> None:
    a = np.ones((2, 3))
    x = dg.ones(2)
    assert not np.shares_memory(dg.tensor(a).numpy(), a)
    assert not np.shares_memory(dg.tensor(x).numpy(), x.numpy())
    assert np.shares_memory(dg.as_tensor(a).numpy(), a)
    assert creation.as_tensor(x) is x
    assert dg.as_tensor(a, dtype=dg.float32).dtype == dg.float32
    assert dg.tensor(a.T).is_contiguous()
    assert dg.tensor(a).dtype == dg.tensor([np.float64(1.0)]).dtype == dg.float64
    assert dg.tensor([dg.tensor(1.0), dg.tensor(2.0)]).tolist() == [1.0, 2.0]


def test_gradients_of_new_tensors() -> None:
    for x in (dg.zeros(2, requires_grad=True), dg.ones_like(dg.zeros(2), requires_grad=True), leaf(1.0)):
        assert x.requires_grad
        assert x.is_leaf


# Losses --------------------------------------------------------------------------------------------------------------


def test_an_ignored_sample_counts_for_nothing_whatever_it_is() -> None:
    for smoothing in (0.0, 0.1):
        x = dg.tensor([[0.0, 1.0], [-INF, 0.0]], requires_grad=True)
        value = loss.cross_entropy(x, dg.tensor([0, -100]), label_smoothing=smoothing)
        value.backward()
        assert math.isfinite(value.item())
        assert x.grad.tolist()[0] == pytest.approx(x.grad.tolist()[0])
        assert math.isnan(loss.cross_entropy(x, dg.tensor([-100, -100]), label_smoothing=smoothing).item())

"""Behaviour of single ops that the table has no column for: values at ties, edges and infinities, memory, state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.ops import elementwise, loss

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
    "index twice": (lambda t, x: x[[0, 0, 1]] * 2, [[1.0, 2.0]]),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", EDGES)
def test_edges_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    function, values = EDGES[name]
    for mine, theirs in zip(slopes(dg, function, *values), slopes(torch, function, *values), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13, atol=1e-15)


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


# Losses --------------------------------------------------------------------------------------------------------------


def test_an_ignored_sample_counts_for_nothing_whatever_it_is() -> None:
    for smoothing in (0.0, 0.1):
        x = dg.tensor([[0.0, 1.0], [-INF, 0.0]], requires_grad=True)
        value = loss.cross_entropy(x, dg.tensor([0, -100]), label_smoothing=smoothing)
        value.backward()
        assert math.isfinite(value.item())
        assert x.grad.tolist()[0] == pytest.approx(x.grad.tolist()[0])
        assert math.isnan(loss.cross_entropy(x, dg.tensor([-100, -100]), label_smoothing=smoothing).item())

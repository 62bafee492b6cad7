"""Distributions: moments and frequencies of many draws, gradients that are zero, and parameters that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

N = 40_000


def within(actual: float, expected: float, deviation: float, count: int = N) -> None:
    """A mean of ``count`` draws of this standard deviation lies within five of its own."""
    assert actual == pytest.approx(expected, abs=5 * deviation / math.sqrt(count))


def stream(seed: int = 0) -> dg.Generator:
    return dg.Generator().manual_seed(seed)


# From parameters -----------------------------------------------------------------------------------------------------


def test_normal_in_all_its_forms() -> None:
    g = stream()
    mean, std = dg.tensor([[1.0], [-1.0]]).expand(2, N), dg.full((N,), 2.0)
    both = dg.normal(mean, std, generator=g)
    assert both.shape == (2, N) and both.dtype == dg.float32
    for row, m in zip(both, (1.0, -1.0), strict=True):
        within(row.mean().item(), m, 2.0)
        within(row.std().item(), 2.0, 2.0 / math.sqrt(2))
    within(dg.normal(3.0, std, generator=g).mean().item(), 3.0, 2.0)
    within(dg.normal(mean[0], generator=g).std().item(), 1.0, 1.0)
    within(dg.normal(mean[0], 0.5, generator=g).mean().item(), 1.0, 0.5)
    numbers = dg.normal(-1, 3, (N,), generator=g, dtype=dg.float64)
    assert numbers.dtype == dg.float64
    within(numbers.mean().item(), -1.0, 3.0)
    assert dg.normal(0.0, 1.0, size=(2, 3), requires_grad=True).requires_grad
    assert dg.normal(dg.zeros(2, dtype=dg.float64), dg.ones(2)).dtype == dg.float64
    assert dg.normal(dg.tensor([1.5, 2.5]), 0.0).tolist() == [1.5, 2.5]


def test_normal_refuses() -> None:
    ones = dg.ones(3)
    for arguments, message in (
        ((ones, -2.0), "expects std >= 0.0, but found std -2.0"),
        ((0.0, -1.0, (2,)), "expects std >= 0.0"),
        ((ones, dg.tensor([1.0, -1.0, 0.0])), "all elements of std >= 0.0"),
        ((ones, dg.ones(2)), "must match the size of tensor b"),
        ((0.0, 1.0, (-1,)), "negative dimension"),
    ):
        with pytest.raises(RuntimeError, match=message):
            dg.normal(*arguments)
    for arguments in ((0.0, 1.0), (ones, 1.0, (3,))):
        with pytest.raises(TypeError, match="or two numbers and a size"):
            dg.normal(*arguments)
    with pytest.raises(NotImplementedError, match="not implemented for int64"):
        dg.normal(ones.long(), 1.0)


def test_bernoulli() -> None:
    p = dg.tensor([0.0, 0.25, 1.0], dtype=dg.float64)
    x = dg.bernoulli(p.expand(N, 3), generator=stream())
    assert x.dtype == dg.float64 and set(x.flatten().tolist()) == {0.0, 1.0}
    assert x[:, 0].sum().item() == 0 and x[:, 2].sum().item() == N
    within(x[:, 1].mean().item(), 0.25, math.sqrt(0.25 * 0.75))
    whole = dg.bernoulli(dg.zeros(N, dtype=dg.int64), 0.5, generator=stream())
    assert whole.dtype == dg.int64
    within(whole.double().mean().item(), 0.5, 0.5)


def test_poisson() -> None:
    rates = dg.tensor([0.0, 0.5, 9.0])
    x = dg.poisson(rates.expand(N, 3), generator=stream())
    assert x.dtype == dg.float32 and (x == x.long().float()).all() and (x[:, 0] == 0).all()
    for column, rate in zip(x.double().unbind(1), rates.tolist(), strict=True):
        within(column.mean().item(), rate, math.sqrt(rate))
        within(column.var().item(), rate, math.sqrt(rate + 2 * rate**2))
    with pytest.raises(RuntimeError, match="invalid Poisson rate"):
        dg.poisson(dg.tensor([-1.0]))
    with pytest.raises(NotImplementedError, match="not implemented for int64"):
        dg.poisson(dg.tensor([1]))


def test_multinomial_with_replacement() -> None:
    weights = dg.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0]])
    x = dg.multinomial(weights, N, replacement=True, generator=stream())
    assert x.shape == (2, N) and x.dtype == dg.int64
    assert (x[1] == 1).all()
    counts = np.bincount(x[0].numpy(), minlength=3)
    assert counts[1] == 0
    within(counts[2] / N, 0.75, math.sqrt(0.75 * 0.25))
    assert dg.multinomial(weights[0], 5, True).shape == (5,)


def test_multinomial_without_replacement() -> None:
    weights = dg.tensor([1.0, 2.0, 3.0, 0.0])
    x = dg.multinomial(weights.expand(N, 4), 3, generator=stream())
    assert x.shape == (N, 3)
    assert (x.sort(1).values == dg.tensor([0, 1, 2])).all()  # never the last, never one twice
    rows, counts = np.unique(x.numpy(), axis=0, return_counts=True)
    assert len(rows) == 6
    for (a, b, _), count in zip(rows.tolist(), counts.tolist(), strict=True):
        w = weights.tolist()
        chance = w[a] / 6 * w[b] / (6 - w[a])  # one after the other, among those that are left
        within(count / N, chance, math.sqrt(chance * (1 - chance)))
    only = dg.multinomial(dg.tensor([0.0, 5.0, 0.0]), 3)
    assert only[0].item() == 1 and sorted(only.tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("weights", "count", "replacement", "message"),
    [
        (np.ones((1, 2, 3)), 1, False, "must be 1 or 2 dim"),
        (np.ones(()), 1, False, "must be 1 or 2 dim"),
        (np.ones(3), 0, False, "n_sample <= 0"),
        (np.ones(3), 4, False, "n_sample > prob_dist.size"),
        (np.ones(3, int), 1, False, "only supports floating-point"),
        (np.array([-1.0, 2.0]), 1, True, "either `inf`, `nan` or element < 0"),
        (np.array([np.inf, 2.0]), 1, False, "either `inf`, `nan` or element < 0"),
        (np.array([np.nan, 2.0]), 1, False, "either `inf`, `nan` or element < 0"),
        (np.zeros((2, 3)), 1, True, "sum of probabilities <= 0"),
        (np.array([[1.0, 1.0], [0.0, 0.0]]), 1, False, "sum of probabilities <= 0"),
        (np.ones((2, 0)), 1, True, "sum of probabilities <= 0"),
    ],
)
def test_multinomial_refuses(weights: Any, count: int, replacement: bool, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        dg.multinomial(dg.tensor(weights), count, replacement)


def test_no_rows() -> None:
    assert dg.multinomial(dg.ones(0, 3), 2).shape == (0, 2)


def test_gradients_of_draws_are_zero() -> None:
    p = dg.full((3,), 0.5, requires_grad=True)
    q = dg.full((2, 1), 2.0, requires_grad=True)
    for out in (dg.bernoulli(p), dg.bernoulli(p, 0.5), dg.poisson(p), dg.normal(p, 1.0), dg.normal(0.0, p)):
        assert out.requires_grad
        assert dg.autograd.grad(out.sum(), p)[0].tolist() == [0.0] * 3
    for gradient, parameter in zip(dg.autograd.grad(dg.normal(p, q).sum(), [p, q]), (p, q), strict=True):
        assert gradient.tolist() == dg.zeros_like(parameter).tolist()
    assert not dg.multinomial(p, 1).requires_grad


# Into a tensor -------------------------------------------------------------------------------------------------------

# name, arguments, mean, standard deviation
MOMENTS: list[tuple[str, tuple[Any, ...], float, float]] = [
    ("normal_", (), 0.0, 1.0),
    ("normal_", (2.0, 0.5), 2.0, 0.5),
    ("uniform_", (), 0.5, math.sqrt(1 / 12)),
    ("uniform_", (-3, 1), -1.0, 4 * math.sqrt(1 / 12)),
    ("bernoulli_", (0.3,), 0.3, math.sqrt(0.3 * 0.7)),
    ("exponential_", (), 1.0, 1.0),
    ("exponential_", (4.0,), 0.25, 0.25),
    ("geometric_", (0.25,), 4.0, math.sqrt(12)),
    ("log_normal_", (0.0, 0.5), math.exp(0.125), math.sqrt((math.exp(0.25) - 1) * math.exp(0.25))),
    ("random_", (5,), 2.0, math.sqrt(2)),
    ("random_", (-2, 3), 0.0, math.sqrt(2)),
]


@pytest.mark.parametrize("dtype", [dg.float32, dg.float64])
@pytest.mark.parametrize(("name", "arguments", "mean", "deviation"), MOMENTS)
def test_moments(name: str, arguments: tuple[Any, ...], mean: float, deviation: float, dtype: Any) -> None:
    x = dg.empty(N, dtype=dtype)
    assert getattr(x, name)(*arguments, generator=stream(3)) is x
    values = x.double()
    within(values.mean().item(), mean, deviation)
    spread = ((values - mean) ** 2).mean().item()
    assert spread == pytest.approx(deviation**2, rel=0.1)
    again = getattr(dg.empty(N, dtype=dtype), name)(*arguments, generator=stream(3))
    assert again.tolist() == x.tolist()


def test_cauchy_by_its_quartiles() -> None:
    x = dg.empty(N, dtype=dg.float64).cauchy_(1.0, 2.0, generator=stream()).numpy()
    for quantile, expected in ((0.25, -1.0), (0.5, 1.0), (0.75, 3.0)):
        within(float((x < expected).mean()), quantile, 0.5)


def test_bounds_of_uniform() -> None:
    for dtype in (dg.float16, dg.float32, dg.float64):
        x = dg.empty(N, dtype=dtype).uniform_(1.0, 1.0 + 4 * dg.finfo(dtype).eps, generator=stream())
        assert (x >= 1).all() and (x < 1.0 + 4 * dg.finfo(dtype).eps).all() and len(set(x.tolist())) > 1
    assert dg.empty(2).uniform_(2, 2).tolist() == [2.0, 2.0]
    assert (dg.empty(9).uniform_(to=0.5) < 0.5).all()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float16", "float32", "float64"])
def test_random_of_a_dtype(dtype: str) -> None:
    x = dg.zeros(2000, dtype=np.dtype(dtype)).random_(generator=stream())
    most = {"bool": 1, "float16": 2**11, "float32": 2**24, "float64": 2**53}.get(dtype) or np.iinfo(dtype).max
    values = [int(v) for v in x.tolist()]
    assert min(values) >= 0 and max(values) <= most and max(values) > 0.9 * most
    assert x.dtype == dtype


def test_bernoulli_in_place_takes_probabilities() -> None:
    x = dg.zeros(2, 3, dtype=dg.int32).bernoulli_(dg.tensor([0.0, 1.0, 0.0]))
    assert x.tolist() == [[0, 1, 0], [0, 1, 0]] and x.dtype == dg.int32


def test_what_is_written_has_no_gradient() -> None:
    leaf = dg.ones(3, requires_grad=True)
    x = leaf * 2.0
    x.normal_()
    (x * x).sum().backward()
    assert leaf.grad.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        leaf.uniform_()
    with dg.no_grad():
        assert leaf.uniform_() is leaf


Float, Integer, Bool = (lambda: dg.ones(3)), (lambda: dg.ones(3, dtype=dg.int64)), (lambda: dg.ones(3) > 0)


@pytest.mark.parametrize(
    ("make", "name", "arguments", "error", "message"),
    [
        (Float, "normal_", (0, -1), RuntimeError, "expects std >= 0.0, but found std -1"),
        (Integer, "normal_", (), NotImplementedError, "not implemented for int64"),
        (Float, "uniform_", (2, 1), RuntimeError, r"found from=2 > to=1"),
        (Float, "uniform_", (0, math.inf), RuntimeError, "to is out of bounds for float32"),
        (Integer, "uniform_", (), NotImplementedError, "not implemented for int64"),
        (Float, "bernoulli_", (1.5,), RuntimeError, r"to be in \[0, 1\], but got p=1.5"),
        (Float, "exponential_", (0.0,), RuntimeError, "expects lambda > 0.0, but found lambda=0.0"),
        (Integer, "exponential_", (), RuntimeError, "continuous probability distribution"),
        (Float, "geometric_", (1.0,), RuntimeError, r"to be in \(0, 1\), but got p=1.0"),
        (Float, "geometric_", (0.0,), RuntimeError, r"to be in \(0, 1\)"),
        (Bool, "geometric_", (0.5,), NotImplementedError, "not implemented for bool"),
        (Float, "log_normal_", (0, 0), RuntimeError, "expects std > 0.0, but found std=0"),
        (Integer, "log_normal_", (), NotImplementedError, "not implemented for int64"),
        (Float, "cauchy_", (0, 0), RuntimeError, "expects sigma > 0.0, but found sigma=0"),
        (Integer, "cauchy_", (), RuntimeError, "continuous probability distribution"),
        (Float, "random_", (5, 3), RuntimeError, "got from=5 >= to=3"),
        (Float, "random_", (0,), RuntimeError, "got from=0 >= to=0"),
        (Float, "random_", (0.5,), TypeError, "float"),
        (Float, "random_", (1, 2, 3), TypeError, "takes"),
    ],
)
def test_what_is_refused(
    make: Callable[[], dg.Tensor], name: str, arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(make(), name)(*arguments)


def test_integers_that_do_not_fit() -> None:
    with pytest.raises(RuntimeError, match="to - 1 is out of bounds for uint8"):
        dg.ones(3, dtype=dg.uint8).random_(300)


def test_probabilities_that_do_not_broadcast() -> None:
    with pytest.raises(RuntimeError, match="do not broadcast"):
        dg.ones(3).bernoulli_(dg.zeros(2, 3))
    with pytest.raises(RuntimeError, match="p_in >= 0 && p_in <= 1"):
        dg.ones(3).bernoulli_(dg.tensor([0.0, 2.0, 0.0]))

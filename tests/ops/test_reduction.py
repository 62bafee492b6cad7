"""Reductions in every dtype, what they warn of and save, and how exact they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

NAN, INF = math.nan, math.inf


def test_means_and_sums_of_nothing() -> None:
    assert math.isnan(dg.zeros(0).mean().item())
    assert dg.zeros(0, 2).mean(1).shape == (0,)
    assert dg.zeros(0).sum().item() == 0.0
    x = dg.zeros((0, 3), requires_grad=True)
    x.mean(0).sum().backward()
    assert x.grad.shape == (0, 3)


def test_half_precision_is_computed_in_single() -> None:
    x = dg.full((3000,), 30.0, dtype=dg.float16)
    assert x.mean().item() == 30.0
    assert dg.ones(3000, dtype=dg.float16).sum().item() == 3000.0
    assert (x.reshape(3, 1000) * 10).var(1).tolist() == [0.0] * 3
    assert dg.full((4,), 300.0, dtype=dg.float16).logsumexp(0).item() == 301.5
    assert x.softmax(0).sum(dtype=dg.float32).item() == pytest.approx(1.0, abs=1e-3)
    for name in ("sum", "mean", "var", "prod", "softmax", "log_softmax", "logsumexp"):
        args = (0,) if "soft" in name or name == "logsumexp" else ()
        assert getattr(x, name)(*args).dtype == dg.float16


def test_few_degrees_of_freedom_warn() -> None:
    for name in ("var", "std"):
        with pytest.warns(UserWarning, match=rf"{name}\(\): degrees of freedom is <= 0.* 1 of 1 elements") as caught:
            assert math.isnan(getattr(dg, name)(dg.tensor([[3.0], [4.0]]), 1)[0].item())
        assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert dg.tensor([1.0, 3.0]).var(correction=2).item() == INF
    assert dg.tensor([3.0]).var(correction=0).item() == 0.0


def test_equal_elements_have_no_variance() -> None:
    for dtype in (dg.float32, dg.float64):
        x = dg.full((1000,), 0.1, dtype=dtype, requires_grad=True)  # whose sum is rounded
        deviation = x.std()
        deviation.backward()
        assert deviation.item() == 0.0 and not x.grad.numpy().any()


def test_truth_of_uint8() -> None:
    for dtype in (dg.bool, dg.uint8, dg.int64, dg.float32):
        x = dg.tensor([[0, 2], [0, 0]]).to(dtype)
        expected = dg.uint8 if dtype == dg.uint8 else dg.bool
        assert x.any().dtype == x.all(0).dtype == x.any((0, 1)).dtype == expected
        assert x.any(1).tolist() == [True, False]
    assert dg.tensor([[0.0, 2.0]]).any(()).tolist() == [[False, True]]  # no dimension: nothing is reduced


def test_nan_has_no_integer() -> None:
    x = dg.tensor([1.5, NAN], requires_grad=True)
    assert x.nansum(dtype=dg.int64).item() == 1
    assert x.nansum(dtype=dg.float64).dtype == dg.float64


def test_places_are_int64() -> None:
    for dtype in (dg.uint8, dg.int8, dg.int32, dg.int64, dg.float16, dg.float32, dg.float64):
        x = dg.tensor([1, 3, 0]).to(dtype)
        assert x.argmax().dtype == x.argmin(0).dtype == x.max(0).indices.dtype == dg.int64
        assert (x.argmax().item(), x.argmin().item()) == (1, 2)
    assert dg.tensor([1.0, NAN, NAN, 5.0]).argmin().item() == 1


def test_dtypes_of_exponentials() -> None:
    for function in (dg.softmax, dg.log_softmax, dg.nn.functional.softmin):
        assert function(dg.tensor([1, 2]), 0, dtype=dg.float64).dtype == dg.float64
        for dtype in (dg.float16, dg.float32, dg.float64):
            assert function(dg.ones(2, dtype=dtype), 0).dtype == dtype
    for dtype in (dg.bool, dg.int64):
        assert dg.logsumexp(dg.ones(2, dtype=dtype), 0).dtype == dg.float32


def test_functional_chooses_the_dim_that_pytorch_chose() -> None:
    x = dg.tensor([[1.0, 2.0]])
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmin"):
        assert dg.nn.functional.softmin(x).tolist() == dg.nn.functional.softmin(x, 1).tolist()


def test_softmax_keeps_its_output_alone() -> None:
    """Neither needs its input for the gradient: the input may be changed, the output not."""
    for function in (dg.softmax, dg.log_softmax):
        x = dg.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
        y = x * 1.0
        out = function(y, 1)
        with dg.no_grad():
            y.fill_(7.0)
        out[0, 0].backward()
        assert x.grad.sum().item() == pytest.approx(0.0, abs=1e-6)
        again = function(x * 1.0, 1)
        with dg.no_grad():
            again.fill_(7.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            again[0, 0].backward()


def test_gradients_of_unwanted_indices() -> None:
    x = dg.tensor([[1.0, 2.0]], requires_grad=True)
    values, indices = x.max(1)
    assert not indices.requires_grad and values.grad_fn.name() == "MaxBackward0"
    indices.fill_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.sum().backward()


# Exactness: the error of float32 against float64, where magnitudes make the result cancel or the sums are long.
LONG = np.random.default_rng(0).random((20_000, 16)).astype(np.float32)
EXACT: dict[str, tuple[Callable[[Any], Any], float]] = {
    "sum of columns": (lambda x: x.sum(0), 5e-7),
    "sum": (lambda x: x.sum(), 5e-7),
    "mean of columns": (lambda x: x.mean(0), 5e-7),
    "var of columns": (lambda x: x.var(0), 5e-7),
    "std": (lambda x: x.std(), 5e-7),
    "cumsum": (lambda x: x.cumsum(0)[-1], 2e-7),
    "logsumexp": (lambda x: x.logsumexp(0), 5e-7),
    "softmax": (lambda x: x.softmax(0)[0], 1e-6),
    "nansum": (lambda x: x.nansum(0), 5e-7),
}


@pytest.mark.parametrize("name", EXACT)
def test_float32_is_exact(name: str) -> None:
    function, tolerance = EXACT[name]
    exact = function(dg.tensor(LONG.astype(np.float64))).numpy()
    np.testing.assert_allclose(function(dg.tensor(LONG)).numpy(), exact, rtol=tolerance)


def test_variance_far_from_zero() -> None:
    x = (LONG + 1e6).astype(np.float32)
    np.testing.assert_allclose(dg.tensor(x).var(0).numpy(), x.astype(np.float64).var(0, ddof=1), rtol=1e-6)

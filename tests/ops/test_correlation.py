from __future__ import annotations

import math

import numpy as np
import pytest

import distgrad as dg


def test_dtypes_of_covariances() -> None:
    for dtype, expected in (
        (dg.uint8, dg.float32),
        (dg.int64, dg.float32),
        (dg.float16, dg.float16),
        (dg.float64, dg.float64),
    ):
        x = dg.tensor([[1, 2, 4], [3, 1, 0]]).to(dtype)
        assert x.cov().dtype == x.corrcoef().dtype == expected
    assert dg.ones(2, 3).cov(aweights=dg.ones(3, dtype=dg.float64)).dtype == dg.float64
    assert dg.ones(2, 3).cov(fweights=dg.tensor([1, 2, 3])).dtype == dg.float32


def test_few_observations_warn() -> None:
    with pytest.warns(UserWarning, match=r"cov\(\): degrees of freedom is <= 0.*3 of 3") as caught:
        out = dg.tensor([[1.0, 2.0, 4.0]]).cov(correction=3)
    assert out.item() == math.inf and caught[0].filename == __file__


def test_one_observation() -> None:
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert math.isnan(dg.tensor(3.0).corrcoef().item())


def test_a_constant_correlates_with_nothing() -> None:
    x = dg.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]])
    assert np.isnan(x.corrcoef().numpy()).tolist() == [[True, True], [True, False]]
    assert x[1:].corrcoef().item() == 1.0


def test_weights_get_gradients() -> None:
    x, weights = dg.tensor([[0.0, 1.0, 5.0]]), dg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x.cov(aweights=weights).backward()
    assert weights.grad.shape == (3,) and abs(weights.grad.numpy()).max() > 0

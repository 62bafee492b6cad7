"""The error function to the last bits, and points at which a plain formula of a gradient fails."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import Tensor
from distgrad.ops import transcendental


def points() -> Any:
    rng = np.random.default_rng(3)
    joints = [side * (at + step) for side in (-1, 1) for at in (0.46875, 4.0) for step in (-1e-15, 0, 1e-15)]
    return np.concatenate([rng.uniform(-7, 7, 20000), np.linspace(-27, 27, 5001), rng.normal(0, 1e-6, 1000), joints])


def values(name: str, x: Any) -> Any:
    return getattr(transcendental, name)(Tensor(x)).numpy()


def reference(name: str, x: Any) -> Any:
    return np.array([getattr(math, name)(v) for v in x.tolist()])


def test_erf_in_float64() -> None:
    x = points()
    expected = reference("erf", x)
    error = np.abs(values("erf", x) - expected)
    assert error.max() < 2.3e-16
    assert (error <= 5e-16 * np.abs(expected)).all()


def test_erfc_in_float64() -> None:
    x = points()
    expected = reference("erfc", x)
    normal = expected >= np.finfo(np.float64).tiny
    assert (np.abs(values("erfc", x) - expected) <= 1e-15 * expected)[normal].all()
    assert np.abs(values("erfc", x) - expected)[~normal].max() <= 1e-320


@pytest.mark.parametrize(("dtype", "ulps"), [(np.float16, 1), (np.float32, 8)])
def test_error_functions_in_low_precision(dtype: Any, ulps: float) -> None:
    x = points().astype(dtype)
    bound = ulps * np.finfo(dtype).eps
    for name in ("erf", "erfc"):
        out, expected = values(name, x), reference(name, x)
        assert out.dtype == dtype
        normal = np.abs(expected) >= np.finfo(dtype).tiny
        assert (np.abs(out - expected) <= bound * np.abs(expected))[normal].all()


def test_error_functions_at_the_ends() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e300, -1e300, 5e-324])
    np.testing.assert_array_equal(values("erf", x), [1, -1, np.nan, 0, 0, 1, -1, 5e-324])
    assert np.signbit(values("erf", x)[[3, 4]]).tolist() == [False, True]
    np.testing.assert_array_equal(values("erfc", x), [0, 2, np.nan, 1, 1, 0, 2, 1])


def gradients_of(name: str, *operands: float) -> list[float]:
    tensors = [Tensor(np.array(v, np.float64), requires_grad=True) for v in operands]
    getattr(transcendental, name)(*tensors).backward()
    return [t.grad.item() for t in tensors if t.grad is not None]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["atan2", "logaddexp", "hypot"])
@pytest.mark.parametrize("at", [(0.0, 0.0), (0.0, -1.0), (np.inf, -np.inf), (-np.inf, -np.inf), (np.inf, 1.0)])
def test_gradients_at_singular_points_are_those_of_torch(name: str, at: tuple[float, float]) -> None:
    torch = pytest.importorskip("torch")
    theirs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in at]
    getattr(torch, name)(*theirs).backward()
    np.testing.assert_array_equal(gradients_of(name, *at), [t.grad.item() for t in theirs])


def test_gradients_of_huge_operands() -> None:
    assert gradients_of("atan2", 1e200, 1e200) == pytest.approx([5e-201, -5e-201], rel=1e-14)
    assert gradients_of("hypot", 3e200, 4e200) == pytest.approx([0.6, 0.8], rel=1e-14)
    assert gradients_of("logaddexp", 1e300, 1e300) == [0.5, 0.5]


def test_gradient_of_asin_near_the_end() -> None:
    x = 1 - 2.0**-50
    (gradient,) = gradients_of("asin", x)
    assert gradient == pytest.approx(1 / math.sqrt(2.0**-50 * (2 - 2.0**-50)), rel=1e-15)

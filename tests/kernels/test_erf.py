"""The error function and GELU against the C library's, to the last bits, in every region and dtype and at the ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels import erf as kernels


def points() -> Any:
    rng = np.random.default_rng(3)
    joints = [side * (at + step) for side in (-1, 1) for at in (0.5, 4.0) for step in (-1e-15, 0, 1e-15)]
    return np.concatenate([rng.uniform(-7, 7, 40000), np.linspace(-27, 27, 5001), rng.normal(0, 1e-6, 1000), joints])


def test_erf_in_float64() -> None:
    x = points()
    expected = kernels.erf_reference(x)
    error = np.abs(kernels.erf(x) - expected)
    assert error.max() < 2.3e-16
    assert (error <= 5e-16 * np.abs(expected)).all()


def test_erfc_in_float64() -> None:
    x = points()
    expected = kernels.erfc_reference(x)
    normal = expected >= np.finfo(np.float64).tiny
    error = np.abs(kernels.erfc(x) - expected)
    assert (error <= 1e-15 * expected)[normal].all()
    assert error[~normal].max() <= 1e-320


@pytest.mark.parametrize("name", ["gelu", "gelu_backward"])
def test_gelu_in_float64(name: str) -> None:
    x = points()
    operands = (np.cos(x), x) if name == "gelu_backward" else (x,)
    expected = getattr(kernels, f"{name}_reference")(*operands)
    # where the slope is 0 its two terms cancel
    scale = np.abs(expected) if name == "gelu" else np.maximum(np.abs(expected), 1e-3 * np.exp(-x * x / 2))
    normal = scale >= 1e-290
    assert (np.abs(getattr(kernels, name)(*operands) - expected) <= 2e-13 * scale)[normal].all()


@pytest.mark.parametrize(("dtype", "ulps"), [(np.float16, 1), (np.float32, 8)])
def test_low_precision(dtype: Any, ulps: float) -> None:
    x = points().astype(dtype)
    bound = ulps * np.finfo(dtype).eps
    for name in ("erf", "erfc"):
        out, expected = getattr(kernels, name)(x), getattr(kernels, f"{name}_reference")(x.astype(np.float64))
        assert out.dtype == dtype
        normal = np.abs(expected) >= np.finfo(dtype).tiny
        assert (np.abs(out - expected) <= bound * np.abs(expected))[normal].all()
    g = np.ones_like(x)
    for out, expected in (
        (kernels.gelu(x), kernels.gelu_reference(x.astype(np.float64))),
        (kernels.gelu_backward(g, x), kernels.gelu_backward_reference(1.0, x.astype(np.float64))),
    ):
        assert out.dtype == dtype
        np.testing.assert_allclose(out, expected, rtol=4 * bound, atol=4 * bound)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_ends(dtype: Any) -> None:
    largest = float(np.finfo(dtype).max)
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, largest, -largest], dtype)
    np.testing.assert_array_equal(kernels.erf(x), [1, -1, np.nan, 0, 0, 1, -1])
    assert np.signbit(kernels.erf(x)[[3, 4]]).tolist() == [False, True]
    np.testing.assert_array_equal(kernels.erfc(x), [0, 2, np.nan, 1, 1, 0, 2])
    np.testing.assert_array_equal(kernels.gelu(x)[3:], [0, 0, largest, 0])
    np.testing.assert_array_equal(kernels.gelu_backward(np.ones_like(x), x)[3:], [0.5, 0.5, 1, 0])
    smallest = np.array([np.finfo(dtype).smallest_subnormal])
    np.testing.assert_array_equal(kernels.erf(smallest), smallest)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (300, 400)])
def test_shapes_and_layouts(shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(0).standard_normal(shape))
    before = x.tobytes()
    for name in ("erf", "erfc", "gelu"):
        kernel, reference = getattr(kernels, name), getattr(kernels, f"{name}_reference")
        out = kernel(x)
        assert isinstance(out, np.ndarray)
        assert out.shape == shape
        np.testing.assert_allclose(out, reference(x), rtol=1e-13)
        np.testing.assert_array_equal(kernel(x.T), out.T)
        np.testing.assert_array_equal(kernel(np.broadcast_to(x, (2, *shape))), np.stack([out, out]))
    np.testing.assert_array_equal(kernels.gelu_backward(x.T, x.T), kernels.gelu_backward(x, x).T)
    assert x.tobytes() == before

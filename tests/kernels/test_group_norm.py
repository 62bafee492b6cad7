from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels import group_norm as kernels

EPS = 1e-5
LAYOUTS = [(5, 1, 7, 1), (3, 2, 4, 6), (2, 3, 1, 9), (1, 1, 1, 700), (4, 1, 1030, 1), (2, 1, 3, 600), (0, 2, 3, 2)]
EACH_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS, ids=str)
CENTRED = pytest.mark.parametrize("centred", [True, False], ids=["centred", "not centred"])


@pytest.fixture(params=[None, 1], ids=["blocks as shipped", "blocks of one sample"], autouse=True)
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(kernels, "_BLOCK_BYTES", request.param)


def draw(layout: tuple[int, int, int, int], dtype: Any = np.float64, seed: int = 0) -> list[Any]:
    """Input, weight, bias and output gradient."""
    rng = np.random.default_rng(seed)
    x = 3 * rng.standard_normal(layout) + 10 * rng.standard_normal((*layout[:2], 1, 1))
    affine = rng.uniform(0.5, 2.0, (2, layout[1] * layout[2]))
    return [v.astype(dtype) for v in (x, *affine, rng.standard_normal(layout))]


@EACH_LAYOUT
@CENTRED
@pytest.mark.parametrize("affine", ["both", "weight", "bias", "none"])
def test_forward_equals_reference(layout: Any, centred: bool, affine: str) -> None:
    x, w, b, _ = draw(layout)
    w, b = w if affine in ("both", "weight") else None, b if affine in ("both", "bias") else None
    before = x.copy()
    output, mean, rstd = kernels.group_norm(x, w, b, layout, EPS, centred)
    np.testing.assert_allclose(
        output, kernels.group_norm_reference(x, w, b, layout, EPS, centred), rtol=1e-12, atol=1e-12
    )
    assert np.array_equal(x, before) and rstd.shape == layout[:2] and (mean is None) is not centred
    centre = x.mean((2, 3)) if centred else np.zeros(layout[:2])
    np.testing.assert_allclose(rstd, 1 / np.sqrt(((x - centre[:, :, None, None]) ** 2).mean((2, 3)) + EPS), rtol=1e-12)


@EACH_LAYOUT
@CENTRED
def test_gradients_are_those_of_the_forward(layout: Any, centred: bool) -> None:
    """Against differences of the reference along random directions."""
    x, w, b, g = draw(layout)
    _, mean, rstd = kernels.group_norm(x, w, b, layout, EPS, centred)
    found = [
        kernels.group_norm_backward_input(g, x, w, mean, rstd, layout),
        kernels.group_norm_backward_weight(g, x, mean, rstd, layout).reshape(-1),
        kernels.group_norm_backward_bias(g, layout).reshape(-1),
    ]
    rng = np.random.default_rng(1)
    for place, gradient in enumerate(found):
        step = 1e-6 * rng.standard_normal(gradient.shape)
        moved = [[v + sign * step if i == place else v for i, v in enumerate((x, w, b))] for sign in (1, -1)]
        above, below = (kernels.group_norm_reference(*values, layout, EPS, centred) for values in moved)
        np.testing.assert_allclose((gradient * step).sum(), ((above - below) * g).sum() / 2, rtol=1e-6, atol=1e-13)


@EACH_LAYOUT
def test_gradient_without_a_weight(layout: Any) -> None:
    x, w, b, g = draw(layout)
    _, mean, rstd = kernels.group_norm(x, None, b, layout, EPS)
    ones = kernels.group_norm_backward_input(g, x, np.ones_like(w), mean, rstd, layout)
    without = kernels.group_norm_backward_input(g, x, None, mean, rstd, layout)
    np.testing.assert_allclose(without, ones, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("layout", [(2, 1, 50_000, 1), (1, 1, 8, 40_000)], ids=str)
def test_float32_sums_are_exact_to_its_digits(layout: Any) -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, layout).astype(np.float32) + 5
    wide = x.astype(np.float64)
    output, mean, rstd = kernels.group_norm(x, None, None, layout, EPS)
    assert output.dtype == mean.dtype == rstd.dtype == np.float32
    np.testing.assert_allclose(mean, wide.mean((2, 3)), rtol=2e-7)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(wide.var((2, 3)) + EPS), rtol=3e-7)
    assert np.abs(output - kernels.group_norm_reference(wide, None, None, layout, EPS)).max() < 4e-6


@pytest.mark.parametrize("layout", [(3, 1, 2000, 1), (2, 2, 3, 500)], ids=str)
def test_half_precision_is_computed_in_single(layout: Any) -> None:
    x, w, b, g = draw(layout, np.float16)
    x = (x * 3).astype(np.float16)  # whose squares add up to more than 65504
    output, mean, rstd = kernels.group_norm(x, w, b, layout, EPS)
    assert output.dtype == np.float16 and mean.dtype == rstd.dtype == np.float32
    single = [v.astype(np.float32) for v in (x, w, b, g)]
    exact, exact_mean, exact_rstd = kernels.group_norm(*single[:3], layout, EPS)
    np.testing.assert_array_equal(output, exact.astype(np.float16))
    gradient = kernels.group_norm_backward_input(g, x, w, mean, rstd, layout)
    wide = kernels.group_norm_backward_input(single[3], single[0], single[1], exact_mean, exact_rstd, layout)
    assert gradient.dtype == np.float16
    np.testing.assert_array_equal(gradient, wide.astype(np.float16))

"""Batch normalization with its surroundings, in HWNC order, against the references beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from distgrad.kernels import fused_norm, lines
from distgrad.kernels.fused_norm import (
    ChannelStatistics,
    add_activate,
    channel_statistics,
    channel_statistics_reference,
    channel_sums,
    coefficients,
    far_mean,
    mask_gradient,
    mask_gradient_reference,
    masked_gradient_sums,
    normalize,
    normalize_backward,
    normalize_backward_reference,
    normalize_reference,
    scale_gradient,
)
from distgrad.kernels.workspace import Workspace

SHAPES = [(4, 6, 2, 8), (1, 1, 1, 3), (5, 1, 3, 4), (1, 7, 1, 1), (3, 5, 7, 13), (2, 2, 3, 20000), (9, 8, 4, 64)]
LAYOUTS = ["contiguous", "rows with gaps", "pixels with gaps", "every second row", "some images"]
ACTIVATIONS: list[Any] = [None, "relu", (0.0, 6.0), (-0.5, 0.75)]
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
EACH_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS)
EACH_ACTIVATION = pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
EACH_DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
EPS = 1e-5


@pytest.fixture(params=[(None, None), (16, 100)], ids=["pieces as shipped", "small pieces"], autouse=True)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    line, piece = request.param
    if line is not None:
        monkeypatch.setattr(lines, "_LINE", line)
        monkeypatch.setattr(lines, "_PIECE_BYTES", piece)
    lines._split.cache_clear()
    yield
    lines._split.cache_clear()


def stored(values: Any, layout: str) -> Any:
    """The values as a part of an array with other numbers around, as ``layout`` says."""
    h, w, n, c = values.shape
    if layout == "contiguous":
        return values.copy()
    if layout == "rows with gaps":
        out = np.full((h, w + 2, n, c), 7, values.dtype)[:, :w]
    elif layout == "pixels with gaps":
        out = np.full((h + 1, 2 * w, n, c), 7, values.dtype)[1:, ::2]
    elif layout == "every second row":
        out = np.full((2 * h, w, n, c), 7, values.dtype)[::2]
    else:
        out = np.full((h, w, n + 3, c), 7, values.dtype)[:, :, 1 : n + 1]
    out[...] = values
    return out


def draw(shape: Any, dtype: Any, count: int = 1, seed: int = 3) -> Any:
    random = np.random.default_rng(seed)
    drawn = [random.standard_normal(shape).astype(dtype) for _ in range(count)]
    return drawn if count > 1 else drawn[0]


def values_of_channels(channels: int, count: int) -> Any:
    return np.random.default_rng(5).uniform(0.5, 2, (count, channels)) * [[1], [-1], [1], [-1]][:count]


def tolerance(dtype: Any) -> float:
    return 4e-6 if dtype == np.float32 else 1e-13


def close(actual: Any, expected: Any, dtype: Any, scale: float = 1) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance(dtype), atol=scale * tolerance(dtype))


# Lines ----------------------------------------------------------------------------------------------------------------


@EACH_SHAPE
@EACH_LAYOUT
def test_pieces_are_the_array_in_its_order_without_a_copy(shape: Any, layout: str) -> None:
    array = stored(np.arange(math.prod(shape), dtype=np.float32).reshape(shape), layout)
    found = []
    for piece, nothing in lines.pieces(array, None):
        assert nothing is None and piece.shape[-1] % shape[3] == 0
        assert np.shares_memory(piece, array)
        found.append(piece.reshape(-1))
    np.testing.assert_array_equal(np.concatenate(found), array.reshape(-1))


@pytest.mark.parametrize("others", LAYOUTS)
@EACH_LAYOUT
def test_pieces_of_several_arrays_lie_at_the_same_places(layout: str, others: str) -> None:
    values = draw((5, 4, 3, 6), np.float32)
    for a, b in lines.pieces(stored(values, layout), stored(values, others)):
        np.testing.assert_array_equal(a, b)


def test_pieces_refuse_other_orders_and_shapes() -> None:
    with pytest.raises(ValueError, match=r"last two dimensions of every \(H, W, N, C\) array must be contiguous"):
        list(lines.pieces(np.zeros((2, 3, 4, 5)).transpose(0, 1, 3, 2)))
    with pytest.raises(ValueError, match=r"must have one shape \(H, W, N, C\)"):
        list(lines.pieces(np.zeros((2, 3, 4, 5)), np.zeros((2, 3, 4, 6))))


def test_no_pieces_of_an_empty_batch() -> None:
    assert list(lines.pieces(np.zeros((2, 3, 0, 5)))) == []


# Statistics -----------------------------------------------------------------------------------------------------------


@EACH_SHAPE
@EACH_LAYOUT
@EACH_DTYPE
def test_statistics_and_sums_equal_the_reference(shape: Any, layout: str, dtype: Any) -> None:
    x = stored(draw(shape, dtype) * 3 + 1, layout)
    mean, var, count = channel_statistics(x)
    expected = channel_statistics_reference(x)
    assert count == expected[2] and mean.dtype == var.dtype == np.float64
    close(mean, expected[0], dtype, 3)
    close(var, expected[1], dtype, 9)
    close(channel_sums(x), x.sum(axis=(0, 1, 2), dtype=np.float64), dtype, 3 * count)


@EACH_DTYPE
def test_statistics_stay_exact_where_the_mean_is_large_beside_the_deviation(dtype: Any) -> None:
    far = 1e4 * np.linspace(-1, 1, 8)
    x = (draw((20, 30, 4, 8), np.float64) + far).astype(dtype)
    mean, var, _ = channel_statistics(x)
    expected_mean, expected_var, _ = channel_statistics_reference(x)
    # in float64 it is the reference whose own mean is inexact
    np.testing.assert_allclose(mean - expected_mean, 0, atol=max(tolerance(dtype), 1e-10))
    np.testing.assert_allclose(var, expected_var, rtol=tolerance(dtype))


def test_statistics_of_blocks_are_those_of_the_whole_and_the_same_each_time() -> None:
    x = draw((13, 6, 4, 8), np.float32)

    def found() -> Any:
        statistics = ChannelStatistics(8, np.float32, Workspace())
        for first in range(0, 4, 2):  # depth first: two images at a time, rows in blocks
            for row in range(0, 13, 5):
                statistics.add(x[row : row + 5, :, first : first + 2])
        return statistics.result()

    one, other, expected = found(), found(), channel_statistics_reference(x)
    assert one[2] == expected[2]
    for value, again, reference in zip(one[:2], other[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(value, again)
        close(value, reference, np.float32)


def test_statistics_of_nothing_are_zeros() -> None:
    mean, var, count = channel_statistics(np.zeros((2, 3, 0, 5), np.float32))
    assert count == 0 and not mean.any() and not var.any() and mean.shape == var.shape == (5,)


def test_a_constant_channel_has_no_variance() -> None:
    x = np.full((8, 8, 4, 3), 0.1, np.float32)
    mean, var, _ = channel_statistics(x)
    np.testing.assert_allclose(mean, np.float32(0.1), rtol=1e-7)
    assert (var < 1e-15).all()


# Forward --------------------------------------------------------------------------------------------------------------


@EACH_LAYOUT
@EACH_ACTIVATION
@EACH_DTYPE
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_normalize_equals_the_reference(layout: str, activation: Any, dtype: Any, center: bool, residual: bool) -> None:
    for shape in SHAPES:
        z, r = (stored(x, layout) for x in draw(shape, dtype, 2))
        scale, shift, middle = values_of_channels(shape[3], 3)
        options: Any = {
            "center": middle if center else None,
            "residual": r if residual else None,
            "activation": activation,
        }
        out = stored(np.empty(shape, dtype), LAYOUTS[2])
        around = out.base.copy()
        normalize(z, scale, shift, out, **options)
        assert out.dtype == dtype
        expected = normalize_reference(z, scale, shift, **options)
        close(out, expected, dtype)
        out[...] = 7
        around_now = out.base.copy()
        around_now[out.base.shape[0] - shape[0] :, ::2] = around[out.base.shape[0] - shape[0] :, ::2] = 7
        np.testing.assert_array_equal(around_now, around)  # nothing beside the output has been touched
        normalize(z, scale, shift, z, **options)
        close(z, expected, dtype)


@EACH_ACTIVATION
def test_the_output_may_be_the_residual(activation: Any) -> None:
    z, r = draw((5, 4, 3, 6), np.float32, 2)
    scale, shift = values_of_channels(6, 2)
    expected = normalize_reference(z, scale, shift, None, r, activation)
    normalize(z, scale, shift, r, residual=r[:], activation=activation)
    close(r, expected, np.float32)


@EACH_ACTIVATION
@EACH_LAYOUT
def test_add_activate_in_place(activation: Any, layout: str) -> None:
    for residual in (False, True):
        x, r = (stored(a, layout) for a in draw((5, 4, 3, 6), np.float32, 2))
        expected = normalize_reference(x, 1, 0, None, r if residual else None, activation)
        add_activate(x, r if residual else None, activation)
        close(x, expected, np.float32)


def test_nan_and_infinity_go_through_the_activations() -> None:
    x = np.array([np.nan, -np.inf, np.inf, -1, 0, 8], np.float32).reshape(1, 1, 1, 6)
    for activation, expected in (("relu", [np.nan, 0, np.inf, 0, 0, 8]), ((0.0, 6.0), [np.nan, 0, 6, 0, 0, 6])):
        out = x.copy()
        add_activate(out, None, activation)  # type: ignore[arg-type]
        np.testing.assert_array_equal(out[0, 0, 0], expected)


def test_coefficients_center_a_mean_that_is_far() -> None:
    mean, invstd = np.array([0.5, 1e4]), np.array([1.0, 1.0])
    assert not far_mean(mean[:1], 1 / invstd[:1]) and far_mean(mean, 1 / invstd)
    assert coefficients(mean[:1], invstd[:1], None, None, np.float32)[2] is None
    z = (draw((20, 10, 4, 2), np.float64) + mean).astype(np.float32)
    weight, bias = values_of_channels(2, 2)
    exact_mean, var, _ = channel_statistics_reference(z)
    scale, shift, center = coefficients(exact_mean, 1 / np.sqrt(var + EPS), weight, bias, np.float32)
    out = np.empty_like(z)
    normalize(z, scale, shift, out, center=center)
    np.testing.assert_allclose(out, (z - exact_mean) / np.sqrt(var + EPS) * weight + bias, atol=2e-6)


# Backward -------------------------------------------------------------------------------------------------------------


@EACH_ACTIVATION
@EACH_DTYPE
def test_mask_gradient_equals_the_reference(activation: Any, dtype: Any) -> None:
    g, y = draw((7, 5, 4, 6), dtype, 2)
    y = np.asarray(normalize_reference(y, 1, 0, activation=activation), dtype)
    y[0, 0, 0, :3] = [np.nan, 0.0, -0.0]
    g[0, 0, 1, :3] = [np.inf, -np.inf, np.nan]
    for place in (np.empty_like(g), g):
        expected = mask_gradient_reference(g, y, activation)
        mask_gradient(g, y, activation, place)
        np.testing.assert_array_equal(place, expected)


def train_backward(grad: Any, z: Any, weight: Any, out: Any, centered: bool, masked: Any = None, **options: Any) -> Any:
    mean, var, count = channel_statistics(z)
    invstd = 1 / np.sqrt(var + EPS)
    total, product = masked_gradient_sums(grad, z, mean, masked, centered=centered, **options)
    g = grad if masked is None else masked
    slope = product * invstd**2 / count
    normalize_backward(g, z, weight * invstd, mean, total / count, slope, out, centered=centered)
    return out, product * invstd, total


@EACH_LAYOUT
@EACH_ACTIVATION
@EACH_DTYPE
@pytest.mark.parametrize("centered", [False, True])
def test_backward_equals_the_definition(layout: str, activation: Any, dtype: Any, centered: bool) -> None:
    for shape in SHAPES:
        if math.prod(shape[:3]) == 1:
            continue
        z, grad, y = (stored(x, layout) for x in draw(shape, dtype, 3))
        (weight,) = values_of_channels(shape[3], 1)
        y[...] = normalize_reference(y, 1, 0, activation=activation)
        passed = mask_gradient_reference(grad, y, activation).copy()
        expected = normalize_backward_reference(passed, z, weight, EPS)
        count = math.prod(shape[:3])
        options = {"activation": activation, "output": y} if activation is not None else {}
        masked = grad if activation is not None else None
        for out in (np.empty_like(z), z, grad):
            before = z.copy(), grad.copy()
            actual = train_backward(grad, z, weight, out, centered, masked, **options)
            for found, reference, size in zip(actual, expected, (4, count, count), strict=True):
                close(found, reference, dtype, size)
            z[...], grad[...] = before[0], passed


def test_backward_stays_exact_where_the_mean_is_large_beside_the_deviation() -> None:
    z = (draw((20, 10, 4, 3), np.float64) + np.array([1e4, -300, 0])).astype(np.float32)
    grad = draw(z.shape, np.float32, seed=8)
    (weight,) = values_of_channels(3, 1)
    expected = normalize_backward_reference(grad, z, weight, EPS)
    for found, reference in zip(train_backward(grad, z, weight, np.empty_like(z), True), expected, strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-5, atol=2e-5)


@EACH_LAYOUT
@EACH_ACTIVATION
def test_scale_gradient_equals_the_reference(layout: str, activation: Any) -> None:
    grad, y = (stored(x, layout) for x in draw((5, 4, 3, 6), np.float32, 2))
    (scale,) = values_of_channels(6, 1)
    y[...] = normalize_reference(y, 1, 0, activation=activation)
    passed = mask_gradient_reference(grad, y, activation).copy()
    out, masked = np.empty_like(y), np.empty_like(y)
    scale_gradient(grad, scale, out, output=y, activation=activation, masked=masked)
    close(out, passed * scale, np.float32)
    np.testing.assert_array_equal(masked, passed)
    scale_gradient(grad, scale, out, output=y, activation=activation, masked=grad)
    np.testing.assert_array_equal(grad, passed)
    scale_gradient(grad, scale, grad, output=y, activation=activation)
    close(grad, passed * scale, np.float32)


def test_an_activation_needs_its_output() -> None:
    x = np.zeros((2, 2, 2, 2), np.float32)
    with pytest.raises(ValueError, match="masked_gradient_sums: an activation needs its output"):
        masked_gradient_sums(x, x, np.zeros(2), x, activation="relu")
    with pytest.raises(ValueError, match="scale_gradient: an activation needs its output"):
        scale_gradient(x, np.ones(2), x, activation="relu")


def test_scratch_comes_from_the_given_workspace() -> None:
    space, x = Workspace(), draw((4, 4, 2, 8), np.float32)
    fused_norm.workspace().clear()
    masked_gradient_sums(x, x, np.zeros(8), np.empty_like(x), output=x, activation="relu", space=space)
    normalize_backward(x.copy(), x, *np.ones((4, 8)), out=x, space=space)
    assert space.nbytes > 0 and fused_norm.workspace().nbytes == 0

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels import batch_norm, lines
from distgrad.kernels.batch_norm import (
    batch_norm_eval,
    batch_norm_eval_reference,
    batch_norm_scale,
    batch_norm_statistics,
    batch_norm_train,
    batch_norm_train_backward,
    batch_norm_train_reference,
)
from distgrad.kernels.layout import is_hwnc

SHAPES = [(6, 5), (4, 3, 7), (3, 4, 5, 6), (2, 3, 2, 3, 4), (1, 2, 3, 3)]
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
AFFINE = pytest.mark.parametrize("affine", ["weight and bias", "weight", "bias", "none"])
ALL = (True, True, True)
UNIT = 2.0**-24
EPS = 1e-5


@pytest.fixture(params=[None, 1], ids=["blocks as shipped", "blocks of one image"], autouse=True)
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(batch_norm, "_BLOCK_BYTES", request.param)
        monkeypatch.setattr(lines, "_PIECE_BYTES", request.param)


def draw(shape: tuple[int, ...], affine: str = "weight and bias", dtype: Any = np.float64) -> tuple[Any, ...]:
    """Input, weight, bias, output gradient, running mean, running variance; weight and bias None as ``affine`` says."""
    random = np.random.default_rng(11)
    x = 3 * random.standard_normal(shape) + 10 * random.standard_normal((shape[1],) + (1,) * (len(shape) - 2))
    w, b, mean = random.standard_normal((3, shape[1]))
    g, var = random.standard_normal(shape), random.uniform(0.1, 4, shape[1])
    x, w, b, g, mean, var = (array.astype(dtype) for array in (x, w, b, g, mean, var))
    return x, w if "weight" in affine else None, b if "bias" in affine else None, g, mean, var


def backwards_storage(array: Any) -> Any:
    """The same values, stored with the dimensions in reverse order, and read-only."""
    view = np.ascontiguousarray(array.T).T
    view.flags.writeable = False
    return view


def hwnc(array: Any) -> Any:
    """The same values in HWNC order, with a gap behind each pixel; as they are where there are not four dimensions."""
    if array.ndim != 4:
        return array
    n, c, h, w = array.shape
    out = np.full((h, 2 * w, n, c), 7, array.dtype)[:, ::2].transpose(2, 3, 0, 1)
    out[...] = array
    return out


def layouts(array: Any) -> tuple[Any, ...]:
    return array, backwards_storage(array), hwnc(array)


def has_order_of(result: Any, given: Any) -> bool:
    """Whether a result is in HWNC order where what it was made of is, and else row-major."""
    return bool(is_hwnc(result) if given.ndim == 4 and is_hwnc(given) else result.flags.c_contiguous)


def channels(vector: Any, like: Any) -> Any:
    return np.reshape(vector, (-1,) + (1,) * (like.ndim - 2))


@EACH_SHAPE
@AFFINE
def test_train_equals_reference(shape: Any, affine: str) -> None:
    x, w, b, *_ = draw(shape, affine)
    expected = batch_norm_train_reference(x, w, b, EPS)
    for layout in layouts(x):
        actual = batch_norm_train(layout, w, b, EPS)
        assert actual[0].shape == shape and has_order_of(actual[0], layout)
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@EACH_SHAPE
@AFFINE
def test_eval_equals_reference(shape: Any, affine: str) -> None:
    x, w, b, _, mean, var = draw(shape, affine)
    expected = batch_norm_eval_reference(x, w, b, mean, var, EPS)
    for layout in layouts(x):
        actual = batch_norm_eval(layout, w, b, mean, var, EPS)
        assert actual.shape == shape and has_order_of(actual, layout)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@EACH_SHAPE
@AFFINE
def test_eval_float32_error_is_within_the_stated_bound(shape: Any, affine: str) -> None:
    x, w, b, _, mean, var = draw(shape, affine, np.float32)
    actual = batch_norm_eval(x, w, b, mean, var, EPS)
    assert actual.dtype == np.float32
    wide = [None if v is None else v.astype(np.float64) for v in (x, w, b, mean, var)]
    exact = batch_norm_eval_reference(*wide, EPS)
    scale = (1 if w is None else wide[1]) / np.sqrt(wide[4] + EPS)
    shift = (0 if b is None else wide[2]) - wide[3] * scale
    bound = UNIT * (3 * abs(wide[0] * channels(scale, x)) + 2 * abs(channels(shift, x)))
    assert (abs(actual - exact) <= bound * (1 + 1e-6)).all()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_float32_statistics_are_the_float64_ones_rounded(offset: float) -> None:
    x = (np.random.default_rng(2).standard_normal((8, 3, 40, 41)) + offset).astype(np.float32)
    wide = x.astype(np.float64)
    mean, var = batch_norm_statistics(x)
    np.testing.assert_allclose(mean, wide.mean(axis=(0, 2, 3)), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(var, wide.var(axis=(0, 2, 3)), rtol=1e-12)
    output, mean32, invstd32, _ = batch_norm_train(x, None, None, EPS)
    exact, exact_mean, exact_invstd, _ = batch_norm_train_reference(wide, None, None, EPS)
    assert output.dtype == mean32.dtype == invstd32.dtype == np.float32
    np.testing.assert_allclose(mean32, exact_mean, rtol=2 * UNIT, atol=1e-15)
    np.testing.assert_allclose(invstd32, exact_invstd, rtol=2 * UNIT)
    # The offset is gone after the first subtraction, so it costs nothing, however large it is beside the deviation.
    assert (abs(output - exact) <= 4 * UNIT * (abs(exact) + 1)).all()


@EACH_SHAPE
@AFFINE
@pytest.mark.parametrize("order", [0, 1, 2], ids=["row-major", "reversed", "HWNC"])
def test_backward_equals_finite_differences(shape: Any, affine: str, order: int) -> None:
    x, w, b, g, *_ = draw(shape, affine)
    x = layouts(x)[order]
    _, mean, invstd, _ = batch_norm_train(x, w, b, EPS)
    for gradient in layouts(g):
        grad_x, grad_w, grad_b = batch_norm_train_backward(gradient, x, w, mean, invstd, ALL)
        assert grad_x is not None and grad_w is not None and grad_b is not None
        assert grad_x.shape == shape and has_order_of(grad_x, x)

    def loss(x: Any, w: Any, b: Any) -> Any:
        return np.vdot(batch_norm_train_reference(x, w, b, EPS)[0], g)

    random, step = np.random.default_rng(1), 1e-5
    ones, zeros = np.ones(shape[1]), np.zeros(shape[1])
    arguments = [x, ones if w is None else w, zeros if b is None else b]
    for place, grad in enumerate((grad_x, grad_w, grad_b)):
        direction = random.standard_normal(grad.shape)
        ahead, behind = list(arguments), list(arguments)
        ahead[place], behind[place] = arguments[place] + step * direction, arguments[place] - step * direction
        slope = (loss(*ahead) - loss(*behind)) / (2 * step)
        np.testing.assert_allclose(np.vdot(grad, direction), slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("order", [np.asarray, hwnc], ids=["row-major", "HWNC"])
def test_backward_computes_what_is_needed(order: Any) -> None:
    x, w, _, g, *_ = draw((3, 4, 5, 6))
    x = order(x)
    _, mean, invstd, _ = batch_norm_train(x, w, None, EPS)
    everything = batch_norm_train_backward(g, x, w, mean, invstd, ALL)
    for needs in np.ndindex(2, 2, 2):
        some = batch_norm_train_backward(g, x, w, mean, invstd, (bool(needs[0]), bool(needs[1]), bool(needs[2])))
        for need, part, whole in zip(needs, some, everything, strict=True):
            if need:
                np.testing.assert_allclose(part, whole, rtol=1e-13)
            else:
                assert part is None


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_hwnc_keeps_float32_accuracy_however_large_the_mean_is(offset: float) -> None:
    random = np.random.default_rng(2)
    x = hwnc((random.standard_normal((8, 3, 40, 41)) + offset).astype(np.float32))
    wide = x.astype(np.float64)
    mean, var = batch_norm_statistics(x)
    np.testing.assert_allclose(mean, wide.mean(axis=(0, 2, 3)), rtol=1e-9, atol=2e-7)
    np.testing.assert_allclose(var, wide.var(axis=(0, 2, 3)), rtol=5e-7)
    output, mean32, invstd32, _ = batch_norm_train(x, None, None, EPS)
    exact = batch_norm_train_reference(wide, None, None, EPS)
    assert (abs(output - exact[0]) <= 8 * UNIT * (abs(exact[0]) + 1)).all()
    weight, g = np.array([0.5, -1, 2], np.float32), hwnc(random.standard_normal(x.shape).astype(np.float32))
    actual = batch_norm_train_backward(g, x, weight, mean32, invstd32, ALL)
    g64, x64 = np.array(g, np.float64, order="C"), np.array(wide, order="C")
    expected = batch_norm_train_backward(g64, x64, weight, mean32, invstd32, ALL)
    np.testing.assert_allclose(actual[0], expected[0], rtol=2e-6, atol=2e-6)
    for found, reference in zip(actual[1:], expected[1:], strict=True):
        np.testing.assert_allclose(found, reference, rtol=2e-6, atol=5e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_empty_batch(dtype: Any) -> None:
    x, (w, b) = np.empty((0, 3, 4, 4), dtype), np.ones((2, 3), dtype)
    output, mean, invstd, _ = batch_norm_train(x, w, b, EPS)
    assert output.shape == x.shape and output.dtype == dtype
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_allclose(invstd, EPS**-0.5, rtol=1e-6)
    assert batch_norm_eval(x, w, b, mean, invstd, EPS).shape == x.shape
    grads = batch_norm_train_backward(x, x, w, mean, invstd, ALL)
    assert [None if grad is None else grad.shape for grad in grads] == [x.shape, (3,), (3,)]
    assert grads[1] is not None and not grads[1].any()


def test_constant_channel_gives_the_bias_even_without_eps() -> None:
    x = np.full((4, 2, 3, 3), 7.0)
    b = np.array([1.0, -2.0])
    for eps in (0.0, EPS):
        output, _, invstd, _ = batch_norm_train(x, None, b, eps)
        np.testing.assert_array_equal(output, np.broadcast_to(b[:, None, None], x.shape))
        np.testing.assert_allclose(invstd, 0 if eps == 0 else eps**-0.5)


@pytest.mark.parity
@EACH_SHAPE
@AFFINE
def test_equals_pytorch(shape: Any, affine: str) -> None:
    torch = pytest.importorskip("torch")
    x, w, b, g, running_mean, running_var = draw(shape, affine)
    tx, tw, tb = (None if v is None else torch.tensor(v, requires_grad=True) for v in (x, w, b))
    expected = torch.nn.functional.batch_norm(tx, None, None, tw, tb, True, 0.1, EPS)
    expected.backward(torch.from_numpy(g))
    output, mean, invstd, _ = batch_norm_train(x, w, b, EPS)
    np.testing.assert_allclose(output, expected.detach(), rtol=1e-12, atol=1e-12)
    needs = (True, w is not None, b is not None)
    grads = batch_norm_train_backward(g, x, w, mean, invstd, needs)
    for ours, theirs in zip(grads, (tx, tw, tb), strict=True):
        if theirs is not None:
            np.testing.assert_allclose(ours, theirs.grad, rtol=1e-11, atol=1e-12)
    running = torch.from_numpy(running_mean), torch.from_numpy(running_var)
    expected = torch.nn.functional.batch_norm(tx, *running, tw, tb, False, 0.1, EPS)
    actual = batch_norm_eval(x, w, b, running_mean, running_var, EPS)
    np.testing.assert_allclose(actual, expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_float32_is_at_least_as_accurate_as_pytorch(offset: float) -> None:
    torch = pytest.importorskip("torch")
    x = (np.random.default_rng(2).standard_normal((8, 3, 40, 41)) + offset).astype(np.float32)
    exact = batch_norm_train_reference(x.astype(np.float64), None, None, EPS)
    ours = batch_norm_train(x, None, None, EPS)
    theirs = torch.native_batch_norm(torch.from_numpy(x), None, None, None, None, True, 0.1, EPS)
    for mine, other, truth in zip(ours[:3], theirs, exact[:3], strict=True):
        # One unit in the last place of slack: both are one rounding away from the truth.
        assert abs(mine - truth).max() <= abs(other.numpy() - truth).max() + 2 * UNIT * abs(truth).max()


@pytest.mark.parametrize("order", [np.asarray, hwnc], ids=["row-major", "HWNC"])
@pytest.mark.parametrize("shape", [(40, 3, 50), (6, 5), (4, 3, 5, 6)], ids=str)
def test_half_precision_is_computed_in_single(shape: Any, order: Any) -> None:
    half = [order(array) for array in draw(shape, dtype=np.float16)]
    x, w, b, g, mean, var = half
    wide = [array.astype(np.float32) for array in half]
    output, batch_mean, invstd, _ = batch_norm_train(x, w, b, EPS)
    assert output.dtype == np.float16 and batch_mean.dtype == invstd.dtype == np.float32
    np.testing.assert_array_equal(output, batch_norm_train(*wide[:3], EPS)[0].astype(np.float16))
    evaluated = batch_norm_eval(x, w, b, mean, var, EPS)
    np.testing.assert_array_equal(evaluated, batch_norm_eval(*wide[:3], *wide[4:], EPS).astype(np.float16))
    gradient = batch_norm_train_backward(g, x, w, batch_mean, invstd, ALL)
    expected = batch_norm_train_backward(wide[3], wide[0], wide[1], batch_mean, invstd, ALL)
    assert gradient[0].dtype == np.float16
    np.testing.assert_array_equal(gradient[0], expected[0].astype(np.float16))
    for mine, other in zip(gradient[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_allclose(
        batch_norm_scale(g, w).astype(np.float64), wide[3] * channels(wide[1], g), rtol=2e-3, atol=1e-6
    )

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from distgrad import backends
from distgrad.kernels import convolution, im2col
from distgrad.kernels.convolution import (
    conv2d,
    conv2d_input,
    conv2d_output_shape,
    conv2d_reference,
    conv2d_weight,
)
from distgrad.kernels.layout import is_hwnc

# (input, weight, stride, padding, dilation, groups)
CASES: dict[str, tuple[Any, ...]] = {
    "3x3": ((2, 3, 7, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "stem": ((2, 3, 19, 18), (5, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    "strided": ((3, 4, 8, 8), (6, 4, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "pointwise": ((3, 4, 5, 6), (6, 4, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pointwise grouped": ((3, 4, 5, 6), (6, 2, 1, 1), (1, 1), (0, 0), (1, 1), 2),
    "pointwise strided": ((3, 4, 7, 8), (6, 4, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    "pointwise padded": ((2, 4, 3, 3), (2, 4, 1, 1), (1, 1), (1, 2), (1, 1), 1),
    "uncovered trailing rows": ((2, 3, 10, 11), (4, 3, 2, 3), (3, 4), (0, 0), (1, 1), 1),
    "stride beyond the kernel": ((2, 2, 11, 13), (3, 2, 2, 2), (3, 5), (0, 1), (1, 1), 1),
    "dilated": ((2, 3, 11, 9), (4, 3, 3, 2), (1, 2), (2, 1), (2, 3), 1),
    "dilated and strided": ((2, 3, 13, 12), (2, 3, 3, 3), (2, 3), (3, 2), (3, 2), 1),
    "taps wholly in the padding": ((2, 2, 2, 1), (3, 2, 3, 3), (1, 1), (4, 5), (4, 5), 1),
    "padding beyond the kernel": ((2, 2, 3, 4), (3, 2, 2, 2), (2, 1), (5, 4), (1, 1), 1),
    "fewer channels out": ((2, 5, 9, 8), (3, 5, 3, 2), (1, 1), (1, 0), (1, 1), 1),
    "fewer channels out, grouped, dilated": ((3, 6, 9, 8), (4, 3, 2, 3), (1, 1), (2, 3), (3, 2), 2),
    "grouped": ((2, 6, 7, 7), (9, 2, 3, 3), (2, 1), (1, 1), (1, 1), 3),
    "depthwise": ((2, 4, 6, 7), (8, 1, 3, 3), (1, 1), (1, 1), (1, 1), 4),
    "row kernel": ((2, 3, 5, 9), (2, 3, 1, 4), (1, 2), (0, 2), (1, 1), 1),
    "column kernel": ((2, 3, 9, 5), (2, 3, 4, 1), (2, 1), (2, 0), (1, 1), 1),
    "whole image": ((3, 2, 4, 5), (3, 2, 4, 5), (1, 1), (0, 0), (1, 1), 1),
    "one image": ((1, 3, 9, 9), (4, 3, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "empty batch": ((0, 4, 6, 6), (6, 2, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    "empty batch pointwise": ((0, 4, 6, 6), (6, 4, 1, 1), (1, 1), (0, 0), (1, 1), 1),
}
ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture(params=[None, 4000, 1, "plans"], ids=["as shipped", "blocks of few rows", "blocks of one row", "plans"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plans":
        monkeypatch.setattr(convolution, "_SMALL", 0)
    elif request.param is not None:
        monkeypatch.setattr(im2col, "_BLOCK_BYTES", request.param)


def draw(case: tuple[Any, ...], dtype: Any = np.float64) -> tuple[Any, Any, Any, tuple[Any, ...]]:
    """Random input, weight and output gradient of a case, and its remaining arguments."""
    random = np.random.default_rng(7)
    input_shape, weight_shape, *rest = case
    shape = conv2d_output_shape(input_shape, weight_shape, *rest[:3])
    x, w, g = (random.standard_normal(s).astype(dtype) for s in (input_shape, weight_shape, shape))
    return x, w, g, tuple(rest)


def transposed_storage(array: Any) -> Any:
    """The same values in another memory layout: reversed, strided by two, dimensions stored backwards."""
    storage = np.empty([2 * s for s in array.shape[::-1]], array.dtype)
    view = storage[::2, ::2, ::2, ::2].T[:, :, ::-1, ::-1]
    view[...] = array
    assert array.size == 0 or not view.flags.c_contiguous
    return view


def gradients_by_definition(x: Any, w: Any, g: Any, rest: tuple[Any, ...]) -> tuple[Any, Any]:
    """What each window of each output channel contributes to both gradients, one at a time."""
    stride, padding, dilation, groups = rest
    (_, _, h, width), (channels_out, channels_in, kh, kw) = x.shape, w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    grad_padded, grad_w = np.zeros_like(padded), np.zeros_like(w)
    for k, oy, ox in np.ndindex(g.shape[1:]):
        first = k // (channels_out // groups) * channels_in
        rows = [oy * stride[0] + i * dilation[0] for i in range(kh)]
        cols = [ox * stride[1] + j * dilation[1] for j in range(kw)]
        window = np.ix_(range(len(x)), range(first, first + channels_in), rows, cols)
        grad_padded[window] += g[:, k, oy, ox, None, None, None] * w[k]
        grad_w[k] += np.tensordot(g[:, k, oy, ox], padded[window], 1)
    return grad_padded[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + width], grad_w


@ALL_CASES
@pytest.mark.usefixtures("block_bytes")
def test_conv2d_equals_reference(case: tuple[Any, ...]) -> None:
    x, w, g, rest = draw(case)
    output = conv2d(x, w, *rest)
    assert output.shape == g.shape
    np.testing.assert_allclose(output, conv2d_reference(x, w, *rest), rtol=1e-12, atol=1e-13)


@ALL_CASES
@pytest.mark.usefixtures("block_bytes")
def test_three_kernels_are_adjoint(case: tuple[Any, ...]) -> None:
    x, w, g, rest = draw(case)
    form = np.vdot(conv2d(x, w, *rest), g)
    scale = np.vdot(conv2d(abs(x), abs(w), *rest), abs(g))
    assert abs(np.vdot(x, conv2d_input(g, w, x.shape, *rest)) - form) <= 1e-13 * scale
    assert abs(np.vdot(w, conv2d_weight(x, g, w.shape, *rest)) - form) <= 1e-13 * scale


@ALL_CASES
@pytest.mark.usefixtures("block_bytes")
def test_gradients_equal_definition(case: tuple[Any, ...]) -> None:
    x, w, g, rest = draw(case)
    grad_x, grad_w = gradients_by_definition(x, w, g, rest)
    np.testing.assert_allclose(conv2d_input(g, w, x.shape, *rest), grad_x, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(conv2d_weight(x, g, w.shape, *rest), grad_w, rtol=1e-12, atol=1e-12)


def test_uncovered_pixels_get_no_gradient() -> None:
    x, w, g, rest = draw(CASES["uncovered trailing rows"])
    grad = conv2d_input(g, w, x.shape, *rest)
    # Windows of 2x3 every 3 rows and 4 columns of 10x11: row 2 lies between them, rows 8 and 9 behind the last.
    assert not grad[:, :, [2, 5, 8, 9]].any() and not grad[..., [3, 7]].any()
    assert grad[:, :, :2, :3].all()


@ALL_CASES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("small", [True, False])
def test_any_layout_gives_the_same_and_inputs_stay(
    case: tuple[Any, ...], dtype: Any, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_SMALL", np.inf if small else 0)
    x, w, g, rest = draw(case, dtype)
    xs, ws, gs = map(transposed_storage, (x, w, g))
    for array in (x, w, g, xs, ws, gs):
        array.flags.writeable = False
    tolerance = 20 * np.finfo(dtype).eps
    for plain, strided in (
        (conv2d(x, w, *rest), conv2d(xs, ws, *rest)),
        (conv2d_input(g, w, x.shape, *rest), conv2d_input(gs, ws, x.shape, *rest)),
        (conv2d_weight(x, g, w.shape, *rest), conv2d_weight(xs, gs, w.shape, *rest)),
    ):
        assert plain.dtype == strided.dtype == dtype
        assert plain.flags.c_contiguous == strided.flags.c_contiguous
        assert plain.flags.c_contiguous or not small
        np.testing.assert_allclose(strided, plain, rtol=tolerance, atol=tolerance * max(1, abs(plain).max(initial=0)))


@ALL_CASES
def test_float32_error_is_within_the_bound_of_a_sum_of_products(case: tuple[Any, ...]) -> None:
    # |error| <= n * u * sum |a * b| for n products (Higham, 2002, section 3.1), whatever the order of the summation.
    x, w, g, rest = draw(case, np.float32)
    x64, w64, g64 = (array.astype(np.float64) for array in (x, w, g))
    unit = np.finfo(np.float32).eps / 2
    for kernel, a, b, a64, b64, tail, products in (
        (conv2d, x, w, x64, w64, (), w[0].size),
        (conv2d_input, g, w, g64, w64, (x.shape,), w[:, 0].size),
        (conv2d_weight, x, g, x64, g64, (w.shape,), g[:, 0].size),
    ):
        exact, magnitude = kernel(a64, b64, *tail, *rest), kernel(abs(a64), abs(b64), *tail, *rest)
        assert (abs(kernel(a, b, *tail, *rest) - exact) <= (products + 1) * unit * magnitude).all()


def extra_bytes(kernel: Any, *args: Any) -> int:
    """What a call takes at its peak besides its result."""
    tracemalloc.start()
    try:
        result = kernel(*args)
        return tracemalloc.get_traced_memory()[1] - result.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", ["3x3", "stem", "pointwise strided", "grouped", "depthwise", "dilated"])
def test_memory_of_im2col_does_not_grow_with_the_batch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block = 1 << 16
    monkeypatch.setattr(im2col, "_BLOCK_BYTES", block)
    monkeypatch.setattr(convolution, "_SMALL", np.inf)
    monkeypatch.setattr(convolution, "_SMALL_DEPTHWISE", np.inf)
    (_, channels, _, _), *others = CASES[case]
    x, w, g, rest = draw(((48, channels, 40, 40), *others), np.float32)
    # columns, strips, and a product or a copy of a gradient: each a block; not even the input once
    assert 4 * block < x.nbytes
    for kernel, args in ((conv2d, (x, w)), (conv2d_input, (g, w, x.shape)), (conv2d_weight, (x, g, w.shape))):
        assert extra_bytes(kernel, *args, *rest) < 4 * block


def test_output_shape_by_pytorchs_formula() -> None:
    assert conv2d_output_shape((32, 3, 224, 224), (64, 3, 7, 7), (2, 2), (3, 3), (1, 1)) == (32, 64, 112, 112)
    assert conv2d_output_shape((0, 3, 10, 11), (4, 3, 2, 3), (3, 4), (0, 0), (1, 2)) == (0, 4, 3, 2)
    assert conv2d_output_shape((1, 1, 2, 2), (1, 1, 3, 3), (1, 1), (0, 0), (1, 1)) == (1, 1, 0, 0)


def test_nan_and_infinity_go_through() -> None:
    x = np.ones((1, 1, 5, 5))
    x[0, 0, 0, 0], x[0, 0, 4, 4] = np.nan, np.inf
    output = conv2d(x, np.ones((1, 1, 3, 3)), (1, 1), (0, 0), (1, 1), 1)
    assert np.isnan(output[0, 0, 0, 0]) and np.isposinf(output[0, 0, 2, 2]) and output[0, 0, 0, 2] == 9


LARGE: dict[str, tuple[Any, ...]] = {
    "3x3": ((8, 32, 24, 20), (40, 32, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "strided": ((8, 32, 24, 21), (64, 32, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "pointwise": ((8, 64, 24, 20), (64, 64, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "stem": ((8, 3, 60, 64), (32, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    "depthwise": ((8, 32, 24, 20), (32, 1, 3, 3), (1, 1), (1, 1), (1, 1), 32),
    "grouped": ((8, 32, 24, 20), (64, 16, 3, 3), (1, 1), (1, 1), (1, 1), 2),
}


@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE.keys())
def test_large_convolutions_give_hwnc_and_weights_in_their_own_order(case: tuple[Any, ...]) -> None:
    x, w, g, rest = draw(case)
    b = np.linspace(-1, 1, len(w))
    output, grad_x, grad_w = (
        conv2d(x, w, *rest, b),
        conv2d_input(g, w, x.shape, *rest),
        conv2d_weight(x, g, w.shape, *rest),
    )
    assert is_hwnc(output) and is_hwnc(grad_x) and grad_w.flags.c_contiguous
    expected = im2col.conv2d(x, w, *rest) + b[:, None, None]
    assert expected.flags.c_contiguous
    np.testing.assert_allclose(output, expected, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(grad_x, im2col.conv2d_input(g, w, x.shape, *rest), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(grad_w, im2col.conv2d_weight(x, g, w.shape, *rest), rtol=1e-10, atol=1e-10)


def test_direct_avoids_winograd_whose_error_is_larger_and_bounded() -> None:
    x, w, g, rest = draw(((8, 64, 24, 24), (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1), np.float32)

    def results() -> tuple[Any, ...]:
        return conv2d(x, w, *rest), conv2d_input(g, w, x.shape, *rest), conv2d_weight(x, g, w.shape, *rest)

    auto = results()
    with backends.convolutions("direct"):
        direct = results()
    double = [array.astype(np.float64) for array in (x, w, g)]
    x, w, g = double
    with backends.convolutions("direct"):
        exact = results()
    for one, other, right in zip(auto, direct, exact, strict=True):
        scale = np.sqrt(np.mean(right**2))
        of_auto, of_direct = (np.sqrt(np.mean((value - right) ** 2)) / scale for value in (one, other))
        assert of_direct < 3e-6 / 6 and of_auto < 3e-6 and 1.5 * of_direct < of_auto


@pytest.mark.parity
@ALL_CASES
def test_equals_pytorch(case: tuple[Any, ...]) -> None:
    torch = pytest.importorskip("torch")
    x, w, g, rest = draw(case)
    tx, tw = (torch.tensor(array, requires_grad=True) for array in (x, w))
    expected = torch.nn.functional.conv2d(tx, tw, None, *rest)
    expected.backward(torch.from_numpy(g))
    np.testing.assert_allclose(conv2d(x, w, *rest), expected.detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(conv2d_input(g, w, x.shape, *rest), tx.grad, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(conv2d_weight(x, g, w.shape, *rest), tw.grad, rtol=1e-12, atol=1e-12)

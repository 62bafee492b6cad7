"""Winograd's convolutions against im2col's and the definition's, for every tile, border and memory order."""

import threading
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from distgrad.kernels.convolution import conv2d_reference
from distgrad.kernels.convolution_plan import ConvolutionShape
from distgrad.kernels.im2col import conv2d, conv2d_input, conv2d_weight
from distgrad.kernels.winograd import WinogradPlan, best_tile
from distgrad.kernels.workspace import Workspace

pytestmark = pytest.mark.usefixtures("both")

TILES = [(stride, tile) for stride in (1, 2) for tile in (2, 3, 4, 5, 6)]


class Hostile(Workspace):
    """Scratch memory that never holds anything useful when it is handed out."""

    def get(self, use, shape, dtype):
        array = super().get(use, shape, dtype)
        array.fill(np.nan)
        return array


def make_shape(n, c, h, w, k, stride=1, padding=(1, 1), dtype=np.float64):
    return ConvolutionShape(n, c, h, w, k, 3, 3, (stride, stride), padding, (1, 1), 1, np.dtype(dtype))


def hwnc(images):
    return np.ascontiguousarray(images.transpose(2, 3, 0, 1))


def nchw(pixels):
    return pixels.transpose(2, 3, 0, 1)


def options(shape):
    return shape.stride, shape.padding, shape.dilation, shape.groups


def operands(shape, seed=0):
    """Input and weight as PyTorch has them, bias, and the gradient of the output."""
    rng = np.random.default_rng(seed)
    sizes = (
        (shape.n, shape.c, shape.h, shape.w),
        (shape.k, shape.c, 3, 3),
        (shape.k,),
        (shape.n, shape.k, shape.out_h, shape.out_w),
    )
    return [rng.standard_normal(size).astype(shape.dtype) for size in sizes]


def run_forward(plan, x, weight, bias=None, space=None, epilogue=None):
    shape = plan.shape
    out = np.full((shape.out_h, shape.out_w, shape.n, shape.k), np.nan, shape.dtype)
    plan.forward(x, plan.pack(weight), out, space or Hostile(), bias, epilogue)
    return out


def run_backward(plan, x, grad, weight, space=None):
    shape = plan.shape
    grad_x = np.full((shape.h, shape.w, shape.n, shape.c), np.nan, shape.dtype)
    grad_weight = np.full(weight.shape, np.nan, shape.dtype)
    plan.backward(x, grad, weight, grad_x, grad_weight, space or Hostile())
    return grad_x, grad_weight


def assert_close(actual, expected, tolerance=1e-11):
    scale = np.abs(expected).max(initial=1e-300)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def check(shape, tile, space=None):
    x, weight, bias, grad = operands(shape)
    plan = WinogradPlan(shape, tile)
    out = run_forward(plan, hwnc(x), weight, bias, space)
    assert_close(out, hwnc(conv2d(x, weight, *options(shape))) + bias)
    grad_x, grad_weight = run_backward(plan, hwnc(x), hwnc(grad), weight, space)
    assert_close(grad_x, hwnc(conv2d_input(grad, weight, x.shape, *options(shape))))
    assert_close(grad_weight, conv2d_weight(x, grad, weight.shape, *options(shape)))


@pytest.mark.parametrize(("stride", "tile"), TILES)
@pytest.mark.parametrize("padding", list(product((0, 1, 2), repeat=2)))
def test_every_size_and_border(stride, tile, padding):
    space = Hostile()
    for size in range(1, 16):
        height, width = size, (7 * size) % 15 + 1
        if min(height + 2 * padding[0], width + 2 * padding[1]) >= 3:
            check(make_shape(2, 3, height, width, 5, stride, padding), tile, space)


@pytest.mark.parametrize(("stride", "tile"), TILES)
@pytest.mark.parametrize("images", [1, 2, 3, 8, 17])
def test_batches_and_channels(stride, tile, images):
    for c, k in ((1, 1), (1, 64), (5, 3), (64, 5), (64, 96), (24, 80)):
        check(make_shape(images, c, 9, 6, k, stride), tile)


@pytest.mark.parametrize(("stride", "tile"), TILES)
def test_against_the_definition(stride, tile):
    shape = make_shape(2, 3, 8, 11, 4, stride)
    x, weight, *_ = operands(shape)
    out = run_forward(WinogradPlan(shape, tile), hwnc(x), weight)
    assert_close(out, hwnc(conv2d_reference(x, weight, *options(shape))))


@pytest.mark.parametrize(("stride", "tile"), TILES)
def test_several_blocks_of_images_and_of_rows(stride, tile, monkeypatch):
    """Blocks of all sizes, a smaller last one among them: nothing is lost where they meet."""
    shape = make_shape(7, 4, 31, 10, 6, stride)
    for share in ("_FORWARD_SHARE", "_BACKWARD_SHARE"):
        monkeypatch.setattr(f"distgrad.kernels.winograd.{share}", 0.0)
    seen = set()
    for kilobytes in (1, 40, 80, 160, 320, 2000):
        monkeypatch.setattr("distgrad.kernels.winograd._BLOCK_BYTES", kilobytes << 10)
        calls = []
        x, weight, *_ = operands(shape)
        run_forward(WinogradPlan(shape, tile), hwnc(x), weight, epilogue=lambda rows, images: calls.append(rows))  # noqa: B023
        seen.add(len(calls))
        check(shape, tile)
    assert len(seen) >= 4


@pytest.mark.parametrize(("stride", "tile"), TILES)
def test_float32_is_as_exact_as_the_plan_says(stride, tile):
    shape = make_shape(4, 64, 23, 20, 64, stride, dtype=np.float32)
    x, weight, _, grad = operands(shape)
    plan = WinogradPlan(shape, tile)
    out = run_forward(plan, hwnc(x), weight)
    grad_x, grad_weight = run_backward(plan, hwnc(x), hwnc(grad), weight)
    doubles = [array.astype(np.float64) for array in (x, weight, grad)]
    x, weight, grad = doubles
    exact = (
        (out, hwnc(conv2d(x, weight, *options(shape)))),
        (grad_x, hwnc(conv2d_input(grad, weight, x.shape, *options(shape)))),
        (grad_weight, conv2d_weight(x, grad, weight.shape, *options(shape))),
    )
    for actual, expected in exact:
        assert actual.dtype == np.float32
        error = np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2))
        assert 0 < error <= plan.error


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_views_with_gaps(stride, dtype):
    """Input and outputs inside larger arrays: the rest of these is not touched."""
    shape = make_shape(3, 5, 12, 9, 7, stride, dtype=dtype)
    x, weight, bias, grad = operands(shape)
    plan = WinogradPlan(shape, 4)

    def inside(pixels):
        h, w, n, c = pixels.shape
        room = np.full((h + 3, w + 2, n + 1, c), np.inf, dtype)
        view = room[2 : 2 + h, 1 : 1 + w, 1:]
        view[...] = pixels
        return room, view

    def rest_is_untouched(room, view):
        view[...] = np.inf
        assert np.isinf(room).all()

    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    expected = run_forward(plan, hwnc(x), weight, bias)
    room, out = inside(np.zeros_like(expected))
    plan.forward(inside(hwnc(x))[1], plan.pack(weight), out, Hostile(), bias)
    assert_close(out, expected, tolerance)
    rest_is_untouched(room, out)

    expected_x, expected_weight = run_backward(plan, hwnc(x), hwnc(grad), weight)
    room, grad_x = inside(np.zeros_like(expected_x))
    grad_weight = np.full((shape.k, shape.c, 3, 4), np.nan, dtype)[..., :3]
    plan.backward(inside(hwnc(x))[1], inside(hwnc(grad))[1], weight, grad_x, grad_weight, Hostile())
    assert_close(grad_x, expected_x, tolerance)
    assert_close(grad_weight, expected_weight, tolerance)
    rest_is_untouched(room, grad_x)


def test_other_memory_orders():
    shape = make_shape(3, 5, 8, 9, 7)
    x, weight, _, grad = operands(shape)
    plan = WinogradPlan(shape, 4)
    expected = run_forward(plan, hwnc(x), weight)
    expected_x, expected_weight = run_backward(plan, hwnc(x), hwnc(grad), weight)
    strided_weight = np.ascontiguousarray(weight.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    for order in (lambda pixels: pixels, lambda pixels: nchw(pixels).copy().transpose(2, 3, 0, 1)):
        np.testing.assert_array_equal(run_forward(plan, order(hwnc(x)), strided_weight), expected)
        grad_x, grad_weight = run_backward(plan, order(hwnc(x)), order(hwnc(grad)), strided_weight)
        np.testing.assert_array_equal(grad_x, expected_x)
        np.testing.assert_array_equal(grad_weight, expected_weight)


@pytest.mark.parametrize(("stride", "tile"), TILES)
def test_the_epilogue_sees_every_result_once_and_finished(stride, tile, monkeypatch):
    shape = make_shape(6, 3, 17, 8, 4, stride)
    monkeypatch.setattr("distgrad.kernels.winograd._BLOCK_BYTES", 20 << 10)
    x, weight, bias, _ = operands(shape)
    plan = WinogradPlan(shape, tile)
    expected = run_forward(plan, hwnc(x), weight, bias)
    seen = np.zeros(expected.shape, int)
    out = np.full(expected.shape, np.nan)

    def negate(rows, images):
        part = out[rows, :, images]
        np.testing.assert_array_equal(part, expected[rows, :, images])
        np.negative(part, out=part)
        seen[rows, :, images] += 1

    plan.forward(hwnc(x), plan.pack(weight), out, Hostile(), bias, negate)
    np.testing.assert_array_equal(seen, 1)
    np.testing.assert_array_equal(out, -expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_one_gradient_without_the_other(stride):
    shape = make_shape(3, 4, 9, 10, 5, stride)
    x, weight, _, grad = operands(shape)
    plan = WinogradPlan(shape, 4)
    expected_x, expected_weight = run_backward(plan, hwnc(x), hwnc(grad), weight)
    grad_x, grad_weight = np.empty_like(expected_x), np.empty_like(expected_weight)
    plan.backward(None, hwnc(grad), weight, grad_x, None, Hostile())
    plan.backward(hwnc(x), hwnc(grad), weight, None, grad_weight, Hostile())
    np.testing.assert_array_equal(grad_x, expected_x)
    np.testing.assert_array_equal(grad_weight, expected_weight)


def test_an_input_without_its_pixels_is_refused():
    shape = make_shape(1, 2, 5, 5, 2)
    _, weight, _, grad = operands(shape)
    with pytest.raises(ValueError, match="gradient of the weight"):
        WinogradPlan(shape, 4).backward(None, hwnc(grad), weight, None, np.empty_like(weight), Workspace())


def test_an_empty_batch():
    shape = make_shape(0, 3, 6, 6, 4)
    x, weight, bias, grad = operands(shape)
    plan = WinogradPlan(shape, 4)
    assert run_forward(plan, hwnc(x), weight, bias).size == 0
    grad_x, grad_weight = run_backward(plan, hwnc(x), hwnc(grad), weight)
    assert grad_x.size == 0
    np.testing.assert_array_equal(grad_weight, 0)


def test_two_threads_share_a_plan():
    shape = make_shape(5, 16, 20, 20, 16)
    plan = WinogradPlan(shape, 4)
    cases = [operands(shape, seed) for seed in range(2)]
    expected = [(run_forward(plan, hwnc(x), w, b), *run_backward(plan, hwnc(x), hwnc(g), w)) for x, w, b, g in cases]
    wrong = []

    def work(index):
        x, weight, bias, grad = cases[index]
        space = Workspace()
        for _ in range(20):
            results = (
                run_forward(plan, hwnc(x), weight, bias, space),
                *run_backward(plan, hwnc(x), hwnc(grad), weight, space),
            )
            wrong.extend(index for a, b in zip(results, expected[index], strict=True) if not np.array_equal(a, b))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "change",
    [
        {"kh": 5},
        {"stride": (1, 2)},
        {"stride": (3, 3)},
        {"dilation": (2, 2)},
        {"groups": 2},
        {"padding": (3, 1)},
        {"dtype": np.dtype(np.float16)},
    ],
)
def test_what_it_is_not_for(change):
    shape = replace(make_shape(2, 4, 8, 8, 4), **change)
    assert best_tile(shape) is None
    with pytest.raises(ValueError, match="WinogradPlan takes 3x3 kernels"):
        WinogradPlan(shape, 4)


def test_a_tile_that_does_not_exist():
    with pytest.raises(ValueError, match="tile=7"):
        WinogradPlan(make_shape(2, 4, 8, 8, 4), 7)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_choice_prefers_what_takes_less_work(frozen):
    def choice(*sizes):
        return best_tile(make_shape(*sizes, dtype=np.float32), frozen)

    assert choice(32, 64, 56, 56, 64) in (4, 5)
    assert choice(32, 256, 14, 14, 256) in (4, 5)
    assert choice(64, 512, 2, 2, 512) == 2  # one tile, exactly
    assert choice(1, 64, 1, 1, 64) is None
    assert choice(0, 64, 9, 9, 64) is None


def test_the_choice_knows_what_weights_cost():
    """A single small image pays for the transform of a large weight only where this is not done again each time."""
    shape = make_shape(1, 512, 7, 7, 512, dtype=np.float32)
    assert best_tile(shape) is None
    assert best_tile(shape, frozen=True) is not None

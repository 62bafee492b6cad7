"""The plans that compute a convolution directly, each against the definition, and which plan a shape gets."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad import backends
from distgrad.kernels import (
    compiled_convolution,
    compiled_stem,
    depthwise_convolution,
    direct_convolution,
    small_products,
    stem_convolution,
)
from distgrad.kernels.compiled_convolution import CompiledPlan
from distgrad.kernels.compiled_stem import CompiledStemPlan
from distgrad.kernels.convolution import conv2d_output_shape, conv2d_reference
from distgrad.kernels.convolution_choice import choose
from distgrad.kernels.convolution_plan import ConvolutionPlan, ConvolutionShape
from distgrad.kernels.depthwise_convolution import DepthwisePlan
from distgrad.kernels.direct_convolution import DirectPlan
from distgrad.kernels.jit.machine import machine
from distgrad.kernels.stem_convolution import StemPlan
from distgrad.kernels.winograd import WinogradPlan
from distgrad.kernels.workspace import Workspace
from tests.kernels.test_convolution import CASES, gradients_by_definition

# Beyond the cases of the eager functions: (input, weight, stride, padding, dilation, groups)
MORE: dict[str, tuple[Any, ...]] = {
    "many channels": ((5, 40, 9, 8), (96, 40, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "width of no panel": ((2, 70, 4, 5), (71, 70, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pointwise, many": ((7, 64, 6, 5), (160, 64, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "pointwise strided, many": ((7, 64, 7, 6), (48, 64, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    "pictures": ((9, 3, 15, 13), (64, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    "pictures, wide": ((2, 3, 4, 70), (32, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "gray, dilated": ((3, 1, 12, 14), (8, 1, 3, 3), (1, 3), (2, 4), (1, 2), 1),
    "depthwise, strided": ((5, 6, 9, 10), (6, 1, 3, 3), (2, 2), (1, 1), (1, 1), 6),
    "depthwise, three kernels, dilated": ((3, 4, 9, 8), (12, 1, 3, 2), (2, 1), (3, 1), (1, 2), 4),
    "depthwise, uncovered": ((2, 3, 10, 11), (3, 1, 2, 2), (4, 3), (0, 0), (1, 1), 3),
    "no pixels": ((2, 3, 0, 4), (4, 3, 1, 2), (1, 1), (1, 1), (1, 1), 1),
}
NEEDS_COMPILER = pytest.mark.skipif(machine() is None, reason="llvmlite is not installed: pip install distgrad[fast]")
PLANS = DirectPlan, StemPlan, DepthwisePlan
# Those of compiled kernels, and a depthwise one of theirs: (input, weight, stride, padding, dilation, groups)
COMPILED: dict[str, tuple[Any, ...]] = {
    "images": ((9, 32, 7, 6), (48, 32, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    "few images": ((2, 16, 9, 15), (32, 16, 3, 3), (1, 2), (1, 2), (2, 1), 1),
    "one image": ((1, 32, 5, 40), (64, 32, 1, 3), (1, 1), (0, 1), (1, 1), 1),
    "pointwise, strided": ((5, 64, 6, 7), (32, 64, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    "strided beyond the kernel": ((4, 16, 10, 11), (16, 16, 2, 2), (4, 3), (0, 0), (1, 1), 1),
    "only padding": ((4, 16, 2, 3), (16, 16, 3, 3), (3, 3), (4, 5), (1, 1), 1),
    "groups of many channels": ((4, 528, 3, 3), (16, 528, 2, 2), (1, 1), (1, 0), (1, 1), 1),
    "many channels out": ((4, 288, 4, 4), (256, 288, 1, 1), (1, 1), (0, 0), (1, 1), 1),
}
COMPILED_STEMS: dict[str, tuple[Any, ...]] = {
    "pictures": ((3, 3, 15, 13), (64, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    "pictures, wide": ((2, 3, 4, 70), (32, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "dilated": ((3, 1, 12, 14), (16, 1, 3, 3), (1, 3), (2, 4), (2, 2), 1),
    "wide kernel": ((2, 2, 5, 40), (48, 2, 1, 15), (1, 1), (0, 7), (1, 1), 1),
    "rows left over": ((2, 3, 10, 11), (16, 3, 2, 2), (4, 3), (0, 0), (1, 1), 1),
}
COMPILED_DEPTHWISE: dict[str, tuple[Any, ...]] = {
    "strided": ((4, 24, 9, 10), (24, 1, 3, 3), (2, 2), (1, 1), (1, 1), 24),
    "dilated": ((2, 80, 9, 8), (80, 1, 3, 2), (2, 1), (3, 1), (1, 2), 80),
    "uncovered": ((1, 16, 10, 11), (16, 1, 2, 2), (4, 3), (0, 0), (1, 1), 16),
}


def _takes(plan: type[ConvolutionPlan], case: tuple[Any, ...]) -> bool:
    (_, c, _, _), _, _, _, dilation, groups = case
    if plan is StemPlan:
        return groups == 1 and dilation[0] == 1
    return plan is DirectPlan or groups == c


COMBINATIONS = pytest.mark.parametrize(
    ("make", "case"),
    [
        pytest.param(plan, case, id=f"{plan.__name__}, {name}")
        for plan in PLANS
        for name, case in {**CASES, **MORE}.items()
        if _takes(plan, case)
    ]
    + [
        pytest.param(plan, case, id=f"{plan.__name__}, compiled, {name}", marks=NEEDS_COMPILER)
        for plan, cases in (
            (CompiledPlan, COMPILED),
            (CompiledStemPlan, COMPILED_STEMS),
            (DepthwisePlan, COMPILED_DEPTHWISE),
        )
        for name, case in cases.items()
    ],
)


def shape_of(case: tuple[Any, ...], dtype: Any = np.float64) -> ConvolutionShape:
    x, w, *rest = case
    return ConvolutionShape(*x, w[0], *w[2:], *rest, np.dtype(dtype))


def draw(case: tuple[Any, ...], dtype: Any = np.float64) -> tuple[Any, Any, Any, Any]:
    """Input, weight, bias, and output gradient, logically (N, C, H, W)."""
    random = np.random.default_rng(3)
    x, w, *rest = case
    shapes = x, w, w[:1], conv2d_output_shape(x, w, *rest[:3])
    x, w, b, g = (random.standard_normal(shape).astype(dtype) for shape in shapes)
    return x, w, b, g


@functools.cache
def gradients(case: tuple[Any, ...]) -> tuple[Any, Any]:
    x, w, _, g = draw(case)
    return gradients_by_definition(x, w, g, case[2:])


def hwnc(images: Any) -> Any:
    return np.ascontiguousarray(images.transpose(2, 3, 0, 1))


class Hostile(Workspace):
    """Scratch memory full of NaN at every request."""

    def get(self, use: str, shape: tuple[int, ...], dtype: Any) -> Any:
        memory = super().get(use, shape, dtype)
        memory.fill(np.nan)
        return memory


def forward(plan: ConvolutionPlan, x: Any, w: Any, space: Any = None, bias: Any = None, epilogue: Any = None) -> Any:
    """The result, (Ho, Wo, N, K), computed into the middle of an array of NaN with gaps between rows and pixels."""
    s = plan.shape
    around = np.full((s.out_h + 2, s.out_w + 3, s.n, s.k), np.nan, s.dtype)
    out = around[1:-1, 2:-1]
    plan.forward(x, plan.pack(w), out, space or Hostile(), bias, epilogue and epilogue(out))
    assert np.isnan(around[[0, -1]]).all() and np.isnan(around[:, [0, 1, -1]]).all()
    return out


def backward(plan: ConvolutionPlan, x: Any, g: Any, w: Any, space: Any = None) -> tuple[Any, Any]:
    s = plan.shape
    around = np.full((s.h + 1, s.w + 2, s.n, s.c), np.nan, s.dtype)
    grad_x, grad_w = around[1:, 1:-1], np.full(w.shape[::-1], np.nan, s.dtype).T
    plan.backward(x, g, w, grad_x, grad_w, space or Hostile())
    assert np.isnan(around[0]).all() and np.isnan(around[:, [0, -1]]).all()
    return grad_x, grad_w


def close(found: Any, expected: Any, error: float = 1e-11) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=error * np.abs(expected).max(initial=1e-300))


@pytest.fixture(params=["whole matrices", "pieces", "small pieces and blocks", "smallest blocks"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With kernels that copy their operands and with those that do not; with many pieces and blocks of few rows."""
    monkeypatch.setattr(small_products, "pieces_pay", lambda: "pieces" in request.param)
    if request.param == "small pieces and blocks":
        monkeypatch.setattr(small_products, "_SMALL", 12 * 32 * 64)
        monkeypatch.setattr(small_products, "_LEAST_SUMMED", 2)
        monkeypatch.setattr(stem_convolution, "_STRIPS", 5)
        monkeypatch.setattr(small_products, "_SUMMED_BYTES", 4000)
    if "blocks" in request.param:
        for module, names in (
            (direct_convolution, ("_COLUMN_BYTES", "_PIXEL_BYTES", "_WEIGHT_BYTES")),
            (stem_convolution, ("_STRIP_BYTES", "_SUMMED_BYTES")),
            (compiled_convolution, ("_BLOCK_BYTES", "_SUMMED")),
            (compiled_stem, ("_BLOCK_BYTES", "_PICTURE_BYTES")),
            (depthwise_convolution, ("_BLOCK_BYTES", "_RUN", "_SUMMED_WINDOWS")),
        ):
            for name in names:
                monkeypatch.setattr(module, name, 1 if request.param == "smallest blocks" else 4000)


@COMBINATIONS
@pytest.mark.usefixtures("ways")
def test_forward_equals_the_definition(make: Callable[..., ConvolutionPlan], case: tuple[Any, ...]) -> None:
    x, w, b, g = draw(case)
    expected = conv2d_reference(x, w, *case[2:]).transpose(2, 3, 0, 1)
    plan = make(shape_of(case))
    seen = np.zeros((g.shape[2], g.shape[0]), int)

    def note(out: Any) -> Any:
        def epilogue(rows: slice, images: slice) -> None:
            seen[rows, images] += 1
            close(out[rows, :, images], expected[rows, :, images] + b)  # complete, with its bias

        return epilogue

    close(forward(plan, hwnc(x), w), expected)
    close(forward(plan, hwnc(x), w, bias=b, epilogue=note), expected + b)
    assert (seen == 1).all() or not expected.size


@COMBINATIONS
@pytest.mark.usefixtures("ways")
def test_gradients_equal_the_definition(make: Callable[..., ConvolutionPlan], case: tuple[Any, ...]) -> None:
    x, w, _, g = draw(case)
    expected_x, expected_w = gradients(case)
    plan = make(shape_of(case))
    grad_x, grad_w = backward(plan, hwnc(x), hwnc(g), w)
    close(grad_x, expected_x.transpose(2, 3, 0, 1))
    close(grad_w, expected_w)
    alone = np.empty_like(w)
    plan.backward(hwnc(x), hwnc(g), w, None, alone, Hostile())
    np.testing.assert_array_equal(alone, grad_w)
    alone = np.empty(hwnc(x).shape)
    plan.backward(None, hwnc(g), w, alone, None, Hostile())
    np.testing.assert_array_equal(alone, grad_x)


@COMBINATIONS
def test_any_order_of_memory(make: Callable[..., ConvolutionPlan], case: tuple[Any, ...]) -> None:
    """Images as they are stored in files, a part of larger images, and reversed ones."""
    x, w, _, g = draw(case)
    plan = make(shape_of(case))
    expected = forward(plan, hwnc(x), w), *backward(plan, hwnc(x), hwnc(g), w)

    def part(images: Any) -> Any:
        h, width, n, c = images.shape
        larger = np.full((h + 1, 2 * width + 1, n + 1, c + 2), np.nan)
        larger[1:, 1::2, 1:, 2:] = images
        return larger[1:, 1::2, 1:, 2:]

    def reversed_memory(images: Any) -> Any:
        return np.ascontiguousarray(images[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1]

    for order in (lambda images: np.ascontiguousarray(images.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1), part):
        xs, gs = order(hwnc(x)), order(hwnc(g))
        for found, plain in zip((forward(plan, xs, w), *backward(plan, xs, gs, w)), expected, strict=True):
            close(found, plain)
    xs, ws, gs = map(reversed_memory, (hwnc(x), w, hwnc(g)))
    for found, plain in zip((forward(plan, xs, ws), *backward(plan, xs, gs, ws)), expected, strict=True):
        close(found, plain)


@pytest.mark.parametrize("pay", [False, True])
@pytest.mark.parametrize(
    ("make", "case"),
    [
        (DirectPlan, ((4, 64, 20, 20), (96, 64, 3, 3), (2, 2), (1, 1), (1, 1), 1)),
        (DirectPlan, ((4, 256, 20, 20), (96, 256, 1, 1), (1, 1), (0, 0), (1, 1), 1)),
        (StemPlan, ((4, 3, 64, 64), (64, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1)),
        (DepthwisePlan, ((4, 64, 30, 30), (64, 1, 3, 3), (1, 1), (1, 1), (1, 1), 64)),
        pytest.param(
            CompiledPlan,
            ((4, 512, 20, 20), (96, 512, 3, 3), (2, 2), (1, 1), (1, 1), 1),
            marks=NEEDS_COMPILER,
        ),
        pytest.param(
            CompiledStemPlan,
            ((4, 3, 64, 64), (64, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
            marks=NEEDS_COMPILER,
        ),
    ],
)
def test_float32_is_as_exact_as_the_plan_says(
    make: Callable[..., ConvolutionPlan], case: tuple[Any, ...], pay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_products, "pieces_pay", lambda: pay)
    x, w, _, g = draw(case, np.float32)
    plan, exact = make(shape_of(case, np.float32)), make(shape_of(case))
    found = forward(plan, hwnc(x), w), *backward(plan, hwnc(x), hwnc(g), w)
    x, w, g = (array.astype(np.float64) for array in (x, w, g))
    expected = forward(exact, hwnc(x), w), *backward(exact, hwnc(x), hwnc(g), w)
    # a weight's gradient is a sum of as many products as there are pixels
    for value, right, bound in zip(found, expected, (3, 3, 10), strict=True):
        assert value.dtype == np.float32
        assert np.sqrt(np.mean((value - right) ** 2) / np.mean(right**2)) < bound * plan.error


def test_the_input_is_needed_for_the_gradient_of_the_weight() -> None:
    case = (1, 2, 4, 4), (2, 1, 3, 3), (1, 1), (1, 1), (1, 1), 2
    _, w, _, g = draw(case)
    for make in (DirectPlan, DepthwisePlan):
        with pytest.raises(ValueError, match="needs the input x"):
            make(shape_of(case)).backward(None, hwnc(g), w, None, np.empty_like(w), Workspace())
    case = (1, 2, 4, 4), (2, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1
    _, w, _, g = draw(case)
    with pytest.raises(ValueError, match="needs the input x"):
        StemPlan(shape_of(case)).backward(None, hwnc(g), w, None, np.empty_like(w), Workspace())


def test_shapes_that_a_plan_cannot_compute_are_refused() -> None:
    with pytest.raises(ValueError, match=r"groups=3.*DirectPlan"):
        StemPlan(shape_of(MORE["depthwise, uncovered"]))
    with pytest.raises(ValueError, match=r"groups=1 for C=3.*DirectPlan"):
        DepthwisePlan(shape_of(MORE["pictures"]))


@NEEDS_COMPILER
def test_the_choice_of_compiled_plans() -> None:
    def chosen(case: tuple[Any, ...], algorithm: Any = "auto") -> type[ConvolutionPlan]:
        return type(choose(shape_of(case, np.float32), algorithm))

    block = (32, 64, 56, 56), (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1
    assert chosen(block) is WinogradPlan and chosen(block, "direct") is CompiledPlan
    assert chosen(((32, 64, 56, 56), (128, 64, 3, 3), (2, 2), (1, 1), (1, 1), 1)) is CompiledPlan
    assert chosen(((32, 64, 56, 56), (60, 64, 1, 1), (1, 1), (0, 0), (1, 1), 1)) is DirectPlan
    assert chosen(((32, 3, 224, 224), (64, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1)) is CompiledStemPlan
    with backends.jits("off"):
        assert chosen(block, "direct") is DirectPlan
        with pytest.raises(ValueError, match="llvmlite"):
            CompiledPlan(shape_of(block))


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "jit", "off")

    def chosen(case: tuple[Any, ...], algorithm: Any = "auto") -> type[ConvolutionPlan]:
        return type(choose(shape_of(case, np.float32), algorithm))

    block = (32, 64, 56, 56), (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1
    assert chosen(block) is WinogradPlan and chosen(block, "direct") is DirectPlan
    assert chosen(((32, 64, 56, 56), (64, 64, 1, 1), (1, 1), (0, 0), (1, 1), 1)) is DirectPlan
    assert chosen(((32, 64, 56, 56), (64, 32, 3, 3), (1, 1), (1, 1), (1, 1), 2)) is DirectPlan
    assert chosen(((32, 3, 224, 224), (64, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1)) is StemPlan
    assert chosen(((32, 3, 224, 224), (64, 3, 7, 7), (2, 2), (3, 3), (2, 1), 1)) is DirectPlan
    assert chosen(((32, 64, 56, 56), (64, 1, 3, 3), (1, 1), (1, 1), (1, 1), 64)) is DepthwisePlan
    assert choose(shape_of(block), "auto") is choose(shape_of(block), "auto")


def test_threads_share_a_plan() -> None:
    """Eight threads at once, each with scratch memory of its own and other images."""
    case = (4, 16, 20, 20), (32, 16, 3, 3), (2, 2), (1, 1), (1, 1), 1
    plan = DirectPlan(shape_of(case))
    x, w, _, _ = draw(case)
    wrong = []

    def work(number: int) -> None:
        images, space = hwnc(x + number), Workspace()
        expected = forward(plan, images, w)
        wrong.extend(n for n in range(20) if not np.array_equal(forward(plan, images, w, space), expected))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["many channels", "pictures", "depthwise, strided", "pointwise strided, many"])
def test_scratch_memory_does_not_grow_with_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = MORE[name]
    for module, attribute in (
        (direct_convolution, "_COLUMN_BYTES"),
        (direct_convolution, "_WEIGHT_BYTES"),
        (stem_convolution, "_STRIP_BYTES"),
    ):
        monkeypatch.setattr(module, attribute, 1 << 17)
    monkeypatch.setattr(depthwise_convolution, "_RUN", 60)
    used = []
    for images in (32, 128):
        larger = (images, *case[0][1:]), *case[1:]
        plan, space = choose(shape_of(larger), "direct"), Workspace()
        x, w, _, g = draw(larger)
        forward(plan, hwnc(x), w, space)
        plan.backward(hwnc(x), hwnc(g), w, None, np.empty_like(w), space)
        used.append(space.nbytes)
    assert used[1] <= 1.5 * used[0]

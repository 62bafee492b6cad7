"""Compiled kernels against NumPy's, and how they are compiled, kept and left out."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad import backends, optim
from distgrad import tensor as make_tensor
from distgrad.kernels import fused_norm
from distgrad.kernels.compiled_convolution import CompiledPlan
from distgrad.kernels.compiled_stem import CompiledStemPlan
from distgrad.kernels.convolution_plan import ConvolutionPlan, ConvolutionShape, Finish
from distgrad.kernels.depthwise_convolution import DepthwisePlan
from distgrad.kernels.jit import channels, descent, linear, machine, max_pooling, object_store, tile_transform
from distgrad.kernels.jit import weight_transform as weights
from distgrad.kernels.jit.code import INT, POINTER, Code
from distgrad.kernels.pixel_pooling import Window, max_pool, max_pool_backward
from distgrad.kernels.winograd import WinogradPlan
from distgrad.kernels.workspace import Workspace

pytestmark = pytest.mark.skipif(
    machine.machine() is None, reason="llvmlite is not installed: pip install distgrad[fast]"
)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CACHES = (
    tile_transform.tile_transform, weights._compiled, channels._compiled, channels._period, descent._compiled,
    max_pooling._forward, max_pooling._backward,
)  # fmt: skip


@pytest.fixture(params=[64, 32, 16])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of a vector, as other processors have them; LLVM cuts those that this one lacks."""
    found = machine._machine()
    assert found is not None
    monkeypatch.setattr(found, "vector_bytes", request.param)
    for cache in CACHES:
        cache.cache_clear()
    yield request.param
    monkeypatch.undo()
    for cache in CACHES:
        cache.cache_clear()


def random(*shape: int, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def tolerance(dtype: Any) -> float:
    return 1e-12 if dtype == np.float64 else 2e-5


@pytest.mark.parametrize("shape", [(6, 6), (4, 6), (3, 7), (1, 2)])
def test_products_with_matrices_in_pairs(shape: tuple[int, int]) -> None:
    """Rows and columns that differ in signs, some numbers 0, 1 and -1."""
    numbers = np.random.default_rng(1)
    matrix = numbers.choice([0.0, 1.0, -1.0, 0.5, 2.0], shape)
    matrix[-1] = matrix[0] * np.where(np.arange(shape[1]) % 2, -1, 1)
    matrix[:, -1] = matrix[:, 0] * np.where(np.arange(shape[0]) % 2, 1, -1)
    parameters = [("source", POINTER), ("target", POINTER)]

    def write(code: Code, matrix: Any) -> None:
        a = code.arguments
        size = code.lanes * code.item
        vectors = [code.load(code.at(a["source"], size * k)) for k in range(matrix.shape[1])]
        for k, value in enumerate(linear.product(code, matrix, vectors)):
            code.store(value, code.at(a["target"], size * k))

    dtype = np.dtype(np.float64)
    source = random(shape[1], machine.lanes(dtype))
    target = np.full((shape[0], machine.lanes(dtype)), np.nan)
    machine.compiled(parameters, dtype, write, matrix)(tile_transform.address(source), tile_transform.address(target))
    np.testing.assert_allclose(target, matrix @ source, rtol=0, atol=1e-13)


def case(n: int, c: int, h: int, w: int, k: int, kernel: int, stride: int, groups: int = 1) -> ConvolutionShape:
    pads = (kernel // 2,) * 2
    return ConvolutionShape(n, c, h, w, k, kernel, kernel, (stride,) * 2, pads, (1, 1), groups, np.dtype(np.float64))


PLANS: dict[str, ConvolutionPlan] = {}
if machine.machine() is not None:
    PLANS = {
        "winograd": WinogradPlan(case(8, 16, 11, 9, 16, 3, 1), 4),
        "compiled": CompiledPlan(case(8, 16, 11, 9, 16, 3, 2)),
        "stem": CompiledStemPlan(case(3, 3, 21, 19, 16, 7, 2)),
        "depthwise": DepthwisePlan(case(8, 16, 11, 9, 16, 3, 1, groups=16)),
    }


@pytest.mark.parametrize("activation", [None, "relu", (-0.5, 0.25)])
@pytest.mark.parametrize("residual", ["none", "alike", "with gaps"])
@pytest.mark.parametrize("name", PLANS)
def test_what_follows_a_convolution_is_done_while_it_is_written(name: str, residual: str, activation: Any) -> None:
    plan = PLANS[name]
    s = plan.shape
    x, weight, bias = random(s.h, s.w, s.n, s.c), random(s.k, s.c // s.groups, s.kh, s.kw), random(s.k)
    out = np.full((s.out_h, s.out_w, s.n, s.k), np.nan)
    extra = None if residual == "none" else random(s.out_h, s.out_w + 1, s.n, s.k)[:, :-1]
    if residual == "alike":
        assert extra is not None
        extra = extra.copy()
    plan.forward(x, plan.pack(weight), out, Workspace(), bias)
    expected = out + (0 if extra is None else extra)
    if activation is not None:
        expected = np.clip(expected, *((0, math.inf) if activation == "relu" else activation))
    out.fill(np.nan)
    plan.forward(x, plan.pack(weight), out, Workspace(), bias, Finish(out, extra, activation))
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)


@DTYPES
def test_the_weights_transform_and_its_adjoint(dtype: Any, width: int) -> None:
    g, weight = random(6, 3), random(16, 32, 3, 3, dtype=dtype)
    packed = np.full((6, 6, 2, 16, 16), np.nan, dtype)
    assert weights.takes(16, weight)
    weights.transform_weight(weight, g, packed)
    expected = np.einsum("ai,uvij,bj->abuv", g, weight, g)
    blocked = expected.reshape(6, 6, 16, 2, 16).transpose(0, 1, 3, 2, 4)
    np.testing.assert_allclose(packed, blocked, rtol=0, atol=tolerance(dtype) * 10)
    back = np.full_like(weight, np.nan)
    weights.gather_weight(packed, g, back)
    expected = np.einsum("ai,abuv,bj->uvij", g, expected, g)
    np.testing.assert_allclose(back, expected, rtol=0, atol=tolerance(dtype) * 300)


@DTYPES
@pytest.mark.parametrize("channel_count", [24, 64])
@pytest.mark.parametrize("gaps", [False, True])
def test_passes_over_channels(dtype: Any, channel_count: int, gaps: bool, width: int) -> None:
    """Each kind against NumPy's kernel; NaN and infinity go where NumPy's go."""
    shape = 7, 8, 8, channel_count

    def images(seed: int) -> Any:
        around = np.random.default_rng(seed).standard_normal((7, 9, 8, channel_count)).astype(dtype)
        return around[:, :-1] if gaps else around[:, :-1].copy()

    z, grad, extra, output = (images(seed) for seed in range(4))
    output[0, 0] = 0
    output[0, 1] = np.nan
    grad[1, 0, 0, :2] = np.inf
    scale, shift, mean = (np.random.default_rng(seed).standard_normal(channel_count) for seed in (5, 6, 7))
    assert channels.takes(z, grad)

    def results() -> list[Any]:
        found: list[Any] = []
        for center, residual, activation in ((None, None, "relu"), (mean, extra, (-1.0, 0.5)), (None, extra, None)):
            out = np.full(shape, np.nan, dtype)
            fused_norm.normalize(z, scale, shift, out, center=center, residual=residual, activation=activation)
            found.append(out)
        statistics = fused_norm.ChannelStatistics(channel_count, dtype)
        statistics.add(z + dtype(3))
        statistics.add(z)
        found += statistics.result()[:2]
        for activation in (None, "relu", (-1.0, 0.5)):
            masked = np.full(shape, np.nan, dtype)
            finite = np.where(np.isfinite(grad), grad, 0)
            sums = fused_norm.masked_gradient_sums(
                finite, z, mean, masked, output=output, activation=activation, centered=activation is None
            )
            found += [*sums, masked if activation else z]
            out, kept = np.full(shape, np.nan, dtype), np.full(shape, np.nan, dtype)
            fused_norm.scale_gradient(grad, scale, out, output=output, activation=activation, masked=kept)
            found += [out, kept]
            fused_norm.mask_gradient(grad, output, activation, kept)
            found.append(kept)
        for centered in (False, True):
            out = grad.copy()
            fused_norm.normalize_backward(out, z, scale, mean, shift, mean, out, centered=centered)
            found.append(out)
        return found

    compiled = results()
    with backends.jits("off"):
        expected = results()
    for value, right in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(value, right, rtol=tolerance(dtype), atol=tolerance(dtype) * 20)


def test_statistics_of_one_row_of_pixels_far_from_zero() -> None:
    block = (random(1, 64, 4, 32) + 1e6).astype(np.float64)
    mean, var, _ = fused_norm.channel_statistics(block)
    np.testing.assert_allclose(mean, block.mean(axis=(0, 1, 2)), rtol=1e-14)
    np.testing.assert_allclose(var, block.var(axis=(0, 1, 2)), rtol=1e-9)


@DTYPES
@pytest.mark.usefixtures("width")
@pytest.mark.parametrize(
    "window", [((3, 3), (2, 2), (1, 1)), ((2, 3), (1, 2), (1, 0), (2, 1)), ((2, 2), (3, 3), (0, 0))]
)
def test_max_pooling_with_ties_and_nan(dtype: Any, window: Any) -> None:
    window = Window(*window)
    x = np.random.default_rng(0).integers(-3, 3, (9, 10, 4, 16)).astype(dtype)
    x[2, 3, :, :3] = x[3, 3, :, 2:4] = np.nan
    x[4, 4] = -np.inf
    sizes = [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, pad, dilation in zip((9, 10), *window, strict=True)
    ]
    grad = random(*sizes, 4, 16, dtype=dtype)

    def results() -> list[Any]:
        out, only = np.empty(grad.shape, dtype), np.empty(grad.shape, dtype)
        places, grad_x = np.empty(grad.shape, np.uint8), np.full(x.shape, np.nan, dtype)
        max_pool(x, out, window, places)
        max_pool(x, only, window)
        max_pool_backward(grad, places, grad_x, window)
        return [out, only, places, grad_x]

    compiled = results()
    with backends.jits("off"):
        expected = results()
    for value, right in zip(compiled[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(value, right)
    np.testing.assert_allclose(compiled[3], expected[3], rtol=0, atol=tolerance(dtype))


@DTYPES
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    ],
)
def test_a_step_of_descent_has_the_bits_of_numpys(dtype: Any, options: dict[str, Any], width: int) -> None:
    start, gradients = random(70, 1201, dtype=dtype), random(3, 70, 1201, dtype=dtype)

    def trained() -> list[Any]:
        param = make_tensor(start.copy(), requires_grad=True)
        sgd = optim.SGD([param], lr=0.3, **options)
        for gradient in gradients:
            param.grad = make_tensor(gradient)
            sgd.step()
        state = sgd.state[param].get("momentum_buffer")
        return [param.detach().numpy(), *([] if state is None else [state.numpy()])]

    assert descent.takes(start)
    compiled = trained()
    with backends.jits("off"):
        expected = trained()
    for value, right in zip(compiled, expected, strict=True):
        np.testing.assert_array_equal(value, right)


def test_an_image_has_the_same_bits_in_any_company() -> None:
    for shape, make in (
        (case(12, 32, 12, 10, 32, 3, 2), CompiledPlan),
        (case(12, 3, 21, 19, 32, 7, 2), CompiledStemPlan),
    ):
        x = random(shape.h, shape.w, 12, shape.c)
        weight = random(shape.k, shape.c, shape.kh, shape.kw)

        def result(
            images: slice, shape: ConvolutionShape = shape, make: Any = make, x: Any = x, weight: Any = weight
        ) -> Any:
            part = np.ascontiguousarray(x[:, :, images])
            plan = make(ConvolutionShape(part.shape[2], *list(shape.__dict__.values())[1:]))
            out = np.empty((shape.out_h, shape.out_w, part.shape[2], shape.k))
            plan.forward(part, plan.pack(weight), out, Workspace())
            return out

        whole = result(slice(0, 12))
        for images in (slice(3, 4), slice(2, 7), slice(1, 12)):
            np.testing.assert_array_equal(result(images), whole[:, :, images])


def test_threads_compile_and_run_at_once() -> None:
    plan = PLANS["compiled"]
    s = plan.shape
    x, weight = random(s.h, s.w, s.n, s.c), random(s.k, s.c, s.kh, s.kw)
    expected = np.empty((s.out_h, s.out_w, s.n, s.k))
    plan.forward(x, plan.pack(weight), expected, Workspace())
    wrong: list[int] = []

    def work(number: int) -> None:
        space, out = Workspace(), np.empty_like(expected)
        for _ in range(10):
            plan.forward(x, plan.pack(weight), out, space)
            if not np.array_equal(out, expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_kept_functions_are_read_again_unless_they_are_damaged(tmp_path: Path) -> None:
    store = object_store.ObjectStore(tmp_path / "jit")
    assert store.read("a") is None
    store.write("a", b"code")
    assert store.read("a") == b"code"
    path = tmp_path / "jit" / "a.o"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert store.read("a") is None
    path.write_bytes(b"")
    assert store.read("a") is None
    assert [file.name for file in (tmp_path / "jit").iterdir()] == ["a.o"]


def test_the_oldest_functions_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_MOST_FILES", 4)
    for number in range(8):
        object_store.ObjectStore(tmp_path).write(str(number), b"code")
    assert object_store.ObjectStore(tmp_path).read("7") == b"code"
    assert len(list(tmp_path.iterdir())) <= 4


def test_without_a_place_to_write_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = object_store.ObjectStore(tmp_path / "file" / "jit")
    store.write("a", b"code")
    assert store.read("a") is None


def test_the_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTGRAD_HOME", str(tmp_path))
    assert object_store.cache_folder() == tmp_path / "jit"
    monkeypatch.delenv("DISTGRAD_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert object_store.cache_folder() == tmp_path / "distgrad" / "jit"


def test_what_results_depend_on() -> None:
    assert machine.identity().startswith("llvmlite ")
    with backends.jits("off"):
        assert machine.identity() == "numpy"
        assert machine.machine() is None
    with pytest.raises(ValueError, match="'auto' or 'off'"), backends.jits("on"):  # type: ignore[arg-type]
        pass


def test_small_work_does_not_import_the_compiler() -> None:
    program = (
        "import sys, distgrad as dg\n"
        "from distgrad import nn\n"
        "model = nn.Linear(512, 10)\n"
        "sgd = dg.optim.SGD(model.parameters(), lr=0.1)\n"
        "model(dg.randn(8, 512)).sum().backward()\n"
        "sgd.step()\n"
        "print('llvmlite' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False", done.stdout


def test_names_are_types_that_the_compiler_knows() -> None:
    code = Code("f", [("n", INT)], 4, 8)
    assert code.vector == "<8 x float>" and code.constant(1, INT).name == "1"
    assert code.constant(0.5, "float").name == "0x3FE0000000000000"

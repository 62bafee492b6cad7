"""Behaviour of convolution, pooling, padding and interpolation that the table has no column for."""

from __future__ import annotations

import gc
import math
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.nn import functional as F
from distgrad.ops import pooling

NAN, INF = math.nan, math.inf


def leaf(*shape: int, seed: int = 0, dtype: Any = np.float32) -> dg.Tensor:
    return dg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


CALLS: dict[str, Any] = {
    "conv1d": lambda x: F.conv1d(x.reshape(2, 2, 16), dg.ones(2, 2, 3, dtype=x.dtype), dg.ones(2, dtype=x.dtype)),
    "conv2d": lambda x: F.conv2d(x, dg.ones(3, 2, 3, 3, dtype=x.dtype), dg.ones(3, dtype=x.dtype), padding="same"),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, dg.ones(2, 3, 2, 2, dtype=x.dtype), dg.ones(3, dtype=x.dtype)),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool2d, indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 3),
    "lp_pool2d": lambda x: F.lp_pool2d(x, 2, 2),
    "pad": lambda x: F.pad(x, (1, 2)),
    "pad, reflect": lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
    "bilinear": lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
    "bicubic, antialias": lambda x: F.interpolate(x, size=3, mode="bicubic", antialias=True),
    "area": lambda x: F.interpolate(x, size=3, mode="area"),
    "nearest": lambda x: F.interpolate(x, size=7),
    "unfold": lambda x: F.unfold(x, 2),
    "fold": lambda x: F.fold(x.reshape(2, 8, 4), 3, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.reshape(2, 8, 2, 2), 2),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_stay(name: str, dtype: Any) -> None:
    x = leaf(2, 2, 4, 4, dtype=dtype)
    out = CALLS[name](x)
    assert out.dtype == dtype
    for create_graph in (False, True):
        (grad,) = dg.autograd.grad(out.sum(), [x], create_graph=create_graph, retain_graph=True)
        assert grad.dtype == dtype and grad.shape == x.shape
    if dtype == np.float16:  # rounded once, not at every step
        exact = CALLS[name](dg.tensor(x.detach().numpy().astype(np.float64)))
        np.testing.assert_allclose(out.detach().numpy(), exact.numpy(), rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_integers(dtype: Any) -> None:
    x = dg.tensor(np.arange(1, 17, dtype=dtype).reshape(1, 1, 4, 4))
    assert F.max_pool2d(x, 2).tolist() == [[[[6, 8], [14, 16]]]]
    assert F.max_pool2d(x, 2, return_indices=True)[1].tolist() == [[[[5, 7], [13, 15]]]]
    assert F.pad(x[..., :1, :2], (1, 1), value=9).tolist() == [[[[9, 1, 2, 9]]]]
    assert F.pad(x[0, :, :1], (1, 0, 0, 0), mode="replicate").tolist() == [[[1, 1, 2, 3, 4]]]
    assert F.unfold(x, 3).shape == (1, 9, 4) and F.unfold(x, 3).dtype == dtype
    out = F.conv2d(x, dg.ones(1, 1, 2, 2, dtype=dtype), dg.ones(1, dtype=dtype))
    assert out.dtype == dtype and out[0, 0, 0].tolist() == [15, 19, 23]
    for result in (F.max_pool2d(x, 2), F.pad(x, (1, 1)), F.pixel_shuffle(x.reshape(4, 2, 2), 2)):
        assert result.dtype == dtype


def test_bool_masks_can_be_padded_and_enlarged() -> None:
    mask = dg.tensor([[True, False]])
    assert F.pad(mask, (1, 1)).tolist() == [[False, True, False, False]]
    assert F.pad(mask, (1, 0), value=True).tolist() == [[True, True, False]]
    assert F.pad(mask, (1, 1), mode="replicate").tolist() == [[True, True, False, False]]


# What is kept ---------------------------------------------------------------------------------------------------------


def kept(function: Any) -> tuple[dg.Tensor, int]:
    """A result, and the bytes that stay allocated with it besides its own."""
    function()  # after which the thread has its scratch memory
    tracemalloc.start()
    try:
        out = function()
        gc.collect()
        return out, tracemalloc.get_traced_memory()[0] - out.detach().numpy().nbytes
    finally:
        tracemalloc.stop()


SMALL = 16 << 10  # nodes and shapes; the arrays here are larger


def test_pooling_keeps_small_indices_and_no_image() -> None:
    for size, itemsize in ((16, 1), (100, 2)):
        x = leaf(64, 16, size, size) if size == 16 else leaf(4, 8, size, size)
        out, extra = kept(lambda x=x: F.max_pool2d(x, 3, 2, 1))
        assert abs(extra - out.numel()) < SMALL  # the number of the tap is a byte whatever the size
        for pool in (
            lambda x=x: F.max_pool2d(x, 2, return_indices=True)[0],
            lambda x=x: F.adaptive_max_pool2d(x, 4),
        ):
            out, extra = kept(pool)
            assert abs(extra - out.numel() * itemsize) < SMALL
        for pool in (lambda x=x: F.avg_pool2d(x, 2), lambda x=x: F.adaptive_avg_pool2d(x, 3)):
            assert kept(pool)[1] < SMALL


def test_convolutions_keep_no_columns_and_no_copies() -> None:
    x, w, b = leaf(32, 8, 24, 24), leaf(4, 8, 3, 3, seed=1), leaf(4, seed=2)
    assert kept(lambda: F.conv2d(x, w, b, 1, 1))[1] < SMALL
    assert kept(lambda: F.conv2d(x, leaf(4, 8, 2, 2), b, padding="same"))[1] < SMALL  # uneven
    assert kept(lambda: F.conv_transpose2d(x, leaf(8, 4, 3, 3), b, 2, 1, 1))[1] < SMALL
    assert kept(lambda: F.conv1d(x.reshape(32, 8, 576), leaf(4, 8, 3), b, 2))[1] < SMALL


@pytest.mark.parametrize("frozen", ["input", "weight"])
def test_a_convolution_keeps_an_operand_only_for_the_other(frozen: str) -> None:
    operands = {"input": leaf(1, 2, 4, 4) * 1, "weight": leaf(3, 2, 2, 2) * 1}
    operands[frozen] = operands[frozen].detach()
    arrays = {name: weakref.ref(tensor._data) for name, tensor in operands.items()}
    out = F.conv2d(operands.pop("input"), operands.pop("weight"), leaf(3))
    gc.collect()
    assert out.requires_grad
    # the frozen one makes the other's gradient; nobody needs the other one's values
    assert arrays.pop(frozen)() is not None
    assert [array() for array in arrays.values()] == [None]


def test_padding_and_interpolation_keep_no_image() -> None:
    x = leaf(32, 8, 24, 24)
    assert kept(lambda: F.pad(x, (1, 1)))[1] < SMALL
    assert kept(lambda: F.pad(x, (1, 1, 2, 0), "circular"))[1] < SMALL
    assert kept(lambda: F.interpolate(x, size=32, mode="bilinear"))[1] < SMALL


def test_the_bias_is_added_in_place() -> None:
    out = F.conv2d(leaf(1, 2, 4, 4), leaf(3, 2, 2, 2), leaf(3))
    assert repr(out.grad_fn).startswith("<ConvolutionBackward0")


# Values at edges ------------------------------------------------------------------------------------------------------


def test_ties_and_nan() -> None:
    x = dg.tensor([[[1.0, 3.0, 3.0, NAN, NAN, 0.0]]], requires_grad=True)
    for function in (F.max_pool1d, F.adaptive_max_pool1d):
        values, indices = function(x, 3, return_indices=True) if function is F.max_pool1d else function(x, 2, True)
        assert indices.tolist() == [[[1, 4]]]
        assert values.tolist()[0][0][0] == 3.0 and math.isnan(values.tolist()[0][0][1])
        (grad,) = dg.autograd.grad(values.sum(), [x])
        assert grad.tolist() == [[[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]]]


def test_infinities_stay_where_they_are() -> None:
    x = dg.tensor([[[0.0, 1.0, INF, 3.0]]])
    assert F.interpolate(x, size=8).tolist() == [[[0.0, 0.0, 1.0, 1.0, INF, INF, 3.0, 3.0]]]
    assert F.interpolate(x, size=2, mode="area").tolist() == [[[0.5, INF]]]
    assert F.pad(x, (1, 1), "reflect").tolist() == [[[1.0, 0.0, 1.0, INF, 3.0, INF]]]


def test_an_affine_grid_takes_an_image_to_itself() -> None:
    x, identity = leaf(1, 2, 3, 4), dg.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    for align_corners in (None, False, True):  # without a choice: False, and no warning as PyTorch's
        grid = F.affine_grid(identity, (1, 2, 3, 4), align_corners)
        for mode in ("bilinear", "nearest", "bicubic"):
            out = F.grid_sample(x, grid, mode, align_corners=align_corners)
            np.testing.assert_allclose(out.detach().numpy(), x.detach().numpy(), rtol=0, atol=1e-5)
    turned = F.grid_sample(x, F.affine_grid(-identity, (1, 2, 3, 4)))
    np.testing.assert_allclose(turned.detach().numpy(), x.detach().numpy()[..., ::-1, ::-1], rtol=0, atol=1e-5)


def test_places_that_are_nowhere() -> None:
    image = dg.tensor([[[[1.0, 2.0], [3.0, INF]]]])
    grid = dg.tensor([[[[NAN, 0.0], [1e30, 0.0], [-0.75, -0.75]]]])
    assert F.grid_sample(image, grid, "nearest").tolist()[0][0][0][1:] == [0.0, 1.0]
    assert F.grid_sample(image, grid[:, :, 2:]).tolist() == [[[[0.5625]]]]  # nothing of the infinity
    border = F.grid_sample(dg.ones(1, 1, 2, 2), grid, padding_mode="border")
    assert border.tolist() == [[[[1.0, 1.0, 1.0]]]]


def test_an_empty_output_size() -> None:
    x = leaf(1, 2, 3, 3)
    for out in (F.adaptive_avg_pool2d(x, (2, 0)), F.adaptive_max_pool2d(x, (0, 2))):
        assert out.numel() == 0
        (grad,) = dg.autograd.grad(out.sum(), [x])
        assert not grad.numpy().any()


def test_an_empty_batch_of_shuffled_pixels() -> None:
    for function, shape in ((F.pixel_shuffle, (0, 4, 2, 2)), (F.pixel_unshuffle, (0, 1, 4, 4))):
        x = leaf(*shape)
        (grad,) = dg.autograd.grad(function(x, 2).sum(), [x])
        assert grad.shape == shape


def test_indices_may_change_after_unpooling() -> None:
    x, indices = leaf(1, 1, 2, 2), dg.tensor([[[[0, 3], [12, 15]]]])
    out = F.max_unpool2d(x, indices, 2)
    indices.zero_()
    (grad,) = dg.autograd.grad((out * dg.arange(16).reshape(1, 1, 4, 4)).sum(), [x])
    assert grad.tolist() == [[[[0.0, 3.0], [12.0, 15.0]]]]


def test_a_stride_may_be_an_empty_list() -> None:
    x = leaf(1, 1, 4, 4)
    for function in (pooling.max_pool2d, pooling.avg_pool2d):
        assert function(x, 2, []).tolist() == function(x, 2).tolist()


def test_pooling_functions_of_the_package() -> None:
    """``torch.max_pool1d`` has no ``return_indices``; ``torch.adaptive_max_pool1d`` always gives the indices."""
    x = dg.tensor([[1.0, 5.0, 2.0, 4.0]])
    assert dg.max_pool1d(x, 2).tolist() == [[5.0, 4.0]]
    for values, indices in (dg.max_pool1d_with_indices(x, 2), dg.adaptive_max_pool1d(x, 2)):
        assert values.tolist() == [[5.0, 4.0]] and indices.tolist() == [[1, 3]]


def test_padding_that_adds_nothing_is_a_copy() -> None:
    x = dg.zeros(1, 3)
    for out in (F.pad(x, (0, 0)), F.pad(x, ()), F.pad(x, (0, 0), "reflect"), F.interpolate(x[None], size=3)):
        out.add_(1)
    assert x.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area", "nearest"])
def test_a_constant_stays_constant(mode: str) -> None:
    options: list[dict[str, Any]] = [{}, {"align_corners": True}] if mode.startswith("bi") else [{}]
    options += [{"antialias": True}] if mode.startswith("bi") else []
    for option in options:
        for size in ((1, 9), (3, 4), (20, 2)):
            out = F.interpolate(dg.full((1, 1, 5, 6), 2.5, dtype=dg.float64), size=size, mode=mode, **option)
            np.testing.assert_allclose(out.numpy(), 2.5, rtol=1e-14)


@pytest.mark.parity
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"])
def test_resolutions_as_in_torch(mode: str) -> None:
    """Many lengths, so that positions which rounding decides are among them."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(len(mode))
    dims = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}.get(mode)
    for number in range(150):
        ndim = dims or int(rng.integers(1, 4))
        sizes = rng.integers(1, (90, 20, 8)[ndim - 1], ndim).tolist()
        options: dict[str, Any] = {"mode": mode}
        if number % 2:
            options["size"] = rng.integers(1, (200, 40, 12)[ndim - 1], ndim).tolist()
        else:
            scales = np.maximum(np.round(rng.uniform(0.3, 3, ndim), 2), 1.0 / np.array(sizes) + 0.01)
            options.update(scale_factor=scales.tolist(), recompute_scale_factor=bool(number % 3 == 0))
        if dims:
            options["align_corners"] = bool(number % 5 == 0)
        x = rng.standard_normal((1, 2, *sizes)).astype(np.float32)
        expected = torch.nn.functional.interpolate(torch.from_numpy(x), **options).numpy()
        actual = F.interpolate(dg.tensor(x), **options).numpy()
        # where a tap begins is decided in float32, where it matters little: a weight is then next to zero
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-4, err_msg=f"{sizes} {options}")


@pytest.mark.parity
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 0.5])
def test_norms_of_zeros_and_negative_sums_as_in_torch(p: float) -> None:
    torch = pytest.importorskip("torch")
    values = np.array([[[0.0, 0.0, -1.0, 0.5, 2.0, -1.0]]])
    ours, theirs = dg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    out, expected = F.lp_pool1d(ours, p, 2), torch.nn.functional.lp_pool1d(theirs, p, 2)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-13)
    out.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-13)  # type: ignore[union-attr]

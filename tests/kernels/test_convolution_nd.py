from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels import convolution_nd
from distgrad.kernels.convolution_nd import conv, conv_input, conv_reference, conv_weight

# (input, weight, stride, padding, dilation, groups)
CASES: dict[str, tuple[Any, ...]] = {
    "row": ((2, 3, 9), (4, 3, 3), (2,), (1,), (1,), 1),
    "row, dilated, grouped": ((3, 4, 11), (6, 2, 3), (1,), (3,), (2,), 2),
    "row, pointwise": ((2, 3, 5), (4, 3, 1), (1,), (0,), (1,), 1),
    "row, uncovered end": ((2, 2, 8), (3, 2, 2), (3,), (0,), (1,), 1),
    "image": ((2, 3, 6, 5), (4, 3, 3, 2), (2, 1), (1, 1), (1, 2), 1),
    "volume": ((3, 2, 5, 6, 4), (4, 2, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    "volume, strided, dilated": ((2, 2, 7, 6, 5), (3, 2, 3, 2, 2), (2, 1, 3), (2, 0, 1), (2, 2, 1), 1),
    "volume, grouped": ((2, 4, 4, 3, 3), (6, 2, 2, 3, 1), (1, 2, 1), (1, 1, 0), (1, 1, 1), 2),
    "volume, planes wholly in the padding": ((1, 2, 1, 3, 2), (2, 2, 2, 1, 1), (1, 1, 1), (3, 0, 1), (1, 1, 1), 1),
    "volume, pointwise": ((2, 3, 2, 2, 2), (4, 3, 1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "volume, uncovered planes": ((2, 2, 8, 3, 3), (3, 2, 2, 2, 2), (3, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    "empty batch": ((0, 2, 3, 3, 3), (2, 2, 2, 2, 2), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
}
ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def draw(case: tuple[Any, ...], dtype: Any = np.float64) -> tuple[Any, Any, Any, tuple[Any, ...]]:
    random = np.random.default_rng(7)
    input_shape, weight_shape, *rest = case
    x, w = (random.standard_normal(shape).astype(dtype) for shape in (input_shape, weight_shape))
    g = random.standard_normal(conv_reference(x, w, *rest).shape).astype(dtype)
    return x, w, g, tuple(rest)


@pytest.fixture(params=[None, 1], ids=["blocks as shipped", "blocks of one image"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(convolution_nd, "_BLOCK_BYTES", request.param)


@ALL_CASES
@pytest.mark.usefixtures("block_bytes")
def test_conv_equals_reference(case: tuple[Any, ...]) -> None:
    x, w, g, rest = draw(case)
    output = conv(x, w, *rest)
    assert output.shape == g.shape and output.flags.c_contiguous
    np.testing.assert_allclose(output, conv_reference(x, w, *rest), rtol=1e-12, atol=1e-13)


@ALL_CASES
@pytest.mark.usefixtures("block_bytes")
def test_gradients_are_the_adjoints(case: tuple[Any, ...]) -> None:
    """The derivative by each input and each weight, from the reference at unit vectors."""
    x, w, g, rest = draw(case)
    grad_x, grad_w = conv_input(g, w, x.shape, *rest), conv_weight(x, g, w.shape, *rest)
    assert grad_x.shape == x.shape and grad_w.shape == w.shape
    random = np.random.default_rng(8)
    for _ in range(5):
        dx, dw = random.standard_normal(x.shape), random.standard_normal(w.shape)
        np.testing.assert_allclose(
            np.vdot(grad_x, dx), np.vdot(g, conv_reference(dx, w, *rest)), rtol=1e-10, atol=1e-11
        )
        np.testing.assert_allclose(
            np.vdot(grad_w, dw), np.vdot(g, conv_reference(x, dw, *rest)), rtol=1e-10, atol=1e-11
        )


@ALL_CASES
def test_half_precision_is_computed_in_single(case: tuple[Any, ...]) -> None:
    x, w, g, rest = draw(case, np.float16)
    x32, w32, g32 = (array.astype(np.float32) for array in (x, w, g))
    for half, single in (
        (conv(x, w, *rest), conv(x32, w32, *rest)),
        (conv_input(g, w, x.shape, *rest), conv_input(g32, w32, x.shape, *rest)),
        (conv_weight(x, g, w.shape, *rest), conv_weight(x32, g32, w.shape, *rest)),
    ):
        assert half.dtype == np.float16
        np.testing.assert_array_equal(half, single.astype(np.float16))


@pytest.mark.parity
@ALL_CASES
def test_equals_pytorch(case: tuple[Any, ...]) -> None:
    torch = pytest.importorskip("torch")
    x, w, g, rest = draw(case)
    tx, tw = (torch.tensor(array, requires_grad=True) for array in (x, w))
    function = getattr(torch.nn.functional, f"conv{x.ndim - 2}d")
    expected = function(tx, tw, None, *rest)
    expected.backward(torch.from_numpy(g))
    np.testing.assert_allclose(conv(x, w, *rest), expected.detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(conv_input(g, w, x.shape, *rest), tx.grad, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(conv_weight(x, g, w.shape, *rest), tw.grad, rtol=1e-12, atol=1e-12)

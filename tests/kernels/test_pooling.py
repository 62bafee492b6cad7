from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from distgrad.kernels import pixel_pooling, pooling
from distgrad.kernels.adaptive_pooling import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_adjoint,
    adaptive_avg_pool2d_reference,
    adaptive_max_pool2d,
    adaptive_max_pool2d_reference,
)
from distgrad.kernels.layout import is_hwnc
from distgrad.kernels.pixel_pooling import Window, max_pool, max_pool_backward, place_dtype
from distgrad.kernels.pooling import (
    avg_pool2d,
    avg_pool2d_adjoint,
    avg_pool2d_reference,
    has_runs,
    index_dtype,
    max_pool2d,
    max_pool2d_adjoint,
    max_pool2d_at,
    max_pool2d_gather,
    max_pool2d_places,
    max_pool2d_reference,
    max_pool2d_scatter,
    max_pool2d_values,
    max_unpool2d,
    pool2d_output_shape,
)

pytestmark = pytest.mark.usefixtures("both")

# (kernel_size, stride, padding, dilation, ceil_mode)
MAX_CASES: dict[str, tuple[Any, ...]] = {
    "resnet": ((3, 3), (2, 2), (1, 1), (1, 1), False),
    "2x2": ((2, 2), (2, 2), (0, 0), (1, 1), False),
    "2x2 ceil": ((2, 2), (2, 2), (0, 0), (1, 1), True),
    "overlapping": ((3, 2), (1, 1), (1, 1), (1, 1), False),
    "ceil drops a window in the padding": ((2, 2), (3, 3), (1, 1), (1, 1), True),
    "ceil": ((3, 3), (3, 2), (1, 0), (1, 1), True),
    "dilated": ((2, 3), (2, 3), (1, 1), (3, 2), False),
    "dilated ceil": ((3, 2), (3, 2), (1, 1), (2, 3), True),
    "gaps": ((2, 1), (4, 3), (0, 0), (1, 1), False),
    "row": ((1, 3), (1, 2), (0, 1), (1, 1), False),
}
# (kernel_size, stride, padding, ceil_mode, count_include_pad)
AVG_CASES = [
    (kernel, stride, padding, ceil_mode, include)
    for kernel, stride, padding in (
        ((3, 3), (2, 2), (1, 1)),
        ((2, 2), (2, 2), (0, 0)),
        ((2, 3), (3, 4), (1, 1)),
        ((3, 2), (1, 1), (0, 1)),
        ((4, 5), (3, 2), (2, 2)),
    )
    for ceil_mode, include in itertools.product((False, True), repeat=2)
]
SHAPES = [(2, 3, 7, 8), (1, 2, 9, 6), (0, 3, 7, 7), (2, 0, 7, 7)]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
EACH_MAX = pytest.mark.parametrize("case", MAX_CASES.values(), ids=MAX_CASES.keys())
EACH_AVG = pytest.mark.parametrize("case", AVG_CASES, ids=str)
ADAPTIVE_SIZES = [(1, 1), (2, 3), (7, 8), (5, 1), (10, 11)]


def draw(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 3) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def draw_with_ties(shape: tuple[int, ...], special: tuple[float, ...] = (), dtype: Any = np.float64) -> Any:
    return np.random.default_rng(5).choice([0.0, 1.0, 2.0, *special], size=shape).astype(dtype)


def backwards_storage(array: Any) -> Any:
    """The same values, stored with the dimensions in reverse order, and read-only."""
    view = np.ascontiguousarray(array.T).T
    view.flags.writeable = False
    return view


def hwnc(array: Any) -> Any:
    """The same values in HWNC order, with gaps behind rows and pixels."""
    n, c, h, w = array.shape
    out = np.full((h, 2 * w + 1, n, c), 7, array.dtype)[:, : 2 * w : 2].transpose(2, 3, 0, 1)
    out[...] = array
    return out


def layouts(array: Any) -> tuple[Any, ...]:
    return array, backwards_storage(array), hwnc(array)


def has_order_of(result: Any, given: Any) -> bool:
    """Whether a result is in HWNC order where what it was made of is, and else row-major."""
    return bool(is_hwnc(result) if has_runs(given) else result.flags.c_contiguous)


@EACH_SHAPE
@EACH_MAX
@DTYPES
@pytest.mark.parametrize("special", [(), (np.nan,), (-np.inf, np.inf, np.nan)], ids=["ties", "nan", "inf and nan"])
def test_max_pool2d_equals_reference(shape: Any, case: Any, dtype: Any, special: Any) -> None:
    x = draw_with_ties(shape, special, dtype)
    x.flags.writeable = False
    for layout in layouts(x):
        output, indices = max_pool2d(layout, *case)
        expected, expected_indices = max_pool2d_reference(x, *case)
        np.testing.assert_array_equal(output, expected)
        np.testing.assert_array_equal(indices, expected_indices)
        assert output.dtype == dtype and indices.dtype == np.uint8
        assert has_order_of(output, layout) and has_order_of(indices, layout)


def test_indices_are_as_small_as_the_plane_allows() -> None:
    for shape, dtype in (((16, 16), np.uint8), ((16, 17), np.uint16), ((256, 256), np.uint16), ((256, 257), np.uint32)):
        assert index_dtype(shape[0] * shape[1]) == dtype
        x = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(1, 1, *shape)
        output, indices = max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), True)
        assert indices.dtype == dtype and indices[0, 0, -1, -1] == x.size - 1
        np.testing.assert_array_equal(indices, output.astype(np.int64))
        assert adaptive_max_pool2d(x, (2, 3))[1].dtype == dtype


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float16])
def test_max_pool2d_of_other_dtypes(dtype: Any) -> None:
    x = np.random.default_rng(2).integers(-9 if dtype is not np.uint8 else 0, 9, (2, 2, 7, 6)).astype(dtype)
    for case in MAX_CASES.values():
        for layout in layouts(x):
            for actual, expected in zip(max_pool2d(layout, *case), max_pool2d_reference(x, *case), strict=True):
                np.testing.assert_array_equal(actual, expected)
    assert (
        max_pool2d(np.full((1, 1, 2, 2), np.iinfo(np.int8).min, np.int8), (2, 2), (2, 2), (0, 0), (1, 1), False)[0]
        == -128
    )


def test_max_pool2d_of_nothing_but_minus_infinity_stays_inside() -> None:
    x = np.full((1, 1, 4, 4), -np.inf)
    output, indices = max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), False)
    np.testing.assert_array_equal(output, np.full((1, 1, 2, 2), -np.inf))
    np.testing.assert_array_equal(indices, [[[[0, 1], [4, 5]]]])


def test_max_pool2d_with_more_taps_than_a_byte_counts() -> None:
    x = draw_with_ties((2, 1, 40, 40), (np.nan,))
    for case in (((16, 16), (3, 3), (8, 8), (1, 1), True), ((15, 17), (5, 4), (0, 0), (1, 1), False)):
        expected = max_pool2d_reference(x, *case)
        for layout in layouts(x):
            for found, reference in zip(max_pool2d(layout, *case), expected, strict=True):
                np.testing.assert_array_equal(found, reference)


@pytest.fixture(params=[None, 1, 3000], ids=["blocks as shipped", "one window a block", "small blocks"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(pixel_pooling, "_BLOCK_BYTES", request.param)


@EACH_MAX
@pytest.mark.parametrize("special", [(), (-np.inf, np.inf, np.nan)], ids=["ties", "inf and nan"])
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (1, 2, 9, 6), (3, 1, 13, 11)], ids=str)
def test_places_and_their_gradient_in_both_orders(block_bytes: None, shape: Any, case: Any, special: Any) -> None:
    x, window = draw_with_ties(shape, special), Window(*case[:4])
    expected, indices = max_pool2d_reference(x, *case)
    g = draw(expected.shape)
    gradient = max_pool2d_scatter(g, indices, shape)
    kernel = case[0]
    for layout in layouts(x):
        output, places = max_pool2d_places(layout, *case)
        np.testing.assert_array_equal(output, expected)
        if has_runs(layout):
            np.testing.assert_array_equal(max_pool2d_values(layout, *case), expected)
        assert places.dtype == np.uint8 and places.max() < kernel[0] * kernel[1] and has_order_of(places, layout)
        np.testing.assert_array_equal(pooling.place_indices(places, shape, window), indices)
        np.testing.assert_array_equal(max_pool2d_at(layout, places, window), expected)
        for order in (False, True):
            for given in layouts(g):
                found = max_pool2d_adjoint(given, places, shape, window, order)
                assert is_hwnc(found) if order else found.flags.c_contiguous
                np.testing.assert_allclose(found, gradient, rtol=1e-12, atol=1e-14)


def test_infinite_gradients_go_to_the_maximum_alone() -> None:
    x = np.arange(16.0, dtype=np.float32).reshape(1, 1, 4, 4)
    places = max_pool2d_places(x, (3, 3), (1, 1), (0, 0), (1, 1), False)[1]
    g = np.array([[[[np.inf, 1], [-np.inf, np.nan]]]], np.float32)
    found = max_pool2d_adjoint(g, places, x.shape, Window((3, 3), (1, 1), (0, 0)), True)
    np.testing.assert_array_equal(found[0, 0, 2:, 2:], g[0, 0])
    assert not found[0, 0, :2].any() and not found[0, 0, :, :2].any()


def test_pixel_kernels_write_into_a_part_of_something_else() -> None:
    random = np.random.default_rng(2)
    x, window = random.standard_normal((7, 6, 4, 5)).astype(np.float32), Window((3, 3), (2, 2), (1, 1))
    expected = max_pool2d_reference(x[:, :, 1:3].transpose(2, 3, 0, 1), *window, False)[0].transpose(2, 3, 0, 1)
    around = np.full((6, 5, 4, 5), 7, np.float32)
    places = np.empty((4, 3, 2, 5), place_dtype(9))
    out = around[1:5, 1:4, 1:3]
    max_pool(x[:, :, 1:3], out, window, places)
    np.testing.assert_array_equal(out, expected)
    out[...] = 7
    np.testing.assert_array_equal(around, 7)
    grad_x = np.full((7, 6, 4, 5), 7, np.float32)
    max_pool_backward(expected, places, grad_x[:, :, 1:3], window)
    chosen = max_pool2d_adjoint(
        expected.transpose(2, 3, 0, 1), places.transpose(2, 3, 0, 1), (2, 5, 7, 6), window
    ).transpose(2, 3, 0, 1)
    np.testing.assert_allclose(grad_x[:, :, 1:3], chosen, rtol=1e-6)
    np.testing.assert_array_equal(grad_x[:, :, [0, 3]], 7)


def test_max_pool2d_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw_with_ties((3, 5, 9, 9), (np.nan,))
    whole = max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), False)
    scattered = max_pool2d_scatter(whole[0], whole[1], x.shape)
    monkeypatch.setattr(pooling, "_BLOCK_BYTES", 2 * x[0, 0].nbytes)
    pieces = max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), False)
    np.testing.assert_array_equal(pieces[0], whole[0])
    np.testing.assert_array_equal(pieces[1], whole[1])
    np.testing.assert_array_equal(max_pool2d_scatter(*pieces, x.shape), scattered)


@EACH_SHAPE
@EACH_MAX
@DTYPES
def test_scatter_and_gather_are_adjoint(shape: Any, case: Any, dtype: Any) -> None:
    x = draw(shape, dtype)
    output, indices = max_pool2d(x, *case)
    gathered = max_pool2d_gather(x, indices)
    np.testing.assert_array_equal(gathered, output)
    g = np.random.default_rng(4).integers(-9, 9, indices.shape).astype(dtype)
    scattered = max_pool2d_scatter(g, indices, shape)
    assert scattered.shape == shape and scattered.dtype == gathered.dtype == dtype
    np.testing.assert_array_equal(scattered.sum(axis=(2, 3)), g.sum(axis=(2, 3)))
    # Small integers, so that every sum is exact.
    y = np.random.default_rng(6).integers(-9, 9, shape).astype(dtype)
    assert np.vdot(scattered, y) == np.vdot(g, max_pool2d_gather(y, indices))
    layouts = backwards_storage(g), backwards_storage(indices)
    np.testing.assert_array_equal(max_pool2d_scatter(*layouts, shape), scattered)
    np.testing.assert_array_equal(max_pool2d_gather(backwards_storage(x), layouts[1]), gathered)


@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (1, 2, 9, 6), (0, 3, 7, 7)], ids=str)
@pytest.mark.parametrize("output_size", [(1, 1), (2, 3), (7, 8), (5, 1), (10, 11), (0, 2)], ids=str)
@pytest.mark.parametrize("special", [(), (np.nan,), (-np.inf, np.inf, np.nan)], ids=["ties", "nan", "inf and nan"])
def test_adaptive_max_pool2d_equals_reference(shape: Any, output_size: Any, special: Any) -> None:
    x = draw_with_ties(shape, special)
    expected = adaptive_max_pool2d_reference(x, output_size)
    for layout in layouts(x):
        output, indices = adaptive_max_pool2d(layout, output_size)
        np.testing.assert_array_equal(output, expected[0])
        np.testing.assert_array_equal(indices, expected[1])
        assert output.flags.c_contiguous and indices.flags.c_contiguous
        np.testing.assert_array_equal(max_pool2d_gather(x, indices), output)


def test_max_unpool2d_writes_each_value_to_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw((3, 5, 6, 8))
    values, indices = max_pool2d(x, (2, 2), (2, 2), (0, 0), (1, 1), False)
    expected = np.where(np.isin(x, values), x, 0)
    for _ in ("blocks as shipped", "a block a plane"):
        output = max_unpool2d(backwards_storage(values), backwards_storage(indices), (6, 8))
        np.testing.assert_array_equal(output, expected)
        monkeypatch.setattr(pooling, "_BLOCK_BYTES", 1)
    repeated = max_unpool2d(np.array([[[[1.0, 2.0]]]]), np.array([[[[3, 3]]]]), (2, 2))
    np.testing.assert_array_equal(repeated, [[[[0, 0], [0, 2]]]])


@EACH_SHAPE
@EACH_AVG
def test_avg_pool2d_equals_reference_and_adjoint(shape: Any, case: Any) -> None:
    x = draw(shape)
    expected = avg_pool2d_reference(x, *case)
    for layout in layouts(x):
        output = avg_pool2d(layout, *case)
        assert has_order_of(output, layout)
        np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-14)
    g = draw(output.shape, seed=8)
    adjoint = avg_pool2d_adjoint(backwards_storage(g), shape, *case)
    assert adjoint.shape == shape and adjoint.flags.c_contiguous
    np.testing.assert_allclose(np.vdot(output, g), np.vdot(x, adjoint), rtol=1e-12, atol=1e-13)
    for gradient in layouts(g):
        for order in (False, True):
            again = avg_pool2d_adjoint(gradient, shape, *case, hwnc=order)
            assert (is_hwnc(again) or not again.size) if order else again.flags.c_contiguous
            np.testing.assert_allclose(again, adjoint, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(avg_pool2d(x, *case, -3), avg_pool2d_reference(x, *case, -3), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        np.vdot(avg_pool2d(x, *case, 7), g), np.vdot(x, avg_pool2d_adjoint(g, shape, *case, 7)), rtol=1e-12, atol=1e-13
    )
    single = avg_pool2d(x.astype(np.float32), *case)
    assert single.dtype == avg_pool2d_adjoint(g.astype(np.float32), shape, *case).dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=20 * 2**-24 * abs(x).max(initial=0))


@EACH_SHAPE
@pytest.mark.parametrize("output_size", ADAPTIVE_SIZES, ids=str)
def test_adaptive_avg_pool2d_equals_reference_and_adjoint(shape: Any, output_size: Any) -> None:
    x = draw(shape)
    expected = adaptive_avg_pool2d_reference(x, output_size)
    for layout in layouts(x):
        output = adaptive_avg_pool2d(layout, output_size)
        assert has_order_of(output, layout)
        np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-14)
    g = draw(output.shape, seed=8)
    adjoint = adaptive_avg_pool2d_adjoint(backwards_storage(g), shape)
    assert adjoint.shape == shape and adjoint.flags.c_contiguous
    np.testing.assert_allclose(np.vdot(output, g), np.vdot(x, adjoint), rtol=1e-12, atol=1e-13)
    for gradient in layouts(g):
        again = adaptive_avg_pool2d_adjoint(gradient, shape, hwnc=True)
        assert is_hwnc(again) or not again.size
        np.testing.assert_allclose(again, adjoint, rtol=1e-12, atol=1e-14)
    single = adaptive_avg_pool2d(x.astype(np.float32), output_size)
    assert single.dtype == adaptive_avg_pool2d_adjoint(g.astype(np.float32), shape).dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=20 * 2**-24 * abs(x).max(initial=0))


def test_half_precision_means_keep_their_digits() -> None:
    x = np.full((1, 1, 64, 64), 300.0, np.float16)
    for output in (avg_pool2d(x, (64, 64), (1, 1), (0, 0), False, True), adaptive_avg_pool2d(x, (1, 1))):
        assert output.dtype == np.float16 and output.item() == 300.0
    assert adaptive_avg_pool2d_adjoint(x[:, :, :1, :1], (1, 1, 2, 2)).dtype == np.float16
    assert avg_pool2d_adjoint(x[:, :, :1, :1], (1, 1, 2, 2), (2, 2), (1, 1), (0, 0), False, True).dtype == np.float16


def test_output_shape_by_pytorchs_formula() -> None:
    shape = (2, 64, 112, 113)
    assert pool2d_output_shape(shape, (3, 3), (2, 2), (1, 1), (1, 1), False) == (2, 64, 56, 57)
    assert pool2d_output_shape(shape, (2, 2), (2, 2), (0, 0), (1, 1), True) == (2, 64, 56, 57)
    # Rounding up would start a last window at pixel 5, in the padding behind a row of 5.
    assert pool2d_output_shape((1, 1, 5, 5), (2, 2), (3, 3), (1, 1), (1, 1), True) == (1, 1, 2, 2)


@pytest.mark.parity
@EACH_MAX
@pytest.mark.parametrize("special", [(), (np.nan,), (-np.inf, np.inf, np.nan)], ids=["ties", "nan", "inf and nan"])
def test_max_pool2d_equals_pytorch(case: Any, special: Any) -> None:
    torch = pytest.importorskip("torch")
    kernel_size, stride, padding, dilation, ceil_mode = case
    for shape in SHAPES[:2]:
        x = draw_with_ties(shape, special)
        tx = torch.tensor(x, requires_grad=True)
        expected, expected_indices = torch.nn.functional.max_pool2d(
            tx, kernel_size, stride, padding, dilation, ceil_mode, return_indices=True
        )
        output, indices = max_pool2d(x, *case)
        np.testing.assert_array_equal(output, expected.detach())
        np.testing.assert_array_equal(indices, expected_indices)
        g = draw(output.shape)
        expected.backward(torch.from_numpy(g))
        np.testing.assert_allclose(max_pool2d_scatter(g, indices, shape), tx.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parity
@EACH_AVG
def test_avg_pool2d_equals_pytorch(case: Any) -> None:
    torch = pytest.importorskip("torch")
    for shape in SHAPES[:2]:
        x = draw(shape)
        tx = torch.tensor(x, requires_grad=True)
        expected = torch.nn.functional.avg_pool2d(tx, *case)
        output = avg_pool2d(x, *case)
        np.testing.assert_allclose(output, expected.detach(), rtol=1e-12, atol=1e-14)
        g = draw(output.shape)
        expected.backward(torch.from_numpy(g))
        np.testing.assert_allclose(avg_pool2d_adjoint(g, shape, *case), tx.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parity
@pytest.mark.parametrize("output_size", ADAPTIVE_SIZES, ids=str)
def test_adaptive_avg_pool2d_equals_pytorch(output_size: Any) -> None:
    torch = pytest.importorskip("torch")
    for shape in SHAPES[:2]:
        x = draw(shape)
        tx = torch.tensor(x, requires_grad=True)
        expected = torch.nn.functional.adaptive_avg_pool2d(tx, output_size)
        output = adaptive_avg_pool2d(x, output_size)
        np.testing.assert_allclose(output, expected.detach(), rtol=1e-12, atol=1e-14)
        g = draw(output.shape)
        expected.backward(torch.from_numpy(g))
        np.testing.assert_allclose(adaptive_avg_pool2d_adjoint(g, shape), tx.grad, rtol=1e-12, atol=1e-14)

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from distgrad.kernels import pooling
from distgrad.kernels.pooling import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_adjoint,
    adaptive_avg_pool2d_reference,
    adaptive_max_pool2d,
    adaptive_max_pool2d_reference,
    avg_pool2d,
    avg_pool2d_adjoint,
    avg_pool2d_reference,
    index_dtype,
    max_pool2d,
    max_pool2d_gather,
    max_pool2d_reference,
    max_pool2d_scatter,
    max_unpool2d,
    pool2d_output_shape,
)

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


@EACH_SHAPE
@EACH_MAX
@DTYPES
@pytest.mark.parametrize("special", [(), (np.nan,), (-np.inf, np.inf, np.nan)], ids=["ties", "nan", "inf and nan"])
def test_max_pool2d_equals_reference(shape: Any, case: Any, dtype: Any, special: Any) -> None:
    x = draw_with_ties(shape, special, dtype)
    x.flags.writeable = False
    for layout in (x, backwards_storage(x)):
        output, indices = max_pool2d(layout, *case)
        expected, expected_indices = max_pool2d_reference(x, *case)
        np.testing.assert_array_equal(output, expected)
        np.testing.assert_array_equal(indices, expected_indices)
        assert output.dtype == dtype and indices.dtype == np.uint8
        assert output.flags.c_contiguous and indices.flags.c_contiguous


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
        for actual, expected in zip(max_pool2d(x, *case), max_pool2d_reference(x, *case), strict=True):
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
        for actual, expected in zip(max_pool2d(x, *case), max_pool2d_reference(x, *case), strict=True):
            np.testing.assert_array_equal(actual, expected)


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
    for layout in (x, backwards_storage(x)):
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
    for layout in (x, backwards_storage(x)):
        output = avg_pool2d(layout, *case)
        assert output.flags.c_contiguous
        np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-14)
    g = draw(output.shape, seed=8)
    adjoint = avg_pool2d_adjoint(backwards_storage(g), shape, *case)
    assert adjoint.shape == shape and adjoint.flags.c_contiguous
    np.testing.assert_allclose(np.vdot(output, g), np.vdot(x, adjoint), rtol=1e-12, atol=1e-13)
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
    for layout in (x, backwards_storage(x)):
        output = adaptive_avg_pool2d(layout, output_size)
        assert output.flags.c_contiguous
        np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-14)
    g = draw(output.shape, seed=8)
    adjoint = adaptive_avg_pool2d_adjoint(backwards_storage(g), shape)
    assert adjoint.shape == shape and adjoint.flags.c_contiguous
    np.testing.assert_allclose(np.vdot(output, g), np.vdot(x, adjoint), rtol=1e-12, atol=1e-13)
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

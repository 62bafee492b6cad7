"""Winograd's matrices hold exactly what they promise, for full and for ragged tiles."""

import numpy as np
import pytest

from distgrad.kernels.winograd_matrices import tile_matrices

DOUBLE = np.dtype(np.float64)


def tiles():
    return [(tile, stride, outputs) for stride in (1, 2) for tile in range(1, 7) for outputs in range(1, tile + 1)]


@pytest.mark.parametrize(("tile", "stride", "outputs"), tiles())
def test_a_tile_is_a_convolution(tile, stride, outputs):
    rng = np.random.default_rng(tile)
    matrices = tile_matrices(tile, stride, outputs, DOUBLE)
    pixels, weight = rng.standard_normal(matrices.points), rng.standard_normal(3)
    # A ragged tile takes the first of the full tile's transformed weight.
    products = (matrices.g @ weight)[: matrices.points] * (matrices.bt @ pixels)
    expected = [pixels[stride * i : stride * i + 3] @ weight for i in range(outputs)]
    np.testing.assert_allclose(matrices.at @ products, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("tile", "stride", "outputs"), tiles())
def test_the_products_are_as_few_as_they_can_be(tile, stride, outputs):
    points = tile_matrices(tile, stride, outputs, DOUBLE).points
    assert points == (outputs + 2 if stride == 1 else 2 * outputs + 1)


@pytest.mark.parametrize(("tile", "stride", "outputs"), tiles())
def test_the_first_product_is_at_one_point_in_every_output(tile, stride, outputs):
    at = tile_matrices(tile, stride, outputs, DOUBLE).at
    point = 5 / 8 if len(tile_matrices(tile, 1, tile, DOUBLE).at[0]) + 1 - stride == 6 else 1.0
    np.testing.assert_array_equal(at[:, 0], point ** np.arange(outputs))


def test_transposes_are_contiguous_and_nothing_can_be_written_to():
    matrices = tile_matrices(4, 1, 3, np.dtype(np.float32))
    np.testing.assert_array_equal(matrices.a, matrices.at.T)
    np.testing.assert_array_equal(matrices.b, matrices.bt.T)
    for matrix in (matrices.a, matrices.at, matrices.b, matrices.bt):
        assert matrix.flags.c_contiguous
        assert matrix.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            matrix[0, 0] = 1

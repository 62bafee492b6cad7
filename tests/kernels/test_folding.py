from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from distgrad.kernels.folding import fold, unfold, unfold_reference

# (kernel_size, dilation, padding, stride)
CASES: dict[str, tuple[Any, ...]] = {
    "2x2": ((2, 2), (1, 1), (0, 0), (1, 1)),
    "strided, padded": ((3, 2), (1, 1), (1, 1), (2, 3)),
    "dilated": ((2, 3), (3, 2), (1, 2), (1, 1)),
    "pixels": ((1, 1), (1, 1), (0, 0), (1, 1)),
    "gaps": ((2, 1), (1, 1), (0, 0), (4, 3)),
    "padding beyond the kernel": ((2, 2), (1, 1), (3, 4), (2, 2)),
    "taps wholly in the padding": ((2, 2), (9, 9), (9, 9), (3, 3)),
}
ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@ALL_CASES
@pytest.mark.parametrize("shape", [(2, 3, 7, 6), (0, 2, 5, 5)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_unfold_equals_reference(case: tuple[Any, ...], shape: tuple[int, ...], dtype: Any) -> None:
    x = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    expected = unfold_reference(x, *case)
    for layout in (x, np.ascontiguousarray(x.T).T):
        columns = unfold(layout, *case)
        assert columns.flags.c_contiguous and columns.dtype == dtype
        np.testing.assert_array_equal(columns, expected)


@ALL_CASES
def test_fold_is_the_adjoint(case: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3, 7, 6))
    columns = unfold(x, *case)
    g = rng.standard_normal(columns.shape)
    folded = fold(np.ascontiguousarray(g.T).T, (7, 6), *case)
    assert folded.shape == x.shape and folded.flags.c_contiguous
    np.testing.assert_allclose(np.vdot(folded, x), np.vdot(g, columns), rtol=1e-12, atol=1e-12)
    # each pixel as often as windows cover it
    covered = fold(np.ones_like(g), (7, 6), *case)
    np.testing.assert_allclose(fold(columns, (7, 6), *case), covered * x, rtol=1e-12)

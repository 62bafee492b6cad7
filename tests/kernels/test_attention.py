from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.kernels import attention as kernels

SHAPES = [(3, 4), (2, 3, 4), (2, 3, 5, 4), (1, 1), (2, 0, 3), (2, 3, 0), (0, 2, 3)]


@pytest.fixture(params=[None, 1, 100], ids=["blocks as shipped", "blocks of a row", "small blocks"], autouse=True)
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(kernels, "_BLOCK_BYTES", request.param)


def masks(shape: tuple[int, ...]) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(1)
    bias = rng.standard_normal(shape[-2:])
    walls = np.where(rng.uniform(size=shape) < 0.4, -np.inf, rng.standard_normal(shape))
    hidden = rng.uniform(size=(*shape[:-2], 1, shape[-1])) < 0.5
    return [(None, None), (bias, None), (walls, None), (None, hidden), (bias[:1], hidden), (None, np.True_)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", range(6))
def test_equals_reference(shape: tuple[int, ...], number: int) -> None:
    scores = 5 * np.random.default_rng(0).standard_normal(shape)
    bias, hidden = masks(shape)[number]
    before = scores.copy()
    out = kernels.attention_weights(scores, bias, hidden)
    assert out.shape == shape and np.array_equal(scores, before)
    np.testing.assert_allclose(out, kernels.attention_weights_reference(scores, bias, hidden), rtol=1e-13, atol=1e-300)
    totals = out.sum(-1)
    assert ((np.abs(totals - 1) < 1e-12) | (totals == 0)).all()


def test_large_scores_do_not_overflow() -> None:
    out = kernels.attention_weights(np.array([[1e4, 0.0, 1e4], [-1e4, -1e4, -np.inf]], np.float32), None, None)
    assert out.tolist() == [[0.5, 0.0, 0.5], [0.5, 0.5, 0.0]] and out.dtype == np.float32


def test_half_precision_is_computed_in_single() -> None:
    scores = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float16)
    out = kernels.attention_weights(scores, None, None)
    exact = kernels.attention_weights(scores.astype(np.float32), None, None)
    assert out.dtype == np.float16
    np.testing.assert_array_equal(out, exact.astype(np.float16))
    strided = np.repeat(scores, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(kernels.attention_weights(strided, None, None), out)

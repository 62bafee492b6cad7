"""fp16 and bfloat16: two roundings and a sum in float32, whatever the number of ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distgrad.distributed.comm_hooks import HookState, bf16_compress_hook, fp16_compress_hook
from distgrad.distributed.comm_hooks.bfloat16 import _decode, _encode
from distgrad.distributed.comm_hooks.exchange import BLOCK

from .buckets import WORLD_SIZES, assert_same_bits, flat, gradients_of, run_hook

pytestmark = pytest.mark.timeout(60)

HOOKS = {"fp16": fp16_compress_hook, "bfloat16": bf16_compress_hook}
UNITS = {"fp16": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("name", HOOKS)
def test_the_sum_is_within_the_bound_and_the_same_everywhere(name: str, world_size: int, dtype: str) -> None:
    outcomes = run_hook(world_size, HOOKS[name], HookState, lambda rank, step: gradients_of(rank, step, dtype))
    assert_same_bits(outcomes)
    given = [flat(gradients_of(rank, 0, dtype)).astype(np.longdouble) for rank in range(world_size)]
    error = abs(outcomes[0].sums[0] - sum(given))
    report = outcomes[0].reports[0]
    if world_size == 1:
        assert report == (0, 0.0) and not error.any()
        return
    assert report.error_bound <= 2.01 * UNITS[name]
    assert (error <= report.error_bound * sum(abs(g).max() for g in given)).all()
    assert error.max() > 0  # something was rounded
    # Element by element, above what is subnormal.
    normal = sum(map(abs, given)) > 1e-3
    assert (error[normal] <= report.error_bound * sum(map(abs, given))[normal]).all()


@pytest.mark.parametrize("name", HOOKS)
def test_half_the_bytes(name: str) -> None:
    outcomes = run_hook(4, HOOKS[name], HookState, lambda rank, step: {"w": np.ones(1000, np.float32)})
    assert 3000 <= outcomes[0].reports[0].bytes_sent <= 3016


@pytest.mark.parametrize("name", HOOKS)
def test_rounding_does_not_grow_with_the_number_of_ranks(name: str) -> None:
    """1/2 is exact, and so are all sums of it; 2 ** -13 disappears in a sum of words, and not in one of float32."""
    unit = UNITS[name]
    outcomes = run_hook(
        64, HOOKS[name], HookState, lambda rank, step: {"w": np.full(9, 1.0 if rank == 0 else unit / 2, np.float32)}
    )
    expected = 1 + 63 * unit / 2
    np.testing.assert_allclose(outcomes[0].sums[0], expected, rtol=unit)
    assert (outcomes[0].sums[0] > 1 + 30 * unit / 2).all()


@pytest.mark.parametrize("scale", [1e30, 7e4, 1.0, 1e-9, 1e-30])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_half_precision_is_scaled_into_its_range(world_size: int, scale: float) -> None:
    """Beyond 65504 and below 6e-8 half precision has no numbers of its own."""

    def gradients(rank: int, step: int) -> dict[str, Any]:
        return {"w": (np.linspace(-1, 1, 41) * (rank + 1) * scale).astype(np.float32)}

    outcomes = run_hook(world_size, fp16_compress_hook, HookState, gradients)
    assert_same_bits(outcomes)
    given = [gradients(rank, 0)["w"].astype(np.float64) for rank in range(world_size)]
    assert np.isfinite(outcomes[0].sums[0]).all()
    np.testing.assert_allclose(outcomes[0].sums[0], sum(given), rtol=2.01 * 2**-11)


def test_a_sum_that_no_rank_alone_reaches() -> None:
    outcomes = run_hook(8, fp16_compress_hook, HookState, lambda rank, step: {"w": np.full(5, 65504, np.float32)})
    np.testing.assert_array_equal(outcomes[0].sums[0], np.full(5, 8 * 65504.0))


@pytest.mark.parametrize("name", HOOKS)
def test_double_precision_beyond_single(name: str) -> None:
    outcomes = run_hook(3, HOOKS[name], HookState, lambda rank, step: {"w": np.array([1e300, -2e299])})
    if name == "fp16":
        np.testing.assert_allclose(outcomes[0].sums[0], [3e300, -6e299], rtol=1e-3)
    else:  # the range of float32
        np.testing.assert_array_equal(outcomes[0].sums[0], [np.inf, -np.inf])


@pytest.mark.parametrize("name", HOOKS)
def test_what_is_not_finite_stays_in_its_place(name: str) -> None:
    """An element that is infinite on one rank, one that is NaN, one of both signs, and an honest one."""
    rows = np.array([[np.inf, np.nan, np.inf, 3.0], [1.0, 2.0, -np.inf, 5.0]], np.float32)
    outcomes = run_hook(2, HOOKS[name], HookState, lambda rank, step: {"w": rows[rank]})
    assert_same_bits(outcomes)
    np.testing.assert_array_equal(outcomes[0].sums[0], [np.inf, np.nan, np.nan, 8.0])


@pytest.mark.parametrize("name", HOOKS)
def test_nothing_but_zeros_and_nothing_finite(name: str) -> None:
    for value in (0.0, np.nan):
        outcomes = run_hook(2, HOOKS[name], HookState, lambda rank, step: {"w": np.full(3, value, np.float32)})  # noqa: B023
        np.testing.assert_array_equal(outcomes[0].sums[0], np.full(3, value))


@pytest.mark.parametrize("name", HOOKS)
def test_buckets_longer_than_a_block(name: str) -> None:
    size = 3 * BLOCK + 5
    rows = np.random.default_rng(0).standard_normal((2, size)).astype(np.float32)
    outcomes = run_hook(2, HOOKS[name], HookState, lambda rank, step: {"w": rows[rank]})
    error = abs(outcomes[0].sums[0] - rows.sum(0, dtype=np.float64))
    assert (error <= outcomes[0].reports[0].error_bound * abs(rows).sum(0) + 1e-7).all()


def test_bfloat16_rounds_to_nearest_even() -> None:
    """Against the definition: the nearest number with 8 significant bits, of two equally near ones the even."""
    generator = np.random.default_rng(5)
    bits = np.concatenate(
        [
            generator.integers(0, 2**32, 20000, dtype=np.uint32),
            (generator.integers(0, 2**16, 2000).astype(np.uint32) << 16) + np.uint32(0x8000),  # ties
            np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001], np.uint32),
        ]
    )
    numbers = bits.view(np.float32)
    words, back = np.empty(numbers.size, np.uint16), np.empty(numbers.size, np.float32)
    with np.errstate(all="ignore"):
        _encode(numbers, words)
    _decode(words, back)
    assert (np.isnan(numbers) == np.isnan(back)).all()
    valid = np.isfinite(numbers) & (abs(numbers) < 3.38e38)
    below = (bits[valid] & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    above = ((bits[valid] & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32).astype(np.float64)
    exact = numbers[valid].astype(np.float64)
    down, up = abs(exact - below), abs(above - exact)
    even = (bits[valid] >> 16) % 2 == 0
    expected = np.where((down < up) | ((down == up) & even), below, above)
    np.testing.assert_array_equal(back[valid], expected)


@pytest.mark.parity
def test_bfloat16_rounds_as_pytorch() -> None:
    torch = pytest.importorskip("torch")
    numbers = np.random.default_rng(1).standard_normal(100000).astype(np.float32) * 1e-3
    words, back = np.empty(numbers.size, np.uint16), np.empty(numbers.size, np.float32)
    _encode(numbers, words)
    _decode(words, back)
    np.testing.assert_array_equal(back, torch.from_numpy(numbers).bfloat16().float().numpy())

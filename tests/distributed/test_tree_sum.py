"""Sums through one tree: the same bits however the leaves are shared."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from distgrad.distributed import process_group, threads
from distgrad.distributed.single import SingleCommunicator
from distgrad.distributed.tree_sum import TreeSum, block, owners_of, tree_sum

pytestmark = pytest.mark.timeout(60)


def leaf(number: int, size: int, dtype: Any) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(number)
    return (generator.standard_normal(size) * 10.0 ** generator.integers(-6, 6, size)).astype(dtype)


def summed(owners: list[int], size: int, dtype: Any, divisor: float | None) -> bytes:
    ranks = process_group.communicator()
    tree = TreeSum(owners, ranks.rank)
    slots: list[Any] = [np.full(size, np.nan, dtype) for _ in range(tree.slots)]
    for number, virtual in enumerate(tree.leaves):
        tree.add(number, leaf(virtual, size, dtype), slots)
    tree.finish(slots, slots[0], ranks, divisor=divisor)
    return bytes(slots[0].tobytes())


def expected(virtual_ranks: int, size: int, dtype: Any, divisor: float | None) -> bytes:
    total = tree_sum([leaf(number, size, dtype) for number in range(virtual_ranks)])
    return bytes((total if divisor is None else total / np.asarray(divisor, dtype)).tobytes())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("virtual_ranks", [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 17])
def test_the_bits_do_not_depend_on_the_ranks(virtual_ranks: int, dtype: Any) -> None:
    for size in (0, 1, 23):
        wanted = expected(virtual_ranks, size, dtype, 3.0)
        for world_size in range(1, virtual_ranks + 1):
            found = threads.run(world_size, summed, owners_of(virtual_ranks, world_size), size, dtype, 3.0)
            assert found == [wanted] * world_size, (size, world_size)


@pytest.mark.parametrize("world_size", [64, 256])
def test_many_ranks_and_random_delays(world_size: int) -> None:
    chance = random.Random(world_size)
    slow = {(chance.randrange(world_size), chance.randrange(2)): chance.random() / 20 for _ in range(40)}
    found = threads.run(
        world_size,
        summed,
        owners_of(256, world_size),
        300,
        np.float32,
        None,
        delay=lambda rank, sequence: slow.get((rank, sequence), 0.0),
    )
    assert found == [expected(256, 300, np.float32, None)] * world_size


def test_leaves_may_lie_anywhere() -> None:
    owners = [2, 0, 1, 1, 0, 0, 2, 1, 2]
    found = threads.run(3, summed, owners, 50, np.float64, None)
    assert found == [expected(9, 50, np.float64, None)] * 3


def test_the_order_is_a_tree_and_not_a_chain() -> None:
    leaves = [np.array([value], np.float32) for value in (1e8, 1.0, 1.0, 1.0)]
    # (1e8 + 1) + (1 + 1): 1 is lost beside 1e8 in float32, 8 being the distance of its neighbours, and so is 2
    assert tree_sum(leaves)[0] == np.float32(1e8)
    leaves = [np.array([value], np.float32) for value in (1e8, 0.0, 3.0, 3.0)]
    assert tree_sum(leaves)[0] == np.float32(1e8 + 8)  # a chain would lose both


def test_few_arrays_are_needed() -> None:
    assert [TreeSum([0] * count, 0).slots for count in (1, 2, 4, 8, 16)] == [1, 1, 2, 3, 4]
    assert all(TreeSum(owners_of(16, 16), rank).slots == 1 for rank in range(16))


def test_a_single_rank_may_write_elsewhere() -> None:
    tree = TreeSum([0, 0], 0)
    slots = [np.array([3.0])]
    out = np.zeros(1)
    tree.finish(slots, out, SingleCommunicator())
    assert out[0] == 3.0


def test_blocks_cover_all_virtual_ranks() -> None:
    for virtual_ranks in range(1, 20):
        for world_size in range(1, virtual_ranks + 1):
            blocks = [block(virtual_ranks, world_size, rank) for rank in range(world_size)]
            assert [v for part in blocks for v in part] == list(range(virtual_ranks))
            assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_more_ranks_than_virtual_ones_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 virtual ranks cannot be shared by 9 ranks.*virtual_ranks to 9"):
        owners_of(8, 9)

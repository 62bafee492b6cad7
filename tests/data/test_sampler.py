from __future__ import annotations

import itertools
import math
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distgrad.data import BatchSampler, DistributedSampler, GlobalBatchSampler, RandomSampler, SequentialSampler
from distgrad.data.stream import order_generator

SHAPES = list(itertools.product((0, 1, 2, 7, 16, 33), (1, 2, 3, 4, 7)))


def whole_order(length, seed, epoch):
    return order_generator(seed, epoch).permutation(length).tolist()


@pytest.mark.parametrize(("length", "ranks"), SHAPES)
def test_shares_are_disjoint_cover_everything_and_differ_by_at_most_one(length, ranks):
    samplers = [DistributedSampler(length, ranks, rank, seed=5) for rank in range(ranks)]
    for epoch in (0, 3):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [list(sampler) for sampler in samplers]
        order = whole_order(length, 5, epoch)
        assert shares == [order[rank::ranks] for rank in range(ranks)]
        assert sorted(itertools.chain(*shares)) == list(range(length))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
        assert (max(map(len, shares)), min(map(len, shares))) == (samplers[0].longest_share, samplers[0].shortest_share)


@pytest.mark.parametrize(("length", "ranks"), SHAPES)
def test_drop_last_and_pad_make_the_shares_equal(length, ranks):
    dropping = [list(DistributedSampler(length, ranks, rank, drop_last=True)) for rank in range(ranks)]
    assert {len(share) for share in dropping} == {length // ranks}
    assert len(set(itertools.chain(*dropping))) == length // ranks * ranks
    padding = [list(DistributedSampler(length, ranks, rank, pad=True)) for rank in range(ranks)]
    assert {len(share) for share in padding} == {math.ceil(length / ranks)}
    # Interleaved again they are the order followed by its own beginning.
    order = whole_order(length, 0, 0)
    interleaved = [share[position] for position in range(math.ceil(length / ranks)) for share in padding]
    assert interleaved == list(itertools.islice(itertools.cycle(order), len(interleaved)))


def test_the_order_depends_on_seed_and_epoch_only():
    sampler = DistributedSampler(50, 2, 0, seed=1)
    first = list(sampler)
    assert list(sampler) == first, "as in PyTorch, without set_epoch the order stays"
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(DistributedSampler(50, 2, 0, seed=2)) != first
    assert list(DistributedSampler(5, 2, 1, shuffle=False)) == [1, 3]


def test_the_place_comes_from_the_running_job(monkeypatch):
    job = types.SimpleNamespace(world_size=lambda: 3, rank=lambda: 2)
    import distgrad

    monkeypatch.setitem(sys.modules, "distgrad.distributed", job)
    monkeypatch.setattr(distgrad, "distributed", job, raising=False)
    assert list(DistributedSampler(range(7), shuffle=False)) == [2, 5]
    assert list(GlobalBatchSampler(7, 4, shuffle=False)) == [[2], [6]]
    assert list(DistributedSampler(7, rank=0, shuffle=False)) == [0, 3, 6]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DistributedSampler(4, 2, 2), "rank must be from 0 to num_replicas - 1 = 1, got 2"),
        (lambda: DistributedSampler(4, 2, -1), "got -1"),
        (lambda: DistributedSampler(4, 0, 0), "num_replicas must be an integer of at least 1, got 0"),
        (lambda: DistributedSampler(-1, 1, 0), "must not be negative, got -1"),
        (lambda: DistributedSampler(4, 2, 0, drop_last=True, pad=True), "choose one"),
        (lambda: DistributedSampler(4, 2, 0).set_epoch(-1), "epoch must not be negative"),
        (lambda: GlobalBatchSampler(4, 0, 1, 0), "global_batch_size must be an integer of at least 1, got 0"),
        (lambda: GlobalBatchSampler(4, 2, 2, 5), "GlobalBatchSampler: rank must be"),
        (lambda: BatchSampler(range(3), 0), "batch_size must be an integer of at least 1, got 0"),
        (lambda: BatchSampler(range(3), 2.5), "got 2.5"),
        (lambda: RandomSampler(4, seed=-1).__iter__(), "seed must be an integer from 0"),
        (lambda: RandomSampler(4).set_epoch(-2), "epoch must not be negative, got -2"),
    ],
)
def test_bad_values_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 6), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_global_batches_do_not_depend_on_the_number_of_ranks(length, batch, ranks, shuffle, drop_last):
    alone = list(GlobalBatchSampler(length, batch, 1, 0, shuffle, seed=9, drop_last=drop_last))
    parts = [list(GlobalBatchSampler(length, batch, ranks, rank, shuffle, 9, drop_last)) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(alone)}
    for number, whole in enumerate(alone):
        shares = [part[number] for part in parts]
        assert shares == [whole[rank::ranks] for rank in range(ranks)]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    order = whole_order(length, 9, 0) if shuffle else list(range(length))
    kept = length // batch * batch if drop_last else length
    assert list(itertools.chain(*alone)) == order[:kept]
    assert len(GlobalBatchSampler(length, batch, ranks, 0, drop_last=drop_last)) == len(alone)


def test_a_rank_without_samples_in_the_last_batch_still_yields_it():
    assert list(GlobalBatchSampler(9, 8, 4, 3, shuffle=False)) == [[3, 7], []]
    assert list(GlobalBatchSampler(2, 8, 4, 3, shuffle=False)) == [[]]


@pytest.mark.parametrize("done", range(6))
def test_global_batches_resume_mid_epoch_on_another_number_of_ranks(done):
    first = [GlobalBatchSampler(23, 5, 2, rank, seed=4) for rank in range(2)]
    for sampler in first:
        sampler.set_epoch(7)
        iterator = iter(sampler)
        for _ in range(done):
            next(iterator)
    state = first[0].state_dict()
    assert state == first[1].state_dict() == {"epoch": 7, "batches_done": done}

    alone = GlobalBatchSampler(23, 5, 1, 0, seed=4)
    alone.set_epoch(7)
    expected = list(alone)
    resumed = [GlobalBatchSampler(23, 5, 3, rank, seed=4) for rank in range(3)]
    for rank, sampler in enumerate(resumed):
        sampler.load_state_dict(state)
        sampler.set_epoch(7)  # what a training loop does at the epoch's beginning keeps the place
        assert sampler.state_dict() == state
        assert list(sampler) == [batch[rank::3] for batch in expected[done:]]
        assert sampler.state_dict() == {"epoch": 7, "batches_done": 5}
        assert list(sampler) == [batch[rank::3] for batch in expected], "only the next iteration resumes"
        assert len(sampler) == 5


def test_another_epoch_begins_at_its_first_batch():
    sampler = GlobalBatchSampler(10, 5, 1, 0)
    sampler.load_state_dict({"epoch": 2, "batches_done": 1})
    sampler.set_epoch(3)
    assert sampler.state_dict() == {"epoch": 3, "batches_done": 0}
    assert len(list(sampler)) == 2


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"epoch": 0}, "needs the keys epoch and batches_done"),
        ({"epoch": 0, "batches_done": 3}, "3 batches done, an epoch has 2; resume with the same data set"),
        ({"epoch": 0, "batches_done": -1}, "-1 batches done"),
        ({"epoch": -1, "batches_done": 0}, "epoch must not be negative"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        GlobalBatchSampler(10, 5, 1, 0).load_state_dict(state)


def test_sequential_and_random():
    assert list(SequentialSampler("abc")) == [0, 1, 2] and len(SequentialSampler(3)) == 3
    sampler = RandomSampler(20, seed=3)
    epochs = [list(sampler) for _ in range(3)]
    assert epochs == [whole_order(20, 3, epoch) for epoch in range(3)], "each iteration is the next epoch"
    sampler.set_epoch(1)
    assert list(sampler) == epochs[1] and len(sampler) == 20


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("length", "size"), [(0, 3), (2, 3), (6, 3), (7, 3)])
@pytest.mark.parity
def test_batch_sampler_equals_torch(length, size, drop_last):
    torch_data = pytest.importorskip("torch.utils.data")
    ours = BatchSampler(SequentialSampler(length), size, drop_last)
    theirs = torch_data.BatchSampler(range(length), size, drop_last)
    assert list(ours) == list(theirs) and len(ours) == len(theirs)


def test_batch_sampler_over_an_iterable_without_length():
    sampler = BatchSampler((index for index in range(5)), 2)
    with pytest.raises(TypeError, match="sampler generator has none"):
        len(sampler)
    assert list(sampler) == [[0, 1], [2, 3], [4]]


# ---- Slices


@pytest.mark.parametrize(("length", "batch"), [(43, 20), (10, 3), (64, 16)])
def test_slices_do_not_depend_on_the_number_of_ranks(length: int, batch: int) -> None:
    whole = list(GlobalBatchSampler(length, batch, 1, 0, seed=5))
    wanted = [[indices[v::8] for v in range(8)] for indices in whole]
    for ranks in (1, 2, 3, 5, 8):
        parts = [list(GlobalBatchSampler(length, batch, ranks, r, seed=5, virtual_ranks=8)) for r in range(ranks)]
        assert [[s for part in step for s in part] for step in zip(*parts, strict=True)] == wanted


def test_as_many_ranks_as_slices_have_their_usual_parts() -> None:
    for rank in range(3):
        sliced = GlobalBatchSampler(20, 8, 3, rank, virtual_ranks=3)
        assert [parts for (parts,) in sliced] == list(GlobalBatchSampler(20, 8, 3, rank))


def test_slices_need_a_virtual_rank_for_each_rank() -> None:
    with pytest.raises(ValueError, match="2 virtual ranks cannot be shared by 3 ranks"):
        GlobalBatchSampler(20, 8, 3, 0, virtual_ranks=2)
    with pytest.raises(ValueError, match="virtual_ranks must be an integer of at least 1"):
        GlobalBatchSampler(20, 8, 1, 0, virtual_ranks=0)

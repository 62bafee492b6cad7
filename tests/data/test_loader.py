from __future__ import annotations

import collections
import itertools
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from distgrad.autograd import Tensor
from distgrad.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    GlobalBatchSampler,
    RandomSampler,
    Subset,
    TensorDataset,
    default_collate,
    sample_generator,
)


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("distgrad-loader")]


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    yield
    assert loader_threads() == []


class AugmentedDataset(Dataset[tuple[np.ndarray, int]]):
    """Samples are (index plus noise, index); counts how often each was read, and slows down or fails where told."""

    def __init__(self, length, failing=(), before=lambda index: None):
        self.length, self.failing, self.before = length, failing, before
        self.reads = collections.Counter()
        self.lock = threading.Lock()

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        raise AssertionError("the loader asks an augmenting data set by get")

    def get(self, index, rng):
        self.before(index)
        with self.lock:
            self.reads[index] += 1
        if index in self.failing:
            raise KeyError(f"sample {index} is bad")
        return np.float32([index, rng.random()]), index


def labels(batch):
    return batch[1].numpy().tolist()


def contents(batches):
    return [(images.numpy().tolist(), target.numpy().tolist()) for images, target in batches]


# ---- order and augmentation


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("shuffle", [False, True])
def test_order_and_augmentation_do_not_depend_on_the_workers(num_workers, shuffle):
    # Later samples of each batch are ready first.
    dataset = AugmentedDataset(23, before=lambda index: threading.Event().wait(0.001 * (index % 4 == 0)))
    data = DataLoader(dataset, 5, shuffle, num_workers=num_workers, seed=7)
    data.set_epoch(2)
    order = list(range(23))
    if shuffle:
        sampler = RandomSampler(23, seed=7)
        sampler.set_epoch(2)
        order = list(sampler)
    batches = list(data)
    assert [labels(batch) for batch in batches] == [order[start : start + 5] for start in range(0, 23, 5)]
    for images, target in batches:
        assert isinstance(images, Tensor) and images.dtype == np.float32 and target.dtype == np.int64
        expected = [[index, np.float32(sample_generator(7, 2, index).random())] for index in labels((images, target))]
        assert images.numpy().tolist() == expected
    assert len(data) == 5


def test_each_iteration_is_another_epoch_unless_one_is_set():
    for shuffle in (False, True):
        data = DataLoader(AugmentedDataset(12), 4, shuffle, seed=1)
        first, second = contents(data), contents(data)
        assert first != second
        for epoch, expected in ((1, second), (0, first)):
            data.set_epoch(epoch)
            assert contents(data) == expected


def test_the_epoch_is_the_samplers():
    sampler = DistributedSampler(8, 2, 1, seed=3)
    data = DataLoader(AugmentedDataset(8), 4, sampler=sampler, seed=5)
    sampler.set_epoch(6)
    assert data.epoch == 6
    (images, target), *rest = data
    assert rest == [] and target.numpy().tolist() == list(sampler)
    assert images.numpy()[0, 1] == np.float32(sample_generator(5, 6, int(target.numpy()[0])).random())
    data.set_epoch(2)
    assert sampler.epoch == 2
    nested = DataLoader(AugmentedDataset(8), batch_sampler=BatchSampler(RandomSampler(8), 3))
    nested.set_epoch(4)
    assert nested.epoch == nested.sampler.epoch == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_iterators_at_once(num_workers):
    data = DataLoader(AugmentedDataset(10), 2, num_workers=num_workers)
    first, second = iter(data), iter(data)
    pairs = [(labels(one), labels(two)) for one, two in zip(first, second, strict=True)]
    assert pairs == [([start, start + 1],) * 2 for start in range(0, 10, 2)]
    shuffled = DataLoader(AugmentedDataset(10), 2, shuffle=True, num_workers=num_workers)
    one, two = zip(*[(labels(a), labels(b)) for a, b in zip(shuffled, shuffled, strict=True)], strict=True)
    assert sorted(itertools.chain(*one)) == sorted(itertools.chain(*two)) == list(range(10))


def test_a_generic_data_set_and_a_subset():
    assert [batch.numpy().tolist() for batch in DataLoader([3, 4, 5], 2)] == [[3, 4], [5]]
    subset = Subset(AugmentedDataset(9), [8, 3, 5])
    (images, target) = next(iter(DataLoader(subset, 3)))
    assert target.numpy().tolist() == [8, 3, 5]
    draws = [np.float32(sample_generator(0, 0, position).random()) for position in range(3)]
    assert images.numpy()[:, 1].tolist() == draws
    rows = DataLoader(TensorDataset(np.eye(3, dtype=np.float32), np.arange(3)), 2, num_workers=2)
    assert [(x.shape, y.numpy().tolist()) for x, y in rows] == [((2, 3), [0, 1]), ((1, 3), [2])]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_drop_last_and_nothing_to_load(num_workers):
    assert [labels(b) for b in DataLoader(AugmentedDataset(5), 2, drop_last=True, num_workers=num_workers)] == [
        [0, 1],
        [2, 3],
    ]
    assert list(DataLoader(AugmentedDataset(0), 2, num_workers=num_workers)) == []
    assert list(DataLoader(AugmentedDataset(0), 2, shuffle=True, num_workers=num_workers)) == []


# ---- errors and endings


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_an_exception_comes_at_its_batch_with_traceback_and_sample(num_workers):
    # 9 fails at once, 7 late: still 7 is named, whatever the number of workers.
    dataset = AugmentedDataset(20, {7, 9, 13}, lambda index: threading.Event().wait(0.02 * (index == 7)))
    iterator = iter(DataLoader(dataset, 5, num_workers=num_workers))
    assert labels(next(iterator)) == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError, match="sample 7 is bad") as caught:
        next(iterator)
    assert caught.value.__notes__ == ["while loading sample 7 of AugmentedDataset in epoch 0"]
    assert "in get" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert list(iterator) == [] and loader_threads() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_of_the_collation(num_workers):
    shapes = [np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(4)]
    iterator = iter(DataLoader(shapes, 2, num_workers=num_workers))
    assert next(iterator).shape == (2, 3)
    with pytest.raises(ValueError, match=r"must have the same shape, got \(3,\), \(4,\); bring them to one size"):
        next(iterator)


def test_break_and_exceptions_in_the_loop_stop_the_threads():
    data = DataLoader(AugmentedDataset(1000), 2, num_workers=4)
    for _ in data:
        assert loader_threads()
        break
    assert loader_threads() == []
    with pytest.raises(ZeroDivisionError):
        for _ in data:
            raise ZeroDivisionError
    assert loader_threads() == []
    iterator = iter(data)
    assert loader_threads() == [], "nothing starts before the first batch is asked for"
    next(iterator)
    iterator.close()
    assert loader_threads() == []


def test_leaving_does_not_wait_for_what_was_queued(monkeypatch):
    gate = threading.Event()
    blocked = threading.Event()

    class GatedExecutor(ThreadPoolExecutor):
        def shutdown(self, *args, **kwargs):
            gate.set()
            super().shutdown(*args, **kwargs)

    def before(index):
        if index >= 4:
            blocked.set()
            assert gate.wait(30)

    monkeypatch.setattr("distgrad.data.loader.ThreadPoolExecutor", GatedExecutor)
    dataset = AugmentedDataset(400, before=before)
    iterator = iter(DataLoader(dataset, 4, num_workers=1, prefetch_factor=50))
    next(iterator)
    assert blocked.wait(30)
    iterator.close()
    assert sum(dataset.reads.values()) == 5, "only the sample in hand was finished"


@pytest.mark.parametrize(("num_workers", "prefetch_factor"), [(1, 1), (2, 3), (4, 2)])
def test_no_more_than_the_prefetched_batches_are_loaded_ahead(num_workers, prefetch_factor):
    dataset = AugmentedDataset(300)
    data = DataLoader(dataset, 3, num_workers=num_workers, prefetch_factor=prefetch_factor)
    for handed_out, _ in enumerate(itertools.islice(data, 20), 1):
        for _ in range(10):
            threading.Event().wait(0.0005)
            assert sum(dataset.reads.values()) <= 3 * (handed_out + num_workers * prefetch_factor)


def test_the_next_batch_is_loaded_while_one_is_used():
    ahead = threading.Event()
    data = DataLoader(AugmentedDataset(4, before=lambda index: ahead.set() if index == 3 else None), 2, num_workers=1)
    for _ in data:
        assert ahead.wait(30)


def test_all_workers_share_the_first_batch():
    barrier = threading.Barrier(4)
    dataset = AugmentedDataset(4, before=lambda index: barrier.wait(30))
    assert labels(next(iter(DataLoader(dataset, 4, num_workers=4)))) == [0, 1, 2, 3]


def test_delivered_batches_are_not_kept():
    import weakref

    data = DataLoader(
        AugmentedDataset(12), 2, num_workers=2, collate_fn=lambda samples: np.array([s[1] for s in samples])
    )
    iterator = iter(data)
    kept = []
    for _ in range(3):
        batch = next(iterator)
        kept.append(weakref.ref(batch))
        del batch
    next(iterator)
    assert [reference() for reference in kept] == [None] * 3
    iterator.close()


# ---- many ranks


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("length", "ranks", "size"), [(9, 2, 4), (9, 4, 2), (8, 2, 4), (3, 4, 2), (13, 3, 4), (10, 3, 3)]
)
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_rank_yields_as_many_batches(length, ranks, size, drop_last, num_workers):
    runs, lengths = [], set()
    for rank in range(ranks):
        sampler = DistributedSampler(length, ranks, rank, seed=2)
        data = DataLoader(AugmentedDataset(length), size, sampler=sampler, drop_last=drop_last, num_workers=num_workers)
        lengths.add(len(data))
        runs.append(list(data))
        share = list(sampler)
        seen = list(itertools.chain(*map(labels, runs[-1])))
        assert seen == share[: len(seen)]
        for images, target in runs[-1]:
            assert images.shape[1:] == (2,) and images.dtype == np.float32 and len(images.shape) == 2
            assert target.dtype == np.int64 and len(target.shape) == 1
    assert {len(run) for run in runs} == lengths and len(lengths) == 1
    if not drop_last:
        everything = itertools.chain(*(labels(batch) for run in runs for batch in run))
        assert sorted(everything) == list(range(length))


@pytest.mark.parametrize("num_workers", [0, 3])
def test_global_batches_with_empty_parts(num_workers):
    runs = []
    for rank in range(4):
        sampler = GlobalBatchSampler(9, 8, 4, rank, shuffle=False)
        runs.append(list(DataLoader(AugmentedDataset(9), batch_sampler=sampler, num_workers=num_workers)))
    assert [[labels(batch) for batch in run] for run in runs] == [
        [[0, 4], [8]],
        [[1, 5], []],
        [[2, 6], []],
        [[3, 7], []],
    ]
    assert runs[3][1][0].shape == (0, 2) and runs[3][1][0].dtype == np.float32


def test_augmentation_does_not_depend_on_the_number_of_ranks():
    def drawn(ranks):
        found = {}
        for rank in range(ranks):
            sampler = GlobalBatchSampler(11, 4, ranks, rank, seed=8)
            sampler.set_epoch(3)
            for images, target in DataLoader(AugmentedDataset(11), batch_sampler=sampler, seed=8, num_workers=rank):
                found |= dict(zip(target.numpy().tolist(), images.numpy()[:, 1].tolist(), strict=True))
        return found

    assert len(drawn(1)) == 11
    assert drawn(1) == drawn(2) == drawn(3)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("done", [0, 1, 4, 6])
def test_a_resume_continues_behind_the_last_delivered_batch(num_workers, done):
    def build():
        sampler = GlobalBatchSampler(23, 4, 2, 1, seed=6)
        return sampler, DataLoader(AugmentedDataset(23), batch_sampler=sampler, num_workers=num_workers, seed=6)

    sampler, data = build()
    data.set_epoch(5)
    expected = contents(data)
    assert len(expected) == 6 and sampler.state_dict() == {"epoch": 5, "batches_done": 6}

    sampler, data = build()
    data.set_epoch(5)
    iterator = iter(data)
    before = contents(itertools.islice(iterator, done))
    state = sampler.state_dict()
    assert state == {"epoch": 5, "batches_done": done}, "what was loaded ahead does not count"
    iterator.close()

    sampler, data = build()
    sampler.load_state_dict(state)
    data.set_epoch(5)
    assert before + contents(data) == expected
    assert sampler.state_dict() == {"epoch": 5, "batches_done": 6}


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_failed_batch_is_not_done(num_workers):
    sampler = GlobalBatchSampler(40, 4, 1, 0, shuffle=False)
    data = DataLoader(AugmentedDataset(40, {9}), batch_sampler=sampler, num_workers=num_workers)
    with pytest.raises(KeyError):
        list(data)
    assert sampler.state_dict() == {"epoch": 0, "batches_done": 2}


def test_an_empty_batch_of_every_kind():
    Pair = collections.namedtuple("Pair", "left right")

    class Mixed(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"pair": Pair(np.zeros((2, 3)), 1.5), "names": "a", "list": [1, Tensor(np.zeros(4, np.float32))]}

    empty = next(iter(DataLoader(Mixed(), batch_sampler=[[]])))
    assert type(empty["pair"]).__name__ == "Pair" and empty["pair"].left.shape == (0, 2, 3)
    assert empty["pair"].right.shape == (0,) and empty["pair"].right.dtype == np.float64
    assert empty["names"] == [] and empty["list"][1].shape == (0, 4) and empty["list"][1].dtype == np.float32
    arrays = DataLoader(Mixed(), batch_sampler=[[]], collate_fn=lambda samples: np.ones((len(samples), 7), np.int8))
    assert next(iter(arrays)).shape == (0, 7)
    with pytest.raises(TypeError, match="cannot make an empty set: let collate_fn return"):
        next(iter(DataLoader(Mixed(), batch_sampler=[[]], collate_fn=lambda samples: {1})))


# ---- collation


@pytest.mark.parity
@pytest.mark.parametrize(
    "samples",
    [
        [1, 2, 3],
        [1.5, 2.5],
        [True, False],
        [np.float32(1), np.float32(2)],
        [np.int16(1), np.int16(2)],
        [np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)],
        [(np.zeros(2), 1), (np.ones(2), 2)],
        [{"x": 1, "y": [1.0, 2]}, {"x": 2, "y": [3.0, 4]}],
        ["a", "b"],
    ],
)
def test_collation_equals_torch(samples):
    torch_data = pytest.importorskip("torch.utils.data")

    def same(ours, theirs):
        if isinstance(ours, Tensor):
            assert ours.dtype == theirs.numpy().dtype
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        elif isinstance(ours, dict):
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                same(value, theirs[key])
        elif isinstance(ours, str):
            assert ours == theirs
        else:
            for one, other in zip(ours, theirs, strict=True):
                same(one, other)

    same(default_collate(samples), torch_data.default_collate(samples))


def test_collation_of_tensors_copies_without_history():
    tensor = Tensor(np.ones(3, np.float32), requires_grad=True)
    batch = default_collate([tensor, tensor])
    assert (
        batch.shape == (2, 3)
        and not batch.requires_grad
        and not np.shares_memory(batch.numpy(), tensor.detach().numpy())
    )
    Pair = collections.namedtuple("Pair", "left right")
    assert type(default_collate([Pair(1, 2), Pair(3, 4)])) is Pair


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([Image.new("L", (2, 2))], TypeError, "not of Image; turn images into arrays with ToTensor or pass collate_fn"),
        ([None], TypeError, "not of NoneType"),
        ([(1, 2), (1,)], ValueError, r"same number of fields, got \[1, 2\]"),
        ([{"a": 1}, {"b": 1}], ValueError, r"same keys, got \[\['a'\], \['b'\]\]"),
    ],
)
def test_collation_refuses(samples, error, message):
    with pytest.raises(error, match=message):
        default_collate(samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": -1}, "num_workers must not be negative, got -1"),
        ({"prefetch_factor": 0}, "prefetch_factor must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"shuffle": True, "sampler": [0]}, "sampler decides the order, so it excludes shuffle"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "excludes batch_size, shuffle, sampler and drop_last"),
        ({"batch_sampler": [[0]], "drop_last": True}, "excludes batch_size"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        DataLoader([1, 2], **options)
    with pytest.raises(ValueError, match="epoch must not be negative"):
        DataLoader([1, 2]).set_epoch(-1)


def test_no_length_without_one_in_the_sampler():
    data = DataLoader([1, 2], batch_sampler=([index] for index in (1, 0)))
    with pytest.raises(TypeError, match="no length because generator has none"):
        len(data)
    assert [batch.numpy().tolist() for batch in data] == [[2], [1]]


def test_samples_are_not_loaded_twice():
    dataset = AugmentedDataset(50)
    list(DataLoader(dataset, 7, shuffle=True, num_workers=4))
    assert set(dataset.reads.values()) == {1} and len(dataset.reads) == 50


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_slices_is_a_list_of_batches(workers: int) -> None:
    data = TensorDataset(np.arange(14.0).reshape(7, 2), np.arange(7))
    sampler = GlobalBatchSampler(7, 5, 1, 0, shuffle=False, virtual_ranks=3)
    first, second = DataLoader(data, batch_sampler=sampler, num_workers=workers)
    assert [labels.tolist() for _, labels in first] == [[0, 3], [1, 4], [2]]
    assert [labels.tolist() for _, labels in second] == [[5], [6], []]
    assert [tuple(values.shape) for values, _ in second] == [(1, 2), (1, 2), (0, 2)]
    np.testing.assert_array_equal(first[1][0].numpy(), [[2, 3], [8, 9]])
    assert sampler.batches_done == 2

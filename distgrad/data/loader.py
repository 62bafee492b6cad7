"""Batches from a data set, decoded ahead in threads and delivered in the sampler's order.

Threads suffice: Pillow and NumPy release the interpreter lock while they decode, resize and copy, and a thread hands
its arrays over without a copy, which a process could not.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from distgrad import tracing
from distgrad.autograd import Tensor
from distgrad.data.dataset import Dataset
from distgrad.data.pixels import PixelTail
from distgrad.data.sampler import (
    BatchSampler,
    DistributedSampler,
    GlobalBatchSampler,
    RandomSampler,
    SequentialSampler,
)
from distgrad.data.stream import sample_generator


def default_collate(samples: Sequence[Any]) -> Any:
    """One batch out of a non-empty list of samples that are built alike.

    Arrays, tensors and numbers become a ``Tensor`` with a new first dimension: float32 images of shape (C, H, W) one of
    (N, C, H, W), ints one of int64 (N,), floats one of float64 (N,), as in PyTorch. Tuples, lists and mappings are
    collated field by field and keep their kind; strings stay a list.

    Raises ``ValueError`` where shapes, lengths or keys differ, ``TypeError`` for a kind that cannot be batched.
    """
    first = samples[0]
    if isinstance(first, Tensor):
        return _stack([sample.detach().numpy() for sample in samples])
    if isinstance(first, (np.ndarray, np.generic)):
        return _stack(samples)
    if isinstance(first, (bool, float)):
        return Tensor(np.array(samples))
    if isinstance(first, int):
        return Tensor(np.array(samples, dtype=np.int64))
    if isinstance(first, (str, bytes)):
        return list(samples)
    if isinstance(first, Mapping):
        if any(sample.keys() != first.keys() for sample in samples):
            keys = [list(sample) for sample in samples]
            raise ValueError(f"samples of one batch must have the same keys, got {keys}")
        return {key: default_collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        lengths = sorted({len(sample) for sample in samples})
        if len(lengths) > 1:
            raise ValueError(f"samples of one batch must have the same number of fields, got {lengths}")
        fields = [default_collate(field) for field in zip(*samples, strict=True)]
        if isinstance(first, list):
            return fields
        return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)
    raise TypeError(
        f"a batch can be made of arrays, tensors, numbers, strings, tuples, lists and mappings, not of "
        f"{type(first).__name__}; turn images into arrays with ToTensor or pass collate_fn"
    )


def _stack(arrays: Sequence[Any]) -> Tensor:
    shapes = {np.shape(array): None for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"samples of one batch must have the same shape, got {', '.join(map(str, shapes))}; "
            "bring them to one size, as with Resize and CenterCrop"
        )
    return Tensor(np.stack(arrays))


def _collate_pixels(samples: Sequence[Any], tail: PixelTail) -> Any:
    """``default_collate`` of samples whose first field, a photo, still lacks ``tail``."""
    photos = [sample[0] for sample in samples]
    if all(tail.is_bytes(photo) for photo in photos) and len({photo.shape for photo in photos}) == 1:
        _, *fields = zip(*samples, strict=True)
        return Tensor(tail.assemble(photos)), *map(default_collate, fields)
    finished = [tail.apply(photo) if tail.is_bytes(photo) else photo for photo in photos]
    return default_collate([(photo, *sample[1:]) for photo, sample in zip(finished, samples, strict=True)])


def _emptied(batch: Any) -> Any:
    """``batch`` with every first dimension cut to 0."""
    if isinstance(batch, Tensor):
        return Tensor(batch.detach().numpy()[:0])
    if isinstance(batch, np.ndarray):
        return batch[:0]
    if isinstance(batch, Mapping):
        return {key: _emptied(value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        fields = [_emptied(value) for value in batch]
        return type(batch)(*fields) if hasattr(batch, "_fields") else tuple(fields)
    if isinstance(batch, list):
        return [] if all(isinstance(value, (str, bytes)) for value in batch) else [_emptied(value) for value in batch]
    raise TypeError(
        f"this rank has no sample in the batch and cannot make an empty {type(batch).__name__}: let collate_fn return "
        "tensors, arrays, and tuples, lists or mappings of them"
    )


class _LockstepBatches(BatchSampler):
    """The batches of a rank's share, as many on every rank; a share used up before the longest ends in an empty one."""

    def __init__(self, sampler: DistributedSampler, batch_size: int, drop_last: bool) -> None:
        super().__init__(sampler, batch_size, drop_last)
        if drop_last:
            self._count = sampler.shortest_share // self.batch_size
        else:
            self._count = -(-sampler.longest_share // self.batch_size)

    def _cut(self, indices: Iterator[int]) -> Iterator[list[int]]:
        for _ in range(self._count):
            yield list(itertools.islice(indices, self.batch_size))

    def __len__(self) -> int:
        return self._count


class _PendingBatch:
    """One batch in the making: several threads load its samples, and the one that finishes last collates them."""

    def __init__(self, size: int, parts: int, collate: Callable[[list[Any]], Any]) -> None:
        self.result: Future[Any] = Future()
        self._samples: list[Any] = [None] * size
        self._failures: dict[int, BaseException] = {}
        self._unfinished = parts
        self._lock = threading.Lock()
        self._collate = collate

    def load(self, positions: range, fetch: Callable[[int], Any], abandoned: threading.Event) -> None:
        """Fetches the samples at ``positions`` of the batch, in a worker thread."""
        for position in positions:
            if abandoned.is_set():
                break
            try:
                self._samples[position] = fetch(position)
            except BaseException as error:
                self._failures[position] = error
                break
        with self._lock:
            self._unfinished -= 1
            if self._unfinished:
                return
        if not abandoned.is_set():
            self._finish()

    def _finish(self) -> None:
        try:
            if self._failures:
                # The first by position, not by time, so that the same sample is named whatever the number of workers.
                raise self._failures[min(self._failures)]
            batch = self._collate(self._samples)
        except BaseException as error:
            self.result.set_exception(error)
        else:
            self.result.set_result(batch)


class DataLoader:
    """Iterates over ``dataset`` in batches, in an order that does not depend on ``num_workers``.

    Args:
        dataset: A ``Dataset``, or anything with ``__getitem__`` and ``__len__``.
        batch_size: Samples in a batch of this rank.
        shuffle: Use ``RandomSampler(dataset, seed=seed)``; otherwise the samples come in order.
        sampler: An iterable of indices, instead of ``shuffle``.
        batch_sampler: An iterable of lists of indices, instead of ``batch_size``, ``shuffle``, ``sampler``,
            ``drop_last``.
        num_workers: Threads that load ahead; 0 loads in the calling thread when a batch is asked for.
        collate_fn: Makes a batch out of a list of samples; ``default_collate`` by default.
        drop_last: Leave out a last batch of fewer than ``batch_size`` samples.
        prefetch_factor: Batches in the making or ready, for each worker, besides the one handed out.
        seed: Of the shuffle and of the augmentation.

    **Augmentation.** A ``Dataset`` is asked ``dataset.get(index, sample_generator(seed, epoch, index))``, anything else
    ``dataset[index]``. The epoch is the sampler's where it has one, so that ``sampler.set_epoch`` suffices, and
    otherwise the loader's own, which like PyTorch's random state moves on with every iteration. ``set_epoch`` sets
    both.

    **Photos.** Where the data set is an ``ImageFolder`` (or a subset of one) whose transform ends with ``ToTensor``, or
    that and ``Normalize``, and ``collate_fn`` is the default, photos stay bytes until their batch is complete and are
    scaled and normalized as they are written into it. The values are the same to the last bit.

    **Equal numbers of batches.** With a ``DistributedSampler`` each rank yields as many batches as the others. Where a
    rank's share is used up one batch early it yields a last batch of no samples, as it does wherever a batch sampler
    (such as ``GlobalBatchSampler``) yields an empty list: tensors of first dimension 0 with the trailing shape and
    dtype of sample 0. A data-parallel loop that takes part with it never waits for a rank that has stopped.

    **Slices.** Where the batch sampler yields lists of lists, as ``GlobalBatchSampler(virtual_ranks=V)`` does, a batch
    is a list with one collated batch for each.

    **Errors.** An exception from the data set is raised at its batch, in order, with its own traceback and a note that
    names the sample; iteration then ends. However it ends, by ``break``, an exception or exhaustion, its threads have
    stopped when the iterator is closed. Iterators of one loader are independent of each other.

    ``len(loader)`` counts the batches of a whole epoch. Raises ``ValueError`` for options that exclude each other or
    are out of range.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        prefetch_factor: int = 2,
        seed: int = 0,
    ) -> None:
        if num_workers < 0:
            raise ValueError(
                f"DataLoader: num_workers must not be negative, got {num_workers}; 0 loads without threads"
            )
        if prefetch_factor < 1:
            raise ValueError(f"DataLoader: prefetch_factor must be at least 1, got {prefetch_factor}")
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: sampler decides the order, so it excludes shuffle")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError(
                "DataLoader: batch_sampler makes the batches, so it excludes batch_size, shuffle, sampler and drop_last"
            )
        self.dataset = dataset
        self.num_workers = num_workers
        self.collate_fn = default_collate if collate_fn is None else collate_fn
        self.prefetch_factor = prefetch_factor
        self.seed = seed
        self.batch_sampler: Iterable[list[int]]
        if batch_sampler is not None:
            self.batch_sampler = batch_sampler
        elif isinstance(sampler, DistributedSampler):
            self.batch_sampler = _LockstepBatches(sampler, batch_size, drop_last)
        else:
            if sampler is None:
                sampler = RandomSampler(dataset, seed=seed) if shuffle else SequentialSampler(dataset)
            self.batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.sampler = getattr(self.batch_sampler, "sampler", None)
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        for sampler in (self.batch_sampler, self.sampler):
            epoch = getattr(sampler, "epoch", None)
            if epoch is not None:
                return int(epoch)
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration, here and in the samplers."""
        if epoch < 0:
            raise ValueError(f"DataLoader: epoch must not be negative, got {epoch}")
        self._epoch = epoch
        for sampler in (self.batch_sampler, self.sampler):
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def __len__(self) -> int:
        if not isinstance(self.batch_sampler, Sized):
            raise TypeError(f"DataLoader has no length because {type(self.batch_sampler).__name__} has none")
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        reader = _Reader(self, self.epoch)
        self._epoch += 1
        batches = iter(self.batch_sampler)
        done = self.batch_sampler.batches_done if isinstance(self.batch_sampler, GlobalBatchSampler) else 0
        return self._deliver(done, self._ahead(batches, reader) if self.num_workers else self._inline(batches, reader))

    def _deliver(self, done: int, loaded: Generator[Any, None, None]) -> Iterator[Any]:
        """Hands the batches out and tells a resumable sampler how many, as loading ahead has taken more from it."""
        resumable = self.batch_sampler if isinstance(self.batch_sampler, GlobalBatchSampler) else None
        with contextlib.closing(loaded):
            while True:
                try:
                    with tracing.span("data loading", "data"):
                        batch = next(loaded)
                except StopIteration:
                    return
                except Exception:
                    if resumable is not None:
                        resumable.batches_done = done
                    raise
                done += 1
                if resumable is not None:
                    resumable.batches_done = done
                yield batch
                del batch  # the next one is awaited without holding on to this one

    def _inline(self, batches: Iterator[list[int]], reader: _Reader) -> Generator[Any, None, None]:
        for indices in batches:
            flat, sizes = _in_one(indices)
            yield reader.collate([reader.fetch(index) for index in flat], sizes)

    def _ahead(self, batches: Iterator[list[int]], reader: _Reader) -> Generator[Any, None, None]:
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="distgrad-loader")
        abandoned = threading.Event()
        pending: deque[Future[Any]] = deque()
        try:
            for indices in itertools.islice(batches, self.prefetch_factor * self.num_workers):
                pending.append(self._submit(pool, indices, reader, abandoned))
            while pending:
                batch = pending.popleft().result()
                for indices in itertools.islice(batches, 1):
                    pending.append(self._submit(pool, indices, reader, abandoned))
                yield batch
                del batch
        finally:
            abandoned.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self, pool: ThreadPoolExecutor, indices: list[int], reader: _Reader, abandoned: threading.Event
    ) -> Future[Any]:
        """Starts the loading of one batch in as many parts as there are workers, so that the first is ready soon."""
        flat, sizes = _in_one(indices)
        parts = max(1, min(self.num_workers, len(flat)))
        batch = _PendingBatch(len(flat), parts, lambda samples: reader.collate(samples, sizes))
        for part in range(parts):
            positions = range(part * len(flat) // parts, (part + 1) * len(flat) // parts)
            pool.submit(batch.load, positions, lambda position: reader.fetch(flat[position]), abandoned)
        return batch.result


def _in_one(indices: list[Any]) -> tuple[list[int], list[int] | None]:
    """The indices of a batch in one list and, where it is made of slices, their lengths."""
    if not indices or not isinstance(indices[0], list):
        return indices, None
    return list(itertools.chain.from_iterable(indices)), [len(part) for part in indices]


class _Reader:
    """Reads the samples of one iteration over a loader and makes its batches."""

    def __init__(self, loader: DataLoader, epoch: int) -> None:
        self._dataset = loader.dataset
        self._seed = loader.seed
        self._epoch = epoch
        self._collate_fn = loader.collate_fn
        is_dataset = isinstance(loader.dataset, Dataset)
        self._augments = is_dataset and type(loader.dataset).get is not Dataset.get
        self._tail = loader.dataset.pixel_tail if is_dataset and loader.collate_fn is default_collate else None

    def fetch(self, index: int) -> Any:
        """The sample at ``index``; with a pixel tail, its photo as bytes."""
        try:
            if self._tail is not None:
                return self._dataset.get_pixels(index, sample_generator(self._seed, self._epoch, index))
            if self._augments:
                return self._dataset.get(index, sample_generator(self._seed, self._epoch, index))
            return self._dataset[index]
        except Exception as error:
            error.add_note(f"while loading sample {index} of {type(self._dataset).__name__} in epoch {self._epoch}")
            raise

    def collate(self, samples: list[Any], sizes: list[int] | None = None) -> Any:
        """The batch of ``samples``; of none, one of no samples that is like the others otherwise.

        With ``sizes`` a list of batches, one for each slice.
        """
        if sizes is not None:
            rest = iter(samples)
            return [self.collate(list(itertools.islice(rest, size))) for size in sizes]
        if not samples:
            return _emptied(self.collate([self.fetch(0)]))
        if self._tail is not None:
            return _collate_pixels(samples, self._tail)
        return self._collate_fn(samples)

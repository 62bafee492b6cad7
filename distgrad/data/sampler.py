"""Who sees which sample when: orders that depend on (seed, epoch) alone, and their division among ranks.

Shuffling is a permutation of the whole data set drawn by ``order_generator(seed, epoch)``, the same on every rank; a
rank then takes its part of it. Nothing is repeated and nothing is left out unless an argument asks for it.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from distgrad.data.stream import order_generator

T_co = TypeVar("T_co", covariant=True)


class Sampler(ABC, Generic[T_co]):
    """An iterable over sample indices, or over lists of them, that knows its length."""

    @abstractmethod
    def __iter__(self) -> Iterator[T_co]:
        """The indices of one epoch."""

    @abstractmethod
    def __len__(self) -> int:
        """How many items one epoch yields."""


def _length(name: str, source: Sized | int) -> int:
    """The number of samples in ``source``, a data set or that number itself."""
    length = operator.index(source) if isinstance(source, (int, np.integer)) else len(source)
    if length < 0:
        raise ValueError(f"{name}: the number of samples must not be negative, got {length}")
    return length


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return int(value)


def _place(name: str, num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """The number of ranks and this rank, those of the running job where they are not given."""
    if num_replicas is None or rank is None:
        from distgrad import distributed

        num_replicas = distributed.world_size() if num_replicas is None else num_replicas
        rank = distributed.rank() if rank is None else rank
    num_replicas = _positive(f"{name}: num_replicas", num_replicas)
    if not 0 <= operator.index(rank) < num_replicas:
        raise ValueError(f"{name}: rank must be from 0 to num_replicas - 1 = {num_replicas - 1}, got {rank}")
    return num_replicas, operator.index(rank)


def _epoch_order(length: int, shuffle: bool, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return order_generator(seed, epoch).permutation(length) if shuffle else np.arange(length)


def _epoch_number(name: str, epoch: int) -> int:
    number = operator.index(epoch)
    if number < 0:
        raise ValueError(f"{name}: epoch must not be negative, got {epoch}")
    return number


class SequentialSampler(Sampler[int]):
    """0, 1, ... in order."""

    def __init__(self, data_source: Sized | int) -> None:
        self._count = _length("SequentialSampler", data_source)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._count))

    def __len__(self) -> int:
        return self._count


class RandomSampler(Sampler[int]):
    """All indices in an order drawn from (seed, epoch).

    As in PyTorch each iteration is another shuffle: ``epoch`` advances by one whenever an iteration begins.
    ``set_epoch`` says which epoch the next iteration is, and makes it repeatable.
    """

    def __init__(self, data_source: Sized | int, *, seed: int = 0) -> None:
        self._count = _length("RandomSampler", data_source)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = _epoch_number("RandomSampler", epoch)

    def __iter__(self) -> Iterator[int]:
        order = _epoch_order(self._count, True, self.seed, self.epoch)
        self.epoch += 1
        return iter(order.tolist())

    def __len__(self) -> int:
        return self._count


class BatchSampler(Sampler[list[int]]):
    """Cuts the indices of ``sampler`` into lists of ``batch_size``; the last may be shorter unless ``drop_last``."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = _positive("BatchSampler: batch_size", batch_size)
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        # The sampler is asked now and not at the first batch, so that the epoch is that of this moment.
        return self._cut(iter(self.sampler))

    def _cut(self, indices: Iterator[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in indices:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        if not isinstance(self.sampler, Sized):
            raise TypeError(f"BatchSampler has no length because its sampler {type(self.sampler).__name__} has none")
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


class DistributedSampler(Sampler[int]):
    """A rank's share of a data set: ``order[rank::num_replicas]`` of the epoch's order.

    The shares are disjoint, cover the data set and differ in length by at most one, unlike in PyTorch, which repeats
    samples to make them equal; ``pad=True`` does that too, and ``drop_last=True`` cuts them all to the shortest.

    Args:
        dataset: The data set, or its number of samples.
        num_replicas: The number of ranks; that of the running job by default.
        rank: This rank; that of the running job by default.
        shuffle: Order by a permutation drawn from (seed, epoch); otherwise by index.
        seed: Of the permutation. It must be equal on all ranks.
        drop_last: Leave out the samples that do not divide evenly.
        pad: Repeat samples from the order's beginning until the shares are equal. Not for evaluation: it counts some
            twice.

    As in PyTorch the order stays that of one epoch until ``set_epoch`` is called. Raises ``ValueError`` for a rank out
    of range, fewer than one rank, ``drop_last`` together with ``pad``.
    """

    def __init__(
        self,
        dataset: Sized | int,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        pad: bool = False,
    ) -> None:
        if drop_last and pad:
            raise ValueError("DistributedSampler: drop_last and pad both make the shares equal; choose one of them")
        self.length = _length("DistributedSampler", dataset)
        self.num_replicas, self.rank = _place("DistributedSampler", num_replicas, rank)
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.pad = pad
        self.epoch = 0
        uneven = self.length % self.num_replicas
        self.total_size = self.length
        if drop_last:
            self.total_size -= uneven
        elif pad and uneven:
            self.total_size += self.num_replicas - uneven

    @property
    def shortest_share(self) -> int:
        """The number of samples of the rank that has the fewest."""
        return self.total_size // self.num_replicas

    @property
    def longest_share(self) -> int:
        """The number of samples of the rank that has the most."""
        return -(-self.total_size // self.num_replicas)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, equal on all ranks, that the order of the following iterations is drawn from."""
        self.epoch = _epoch_number("DistributedSampler", epoch)

    def __iter__(self) -> Iterator[int]:
        order = _epoch_order(self.length, self.shuffle, self.seed, self.epoch)
        # np.resize repeats the order from its beginning where total_size is larger, and cuts it where it is smaller.
        share = np.resize(order, self.total_size)[self.rank :: self.num_replicas]
        return iter(share.tolist())

    def __len__(self) -> int:
        return len(range(self.rank, self.total_size, self.num_replicas))


class GlobalBatchSampler(Sampler[list[Any]]):
    """A rank's part of global batches that are the same whatever the number of ranks.

    Each epoch's order is cut into global batches of ``global_batch_size``, of which rank r takes
    ``batch[r::num_replicas]``. Parts differ in length by at most one, and on a ragged last batch some may be empty:
    they are yielded all the same, so that every rank takes the same number of steps and none waits for the others.

    Args:
        length: The number of samples, or the data set.
        global_batch_size: Samples in a step of all ranks together.
        num_replicas: The number of ranks; that of the running job by default.
        rank: This rank; that of the running job by default.
        shuffle: Order by a permutation drawn from (seed, epoch); otherwise by index.
        seed: Of the permutation. It must be equal on all ranks.
        drop_last: Leave out a ragged last batch.
        virtual_ranks: Cut each global batch into so many slices, ``batch[v::virtual_ranks]``, whatever the number of
            ranks, and yield a list of this rank's slices: a run of ``virtual_ranks / num_replicas`` of them, up to
            rounding. For ``DistributedDataParallel(reproducible=True)`` with as many.

    Raises ``ValueError`` for arguments out of range, and fewer virtual ranks than ranks.

    Attributes:
        epoch: The epoch of the following iterations; set by ``set_epoch``.
        batches_done: Batches of this epoch that were handed out. A loader that reads ahead puts it back to the number
            of batches that it delivered.

    ``state_dict`` holds both; after ``load_state_dict`` the next iteration continues behind the batches done, and so
    does a resume on another number of ranks. ``len`` counts the batches of a whole epoch.
    """

    def __init__(
        self,
        length: Sized | int,
        global_batch_size: int,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        virtual_ranks: int | None = None,
    ) -> None:
        self.length = _length("GlobalBatchSampler", length)
        self.global_batch_size = _positive("GlobalBatchSampler: global_batch_size", global_batch_size)
        self.num_replicas, self.rank = _place("GlobalBatchSampler", num_replicas, rank)
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.virtual_ranks = virtual_ranks
        self._slices = range(0)
        if virtual_ranks is not None:
            from distgrad.distributed.tree_sum import block

            self.virtual_ranks = _positive("GlobalBatchSampler: virtual_ranks", virtual_ranks)
            self._slices = block(self.virtual_ranks, self.num_replicas, self.rank)
        self.epoch = 0
        self.batches_done = 0
        self._resume_at = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, equal on all ranks. Another epoch than the current one begins at its first batch."""
        number = _epoch_number("GlobalBatchSampler", epoch)
        if number != self.epoch:
            self.batches_done = self._resume_at = 0
        self.epoch = number

    def __iter__(self) -> Iterator[list[Any]]:
        start, self._resume_at = self._resume_at, 0
        self.batches_done = start
        return self._parts(start, _epoch_order(self.length, self.shuffle, self.seed, self.epoch))

    def _parts(self, start: int, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[list[Any]]:
        for number in range(start, len(self)):
            begin = number * self.global_batch_size
            batch = order[begin : begin + self.global_batch_size]
            self.batches_done = number + 1
            if self.virtual_ranks is None:
                yield batch[self.rank :: self.num_replicas].tolist()
            else:
                yield [batch[slice_ :: self.virtual_ranks].tolist() for slice_ in self._slices]

    def __len__(self) -> int:
        whole, rest = divmod(self.length, self.global_batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def state_dict(self) -> dict[str, int]:
        """Where the epoch stands: ``epoch`` and the ``batches_done`` of it."""
        return {"epoch": self.epoch, "batches_done": self.batches_done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continues from ``state_dict``: the next iteration begins behind its ``batches_done``.

        Raises ``ValueError`` for keys that are missing or unknown, and for a count that the epoch does not have.
        """
        if set(state_dict) != {"epoch", "batches_done"}:
            raise ValueError(f"GlobalBatchSampler: state needs the keys epoch and batches_done, got {list(state_dict)}")
        done = operator.index(state_dict["batches_done"])
        if not 0 <= done <= len(self):
            raise ValueError(
                f"GlobalBatchSampler: the state has {done} batches done, an epoch has {len(self)}; "
                "resume with the same data set and global_batch_size"
            )
        self.epoch = _epoch_number("GlobalBatchSampler", state_dict["epoch"])
        self.batches_done = self._resume_at = done

"""Map-style data sets under PyTorch's names: what ``dataset[index]`` and ``len(dataset)`` mean for the loader."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from distgrad.autograd import Tensor
from distgrad.data.pixels import PixelTail
from distgrad.data.stream import order_generator

T_co = TypeVar("T_co", covariant=True)


class Dataset(ABC, Generic[T_co]):
    """A data set of ``len(dataset)`` samples, each read by its index.

    A subclass defines ``__getitem__`` and ``__len__``. One that augments also overrides ``get(index, rng)``: the loader
    calls it with the generator keyed by (seed, epoch, index), so that a sample's augmentation depends on nothing else.
    Both are called from several threads at once.
    """

    @abstractmethod
    def __getitem__(self, index: int) -> T_co:
        """The sample at ``index``."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    def get(self, index: int, rng: np.random.Generator) -> T_co:
        """The sample at ``index``, its random transforms drawn from ``rng``; without any, ``self[index]``."""
        return self[index]

    @property
    def pixel_tail(self) -> PixelTail | None:
        """What a sample's photo still lacks in ``get_pixels``, so that a loader can do it for a whole batch; or None.

        Where it is not None, samples are tuples that begin with the photo.
        """
        return None

    def get_pixels(self, index: int, rng: np.random.Generator) -> Any:
        """``get`` without ``pixel_tail``: the photo as bytes (H, W, 3), or, where it has no such form, finished."""
        return self.get(index, rng)


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Samples are tuples of the rows of ``tensors``, which are ``Tensor`` or ``numpy.ndarray`` of equal first
    dimension.

    A ``Tensor`` gives ``Tensor`` rows without gradient history, an array gives array rows; both share its memory.

    Raises ``ValueError`` where the first dimensions differ or there is none.
    """

    def __init__(self, *tensors: Tensor | npt.NDArray[Any]) -> None:
        self.tensors = tensors
        self._arrays = [tensor.detach().numpy() if isinstance(tensor, Tensor) else tensor for tensor in tensors]
        shapes = [array.shape for array in self._arrays]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"TensorDataset takes tensors whose first dimensions are equal, got shapes {shapes}")

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = (array[index] for array in self._arrays)
        return tuple(
            Tensor(np.asarray(row)) if isinstance(tensor, Tensor) else row
            for tensor, row in zip(self.tensors, rows, strict=True)
        )

    def __len__(self) -> int:
        return len(self._arrays[0])


class Subset(Dataset[T_co]):
    """The samples of ``dataset`` at ``indices``, in that order. Augmentation is keyed by the position in the subset."""

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int) -> T_co:
        return self.dataset[self.indices[index]]

    def get(self, index: int, rng: np.random.Generator) -> T_co:
        """The sample at ``index`` of the subset, its random transforms drawn from ``rng``."""
        return self.dataset.get(self.indices[index], rng)

    @property
    def pixel_tail(self) -> PixelTail | None:
        """That of the data set."""
        if type(self).get is not Subset.get or type(self).__getitem__ is not Subset.__getitem__:
            return None  # a subclass makes samples of its own
        return self.dataset.pixel_tail if isinstance(self.dataset, Dataset) else None

    def get_pixels(self, index: int, rng: np.random.Generator) -> Any:
        """``get`` without ``pixel_tail``."""
        return self.dataset.get_pixels(self.indices[index], rng)

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Dataset[T_co], lengths: Sequence[int | float], seed: int = 0) -> list[Subset[T_co]]:
    """Cuts ``dataset`` into disjoint random subsets of ``lengths``, the same for the same ``seed`` on every rank.

    ``lengths`` are numbers of samples that add up to ``len(dataset)``, or fractions that add up to 1; each fraction is
    rounded down and the samples left over go one each to the first subsets, as in PyTorch.

    Raises ``ValueError`` where they do not add up or one is negative.
    """
    total = len(dataset)
    if any(not length >= 0 for length in lengths):
        raise ValueError(f"random_split: lengths must not be negative, got {list(lengths)}")
    if any(isinstance(length, float) for length in lengths):
        if not math.isclose(math.fsum(lengths), 1.0):
            raise ValueError(
                f"random_split: fractions must add up to 1, {list(lengths)} add up to {math.fsum(lengths)}"
            )
        counts = [math.floor(total * fraction) for fraction in lengths]
        for extra in range(total - sum(counts)):
            counts[extra % len(counts)] += 1
    else:
        counts = [int(length) for length in lengths]
        if sum(counts) != total:
            raise ValueError(
                f"random_split: lengths {counts} add up to {sum(counts)}, the data set has {total} samples"
            )
    order = order_generator(seed, 0).permutation(total).tolist()
    ends = np.cumsum(counts).tolist()
    return [Subset(dataset, order[end - count : end]) for count, end in zip(counts, ends, strict=True)]

"""What the model is trained and evaluated on: photos or, where the backbone is frozen, what it makes of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import PIL
import PIL.features

from distgrad import backends, nn
from distgrad.autograd import Tensor
from distgrad.compiler import Split
from distgrad.data import DataLoader, GlobalBatchSampler, ImageFolder, Subset
from distgrad.distributed import Communicator
from distgrad.features import (
    BLOCK,
    VERSION,
    FeatureLoader,
    FeatureStore,
    PhotoFeatures,
    make_room,
    place_matters_to_any,
)
from distgrad.features.store import folder_bytes
from distgrad.observe import Progress

from .settings import Settings

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Batches = Iterable[tuple[Tensor, Tensor]]


class Inputs(Protocol):
    """Batches for training and for validation."""

    def training(self, epoch: int, batches: range) -> Batches:
        """The batches of an epoch from the sampler's position on; ``batches`` are those that will be used. A
        collective."""

    def validation(self, epoch: int) -> Batches:
        """The validation photos, of which each rank gets a share. A collective."""

    def metrics(self) -> dict[str, int]:
        """What to record beside the losses, since it was last asked."""

    def summary(self) -> str:
        """A line for people at the end; empty where there is nothing to say."""


class Photos:
    """Photos, decoded anew in each epoch."""

    def __init__(
        self, settings: Settings, train: ImageFolder, val: ImageFolder, ranks: Communicator, sampler: GlobalBatchSampler
    ) -> None:
        workers = settings.data.decoding_threads
        self._training = DataLoader(train, batch_sampler=sampler, num_workers=workers, seed=settings.run.seed)
        self._validation = validation_loader(val, ranks, batch_size=settings.data.batch_size, workers=workers)

    def training(self, epoch: int, batches: range) -> Batches:
        """See :class:`Inputs`."""
        self._training.set_epoch(epoch)
        return self._training

    def validation(self, epoch: int) -> Batches:
        """See :class:`Inputs`."""
        return self._validation

    def metrics(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def summary(self) -> str:
        """Nothing."""
        return ""


def validation_loader(photos: ImageFolder, ranks: Communicator, *, batch_size: int, workers: int) -> DataLoader:
    """Every world_size-th photo, in batches of ``batch_size`` over all ranks."""
    mine = Subset(photos, range(ranks.rank, len(photos), ranks.world_size))
    return DataLoader(mine, batch_size=max(1, batch_size // ranks.world_size), num_workers=workers)


class Features:
    """Features of a frozen backbone; kept on disk if the settings say so.

    Args:
        settings: the recipe.
        split: the model, cut behind its frozen part.
        train: the training photos.
        val: the validation photos.
        ranks: who shares the work.
        sampler: says who sees which photo when.
        resources: closes the files.
    """

    def __init__(
        self,
        settings: Settings,
        split: Split,
        train: ImageFolder,
        val: ImageFolder,
        ranks: Communicator,
        sampler: GlobalBatchSampler,
        resources: contextlib.ExitStack,
    ) -> None:
        self._settings = settings
        self._ranks = ranks
        self._sampler = sampler
        self._stores: dict[str, FeatureStore] = {}
        self._resources = resources
        self._fixed_places = place_matters_to_any(ranks)

        def features_of(photos: ImageFolder, views: int | None) -> PhotoFeatures:
            return PhotoFeatures(
                photos,
                split,
                ranks,
                store=self._store(split, photos) if settings.caches_features else None,
                views=views,
                seed=settings.run.seed,
                dtype=settings.features.dtype,
                workers=settings.data.decoding_threads,
                fixed_places=self._fixed_places,
            )

        self._train = features_of(train, settings.features.views if settings.data.augment else None)
        self._val = features_of(val, None)
        self._loader = FeatureLoader(self._train, sampler)
        self._told = (0, 0)
        self._make_room()

    def _store(self, split: Split, photos: ImageFolder) -> FeatureStore:
        """The store of what ``split`` makes of photos that are prepared as ``photos`` are."""
        dtype = self._settings.features.dtype
        made_by = [
            split.digest(), repr(photos.transform), photos.exif_orientation,
            self._settings.data.decode, PIL.features.version("libjpeg_turbo"), dtype, split.feature_shape,
            backends.convolution, BLOCK, VERSION, np.__version__, PIL.__version__,
            # Where a row's bits depend on its place, they also depend on how threads share the rows.
            [os.environ.get(name) for name in THREADS] if self._fixed_places else "any place",
        ]  # fmt: skip
        name = hashlib.blake2b(repr(made_by).encode(), digest_size=16).hexdigest()
        if name not in self._stores:
            store = FeatureStore(self._settings.feature_folder / name, split.feature_shape, dtype)
            self._resources.callback(store.close)
            self._stores[name] = store
        return self._stores[name]

    def _make_room(self) -> None:
        if self._stores and self._ranks.local_rank == 0:
            make_room(self._settings.feature_folder, int(self._settings.features.limit_gb * 1e9))

    def training(self, epoch: int, batches: range) -> Batches:
        """See :class:`Inputs`."""
        self._loader.set_epoch(epoch)
        whole = GlobalBatchSampler(
            len(self._train.photos), self._sampler.global_batch_size, 1, 0, seed=self._sampler.seed
        )
        whole.set_epoch(epoch)
        needed = [index for batch in list(whole)[batches.start : batches.stop] for index in batch]
        self._fill(self._train, needed, epoch, f"features {epoch + 1}/{self._settings.train.epochs}")
        return self._loader

    def validation(self, epoch: int) -> Batches:
        """See :class:`Inputs`."""
        count, rank, world_size = len(self._val.photos), self._ranks.rank, self._ranks.world_size
        self._fill(self._val, range(count), epoch, "features to validate")
        mine = range(rank, count, world_size)
        size = max(1, self._settings.data.batch_size // world_size)
        return self._val.batches([mine[start : start + size] for start in range(0, len(mine), size)], epoch)

    def _fill(self, features: PhotoFeatures, indices: Sequence[int], epoch: int, description: str) -> None:
        missing = features.missing(indices, epoch)
        with Progress(len(missing), description, rank=self._ranks.rank) as progress:
            features.compute(missing, indices, epoch, progress.update)

    def metrics(self) -> dict[str, int]:
        """How many photos' features were found, and how many were computed, since it was last asked."""
        if not self._stores:
            return {}
        before, self._told = self._told, self._totals()
        return {"features_reused": self._told[0] - before[0], "features_computed": self._told[1] - before[1]}

    def _totals(self) -> tuple[int, int]:
        parts = (self._train, self._val)
        return sum(part.reused for part in parts), sum(part.computed for part in parts)

    def summary(self) -> str:
        """How many features came from where, and how large the cache is."""
        if not self._stores:
            return ""
        self._make_room()
        reused, computed = self._totals()
        folder = self._settings.feature_folder
        size = f"{folder_bytes(folder) / 1e6:.1f} MB in {folder}"
        return f"features: {reused} from the cache, {computed} computed; {size}"


class Head(nn.Module):
    """The rest of a network behind its frozen part: takes features. Its parameters are those of the whole network.

    Attributes:
        network: the network.
        split: how it is cut; set before the first call.
    """

    split: Split

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """The network's output for the photos that ``features`` (N, *feature_shape) are of."""
        return self.split.head(features)

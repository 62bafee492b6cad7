"""What the model is trained and evaluated on: photos or, where the backbone is frozen, what it makes of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
import PIL.features

from distgrad import backends, nn
from distgrad.autograd import Tensor
from distgrad.compiler import Split
from distgrad.data import DataLoader, GlobalBatchSampler, ImageFolder
from distgrad.distributed import Communicator
from distgrad.distributed.tree_sum import block
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
Steps = Iterable[list[tuple[Tensor, Tensor]]]


class Inputs(Protocol):
    """Batches for training and for validation."""

    def training(self, epoch: int, batches: range) -> Steps:
        """The batches of an epoch from the sampler's position on; ``batches`` are those that will be used. A
        collective.

        Of each this rank's slices: one, or with ``distributed.reproducible`` its share of the virtual ranks'."""

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
        self._validation = validation_loader(
            val, ranks, batch_size=settings.data.batch_size, workers=workers, virtual_ranks=settings.virtual_ranks
        )
        self._sliced = settings.virtual_ranks is not None

    def training(self, epoch: int, batches: range) -> Steps:
        """See :class:`Inputs`."""
        self._training.set_epoch(epoch)
        return self._training if self._sliced else map(_alone, self._training)

    def validation(self, epoch: int) -> Batches:
        """See :class:`Inputs`."""
        return self._validation

    def metrics(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def summary(self) -> str:
        """Nothing."""
        return ""


def validation_loader(
    photos: ImageFolder, ranks: Communicator, *, batch_size: int, workers: int, virtual_ranks: int | None = None
) -> DataLoader:
    """The batches of photos that this rank evaluates; see :func:`validation_batches`."""
    batches = validation_batches(len(photos), ranks, batch_size, virtual_ranks)
    return DataLoader(photos, batch_sampler=batches, num_workers=workers)


def validation_batches(
    photos: int, ranks: Communicator, batch_size: int, virtual_ranks: int | None = None
) -> list[list[int]]:
    """Every world_size-th photo, in batches of ``batch_size`` over all ranks.

    With ``virtual_ranks`` the batches are those of so many ranks, of which each real one has its share: a photo's
    company, on which its last bits may depend, is then the same on any number of ranks.
    """
    shares = ranks.world_size if virtual_ranks is None else virtual_ranks
    mine = [ranks.rank] if virtual_ranks is None else block(virtual_ranks, ranks.world_size, ranks.rank)
    size = max(1, batch_size // shares)
    return [
        list(range(photos)[share::shares][start : start + size])
        for share in mine
        for start in range(0, len(range(share, photos, shares)), size)
    ]


def _alone(batch: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [batch]


class Kept:
    """What finetuning and evaluation share: features of photos, on disk where the settings say so.

    Args:
        settings: the recipe.
        folder: where features are kept.
        split: the model, cut behind its frozen part.
        ranks: who shares the work.
        resources: closes the files.
    """

    def __init__(
        self, settings: Settings, folder: Path, split: Split, ranks: Communicator, resources: contextlib.ExitStack
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._split = split
        self._ranks = ranks
        self._resources = resources
        self._stores: dict[str, FeatureStore] = {}
        self._fixed_places = place_matters_to_any(ranks)

    def features_of(self, photos: ImageFolder, views: int | None, workers: int) -> PhotoFeatures:
        """The features of ``photos``, of ``views`` versions of each; ``workers`` threads decode."""
        return PhotoFeatures(
            photos,
            self._split,
            self._ranks,
            store=self._store(photos) if self._settings.caches_features else None,
            views=views,
            seed=self._settings.run.seed,
            dtype=self._settings.features.dtype,
            workers=workers,
            fixed_places=self._fixed_places,
        )

    def _store(self, photos: ImageFolder) -> FeatureStore:
        """The store of what the backbone makes of photos that are prepared as ``photos`` are."""
        dtype = self._settings.features.dtype
        made_by = [
            self._split.digest(), repr(photos.transform), photos.exif_orientation,
            self._settings.data.decode, PIL.features.version("libjpeg_turbo"), dtype, self._split.feature_shape,
            backends.convolution, BLOCK, VERSION, np.__version__, PIL.__version__,
            # Where a row's bits depend on its place, they also depend on how threads share the rows.
            [os.environ.get(name) for name in THREADS] if self._fixed_places else "any place",
        ]  # fmt: skip
        name = hashlib.blake2b(repr(made_by).encode(), digest_size=16).hexdigest()
        if name not in self._stores:
            store = FeatureStore(self._folder / name, self._split.feature_shape, dtype)
            self._resources.callback(store.close)
            self._stores[name] = store
        return self._stores[name]

    def fill(self, features: PhotoFeatures, indices: Sequence[int], epoch: int, description: str) -> None:
        """Computes what is missing of the photos ``indices``. A collective."""
        missing = features.missing(indices, epoch)
        with Progress(len(missing), description, rank=self._ranks.rank) as progress:
            features.compute(missing, indices, epoch, progress.update)

    def make_room(self) -> None:
        """Removes what is unused for longest, where the folder is larger than it may be."""
        if self._stores and self._ranks.local_rank == 0:
            make_room(self._folder, int(self._settings.features.limit_gb * 1e9))

    def summary(self, reused: int, computed: int) -> str:
        """How many features came from where, and how large the cache is; empty where none is kept."""
        if not self._stores:
            return ""
        self.make_room()
        size = f"{folder_bytes(self._folder) / 1e6:.1f} MB in {self._folder}"
        return f"features: {reused} from the cache, {computed} computed; {size}"


def evaluation_features(
    kept: Kept, photos: ImageFolder, ranks: Communicator, *, batch_size: int, workers: int
) -> tuple[Batches, str]:
    """In the place of :func:`validation_loader`, batches of features, and a line about where they come from.

    A collective.
    """
    features = kept.features_of(photos, None, workers)
    kept.fill(features, range(len(photos)), 0, "features")
    batches = features.batches(validation_batches(len(photos), ranks, batch_size), 0)
    return batches, kept.summary(features.reused, features.computed)


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
        self._kept = Kept(settings, settings.feature_folder, split, ranks, resources)
        workers = settings.data.decoding_threads
        self._train = self._kept.features_of(train, settings.features.views if settings.data.augment else None, workers)
        self._val = self._kept.features_of(val, None, workers)
        self._loader = FeatureLoader(self._train, sampler)
        self._told = (0, 0)
        self._kept.make_room()

    def training(self, epoch: int, batches: range) -> Steps:
        """See :class:`Inputs`."""
        self._loader.set_epoch(epoch)
        whole = GlobalBatchSampler(
            len(self._train.photos), self._sampler.global_batch_size, 1, 0, seed=self._sampler.seed
        )
        whole.set_epoch(epoch)
        needed = [index for batch in list(whole)[batches.start : batches.stop] for index in batch]
        self._kept.fill(self._train, needed, epoch, f"features {epoch + 1}/{self._settings.train.epochs}")
        return self._loader if self._sampler.virtual_ranks is not None else map(_alone, self._loader)

    def validation(self, epoch: int) -> Batches:
        """See :class:`Inputs`."""
        count = len(self._val.photos)
        self._kept.fill(self._val, range(count), epoch, "features to validate")
        size, virtual_ranks = self._settings.data.batch_size, self._settings.virtual_ranks
        return self._val.batches(validation_batches(count, self._ranks, size, virtual_ranks), epoch)

    def metrics(self) -> dict[str, int]:
        """How many photos' features were found, and how many were computed, since it was last asked."""
        if not self._settings.caches_features:
            return {}
        before, self._told = self._told, self._totals()
        return {"features_reused": self._told[0] - before[0], "features_computed": self._told[1] - before[1]}

    def _totals(self) -> tuple[int, int]:
        parts = (self._train, self._val)
        return sum(part.reused for part in parts), sum(part.computed for part in parts)

    def summary(self) -> str:
        """How many features came from where, and how large the cache is."""
        return self._kept.summary(*self._totals())


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

"""Features of photos: each computed once, by one rank, for all ranks, epochs and later runs.

Who computes a photo's features, beside which others and when must not show in their bits. So the network always sees
blocks of ``BLOCK`` samples, filled up with zeros: the same arithmetic for every sample (see ``blocks``). What is kept
and what is computed on the spot then agree bit for bit, and so does what is trained on them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ..autograd import Tensor
from ..compiler import Split
from ..data import DataLoader, Dataset, GlobalBatchSampler, ImageFolder, sample_generator
from ..data.pixels import PixelTail
from ..distributed import Communicator
from ..errors import DataError
from .blocks import BLOCK, pack, place_matters
from .store import KEY_BYTES, FeatureStore

Array = npt.NDArray[Any]

# Counts the changes of how features are computed from photos; features of another version are never used.
VERSION = 1

_EXCHANGED_BYTES = 1 << 26  # features that one message takes to other hosts


class PhotoFeatures:
    """The features of a folder of photos under a frozen network. Making one is a collective.

    With a store they are computed once: by ``missing`` and ``compute``, which are collectives; ``batches`` then only
    gathers rows. Without one ``batches`` computes them on the way, each time, to the same bits.

    Args:
        photos: the photos with their transform.
        split: the network, as ``compiler.split_frozen`` cuts it.
        ranks: who shares the work.
        store: where features are kept; None: nowhere.
        views: None for a transform that draws no random numbers. Else how many versions of a photo there are: epoch e
            sees version ``e % views``, whose random numbers are keyed by (seed, version, content of the file). 0: a new
            one each epoch, keyed by (seed, epoch, index) as ``DataLoader`` does; they cannot be kept.
        seed: of the random transform.
        dtype: that features are rounded to, kept or not. ``batches`` gives float16 back as float32.
        workers: decoding threads of this rank.
        fixed_places: a photo's content decides its place in a block; None: where a rank's arithmetic needs it.

    Attributes:
        photos: the photos.
        reused: how many photos' features were found in the store, each version counted once.
        computed: how many were computed for it, by all ranks together.

    Raises:
        ValueError: a store, and new versions each epoch.
    """

    def __init__(
        self,
        photos: ImageFolder,
        split: Split,
        ranks: Communicator,
        *,
        store: FeatureStore | None = None,
        views: int | None = None,
        seed: int = 0,
        dtype: npt.DTypeLike = np.float32,
        workers: int = 0,
        fixed_places: bool | None = None,
    ) -> None:
        if store is not None and views == 0:
            raise ValueError(
                "PhotoFeatures: features of new versions each epoch cannot be kept; give views or no store"
            )
        self.photos = photos
        self.reused = 0
        self.computed = 0
        self._split = split
        self._ranks = ranks
        self._store = store
        self._views = views
        self._seed = seed
        self._dtype = np.dtype(dtype)
        self._workers = workers
        self._fixed_places = place_matters_to_any(ranks) if fixed_places is None else fixed_places
        self._targets = np.array(photos.targets, dtype=np.int64)
        self._digests: list[bytes] = []  # of each file, once they are needed
        self._keys: dict[int | None, list[bytes]] = {}  # by version, of each photo
        self._counted: set[bytes] = set()

    def missing(self, indices: Sequence[int], epoch: int) -> list[int]:
        """The photos among ``indices`` whose features no rank has, of equal ones one; the same on every rank.

        A collective. Without a store the list is empty.

        Raises:
            DataError: a file cannot be read.
        """
        if self._store is None:
            return []
        keys = self._keys_of(epoch)
        photo_of = {keys[index]: index for index in sorted(set(indices), reverse=True)}  # of equal ones the first
        wanted = list(photo_of)[::-1]
        self._store.look_for(wanted)
        there = self._store.locate(wanted).found.astype(np.uint8)
        self._ranks.all_reduce(there, "max")
        lacking = {key for key, found in zip(wanted, there.tolist(), strict=True) if not found}
        new = [keys[index] for index in indices if keys[index] not in self._counted]
        self.reused += sum(key not in lacking for key in new)
        self._counted.update(new)
        return [photo_of[key] for key in wanted if key in lacking]

    def compute(
        self, missing: Sequence[int], indices: Sequence[int], epoch: int, progress: Callable[[int], object] = int
    ) -> None:
        """Computes the features of ``missing``, each rank a share, and gives those of ``indices`` to every host.

        A collective.

        Args:
            missing: what ``missing`` gave for ``indices``.
            indices: the photos whose features are needed.
            epoch: that they are needed in.
            progress: called with the number of photos done since the last call, estimated over all ranks.

        Raises:
            DataError: a photo cannot be decoded, is not the same on all hosts, or is changed meanwhile.
        """
        if self._store is None:
            return
        keys = self._keys_of(epoch)
        mine = self._packed(missing)[self._ranks.rank :: self._ranks.world_size]
        rest = len(missing)
        for block, values in self._computed(mine, epoch):
            self._store.add([keys[index] for index in block], values)
            done = min(rest, len(block) * self._ranks.world_size)
            rest -= done
            progress(done)
        self.computed += len(missing)
        self._ranks.barrier()
        self._share(list(dict.fromkeys(keys[index] for index in indices)))

    def batches(self, parts: Sequence[Sequence[int]], epoch: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """For each list of indices its features ``(n, *feature_shape)`` and its int64 class indices ``(n,)``.

        A collective when it is called, not when it is iterated over.

        Raises:
            KeyError: with a store, while iterating: ``compute`` was not called for them.
            DataError: without one: a photo cannot be decoded.
        """
        if self._store is not None:
            return self._delivered(parts, self._kept(parts, self._keys_of(epoch)))
        return self._delivered(parts, self._streamed(parts, self._packed([i for part in parts for i in part]), epoch))

    def _delivered(
        self, parts: Sequence[Sequence[int]], rows: Generator[Array, None, None]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        with contextlib.closing(rows):
            for part, values in zip(parts, rows, strict=True):
                if values.dtype == np.float16:
                    values = values.astype(np.float32)
                yield Tensor(values), Tensor(self._targets[np.asarray(part, dtype=np.intp)])

    # ---- From the store

    def _kept(self, parts: Sequence[Sequence[int]], keys: Sequence[bytes]) -> Generator[Array, None, None]:
        assert self._store is not None
        places = self._store.locate([keys[index] for part in parts for index in part])
        end = 0
        for part in parts:
            start, end = end, end + len(part)
            yield self._store.rows(type(places)(places.source[start:end], places.row[start:end]))

    def _version(self, epoch: int) -> int | None:
        return epoch % self._views if self._views else None

    def _keys_of(self, epoch: int) -> list[bytes]:
        """The key of each photo in ``epoch``: of the file's content and, of a random transform, seed and version."""
        version = self._version(epoch)
        if version not in self._keys:
            self._digests = self._digests or self._digest_all()
            if version is None:
                self._keys[version] = self._digests
            else:
                salt = f"{self._seed} {version}".encode()
                self._keys[version] = [
                    hashlib.blake2b(digest + salt, digest_size=KEY_BYTES).digest() for digest in self._digests
                ]
        return self._keys[version]

    def _digest_all(self) -> list[bytes]:
        """The digest of each file; the ranks share the reading."""
        rank, world_size = self._ranks.rank, self._ranks.world_size
        paths = [path for path, _ in self.photos.samples[rank::world_size]]
        with ThreadPoolExecutor(max(1, self._workers)) as pool:
            mine = b"".join(pool.map(content_digest, paths))
        digests = [b""] * len(self.photos)
        for other, joined in enumerate(self._ranks.all_gather_bytes(mine)):
            digests[other::world_size] = [
                joined[start : start + KEY_BYTES] for start in range(0, len(joined), KEY_BYTES)
            ]
        return digests

    def _share(self, keys: list[bytes]) -> None:
        """Gives rows to the ranks that do not see the folder of those that have them. A collective."""
        store, ranks = self._store, self._ranks
        assert store is not None
        store.look_for(keys)
        lacking = ranks.all_gather(~store.locate(keys).found)  # (world_size, keys)
        owner = np.where(lacking.any(axis=0), lacking.argmin(axis=0), -1)  # the first that has it, if one lacks it
        step = max(1, _EXCHANGED_BYTES // max(1, int(np.prod(store.shape)) * store.dtype.itemsize))
        for source in range(ranks.world_size):
            sent = np.flatnonzero(owner == source)
            for start in range(0, len(sent), step):
                positions = sent[start : start + step]
                names = [keys[position] for position in positions]
                values = (
                    store.rows(store.locate(names))
                    if ranks.rank == source
                    else np.empty((len(names), *store.shape), store.dtype)
                )
                ranks.broadcast(values, source)
                if ranks.local_rank == 0:  # for all ranks of this host, and for later runs
                    absent = lacking[ranks.rank, positions]
                    store.add(
                        [name for name, is_absent in zip(names, absent, strict=True) if is_absent], values[absent]
                    )
                ranks.barrier()
                store.look_for(names)
                absent = ~store.locate(names).found
                if absent.any():  # the host's disk does not take them
                    store.keep(
                        [name for name, is_absent in zip(names, absent, strict=True) if is_absent], values[absent]
                    )

    # ---- From the photos

    def _streamed(
        self, parts: Sequence[Sequence[int]], blocks: Sequence[tuple[list[int], list[int]]], epoch: int
    ) -> Generator[Array, None, None]:
        """The features of each part, computed in blocks that run across the parts."""
        ahead: dict[int, list[Array]] = {}  # computed and not handed out yet; a photo may come more than once
        with contextlib.closing(self._computed(blocks, epoch)) as computed:
            for part in parts:
                values = np.empty((len(part), *self._split.feature_shape), self._dtype)
                for row, index in enumerate(part):
                    while not ahead.get(index):
                        for other, one in zip(*next(computed), strict=True):
                            ahead.setdefault(other, []).append(one)
                    values[row] = ahead[index].pop()
                yield values

    def _packed(self, indices: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        if not self._fixed_places:
            return pack(indices, None)
        self._digests = self._digests or self._digest_all()
        return pack(indices, [self._digests[index][-1] % BLOCK for index in indices])

    def _computed(
        self, blocks: Sequence[tuple[list[int], list[int]]], epoch: int
    ) -> Generator[tuple[list[int], Array], None, None]:
        """The photos of each block and their features; threads decode ahead."""
        samples = _Samples(self.photos, self._views, self._seed, epoch, self._digests)
        loader = DataLoader(samples, batch_sampler=[block for block, _ in blocks], num_workers=self._workers)
        with contextlib.closing(iter(loader)) as batches:  # type: ignore[type-var]
            for (block, places), (images,) in zip(blocks, batches, strict=True):
                yield block, self._features(images, places)

    def _features(self, images: Tensor, places: list[int]) -> Array:
        """The features of ``images`` (n, C, H, W), which take ``places`` in their block."""
        if len(places) < BLOCK:
            filled = np.zeros((BLOCK, *images.shape[1:]), images.dtype)
            filled[places] = images.numpy()
            images = Tensor(filled)
        values = self._split.features(images).numpy()[places]
        with np.errstate(over="ignore"):
            rounded = np.array(values, dtype=self._dtype, order="C")
        if rounded.dtype != values.dtype and bool((np.isinf(rounded) & np.isfinite(values)).any()):
            raise DataError(
                f"features of up to {np.abs(values[np.isfinite(values)]).max():.3g} do not fit {self._dtype}: choose "
                "float32 (--features.dtype float32)"
            )
        return rounded


def place_matters_to_any(ranks: Communicator) -> bool:
    """Whether ``place_matters`` on any rank, so that all put photos into the same blocks. A collective."""
    matters = np.array([place_matters()])
    ranks.all_reduce(matters, "max")
    return bool(matters[0])


class _Samples(Dataset[tuple[Any]]):
    """The photos, alone, as they are in one epoch; a file that is not the one that was digested is an error."""

    def __init__(self, photos: ImageFolder, views: int | None, seed: int, epoch: int, digests: Sequence[bytes]) -> None:
        self._photos = photos
        self._views = views
        self._seed = seed
        self._epoch = epoch
        self._digests = digests

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> tuple[Any]:
        return self._read(index, self._photos.get)

    @property
    def pixel_tail(self) -> PixelTail | None:
        """That of the photos."""
        return self._photos.pixel_tail

    def get_pixels(self, index: int, rng: np.random.Generator) -> tuple[Any]:
        """The photo without ``pixel_tail``; its random numbers are not ``rng``'s."""
        return self._read(index, self._photos.get_pixels)

    def _read(self, index: int, get: Callable[[int, np.random.Generator], tuple[Any, ...]]) -> tuple[Any]:
        if not self._digests and not self._views:
            return get(index, sample_generator(self._seed, self._epoch, index))[:1]
        path = self._photos.samples[index][0]
        before = _status(path)
        digest = content_digest(path)
        version, number = 0, index
        if self._views:
            version, number = self._epoch % self._views, int.from_bytes(digest[:8], "little")
        elif self._views == 0:
            version = self._epoch
        photo = get(index, sample_generator(self._seed, version, number))[:1]
        if (self._digests and digest != self._digests[index]) or before != _status(path):
            raise DataError(
                f"{path!r} is not the same file as when the run began, or not the same on every host: start again when "
                "nobody changes the photos"
            )
        return photo


def content_digest(path: str) -> bytes:
    """32 bytes that stand for the content of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(), digest_size=KEY_BYTES).digest()
    except OSError as error:
        raise DataError(f"{path!r} cannot be opened ({error.strerror}): replace it") from error


def _status(path: str) -> tuple[int, ...]:
    """What changes whenever the file at ``path`` is replaced or written to."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path!r} cannot be opened ({error.strerror}): replace it") from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FeatureLoader:
    """Batches of features in the order of a sampler, in place of a ``DataLoader`` of photos.

    Args:
        features: of the photos that the sampler counts.
        sampler: says who sees which photo when; its ``batches_done`` counts the batches handed out. Of one with
            ``virtual_ranks`` each is a list with a batch for each slice.
    """

    def __init__(self, features: PhotoFeatures, sampler: GlobalBatchSampler) -> None:
        self._features = features
        self._sampler = sampler

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration, here and in the sampler."""
        self._sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._sampler)
        done = self._sampler.batches_done
        parts = list(batches)
        self._sampler.batches_done = done
        sliced = self._sampler.virtual_ranks is not None
        flat = [part for slices in parts for part in slices] if sliced else parts
        with contextlib.closing(self._features.batches(flat, self._sampler.epoch)) as loaded:
            for part in parts:
                batch = [next(loaded) for _ in part] if sliced else next(loaded)
                done += 1
                self._sampler.batches_done = done
                yield batch

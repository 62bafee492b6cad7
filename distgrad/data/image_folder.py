"""Photos in one folder a class, read through Pillow; a file that cannot be used is named with what to do about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from distgrad.data.dataset import Dataset
from distgrad.data.decode import DECODE_MODES, MAX_PIXELS, DecodeMode, Decoder
from distgrad.data.photo_cache import PhotoCache
from distgrad.data.pipeline import Pipeline, Untransformable
from distgrad.data.pixels import PixelTail
from distgrad.data.stream import sample_generator
from distgrad.errors import DataError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


class ImageFolder(Dataset[tuple[Any, int]]):
    """The photos under ``root``, one subfolder a class, as ``(image, class index)``.

    Args:
        root: Folder whose subfolders are the classes, in sorted order. A class's photos are all its files with one of
            ``EXTENSIONS`` in whatever case, in subfolders too, in sorted order. Hidden files and folders (a leading
            dot) are left out, unlike in torchvision; symbolic links to folders are followed, as there.
        transform: Called with the RGB ``PIL.Image.Image`` and, if it has a parameter ``rng``, the sample's generator.
            Without one the image itself is returned.
        exif_orientation: Turn a photo upright as its EXIF orientation says. Off by default, as in torchvision.
        on_error: ``"raise"`` leaves undecodable files to be reported when they are read. ``"skip"`` decodes every file
            once, here, and drops the broken ones (see ``dropped``), so that all epochs and ranks see the same samples;
            a file that breaks later still raises. Under several ranks it is cheaper to share that work: build with
            ``"raise"``, ``scan(range(rank, len(dataset), world_size))``, gather the indices and ``drop`` them.
        max_pixels: Width times height above which a file is refused on its header, before any pixel is decoded.
        require_classes: The least number of classes that is no error; a classifier needs two.
        classes: The class names in the order of their indices, for a folder that must agree with another one, such as a
            validation set. A class may then have no folder here, but a folder of another name is an error.
        decode: How a photo is decoded where the transform begins with ``Resize``, ``Resize`` and ``CenterCrop``, or
            ``RandomResizedCrop``. ``"exact"`` gives torchvision's bits. The others do not: ``"box"`` resizes just the
            box that is kept, in one call (bytes differ by at most 1, one in a hundred; at the edges of a random box,
            where it sees the pixels beyond, by more, but by less than 1 in the mean); ``"fast"`` also decodes a JPEG at
            1/2, 1/4 or 1/8 of its size where that is still as large as is needed (a mean difference of 1 to 5 of 255,
            most at edges). Random boxes are the same in all three.
        photo_cache: A ``PhotoCache``, or the folder of one, for the bytes of the decoded photo after those transforms
            at the beginning of the pipeline that are the same in every epoch, ``Resize`` and ``CenterCrop``. A pipeline
            that begins with a random one leaves it unused: put a ``Resize`` before it.

    Attributes:
        classes: The class names; ``class_to_idx`` maps each to its index.
        samples: ``(path, class index)`` for each sample; ``targets`` holds the indices alone.
        dropped: ``(path, class index)`` for each sample that ``drop`` took out.

    Any image becomes 8-bit RGB as ``Image.convert("RGB")`` makes it, which is what torchvision's loader does: grey is
    repeated, a palette is looked up, transparency is dropped without blending, CMYK is converted without a colour
    profile, and 16-bit grey is clipped or scaled to 8 bits as the installed Pillow does. Of an animation, the first
    picture counts.

    ``dataset[index]`` draws random transforms from ``sample_generator(0, 0, index)``; the loader passes the generator
    of its seed and epoch to ``get`` instead.

    Raises ``DataError`` for a folder that is missing, unreadable or without classes, for an empty class, for fewer
    classes than ``require_classes``, and, from ``dataset[index]``, for a file that cannot be decoded.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[..., Any] | None = None,
        *,
        exif_orientation: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
        max_pixels: int = MAX_PIXELS,
        require_classes: int = 2,
        classes: Sequence[str] | None = None,
        decode: DecodeMode = "exact",
        photo_cache: PhotoCache | str | os.PathLike[str] | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f'ImageFolder: on_error must be "raise" or "skip", got {on_error!r}')
        if max_pixels < 1:
            raise ValueError(f"ImageFolder: max_pixels must be at least 1, got {max_pixels}")
        if decode not in DECODE_MODES:
            raise ValueError(f"ImageFolder: decode must be one of {', '.join(DECODE_MODES)}, got {decode!r}")
        self.root = os.path.expanduser(os.fspath(root))
        self.exif_orientation = exif_orientation
        self.max_pixels = max_pixels
        self.photo_cache = (
            photo_cache if photo_cache is None or isinstance(photo_cache, PhotoCache) else PhotoCache(photo_cache)
        )
        self._decoder = Decoder(decode, exif_orientation, max_pixels)
        self.transform = transform
        folders = _find_classes(self.root)
        self.classes = _agree(self.root, folders, classes)
        if len(self.classes) < require_classes:
            names = ", ".join(map(repr, self.classes))
            raise DataError(
                f"{self.root!r} has too few classes, {len(self.classes)} ({names}): a classifier needs at least "
                f"{require_classes}. Add a folder of photos for each further class"
            )
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.samples: list[tuple[str, int]] = []
        self.dropped: list[tuple[str, int]] = []
        empty: list[str] = []
        for name in folders:
            files = _find_photos(os.path.join(self.root, name))
            self.samples += [(path, self.class_to_idx[name]) for path in files]
            if not files:
                empty.append(name)
        if empty:
            names = ", ".join(map(repr, empty))
            raise DataError(
                f"{self.root!r} has {len(empty)} class folder{'s' * (len(empty) > 1)} without a photo: {names}. Looked "
                f"for files that end in {', '.join(EXTENSIONS)}; add some or remove the folder"
            )
        # With given classes the folders' order need not be that of the indices.
        self.samples.sort(key=lambda sample: sample[1])
        self.targets = [target for _, target in self.samples]
        if on_error == "skip":
            self.drop(self.scan())

    @property
    def transform(self) -> Callable[..., Any] | None:
        """What turns the RGB image into the sample; may be replaced."""
        return self._transform

    @transform.setter
    def transform(self, transform: Callable[..., Any] | None) -> None:
        self._transform = transform
        self._pipeline = Pipeline(transform, self._decoder, self.photo_cache)

    @property
    def pixel_tail(self) -> PixelTail | None:
        """The ``ToTensor`` and ``Normalize`` at the end of the transform, which a loader applies to whole batches."""
        if type(self).get is not ImageFolder.get or type(self).__getitem__ is not ImageFolder.__getitem__:
            return None  # a subclass makes samples of its own
        return self._pipeline.tail

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        index = range(len(self.samples))[index]
        return self.get(index, sample_generator(0, 0, index))

    def get(self, index: int, rng: np.random.Generator) -> tuple[Any, int]:
        """The sample at ``index``, its random transforms drawn from ``rng``."""
        photo, target = self.get_pixels(index, rng)
        tail = self._pipeline.tail
        return (photo if tail is None or not tail.is_bytes(photo) else tail.apply(photo)), target

    def get_pixels(self, index: int, rng: np.random.Generator) -> tuple[Any, int]:
        """The sample at ``index`` before ``pixel_tail``: bytes (H, W, 3), where it then is an RGB photo."""
        path, target = self.samples[index]
        try:
            return self._pipeline(path, rng), target
        except Untransformable as error:
            raise DataError(f"{path!r} cannot be transformed: {error}") from error
        except DataError as error:
            raise DataError(f'{error}, or set on_error="skip" to leave such files out') from error

    def scan(self, indices: Iterable[int] | None = None, *, num_workers: int = 4) -> dict[int, str]:
        """Decodes the files at ``indices`` (all by default) and returns, for each broken one, its index and the reason.

        The result is in the order of ``indices`` and does not depend on the number of threads. Disjoint ``indices`` on
        each rank share the work; every rank must then ``drop`` the union.
        """
        chosen: Sequence[int] = range(len(self.samples)) if indices is None else list(indices)
        if num_workers < 1:
            raise ValueError(f"ImageFolder.scan: num_workers must be at least 1, got {num_workers}")

        def broken(part: Sequence[int]) -> dict[int, str]:
            reasons = {}
            for index in part:
                try:
                    self._decoder.load(self.samples[index][0])
                except DataError as error:
                    reasons[index] = str(error)
            return reasons

        # Files are handed out by the handful, so that a million of them do not become a million queued calls.
        parts = [chosen[start : start + 16] for start in range(0, len(chosen), 16)]
        pool = ThreadPoolExecutor(num_workers)
        try:
            return {index: reason for reasons in pool.map(broken, parts) for index, reason in reasons.items()}
        finally:
            pool.shutdown(cancel_futures=True)

    def drop(self, broken: Iterable[int]) -> None:
        """Takes the samples at the indices ``broken`` out of the data set and adds them to ``dropped``.

        Every rank must drop the same indices, before samplers are built. Raises ``DataError`` where a class would be
        left without a sample, ``IndexError`` for an index that does not exist.
        """
        gone = {range(len(self.samples))[index] for index in broken}
        kept = [sample for index, sample in enumerate(self.samples) if index not in gone]
        lost = set(self.targets) - {target for _, target in kept}
        if lost:
            names = ", ".join(repr(self.classes[target]) for target in sorted(lost))
            raise DataError(
                f"{self.root!r}: {len(gone)} of {len(self.samples)} files are broken, so no photo of {names} is left; "
                f"the first is {self.samples[min(gone)][0]!r}. Replace them or remove the class"
            )
        self.dropped += [self.samples[index] for index in sorted(gone)]
        self.samples = kept
        self.targets = [target for _, target in kept]

    def __repr__(self) -> str:
        dropped = f", {len(self.dropped)} dropped" if self.dropped else ""
        return (
            f"{type(self).__name__}({self.root!r}: {len(self.samples)} images of {len(self.classes)} classes{dropped})"
        )


def _subfolders(folder: str) -> list[str]:
    """The names of the visible folders in ``folder``, sorted; ``DataError`` where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except FileNotFoundError:
        raise DataError(
            f"no such folder: {folder!r}. Give the folder that holds one subfolder of photos for each class"
        ) from None
    except NotADirectoryError:
        raise DataError(
            f"{folder!r} is not a folder. Give the folder that holds one subfolder of photos for each class"
        ) from None
    except OSError as error:
        raise DataError(f"folder {folder!r} cannot be listed: {error.strerror}") from error


def _find_classes(root: str) -> list[str]:
    """The class folders of ``root``; ``DataError`` where there is none."""
    folders = _subfolders(root)
    if not folders:
        photos = sum(name.lower().endswith(EXTENSIONS) for name in os.listdir(root))
        found = f"but {photos} photos directly in it" if photos else "and no photos"
        raise DataError(
            f"{root!r} has no class folders, {found}: put the photos of each class into a subfolder named after it"
        )
    return folders


def _agree(root: str, folders: list[str], classes: Sequence[str] | None) -> list[str]:
    """The classes that the indices count: the folders, or those given, which must then include the folders."""
    if classes is None:
        return folders
    names = list(classes)
    if len(set(names)) < len(names):
        raise ValueError(f"ImageFolder: classes names one twice: {names}")
    unknown = [name for name in folders if name not in set(names)]
    if unknown:
        raise DataError(
            f"{root!r} has class folders that are not among the {len(names)} expected classes: "
            f"{', '.join(map(repr, unknown))}. Expected {', '.join(map(repr, names))}; rename or remove the others"
        )
    return names


def _find_photos(folder: str) -> list[str]:
    """The paths of all photos below ``folder``, sorted by folder and then by name, as torchvision orders them."""
    return [os.path.join(place, name) for place, names in sorted(_walk(folder, frozenset())) for name in names]


def _walk(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, list[str]]]:
    """Each folder from ``folder`` down with the sorted names of its photos.

    A link back to a folder that it lies in is not followed: it would only repeat the photos without end.
    """
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    names = _subfolders(folder)
    with os.scandir(folder) as entries:
        photos = sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.name.lower().endswith(EXTENSIONS) and not entry.is_dir()
        )
    yield folder, photos
    for name in names:
        yield from _walk(os.path.join(folder, name), above | {identity})

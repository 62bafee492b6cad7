"""A transform taken apart: what can be done while decoding, what can be kept on disk, and what a batch does at once."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from distgrad.data.decode import Decoder
from distgrad.data.photo_cache import PhotoCache
from distgrad.data.pixels import PixelTail
from distgrad.data.transforms import CenterCrop, Compose, Resize, opening_window
from distgrad.errors import DataError

Generator = np.random.Generator


class Untransformable(DataError):
    """A photo could be decoded, but not transformed."""


class Pipeline:
    """From a file to what ``tail`` takes: ``transform`` without its end.

    Args:
        transform: What an ``ImageFolder`` was given. A ``Compose`` is taken apart; any other callable is one step.
        decoder: How files are decoded.
        cache: Where the photo is kept after the steps that are the same every time; None keeps nothing.

    Attributes:
        tail: The ``ToTensor`` and ``Normalize`` at the end, which are left to the caller, or None. A photo that they
            cannot take as bytes has been through them already.
    """

    def __init__(self, transform: Callable[..., Any] | None, decoder: Decoder, cache: PhotoCache | None) -> None:
        steps = _flat(transform)
        self.tail = PixelTail.of(steps)
        if self.tail is not None:
            steps = steps[: -self.tail.steps]
        fixed = next((i for i, step in enumerate(steps) if type(step) not in (Resize, CenterCrop)), len(steps))
        self._decoder = decoder
        self._cache = cache if fixed else None
        # Only what is the same every time, then the rest; all in one where nothing is kept in between.
        self._first = _Steps(decoder, steps[:fixed] if self._cache is not None else steps)
        self._rest = Compose(steps[fixed:]) if self._cache is not None and len(steps) > fixed else None
        self._settings = ""
        if self._cache is not None:
            jpeg = features.version("libjpeg_turbo") or features.version("jpg")
            self._settings = f"{decoder!r} {steps[:fixed]!r} Pillow {PIL.__version__} libjpeg {jpeg}"

    def __call__(self, path: str, rng: Generator) -> Any:
        """The photo in the file at ``path``: bytes (H, W, 3) or, without a ``tail``, what the last step gives.

        Raises:
            Untransformable: a step has refused it.
            DataError: it cannot be decoded.
        """
        if self._cache is None:
            photo = self._first(path, None, rng)
        else:
            photo = self._kept(path, self._cache, rng)
            if self._rest is not None:
                photo = _transformed(self._rest, Image.fromarray(photo), rng=rng)
            elif self.tail is None:
                photo = Image.fromarray(photo)
        return photo if self.tail is None else self.tail.bytes_of(photo)

    def _kept(self, path: str, cache: PhotoCache, rng: Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise DataError(f"{path!r} cannot be opened ({error.strerror}): replace it") from error
        key = cache.key(content, self._settings)
        photo = cache.get(key)
        if photo is None:
            photo = np.asarray(self._first(path, content, rng))
            cache.put(key, photo)
        return photo


class _Steps:
    """Decoding and the steps after it, of which the window is taken while decoding where the mode is not exact."""

    def __init__(self, decoder: Decoder, steps: tuple[Callable[..., Any], ...]) -> None:
        self._decoder = decoder
        self._steps = steps
        # The rest after a window of so many steps.
        self._after = [Compose(steps[done:]) for done in range(min(2, len(steps)) + 1)]

    def __call__(self, path: str, content: bytes | None, rng: Generator) -> Any:
        done = 0

        def window(width: int, height: int) -> Any:
            nonlocal done
            found = _transformed(partial(opening_window, self._steps, width, height), rng=rng)
            if found is None:
                return None
            done = found[1]
            return found[0]

        choose = None if self._decoder.mode == "exact" else window
        if content is None:
            photo: Any = self._decoder.load(path, choose)
        else:
            photo = self._decoder.decode(io.BytesIO(content), path, choose)
        return _transformed(self._after[done], photo, rng=rng)


def _transformed(transform: Callable[..., Any], *photo: Any, rng: Generator) -> Any:
    try:
        return transform(*photo, rng=rng)
    except DataError as error:
        raise Untransformable(str(error)) from error


def _flat(transform: Callable[..., Any] | None) -> tuple[Callable[..., Any], ...]:
    """The steps of ``transform``, those of a ``Compose`` within a ``Compose`` too."""
    if transform is None:
        return ()
    if type(transform) is not Compose:
        return (transform,)
    return tuple(step for part in transform.transforms for step in _flat(part))

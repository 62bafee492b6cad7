"""Image transforms with torchvision's names and, on Pillow images, torchvision's results to the last bit.

A pipeline runs from a ``PIL.Image.Image`` through ``ToTensor`` to a ``numpy.ndarray``; tensors appear only when the
loader makes a batch. Every transform is called as ``transform(image, rng)``: random ones draw from the sample's own
``numpy.random.Generator`` (see ``sample_generator``), the others ignore it. Any callable of one image fits into a
pipeline; one that has a parameter named ``rng`` is given the generator by that name.

The formulas are those of ``torchvision.transforms`` and its ``functional`` module for Pillow images.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from distgrad.data.stream import sample_generator
from distgrad.data.window import Window
from distgrad.errors import DataError

__all__ = [
    "CenterCrop",
    "Compose",
    "InterpolationMode",
    "Normalize",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "ToTensor",
    "accepts_generator",
    "sample_generator",
]

Generator = np.random.Generator

# Twice Pillow's own warning threshold, where Image.open refuses a file. A resize by the shorter side can pass it from a
# harmless file: one of 1 x 50,000 pixels becomes 256 x 12,800,000.
_MAX_RESIZED_PIXELS = 178_956_970


class InterpolationMode(StrEnum):
    """Pillow's resampling filters under torchvision's names; the plain string does as well."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"

    @property
    def resampling(self) -> Image.Resampling:
        """Pillow's constant for this filter."""
        return Image.Resampling[self.name]


def accepts_generator(transform: Callable[..., Any]) -> bool:
    """Whether ``transform`` has a parameter named ``rng`` and so wants the sample's generator."""
    try:
        return "rng" in inspect.signature(transform).parameters
    except (TypeError, ValueError):  # a builtin that carries no signature
        return False


def _interpolation(value: str) -> InterpolationMode:
    try:
        return InterpolationMode(value)
    except ValueError:
        known = ", ".join(InterpolationMode)
        raise ValueError(f"interpolation must be one of {known}, got {value!r}") from None


def _side(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an int or a sequence of ints (height, width), got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1 pixel, got {value}")
    return int(value)


def _size_pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """``size`` as (height, width); a single number is used for both."""
    if isinstance(size, Sequence) and not isinstance(size, str):
        if len(size) not in (1, 2):
            raise ValueError(f"{name} must have one or two values, got {len(size)}: {size!r}")
        return _side(name, size[0]), _side(name, size[-1])
    return _side(name, size), _side(name, size)


def _range_pair(name: str, bounds: Sequence[float]) -> tuple[float, float]:
    if len(bounds) != 2:
        raise ValueError(f"{name} must be a pair (min, max), got {bounds!r}")
    low, high = float(bounds[0]), float(bounds[1])
    if not 0 < low <= high < math.inf:
        raise ValueError(f"{name} must be a pair (min, max) with 0 < min <= max, got ({low:g}, {high:g})")
    return low, high


def _require_image(transform: object, image: object) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"{type(transform).__name__} takes a PIL image, got {type(image).__name__}; place it before ToTensor"
        )
    return image


def _require_generator(transform: object, rng: Generator | None) -> Generator:
    if rng is None:
        raise TypeError(
            f"{type(transform).__name__} draws random numbers: call it as transform(image, rng), "
            "with rng from sample_generator(seed, epoch, index)"
        )
    return rng


def _resize(image: Image.Image, height: int, width: int, interpolation: InterpolationMode) -> Image.Image:
    if image.size == (width, height):
        return image
    _refuse_a_bomb(image.size, (width, height))
    return image.resize((width, height), interpolation.resampling)


def _refuse_a_bomb(before: tuple[int, int], after: tuple[int, int]) -> None:
    if after[0] * after[1] > _MAX_RESIZED_PIXELS:
        raise DataError(
            f"an image of {before[0]} x {before[1]} pixels would be resized to {after[0]} x {after[1]}, more than "
            f"{_MAX_RESIZED_PIXELS} pixels: crop it, or give Resize both sides, as in Resize((224, 224))"
        )


class Compose:
    """Applies ``transforms`` one after the other and hands each that wants it the sample's generator.

    ``transforms`` are callables of one image; one with a parameter named ``rng`` also receives the generator.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = tuple(transforms)
        for transform in self.transforms:
            if not callable(transform):
                raise TypeError(f"Compose takes callables, got {transform!r}")
        self._draws = tuple(accepts_generator(transform) for transform in self.transforms)

    def __call__(self, image: Any, rng: Generator | None = None) -> Any:
        """The image after all transforms, in order."""
        for transform, draws in zip(self.transforms, self._draws, strict=True):
            image = transform(image, rng=rng) if draws else transform(image)
        return image

    def __repr__(self) -> str:
        steps = "".join(f"\n    {transform!r}" for transform in self.transforms)
        return f"{type(self).__name__}({steps}\n)"


class Resize:
    """Resizes a PIL image to ``size``.

    With an int (or one value in a sequence), the shorter side becomes ``size`` and the longer
    ``int(size * longer / shorter)``; with ``(height, width)``, exactly that. Pillow's filters average over the source
    area when they shrink, which is torchvision's ``antialias=True``.

    Raises ``DataError`` where the result would be a bomb of more than 178,956,970 pixels.
    """

    def __init__(
        self, size: int | Sequence[int], interpolation: InterpolationMode | str = InterpolationMode.BILINEAR
    ) -> None:
        pair = _size_pair("Resize: size", size)
        self.size: int | tuple[int, int] = pair if isinstance(size, Sequence) and len(size) == 2 else pair[0]
        self.interpolation = _interpolation(interpolation)

    def __call__(self, image: Image.Image, rng: Generator | None = None) -> Image.Image:
        """The resized image; ``rng`` is not used."""
        image = _require_image(self, image)
        width, height = self.result(*image.size)
        return _resize(image, height, width, self.interpolation)

    def result(self, width: int, height: int) -> tuple[int, int]:
        """The width and height that a photo of ``width`` x ``height`` pixels gets."""
        if isinstance(self.size, tuple):
            return self.size[1], self.size[0]
        if width <= height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size

    def window(self, width: int, height: int) -> Window:
        """All of a photo of ``width`` x ``height`` pixels, at its new size."""
        size = self.result(width, height)
        _refuse_a_bomb((width, height), size)
        return Window((0.0, 0.0, float(width), float(height)), size, self.interpolation.resampling)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, interpolation={self.interpolation})"


class CenterCrop:
    """Cuts ``size`` (height and width, or one int for both) out of a PIL image's middle.

    An image that is smaller is first padded with zeros, the odd row or column at the bottom or right. An odd margin is
    split by ``int(round(margin / 2))``, Python's rounding of halves to even, as torchvision does.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _size_pair("CenterCrop: size", size)

    def __call__(self, image: Image.Image, rng: Generator | None = None) -> Image.Image:
        """The central part of the image; ``rng`` is not used."""
        image = _require_image(self, image)
        height, width = self.size
        missing_rows, missing_columns = max(height - image.height, 0), max(width - image.width, 0)
        if missing_rows or missing_columns:
            border = (missing_columns // 2, missing_rows // 2, (missing_columns + 1) // 2, (missing_rows + 1) // 2)
            image = ImageOps.expand(image, border=border, fill=(0,) * len(image.getbands()))
        if image.size == (width, height):
            return image
        left, top, width, height = self.rectangle(*image.size)
        return image.crop((left, top, left + width, top + height))

    def rectangle(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) of what is cut out of a photo that is at least ``size``."""
        rows, columns = self.size
        return round((width - columns) / 2.0), round((height - rows) / 2.0), columns, rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"


class RandomResizedCrop:
    """Cuts out a box of random area and aspect ratio and resizes it to ``size`` (Szegedy et al., 2014).

    ``scale`` bounds the box's share of the image's area, ``ratio`` its width over its height, drawn log-uniformly.
    After ten boxes that do not fit, the largest central box within ``ratio`` is taken, as in torchvision. The boxes
    that a given generator draws are distgrad's own: PyTorch's random numbers are another stream.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: InterpolationMode | str = InterpolationMode.BILINEAR,
    ) -> None:
        self.size = _size_pair("RandomResizedCrop: size", size)
        self.scale = _range_pair("RandomResizedCrop: scale", scale)
        self.ratio = _range_pair("RandomResizedCrop: ratio", ratio)
        self.interpolation = _interpolation(interpolation)

    def get_params(self, image: Image.Image, rng: Generator) -> tuple[int, int, int, int]:
        """The box ``(top, left, height, width)`` that ``rng`` draws for ``image``."""
        return self._draw(image.width, image.height, rng)

    def window(self, width: int, height: int, rng: Generator | None) -> Window:
        """The box that ``rng`` draws for a photo of ``width`` x ``height`` pixels, at its new size."""
        top, left, rows, columns = self._draw(width, height, _require_generator(self, rng))
        box = float(left), float(top), float(left + columns), float(top + rows)
        return Window(box, (self.size[1], self.size[0]), self.interpolation.resampling)

    def _draw(self, image_width: int, image_height: int, rng: Generator) -> tuple[int, int, int, int]:
        area = image_height * image_width
        log_ratio = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            target_area = area * rng.uniform(*self.scale)
            aspect_ratio = math.exp(rng.uniform(*log_ratio))
            width = round(math.sqrt(target_area * aspect_ratio))
            height = round(math.sqrt(target_area / aspect_ratio))
            if 0 < width <= image_width and 0 < height <= image_height:
                top = int(rng.integers(0, image_height - height + 1))
                left = int(rng.integers(0, image_width - width + 1))
                return top, left, height, width

        height, width = image_height, image_width
        if width / height < self.ratio[0]:
            height = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            width = round(height * self.ratio[1])
        return (image_height - height) // 2, (image_width - width) // 2, height, width

    def __call__(self, image: Image.Image, rng: Generator | None = None) -> Image.Image:
        """A random box of the image, resized; ``TypeError`` without ``rng``."""
        image = _require_image(self, image)
        top, left, height, width = self.get_params(image, _require_generator(self, rng))
        box = image.crop((left, top, left + width, top + height))
        return _resize(box, *self.size, self.interpolation)

    def __repr__(self) -> str:
        scale, ratio = (tuple(round(bound, 4) for bound in pair) for pair in (self.scale, self.ratio))
        return (
            f"{type(self).__name__}(size={self.size}, scale={scale}, ratio={ratio}, interpolation={self.interpolation})"
        )


class RandomHorizontalFlip:
    """Mirrors a PIL image left to right with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"RandomHorizontalFlip: p must be a probability from 0 to 1, got {p}")
        self.p = float(p)

    def __call__(self, image: Image.Image, rng: Generator | None = None) -> Image.Image:
        """The image or its mirror image; ``TypeError`` without ``rng``."""
        image = _require_image(self, image)
        if _require_generator(self, rng).random() < self.p:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class ToTensor:
    """Turns a PIL image or a uint8 array ``(H, W)`` or ``(H, W, C)`` into a float32 array ``(C, H, W)`` in [0, 1].

    Bytes are divided by 255 in float32 and a bilevel image becomes 0 and 1. The result is a ``numpy.ndarray``; the
    loader makes a ``Tensor`` of the whole batch.

    Raises ``TypeError`` for images of more than 8 bits (``image.convert("RGB")`` cures it) and for arrays that are not
    uint8, ``ValueError`` for arrays of other than 2 or 3 dimensions.
    """

    def __call__(
        self, image: Image.Image | npt.NDArray[np.uint8], rng: Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """The image as an array; ``rng`` is not used."""
        if isinstance(image, Image.Image):
            if image.mode.startswith(("I", "F")):
                raise TypeError(
                    f'ToTensor takes images of 8 bits a channel, got mode {image.mode}; use image.convert("RGB")'
                )
            pixels = np.asarray(image)
            if image.mode == "1":
                pixels = pixels * np.uint8(255)
        elif isinstance(image, np.ndarray):
            pixels = image
        else:
            raise TypeError(f"ToTensor takes a PIL image or a uint8 array, got {type(image).__name__}")
        if pixels.ndim not in (2, 3):
            raise ValueError(f"ToTensor takes an image of shape (H, W) or (H, W, C), got {pixels.shape}")
        if pixels.dtype != np.uint8:
            raise TypeError(f"ToTensor takes bytes (uint8), got an array of {pixels.dtype}")
        planes = np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
        scaled = planes.astype(np.float32)
        scaled /= np.float32(255)
        return scaled

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Normalize:
    """``(x - mean) / std`` for each channel of a float array ``(..., C, H, W)``, computed in the array's own dtype.

    ``mean`` and ``std`` are one number a channel, in the units of ``x``.

    Raises ``ValueError`` for a std that is zero in that dtype and for a number of channels that does not match,
    ``TypeError`` for an array that is not of floats.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"Normalize: mean and std need one value a channel each, got {self.mean} and {self.std}")

    def __call__(self, image: npt.NDArray[Any], rng: Generator | None = None) -> npt.NDArray[Any]:
        """A normalized copy of the array; ``rng`` is not used."""
        if not isinstance(image, np.ndarray) or not np.issubdtype(image.dtype, np.floating):
            kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
            raise TypeError(f"Normalize takes an array of floats, got {kind}; place it after ToTensor")
        if image.ndim < 3:
            raise ValueError(f"Normalize takes an image of shape (..., C, H, W), got {image.shape}")
        if len(self.mean) not in (1, image.shape[-3]):
            raise ValueError(
                f"Normalize: {len(self.mean)} means for {image.shape[-3]} channels in an image of shape {image.shape}"
            )
        mean = np.asarray(self.mean, dtype=image.dtype)[:, None, None]
        std = np.asarray(self.std, dtype=image.dtype)[:, None, None]
        if not std.all():
            raise ValueError(f"Normalize: std {self.std} contains a value that is zero in {image.dtype}")
        normalized: npt.NDArray[Any] = image - mean
        normalized /= std
        return normalized

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mean={self.mean}, std={self.std})"


def opening_window(
    transforms: Sequence[Callable[..., Any]], width: int, height: int, rng: Generator | None
) -> tuple[Window, int] | None:
    """What the first of ``transforms`` keep of a photo of ``width`` x ``height`` pixels, and how many they are.

    They are one ``Resize``, a ``Resize`` and a ``CenterCrop``, or a ``RandomResizedCrop``, which draws from ``rng``;
    None where ``transforms`` begin with something else.
    """
    first = transforms[0] if transforms else None
    if type(first) is RandomResizedCrop:
        return first.window(width, height, rng), 1
    if type(first) is not Resize:
        return None
    window = first.window(width, height)
    second = transforms[1] if len(transforms) > 1 else None
    if type(second) is CenterCrop and second.size[1] <= window.size[0] and second.size[0] <= window.size[1]:
        return window.cropped(*second.rectangle(*window.size)), 2
    return window, 1

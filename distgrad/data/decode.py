"""Files to photos, through Pillow: exactly as torchvision reads them, or sooner and not to the last bit.

``DECODE_MODES`` say how a photo is brought to the size that a pipeline's first steps ask for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Literal, TypeAlias

from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from distgrad.data.window import Window
from distgrad.errors import DataError

# Twice Pillow's own warning threshold, where Image.open refuses a file.
MAX_PIXELS = 178_956_970

DecodeMode: TypeAlias = Literal["exact", "box", "fast"]
DECODE_MODES: tuple[DecodeMode, ...] = ("exact", "box", "fast")

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side


def load_image(
    path: str | os.PathLike[str], *, exif_orientation: bool = False, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The JPEG, PNG, WebP or BMP file at ``path`` as an 8-bit RGB image.

    Args:
        path: The file. Its first bytes say what it is, not its name.
        exif_orientation: Turn the image upright as its EXIF orientation says.
        max_pixels: Width times height above which the file is refused on its header, before any pixel is decoded.

    Raises:
        DataError: The file cannot be opened, is no such image, is too large, truncated or damaged; the text names it.
    """
    return Decoder(exif_orientation=exif_orientation, max_pixels=max_pixels).load(path)


@dataclass(frozen=True)
class Decoder:
    """How photos are decoded.

    Args:
        mode: ``"exact"``: the whole photo, on which the transforms then work, which gives torchvision's bits.
            ``"box"``: the whole photo, of which the window that the first transforms keep is resized in one call.
            ``"fast"``: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the window then still need not be
            enlarged, and what is left to shrink by 4 or more is first shrunk by a whole number.
        exif_orientation: Turn photos upright as their EXIF orientation says.
        max_pixels: Width times height above which a file is refused on its header, before any pixel is decoded.
    """

    mode: DecodeMode = "exact"
    exif_orientation: bool = False
    max_pixels: int = MAX_PIXELS

    def load(
        self, path: str | os.PathLike[str], window: Callable[[int, int], Window | None] | None = None
    ) -> Image.Image:
        """The photo in the file at ``path``: see ``decode``."""
        path = os.fspath(path)
        try:
            with open(path, "rb") as file:
                return self.decode(file, path, window)
        except OSError as error:
            raise DataError(f"{path!r} cannot be opened ({error.strerror}): replace it") from error

    def decode(
        self, file: IO[bytes], path: str, window: Callable[[int, int], Window | None] | None = None
    ) -> Image.Image:
        """The photo in ``file`` as an 8-bit RGB image, or a window of it.

        Args:
            file: Where it is read from.
            path: What errors call it.
            window: Asked for the window, with the width and the height of the upright photo. Without one, or where it
                gives None, the whole photo is returned.

        Raises:
            DataError: It is no such image, is too large, truncated or damaged; the text names ``path``.
        """
        with _damage(file, path):
            image = _open_image(file, path)
            pixels = image.width * image.height
            if pixels > self.max_pixels:
                raise DataError(
                    f"{path!r} has {image.width} x {image.height} = {pixels} pixels, more than the limit max_pixels = "
                    f"{self.max_pixels}, and was not decoded: scale the file down or raise max_pixels"
                )
            on_its_side = self.exif_orientation and window is not None and image.getexif().get(_ORIENTATION, 1) >= 5
        width, height = (image.height, image.width) if on_its_side else image.size
        chosen = None if window is None else window(width, height)
        scale = 1.0
        with _damage(file, path):
            if chosen is not None and self.mode == "fast":
                columns, rows = chosen.needed(width, height)
                scale = _drafted(image, (rows, columns) if on_its_side else (columns, rows))
            image.load()
            # Pillow would carry a transparent colour over to the RGB copy or warn that it cannot; pixels stay the same.
            image.info.pop("transparency", None)
            if self.exif_orientation:
                ImageOps.exif_transpose(image, in_place=True)
            photo = image if image.mode == "RGB" else image.convert("RGB")
            return photo if chosen is None else chosen.of(photo, scale, reduce=self.mode == "fast")


def _drafted(image: ImageFile, size: tuple[int, int]) -> float:
    """Lets a JPEG be decoded at a fraction of its size that is at least ``size``, and returns the fraction."""
    width = image.width
    drafted = image.draft("", size)
    return 1.0 if drafted is None else drafted[1][2] / width


@contextlib.contextmanager
def _damage(file: IO[bytes], path: str) -> Iterator[None]:
    """Whatever goes wrong in there becomes a ``DataError`` that names ``path``."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path!r} does not fit into memory: scale the file down or lower max_pixels") from error
    # Damaged bytes lead Pillow into OSError, SyntaxError, struct.error, zlib.error, KeyError and more.
    except Exception as error:
        raise DataError(
            f"{path!r} ({_byte_size(file)} bytes) is truncated or damaged and cannot be decoded ({error}): replace it"
        ) from error


def _open_image(file: IO[bytes], path: str) -> ImageFile:
    """The undecoded image in ``file``, by its first bytes and not by its name.

    ``Image.open`` would also try formats that nobody asked for, of which some run other programs, and would apply the
    process-wide ``Image.MAX_IMAGE_PIXELS`` instead of ``max_pixels``.
    """
    head = file.read(16)
    file.seek(0)
    if not head:
        raise DataError(f"{path!r} is empty (0 bytes): replace it")
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(file, path)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(file, path)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImageFile(file, path)
    if head.startswith(b"BM"):
        return BmpImageFile(file, path)
    raise DataError(
        f"{path!r} ({_byte_size(file)} bytes) is not a JPEG, PNG, WebP or BMP image, it begins with "
        f"{head!r}: replace it"
    )


def _byte_size(file: IO[bytes]) -> int:
    return file.seek(0, os.SEEK_END)

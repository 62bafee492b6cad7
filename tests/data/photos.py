"""Photos for tests: smooth areas, edges and grain, as a camera gives them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image of ``width`` x ``height`` pixels."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(smooth).astype(np.int16)
    pixels[height // 3 :, width // 2 :] //= 2  # a hard edge
    pixels += rng.normal(0, 6, pixels.shape).astype(np.int16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(width: int, height: int, seed: int = 0, **options: object) -> bytes:
    """The same as a JPEG file's content."""
    file = io.BytesIO()
    photo(width, height, seed).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()

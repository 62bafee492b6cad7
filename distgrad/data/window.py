"""The part of a photo that a pipeline's first steps keep, known before a pixel is decoded.

``Resize``, ``CenterCrop`` and ``RandomResizedCrop`` only choose a box of the photo and a size for it. Whoever knows
both beforehand can resize just that box, in one call, and let a JPEG be decoded at a fraction of its size.

Neither gives the bits of resizing and then cropping: Pillow takes the box in float32, a filter at the edge of a random
box sees the pixels beyond it, and which of its two passes, along rows and along columns, comes first depends on the
sizes, with a rounding to bytes in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image

# What a first step that shrinks by a whole number leaves to the filter: a factor of at least this.
_REDUCING_GAP = 2.0


@dataclass(frozen=True)
class Window:
    """A box of a photo and the size that it gets.

    Args:
        box: ``(left, top, right, bottom)`` in pixels of the photo, fractions allowed.
        size: ``(width, height)`` of the result in pixels.
        resampling: the filter.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    resampling: Image.Resampling

    def cropped(self, left: int, top: int, width: int, height: int) -> Window:
        """The window whose result is that rectangle of this one's, in pixels of the result."""
        across = (self.box[2] - self.box[0]) / self.size[0]
        down = (self.box[3] - self.box[1]) / self.size[1]
        box = (
            self.box[0] + left * across,
            self.box[1] + top * down,
            self.box[0] + (left + width) * across,
            self.box[1] + (top + height) * down,
        )
        return replace(self, box=box, size=(width, height))

    def needed(self, width: int, height: int) -> tuple[int, int]:
        """The least size of a photo of ``width`` x ``height`` pixels at which this window is not enlarged."""
        across = self.size[0] / (self.box[2] - self.box[0])
        down = self.size[1] / (self.box[3] - self.box[1])
        return max(1, int(width * min(across, 1.0))), max(1, int(height * min(down, 1.0)))

    def of(self, image: Image.Image, scale: float, *, reduce: bool) -> Image.Image:
        """The window of ``image``, which shows the photo at ``scale`` (1 or less).

        With ``reduce``, what is shrunk by 4 or more is first shrunk by a whole number.
        """
        left, top, right, bottom = (edge * scale for edge in self.box)
        box = left, top, min(right, image.width), min(bottom, image.height)
        return image.resize(self.size, self.resampling, box, _REDUCING_GAP if reduce else None)

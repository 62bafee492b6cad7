"""The end of a pipeline, ``ToTensor`` and ``Normalize``, for a whole batch of photos at once.

Photos are kept as bytes until their batch is complete. Scaling and normalizing them while they are written into the
batch costs one pass over it, in blocks that stay in the cache; photo by photo it is four, and one more to stack them:
at 224 x 224, 0.08 ms a photo instead of 0.4. That is a hundredth of what a network does with it, so there is nothing to
gain from a first convolution that takes bytes. It takes pictures plane by plane, in the order of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from distgrad.data.transforms import Normalize, ToTensor

_BLOCK = 1 << 15  # elements: 128 KB of float32 and their bytes stay in the second-level cache for three passes

Bytes: TypeAlias = npt.NDArray[np.uint8]


class PixelTail:
    """``ToTensor`` and, where there is one, ``Normalize``, of RGB photos.

    Args:
        to_tensor: the one at the pipeline's end.
        normalize: the one after it.
    """

    def __init__(self, to_tensor: ToTensor, normalize: Normalize | None = None) -> None:
        self.to_tensor = to_tensor
        self.normalize = normalize
        self._mean = self._std = np.zeros(0, np.float32)
        if normalize is not None:
            self._mean = np.broadcast_to(np.asarray(normalize.mean, np.float32), 3)
            self._std = np.broadcast_to(np.asarray(normalize.std, np.float32), 3)

    @classmethod
    def of(cls, transforms: Sequence[Callable[..., Any]]) -> PixelTail | None:
        """That of a pipeline that consists of ``transforms``; None where it ends in another way."""
        last: list[Any] = list(transforms[-2:])
        if last and type(last[-1]) is ToTensor:
            return cls(last[-1])
        if len(last) < 2 or type(last[0]) is not ToTensor or type(last[1]) is not Normalize:
            return None
        to_tensor, normalize = last
        if len(normalize.mean) not in (1, 3) or not np.asarray(normalize.std, np.float32).all():
            return None  # each photo on its own will say what is wrong
        return cls(to_tensor, normalize)

    @property
    def steps(self) -> int:
        """How many of the pipeline's transforms it stands for."""
        return 1 if self.normalize is None else 2

    def bytes_of(self, photo: Any) -> Any:
        """An RGB photo as bytes (H, W, 3) that ``assemble`` takes; anything else as ``apply`` makes it."""
        if isinstance(photo, Image.Image) and photo.mode == "RGB":
            return np.asarray(photo)
        return photo if self.is_bytes(photo) else self.apply(photo)

    @staticmethod
    def is_bytes(photo: Any) -> bool:
        """Whether ``assemble`` takes it."""
        return isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3

    def apply(self, photo: Any) -> npt.NDArray[Any]:
        """``normalize(to_tensor(photo))``, float32 (C, H, W): the reference for ``assemble``."""
        scaled = self.to_tensor(photo)
        return scaled if self.normalize is None else self.normalize(scaled)

    def assemble(self, photos: Sequence[Bytes]) -> npt.NDArray[np.float32]:
        """The batch of ``photos``, to the last bit what stacking their ``apply`` gives.

        Args:
            photos: at least one, bytes (H, W, 3) of equal shape.

        Returns:
            (N, 3, H, W), contiguous.
        """
        height, width, channels = photos[0].shape
        batch = np.empty((len(photos), channels, height, width), np.float32)
        rows = max(1, _BLOCK // max(1, width))
        for images, photo in zip(batch, photos, strict=True):
            for channel, plane in enumerate(images):
                for row in range(0, height, rows):
                    block = plane[row : row + rows]
                    np.copyto(block, photo[row : row + rows, :, channel])
                    block /= np.float32(255)
                    if self.normalize is not None:
                        block -= self._mean[channel]
                        block /= self._std[channel]
        return batch

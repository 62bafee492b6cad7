"""Memory order of images: a tensor stays (N, C, H, W), its memory is (H, W, N, C).

In the order HWNC one pixel is one contiguous run of ``N*C`` numbers, its *run*: of all images, all channels. Transforms
along height and width then work on long runs, a bias or a BatchNorm is one row that is repeated, and a convolution is a
GEMM with ``N * pixels`` rows. It lives in the strides alone, as ``channels_last`` does in PyTorch: NumPy's elementwise
operations give their result the memory order of their operands.

``(N, C, H, W)`` arrays that are views of such memory are called *in HWNC order* here.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[Any]

# Transposing copies read and write runs of two orders; a block of this size stays in the first-level cache.
_BLOCK_BYTES = 1 << 15


def is_hwnc(images: FloatArray) -> bool:
    """Whether the pixels of (N, C, H, W) are contiguous runs of ``N*C`` elements; rows and pixels may have gaps."""
    n, c, h, w = images.shape
    of_n, of_c, of_h, of_w = images.strides
    item = images.itemsize
    if images.size == 0:
        return False
    return (
        (c == 1 or of_c == item)
        and (n == 1 or of_n == c * item)
        and (w == 1 or of_w >= n * c * item)
        and (h == 1 or of_h >= n * c * item)
    )


def is_hwnc_alone(array: FloatArray) -> bool:
    """Whether an array has four dimensions and is in HWNC order, but not row-major as well."""
    return array.ndim == 4 and not array.flags.c_contiguous and is_hwnc(array)


def empty_in_order_of(array: FloatArray, shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> FloatArray:
    """An array of ``shape``, any content: in HWNC order where ``array`` is in that alone, else row-major."""
    return empty_hwnc(shape, dtype) if len(shape) == 4 and is_hwnc_alone(array) else np.empty(shape, dtype)


def flat(*arrays: FloatArray) -> list[FloatArray] | None:
    """Arrays of one shape as vectors, views in the order of their memory; None unless all have one order and no gaps.

    The order is row-major or HWNC.
    """
    if all(array.flags.c_contiguous for array in arrays):
        return [array.reshape(-1) for array in arrays]
    if arrays[0].ndim != 4:
        return None
    turned = [array.transpose(2, 3, 0, 1) for array in arrays]
    if not all(array.flags.c_contiguous for array in turned):
        return None
    return [array.reshape(-1) for array in turned]


def empty_hwnc(shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> FloatArray:
    """An array of ``shape`` (N, C, H, W), any content, in HWNC order."""
    n, c, h, w = shape
    return np.empty((h, w, n, c), dtype).transpose(2, 3, 0, 1)


def zeros_hwnc(shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> FloatArray:
    """An array of zeros of ``shape`` (N, C, H, W), in HWNC order."""
    n, c, h, w = shape
    return np.zeros((h, w, n, c), dtype).transpose(2, 3, 0, 1)


def as_hwnc(images: FloatArray) -> FloatArray:
    """The images as an array (H, W, N, C) whose last two dimensions are contiguous: a view where their order allows it.

    Args:
        images: (N, C, H, W), any strides.
    """
    if is_hwnc(images):
        return images.transpose(2, 3, 0, 1)
    out = np.empty((*images.shape[2:], *images.shape[:2]), images.dtype)
    copy_to_hwnc(images, out)
    return out


def copy_to_hwnc(images: FloatArray, out: FloatArray) -> None:
    """Copies (N, C, H, W) of any strides to ``out``, (H, W, N, C)."""
    n, c, h, w = images.shape
    source = images.transpose(2, 3, 0, 1)
    if is_hwnc(images) or images.strides[1] == images.itemsize:
        np.copyto(out, source)
        return
    # One row of one image after another: its channels are read along their rows, written along the pixels.
    rows = max(1, _BLOCK_BYTES // max(1, w * c * images.itemsize))
    for image in range(n):
        for row in range(0, h, rows):
            np.copyto(out[row : row + rows, :, image], source[row : row + rows, :, image])


def runs(pixels: FloatArray) -> FloatArray:
    """View (H, W, N, C), whose last two dimensions are contiguous, as (H, W, N*C).

    Raises:
        ValueError: they are not, so that the view would be a copy.
    """
    h, w, n, c = pixels.shape
    view = pixels.view()
    view.shape = (h, w, n * c)  # raises where a reshape would copy
    return view

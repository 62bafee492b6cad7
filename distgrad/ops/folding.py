"""Operations between space and channels: windows as columns, and pixels as channels."""

from __future__ import annotations

import math
import operator
from typing import Any

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels import folding as kernels
from ..kernels.window import window_count
from .convolution import Lengths, lengths
from .elementwise import clone
from .shape import permute, reshape

__all__ = [  # what distgrad itself offers
    "channel_shuffle",
    "pixel_shuffle",
    "pixel_unshuffle",
]

_unfold: Primitive = define(
    "Im2Col",
    lambda input, window: kernels.unfold(input, *window),
    ("input",),
    input=lambda g, input_shape, window: _fold(g, output_size=input_shape[2:], window=window),
)
_fold: Primitive = define(
    "Col2Im",
    lambda input, output_size, window: kernels.fold(input, output_size, *window),
    ("input",),
    input=lambda g, window: _unfold(g, window=window),
)

# Windows ------------------------------------------------------------------------------------------------------------


def _window(
    name: str, kernel_size: Lengths, dilation: Lengths, padding: Lengths, stride: Lengths
) -> tuple[tuple[int, ...], ...]:
    return (
        lengths(kernel_size, f"{name}: kernel_size", 2),
        lengths(dilation, f"{name}: dilation", 2),
        lengths(padding, f"{name}: padding", 2, least=0),
        lengths(stride, f"{name}: stride", 2),
    )


def _window_counts(size: tuple[int, ...], window: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    kernel, dilation, padding, stride = window
    return tuple(map(window_count, size, kernel, stride, padding, dilation))


def _described(window: tuple[tuple[int, ...], ...]) -> str:
    kernel, dilation, padding, stride = window
    return f"kernel_size={kernel}, dilation={dilation}, padding={padding}, stride={stride}"


def unfold(
    input: Tensor, kernel_size: Lengths, dilation: Lengths = 1, padding: Lengths = 0, stride: Lengths = 1
) -> Tensor:
    """Each window of the images as a column, as ``torch.nn.functional.unfold`` (im2col).

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size: the window.
        dilation: distance between the elements of a window.
        padding: zeros on each side.
        stride: step of the window.

    Returns:
        (N, C kh kw, windows) or (C kh kw, windows); windows row by row.

    Raises:
        RuntimeError: an input of other dimensions, or one that holds no window.
        TypeError: a kernel size, dilation, padding or stride that is not made of whole numbers.
    """
    if input.ndim not in (3, 4) or 0 in input.shape[-3:]:
        raise RuntimeError(
            "unfold: Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions "
            f"for input, but got: {list(input.shape)}"
        )
    window = _window("unfold", kernel_size, dilation, padding, stride)
    counts = _window_counts(input.shape[-2:], window)
    if min(counts) < 1:
        raise RuntimeError(
            f"unfold: Given input with spatial size {tuple(input.shape[-2:])}, {_described(window)}, calculated shape "
            f"of the array of sliding blocks as {counts}, but its components must be at least one."
        )
    images = input if input.ndim == 4 else reshape(input, (1, *input.shape))
    out: Tensor = _unfold(images, window=window)
    return out if images is input else reshape(out, tuple(out.shape[1:]))


def fold(
    input: Tensor,
    output_size: Lengths,
    kernel_size: Lengths,
    dilation: Lengths = 1,
    padding: Lengths = 0,
    stride: Lengths = 1,
) -> Tensor:
    """The columns added up to images, where ``unfold`` would take them from, as ``torch.nn.functional.fold`` (col2im).

    Args:
        input: (N, C kh kw, windows) or (C kh kw, windows).
        output_size: height and width of the images.
        kernel_size: as in ``unfold``.
        dilation: as in ``unfold``.
        padding: as in ``unfold``.
        stride: as in ``unfold``.

    Returns:
        (N, C, H, W) or (C, H, W).

    Raises:
        RuntimeError: an input of other dimensions, or whose columns are not those of such windows.
        TypeError: a size, dilation, padding or stride that is not made of whole numbers.
    """
    if input.ndim not in (2, 3) or 0 in input.shape[-2:]:
        raise RuntimeError(
            "fold: Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions, "
            f"but got: {list(input.shape)}"
        )
    size = lengths(output_size, "fold: output_size", 2)
    window = _window("fold", kernel_size, dilation, padding, stride)
    channels, columns = input.shape[-2:]
    if channels % math.prod(window[0]):
        raise RuntimeError(
            "fold: Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={channels} and kernel_size={window[0]}."
        )
    counts = _window_counts(size, window)
    if min(counts) < 1 or math.prod(counts) != columns:
        raise RuntimeError(
            f"fold: Given output_size={size}, {_described(window)}, expected size of input's dimension 2 to match the "
            f"calculated number of sliding blocks {counts[0]} * {counts[1]} = {math.prod(counts)}, but got "
            f"input.size(2)={columns}."
        )
    batch = input if input.ndim == 3 else reshape(input, (1, *input.shape))
    out: Tensor = _fold(batch, output_size=size, window=window)
    return out if batch is input else reshape(out, tuple(out.shape[1:]))


# Pixels -------------------------------------------------------------------------------------------------------------


def _factor(name: str, argument: str, input: Tensor, value: Any) -> int:
    try:
        factor = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}(): {argument} must be an int, not {value!r}") from None
    if input.ndim < 3:
        raise RuntimeError(
            f"{name} expects input to have at least 3 dimensions, but got input with {input.ndim} dimension(s)"
        )
    if factor < 1:
        raise RuntimeError(f"{name} expects a positive {argument}, but got {factor}")
    return factor


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels as pixels of larger images (Shi et al., 2016): (*, C r^2, H, W) to (*, C, H r, W r).

    Raises:
        RuntimeError: fewer than three dimensions, or channels that r^2 does not divide.
        TypeError: a factor that is no whole number.
    """
    r = _factor("pixel_shuffle", "upscale_factor", input, upscale_factor)
    *lead, channels, h, w = input.shape
    if channels % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, "
            f"but input.size(-3)={channels} is not divisible by {r * r}"
        )
    n = len(lead)
    split = reshape(input, (*lead, channels // (r * r), r, r, h, w))
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return reshape(clone(permute(split, order)), (*lead, channels // (r * r), h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of ``pixel_shuffle``: (*, C, H r, W r) to (*, C r^2, H, W).

    Raises:
        RuntimeError: fewer than three dimensions, or a height or width that r does not divide.
        TypeError: a factor that is no whole number.
    """
    r = _factor("pixel_unshuffle", "downscale_factor", input, downscale_factor)
    *lead, channels, h, w = input.shape
    for what, dim, length in (("height", -2, h), ("width", -1, w)):
        if length % r:
            raise RuntimeError(
                f"pixel_unshuffle expects {what} to be divisible by downscale_factor, but input.size({dim})={length} "
                f"is not divisible by {r}"
            )
    n = len(lead)
    split = reshape(input, (*lead, channels, h // r, r, w // r, r))
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return reshape(clone(permute(split, order)), (*lead, channels * r * r, h // r, w // r))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of ``groups`` groups in turn (Zhang et al., 2018): channel j of group i comes to j groups + i.

    Args:
        input: (N, C, ...), of at least three dimensions.
        groups: how many there are.

    Raises:
        RuntimeError: fewer than three dimensions, or channels that the groups do not divide.
        TypeError: a number of groups that is no whole number.
    """
    try:
        count = operator.index(groups)
    except TypeError:
        raise TypeError(f"channel_shuffle(): groups must be an int, not {groups!r}") from None
    if input.ndim < 3:
        raise RuntimeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(input.shape)}")
    if count < 1:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of groups:{count}")
    n, channels, *rest = input.shape
    if channels % count:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {channels} channels and {count} groups."
        )
    split = reshape(input, (n, count, channels // count, *rest))
    return clone(reshape(permute(split, (0, 2, 1, *range(3, split.ndim))), tuple(input.shape)))

"""Images sampled at any places, such as those that an affine map takes the pixels of another image to.

A sample is a weighted sum of the pixels around its place. Which pixels these are has no derivative; the weights are
polynomials of the place and are written in differentiable operations, as is the choice of the pixels' values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from .elementwise import broadcast_to, where
from .linalg import matmul
from .pieces import select
from .positions import gather
from .samples import each_sample, is_batched
from .shape import reshape, transpose

__all__: list[str] = []  # what distgrad itself offers

Array = np.ndarray[Any, Any]
Tap = tuple[Array, Any]  # numbers of pixels along a dimension, and their weights: a tensor, or None for 1

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")

# Places -------------------------------------------------------------------------------------------------------------


def _reflected(place: Array, size: int, align_corners: bool) -> tuple[Array, Array]:
    """``place`` thrown back from the edges until it is inside, and whether it goes backwards there: 1 or -1."""
    low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
    if span == 0:
        return np.zeros_like(place), np.zeros_like(place)
    distance = np.abs(place - place.dtype.type(low))
    extra, flips = np.fmod(distance, span), np.floor(distance / span)
    backwards = np.fmod(flips, 2) != 0
    inside = np.where(backwards, span - extra, extra) + low
    sign = np.where(place < low, -1.0, 1.0) * np.where(backwards, -1.0, 1.0)
    return inside.astype(place.dtype), sign.astype(place.dtype)


def _padded(place: Tensor, size: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Places outside of the image as those inside that count for them."""
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        inside, sign = _reflected(place._data, size, align_corners)
        place = place * Tensor(sign) + Tensor(inside - sign * place._data)
    values = place._data
    strictly_inside = (values > 0) & (values < size - 1)  # at and beyond the edge nothing changes with the place
    clipped = np.nan_to_num(np.clip(values, 0, size - 1), nan=0.0)
    moved: Tensor = where(Tensor(strictly_inside), place, Tensor(clipped))
    return moved


def _whole(places: Array, size: int) -> Array:
    """Places as integers; those far outside, which no integer holds, as some just outside."""
    whole: Array = np.nan_to_num(np.clip(places, -3, size + 2), nan=-3.0).astype(np.int64)
    return whole


def _cubic_weights(t: Tensor) -> list[Tensor]:
    """Of the pixels at -1, 0, 1 and 2 for a place ``t`` between 0 and 1: Keys' kernel with slope -0.75."""
    a = -0.75

    def near(x: Tensor) -> Any:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Tensor) -> Any:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _taps(coordinate: Tensor, size: int, mode: str, padding_mode: str, align_corners: bool) -> list[Tap]:
    """The pixels along one dimension that samples at ``coordinate``, from -1 to 1, are made of."""
    place = (coordinate + 1) * ((size - 1) / 2) if align_corners else ((coordinate + 1) * size - 1) / 2
    if mode == "bicubic":
        first = np.floor(place._data)
        taps = []
        for offset, weight in zip((-1, 0, 1, 2), _cubic_weights(place - Tensor(first)), strict=True):
            pixel = first + place.dtype.type(offset)
            if padding_mode == "reflection":
                pixel = _reflected(pixel, size, align_corners)[0]
            if padding_mode != "zeros":
                pixel = np.clip(pixel, 0, size - 1)
            taps.append((_whole(pixel, size), weight))
        return taps
    place = _padded(place, size, padding_mode, align_corners)
    if mode == "nearest":
        return [(_whole(np.rint(place._data), size), None)]
    first = np.floor(place._data)
    share = place - Tensor(first)
    return [(_whole(first, size), 1 - share), (_whole(first, size) + 1, share)]


# Functions ----------------------------------------------------------------------------------------------------------


def _check(input: Tensor, grid: Tensor, mode: str, padding_mode: str) -> None:
    if mode not in _MODES:
        raise ValueError(f"grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: {mode!r}")
    if padding_mode not in _PADDINGS:
        raise ValueError(
            f"grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: {padding_mode!r}"
        )
    sizes = f"but got input with sizes {list(input.shape)} and grid with sizes {list(grid.shape)}"
    if input.ndim not in (4, 5) or grid.ndim != input.ndim:
        raise RuntimeError(f"grid_sample(): expected 4D or 5D input and grid with same number of dimensions, {sizes}")
    if input.shape[0] != grid.shape[0]:
        raise RuntimeError(f"grid_sample(): expected grid and input to have same batch size, {sizes}")
    if grid.shape[-1] != input.ndim - 2:
        raise RuntimeError(f"grid_sample(): expected grid to have size {input.ndim - 2} in last dimension, {sizes}")
    if 0 in input.shape[2:]:
        raise RuntimeError(f"grid_sample(): expected input to have non-empty spatial dimensions, {sizes}")
    if mode == "bicubic" and input.ndim == 5:
        raise RuntimeError(f"grid_sample(): bicubic interpolation only supports 4D input, {sizes}")
    if input.dtype != grid.dtype:
        raise RuntimeError(f"grid_sample(): expected input and grid of one dtype, found {input.dtype} and {grid.dtype}")
    if input.dtype.kind != "f":
        raise NotImplementedError(f'"grid_sample" not implemented for {input.dtype}; call float() first')


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """``input`` at the places of ``grid``, as ``torch.nn.functional.grid_sample``.

    Args:
        input: (N, C, H, W) or (N, C, D, H, W), of floating point.
        grid: (N, Ho, Wo, 2) or (N, Do, Ho, Wo, 3): places as (x, y) or (x, y, z), each from -1 at the one end of the
            image to 1 at the other.
        mode: "bilinear" (in three dimensions trilinear), "nearest" or "bicubic" (two dimensions only).
        padding_mode: what lies outside of the image: "zeros", the pixels at its "border", or its "reflection".
        align_corners: whether -1 and 1 are the centres of the corner pixels, rather than their outer edges.

    Returns:
        (N, C, Ho, Wo) or (N, C, Do, Ho, Wo). Differentiable by both operands; in mode "nearest" the grid's gradient is
        zero.

    Raises:
        ValueError: an unknown mode or padding.
        RuntimeError: shapes or dtypes that do not fit together.
        NotImplementedError: a dtype that is not of floating point.
    """
    if is_batched(grid):
        of_each: Tensor = each_sample(grid_sample, input, grid, mode, padding_mode, align_corners)
        return of_each
    _check(input, grid, mode, padding_mode)
    n, channels, *sizes = input.shape
    target = tuple(grid.shape[1:-1])
    count, pixels = math.prod(target), math.prod(sizes)
    along: list[list[Tap]] = []
    for axis, size in enumerate(sizes):  # the grid begins with the last dimension
        coordinate = reshape(select(grid, -1, len(sizes) - 1 - axis), (n, count))
        along.append(_taps(coordinate, size, mode, padding_mode, bool(align_corners)))
    flat = reshape(input, (n, channels, pixels))
    total: Tensor | None = None
    for corner in itertools.product(*along):
        index, inside = np.zeros((n, count), np.int64), np.ones((n, count), np.bool_)
        weight: Any = None
        for (pixel, share), size in zip(corner, sizes, strict=True):
            inside &= (pixel >= 0) & (pixel < size)
            index = index * size + np.clip(pixel, 0, size - 1)
            if share is not None:
                weight = share if weight is None else weight * share
        places = broadcast_to(Tensor(index[:, None]), (n, channels, count))
        values = gather(flat, 2, places)
        if not inside.all():
            values = where(Tensor(inside[:, None]), values, 0.0)
        if weight is not None:
            values = values * reshape(weight, (n, 1, count))
        total = values if total is None else total + values
    assert total is not None
    if mode == "nearest":  # known to the graph all the same, as in PyTorch
        total = total + reshape(select(grid, -1, 0) * 0, (n, 1, count))
    return reshape(total, (n, channels, *target))


def _steps(count: int, align_corners: bool, dtype: Any) -> Array:
    """``count`` places from -1 to 1: at the ends, or at the centres of as many pixels."""
    steps = np.linspace(-1, 1, count) if count > 1 else np.zeros(count)
    return (steps if align_corners else steps * ((count - 1) / count)).astype(dtype)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Where an affine map takes the pixels of an image of ``size``, as ``torch.nn.functional.affine_grid``; the grid is
    one for ``grid_sample``.

    Args:
        theta: (N, 2, 3) or (N, 3, 4): matrices that are applied to (x, y, 1) or (x, y, z, 1).
        size: (N, C, H, W) or (N, C, D, H, W) of the image to be sampled.
        align_corners: whether -1 and 1 are the centres of the corner pixels, rather than their outer edges.

    Returns:
        (N, H, W, 2) or (N, D, H, W, 3).

    Raises:
        ValueError: a matrix of another shape or dtype, or an empty size.
        NotImplementedError: a size of other dimensions.
    """
    if theta.dtype.kind != "f":
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    dims = len(size) - 2
    if dims not in (2, 3):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size "
            f"{tuple(size)}."
        )
    n, _, *lengths = size
    if tuple(theta.shape) != (n, dims, dims + 1):
        raise ValueError(
            f"Expected a batch of {dims}D affine matrices of shape {n}x{dims}x{dims + 1} for size {tuple(size)}. Got "
            f"{list(theta.shape)}."
        )
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {tuple(size)}")
    places = np.ones((*lengths, dims + 1), theta.dtype)
    for axis, length in enumerate(lengths):
        along = _steps(length, bool(align_corners), theta.dtype)
        places[..., dims - 1 - axis] = along.reshape(-1, *(1,) * (dims - 1 - axis))
    points = Tensor(np.broadcast_to(places.reshape(1, -1, dims + 1), (n, math.prod(lengths), dims + 1)))
    return reshape(matmul(points, transpose(theta, 1, 2)), (n, *lengths, dims))

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import grid_sampling

from .row import Op, Sample, Wrong


def cubic(x: float, a: float = -0.75) -> float:
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def brought_inside(place: float, n: int, padding_mode: str, align: bool) -> float:
    if padding_mode == "reflection":
        low, high = (0.0, n - 1.0) if align else (-0.5, n - 0.5)
        while high > low and not low <= place <= high:
            place = 2 * low - place if place < low else 2 * high - place
        place = place if high > low else 0.0
    return place if padding_mode == "zeros" else min(max(place, 0.0), n - 1.0)


def shares(coordinate: float, n: int, mode: str, padding_mode: str, align: bool) -> list[tuple[int, float]]:
    """The pixels along a dimension, also outside of the image, and their weights."""
    place = (coordinate + 1) / 2 * (n - 1) if align else ((coordinate + 1) * n - 1) / 2
    if mode == "bicubic":
        near = range(math.floor(place) - 1, math.floor(place) + 3)
        return [(int(brought_inside(k, n, padding_mode, align)), cubic(place - k)) for k in near]
    place = brought_inside(place, n, padding_mode, align)
    if mode == "nearest":
        return [(round(place), 1.0)]
    return [(k, 1 - abs(place - k)) for k in (math.floor(place), math.floor(place) + 1)]


def sampled(x: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: Any = None) -> Any:
    sizes, target = x.shape[2:], grid.shape[1:-1]
    out = np.zeros((*x.shape[:2], *target), x.dtype)
    for image, *place in itertools.product(range(len(x)), *map(range, target)):
        coordinates = grid[(image, *place)][::-1]
        along = [shares(c, n, mode, padding_mode, bool(align_corners)) for c, n in zip(coordinates, sizes, strict=True)]
        for taps in itertools.product(*along):
            if all(0 <= k < n for (k, _), n in zip(taps, sizes, strict=True)):
                weight = math.prod(w for _, w in taps)
                out[(image, slice(None), *place)] += weight * x[(image, slice(None), *(k for k, _ in taps))]
    return out


def affine(theta: Any, size: Any, align_corners: Any = None) -> Any:
    n, _, *lengths = size
    out = np.zeros((n, *lengths, len(lengths)), theta.dtype)
    for image, *place in itertools.product(range(n), *map(range, lengths)):
        point = []
        for i, length in zip(place, lengths, strict=True):
            if length == 1:
                point.append(0.0)
            else:
                point.append(2 * i / (length - 1) - 1 if align_corners else (2 * i + 1) / length - 1)
        out[(image, *place)] = theta[image] @ np.array([*point[::-1], 1.0])
    return out


def grids(rng: np.random.Generator) -> Iterator[Sample]:
    # The derivative jumps between two pixels; an irrational grid doesn't come near to that.
    def places(*shape: int) -> Any:
        return np.sin(1 + np.arange(math.prod(shape))).reshape(shape) * 1.7

    for padding_mode, align in itertools.product(("zeros", "border", "reflection"), (False, True)):
        for mode in ("bilinear", "nearest", "bicubic"):
            yield Sample(rng.standard_normal((1, 2, 3, 2)), places(1, 2, 2, 2), mode, padding_mode, align)
    yield Sample(rng.standard_normal((2, 1, 3, 4)), places(2, 1, 3, 2), align_corners=False)
    yield Sample(rng.standard_normal((1, 1, 2, 3, 2)), places(1, 1, 2, 2, 3), "bilinear", "reflection", False)
    yield Sample(rng.standard_normal((1, 1, 1, 2, 2)), places(1, 2, 1, 1, 3), "nearest", "border", True)
    yield Sample(np.zeros((0, 1, 2, 2)), np.zeros((0, 2, 2, 2)), align_corners=False)


def maps(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 2, 3)), (2, 1, 2, 3), False)
    yield Sample(rng.standard_normal((1, 2, 3)), [1, 3, 3, 2], True)
    yield Sample(rng.standard_normal((1, 3, 4)), (1, 1, 2, 1, 3), False)


def x(*size: int) -> Any:
    return np.zeros(size)


ROWS = [
    Op(
        grid_sampling.grid_sample,
        sampled,
        grids,
        (
            Wrong(ValueError, "expected mode to be 'bilinear'", x(1, 1, 2, 2), x(1, 2, 2, 2), "linear"),
            Wrong(ValueError, "expected padding_mode to be", x(1, 1, 2, 2), x(1, 2, 2, 2), padding_mode="edge"),
            Wrong(RuntimeError, "grid with same number of dimensions", x(1, 1, 2, 2), x(1, 2, 2)),
            Wrong(RuntimeError, "to have same batch size", x(1, 1, 2, 2), x(2, 2, 2, 2)),
            Wrong(RuntimeError, "grid to have size 2 in last dimension", x(1, 1, 2, 2), x(1, 2, 2, 3)),
            Wrong(RuntimeError, "non-empty spatial dimensions", x(1, 1, 0, 2), x(1, 2, 2, 2)),
            Wrong(RuntimeError, "bicubic interpolation only", x(1, 1, 2, 2, 2), x(1, 2, 2, 2, 3), "bicubic"),
            Wrong(RuntimeError, "of one dtype, found int64", np.ones((1, 1, 2, 2), np.int64), x(1, 2, 2, 2)),
            Wrong(
                NotImplementedError, "not implemented for int64", np.ones((1, 1, 2, 2), int), np.ones((1, 2, 2, 2), int)
            ),
        ),
        dtypes="operands must have one dtype: an error",
        tolerance=(1e-11, 1e-4),
        lacks={"0-d": "it takes images"},
    ),
    Op(
        grid_sampling.affine_grid,
        affine,
        maps,
        (
            Wrong(ValueError, "floating point type, but got int64", np.ones((1, 2, 3), np.int64), (1, 1, 2, 2)),
            Wrong(NotImplementedError, "only supports 4D and 5D sizes", x(1, 2, 3), (1, 1, 2)),
            Wrong(ValueError, r"2D affine matrices of shape 2x2x3 .* Got \[1, 2, 3\]", x(1, 2, 3), (2, 1, 2, 2)),
            Wrong(ValueError, "non-zero, positive output size", x(1, 2, 3), (1, 1, 0, 2)),
        ),
        dtypes="takes a size; tests/ops/test_spatial.py",
        lacks={"0-d": "it takes matrices", "empty": "there is no empty grid"},
    ),
]
FAMILY = grid_sampling
EXEMPT: list[Any] = []

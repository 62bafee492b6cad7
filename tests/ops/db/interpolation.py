from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import interpolation

from .row import Op, Sample, Wrong

Shares = dict[int, float]  # of input pixels in an output pixel


def cubic(distance: float, a: float = -0.75) -> float:
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def lanczos(x: float) -> float:
    if x == 0:
        return 1.0
    return 3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2 if abs(x) < 3 else 0.0


FILTERS: dict[str, tuple[int, Callable[[float], float]]] = {
    "bilinear": (1, lambda x: max(0.0, 1 - abs(x))),
    "bicubic": (2, lambda x: cubic(x, -0.5)),
    "lanczos": (3, lanczos),
}


def shares(mode: str, i: int, n: int, target: int, step: float, align: bool, antialias: bool) -> Shares:
    """What output pixel ``i`` of ``target`` is made of; ``step`` is its width in input pixels."""
    if mode == "area":
        window = range(i * n // target, -(-(i + 1) * n // target))
        return {k: 1 / len(window) for k in window}
    if mode == "nearest":
        return {min(math.floor(i * step), n - 1): 1.0}
    if mode == "nearest-exact":
        return {min(math.floor((i + 0.5) * step), n - 1): 1.0}
    if antialias:
        reach, kernel = FILTERS[mode]
        width, centre = max(step, 1.0), step * (i + 0.5)
        first, last = max(int(centre - reach * width + 0.5), 0), min(int(centre + reach * width + 0.5), n)
        weights = {k: kernel((k + 0.5 - centre) / width) for k in range(first, last)}
        return {k: weight / math.fsum(weights.values()) for k, weight in weights.items()}
    place = i * step if align else (i + 0.5) * step - 0.5
    found: Shares = {}
    if mode == "bicubic":
        near = range(math.floor(place) - 1, math.floor(place) + 3)
        taps = [(k, cubic(place - k)) for k in near]
    else:
        place = min(max(place, 0.0), n - 1.0)
        taps = [(k, 1 - abs(place - k)) for k in range(n) if abs(place - k) < 1]
    for k, weight in taps:
        k = min(max(k, 0), n - 1)
        found[k] = found.get(k, 0.0) + weight
    return found


def by_definition(
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Any:
    """Each output pixel as the sum over all input pixels with the product of its shares along each dimension."""
    sizes = x.shape[2:]
    scales = [None] * len(sizes) if scale_factor is None else np.broadcast_to(scale_factor, len(sizes)).tolist()
    if size is None:
        target = [int(n * s) for n, s in zip(sizes, scales, strict=True)]
    else:
        target = np.broadcast_to(size, len(sizes)).tolist()
    along = []
    for n, m, scale in zip(sizes, target, scales, strict=True):
        step = n / m if scale is None or recompute_scale_factor else 1 / scale
        if align_corners:
            step = (n - 1) / (m - 1) if m > 1 else 0.0
        along.append([shares(mode, i, n, m, step, bool(align_corners), antialias) for i in range(m)])
    out = np.zeros((*x.shape[:2], *target))
    for place in itertools.product(*map(range, target)):
        for taps in itertools.product(*(along[a][i].items() for a, i in enumerate(place))):
            source = tuple(k for k, _ in taps)
            out[(..., *place)] += x[(..., *source)] * math.prod(weight for _, weight in taps)
    return out.astype(x.dtype)


def resolutions(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(2, 1, 3), 5)
    yield Sample(draw(1, 2, 5), (3,))
    yield Sample(draw(1, 1, 2, 3), (4, 5))
    yield Sample(draw(1, 1, 4, 3), scale_factor=2)
    yield Sample(draw(1, 1, 5, 4), scale_factor=(0.5, 1.5))
    yield Sample(draw(1, 1, 2, 2, 3), 3)
    yield Sample(draw(1, 2, 5), 3, mode="nearest-exact")
    yield Sample(draw(1, 1, 2, 3), (5, 2), None, "nearest-exact")
    yield Sample(draw(1, 2, 4), 7, mode="linear")
    yield Sample(draw(1, 1, 5), 3, mode="linear", align_corners=True)
    yield Sample(draw(1, 2, 3, 4), (5, 2), mode="bilinear")
    yield Sample(draw(1, 1, 3, 4), (6, 3), mode="bilinear", align_corners=True)
    yield Sample(draw(1, 1, 3, 4), (1, 4), mode="bilinear", align_corners=True)
    yield Sample(draw(1, 1, 3, 3), None, 1.7, "bilinear")
    yield Sample(draw(1, 1, 3, 3), None, 1.7, "bilinear", False, True)
    yield Sample(draw(1, 1, 4, 3), (6, 2), mode="bicubic")
    yield Sample(draw(1, 1, 3, 4), (5, 5), mode="bicubic", align_corners=True)
    yield Sample(draw(1, 1, 3, 3), None, (1.4, 0.7), "bicubic")
    yield Sample(draw(1, 1, 2, 3, 2), (3, 2, 4), mode="trilinear")
    yield Sample(draw(1, 1, 5, 4), (2, 3), mode="area")
    yield Sample(draw(1, 1, 5), 7, mode="area")
    yield Sample(draw(1, 1, 2, 3, 2), (1, 2, 2), mode="area")
    for mode in ("bilinear", "bicubic", "lanczos"):
        yield Sample(draw(1, 1, 7, 3), (3, 5), mode=mode, antialias=True)
    yield Sample(draw(1, 1, 6, 5), None, (0.4, 0.7), "bilinear", antialias=True)
    yield Sample(np.zeros((0, 1, 3, 4)), (2, 5), mode="bilinear")
    yield Sample(np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3), (4, 5))


def x(*size: int) -> Any:
    return np.zeros(size)


IMAGES = x(1, 1, 4, 4)
ROWS = [
    Op(
        interpolation.interpolate,
        by_definition,
        resolutions,
        (
            Wrong(ValueError, "either size or scale_factor should be defined", IMAGES),
            Wrong(ValueError, "only one of size or scale_factor should be defined", IMAGES, 3, 2.0),
            Wrong(ValueError, r"spatial dimensions of \[4, 4\] and output size of \(3, 3, 3\)", IMAGES, (3, 3, 3)),
            Wrong(ValueError, r"scale_factor of \(2, 2, 2\)", IMAGES, None, (2, 2, 2)),
            Wrong(ValueError, "recompute_scale_factor is not meaningful", IMAGES, 3, recompute_scale_factor=True),
            Wrong(ValueError, "align_corners option can only be set", IMAGES, 3, align_corners=True),
            Wrong(ValueError, "Anti-alias option is restricted to", IMAGES, 3, antialias=True),
            Wrong(ValueError, "Lanczos mode requires antialias=True", IMAGES, 3, mode="lanczos"),
            Wrong(NotImplementedError, "Got 4D input, but linear mode needs 3D input", IMAGES, 3, mode="linear"),
            Wrong(NotImplementedError, "Got 3D input, but bicubic mode needs 4D", x(1, 1, 4), 3, mode="bicubic"),
            Wrong(NotImplementedError, "Got 4D input and the mode 'cubic': there are", IMAGES, 3, mode="cubic"),
            Wrong(NotImplementedError, "Got 2D input and the mode 'nearest'", x(1, 4), 3),
            Wrong(NotImplementedError, "not implemented for int64", np.ones((1, 1, 4), np.int64), 3),
            Wrong(NotImplementedError, "not implemented for uint8", np.ones((1, 1, 4), np.uint8), 3, mode="linear"),
            Wrong(RuntimeError, r"sizes should be greater than 0, but .* output size \[0, 0\]", IMAGES, 0),
            Wrong(RuntimeError, "sizes should be greater than 0", IMAGES, None, 0.1),
            Wrong(RuntimeError, "sizes should be greater than 0", x(1, 0, 4, 4), 3),
            Wrong(TypeError, "size must be an int or a tuple of ints, not 2.5", IMAGES, 2.5),
        ),
        ("Resample",),
        dtypes="takes a size; tests/ops/test_spatial.py",
        tolerance=(1e-11, 2e-5),
        lacks={"0-d": "it takes images"},
    ),
]
FAMILY = interpolation
EXEMPT: list[Any] = []

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import pooling

from .row import Op, Sample, Wrong


def _both(value: Any) -> tuple[Any, Any]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _windows(length: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    places = (length + 2 * padding - dilation * (kernel - 1) - 1) / stride
    count = (math.ceil(places) if ceil_mode else math.floor(places)) + 1
    # a last window has to begin inside the image or the padding before it
    return count - 1 if ceil_mode and (count - 1) * stride >= length + padding else count


def _pooled(x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, value: Any) -> Any:
    images = x[None] if x.ndim == 3 else x
    k, p, d = _both(kernel), _both(padding), _both(dilation)
    s = k if stride is None else _both(stride)
    size = [_windows(images.shape[2 + a], k[a], s[a], p[a], d[a], ceil_mode) for a in (0, 1)]
    out = np.zeros((*images.shape[:2], *size), x.dtype)
    for place in np.ndindex(out.shape):
        first = [place[2 + a] * s[a] - p[a] for a in (0, 1)]
        taps = [(first[0] + i * d[0], first[1] + j * d[1]) for i in range(k[0]) for j in range(k[1])]
        inside = [
            images[(*place[:2], *tap)]
            for tap in taps
            if all(0 <= t < n for t, n in zip(tap, images.shape[2:], strict=True))
        ]
        out[place] = value(inside, [min(first[a] + k[a], images.shape[2 + a] + p[a]) - first[a] for a in (0, 1)])
    return out[0] if x.ndim == 3 else out


def largest(
    x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    return _pooled(x, kernel, stride, padding, dilation, ceil_mode, lambda inside, _: max(inside))


def average(
    x: Any, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Any:
    def value(inside: list[float], padded: list[int]) -> float:
        return math.fsum(inside) / (padded[0] * padded[1] if count_include_pad else len(inside))

    return _pooled(x, kernel, stride, padding, 1, ceil_mode, value)


def adaptive(x: Any, size: Any) -> Any:
    ho, wo = (n if want is None else want for want, n in zip(_both(size), x.shape[-2:], strict=True))
    height, width = x.shape[-2:]
    out = np.zeros((*x.shape[:-2], ho, wo), x.dtype)
    for *lead, i, j in np.ndindex(out.shape):
        rows = range(i * height // ho, -(-(i + 1) * height // ho))
        columns = range(j * width // wo, -(-(j + 1) * width // wo))
        values = [x[(*lead, row, column)] for row in rows for column in columns]
        out[(*lead, i, j)] = math.fsum(values) / len(values)
    return out


def images(rng: np.random.Generator, *size: int) -> Any:
    return (rng.permutation(math.prod(size)) * 0.1 - 1.0).reshape(size)


def windows(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(images(rng, 2, 1, 4, 4), 2)
    yield Sample(images(rng, 1, 2, 5, 4), (3, 2), (2, 1), 1)
    yield Sample(images(rng, 2, 4, 5), 2, 2, 0)
    yield Sample(images(rng, 1, 1, 5, 5), 3, 3, 1, ceil_mode=True)
    yield Sample(images(rng, 1, 1, 4, 6), 2, 3, ceil_mode=True)
    yield Sample(np.zeros((0, 2, 4, 4)), 2)


def planes(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(images(rng, 2, 2, 3, 4), 1)
    yield Sample(images(rng, 1, 2, 5, 4), (2, 3))
    yield Sample(images(rng, 2, 3, 4), (None, 2))
    yield Sample(images(rng, 1, 1, 2, 2), (3, 5))
    yield Sample(np.zeros((0, 2, 4, 4)), 1)


def x(*size: int) -> Any:
    return np.zeros(size)


IMAGES = {"0-d": "it takes images"}


def refusals(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(RuntimeError, rf"{name}: expected an input \(N, C, H, W\) or \(C, H, W\), got \[4, 4\]", x(4, 4), 2),
        Wrong(RuntimeError, "pad should be at most half of effective kernel size", x(1, 1, 4, 4), 2, 1, 2),
        Wrong(RuntimeError, "calculated output size .* is too small", x(1, 1, 2, 2), 4, 4),
        Wrong(ValueError, "kernel_size must be an int or a pair of ints, each at least 1, not 0", x(1, 1, 4, 4), 0),
        Wrong(ValueError, "stride must be", x(1, 1, 4, 4), 2, 0),
    )


ROWS = [
    Op(
        pooling.max_pool2d,
        largest,
        lambda rng: [*windows(rng), Sample(images(rng, 1, 1, 5, 5), 2, 1, 0, 2)],
        (
            *refusals("max_pool2d"),
            Wrong(RuntimeError, "at most half of effective kernel size", x(1, 1, 4, 4), 2, 1, 2, 1, True),
        ),
        ("MaxPool2D", "MaxPool2DScatter", "MaxPool2DGather"),
        dtypes="takes a window; test_floats_stay",
        lacks=IMAGES,
    ),
    Op(
        pooling.avg_pool2d,
        average,
        lambda rng: [*windows(rng), Sample(images(rng, 1, 1, 4, 4), 3, 2, 1, False, False)],
        refusals("avg_pool2d"),
        ("AvgPool2D", "AvgPool2DAdjoint"),
        dtypes="takes a window; test_floats_stay",
        lacks=IMAGES,
    ),
    Op(
        pooling.adaptive_avg_pool2d,
        adaptive,
        planes,
        (
            Wrong(RuntimeError, r"expected an input \(N, C, H, W\)", x(4), 1),
            Wrong(RuntimeError, "output_size must be one or two positive lengths", x(1, 1, 4, 4), (1, 2, 3)),
            Wrong(RuntimeError, "output_size must be one or two positive lengths", x(1, 1, 4, 4), -1),
        ),
        ("AdaptiveAvgPool2D", "AdaptiveAvgPool2DAdjoint"),
        dtypes="takes a size; test_floats_stay",
        lacks=IMAGES,
    ),
]
FAMILY = pooling
EXEMPT: list[Any] = []

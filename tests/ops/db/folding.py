from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import folding

from .row import Op, Sample, Wrong


def _both(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _places(size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> list[list[tuple[int, int]]]:
    """For each window its pixels, tap by tap, also outside the image."""
    k, d, p, s = _both(kernel), _both(dilation), _both(padding), _both(stride)
    counts = [(size[a] + 2 * p[a] - d[a] * (k[a] - 1) - 1) // s[a] + 1 for a in (0, 1)]
    return [
        [(y * s[0] - p[0] + i * d[0], u * s[1] - p[1] + j * d[1]) for i in range(k[0]) for j in range(k[1])]
        for y, u in itertools.product(*map(range, counts))
    ]


def columns(x: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    size = x.shape[-2:]
    windows = _places(size, kernel, dilation, padding, stride)
    taps = len(windows[0])
    out = np.zeros((*x.shape[:-3], x.shape[-3] * taps, len(windows)), x.dtype)
    for number, window in enumerate(windows):
        for c, (tap, (y, u)) in itertools.product(range(x.shape[-3]), enumerate(window)):
            if 0 <= y < size[0] and 0 <= u < size[1]:
                out[..., c * taps + tap, number] = x[..., c, y, u]
    return out


def image(x: Any, output_size: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    size = _both(output_size)
    windows = _places(size, kernel, dilation, padding, stride)
    taps = len(windows[0])
    out = np.zeros((*x.shape[:-2], x.shape[-2] // taps, *size), x.dtype)
    for number, window in enumerate(windows):
        for c, (tap, (y, u)) in itertools.product(range(out.shape[-3]), enumerate(window)):
            if 0 <= y < size[0] and 0 <= u < size[1]:
                out[..., c, y, u] += x[..., c * taps + tap, number]
    return out


def shuffled(x: Any, r: int) -> Any:
    c, h, w = x.shape[-3:]
    out = np.zeros((*x.shape[:-3], c // (r * r), h * r, w * r), x.dtype)
    for k, y, u in np.ndindex(out.shape[-3:]):
        out[..., k, y, u] = x[..., k * r * r + (y % r) * r + u % r, y // r, u // r]
    return out


def unshuffled(x: Any, r: int) -> Any:
    c, h, w = x.shape[-3:]
    out = np.zeros((*x.shape[:-3], c * r * r, h // r, w // r), x.dtype)
    for k, y, u in np.ndindex(c, h, w):
        out[..., k * r * r + (y % r) * r + u % r, y // r, u // r] = x[..., k, y, u]
    return out


def regrouped(x: Any, groups: int) -> Any:
    each = x.shape[1] // groups
    return np.stack([x[:, k % groups * each + k // groups] for k in range(x.shape[1])], axis=1)


def windows(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 2, 3, 4)), 2)
    yield Sample(rng.standard_normal((1, 4, 5)), (2, 3), (2, 1), (1, 0), (1, 2))
    yield Sample(rng.standard_normal((1, 2, 2, 2)), 1, padding=1)
    yield Sample(rng.standard_normal((1, 1, 2, 1)), 2, 3, 2)
    yield Sample(np.zeros((0, 2, 3, 3)), 2)


def blocks(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 8, 6)), (3, 4), 2)
    yield Sample(rng.standard_normal((6, 8)), (4, 5), (2, 3), (2, 1), (1, 0), (1, 2))
    yield Sample(rng.standard_normal((1, 2, 9)), 3, 1)
    yield Sample(np.zeros((0, 4, 4)), 3, 2)


def x(*size: int) -> Any:
    return np.zeros(size)


IMAGES: dict[str, Any] = {
    "dtypes": "takes a window or a number; tests/ops/test_spatial.py",
    "lacks": {"0-d": "it takes images"},
}
EMPTY = "PyTorch's gradient of an empty batch has a wrong shape; tests/ops/test_spatial.py"
PIXELS = {**IMAGES, "lacks": {**IMAGES["lacks"], "empty": EMPTY}}
ROWS = [
    Op(
        folding.unfold,
        columns,
        windows,
        (
            Wrong(RuntimeError, "Expected 3D or 4D", x(4, 4), 2),
            Wrong(RuntimeError, "Expected 3D or 4D .* got: ", x(1, 0, 4, 4), 2),
            Wrong(RuntimeError, r"spatial size \(4, 4\), kernel_size=\(5, 5\).* blocks as \(0, 0\)", x(1, 2, 4, 4), 5),
            Wrong(RuntimeError, "unfold: kernel_size must be", x(1, 2, 4, 4), 0),
            Wrong(RuntimeError, "unfold: stride must be", x(1, 2, 4, 4), 2, 1, 0, 0),
            Wrong(RuntimeError, "unfold: padding must be", x(1, 2, 4, 4), 2, 1, -1),
            Wrong(TypeError, "unfold: dilation must be", x(1, 2, 4, 4), 2, 1.5),
        ),
        ("Im2Col", "Col2Im"),
        **IMAGES,
    ),
    Op(
        folding.fold,
        image,
        blocks,
        (
            Wrong(RuntimeError, "Expected 2D or 3D", x(8), 4, 2),
            Wrong(RuntimeError, r"divisible by the product .*size\(1\)=7 and kernel_size=\(2, 2\)", x(1, 7, 9), 4, 2),
            Wrong(RuntimeError, r"blocks 3 \* 3 = 9, but got input.size\(2\)=8", x(1, 8, 8), 4, 2),
            Wrong(RuntimeError, r"blocks 0 \* 0 = 0, but got", x(1, 8, 9), 1, 2),
            Wrong(RuntimeError, "fold: output_size must be", x(1, 8, 9), (4, 4, 4), 2),
            Wrong(RuntimeError, "fold: kernel_size must be", x(1, 8, 9), 4, 0),
        ),
        ("Im2Col", "Col2Im"),
        **IMAGES,
    ),
    Op(
        folding.pixel_shuffle,
        shuffled,
        lambda rng: [
            Sample(rng.standard_normal((2, 8, 1, 3)), 2),
            Sample(rng.standard_normal((9, 2, 1)), 3),
            Sample(rng.standard_normal((2, 1, 2, 2, 3)), 1),
        ],
        (
            Wrong(RuntimeError, "pixel_shuffle expects input to have at least 3 dimensions", x(2, 2), 2),
            Wrong(RuntimeError, r"input.size\(-3\)=7 is not divisible by 4", x(7, 2, 2), 2),
            Wrong(RuntimeError, "expects a positive upscale_factor, but got 0", x(8, 2, 2), 0),
            Wrong(TypeError, "upscale_factor must be an int, not 2.5", x(8, 2, 2), 2.5),
        ),
        **PIXELS,
    ),
    Op(
        folding.pixel_unshuffle,
        unshuffled,
        lambda rng: [
            Sample(rng.standard_normal((2, 2, 2, 6)), 2),
            Sample(rng.standard_normal((1, 6, 3)), 3),
        ],
        (
            Wrong(RuntimeError, "expects height to be divisible .*size.-2.=5", x(2, 5, 6), 2),
            Wrong(RuntimeError, "expects width to be divisible .*size.-1.=5", x(2, 4, 5), 2),
            Wrong(RuntimeError, "expects a positive downscale_factor, but got -1", x(2, 4, 6), -1),
        ),
        **PIXELS,
    ),
    Op(
        folding.channel_shuffle,
        regrouped,
        lambda rng: [
            Sample(rng.standard_normal((2, 6, 2, 1)), 3),
            Sample(rng.standard_normal((1, 4, 3)), 2),
            Sample(np.zeros((0, 4, 2, 2)), 2),
        ],
        (
            Wrong(RuntimeError, "channel_shuffle expects input with > 2 dims", x(1, 6), 3),
            Wrong(RuntimeError, "Got 6 channels and 4 groups", x(1, 6, 2, 2), 4),
            Wrong(RuntimeError, "must be positive. Value of groups:0", x(1, 6, 2, 2), 0),
            Wrong(TypeError, "groups must be an int", x(1, 6, 2, 2), 1.5),
        ),
        **IMAGES,
    ),
]
FAMILY = folding
EXEMPT: list[Any] = []

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import convolution

from .row import Exempt, Op, Sample, Wrong


def _both(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def by_definition(
    x: Any, w: Any, b: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The sum over the window, tap by tap; taps outside the image count nothing."""
    images = x[None] if x.ndim == 3 else x
    s, d = _both(stride), _both(dilation)
    extent = [d[a] * (w.shape[2 + a] - 1) for a in (0, 1)]
    p = tuple(e // 2 for e in extent) if padding == "same" else (0, 0) if padding == "valid" else _both(padding)
    n, _, height, width = images.shape
    ho, wo = ((length + 2 * p[a] - extent[a] - 1) // s[a] + 1 for a, length in enumerate((height, width)))
    out = np.zeros((n, len(w), ho, wo), x.dtype)
    for image, k, y, u in np.ndindex(out.shape):
        total = 0.0 if b is None else b[k]
        for c, i, j in np.ndindex(w.shape[1:]):
            row, column = y * s[0] - p[0] + i * d[0], u * s[1] - p[1] + j * d[1]
            if 0 <= row < height and 0 <= column < width:
                total += w[k, c, i, j] * images[image, k // (len(w) // groups) * w.shape[1] + c, row, column]
        out[image, k, y, u] = total
    return out[0] if x.ndim == 3 else out


def convolutions(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(2, 2, 4, 3), draw(2, 2, 3, 2), draw(2), padding=1)
    yield Sample(draw(1, 1, 5, 4), draw(2, 1, 2, 2), None, (2, 1), (1, 0))
    yield Sample(draw(1, 4, 3, 3), draw(2, 2, 2, 2), draw(2), groups=2)
    yield Sample(draw(1, 1, 5, 5), draw(1, 1, 2, 3), dilation=2, stride=2, padding=(1, 2))
    yield Sample(draw(2, 3, 2, 2), draw(2, 3, 1, 1), draw(2))
    yield Sample(draw(2, 3, 3), draw(1, 2, 3, 3), draw(1), padding="same")
    yield Sample(draw(1, 1, 3, 3), draw(1, 1, 2, 2), padding="valid")
    yield Sample(np.zeros((0, 2, 3, 3)), draw(1, 2, 2, 2), draw(1))


def x(*size: int) -> Any:
    return np.zeros(size)


ROWS = [
    Op(
        convolution.conv2d,
        by_definition,
        convolutions,
        (
            Wrong(RuntimeError, r"expected an input \(N, C, H, W\)", x(3, 3), x(1, 1, 2, 2)),
            Wrong(
                RuntimeError,
                r"groups=1, weight of size \[1, 2, 2, 2\], expected input\[1, 3, 4, 4\] to have 2 channels, but got 3",
                x(1, 3, 4, 4),
                x(1, 2, 2, 2),
            ),
            Wrong(
                RuntimeError,
                "3 filters must be divisible by the groups",
                x(1, 4, 4, 4),
                x(3, 2, 2, 2),
                None,
                1,
                0,
                1,
                2,
            ),
            Wrong(
                RuntimeError,
                "Calculated padded input size per channel: 2. Kernel size: 3",
                x(1, 1, 2, 2),
                x(1, 1, 3, 3),
            ),
            Wrong(RuntimeError, "bias of size", x(1, 1, 4, 4), x(2, 1, 2, 2), x(3)),
            Wrong(RuntimeError, "same floating-point type", x(1, 1, 4, 4), np.ones((1, 1, 2, 2), int)),
            Wrong(ValueError, "stride must be an int or a pair", x(1, 1, 4, 4), x(1, 1, 2, 2), None, 0),
            Wrong(ValueError, "padding must be an int or a pair", x(1, 1, 4, 4), x(1, 1, 2, 2), None, 1, -1),
            Wrong(ValueError, "Invalid padding string 'full'", x(1, 1, 4, 4), x(1, 1, 2, 2), None, 1, "full"),
            Wrong(RuntimeError, "not supported for strided", x(1, 1, 4, 4), x(1, 1, 3, 3), None, 2, "same"),
            Wrong(RuntimeError, "unequal padding", x(1, 1, 4, 4), x(1, 1, 2, 2), None, 1, "same"),
        ),
        ("Convolution", "ConvolutionInput", "ConvolutionWeight"),
        dtypes="operands must have one dtype: an error",
        tolerance=(1e-12, 5e-5),
        lacks={"0-d": "it takes images"},
    ),
]
FAMILY = convolution
EXEMPT = [Exempt(convolution.pair, "checks an argument, on integers; the errors of conv2d and the poolings use it")]

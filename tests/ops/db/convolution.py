from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import convolution

from .row import Exempt, Op, Sample, Wrong


def each(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def positions(*lengths: Any) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, lengths))


def by_definition(
    x: Any, w: Any, b: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The sum over the window, tap by tap; taps outside the image count nothing."""
    dims = w.ndim - 2
    images = x[None] if x.ndim == dims + 1 else x
    s, d = each(stride, dims), each(dilation, dims)
    extent = [d[a] * (w.shape[2 + a] - 1) for a in range(dims)]
    before = after = (0,) * dims if isinstance(padding, str) else each(padding, dims)
    if padding == "same":
        before, after = [e // 2 for e in extent], [e - e // 2 for e in extent]
    size = images.shape[2:]
    counts = [(size[a] + before[a] + after[a] - extent[a] - 1) // s[a] + 1 for a in range(dims)]
    out = np.zeros((len(images), len(w), *counts), x.dtype)
    for image, k, *place in positions(*out.shape):
        total = 0.0 if b is None else b[k]
        for c, *tap in positions(*w.shape[1:]):
            at = [place[a] * s[a] - before[a] + tap[a] * d[a] for a in range(dims)]
            if all(0 <= at[a] < size[a] for a in range(dims)):
                channel = k // (len(w) // groups) * w.shape[1] + c
                total += w[(k, c, *tap)] * images[(image, channel, *at)]
        out[(image, k, *place)] = total
    return out[0] if x.ndim == dims + 1 else out


def transposed_by_definition(
    x: Any,
    w: Any,
    b: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Each pixel adds its multiple of the kernel; what falls outside is lost."""
    dims = w.ndim - 2
    images = x[None] if x.ndim == dims + 1 else x
    s, p, o, d = (each(v, dims) for v in (stride, padding, output_padding, dilation))
    size = [(images.shape[2 + a] - 1) * s[a] - 2 * p[a] + d[a] * (w.shape[2 + a] - 1) + o[a] + 1 for a in range(dims)]
    out = np.zeros((len(images), w.shape[1] * groups, *size), x.dtype)
    for image, c, *place in positions(*images.shape):
        for k, *tap in positions(*w.shape[1:]):
            at = [place[a] * s[a] - p[a] + tap[a] * d[a] for a in range(dims)]
            if all(0 <= at[a] < size[a] for a in range(dims)):
                channel = c // (len(w) // groups) * w.shape[1] + k
                out[(image, channel, *at)] += w[(c, k, *tap)] * images[(image, c, *place)]
    if b is not None:
        out += b.reshape(-1, *(1,) * dims)
    return out[0] if x.ndim == dims + 1 else out


def convolutions(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(2, 2, 4, 3), draw(2, 2, 3, 2), draw(2), padding=1)
    yield Sample(draw(1, 1, 5, 4), draw(2, 1, 2, 2), None, (2, 1), (1, 0))
    yield Sample(draw(1, 4, 3, 3), draw(2, 2, 2, 2), draw(2), groups=2)
    yield Sample(draw(1, 2, 3, 3), draw(2, 1, 2, 2), draw(2), padding=1, groups=2)
    yield Sample(draw(1, 1, 5, 5), draw(1, 1, 2, 3), dilation=2, stride=2, padding=(1, 2))
    yield Sample(draw(2, 3, 2, 2), draw(2, 3, 1, 1), draw(2))
    yield Sample(draw(2, 3, 3), draw(1, 2, 3, 3), draw(1), padding="same")
    yield Sample(draw(1, 1, 3, 4), draw(1, 1, 2, 4), draw(1), padding="same", dilation=(1, 2))
    yield Sample(draw(1, 1, 3, 3), draw(1, 1, 2, 2), padding="valid")
    yield Sample(np.zeros((0, 2, 3, 3)), draw(1, 2, 2, 2), draw(1))


def rows(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(2, 3, 6), draw(2, 3, 3), draw(2), 2, 1)
    yield Sample(draw(4, 5), draw(4, 2, 2), None, (1,), (2,), (2,), 2)
    yield Sample(draw(1, 1, 4), draw(2, 1, 2), padding="same")
    yield Sample(draw(2, 2, 3), draw(3, 2, 1), draw(3))
    yield Sample(np.zeros((0, 1, 3)), draw(1, 1, 2))


def volumes(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(2, 2, 3, 2, 3), draw(2, 2, 2, 2, 2), draw(2), (2, 1, 2), (1, 0, 1))
    yield Sample(draw(1, 2, 3, 2, 2), draw(2, 1, 2, 1, 2), None, dilation=(2, 1, 1), padding=1, groups=2)
    yield Sample(draw(1, 2, 2, 2), draw(1, 1, 2, 3, 1), draw(1), padding="same")
    yield Sample(draw(1, 1, 1, 2, 2), draw(1, 1, 2, 1, 1), padding=(3, 0, 0))
    yield Sample(np.zeros((0, 1, 2, 2, 2)), draw(1, 1, 1, 2, 1))


def transposes(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(2, 2, 2, 3), draw(2, 2, 3, 2), draw(2), (2, 1), (1, 0))
    yield Sample(draw(1, 2, 2, 2), draw(2, 1, 2, 2), draw(1), 3, 1, (2, 1))
    yield Sample(draw(1, 4, 2, 2), draw(4, 2, 2, 1), None, 1, 0, 0, 2)
    yield Sample(draw(1, 2, 3), draw(1, 2, 2, 2), draw(2), 2, 0, (3, 2), dilation=(4, 3))
    yield Sample(draw(1, 2, 2, 2), draw(2, 1, 1, 1), draw(1))
    yield Sample(np.zeros((0, 1, 2, 2)), draw(1, 2, 2, 2), draw(2), 2)


def transposed_rows(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(2, 2, 3), draw(2, 2, 3), draw(2), 2, 1, 1)
    yield Sample(draw(4, 3), draw(4, 1, 2), draw(2), (1,), 0, 0, 2, 3)
    yield Sample(np.zeros((0, 1, 2)), draw(1, 1, 2), None, 2)


def transposed_volumes(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*size: int) -> Any:
        return rng.standard_normal(size)

    yield Sample(draw(1, 2, 2, 1, 2), draw(2, 2, 2, 2, 1), draw(2), (2, 1, 2), (1, 0, 0), (1, 0, 1))
    yield Sample(draw(2, 2, 1, 2), draw(2, 1, 3, 1, 2), None, groups=2, dilation=(2, 1, 1))
    yield Sample(np.zeros((0, 1, 1, 2, 1)), draw(1, 1, 2, 1, 1))


def x(*size: int) -> Any:
    return np.zeros(size)


def quiet(name: str) -> Callable[..., Any]:
    """PyTorch's function without its warning that uneven padding="same" costs it a copy."""

    def call(torch: Any, *args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(torch, name)(*args, **kwargs)

    return call


PRIMITIVES = ("Convolution", "ConvolutionInput", "ConvolutionWeight")
OPTIONS: dict[str, Any] = {
    "dtypes": "operands must have one dtype: an error",
    "tolerance": (1e-12, 5e-5),
    "lacks": {"0-d": "it takes images"},
}
ROWS = [
    Op(
        convolution.conv2d,
        by_definition,
        convolutions,
        (
            Wrong(RuntimeError, r"Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d", x(3, 3), x(1, 1, 2, 2)),
            Wrong(RuntimeError, "conv2d expects a weight of 4 dimensions", x(1, 1, 3, 3), x(1, 1, 2)),
            Wrong(
                RuntimeError,
                r"groups=1, weight of size \[1, 2, 2, 2\], expected input\[1, 3, 4, 4\] to have 2 channels, but got 3",
                x(1, 3, 4, 4),
                x(1, 2, 2, 2),
            ),
            Wrong(RuntimeError, "divisible by 2 at dimension 0", x(1, 4, 4, 4), x(3, 2, 2, 2), groups=2),
            Wrong(RuntimeError, "weight to be at least 1", x(1, 1, 4, 4), x(0, 1, 2, 2)),
            Wrong(RuntimeError, "non-positive groups is not supported", x(1, 1, 4, 4), x(1, 1, 2, 2), groups=0),
            Wrong(RuntimeError, "kernel size should be greater than zero", x(1, 1, 4, 4), x(1, 1, 0, 2)),
            Wrong(
                RuntimeError,
                r"Calculated padded input size per channel: \(2 x 4\). Kernel size: \(3 x 3\). Kernel size can't be",
                x(1, 1, 2, 4),
                x(1, 1, 3, 3),
            ),
            Wrong(RuntimeError, "with 2 elements, but got bias of size", x(1, 1, 4, 4), x(2, 1, 2, 2), x(3)),
            Wrong(
                RuntimeError,
                r"Input type \(float64\) and weight type \(int64\) should be the same",
                x(1, 1, 4, 4),
                np.ones((1, 1, 2, 2), int),
            ),
            Wrong(RuntimeError, "should be the same", np.ones((1, 1, 2, 2), bool), np.ones((1, 1, 1, 1), bool)),
            Wrong(RuntimeError, "stride must be an int or a tuple of 2 ints", x(1, 1, 4, 4), x(1, 1, 2, 2), None, 0),
            Wrong(RuntimeError, "stride must be an int or", x(1, 1, 4, 4), x(1, 1, 2, 2), None, (1, 2, 3)),
            Wrong(TypeError, "stride must be an int or", x(1, 1, 4, 4), x(1, 1, 2, 2), None, 1.5),
            Wrong(RuntimeError, "padding must be an int or", x(1, 1, 4, 4), x(1, 1, 2, 2), None, 1, -1),
            Wrong(RuntimeError, "dilation must be an int or", x(1, 1, 4, 4), x(1, 1, 2, 2), dilation=0),
            Wrong(RuntimeError, "Invalid padding string: 'full'", x(1, 1, 4, 4), x(1, 1, 2, 2), None, 1, "full"),
            Wrong(RuntimeError, "not supported for strided", x(1, 1, 4, 4), x(1, 1, 3, 3), None, 2, "same"),
        ),
        (*PRIMITIVES, "ConstantPadNd"),
        torch=quiet("conv2d"),
        **OPTIONS,
    ),
    Op(
        convolution.conv1d,
        by_definition,
        rows,
        (
            Wrong(RuntimeError, r"Expected 2D \(unbatched\) or 3D \(batched\) input to conv1d", x(4), x(1, 1, 2)),
            Wrong(RuntimeError, "Kernel size can't be greater", x(1, 1, 2), x(1, 1, 3)),
        ),
        PRIMITIVES,
        torch=quiet("conv1d"),
        **OPTIONS,
    ),
    Op(
        convolution.conv3d,
        by_definition,
        volumes,
        (
            Wrong(RuntimeError, r"Expected 4D \(unbatched\) or 5D", x(1, 2, 2), x(1, 1, 1, 1, 1)),
            Wrong(RuntimeError, r"\(2 x 2 x 2\). Kernel size: \(3 x 1 x 1\)", x(1, 1, 2, 2, 2), x(1, 1, 3, 1, 1)),
        ),
        PRIMITIVES,
        torch=quiet("conv3d"),
        **OPTIONS,
    ),
    Op(
        convolution.conv_transpose2d,
        transposed_by_definition,
        transposes,
        (
            Wrong(RuntimeError, "Expected 3D .* input to conv_transpose2d", x(3, 3), x(1, 1, 2, 2)),
            Wrong(RuntimeError, r"expected input\[1, 3, 3, 3\] to have 2 channels", x(1, 3, 3, 3), x(2, 3, 2, 2)),
            Wrong(
                RuntimeError,
                r"output padding must be smaller than either stride or dilation, but got output_padding=\(2, 2\)",
                x(1, 2, 3, 3),
                x(2, 3, 2, 2),
                None,
                2,
                0,
                2,
            ),
            Wrong(RuntimeError, "output_padding must be", x(1, 2, 3, 3), x(2, 3, 2, 2), output_padding=-1),
            Wrong(
                RuntimeError,
                r"Calculated output size per channel: \(-2 x -2\). Output size is too small",
                x(1, 2, 3, 3),
                x(2, 3, 2, 2),
                padding=3,
            ),
            Wrong(RuntimeError, "with 6 elements, but got bias", x(1, 2, 3, 3), x(2, 3, 2, 2), x(3), groups=2),
            Wrong(RuntimeError, "only the batch may be empty", x(1, 2, 0, 3), x(2, 3, 2, 2)),
            Wrong(TypeError, "padding must be an int", x(1, 2, 3, 3), x(2, 3, 2, 2), padding="same"),
        ),
        (*PRIMITIVES, "ConstantPadNd"),
        **OPTIONS,
    ),
    Op(
        convolution.conv_transpose1d,
        transposed_by_definition,
        transposed_rows,
        (Wrong(RuntimeError, "Expected 2D .* input to conv_transpose1d", x(3), x(1, 1, 2)),),
        PRIMITIVES,
        **OPTIONS,
    ),
    Op(
        convolution.conv_transpose3d,
        transposed_by_definition,
        transposed_volumes,
        (Wrong(RuntimeError, "Expected 4D .* input to conv_transpose3d", x(3), x(1, 1, 2, 2, 2)),),
        PRIMITIVES,
        **OPTIONS,
    ),
]
FAMILY = convolution
EXEMPT = [Exempt(convolution.lengths, "checks an argument, on integers; the errors of the convolutions use it")]

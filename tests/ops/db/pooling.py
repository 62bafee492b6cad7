from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import pooling

from .row import Op, Sample, Wrong


def each(value: Any, dims: int) -> tuple[Any, ...]:
    return (value,) * dims if value is None or isinstance(value, int) else tuple(value)


def positions(*lengths: int) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, lengths))


def _windows(length: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    places = (length + 2 * padding - dilation * (kernel - 1) - 1) / stride
    count = (math.ceil(places) if ceil_mode else math.floor(places)) + 1
    # a last window has to begin inside the image or the padding before it
    return count - 1 if ceil_mode and (count - 1) * stride >= length + padding else count


def pooled(
    dims: int, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, value: Any
) -> list[Any]:
    """``value`` of the places and elements of each window, and of its lengths with the padding; one array a result."""
    size = x.shape[-dims:]
    k, p, d = each(kernel, dims), each(padding, dims), each(dilation, dims)
    s = k if stride is None else each(stride, dims)
    counts = [_windows(size[a], k[a], s[a], p[a], d[a], ceil_mode) for a in range(dims)]
    results: dict[tuple[int, ...], Any] = {}
    shape = (*x.shape[:-dims], *counts)
    for place in positions(*shape):
        lead, at = place[:-dims], place[-dims:]
        first = [at[a] * s[a] - p[a] for a in range(dims)]
        taps = [tuple(first[a] + tap[a] * d[a] for a in range(dims)) for tap in positions(*k)]
        inside = {tap: x[(*lead, *tap)] for tap in taps if all(0 <= tap[a] < size[a] for a in range(dims))}
        padded = [min(first[a] + k[a], size[a] + p[a]) - first[a] for a in range(dims)]
        results[place] = value(inside, padded)
    found = [np.zeros(shape), np.zeros(shape, np.int64)]
    for place, (number, index) in results.items():
        found[0][place], found[1][place] = number, index
    return found


def maximum(size: tuple[int, ...]) -> Callable[..., Any]:
    def value(inside: dict[tuple[int, ...], float], _: Any) -> tuple[float, int]:
        best = max(inside, key=lambda tap: inside[tap])  # the first of several
        return inside[best], int(np.ravel_multi_index(best, size))

    return value


def largest(dims: int, indices: bool = False) -> Callable[..., Any]:
    def reference(
        x: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
    ) -> Any:
        found = pooled(dims, x, kernel, stride, padding, dilation, ceil_mode, maximum(x.shape[-dims:]))
        return tuple(found) if indices else found[0]

    return reference


def average(dims: int) -> Callable[..., Any]:
    def reference(
        x: Any,
        kernel: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        def value(inside: Any, padded: list[int]) -> tuple[float, int]:
            count = divisor_override or (math.prod(padded) if count_include_pad else len(inside))
            return math.fsum(inside.values()) / count, 0

        return pooled(dims, x, kernel, stride, padding, 1, ceil_mode, value)[0]

    return reference


def norm(dims: int) -> Callable[..., Any]:
    def reference(x: Any, p: float, kernel: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
        def value(inside: Any, padded: list[int]) -> tuple[float, int]:
            total = math.fsum(element**p for element in inside.values())
            # a window that reaches over the edge counts as if it were whole and had the same mean
            return (total / math.prod(padded) * math.prod(each(kernel, dims))) ** (1 / p), 0

        return pooled(dims, x, kernel, stride, 0, 1, ceil_mode, value)[0]

    return reference


def adaptive(dims: int, value: Callable[[dict[tuple[int, ...], float], tuple[int, ...]], Any]) -> Callable[..., Any]:
    def reference(x: Any, output_size: Any) -> Any:
        size = x.shape[-dims:]
        counts = [n if want is None else want for want, n in zip(each(output_size, dims), size, strict=True)]
        shape = (*x.shape[:-dims], *counts)
        values, indices = np.zeros(shape), np.zeros(shape, np.int64)
        for place in positions(*shape):
            at = place[-dims:]
            window = [range(at[a] * size[a] // counts[a], -(-(at[a] + 1) * size[a] // counts[a])) for a in range(dims)]
            inside = {tap: x[(*place[:-dims], *tap)] for tap in itertools.product(*window)}
            found = value(inside, size)
            if not isinstance(found, tuple):
                values[place] = found
            else:
                values[place], indices[place] = found
        return (values, indices) if value is first_maximum else values

    return reference


def mean(inside: dict[tuple[int, ...], float], _: Any) -> float:
    return math.fsum(inside.values()) / len(inside)


def first_maximum(inside: dict[tuple[int, ...], float], size: tuple[int, ...]) -> Any:
    return maximum(size)(inside, None)


def unpooled(dims: int) -> Callable[..., Any]:
    def reference(
        x: Any, indices: Any, kernel: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
    ) -> Any:
        k, p = each(kernel, dims), each(padding, dims)
        s = k if stride is None else each(stride, dims)
        size = [(x.shape[-dims:][a] - 1) * s[a] - 2 * p[a] + k[a] for a in range(dims)]
        size = size if output_size is None else list(output_size)[-dims:]
        out = np.zeros((*x.shape[:-dims], *size), x.dtype)
        for place in positions(*x.shape):
            out[(*place[:-dims], *np.unravel_index(indices[place], size))] = x[place]
        return out

    return reference


def images(rng: np.random.Generator, *size: int) -> Any:
    return (rng.permutation(math.prod(size)) * 0.1 - 1.0).reshape(size)


def windows(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(images(rng, 2, 1, 4, 4), 2)
    yield Sample(images(rng, 1, 2, 5, 4), (3, 2), (2, 1), 1)
    yield Sample(images(rng, 2, 4, 5), 2, 2, 0)
    yield Sample(images(rng, 1, 1, 5, 5), 3, 3, 1, ceil_mode=True)
    yield Sample(images(rng, 1, 1, 4, 6), 2, 3, ceil_mode=True)
    yield Sample(np.zeros((0, 2, 4, 4)), 2)


def row_windows(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(images(rng, 2, 2, 7), 3, 2, 1)
    yield Sample(images(rng, 3, 6), (2,))
    yield Sample(images(rng, 1, 2, 8), 3, (3,), ceil_mode=True)
    yield Sample(np.zeros((0, 2, 4)), 2)


def dilated(rng: np.random.Generator) -> Iterator[Sample]:
    yield from windows(rng)
    yield Sample(images(rng, 1, 1, 5, 5), 2, 1, 0, 2)


def dilated_rows(rng: np.random.Generator) -> Iterator[Sample]:
    yield from row_windows(rng)
    yield Sample(images(rng, 1, 2, 6), 2, 1, 1, 3)


def planes(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(images(rng, 2, 2, 3, 4), 1)
    yield Sample(images(rng, 1, 2, 5, 4), (2, 3))
    yield Sample(images(rng, 2, 3, 4), (None, 2))
    yield Sample(images(rng, 1, 1, 2, 2), (3, 5))
    yield Sample(np.zeros((0, 2, 4, 4)), 1)


def lines(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(images(rng, 2, 2, 5), 2)
    yield Sample(images(rng, 2, 3), (4,))
    yield Sample(np.zeros((0, 2, 4)), 1)


def norms(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 1, 4, 5)), 2, 2)
    yield Sample(rng.uniform(0.5, 2, (2, 4, 5)), 3.0, (2, 3), 1)
    yield Sample(rng.uniform(0.5, 2, (1, 1, 5, 4)), 1.5, 2, 2, True)
    yield Sample(np.zeros((0, 2, 4, 4)), 2, 2)


def row_norms(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 2, 6)), 2, 3, 2)
    yield Sample(rng.uniform(0.5, 2, (2, 5)), 3, 2, ceil_mode=True)
    yield Sample(np.zeros((0, 2, 4)), 2, 2)


def places(rng: np.random.Generator, shape: tuple[int, ...], pixels: int, dims: int) -> Any:
    """Different numbers of pixels within each plane."""
    each_plane = math.prod(shape[-dims:])
    planes = [rng.permutation(pixels)[:each_plane] for _ in range(math.prod(shape[:-dims]))]
    return np.array(planes, np.int64).reshape(shape)


def maxima(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(images(rng, 2, 1, 2, 2), places(rng, (2, 1, 2, 2), 16, 2), 2)
    yield Sample(images(rng, 2, 2, 3), places(rng, (2, 2, 3), 15, 2), (3, 2), (2, 2), (1, 1), (3, 5))
    yield Sample(images(rng, 1, 2, 2, 2), places(rng, (1, 2, 2, 2), 25, 2), 2, output_size=(1, 2, 5, 5))
    yield Sample(np.zeros((0, 2, 2, 2)), np.zeros((0, 2, 2, 2), np.int64), 2)


def row_maxima(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(images(rng, 2, 1, 3), places(rng, (2, 1, 3), 6, 1), 2)
    yield Sample(images(rng, 2, 3), places(rng, (2, 3), 7, 1), 2, (2,), 0, (7,))
    yield Sample(np.zeros((0, 2, 2)), np.zeros((0, 2, 2), np.int64), 2)


def x(*size: int) -> Any:
    return np.zeros(size)


def at(*size: int) -> Any:
    return np.zeros(size, np.int64)


IMAGES = {"0-d": "it takes images"}
WINDOW: dict[str, Any] = {"dtypes": "takes a window; tests/ops/test_spatial.py", "lacks": IMAGES}
BOOLS = np.ones((1, 1, 4, 4), bool)
INTEGERS = np.ones((1, 1, 4, 4), np.int32)


def refusals(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(
            RuntimeError, rf"{name}: Expected 3D or 4D .* \(N, C, H, W\) or \(C, H, W\), but got: \[4, 4\]", x(4, 4), 2
        ),
        Wrong(RuntimeError, "optional 0 dim batch size", x(1, 0, 4, 4), 2),
        Wrong(RuntimeError, "pad should be at most half of kernel size", x(1, 1, 4, 4), 2, 1, 2),
        Wrong(RuntimeError, r"Calculated output size: \[0, 0\]. Output size is too small", x(1, 1, 2, 2), 4, 4),
        Wrong(RuntimeError, "kernel_size must be an int or a tuple of 2 ints, each at least 1", x(1, 1, 4, 4), 0),
        Wrong(RuntimeError, "kernel_size must be an int or a tuple of 2 ints", x(1, 1, 4, 4), (2, 2, 2)),
        Wrong(RuntimeError, "stride must be", x(1, 1, 4, 4), 2, 0),
        Wrong(TypeError, "stride must be", x(1, 1, 4, 4), 2, 0.5),
        Wrong(NotImplementedError, f'"{name}" not implemented for bool', BOOLS, 2),
    )


def row_refusals(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(RuntimeError, rf"{name}: Expected 2D or 3D .* \(N, C, L\) or \(C, L\), but got: \[4\]", x(4), 2),
        Wrong(RuntimeError, r"Calculated output size: \[0\]. Output size is too small", x(1, 1, 2), 4, 4),
    )


MAXIMA = ("MaxPool2D", "MaxPool2DAdjoint", "MaxPool2DAt")
INDEXED = ("MaxPool2DScatter", "MaxPool2DGather")
NOTHING = Wrong(RuntimeError, "holds nothing but padding", x(1, 1, 2, 2), 2, 1, 1, 3)
ROWS = [
    Op(
        pooling.max_pool2d,
        largest(2),
        dilated,
        (*refusals("max_pool2d"), NOTHING),
        MAXIMA,
        **WINDOW,
    ),
    Op(pooling.max_pool1d, largest(1), dilated_rows, row_refusals("max_pool1d"), MAXIMA, **WINDOW),
    Op(
        pooling.max_pool2d_with_indices,
        largest(2, indices=True),
        dilated,
        (*refusals("max_pool2d"), NOTHING),
        (*INDEXED, "MaxPool2DIndices"),
        **WINDOW,
    ),
    Op(
        pooling.max_pool1d_with_indices,
        largest(1, indices=True),
        dilated_rows,
        row_refusals("max_pool1d"),
        (*INDEXED, "MaxPool2DIndices"),
        **WINDOW,
    ),
    Op(
        pooling.avg_pool2d,
        average(2),
        lambda rng: [
            *windows(rng),
            Sample(images(rng, 1, 1, 4, 4), 3, 2, 1, False, False),
            Sample(images(rng, 1, 1, 3, 4), 3, 2, 1, True, False),
            Sample(images(rng, 1, 1, 4, 4), 3, 2, 1, divisor_override=5),
            Sample(images(rng, 1, 2, 3, 3), 2, 1, divisor_override=-2),
        ],
        (
            *refusals("avg_pool2d"),
            Wrong(NotImplementedError, "not implemented for int32", INTEGERS, 2),
            Wrong(RuntimeError, "divisor must be not zero", x(1, 1, 4, 4), 2, divisor_override=0),
        ),
        ("AvgPool2D", "AvgPool2DAdjoint"),
        **WINDOW,
    ),
    Op(
        pooling.avg_pool1d,
        average(1),
        lambda rng: [*row_windows(rng), Sample(images(rng, 1, 2, 5), 2, 2, 1, True, False)],
        row_refusals("avg_pool1d"),
        ("AvgPool2D", "AvgPool2DAdjoint"),
        **WINDOW,
    ),
    Op(
        pooling.adaptive_avg_pool2d,
        adaptive(2, mean),
        planes,
        (
            Wrong(RuntimeError, "adaptive_avg_pool2d: Expected 3D or 4D", x(4), 1),
            Wrong(RuntimeError, "output_size must be one or 2 lengths", x(1, 1, 4, 4), (1, 2, 3)),
            Wrong(RuntimeError, "output_size must be one or 2 lengths", x(1, 1, 4, 4), -1),
            Wrong(TypeError, "output_size must be a tuple of 2 ints", x(1, 1, 4, 4), 1.5),
            Wrong(NotImplementedError, "not implemented for int32", INTEGERS, 2),
        ),
        ("AdaptiveAvgPool2D", "AdaptiveAvgPool2DAdjoint"),
        **WINDOW,
    ),
    Op(
        pooling.adaptive_avg_pool1d,
        adaptive(1, mean),
        lines,
        (
            Wrong(RuntimeError, "adaptive_avg_pool1d: Expected 2D or 3D", x(4), 1),
            Wrong(RuntimeError, "output_size must be one or 1 lengths", x(1, 1, 4), (2, 3)),
            Wrong(TypeError, "output_size must be a tuple of 1 ints, not None", x(1, 1, 4), None),
        ),
        ("AdaptiveAvgPool2D", "AdaptiveAvgPool2DAdjoint"),
        **WINDOW,
    ),
    Op(
        pooling.adaptive_max_pool2d,
        adaptive(2, first_maximum),
        planes,
        (
            Wrong(RuntimeError, "adaptive_max_pool2d: Expected 3D or 4D", x(4), 1),
            Wrong(RuntimeError, "output_size must be one or 2 lengths", x(1, 1, 4, 4), -1),
            Wrong(NotImplementedError, "not implemented for int32", INTEGERS, 2),
        ),
        (*INDEXED, "AdaptiveMaxPool2DIndices"),
        torch="adaptive_max_pool2d_with_indices",
        **WINDOW,
    ),
    Op(
        pooling.adaptive_max_pool1d,
        adaptive(1, first_maximum),
        lines,
        (Wrong(RuntimeError, "adaptive_max_pool1d: Expected 2D or 3D", x(4), 1),),
        (*INDEXED, "AdaptiveMaxPool2DIndices"),
        **WINDOW,
    ),
    Op(
        pooling.max_unpool2d,
        unpooled(2),
        maxima,
        (
            Wrong(RuntimeError, "max_unpool2d: Expected 3D or 4D", x(2, 2), at(2, 2), 2),
            Wrong(RuntimeError, "elements in indices should be type int64 but got: float64", x(1, 2, 2), x(1, 2, 2), 2),
            Wrong(RuntimeError, "Expected shape of indices to be same", x(1, 2, 2), at(1, 2, 3), 2),
            Wrong(
                RuntimeError,
                r"invalid max index: 16 \(output volumes are of size 4x4\)",
                x(1, 2, 2),
                at(1, 2, 2) + 16,
                2,
            ),
            Wrong(RuntimeError, "invalid max index: -1", x(1, 2, 2), at(1, 2, 2) - 1, 2),
            Wrong(ValueError, r"\(dim 0 must be between 2 and 6\)", x(1, 2, 2), at(1, 2, 2), 2, output_size=(7, 5)),
            Wrong(
                ValueError, "should be a sequence containing 2 or 4", x(1, 2, 2), at(1, 2, 2), 2, output_size=(5,) * 3
            ),
        ),
        ("MaxUnpool2D", "MaxPool2DGather", "MaxPool2DScatter"),
        **WINDOW,
    ),
    Op(
        pooling.max_unpool1d,
        unpooled(1),
        row_maxima,
        (Wrong(RuntimeError, "max_unpool1d: Expected 2D or 3D", x(2), at(2), 2),),
        ("MaxUnpool2D", "MaxPool2DGather", "MaxPool2DScatter"),
        **WINDOW,
    ),
    Op(
        pooling.lp_pool2d,
        norm(2),
        norms,
        (
            Wrong(RuntimeError, "lp_pool2d: Expected 3D or 4D", x(4, 4), 2, 2),
            Wrong(ZeroDivisionError, "no norm of norm_type 0", x(1, 4, 4), 0, 2),
        ),
        tolerance=(1e-11, 2e-5),
        **WINDOW,
    ),
    Op(
        pooling.lp_pool1d,
        norm(1),
        row_norms,
        (Wrong(RuntimeError, "lp_pool1d: Expected 2D or 3D", x(4), 2, 2),),
        tolerance=(1e-11, 2e-5),
        **WINDOW,
    ),
]
FAMILY = pooling
EXEMPT: list[Any] = []

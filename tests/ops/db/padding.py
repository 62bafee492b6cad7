from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import padding

from .row import Op, Sample, Wrong


def by_definition(x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """One element of the result at a time."""
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    out = np.zeros([n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)], x.dtype)
    for place in itertools.product(*map(range, out.shape)):
        source = []
        for at, n, (before, after) in zip(place, x.shape, widths, strict=True):
            i = at - before
            if mode == "replicate":
                i = min(max(i, 0), n - 1)
            if mode == "reflect":
                while not 0 <= i < n:
                    i = -i if i < 0 else 2 * (n - 1) - i
            if mode == "circular":
                first, last = max(0, -before), n + min(0, after)  # what is not cut away goes round
                i = first + (i - first) % (last - first)
            source.append(i)
        outside = any(not 0 <= i < n for i, n in zip(source, x.shape, strict=True))
        out[place] = (value or 0) if outside else x[tuple(source)]
    return out


def constants(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(rng.standard_normal((2, 3)), (1, 2))
    yield Sample(rng.standard_normal((2, 3)), (1, 0, 0, 2), value=1.5)
    yield Sample(rng.standard_normal((3, 4)), (-1, 2, 1, -2))
    yield Sample(rng.standard_normal((2, 2, 1, 2)), (0, 0, 0, 1, 0, 0, 1, 0))
    yield Sample(rng.standard_normal((2, 3)), (-2, -1))
    yield Sample(rng.standard_normal(3), ())
    yield Sample(rng.standard_normal(()), [])
    yield Sample(np.zeros((0, 2)), (1, 1))
    yield Sample(np.arange(4), (1, 1), value=7)


def modes(rng: np.random.Generator) -> Iterator[Sample]:
    for mode in ("reflect", "replicate", "circular"):
        yield Sample(rng.standard_normal((2, 4)), (2, 1), mode)
        yield Sample(rng.standard_normal((1, 2, 4)), (3, 2), mode)
        yield Sample(rng.standard_normal((2, 3, 4)), (1, 2, 2, 0), mode)
        yield Sample(rng.standard_normal((1, 2, 2, 3)), (2, 0, 0, 1), mode)
        yield Sample(rng.standard_normal((1, 1, 2, 3, 2)), (1, 1, 0, 2, 1, 0), mode)
        yield Sample(rng.standard_normal((1, 5)), (-1, 2), mode)
        yield Sample(rng.standard_normal((1, 4, 5)), (2, -2, -1, 1), mode)
        yield Sample(np.zeros((0, 2, 3)), (1, 1), mode)
        yield Sample(np.arange(12).reshape(1, 3, 4), (1, 2), mode)
        yield Sample(rng.standard_normal((1, 3)), (0, 0), mode)
    yield Sample(rng.standard_normal((1, 3)), (5, 4), "replicate")
    yield Sample(rng.standard_normal((1, 3)), (-4, 2), "replicate")
    yield Sample(rng.standard_normal((2, 3, 3)), (-2, 2), "reflect")
    yield Sample(rng.standard_normal((1, 3)), (3, 3), "circular")


def x(*size: int) -> Any:
    return np.zeros(size)


CONSTANT = (
    Wrong(RuntimeError, "Padding length must be divisible by 2", x(3), (1, 2, 3)),
    Wrong(RuntimeError, "padding length 4 and input of dimension 1", x(3), (1, 2, 3, 4)),
    Wrong(RuntimeError, "The input size 3, plus negative padding -2 and -2, resulted in a negative", x(3), (-2, -2)),
    Wrong(RuntimeError, "resulted in a negative output size", x(3), (-4, 2)),
    Wrong(TypeError, "pad must be a tuple of ints", x(3), 1),
    Wrong(TypeError, "pad must be a tuple of ints", x(3), (1.5, 1)),
)
ROWS = [
    Op(
        padding.constant_pad_nd,
        lambda x, pad, value=0: by_definition(x, pad, "constant", value),
        constants,
        CONSTANT,
        ("ConstantPadNd",),
        dtypes="takes widths; tests/ops/test_spatial.py",
    ),
    Op(
        padding.pad,
        by_definition,
        lambda rng: [*constants(rng), *modes(rng)],
        (
            *CONSTANT,
            Wrong(NotImplementedError, "Unrecognised padding mode mirror", x(3), (1, 1), "mirror"),
            Wrong(RuntimeError, "doesn't take in value argument", x(1, 3), (1, 1), "reflect", 1.0),
            Wrong(NotImplementedError, "Padding size 2 is not supported for 1D input", x(3), (1, 1), "reflect"),
            Wrong(NotImplementedError, "Padding size 2 is not supported for 4D", x(1, 1, 3, 3), (1, 1), "circular"),
            Wrong(NotImplementedError, "Padding size 0 is not supported for 2D", x(1, 3), (), "replicate"),
            Wrong(RuntimeError, "at most 2 for a dimension of length 3 and mode 'reflect'", x(1, 3), (3, 1), "reflect"),
            Wrong(RuntimeError, r"padding \(0, 3\) at dimension 1", x(1, 3, 4), (1, 1, 0, 3), "reflect"),
            Wrong(RuntimeError, "at most 3 for a dimension of length 3", x(1, 3), (4, 1), "circular"),
            Wrong(RuntimeError, "at most 2 for a dimension of length 2", x(1, 3), (-1, 3), "circular"),
            Wrong(RuntimeError, "leaves nothing of dimension 1", x(1, 3), (-2, -1), "reflect"),
            Wrong(RuntimeError, "leaves nothing of dimension 1", x(1, 3), (-2, -1), "circular"),
            Wrong(RuntimeError, "only the batch may be empty", x(2, 0), (1, 1), "replicate"),
        ),
        ("ConstantPadNd", "Resample"),
        dtypes="takes widths; tests/ops/test_spatial.py",
    ),
]
FAMILY = padding
EXEMPT: list[Any] = []

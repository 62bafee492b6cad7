from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import masked

from .row import Op, Sample, Wrong

FLAGS = np.array([True, False, True])
SIZES = "must match the size of tensor b"
KEPT = "takes a mask; test_new_places_keep_the_dtype"


def _wide(x: Any, mask: Any) -> tuple[Any, Any]:
    size = np.broadcast_shapes(x.shape, mask.shape)
    return np.broadcast_to(x, size), np.broadcast_to(mask, size)


def filled(x: Any, mask: Any, value: Any) -> Any:
    wide, chosen = _wide(x, mask)
    out = np.empty(wide.shape, x.dtype)
    for place in np.ndindex(wide.shape):
        out[place] = value if chosen[place] else wide[place]
    return out


def fillings(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3))
    yield Sample(x, FLAGS, -1.5)
    yield Sample(x, FLAGS[None], rng.standard_normal(()))
    yield Sample(rng.standard_normal((2, 1)), FLAGS, 0.5)
    yield Sample(x, np.array(True), 2)
    yield Sample(rng.standard_normal(()), FLAGS, True)
    yield Sample(rng.standard_normal(()), np.array(False), 1.0)
    yield Sample(np.zeros((0, 3)), FLAGS, 1.0)


def chosen_by(x: Any, mask: Any) -> Any:
    wide, chosen = _wide(x, mask)
    return np.array([wide[place] for place in np.ndindex(wide.shape) if chosen[place]], x.dtype)


def masks(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3))
    yield Sample(x, rng.random((2, 3)) < 0.5)
    yield Sample(x, FLAGS)
    yield Sample(rng.standard_normal((2, 1)), FLAGS)
    yield Sample(rng.standard_normal(3), np.zeros(3, bool))
    yield Sample(rng.standard_normal(()), FLAGS)
    yield Sample(rng.standard_normal(()), np.array(True))
    yield Sample(np.zeros((0, 3)), FLAGS)


def poured(x: Any, mask: Any, source: Any) -> Any:
    wide, chosen = _wide(x, mask)
    rest = iter(source[place] for place in np.ndindex(source.shape))
    out = np.array(wide)
    for place in np.ndindex(wide.shape):
        if chosen[place]:
            out[place] = next(rest)
    return out


def sources(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3))
    yield Sample(x, rng.random((2, 3)) < 0.5, rng.standard_normal(6))
    yield Sample(x, FLAGS, rng.standard_normal((2, 4)))
    yield Sample(rng.standard_normal((2, 1)), FLAGS, rng.standard_normal((2, 3)))
    yield Sample(x, np.zeros(3, bool), np.zeros(0))
    yield Sample(rng.standard_normal(()), np.array(True), rng.standard_normal(()))
    yield Sample(np.zeros((0, 3)), FLAGS, rng.standard_normal(2))


ROWS = [
    Op(
        masked.masked_fill,
        filled,
        fillings,
        (
            Wrong(RuntimeError, "boolean masks, but got mask with dtype int64", np.zeros(2), np.ones(2, int), 1),
            Wrong(RuntimeError, "0-dimensional value tensor", np.zeros(3), FLAGS, np.zeros(1)),
            Wrong(RuntimeError, SIZES, np.zeros(2), FLAGS, 1.0),
            Wrong(RuntimeError, "float16 without overflow", np.zeros(3, np.float16), FLAGS, 1e9),
            Wrong(RuntimeError, "int64 without overflow", np.zeros(3, np.int64), FLAGS, np.nan),
            Wrong(TypeError, r"'value' \(position 3\) must be Number, not NoneType", np.zeros(3), FLAGS, None),
            Wrong(TypeError, r"'mask' \(position 2\) must be Tensor, not bool", np.zeros(3), True, 1.0),
        ),
        ("Where",),
        dtypes=KEPT,
    ),
    Op(
        masked.masked_select,
        chosen_by,
        masks,
        (
            Wrong(RuntimeError, "expected BoolTensor for mask", np.zeros(3), np.ones(3, np.uint8)),
            Wrong(RuntimeError, SIZES, np.zeros(2), FLAGS),
        ),
        ("Index", "IndexAdjoint"),
        dtypes=KEPT,
    ),
    Op(
        masked.masked_scatter,
        poured,
        sources,
        (
            Wrong(RuntimeError, "boolean masks, but got mask with dtype int64", np.zeros(2), np.ones(2, int), FLAGS),
            Wrong(RuntimeError, "same dtypes but got float64 and int64", np.zeros(3), FLAGS, np.arange(3)),
            Wrong(RuntimeError, "source < number of ones in mask: 1 and 2", np.zeros(3), FLAGS, np.zeros(1)),
            Wrong(RuntimeError, SIZES, np.zeros(2), FLAGS, np.zeros(3)),
            Wrong(TypeError, r"'source' \(position 3\) must be Tensor, not float", np.zeros(3), FLAGS, 1.0),
        ),
        ("MaskedScatter", "Index", "IndexAdjoint", "NarrowAdjoint"),
        dtypes=KEPT,
    ),
]
FAMILY = masked
EXEMPT: list[Any] = []

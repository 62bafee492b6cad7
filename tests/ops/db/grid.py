from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from distgrad.ops import grid

from .creation import F32, F64, I32, I64, calls, plain
from .row import Op, Sample, Wrong
from .shape import several

VECTORS = {"0-d": "it makes vectors"}


def steps(a: Any, b: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    first, last = (0, a) if b is None else (a, b)
    values = []
    while (first + step * len(values) < last) if step > 0 else (first + step * len(values) > last):
        values.append(first + step * len(values))
    whole = all(isinstance(v, int) for v in (first, last, step))
    return np.array(values, dtype or (I64 if whole else F32))


def between(a: float, b: float, n: int, dtype: Any = F32) -> Any:
    return np.array([a + (b - a) * i / max(n - 1, 1) for i in range(n)], np.float64).astype(dtype)


def powers(a: float, b: float, n: int, base: float = 10.0, dtype: Any = F32) -> Any:
    return np.array([float(base) ** (a + (b - a) * i / max(n - 1, 1)) for i in range(n)]).astype(dtype)


def positions(below: bool) -> Any:
    def reference(row: int, col: int, offset: int = 0, dtype: Any = I64) -> Any:
        places = [(i, j) for i in range(row) for j in range(col) if (j - i <= offset if below else j - i >= offset)]
        return np.array(places, dtype).reshape(-1, 2).T

    return reference


def coordinates(*xs: Any, indexing: str) -> Any:
    xs = tuple(xs[0]) if isinstance(xs[0], list) else xs
    flat = [x.reshape(-1) for x in xs]
    order = [1, 0, *range(2, len(flat))] if indexing == "xy" and len(flat) > 1 else list(range(len(flat)))
    size = [flat[d].size for d in order]
    outs = []
    for number, x in enumerate(flat):
        out = np.empty(size, x.dtype)
        for place in np.ndindex(*size):
            out[place] = x[place[order.index(number)]]
        outs.append(out)
    return tuple(outs)


def products(*xs: Any) -> Any:
    chosen = list(itertools.product(*(x.tolist() for x in xs)))
    return np.array(chosen, xs[0].dtype).reshape(-1, len(xs)) if len(xs) > 1 else xs[0]


def choices(x: Any, r: int = 2, with_replacement: bool = False) -> Any:
    if r == 0:
        return np.zeros(0)
    chosen = [
        c
        for c in itertools.product(range(x.size), repeat=r)
        if all(a <= b if with_replacement else a < b for a, b in itertools.pairwise(c))
    ]
    return np.array([[x[i] for i in c] for c in chosen], x.dtype).reshape(-1, r)


def grids(rng: np.random.Generator) -> Any:
    for indexing in ("ij", "xy"):
        yield Sample(rng.standard_normal(2), rng.standard_normal(3), indexing=indexing)
        yield Sample(rng.standard_normal(2), rng.standard_normal(()), rng.standard_normal(2), indexing=indexing)
        yield Sample([rng.standard_normal(3)], indexing=indexing)
        yield Sample(np.zeros(0), rng.standard_normal(2), indexing=indexing)


def vectors(rng: np.random.Generator) -> Any:
    x = rng.standard_normal(4)
    for more in ({}, {"r": 3}, {"r": 1}, {"r": 5}, {"with_replacement": True}, {"r": 3, "with_replacement": True}):
        yield Sample(x, **more)
    yield Sample(np.zeros(0), 2)


V, W = np.zeros(2), np.zeros(3, np.int64)
ROWS = [
    plain(
        grid.arange,
        steps,
        calls(
            Sample(5),
            Sample(2, 5),
            Sample(5, 0, -2),
            Sample(0.0, 1.0, 0.25),
            Sample(3.5),
            Sample(0),
            Sample(1, 2, 0.3),
            Sample(3, dtype=F64),
            Sample(0.5, 3, dtype=F64),
            Sample(4, dtype=I32),
        ),
        Wrong(RuntimeError, "step must be nonzero", 0, 3, 0),
        Wrong(RuntimeError, "step must be nonzero", 0, 3, 0.5, dtype=I64),
        Wrong(RuntimeError, "inconsistent with step sign: arange with start=3, end=0, step=1", 3, 0),
        Wrong(RuntimeError, "inconsistent with step sign", 0.0, 3.0, -1.0),
        Wrong(RuntimeError, "unsupported range: 0 -> inf", float("inf")),
        Wrong(RuntimeError, "unsupported range: 0 -> nan", float("nan")),
        Wrong(RuntimeError, "there is no device", 3, device="cuda"),
        Wrong(NotImplementedError, "not implemented for bool", 3, dtype=np.dtype(bool)),
        Wrong(TypeError, "must be Number, not str", "a"),
        Wrong(TypeError, "must be Number, not Tensor", np.zeros(1)),
        Wrong(TypeError, "needs an end"),
        lacks=VECTORS,
    ),
    plain(
        grid.linspace,
        between,
        calls(
            Sample(0, 1, 5),
            Sample(-2.0, 3.0, 4, dtype=F64),
            Sample(3, -3, 7),
            Sample(1, 2, 1),
            Sample(1, 2, 0),
            Sample(0, 10, 4, dtype=I64),
        ),
        Wrong(RuntimeError, "number of steps must be non-negative", 0, 1, -1),
        Wrong(RuntimeError, "got start with 1 dimension", np.zeros(1), 1, 3),
        Wrong(RuntimeError, "got end with 1 dimension", 0, np.zeros(1), 3),
        Wrong(NotImplementedError, "not implemented for bool", 0, 1, 3, dtype=np.dtype(bool)),
        Wrong(TypeError, "float", 0, 1, 3.0),
        lacks=VECTORS,
        tolerance=(1e-6, 1e-6),
    ),
    plain(
        grid.logspace,
        powers,
        calls(
            Sample(0, 3, 4),
            Sample(-1.0, 1.0, 5, dtype=F64),
            Sample(0, 3, 4, 2),
            Sample(0, 4, 5, base=3, dtype=I64),
            Sample(1, 2, 1),
            Sample(1, 2, 0),
        ),
        Wrong(RuntimeError, "number of steps must be non-negative", 0, 1, -1),
        Wrong(TypeError, r"'base' \(position 4\) must be Number", 0, 1, 3, "e"),
        lacks=VECTORS,
        tolerance=(1e-6, 1e-6),
    ),
    plain(
        grid.eye,
        lambda n, m=None, dtype=F32: np.array(
            [[i == j for j in range(n if m is None else m)] for i in range(n)], dtype
        ).reshape(n, n if m is None else m),
        calls(Sample(3), Sample(2, 4), Sample(3, 0), Sample(0), Sample(2, dtype=I64), Sample(2, dtype=np.dtype(bool))),
        Wrong(RuntimeError, "n must be greater or equal to 0, got -1", -1),
        Wrong(RuntimeError, "m must be greater or equal to 0, got -1", 2, -1),
        lacks={"0-d": "it makes matrices"},
    ),
    *(
        plain(
            getattr(grid, name),
            positions(name == "tril_indices"),
            calls(
                Sample(3, 3), Sample(2, 4, 1), Sample(4, 2, -1), Sample(3, 2, 9), Sample(0, 3), Sample(2, 2, dtype=I32)
            ),
            Wrong(RuntimeError, "row must be non-negative, got -1", -1, 2),
            Wrong(RuntimeError, "col must be non-negative, got -1", 2, -1),
            Wrong(NotImplementedError, "not implemented for float32", 2, 2, dtype=F32),
            lacks={"0-d": "it makes matrices"},
        )
        for name in ("tril_indices", "triu_indices")
    ),
    Op(
        grid.meshgrid,
        coordinates,
        grids,
        (
            Wrong(RuntimeError, "non-empty TensorList", indexing="ij"),
            Wrong(RuntimeError, "non-empty TensorList", [], indexing="ij"),
            Wrong(RuntimeError, "same dtype, but got", V, W, indexing="ij"),
            Wrong(RuntimeError, "Expected 0D or 1D tensor", V[None], indexing="ij"),
            Wrong(RuntimeError, 'must be one of "xy" or "ij", but received: yx', V, indexing="yx"),
            Wrong(TypeError, r"'tensors' \(position 2\) must be Tensor, not int", V, 3, indexing="ij"),
        ),
        ("Expand", "View"),
        dtypes="gives several tensors; test_views_keep_the_dtype",
    ),
    Op(
        grid.cartesian_prod,
        products,
        several(((2,), (3,)), ((2,), (1,), (2,)), ((3,),), ((0,), (2,))),
        (
            Wrong(RuntimeError, r"Expect a 1D vector, but got shape \[\]", np.zeros(()), V),
            Wrong(RuntimeError, "same dtype", V, W),
            Wrong(RuntimeError, "non-empty TensorList"),
        ),
        ("Cat", "Expand"),
        dtypes="takes several tensors of one dtype; test_new_places_keep_the_dtype",
        lacks={"0-d": "it takes vectors: an error"},
    ),
    Op(
        grid.combinations,
        choices,
        vectors,
        (
            Wrong(RuntimeError, r"Expect a 1D vector, but got shape \[1, 2\]", V[None]),
            Wrong(RuntimeError, "Expect a non-negative number, but got -1", V, -1),
            Wrong(TypeError, "must be Tensor, not list", [1, 2]),
        ),
        ("Index",),
        dtypes="takes vectors; test_new_places_keep_the_dtype",
        lacks={"0-d": "it takes vectors: an error"},
    ),
]
FAMILY = grid
EXEMPT: list[Any] = []

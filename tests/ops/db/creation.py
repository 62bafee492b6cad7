from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import creation

from .row import Exempt, Op, Sample, Samples, Wrong

F32, F64, I64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)
WITHOUT = "makes tensors of a dtype that is asked for or inferred, as its samples show"


def calls(*cases: Sample) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        yield from cases

    return samples


def filled(value: float) -> Callable[..., Any]:
    def reference(*size: Any, dtype: Any = F32) -> Any:
        size = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        return np.array([value] * int(np.prod(size)), dtype).reshape(size)

    return reference


SIZES = calls(
    Sample(2, 3), Sample((2, 3)), Sample(()), Sample(0, 3), Sample([2]), Sample(3, dtype=I64), Sample(2, dtype=F64)
)
LIKE = calls(
    Sample(np.ones((2, 3))), Sample(np.ones(())), Sample(np.ones((0, 2), np.int32)), Sample(np.ones(2), dtype=I64)
)


def plain(op: Any, reference: Any, samples: Samples, *errors: Wrong, **more: Any) -> Op:
    return Op(op, reference, samples, errors, (), differentiable=False, dtypes=WITHOUT, **more)


def inferred(data: Any, dtype: Any = None) -> Any:
    """Python floats make float32 and integers int64; arrays keep their dtype."""
    array = np.array(data, dtype)
    kept = dtype is not None or isinstance(data, (np.ndarray, np.generic)) or array.dtype.kind != "f"
    return array if kept else array.astype(np.float32)


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    return all(
        abs(x - y) <= atol + rtol * abs(y) or (equal_nan and x != x and y != y)
        for x, y in zip(*(v.reshape(-1).tolist() for v in np.broadcast_arrays(a, b)), strict=True)
    )


NAN = np.array([np.nan, 1.0])

ROWS = [
    plain(creation.zeros, filled(0), SIZES, Wrong(RuntimeError, "negative dimension", -1)),
    plain(creation.ones, filled(1), SIZES, Wrong(RuntimeError, "negative dimension", -1)),
    plain(
        creation.full,
        lambda size, value, dtype=None: (
            inferred(np.full(size, value).tolist(), dtype).reshape(size)
            if np.prod(size)
            else np.zeros(size, dtype or F32)
        ),
        calls(Sample((2, 3), 1.5), Sample((2,), 3), Sample((), True), Sample((0,), 2.0), Sample((2,), 3, dtype=F64)),
        Wrong(TypeError, "not iterable", 3, 1.0),
    ),
    plain(
        creation.zeros_like,
        lambda x, dtype=None: x.astype(dtype or x.dtype) * 0,
        LIKE,
        Wrong(AttributeError, "has no attribute 'shape'", 1),
    ),
    plain(
        creation.ones_like,
        lambda x, dtype=None: x.astype(dtype or x.dtype) * 0 + 1,
        LIKE,
        Wrong(AttributeError, "has no attribute 'shape'", 1),
    ),
    plain(
        creation.eye,
        lambda n, m=None, dtype=F32: np.array([[i == j for j in range(m or n)] for i in range(n)], dtype).reshape(
            n, m or n
        ),
        calls(Sample(3), Sample(2, 4), Sample(0), Sample(2, dtype=I64)),
        Wrong(ValueError, "negative dimensions", -1),
        lacks={"0-d": "it makes matrices"},
    ),
    plain(
        creation.arange,
        lambda a, b=None, step=1, dtype=None: inferred(
            [(0 if b is None else a) + step * i for i in range(-int(-((a if b is None else b - a) / step) // 1))],
            dtype or (I64 if all(isinstance(v, int) for v in (a, b or 0, step)) else F32),
        ),
        calls(
            Sample(5),
            Sample(2, 5),
            Sample(5, 0, -2),
            Sample(0.0, 1.0, 0.25),
            Sample(3.5),
            Sample(0),
            Sample(3, dtype=F64),
        ),
        Wrong(RuntimeError, "step must be nonzero and lead from start to end", 0, 3, 0),
        Wrong(RuntimeError, "start=3, end=0, step=1", 3, 0),
        lacks={"0-d": "it makes vectors"},
    ),
    plain(
        creation.linspace,
        lambda a, b, n, dtype=F32: np.array([a + (b - a) * i / max(n - 1, 1) for i in range(n)], dtype),
        calls(Sample(0, 1, 5), Sample(-2.0, 3.0, 4, dtype=F64), Sample(1, 2, 1), Sample(1, 2, 0)),
        Wrong(ValueError, "must be non-negative", 0, 1, -1),
        lacks={"0-d": "it makes vectors"},
        tolerance=(1e-6, 1e-6),
    ),
    plain(
        creation.tensor,
        inferred,
        calls(
            Sample(3),
            Sample(2.5),
            Sample(True),
            Sample([1.0, 2.0]),
            Sample([[1, 2], [3, 4]]),
            Sample([]),
            Sample([1, 2], dtype=F64),
            Sample([True, False]),
            Sample([1, 2.5]),
        ),
        Wrong(ValueError, "not of one length at every level", [[1, 2], [3]]),
        Wrong(TypeError, "must be numbers, bools or nested sequences", "abc"),
    ),
    plain(
        creation.as_tensor,
        inferred,
        calls(Sample(3), Sample([1.0, 2.0]), Sample([]), Sample([1], dtype=F64)),
        Wrong(TypeError, "must be numbers", [None]),
    ),
    Op(
        creation.allclose,
        close,
        calls(
            Sample(np.ones(2), np.ones(2)),
            Sample(np.ones(2), np.ones(2) + 1e-3),
            Sample(np.ones(2), np.ones(1), 0.1),
            Sample(NAN, NAN),
            Sample(NAN, NAN, equal_nan=True),
            Sample(np.ones(()), np.ones(())),
            Sample(np.zeros(0), np.zeros(0)),
        ),
        (Wrong(ValueError, "could not be broadcast", np.ones(2), np.ones(3)),),
        differentiable=False,
        dtypes="gives a Python bool",
    ),
    Op(
        creation.equal,
        lambda a, b: a.shape == b.shape and a.tolist() == b.tolist(),
        calls(
            Sample(np.ones(2), np.ones(2)),
            Sample(np.ones(2), np.ones(3)),
            Sample(np.ones(2), np.array([1.0, 2.0])),
            Sample(np.ones(()), np.ones(())),
            Sample(np.zeros(0), np.zeros(0)),
        ),
        (Wrong(AttributeError, "has no attribute", np.ones(2), 3),),
        differentiable=False,
        dtypes="gives a Python bool",
    ),
]
FAMILY = creation
EXEMPT = [
    Exempt(creation.empty, "its values are whatever the memory held; test_empty checks shape and dtype"),
    Exempt(creation.from_numpy, "takes an array, not a tensor; test_from_numpy checks that memory is shared"),
]

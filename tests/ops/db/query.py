from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.ops import query

from .creation import calls
from .row import Exempt, Op, Sample, Wrong

BOOL = "gives a Python bool"


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    return all(
        abs(x - y) <= atol + rtol * abs(y) or (equal_nan and x != x and y != y)
        for x, y in zip(*(v.reshape(-1).tolist() for v in np.broadcast_arrays(a, b)), strict=True)
    )


NAN = np.array([np.nan, 1.0])
ONES, WHOLE = np.ones(2), np.ones(2, np.int64)
ANY = calls(Sample(ONES), Sample(WHOLE), Sample(np.ones(()) > 0), Sample(np.zeros((0, 2))))


def question(op: Any, reference: Any, samples: Any, *errors: Wrong, **more: Any) -> Op:
    return Op(op, reference, samples, errors, (), differentiable=False, dtypes=BOOL, **more)


def not_a_tensor(*given: Any) -> Wrong:
    return Wrong(TypeError, "must be Tensor, not int", *given)


ROWS = [
    question(
        query.allclose,
        close,
        calls(
            Sample(ONES, ONES),
            Sample(ONES, ONES + 1e-3),
            Sample(ONES, np.ones(1), 0.1),
            Sample(WHOLE, WHOLE + 1, 0.0, 1.0),
            Sample(NAN, NAN),
            Sample(NAN, NAN, equal_nan=True),
            Sample(np.ones(()), np.ones(())),
            Sample(np.zeros(0), np.zeros(0)),
        ),
        Wrong(RuntimeError, "must match the size of tensor b", ONES, np.ones(3)),
        Wrong(RuntimeError, "float64 did not match int64", ONES, WHOLE),
        Wrong(RuntimeError, "rtol must be greater than or equal to zero, but got -1", ONES, ONES, -1),
        Wrong(RuntimeError, "atol must be greater than or equal to zero, but got nan", ONES, ONES, 0.1, np.nan),
        not_a_tensor(ONES, 3),
    ),
    question(
        query.equal,
        lambda a, b: a.shape == b.shape and a.tolist() == b.tolist(),
        calls(
            Sample(ONES, ONES),
            Sample(ONES, np.ones(3)),
            Sample(ONES, np.array([1.0, 2.0])),
            Sample(np.ones(()), np.ones(())),
            Sample(np.ones(()), np.ones(1)),
            Sample(np.zeros(0), np.zeros(0)),
        ),
        not_a_tensor(ONES, 3),
    ),
    question(
        query.is_same_size,
        lambda a, b: a.shape == b.shape,
        calls(Sample(ONES, NAN), Sample(ONES, np.ones(())), Sample(np.zeros((0, 2)), np.zeros((0, 3)))),
        not_a_tensor(ONES, 3),
    ),
    question(query.is_floating_point, lambda x: x.dtype.kind == "f", ANY, not_a_tensor(3)),
    question(query.is_complex, lambda x: False, ANY, not_a_tensor(3)),
    question(
        query.is_nonzero,
        lambda x: x.tolist() not in (0, [0], [[0]], False),
        calls(Sample(np.ones(1)), Sample(np.zeros(())), Sample(np.zeros((1, 1), np.int64)), Sample(np.array(True))),
        Wrong(RuntimeError, "more than one value is ambiguous", ONES),
        Wrong(RuntimeError, "no values is ambiguous", np.zeros(0)),
        not_a_tensor(3),
        lacks={"empty": "its truth is ambiguous: an error"},
    ),
]
FAMILY = query
EXEMPT = [
    Exempt(query.is_tensor, "takes anything; test_is_tensor"),
    Exempt(query.numel, "gives a number; test_numel"),
    *(
        Exempt(getattr(query, name), "is about dtypes; test_limits and test_casts compare all of them")
        for name in ("finfo", "iinfo", "can_cast", "promote_types")
    ),
]

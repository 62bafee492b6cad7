"""Values and gradients of reductions, scans and order statistics at ties, zeros, NaN and infinities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

NAN, INF = math.nan, math.inf
TIES, UNKNOWN, ZEROS = [1.0, 3.0, 3.0], [1.0, NAN, 3.0, NAN], [0.0, 2.0, 0.0, -1.0]
EQUAL, ENDS = [0.5, 0.5, 0.5], [-INF, 0.0, 1000.0]
FOUR = [1.0, 3.0, 3.0, 0.0]

# What PyTorch gives in each of these cases, value and gradient, is the convention.
EDGES: dict[str, tuple[Callable[[Any, Any], Any], list[list[float]]]] = {
    "max": (lambda t, x: x.max(), [TIES, UNKNOWN]),
    "min": (lambda t, x: x.min(), [[1.0, 1.0, 3.0], UNKNOWN]),
    "max of a dim": (lambda t, x: x.max(0).values, [TIES, UNKNOWN]),
    "min of a dim": (lambda t, x: x.min(0).values, [[1.0, 1.0, 3.0], UNKNOWN]),
    "amax": (lambda t, x: x.amax(0), [TIES, UNKNOWN]),
    "amin": (lambda t, x: x.amin(), [[1.0, 1.0, 3.0], UNKNOWN]),
    "aminmax": (lambda t, x: t.stack(tuple(x.aminmax())), [TIES, UNKNOWN]),
    "nansum": (lambda t, x: x.nansum(), [UNKNOWN, [NAN, NAN], [INF, NAN, -INF]]),
    "nanmean": (lambda t, x: x.nanmean(), [UNKNOWN, [NAN, NAN]]),
    "prod": (lambda t, x: x.prod(), [TIES, UNKNOWN, ZEROS, [0.0, 2.0, -1.0], [0.0, INF, -1.0]]),
    "prod of a dim": (lambda t, x: x.prod(0), [ZEROS, [0.0, 2.0, -1.0]]),
    "var": (lambda t, x: x.var(), [TIES, UNKNOWN, EQUAL, [0.0, INF], [1e8, 1.0, 2.0]]),
    "std": (lambda t, x: x.std(), [TIES, UNKNOWN, EQUAL, [0.0, INF]]),
    "var without freedom": (lambda t, x: x.var(correction=3), [TIES, EQUAL]),
    "std without freedom": (lambda t, x: x.std(correction=4), [TIES, EQUAL]),
    "std of one": (lambda t, x: x[0].std(correction=0), [[3.0]]),
    "softmax": (lambda t, x: t.softmax(x, 0), [ENDS, UNKNOWN, [-INF, -INF], [INF, 0.0]]),
    "log_softmax": (lambda t, x: t.log_softmax(x, 0), [ENDS, UNKNOWN, [-INF, -INF], [-1000.0, 0.0, 1000.0]]),
    "logsumexp": (lambda t, x: t.logsumexp(x, 0), [ENDS, UNKNOWN, [-INF, -INF], [INF, 0.0], [-1000.0, 0.0, 1000.0]]),
    "cumsum": (lambda t, x: x.cumsum(0), [[1.0, NAN, 3.0]]),
    "cumprod": (lambda t, x: x.cumprod(0), [[0.0, 2.0, -1.0], [2.0, 0.0, -1.0, 0.0, 3.0], [1.0, NAN, 3.0], [0.0, 0.0]]),
    "cummax": (lambda t, x: x.cummax(0).values, [[1.0, 3.0, 3.0, 2.0, NAN, 5.0, NAN, 7.0], [1.0, 1.0]]),
    "cummin": (lambda t, x: x.cummin(0).values, [[1.0, 1.0, 0.0, NAN, 5.0, NAN, -7.0], [1.0, 1.0]]),
    "logcumsumexp": (
        lambda t, x: x.logcumsumexp(0),
        [[-INF, 0.0, 1000.0], [-INF, -INF], [INF, 0.0], [1.0, NAN, 3.0], [1000.0, -1000.0, 5.0]],
    ),
    "sort": (lambda t, x: x.sort(0).values[1], [FOUR, UNKNOWN]),
    "sort from the largest": (lambda t, x: x.sort(0, True).values[:2], [FOUR, UNKNOWN]),
    "msort": (lambda t, x: t.msort(x)[2], [UNKNOWN]),
    "median": (lambda t, x: x.median(), [FOUR, [1.0, 3.0, 3.0], UNKNOWN]),
    "median of a dim": (lambda t, x: x.median(0).values, [UNKNOWN]),
    "nanmedian": (lambda t, x: x.nanmedian(), [UNKNOWN, [NAN, NAN], [1.0, 3.0, 3.0, NAN]]),
    "nanmedian of a dim": (lambda t, x: x.nanmedian(0).values, [UNKNOWN, [NAN, NAN]]),
    "mode": (lambda t, x: x.mode(0).values, [FOUR, [2.0, 1.0, 2.0, 1.0]]),
    "kthvalue": (lambda t, x: x.kthvalue(2, 0).values, [UNKNOWN]),
    "quantile": (lambda t, x: x.quantile(0.4), [FOUR, UNKNOWN, [0.0, INF], [-INF, 0.0, 1.0]]),
    "nanquantile": (lambda t, x: x.nanquantile(0.4), [UNKNOWN, [NAN, NAN], [2.0, NAN]]),
    "midpoint": (lambda t, x: x.quantile(0.4, interpolation="midpoint"), [FOUR, [0.0, INF]]),
    "nearest": (lambda t, x: x.quantile(0.5, interpolation="nearest"), [FOUR, [1.0, 2.0]]),
}


def slopes(t: Any, function: Any, values: list[float]) -> list[Any]:
    x = t.tensor(values, dtype=t.float64, requires_grad=True)
    out = function(t, x)
    out.sum().backward()
    return [out.tolist(), x.grad.tolist()]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("name", EDGES)
def test_edges_as_in_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    function, cases = EDGES[name]
    for values in cases:
        for mine, theirs in zip(slopes(dg, function, values), slopes(torch, function, values), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-15, err_msg=str(values))

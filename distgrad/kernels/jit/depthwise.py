"""Depthwise convolution, one pass over memory: each channel is multiplied by taps of its own, nothing is gathered.

Images have runs of ``N*C`` contiguous numbers, and values a channel are rows of ``period`` numbers, a multiple of C and
of a vector, as in ``channels``. The window's taps are added up in registers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.gather import Axis

from .code import INT, POINTER, Code, Value
from .machine import compiled
from .outer_products import window_jobs
from .tile_transform import address, limited

FloatArray = NDArray[Any]
Axes = tuple[Axis, Axis]
Limits = tuple[float, float] | None

# Vectors of a run that are computed together.
_TOGETHER = 4
# Products that are summed before they are added to a weight's gradient.
_SUMMED = 256

_FORWARD = [
    ("x", POINTER),
    ("taps", POINTER),
    ("out", POINTER),
    ("windows", POINTER),
    ("count", INT),
    ("places", POINTER),
    ("lines", INT),
    ("line_bytes", INT),
    ("bias", POINTER),
    ("residual", POINTER),
]
_BACKWARD = [
    ("x", POINTER),
    ("grad", POINTER),
    ("out", POINTER),
    ("jobs", POINTER),
    ("count", INT),
    ("pairs", POINTER),
    ("lines", INT),
    ("line_bytes", INT),
]


def correlate(
    axes: Axes,
    source: FloatArray,
    taps: FloatArray,
    out: FloatArray,
    rows: slice,
    bias: FloatArray | None = None,
    residual: FloatArray | None = None,
    limits: Limits = None,
) -> None:
    """``out = activation(bias + residual + sum over taps of source * tap)`` for some rows of the output.

    Args:
        axes: where the windows' taps are.
        source: (H, W, N, C), ``N*C`` contiguous.
        taps: (taps, taps, period).
        out: (all rows, columns, N, C), ``N*C`` contiguous.
        rows: which of them.
        bias: (period,) or None.
        residual: like ``out``, with its strides, or None.
        limits: of the activation, the second may be infinite; None without one.
    """
    period = taps.shape[2]
    item = taps.itemsize
    windows, places, starts = _windows(axes, period * item, source.strides[:2], out.strides[:2])
    function = _forward(out.dtype, bias is not None, residual is not None, limits)
    first, last = starts[rows.start], starts[rows.stop]
    function(
        address(source), address(taps), address(out), address(windows) + 32 * first, last - first, address(places),
        out.shape[2] * out.shape[3] // period, period * item, 0 if bias is None else address(bias),
        0 if residual is None else address(residual),
    )  # fmt: skip


def add_products(axes: Axes, x: FloatArray, grad: FloatArray, sums: FloatArray) -> None:
    """``sums[tap] += sum over windows and images of x * grad``.

    Args:
        axes: where the windows' taps are.
        x: (H, W, N, C), ``N*C`` contiguous.
        grad: (Ho, Wo, N, C), likewise.
        sums: (taps, taps, period).
    """
    period, item = sums.shape[2], sums.itemsize
    lines = x.shape[2] * x.shape[3] // period
    jobs, pairs = window_jobs(axes, max(1, _SUMMED // lines), period * item, x.strides[:2], grad.strides[:2])
    _backward(sums.dtype)(
        address(x), address(grad), address(sums), address(jobs), len(jobs), address(pairs), lines, period * item
    )


@lru_cache(maxsize=64)
def _forward(dtype: np.dtype[Any], bias: bool, residual: bool, limits: Limits) -> Any:
    return compiled(_FORWARD, dtype, _write_forward, bias, residual, limits)


@lru_cache(maxsize=8)
def _backward(dtype: np.dtype[Any]) -> Any:
    return compiled(_BACKWARD, dtype, _write_backward)


def _write_forward(code: Code, bias: bool, residual: bool, limits: Limits) -> None:
    a = code.arguments
    width = code.lanes * code.item

    def part(window: Value, line: Value, x: Value, together: int) -> None:
        source = code.at(code.at(a["x"], code.load(window, INT) + line), x)
        place = code.load(code.at(window, 8), INT) + line + x
        first, last = (code.load(code.at(window, 8 * entry), INT) for entry in (2, 3))
        sums = []
        for v in range(together):
            start = code.load(code.at(a["bias"], x + v * width)) if bias else code.zeros()
            if residual:
                start = start + code.load(code.at(a["residual"], place + v * width))
            sums.append(code.variable(start))
        taps = code.at(a["taps"], x)
        with code.loop(first, last, 16) as entry:
            tap = code.at(a["places"], entry)
            pixel = code.at(source, code.load(tap, INT))
            factors = code.at(taps, code.load(code.at(tap, 8), INT))
            for v, total in enumerate(sums):
                factor, value = code.load(code.at(factors, v * width)), code.load(code.at(pixel, v * width))
                total.set(code.fma(value, factor, total.get()))
        for v, total in enumerate(sums):
            value = total.get()
            code.store(value if limits is None else limited(code, value, limits), code.at(a["out"], place + v * width))

    with code.loop(0, a["count"]) as number:
        window = code.at(a["windows"], number * 32)
        with code.loop(0, a["lines"]) as line:
            _across(code, a["line_bytes"], lambda x, together: part(window, line * a["line_bytes"], x, together))


def _write_backward(code: Code) -> None:
    a = code.arguments
    width = code.lanes * code.item

    def part(job: Value, x: Value, together: int) -> None:
        first, last, place = (code.load(code.at(job, 8 * entry), INT) for entry in range(3))
        sums = [code.variable(code.zeros()) for _ in range(together)]
        with code.loop(first, last, 16) as entry:
            pair = code.at(a["pairs"], entry)
            pixel = code.at(code.at(a["x"], code.load(pair, INT)), x)
            grad = code.at(code.at(a["grad"], code.load(code.at(pair, 8), INT)), x)
            with code.loop(0, a["lines"]) as number:
                line = number * a["line_bytes"]
                for v, total in enumerate(sums):
                    value = code.load(code.at(code.at(pixel, line), v * width))
                    factor = code.load(code.at(code.at(grad, line), v * width))
                    total.set(code.fma(value, factor, total.get()))
        for v, total in enumerate(sums):
            target = code.at(code.at(a["out"], place + x), v * width)
            code.store(code.load(target) + total.get(), target)

    with code.loop(0, a["count"]) as number:
        job = code.at(a["jobs"], number * 24)
        _across(code, a["line_bytes"], lambda x, together: part(job, x, together))


def _across(code: Code, length: Value, part: Any) -> None:
    """Calls ``part(distance, vectors)`` for all of a line, some vectors at a time, then one by one."""
    width = code.lanes * code.item
    whole = code.emit(INT, f"udiv i64 {length.name}, {_TOGETHER * width}") * (_TOGETHER * width)
    with code.loop(0, whole, _TOGETHER * width) as x:
        part(x, _TOGETHER)
    with code.loop(whole, length, width) as x:
        part(x, 1)


@lru_cache(maxsize=256)
def _windows(
    axes: Axes, tap_bytes: int, strides: tuple[int, int], out_strides: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """Windows: their distance in the source and in the output, and the bytes of their taps in the second table; the
    taps: distance in the source and in the weights; the first window of each row."""
    vertical, horizontal = axes
    places: list[tuple[int, int]] = []
    windows: list[tuple[int, int, int, int]] = []
    starts = [0]
    for rows in vertical.segments():
        spans = []
        for cols in horizontal.segments():
            first = len(places)
            for i in range(rows.tap, rows.tap_end):
                for j in range(cols.tap, cols.tap_end):
                    distance = i * vertical.dilation * strides[0] + j * horizontal.dilation * strides[1]
                    places.append((distance, (i * horizontal.taps + j) * tap_bytes))
            spans.append((cols, 16 * first, 16 * len(places)))
        for row in range(rows.first, rows.last):
            at = (vertical.start + row * vertical.step) * strides[0]
            for cols, first, last in spans:
                for col in range(cols.first, cols.last):
                    distance = at + (horizontal.start + col * horizontal.step) * strides[1]
                    windows.append((distance, row * out_strides[0] + col * out_strides[1], first, last))
            starts.append(len(windows))
    return np.array(windows, np.int64).reshape(-1, 4), np.array(places, np.int64).reshape(-1, 2), starts

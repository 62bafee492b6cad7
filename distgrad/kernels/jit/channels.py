"""Passes over images channel by channel: normalization, activations, their gradients, and sums of channels.

Arrays are (H, W, N, C) with contiguous runs, as in ``fused_norm``, whose operations these are: each of them is one pass
over memory here, with as many operations an element as wanted. Values a channel are rows of ``period`` numbers, the
channels repeated until they fill vectors.

Sums are of at most ``_LINES`` numbers in the arrays' dtype, which are then added in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .code import INT, POINTER, Code, Value
from .machine import compiled, lanes, machine
from .tile_transform import address, limited

FloatArray = NDArray[Any]
Limits = tuple[float, float] | None
Kind = Literal["normalize", "statistics", "masked sums", "normalize backward", "scale", "mask"]

# Fewer numbers than this are not worth a call.
_LEAST = 1 << 12
# Lines that are summed in the arrays' dtype, and bytes of them that stay in the second-level cache.
_LINES = 128
_CHUNK_BYTES = 1 << 17
# Vectors of channels whose sums are in registers together.
_TOGETHER = 4


def takes(*arrays: FloatArray | None) -> bool:
    """Whether these arrays, (H, W, N, C) or None, can be passed over here."""
    given = [array for array in arrays if array is not None]
    shape, dtype = given[0].shape, given[0].dtype
    if given[0].size < _LEAST or dtype not in (np.float32, np.float64) or machine() is None:
        return False
    item = dtype.itemsize
    for array in given:
        if array.shape != shape or array.dtype != dtype:
            return False
        if array.strides[3] != item or (shape[2] > 1 and array.strides[2] != shape[3] * item):
            return False
    period = _period(shape[3], dtype)
    return shape[2] * shape[3] % period == 0 or (_joined(given) and given[0].size % period == 0)


def run(
    kind: Kind,
    arrays: Sequence[FloatArray | None],
    rows: Sequence[NDArray[Any] | None],
    *,
    limits: Limits = None,
) -> list[NDArray[np.float64]]:
    """Passes over the arrays once.

    Args:
        kind: what to do.
        arrays: as ``_BODIES`` names them for the kind; None for those that are not there.
        rows: values a channel, (C,), likewise.
        limits: of the activation, the second may be infinite; None without one.

    Returns:
        The sums a channel, (C,), of the kinds that have them.
    """
    given = [array for array in arrays if array is not None]
    first = given[0]
    dtype, channels = first.dtype, first.shape[3]
    period = _period(channels, dtype)
    if _joined(given):
        counts, steps = (1, 1, first.size // period), [(0, 0)] * len(given)
    else:
        h, w, n, c = first.shape
        counts, steps = (h, w, n * c // period), [(a.strides[0], a.strides[1]) for a in given]
    present = tuple(array is not None for array in arrays)
    with_rows = tuple(row is not None for row in rows)
    compiled_pass = _compiled(kind, present, with_rows, limits, dtype)
    tiled = [_tiled(row, period, dtype) for row in rows if row is not None]
    sums = [np.zeros(period) for _ in range(_SUMS[kind])]
    chunk = max(8, min(_LINES, _CHUNK_BYTES // (period * dtype.itemsize * len(given))))
    compiled_pass(
        *counts,
        period,
        chunk,
        *(number for array, step in zip(given, steps, strict=True) for number in (address(array), *step)),
        *map(address, tiled),
        *map(address, sums),
    )
    return [total.reshape(-1, channels).sum(axis=0) for total in sums]


def _joined(arrays: Sequence[FloatArray]) -> bool:
    return all(array.flags.c_contiguous for array in arrays)


@lru_cache(maxsize=1024)
def _period(channels: int, dtype: np.dtype[Any]) -> int:
    return math.lcm(channels, lanes(dtype))


def _tiled(row: NDArray[Any], period: int, dtype: np.dtype[Any]) -> FloatArray:
    if len(row) == period and row.dtype == dtype and row.flags.c_contiguous:
        return row
    out = np.empty((period // len(row), len(row)), dtype)
    out[...] = row
    return out.reshape(period)


# What is done to a vector ---------------------------------------------------------------------------------------------

Given = dict[str, Value]
Body = Callable[[Code, Given, Given, Limits], tuple[Given, list[Value]]]


def _normalize(code: Code, x: Given, row: Given, limits: Limits) -> tuple[Given, list[Value]]:
    z = x["z"] - row["center"] if "center" in row else x["z"]
    value = code.fma(z, row["scale"], row["shift"])
    if "residual" in x:
        value = value + x["residual"]
    return {"out": value if limits is None else limited(code, value, limits)}, []


def _statistics(code: Code, x: Given, row: Given, limits: Limits) -> tuple[Given, list[Value]]:
    z = x["z"] - row["pivot"] if "pivot" in row else x["z"]
    return {}, [z, z * z]


def _masked_sums(code: Code, x: Given, row: Given, limits: Limits) -> tuple[Given, list[Value]]:
    g = x["grad"] if limits is None else _masked(code, x["grad"], x["output"], limits)
    z = x["z"] - row["mean"] if "mean" in row else x["z"]
    return ({"out": g} if limits is not None else {}), [g, g * z]


def _normalize_backward(code: Code, x: Given, row: Given, limits: Limits) -> tuple[Given, list[Value]]:
    z = x["z"] - row["mean"] if "mean" in row else x["z"]
    return {"out": (x["grad"] - code.fma(z, row["slope"], row["level"])) * row["scale"]}, []


def _scale(code: Code, x: Given, row: Given, limits: Limits) -> tuple[Given, list[Value]]:
    g = x["grad"] if limits is None else _masked(code, x["grad"], x["output"], limits)
    return {"out": g * row["scale"], "masked": g}, []


def _mask(code: Code, x: Given, row: Given, limits: Limits) -> tuple[Given, list[Value]]:
    return {"out": x["grad"] if limits is None else _masked(code, x["grad"], x["output"], limits)}, []


def _masked(code: Code, grad: Value, output: Value, limits: tuple[float, float]) -> Value:
    """The gradient where the output is not at or beyond a limit; where it is NaN the gradient passes."""
    low, high = limits
    blocked = code.compare("ole", output, code.constant(low, output.type))
    if not math.isinf(high):
        blocked = blocked | code.compare("oge", output, code.constant(high, output.type))
    return code.select(blocked, code.zeros(grad.type), grad)


# The arrays of each kind, of which "out" and "masked" are written; its rows; its sums.
_BODIES: dict[str, tuple[Body, tuple[str, ...], tuple[str, ...]]] = {
    "normalize": (_normalize, ("z", "out", "residual"), ("scale", "shift", "center")),
    "statistics": (_statistics, ("z",), ("pivot",)),
    "masked sums": (_masked_sums, ("grad", "z", "out", "output"), ("mean",)),
    "normalize backward": (_normalize_backward, ("grad", "z", "out"), ("scale", "level", "slope", "mean")),
    "scale": (_scale, ("grad", "out", "output", "masked"), ("scale",)),
    "mask": (_mask, ("grad", "output", "out"), ()),
}
_SUMS = {
    "normalize": 0, "statistics": 2, "masked sums": 2, "normalize backward": 0, "scale": 0, "mask": 0
}  # fmt: skip
_WRITTEN = ("out", "masked")


@lru_cache(maxsize=256)
def _compiled(
    kind: Kind, present: tuple[bool, ...], with_rows: tuple[bool, ...], limits: Limits, dtype: np.dtype[Any]
) -> Callable[..., None]:
    body, every_array, every_row = _BODIES[kind]
    arrays = [name for name, there in zip(every_array, present, strict=True) if there]
    rows = [name for name, there in zip(every_row, with_rows, strict=True) if there]
    parameters = [(name, INT) for name in ("rows", "pixels", "lines", "period", "chunk")]
    for name in arrays:
        parameters += [(name, POINTER), (f"{name}_row", INT), (f"{name}_pixel", INT)]
    parameters += [(f"row_{name}", POINTER) for name in rows]
    parameters += [(f"sum{number}", POINTER) for number in range(_SUMS[kind])]
    return compiled(parameters, dtype, _write, body, arrays, rows, _SUMS[kind], limits)


def _write(code: Code, body: Body, arrays: list[str], rows: list[str], sums: int, limits: Limits) -> None:
    a = code.arguments
    width = code.lanes * code.item
    line_bytes = a["period"] * code.item

    def step(line: Given, x: Value) -> list[Value]:
        """All that is done to the vector ``x`` bytes behind the beginning of a line."""
        loaded = {name: code.load(code.at(line[name], x)) for name in arrays if name not in _WRITTEN}
        values = {name: code.load(code.at(a[f"row_{name}"], x)) for name in rows}
        results, terms = body(code, loaded, values, limits)
        for name, value in results.items():
            if name in line:
                code.store(value, code.at(line[name], x))
        return terms

    with code.loop(0, a["rows"]) as row, code.loop(0, a["pixels"]) as pixel:
        base = {name: code.at(a[name], row * a[f"{name}_row"] + pixel * a[f"{name}_pixel"]) for name in arrays}
        if not sums:
            with code.loop(0, a["lines"]) as number:
                line = {name: code.at(pointer, number * line_bytes) for name, pointer in base.items()}
                with code.loop(0, line_bytes, width) as x:
                    step(line, x)
        else:
            with code.loop(0, a["lines"], a["chunk"]) as begin:
                end = code.least(begin + a["chunk"], a["lines"])
                whole = line_bytes - (_TOGETHER - 1) * width
                with code.loop(0, whole, _TOGETHER * width) as x:
                    _summed(code, step, base, begin, end, line_bytes, x, sums, _TOGETHER)
                done = code.emit(INT, f"udiv i64 {line_bytes.name}, {_TOGETHER * width}") * (_TOGETHER * width)
                with code.loop(done, line_bytes, width) as x:
                    _summed(code, step, base, begin, end, line_bytes, x, sums, 1)


def _summed(
    code: Code,
    step: Callable[[Given, Value], list[Value]],
    base: Given,
    begin: Value,
    end: Value,
    line_bytes: Value,
    x: Value,
    sums: int,
    together: int,
) -> None:
    """Goes down some lines at one place, and adds what has been summed to the totals."""
    width = code.lanes * code.item
    totals = [[code.variable(code.zeros()) for _ in range(sums)] for _ in range(together)]
    with code.loop(begin, end) as number:
        line = {name: code.at(pointer, number * line_bytes) for name, pointer in base.items()}
        for v in range(together):
            for total, term in zip(totals[v], step(line, x + v * width), strict=True):
                total.set(total.get() + term)
    double = f"<{code.lanes} x double>"
    for v in range(together):
        for number_of_sum, total in enumerate(totals[v]):
            value = total.get()
            if code.item == 4:
                value = code.emit(double, f"fpext {value.type} {value.name} to {double}")
            place = code.at(code.arguments[f"sum{number_of_sum}"], (x + v * width) * (8 // code.item))
            known = code.emit(double, f"load {double}, ptr {place.name}, align 8")
            value = known + value
            code.line(f"store {double} {value.name}, ptr {place.name}, align 8")

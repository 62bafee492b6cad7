"""The direct convolution without columns: products of pixels, where they lie, with packed weights.

``out[row, k] = bias[k] + sum over taps and channels of x[row, tap, channel] * weight[tap, channel, k]`` for a few rows
and a panel of ``k`` at once, whose sums stay in registers: for each channel the panel's weights are loaded, and each
row multiplies them by one number that the processor repeats as it reads it. Nothing is gathered or copied, and taps in
the padding are left out rather than multiplied by zeros.

Sums of at most ``GROUP`` products are added to each other, so that the error does not grow with the number of channels
as that of one long sum does. A row's sums do not depend on where the row is.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .code import INT, POINTER, Code, Value
from .machine import compiled
from .tile_transform import limited

# Products that are summed one after the other.
GROUP = 256
_UNROLLED = 4

_PARAMETERS = [
    ("x", POINTER),
    ("weight", POINTER),
    ("out", POINTER),
    ("windows", POINTER),
    ("count", INT),
    ("panels", INT),
    ("panel_bytes", INT),
    ("taps", POINTER),
    ("inner", INT),
    ("bias", POINTER),
    ("residual", POINTER),
]


class Tile(NamedTuple):
    """What is computed at once.

    Attributes:
        rows: of the product.
        vectors: of the output's channels.
        row_step: bytes from a row's pixel to the next one's.
        out_step: bytes from a row's result to the next one's.
    """

    rows: int
    vectors: int
    row_step: int
    out_step: int


@lru_cache(maxsize=512)
def window_products(
    tile: Tile,
    dtype: np.dtype[Any],
    single: bool,
    residual: bool = False,
    activation: tuple[float, float] | None = None,
) -> Any:
    """The compiled product for windows of one kind.

    Its arguments are the addresses of ``x``, of the packed weight (panels, taps, inner, vectors * lanes), of ``out``
    and of a table with four numbers a window: the distance in bytes of its first row in ``x`` and in ``out``, the first
    of its groups of taps, and one after the last; how many windows and panels there are, the bytes of a panel; the
    address of the taps' table: for each group, the first and one after the last of its taps, each of which is the
    distance in ``x`` and in the weight (see ``TapTable``); the channels under a tap; the addresses of the bias (zeros
    where there is none) and of the residual.

    Args:
        tile: what is computed at once.
        dtype: float32 or float64.
        single: every tap is one channel.
        residual: whether an array like ``out`` is added.
        activation: None, or limits of which the second may be infinite.
    """
    return compiled(_PARAMETERS, dtype, _write, tile, single, residual, activation)


class TapTable:
    """Lists of taps for the windows: each list is cut into groups, and each window names the groups of its list.

    The table holds groups, pairs ``(first, last)`` of bytes in the table itself, followed by the taps, pairs of
    distances in bytes.

    Args:
        lists: for each kind of window its taps: distance in ``x`` and in a panel of the weight.
        inner: channels of a tap.
    """

    def __init__(self, lists: list[list[tuple[int, int]]], inner: int) -> None:
        size = max(1, GROUP // inner)
        groups: list[tuple[int, int]] = []
        taps: list[tuple[int, int]] = []
        self.spans: list[tuple[int, int]] = []
        for kind in lists:
            first = len(groups)
            for start in range(0, len(kind), size):
                part = kind[start : start + size]
                groups.append((len(taps), len(taps) + len(part)))
                taps += part
            self.spans.append((first, len(groups)))
        offset = len(groups)
        shifted = [(16 * (offset + first), 16 * (offset + last)) for first, last in groups]
        self.table = np.array([*shifted, *taps], np.int64).reshape(-1, 2)


def _write(code: Code, tile: Tile, single: bool, residual: bool, activation: tuple[float, float] | None) -> None:
    a = code.arguments
    width = code.lanes * code.item
    line = tile.vectors * width
    totals = Value(code, code.slot(code.vector, tile.rows * tile.vectors), POINTER)
    with code.loop(0, a["panels"]) as panel:
        weight = code.at(a["weight"], panel * a["panel_bytes"])
        bias = code.at(a["bias"], panel * line)
        with code.loop(0, a["count"]) as number:
            window = code.at(a["windows"], number * 32)
            x = code.at(a["x"], code.load(window, INT))
            place = code.load(code.at(window, 8), INT) + panel * line
            first, last = (code.load(code.at(window, 8 * entry), INT) for entry in (2, 3))
            start = [code.load(code.at(bias, v * width)) for v in range(tile.vectors)]
            for m in range(tile.rows):
                for v in range(tile.vectors):
                    code.store(start[v], code.at(totals, (m * tile.vectors + v) * width))
            with code.loop(first, last) as group:
                entry = code.at(a["taps"], group * 16)
                _group(code, tile, single, x, weight, code.load(entry, INT), code.load(code.at(entry, 8), INT), totals)
            out = code.at(a["out"], place)
            extra = code.at(a["residual"], place)
            for m in range(tile.rows):
                for v in range(tile.vectors):
                    value = code.load(code.at(totals, (m * tile.vectors + v) * width))
                    distance = m * tile.out_step + v * width
                    if residual:
                        value = value + code.load(code.at(extra, distance))
                    if activation is not None:
                        value = limited(code, value, activation)
                    code.store(value, code.at(out, distance))


def _group(
    code: Code, tile: Tile, single: bool, x: Value, weight: Value, first: Value, last: Value, totals: Value
) -> None:
    """Adds the products of a group of taps to the totals."""
    a = code.arguments
    width = code.lanes * code.item
    line = tile.vectors * width
    sums = [[code.variable(code.zeros()) for _ in range(tile.vectors)] for _ in range(tile.rows)]

    def multiply(pixel: Value, of_weight: Value, channel: int) -> None:
        factors = [code.load(code.at(of_weight, channel * line + v * width)) for v in range(tile.vectors)]
        for m in range(tile.rows):
            number = code.load(code.at(pixel, m * tile.row_step + channel * code.item), code.float)
            repeated = code.spread(number)
            for v in range(tile.vectors):
                sums[m][v].set(code.fma(repeated, factors[v], sums[m][v].get()))

    with code.loop(first, last, 16) as tap:
        entry = code.at(a["taps"], tap)
        pixel = code.at(x, code.load(entry, INT))
        of_weight = code.at(weight, code.load(code.at(entry, 8), INT))
        if single:
            multiply(pixel, of_weight, 0)
        else:
            with code.loop(0, a["inner"], _UNROLLED) as channel:
                here = code.at(pixel, channel * code.item)
                there = code.at(of_weight, channel * line)
                for step in range(_UNROLLED):
                    multiply(here, there, step)
    for m in range(tile.rows):
        for v in range(tile.vectors):
            place = code.at(totals, (m * tile.vectors + v) * width)
            code.store(code.load(place) + sums[m][v].get(), place)


def rows_of(count: int, vectors: int, most: int = 16) -> list[int]:
    """How ``count`` rows are cut into tiles of at most ``most``, as even as registers allow."""
    most = min(most, {1: 16, 2: 12, 3: 8, 4: 6}[vectors])
    pieces = math.ceil(count / most)
    small, larger = divmod(count, pieces)
    return [small + 1] * larger + [small] * (pieces - larger)

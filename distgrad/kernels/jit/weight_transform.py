"""Winograd's transform of the weight, ``G g G^T``, and its adjoint, each in one pass over memory.

A weight has the nine taps of a pair of channels beside each other, the transformed one has channels in vectors: the
taps of as many channels as a vector holds are turned over in registers, then transformed. ``winograd`` does the same
with a copy and a product by NumPy, the reference.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .code import INT, POINTER, Code, Value
from .linear import product
from .machine import compiled, lanes, machine
from .tile_transform import address

FloatArray = NDArray[Any]

_TAPS = 9
_PARAMETERS = [
    ("weight", POINTER),
    ("outer_step", INT),
    ("inner_step", INT),
    ("packed", POINTER),
    ("point", INT),
    ("blocks", INT),
    ("inner", INT),
    ("block", INT),
]


def takes(block: int, weight: FloatArray) -> bool:
    """Whether blocks of so many channels can be transformed: whole vectors, and taps beside each other.

    Args:
        block: channels of a block.
        weight: (inner, outer, 3, 3).
    """
    item = weight.itemsize
    return machine() is not None and block % lanes(weight.dtype) == 0 and weight.strides[2:] == (3 * item, item)


def transform_weight(weight: FloatArray, g: FloatArray, packed: FloatArray) -> None:
    """``packed[a, b] = (G g G^T)[a, b]`` for each pair of channels.

    Args:
        weight: (inner, outer, 3, 3), the taps contiguous.
        g: (points, 3), float64.
        packed: (a, b, outer/block, inner, block), points apart alike, each contiguous. Overwritten.
    """
    _call(weight, g, packed, adjoint=False)


def gather_weight(sums: FloatArray, g: FloatArray, grad_weight: FloatArray) -> None:
    """``grad_weight = G^T sums G``, the adjoint of ``transform_weight``; arguments alike."""
    _call(grad_weight, g, sums, adjoint=True)


def _call(weight: FloatArray, g: FloatArray, packed: FloatArray, adjoint: bool) -> None:
    _, _, blocks, inner, block = packed.shape
    function = _compiled(g.tobytes(), len(g), weight.dtype, adjoint)
    function(
        address(weight), weight.strides[1], weight.strides[0], address(packed), packed.strides[1], blocks, inner, block
    )


@lru_cache(maxsize=64)
def _compiled(g: bytes, points: int, dtype: np.dtype[Any], adjoint: bool) -> Any:
    return compiled(_PARAMETERS, dtype, _write, np.frombuffer(g).reshape(points, 3), adjoint)


def _write(code: Code, g: NDArray[np.float64], adjoint: bool) -> None:
    a = code.arguments
    points = len(g)
    with code.loop(0, a["blocks"]) as number, code.loop(0, a["inner"]) as inner:
        line = code.at(a["packed"], (number * a["inner"] + inner) * (a["block"] * code.item))
        pairs = code.at(a["weight"], number * a["block"] * a["outer_step"] + inner * a["inner_step"])
        with code.loop(0, a["block"], code.lanes) as channel:
            rows = [code.at(pairs, (channel + lane) * a["outer_step"]) for lane in range(code.lanes)]
            place = code.at(line, channel * code.item)
            where = [[code.at(place, a["point"] * (i * points + j)) for j in range(points)] for i in range(points)]
            if not adjoint:
                taps = _turned_in(code, rows)
                columns = [product(code, g, [taps[3 * i + j] for i in range(3)]) for j in range(3)]
                for i in range(points):
                    for j, value in enumerate(product(code, g, [column[i] for column in columns])):
                        code.store(value, where[i][j])
            else:
                columns = [product(code, g.T, [code.load(where[i][j]) for i in range(points)]) for j in range(points)]
                found = [value for i in range(3) for value in product(code, g.T, [column[i] for column in columns])]
                _turned_out(code, found, rows)


def _turned_in(code: Code, rows: list[Value]) -> list[Value]:
    """The nine numbers of each row as nine vectors, a lane a row."""
    found: list[Value] = []
    for first in range(0, _TAPS, code.lanes):
        count = min(code.lanes, _TAPS - first)
        mask = code.first_lanes(code.constant(count, INT))
        lines = [code.masked_load(code.at(row, first * code.item), mask) for row in rows]
        found += _turned(code, lines)[:count]
    return found


def _turned_out(code: Code, taps: list[Value], rows: list[Value]) -> None:
    """The reverse of ``_turned_in``: writes the rows."""
    for first in range(0, _TAPS, code.lanes):
        part = taps[first : first + code.lanes]
        mask = code.first_lanes(code.constant(len(part), INT))
        full = part + [code.zeros()] * (code.lanes - len(part))
        for row, line in zip(rows, _turned(code, full), strict=True):
            code.masked_store(line, code.at(row, first * code.item), mask)


def _turned(code: Code, lines: list[Value]) -> list[Value]:
    """A square of numbers turned over: halves, then quarters, and so on, change places."""
    lines = list(lines)
    size = len(lines)
    for stage in range(int(math.log2(size))):
        step = 1 << stage
        for i in range(size):
            if i & step:
                continue
            a, b = lines[i], lines[i + step]
            lines[i] = code.shuffle(a, b, [lane if not lane & step else size + lane - step for lane in range(size)])
            lines[i + step] = code.shuffle(
                a, b, [lane + step if not lane & step else size + lane for lane in range(size)]
            )
    return lines

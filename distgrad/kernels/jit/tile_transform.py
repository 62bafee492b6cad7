"""Both sides of a Winograd transform in one pass: ``left @ tile @ right^T``, one vector of a run at a time.

All pixels of a tile are in registers between the two products, so that nothing lies in memory in between; NumPy's
``winograd_tiles.transform`` takes a pass for each. Pixels outside an image are read as zeros. On the way out a value a
channel, a residual and an activation can follow; the adjoint of the input's transform adds up where tiles overlap.

Memory is named by tables of distances in bytes: point ``(i, j)`` of tile ``(t, w)`` is at ``rows[t, i] +
columns[w, j]``, and outside where one of them is negative.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .code import INT, POINTER, Code, Value
from .linear import product
from .machine import compiled

FloatArray = NDArray[Any]
Table = NDArray[np.int64]

_PARAMETERS = [
    ("source", POINTER),
    ("source_rows", POINTER),
    ("source_columns", POINTER),
    ("target", POINTER),
    ("target_rows", POINTER),
    ("target_columns", POINTER),
    ("tile_rows", INT),
    ("tile_columns", INT),
    ("run", INT),
    ("nothing", POINTER),
    ("aside", POINTER),
    ("bias", POINTER),
    ("residual", POINTER),
    ("residual_rows", POINTER),
    ("residual_columns", POINTER),
    ("first_row", INT),
    ("first_column", INT),
]


class Places(NamedTuple):
    """Where the points of tiles are: distances in bytes, negative for points outside.

    Attributes:
        rows: (tile rows, points down).
        columns: (tile columns, points across).
    """

    rows: Table
    columns: Table


class TileTransform:
    """One compiled transform.

    Args:
        left: (I, J), applied down.
        right: (I', J'), applied across.
        dtype: float32 or float64.
        overlap: rows and columns that a tile shares with the one before; there the result is added. 0: overwritten.
        ragged: whether some points of the target may lie outside.
        bias: whether a value for each number of the run is added.
        residual: whether an array is added.
        activation: None, or limits ``(low, high)``, of which the second may be infinite.
    """

    def __init__(
        self,
        left: FloatArray,
        right: FloatArray,
        dtype: np.dtype[Any],
        overlap: int = 0,
        bias: bool = False,
        residual: bool = False,
        activation: tuple[float, float] | None = None,
    ) -> None:
        self.dtype = dtype
        matrices = left.astype(np.float64), right.astype(np.float64)
        self.call = compiled(_PARAMETERS, dtype, _write, *matrices, overlap, bias, residual, activation)


class PreparedTransform:
    """A transform of certain tiles: only where the arrays are is not known yet.

    Args:
        transform: what to compute.
        source: of J x J' points.
        target: of I x I' points.
        run: contiguous numbers at each point, a multiple of the vector's where results are added.
        first: how many rows and columns of tiles have added to the target before.
        residual: of what is added, of I x I' points; None without it.
    """

    def __init__(
        self,
        transform: TileTransform,
        source: Places,
        target: Places,
        run: int,
        first: tuple[int, int],
        residual: Places | None = None,
    ) -> None:
        self._call = transform.call
        self._zeros = _zeros(run, transform.dtype)
        # these tables have to live as long as their addresses
        self._tables = [np.ascontiguousarray(table, np.int64) for table in (*source, *target, *(residual or ()))]
        of_rows, of_columns, to_rows, to_columns, *added = map(address, self._tables)
        self._added = tuple(added) or (0, 0)
        self._from, self._to = (of_rows, of_columns), (to_rows, to_columns)
        self._sizes = len(source.rows), len(source.columns), run, address(self._zeros)
        self._first = first

    def __call__(self, source: int, target: int, bias: int = 0, residual: int = 0, aside: int = 0) -> None:
        """Transforms.

        Args:
            source: the address that the source's places count from.
            target: the address that the target's places count from.
            bias: address of (run,).
            residual: the address that the residual's places count from.
            aside: of ``run`` numbers of scratch, where the points of the target that lie outside are written.
        """
        self._call(
            source, *self._from, target, *self._to, *self._sizes, aside, bias, residual, *self._added, *self._first
        )


def address(array: FloatArray) -> int:
    """Of the first element."""
    return int(array.__array_interface__["data"][0])


@lru_cache(maxsize=16)
def _zeros(run: int, dtype: np.dtype[Any]) -> FloatArray:
    zeros = np.zeros(run, dtype)
    zeros.flags.writeable = False
    return zeros


@lru_cache(maxsize=256)
def tile_transform(
    left: bytes,
    right: bytes,
    shapes: tuple[tuple[int, int], tuple[int, int]],
    dtype: np.dtype[Any],
    **options: Any,
) -> TileTransform:
    """The transform by matrices of ``dtype``, given as their bytes and shapes; compiled once."""
    matrices = [np.frombuffer(data, dtype).reshape(shape) for data, shape in zip((left, right), shapes, strict=True)]
    return TileTransform(matrices[0], matrices[1], dtype, **options)


def transform_of(left: FloatArray, right: FloatArray, dtype: np.dtype[Any], **options: Any) -> TileTransform:
    """``TileTransform`` of these matrices, the same object for the same numbers."""
    return tile_transform(
        np.ascontiguousarray(left).tobytes(),
        np.ascontiguousarray(right).tobytes(),
        (left.shape, right.shape),
        dtype,
        **options,
    )


def _write(
    code: Code,
    left: FloatArray,
    right: FloatArray,
    overlap: int,
    bias: bool,
    residual: bool,
    activation: tuple[float, float] | None,
) -> None:
    a = code.arguments
    down, across = left.shape[1], right.shape[1]
    out_down, out_across = left.shape[0], right.shape[0]
    width = code.lanes * code.item
    sources = _PointerTable(code, down, across)
    targets = _PointerTable(code, out_down, out_across)
    before = _PointerTable(code, out_down, out_across) if overlap else None
    extras = _PointerTable(code, out_down, out_across) if residual else None
    zero = code.constant(0, INT)
    stop = a["run"] * code.item
    last = stop - width
    with code.loop(0, a["tile_rows"]) as t:
        source_rows = _row_of(code, a["source_rows"], t, down)
        target_rows = _row_of(code, a["target_rows"], t, out_down)
        residual_rows = _row_of(code, a["residual_rows"], t, out_down) if residual else []
        any_above = code.compare("sgt", t + a["first_row"], zero)
        with code.loop(0, a["tile_columns"]) as w:
            source_columns = _row_of(code, a["source_columns"], w, across)
            target_columns = _row_of(code, a["target_columns"], w, out_across)
            sources.fill(a["source"], source_rows, source_columns, a["nothing"])
            targets.fill(a["target"], target_rows, target_columns, a["aside"])
            if extras is not None:
                residual_columns = _row_of(code, a["residual_columns"], w, out_across)
                extras.fill(a["residual"], residual_rows, residual_columns, a["nothing"])
            if before is not None:
                any_left = code.compare("sgt", w + a["first_column"], zero)

                def earlier(i: int, j: int, above: Value = any_above, beside: Value = any_left) -> Value | None:
                    if i < overlap and j < overlap:
                        return above | beside
                    return above if i < overlap else beside if j < overlap else None

                before.choose(targets, earlier, a["nothing"])
            with code.loop(0, stop, width) as x:
                place = code.least(x, last)
                columns = [product(code, left, [sources.load(i, j, place) for i in range(down)]) for j in range(across)]
                addend = code.load(code.at(a["bias"], place)) if bias else None
                for i in range(out_down):
                    row = product(code, right, [column[i] for column in columns])
                    for j, value in enumerate(row):
                        if before is not None and (i < overlap or j < overlap):
                            value = value + before.load(i, j, place)
                        if addend is not None:
                            value = value + addend
                        if extras is not None:
                            value = value + extras.load(i, j, place)
                        if activation is not None:
                            value = limited(code, value, activation)
                        code.store(value, code.at(targets.pointer(i, j), place))


def limited(code: Code, value: Value, activation: tuple[float, float]) -> Value:
    """The value, but not below the first limit or above the second; NaN stays."""
    low, high = activation
    value = code.largest(code.constant(low, value.type), value)
    return value if np.isinf(high) else code.smallest(code.constant(high, value.type), value)


def _row_of(code: Code, table: Value, row: Value, length: int) -> list[Value]:
    start = code.at(table, row * (8 * length))
    return [code.load(code.at(start, 8 * entry), INT) for entry in range(length)]


class _PointerTable:
    """Addresses of the points of one tile, in memory: there are more of them than registers."""

    def __init__(self, code: Code, down: int, across: int) -> None:
        self._code, self._down, self._across = code, down, across
        self._slot = Value(code, code.slot(POINTER, down * across), POINTER)

    def _entry(self, i: int, j: int) -> Value:
        return self._code.at(self._slot, 8 * (i * self._across + j))

    def fill(self, base: Value, rows: list[Value], columns: list[Value], outside: Value) -> None:
        """Point (i, j) is at ``base + rows[i] + columns[j]``, or at ``outside`` where one of them is negative."""
        code = self._code
        zero = code.constant(0, INT)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                beyond = code.compare("slt", row | column, zero)
                place = code.at(base, row + column)
                code.store(code.select(beyond, outside, place), self._entry(i, j))

    def choose(self, others: _PointerTable, where: Callable[[int, int], Value | None], outside: Value) -> None:
        """The addresses of another table where a condition holds, ``outside`` elsewhere; None: not needed."""
        code = self._code
        for i in range(self._down):
            for j in range(self._across):
                condition = where(i, j)
                if condition is not None:
                    code.store(code.select(condition, others.pointer(i, j), outside), self._entry(i, j))

    def pointer(self, i: int, j: int) -> Value:
        """The address of a point."""
        return self._code.load(self._entry(i, j), POINTER)

    def load(self, i: int, j: int, place: Value) -> Value:
        """The vector ``place`` bytes behind it."""
        return self._code.load(self._code.at(self.pointer(i, j), place))

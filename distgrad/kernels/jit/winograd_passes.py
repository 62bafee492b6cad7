"""The four transforms of Winograd's convolution, each as one pass over memory: for ``winograd.WinogradPlan``.

What they compute is what ``winograd`` computes with ``np.matmul``, which is their reference. Arrays are as there:
images (H, W, run), transformed tiles (a, b, t, w*N, C); tile rows ``first..stop``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.winograd_matrices import TileMatrices
from distgrad.kernels.winograd_tiles import Tiling

from .machine import lanes
from .tile_transform import Places, PreparedTransform, address, transform_of

FloatArray = NDArray[Any]
Kind = Literal["input", "output", "gradient", "scatter"]
Limits = tuple[float, float] | None
Options = tuple[bool, tuple[int, ...] | None, Limits]  # a bias, the strides of a residual, an activation


class WinogradPasses:
    """The transforms of one plan, for stride 1.

    Args:
        rows: the tiles down.
        columns: the tiles across.
    """

    def __init__(self, rows: Tiling, columns: Tiling) -> None:
        self._rows, self._columns = rows, columns

    def takes(self, run: int) -> bool:
        """Whether runs of this length can be transformed here: of whole vectors."""
        return run % lanes(self._rows.dtype) == 0

    def input(self, x: FloatArray, tiles: FloatArray, first: int, stop: int) -> None:
        """``B^T x B``: (H, W, run) to (a, b, t, w*N, C)."""
        source, target = address(x), address(tiles)
        for call in self._prepared("input", x, tiles, first, stop):
            call(source, target)

    def output(
        self,
        products: FloatArray,
        out: FloatArray,
        first: int,
        stop: int,
        bias: FloatArray | None = None,
        residual: FloatArray | None = None,
        activation: Limits = None,
    ) -> None:
        """``activation(A^T products A + bias + residual)``: (a, b, t, w*N, K) to (Ho, Wo, run).

        Args:
            products: of the tile rows.
            out: (Ho, Wo, run), all rows.
            first: the first tile row.
            stop: the first one after.
            bias: (run,) or None.
            residual: (Ho, Wo, run), what to add, or None.
            activation: limits, of which the second may be infinite.
        """
        source, target = address(products), address(out)
        of_bias = 0 if bias is None else address(bias)
        of_residual = 0 if residual is None else address(residual)
        options = bias is not None, None if residual is None else residual.strides[:2], activation
        for call in self._prepared("output", out, products, first, stop, options):
            call(source, target, of_bias, of_residual)

    def gradient(self, grad: FloatArray, tiles: FloatArray, first: int, stop: int) -> None:
        """``A grad A^T``: (Ho, Wo, run) to (a, b, t, w*N, K)."""
        source, target = address(grad), address(tiles)
        for call in self._prepared("gradient", grad, tiles, first, stop):
            call(source, target)

    def scatter(self, products: FloatArray, grad_x: FloatArray, first: int, stop: int, aside: FloatArray) -> None:
        """``B products B^T`` added up where tiles overlap: (a, b, t, w*N, C) to (H, W, run).

        Args:
            products: of the tile rows; those before have been scattered already.
            grad_x: (H, W, run), all rows.
            first: the first tile row.
            stop: the first one after.
            aside: (run,), scratch for what lies in the padding.
        """
        source, target, scratch = address(products), address(grad_x), address(aside)
        for call in self._prepared("scatter", grad_x, products, first, stop):
            call(source, target, 0, 0, scratch)

    def _prepared(
        self,
        kind: Kind,
        images: FloatArray,
        tiles: FloatArray,
        first: int,
        stop: int,
        options: Options = (False, None, None),
    ) -> tuple[PreparedTransform, ...]:
        of_a, of_b, of_t, of_unit, _ = tiles.strides
        strides = of_a, of_b, of_t, tiles.shape[3] // self._columns.count * of_unit
        return _prepare(
            kind, self._rows, self._columns, first, stop, images.strides[:2], strides, images.shape[2], options
        )


@lru_cache(maxsize=4096)
def _prepare(
    kind: Kind,
    rows: Tiling,
    columns: Tiling,
    first: int,
    stop: int,
    image_strides: tuple[int, ...],
    tile_strides: tuple[int, ...],
    run: int,
    options: Options,
) -> tuple[PreparedTransform, ...]:
    """One call for each group of tiles with the same matrices."""
    of_a, of_b, of_t, of_w = tile_strides
    calls = []
    for t, down, w, across in _groups(rows, columns, first, stop):
        tiles = Places(_tile_places(t, of_t, down.points, of_a), _tile_places(w, of_w, across.points, of_b))
        places = _pixel_places if kind in ("input", "scatter") else _output_places
        images = Places(
            places(rows, down, first + t.start, first + t.stop, image_strides[0]),
            places(columns, across, w.start, w.stop, image_strides[1]),
        )
        left, right = (_matrix(kind, matrices) for matrices in (down, across))
        into_images = kind in ("output", "scatter")
        transform = transform_of(
            left,
            right,
            rows.dtype,
            overlap=rows.full.points - rows.step if kind == "scatter" else 0,
            bias=options[0],
            residual=options[1] is not None,
            activation=options[2],
        )
        source, target = (tiles, images) if into_images else (images, tiles)
        residual = None
        if options[1] is not None:
            residual = Places(
                _output_places(rows, down, first + t.start, first + t.stop, options[1][0]),
                _output_places(columns, across, w.start, w.stop, options[1][1]),
            )
        calls.append(PreparedTransform(transform, source, target, run, (first + t.start, w.start), residual))
    return tuple(calls)


def _matrix(kind: Kind, matrices: TileMatrices) -> FloatArray:
    return {"input": matrices.bt, "output": matrices.at, "gradient": matrices.a, "scatter": matrices.b}[kind]


def _groups(
    rows: Tiling, columns: Tiling, first: int, stop: int
) -> Iterator[tuple[slice, TileMatrices, slice, TileMatrices]]:
    for t, down in rows.groups(first, stop):
        for w, across in columns.groups(0, columns.count):
            yield t, down, w, across


def _pixel_places(tiling: Tiling, matrices: TileMatrices, first: int, stop: int, stride: int) -> NDArray[np.int64]:
    """Where the pixels under each tile are, (tiles, points)."""
    pixels = np.arange(first, stop)[:, None] * tiling.step - tiling.padding + np.arange(matrices.points)
    return np.where((pixels >= 0) & (pixels < tiling.size), pixels * stride, -1)


def _output_places(tiling: Tiling, matrices: TileMatrices, first: int, stop: int, stride: int) -> NDArray[np.int64]:
    """Where the outputs of each tile are, (tiles, outputs)."""
    return (np.arange(first, stop)[:, None] * tiling.tile + np.arange(matrices.outputs)) * stride


def _tile_places(tiles: slice, stride: int, points: int, point_stride: int) -> NDArray[np.int64]:
    """Where the points of transformed tiles are, (tiles, points)."""
    return np.arange(tiles.start, tiles.stop)[:, None] * stride + np.arange(points) * point_stride

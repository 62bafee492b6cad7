"""The gradient of a convolution's weight without columns: sums over pixels of products, where the pixels lie.

``out[row, k] += sum over pixels of x[pixel, row] * grad[pixel, k]`` for a few rows, which are channels or taps of the
input, and a panel of ``k`` at once, whose sums stay in registers. A job has at most ``window_products.GROUP`` pixels,
as far as a line of them is no longer, and its sums are added to ``out`` in the order of the jobs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distgrad.kernels.gather import Axis

from .code import INT, POINTER, Code
from .machine import compiled
from .window_products import Tile

_PARAMETERS = [
    ("x", POINTER),
    ("grad", POINTER),
    ("out", POINTER),
    ("jobs", POINTER),
    ("job_count", INT),
    ("pairs", POINTER),
    ("line", INT),
    ("x_step", INT),
    ("grad_step", INT),
    ("blocks", INT),
    ("block_bytes", INT),
    ("panels", INT),
]


@lru_cache(maxsize=512)
def outer_products(tile: Tile, dtype: np.dtype[Any]) -> Any:
    """The compiled sums.

    Its arguments are the addresses of ``x``, ``grad``, ``out`` and of a table with three numbers a job: the distance in
    bytes of its first pair in the table of pairs and that of the one after its last, and the distance of its sums in
    ``out``; how many jobs there are; the address of the pairs, each the distance in bytes of a line of pixels in ``x``
    and in ``grad``; how many pixels a line has and the bytes from one to the next in ``x`` and in ``grad``; how many
    blocks of rows there are, and the bytes from one to the next in ``x``; how many panels.

    Args:
        tile: what is computed at once: ``row_step`` bytes between the rows in ``x``, ``out_step`` between theirs.
        dtype: float32 or float64.
    """
    return compiled(_PARAMETERS, dtype, _write, tile)


def _write(code: Code, tile: Tile) -> None:
    a = code.arguments
    width = code.lanes * code.item
    with code.loop(0, a["job_count"]) as number:
        job = code.at(a["jobs"], number * 24)
        first, last, place = (code.load(code.at(job, 8 * entry), INT) for entry in range(3))
        with code.loop(0, a["panels"]) as panel:
            across = panel * (tile.vectors * width)
            grad_panel = code.at(a["grad"], across)
            out_panel = code.at(code.at(a["out"], place), across)
            with code.loop(0, a["blocks"]) as block:
                x_block = code.at(a["x"], block * a["block_bytes"])
                sums = [[code.variable(code.zeros()) for _ in range(tile.vectors)] for _ in range(tile.rows)]
                with code.loop(first, last, 16) as pair:
                    entry = code.at(a["pairs"], pair)
                    x_line = code.at(x_block, code.load(entry, INT))
                    grad_line = code.at(grad_panel, code.load(code.at(entry, 8), INT))
                    with code.loop(0, a["line"]) as pixel:
                        x = code.at(x_line, pixel * a["x_step"])
                        grad = code.at(grad_line, pixel * a["grad_step"])
                        factors = [code.load(code.at(grad, v * width)) for v in range(tile.vectors)]
                        for m in range(tile.rows):
                            repeated = code.spread(code.load(code.at(x, m * tile.row_step), code.float))
                            for v in range(tile.vectors):
                                sums[m][v].set(code.fma(repeated, factors[v], sums[m][v].get()))
                out = code.at(out_panel, block * (tile.rows * tile.out_step))
                for m in range(tile.rows):
                    for v in range(tile.vectors):
                        target = code.at(out, m * tile.out_step + v * width)
                        code.store(code.load(target) + sums[m][v].get(), target)


@lru_cache(maxsize=1024)
def window_jobs(
    axes: tuple[Axis, Axis], together: int, tap_bytes: int, strides: tuple[int, int], grad_strides: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tables of a kernel that sums over windows: for some windows at a time, every tap with those that see it.

    Args:
        axes: of the windows, rows and columns.
        together: windows whose products are summed before they are added to ``out``.
        tap_bytes: from the sums of a tap to those of the next.
        strides: bytes from one row and one pixel of the input to the next.
        grad_strides: the same of the gradient.

    Returns:
        (jobs, 3) and (pairs, 2), as :func:`outer_products` reads them.
    """
    vertical, horizontal = axes
    windows = [(row, col) for row in range(vertical.count) for col in range(horizontal.count)]
    jobs: list[tuple[int, int, int]] = []
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(windows), together):
        for i in range(vertical.taps):
            for j in range(horizontal.taps):
                first = len(pairs)
                for row, col in windows[start : start + together]:
                    y = vertical.start + row * vertical.step + i * vertical.dilation
                    x = horizontal.start + col * horizontal.step + j * horizontal.dilation
                    if 0 <= y < vertical.size and 0 <= x < horizontal.size:
                        pairs.append((y * strides[0] + x * strides[1], row * grad_strides[0] + col * grad_strides[1]))
                if len(pairs) > first:
                    jobs.append((16 * first, 16 * len(pairs), (i * horizontal.taps + j) * tap_bytes))
    return np.array(jobs, np.int64).reshape(-1, 3), np.array(pairs, np.int64).reshape(-1, 2)

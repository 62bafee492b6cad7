"""Products of a tall matrix with a matrix of weights, in pieces so small that BLAS reads them where they lie.

A GEMM copies both matrices into an order of its own before it multiplies them. With few channels that costs a fifth of
the time: an element of the tall matrix takes part in only as many multiplications as there are output channels.
OpenBLAS has kernels for AVX-512 that copy nothing, and takes them up to 1e6 multiplications. So the tall matrix is cut
into ``m`` rows and the weights into ``n`` columns, and ``np.matmul`` runs through the pieces as one batch. Measured on
one Zen 5 core, float32, in GFLOP/s, whole / in pieces: 64 -> 64 channels 222 / 266, 512 -> 128 250 / 279, 576 -> 128
260 / 280, 1152 -> 256 254 / 270, 2304 -> 512 252 / 262.

Other kernels lose by it (3 to 30 % with AVX2), and small products are computed by one thread: without AVX-512, or where
BLAS has several threads, the matrices stay whole.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .workspace import Workspace

FloatArray: TypeAlias = NDArray[Any]

# The names of OpenBLAS for processors with AVX-512.
_WIDE_CORES = ("skylakex", "cooperlake", "sapphirerapids")
# Multiplications up to which OpenBLAS copies nothing.
_SMALL = 1_000_000
# Fewer rows than this in a piece do not fill the kernels' registers.
_LEAST_ROWS = 12
# Rows of a piece stay in the first-level cache while all panels are multiplied with them.
_ROWS_BYTES = 48 << 10
# Fewer rows than this in a piece of ``sum_of_products`` make the additions cost more than the copies they save.
_LEAST_SUMMED = 64
# Bytes of the products of pieces that are added up together.
_SUMMED_BYTES = 1 << 19
# With so few terms in each sum a piece is as wide as the weight, up to so many columns: little is read twice.
_SHORT_SUM, _WIDE = 32, 160
# Rows of a weight that are turned over together, so that the lines they are read from stay in the first-level cache.
_TURNED = 32


@dataclass(frozen=True)
class Cut:
    """How a product ``(M, inner) @ (inner, width)`` is cut.

    Attributes:
        rows: ``m``; 0 where rows are not cut.
        columns: ``n``, a divisor of ``width``.
    """

    rows: int
    columns: int


def cut(inner: int, width: int) -> Cut:
    """The pieces for ``(M, inner) @ (inner, width)``, by measurement."""
    if not pieces_pay() or inner == 0 or width == 0:
        return Cut(0, max(1, width))
    if width <= 64 or (inner <= _SHORT_SUM and width <= _WIDE):
        widths: tuple[int, ...] = (width, 32)
    else:
        widths = (64, 32) if width % 32 == 0 else (48, 16, 24)
    # 64 columns as long as there can be 24 rows, then 32
    for least in (24, _LEAST_ROWS):
        for columns in widths:
            rows = _SMALL // (inner * columns)
            if width % columns == 0 and rows >= least:
                rows = max(least, min(rows, _ROWS_BYTES // (4 * inner)))
                return Cut(rows // 16 * 16 if rows >= 32 else rows // 4 * 4, columns)
    return Cut(0, width)


@cache
def pieces_pay() -> bool:
    """Whether BLAS is OpenBLAS with one thread and its kernels for AVX-512."""
    known = np.show_config(mode="dicts") or {}
    if "openblas" not in str(known.get("Build Dependencies", {}).get("blas", {}).get("name", "")):
        return False
    asked = os.environ.get("OPENBLAS_CORETYPE", "").lower()  # by which a user chooses other kernels
    found = known.get("SIMD Extensions", {}).get("found", [])
    wide = asked in _WIDE_CORES if asked else any(name.startswith(("AVX512", "X86_V4")) for name in found)
    return wide and blas_threads() == 1


def forget_threads() -> None:
    """BLAS has another number of threads now: what was decided by it is decided anew."""
    pieces_pay.cache_clear()


def blas_threads() -> int:
    """How many threads BLAS was told to use, by the variables it reads when NumPy is imported."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        given = os.environ.get(name, "")
        if given.isdigit() and int(given) > 0:
            return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pack(weight: FloatArray, columns: int) -> FloatArray:
    """Right-hand matrices ``(G, *inner, width)``, of any order, as ``(G, width/columns, prod(inner), columns)``."""
    groups, *inner, width = weight.shape
    out = np.empty((groups, width // columns, *inner, columns), weight.dtype)
    for first in range(0, width, columns):
        for start in range(0, columns, _TURNED):
            stop = min(columns, start + _TURNED)
            np.copyto(out[:, first // columns, ..., start:stop], weight[..., first + start : first + stop])
    return out.reshape(groups, width // columns, math.prod(inner), columns)


def multiply(a: FloatArray, packed: FloatArray, out: FloatArray, rows: int) -> None:
    """``out = a @ weight``.

    Args:
        a: (G, M, inner); of each matrix the rows, or the columns, are contiguous.
        packed: (G, width/n, inner, n), from ``pack``.
        out: (G, M, width), rows contiguous; they may have gaps between them. Overwritten.
        rows: ``m`` of the cut.
    """
    groups, count, inner = a.shape
    panels, n = packed.shape[1], packed.shape[3]
    if rows == 0 or count <= rows:
        if panels == 1:
            # (G, M, inner) @ (G, inner, width)
            np.matmul(a, packed[:, 0], out=out)
        else:
            # (G, 1, M, inner) @ (G, panels, inner, n) -> (G, panels, M, n)
            np.matmul(a[:, None], packed, out=out.reshape(groups, count, panels, n).transpose(0, 2, 1, 3))
        return
    pieces = count // rows
    whole = pieces * rows
    # (G, pieces, 1, m, inner) @ (G, 1, panels, inner, n) -> (G, pieces, panels, m, n)
    target = out[:, :whole].reshape(groups, pieces, rows, panels, n).transpose(0, 1, 3, 2, 4)
    np.matmul(a[:, :whole].reshape(groups, pieces, 1, rows, inner), packed[:, None], out=target)
    if whole < count:
        multiply(a[:, whole:], packed, out[:, whole:], rows)


def even_pieces(count: int, each: int) -> int:
    """Into how many equal pieces to cut ``count`` rows that take part in ``each`` multiplications; 1 for not at all."""
    most = _SMALL // max(1, each)
    if not pieces_pay() or most < _LEAST_SUMMED:
        return 1
    return next((n for n in range(max(1, -(-count // most)), count // _LEAST_SUMMED + 1) if count % n == 0), 1)


def sum_of_products(a: FloatArray, b: FloatArray, out: FloatArray, add: bool, space: Workspace) -> None:
    """``out = a^T @ b``, or ``out += a^T @ b``: a sum over many rows, in pieces of few.

    Args:
        a: (G, M, A).
        b: (G, M, B).
        out: (G, A, B), contiguous.
        add: to what ``out`` holds.
        space: scratch memory.
    """
    groups, count, height = a.shape
    width = b.shape[2]
    rows = _SMALL // (height * width) // 8 * 8
    if not pieces_pay() or rows < _LEAST_SUMMED or count <= rows:
        # (G, A, M) @ (G, M, B)
        target = space.get("small product", out.shape, out.dtype) if add else out
        np.matmul(a.transpose(0, 2, 1), b, out=target)
        if add:
            np.add(out, target, out=out)
        return
    pieces = count // rows
    together = max(1, _SUMMED_BYTES // out.nbytes)
    for first in range(0, pieces, together):
        number = min(together, pieces - first)
        part = slice(first * rows, (first + number) * rows)
        products = space.get("small product", (number, *out.shape), out.dtype)
        # (pieces, G, A, m) @ (pieces, G, m, B)
        left = a[:, part].reshape(groups, number, rows, height).transpose(1, 0, 3, 2)
        np.matmul(left, b[:, part].reshape(groups, number, rows, width).swapaxes(0, 1), out=products)
        if add:
            np.add(out, np.add.reduce(products, axis=0), out=out)
        else:
            np.add.reduce(products, axis=0, out=out)
        add = True
    if pieces * rows < count:
        sum_of_products(a[:, pieces * rows :], b[:, pieces * rows :], out, add, space)

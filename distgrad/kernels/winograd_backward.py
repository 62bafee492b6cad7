"""The steps of Winograd's algorithm that only its gradients take; ``winograd`` puts them together."""

from __future__ import annotations

import numpy as np

from .convolution_plan import FloatArray
from .winograd_tiles import Tiling, merged, overlap, row_split, transform, windows
from .workspace import Workspace

Presence = list[tuple[slice, int]]


def accumulate_weight(
    inputs: FloatArray,
    grads: FloatArray,
    sums: FloatArray,
    rows: Presence,
    columns: Presence,
    images: int,
    first: bool,
    space: Workspace,
) -> None:
    """The gradient of the transformed weight: ``sums[a, b] += inputs[a, b]^T @ grads[a, b]``.

    Args:
        inputs: (a, b, t, w*N, C), the transformed input of a block.
        grads: (a, b, t, w*N, K), the transformed gradient of its output.
        sums: (a, b, K/block, C, block).
        rows: points down and the tile rows that use them, as from ``Tiling.presence``.
        columns: points across and the tile columns that use them.
        images: ``N``.
        first: write to ``sums`` instead of adding.
        space: scratch memory.
    """
    c, k, block = inputs.shape[-1], grads.shape[-1], sums.shape[-1]
    for a, t in rows:
        for b, w in columns:
            left, right = merged(inputs[a, b, :t, : w * images], grads[a, b, :t, : w * images])
            lead = left.shape[:2]
            part = row_split(c, left.shape[3] * block)
            total = sums[a, b].reshape(*lead, k // block, c // part, part, block)
            for row in range(left.shape[2]):
                of_input = left[:, :, row].reshape(*lead, 1, -1, c // part, part).transpose(0, 1, 2, 4, 5, 3)
                of_grad = right[:, :, row].reshape(*lead, -1, k // block, 1, block).transpose(0, 1, 3, 4, 2, 5)
                # (a, b, 1, C/part, part, w*N) @ (a, b, K/block, 1, w*N, block) -> (a, b, K/block, C/part, part, block)
                if first and row == 0:
                    np.matmul(of_input, of_grad, out=total)
                else:
                    addend = space.get("winograd addend", total.shape, total.dtype)
                    np.matmul(of_input, of_grad, out=addend)
                    total += addend


def finish_weight(sums: FloatArray, g: FloatArray, grad_weight: FloatArray, space: Workspace) -> None:
    """The weight's gradient from that of its transform, ``G^T sums G``.

    Args:
        sums: (a, b, K/block, C, block).
        g: (a*b, 9).
        grad_weight: (K, C, 3, 3), any strides. Overwritten.
        space: scratch memory.
    """
    blocks, c, block = sums.shape[2:]
    taps = space.get("winograd taps", (3, 3, blocks, c, block), sums.dtype)
    # (9, a*b) @ (a*b, K*C) -> (9, K*C)
    transform(np.ascontiguousarray(g.T), sums.reshape(len(g), -1), taps.reshape(9, -1))
    np.copyto(grad_weight.reshape(blocks, block, c, 3, 3), taps.transpose(2, 4, 3, 0, 1))


def scatter_input(
    ring: FloatArray, rows: Tiling, columns: Tiling, first: int, stop: int, grad_x: FloatArray, space: Workspace
) -> None:
    """The gradient of the input rows under tile rows ``first..stop``, as far as the next tile row adds nothing to them.

    Each pixel is the sum over the tiles that it lies in, two in each dimension at most; so its row is one product with
    the rows of two tiles, and no partial sum is ever added in memory.

    Args:
        ring: (1 + t, a, b, w, N*C), the gradients of the transformed input, after those of tile row ``first - 1``.
        rows: the tile rows.
        columns: the tile columns.
        first: the first tile row.
        stop: the first one after.
        grad_x: (H, W, N*C), of all rows. Overwritten.
        space: scratch memory.
    """
    points_down, points_across, count, run = ring.shape[1:]
    for t in range(first, stop):
        pixels, matrix = overlap(rows, t)
        height = pixels.stop - pixels.start
        if not height:  # all in the padding
            continue
        before = points_down if t else 0
        place = t - first
        pair = ring[place : place + 2] if t else ring[place + 1 : place + 2]
        pair = pair.reshape(-1, points_across, count, run)[: before + rows.matrices(t).points]
        half = space.get("winograd half", (height, count, points_across, run), ring.dtype)
        for w, across in columns.groups(0, count):
            b = across.points
            # (height, 2a) @ (b, w, 2a, N*C) -> (b, w, height, N*C)
            transform(matrix, pair[:, :b, w].transpose(1, 2, 0, 3), half[:, w, :b].transpose(2, 1, 0, 3))
        _scatter_columns(half.reshape(height, count * points_across, run), columns, grad_x[pixels])
    if stop == rows.count:
        grad_x[pixels.stop :] = 0


def _scatter_columns(half: FloatArray, columns: Tiling, grad_x: FloatArray) -> None:
    """(height, w*b, N*C) to (height, W, N*C)."""
    points, count = columns.full.points, columns.count
    pixels, matrix = overlap(columns, 0)
    # (pixels, b) @ (height, b, N*C) -> (height, pixels, N*C)
    transform(matrix, half[:, : matrix.shape[1]], grad_x[:, pixels])
    if count > 2:
        middle, matrix = overlap(columns, 1)
        step = columns.step
        target = grad_x[:, middle.start : middle.start + (count - 2) * step]
        # (step, 2b) @ (height, w-2, 2b, N*C) -> (height, w-2, step, N*C)
        transform(
            matrix,
            windows(half, 0, count - 2, points, 2 * points),
            target.reshape(len(target), count - 2, step, -1),
        )
    if count > 1:
        pixels, matrix = overlap(columns, count - 1)
        start = (count - 2) * points
        transform(matrix, half[:, start : start + matrix.shape[1]], grad_x[:, pixels])
    grad_x[:, pixels.stop :] = 0

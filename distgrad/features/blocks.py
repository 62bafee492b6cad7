"""How samples are put into blocks so that nobody's features depend on the others.

In a matrix product each row of the result depends on its own row alone, so a sample's features do not depend on the
values of the others in its block. But they may depend on the place in it: some kernels (OpenBLAS's for AVX2) add in
another order in every second group of rows. There each sample has a fixed place, which its content decides; elsewhere
(AVX-512) it takes the next one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

# Samples that the network sees at once: part of what a feature's bits depend on.
BLOCK = 32

# (rows, inner, columns) as convolutions on blocks have them; rows are pixels times samples.
_PROBES = (
    (2048, 147, 64),
    (128, 64, 64),
    (512, 576, 64),
    (392, 256, 128),
    (1568, 512, 512),
    (64, 2304, 256),
    (32, 512, 96),
)


@functools.cache
def place_matters() -> bool:
    """Whether a row of a float32 matrix product has other bits in another place, in this process; tried out once."""
    generator = np.random.default_rng(0)
    for rows, inner, columns in _PROBES:
        row = generator.standard_normal((1, inner)).astype(np.float32)
        right = generator.standard_normal((inner, columns)).astype(np.float32)
        left = np.repeat(row, rows, axis=0)
        product = left @ right  # (rows, inner) @ (inner, columns)
        transposed = np.ascontiguousarray(right.T) @ np.ascontiguousarray(left.T)  # (columns, inner) @ (inner, rows)
        if (product != product[:1]).any() or (transposed != transposed[:, :1]).any():
            return True
    return False


def pack(samples: Sequence[int], places: Sequence[int] | None) -> list[tuple[list[int], list[int]]]:
    """Blocks of at most ``BLOCK`` of ``samples``, each with the places that they take in it, rising.

    Args:
        samples: in the order in which they are needed; a sample may come again.
        places: of each sample, from 0 to BLOCK - 1; None: the next one that is free.
    """
    if places is None:
        starts = range(0, len(samples), BLOCK)
        cut = [list(samples[start : start + BLOCK]) for start in starts]
        return [(block, list(range(len(block)))) for block in cut]
    blocks: list[dict[int, int]] = []
    taken = [0] * BLOCK  # blocks that have a sample at each place
    for sample, place in zip(samples, places, strict=True):
        if taken[place] == len(blocks):
            blocks.append({})
        blocks[taken[place]][place] = sample
        taken[place] += 1
    ordered = [sorted(block.items()) for block in blocks]
    return [([sample for _, sample in block], [place for place, _ in block]) for block in ordered]

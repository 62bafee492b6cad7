"""Random streams keyed by (seed, epoch, sample), the same on whatever rank, worker or machine they are drawn.

A counter-based generator (Philox, Salmon et al., SC 2011) needs no state to be carried along: its key holds the seed
and the epoch and its counter begins at the sample's own block, so that any sample's stream starts at once and no two
overlap.
"""

from __future__ import annotations

import operator

import numpy as np

_ORDER, _SAMPLE = 0, 1


def _word(name: str, value: int) -> int:
    """``value`` as an unsigned 64-bit word of the key or the counter."""
    word = operator.index(value)
    if not 0 <= word < 1 << 64:
        raise ValueError(f"{name} must be an integer from 0 to 2**64 - 1, got {value}")
    return word


def _generator(seed: int, epoch: int, purpose: int, index: int) -> np.random.Generator:
    key = np.array([_word("seed", seed), _word("epoch", epoch)], dtype=np.uint64)
    # Drawing advances the lowest counter word; index and purpose sit above the carry of 2**128 blocks.
    counter = np.array([0, 0, _word("sample index", index), purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator that augments sample ``index`` in ``epoch``, independent of rank, worker and order of loading.

    Raises ``ValueError`` where an argument is negative or does not fit 64 bits.
    """
    return _generator(seed, epoch, _SAMPLE, index)


def order_generator(seed: int, epoch: int) -> np.random.Generator:
    """The generator that shuffles a whole epoch, the same on every rank.

    Raises ``ValueError`` where an argument is negative or does not fit 64 bits.
    """
    return _generator(seed, epoch, _ORDER, 0)

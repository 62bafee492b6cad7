"""Sums of gradients that travel as 16-bit words, for the hooks that compress by rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...kernels.workspace import workspace

if TYPE_CHECKING:
    from ..communicator import Array, Communicator

Encode: TypeAlias = Callable[["Array", "Array"], None]
"""``encode(numbers, words)`` rounds a block of float32 or float64 numbers to words; both are ``(n,)``."""

Decode: TypeAlias = Callable[["Array", "Array"], None]
"""``decode(words, numbers)`` writes exactly what the words stand for."""

BLOCK = 1 << 15  # elements: a block of float32 numbers and what is made of it stay in a second-level cache


def pieces_of(elements: int, ranks: int) -> list[int]:
    """How many elements each rank adds up: as equal as can be, the first ranks one more."""
    least, more = divmod(elements, ranks)
    return [least + (rank < more) for rank in range(ranks)]


def each_block(elements: int) -> Iterator[slice]:
    """Slices that cover ``elements``, none longer than a block."""
    for start in range(0, elements, BLOCK):
        yield slice(start, min(start + BLOCK, elements))


def sum_as_words(
    communicator: Communicator, buffer: Array, word: np.dtype[Any], encode: Encode, decode: Decode, exponent: int = 0
) -> None:
    """Replaces ``buffer`` by its sum over all ranks; only words travel, and the same bits arrive everywhere.

    Each rank rounds its numbers to words and sends every other rank the piece that the other adds up. The sum is formed
    in float32, in rank order, and rounded to words once; the words are gathered. So there are two roundings to words
    between a gradient and the sum whatever the number of ranks, where a sum in words would round ``N`` times.

    Args:
        communicator: two ranks or more.
        buffer: ``(n,)``, float32 or float64.
        word: the dtype that travels, of two bytes.
        encode: numbers to words.
        decode: words to numbers.
        exponent: what travels is multiplied by ``2 ** exponent``, the same on every rank, and the sum divided by it.
    """
    size, rank = communicator.world_size, communicator.rank
    counts = pieces_of(buffer.size, size)
    own, start = counts[rank], sum(counts[:rank])
    space = workspace()
    words = space.get("words", (buffer.size,), word)
    received = space.get("received words", (size, own), word)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite stays so, and says so in the gradients
        up, down = (buffer.dtype.type(2.0**power) for power in (exponent, -exponent))
        scaled = np.empty(BLOCK, buffer.dtype)
        for block in each_block(buffer.size):
            numbers = buffer[block]
            if exponent:
                numbers = np.multiply(numbers, up, out=scaled[: numbers.size])
            encode(numbers, words[block])
        communicator.all_to_all(words, counts, received.reshape(-1), [own] * size)
        total = np.empty(BLOCK, np.float32)
        addend = np.empty(BLOCK, np.float32)
        for block in each_block(own):
            length = block.stop - block.start
            decode(received[0, block], total[:length])
            for other in received[1:]:
                decode(other[block], addend[:length])
                total[:length] += addend[:length]
            encode(total[:length], words[start + block.start : start + block.stop])
        communicator.all_gather_into(words, counts)
        for block in each_block(buffer.size):
            decode(words[block], buffer[block])
            if exponent:
                buffer[block] *= down

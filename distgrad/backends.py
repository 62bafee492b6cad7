"""What a user may choose about how things are computed, as ``torch.backends`` has it.

    distgrad.backends.convolution = "direct"                 # for the process
    with distgrad.backends.convolutions("direct"): ...       # for a block

``"auto"`` takes the fastest algorithm for each shape, which may be Winograd's; ``"direct"`` only those that compute
each product of the definition (im2col and GEMM). Error of one float32 convolution, root mean square relative to the
output's, is at most: direct 3.5e-7, F(2x2) 8e-7, F(4x4) 2.5e-6, F(5x5) 5e-6; in float64 5e8 times less.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

convolution: Literal["auto", "direct"] = "auto"


@contextmanager
def convolutions(algorithm: Literal["auto", "direct"]) -> Iterator[None]:
    """Sets ``convolution`` for a block.

    Raises:
        ValueError: an algorithm that does not exist.
    """
    global convolution
    if algorithm not in ("auto", "direct"):
        raise ValueError(f"backends.convolution is 'auto' or 'direct', not {algorithm!r}")
    before, convolution = convolution, algorithm
    try:
        yield
    finally:
        convolution = before

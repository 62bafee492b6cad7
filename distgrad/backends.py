"""What a user may choose about how things are computed, as ``torch.backends`` has it.

    distgrad.backends.convolution = "direct"                 # for the process
    with distgrad.backends.convolutions("direct"): ...       # for a block

``"auto"`` takes the fastest algorithm for each shape, which may be Winograd's; ``"direct"`` only those that compute
each product of the definition (im2col and GEMM). Error of one float32 convolution, root mean square relative to the
output's, is at most: direct 3.5e-7, F(2x2) 8e-7, F(4x4) 2.5e-6, F(5x5) 5e-6; in float64 5e8 times less.

    distgrad.backends.jit = "off"                            # NumPy alone, even where llvmlite is installed

``"auto"`` compiles kernels for this processor where the extra ``fast`` (llvmlite) is installed and there is enough work
for them; they keep the same bounds of error as NumPy's, which stay the reference and the fallback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

convolution: Literal["auto", "direct"] = "auto"
jit: Literal["auto", "off"] = "auto"


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


@contextmanager
def jits(choice: Literal["auto", "off"]) -> Iterator[None]:
    """Sets ``jit`` for a block.

    Raises:
        ValueError: a choice that does not exist.
    """
    global jit
    if choice not in ("auto", "off"):
        raise ValueError(f"backends.jit is 'auto' or 'off', not {choice!r}")
    before, jit = jit, choice
    try:
        yield
    finally:
        jit = before

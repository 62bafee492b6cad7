"""Random tensors. The stream is NumPy's Philox generator, so values differ from PyTorch's for the same seed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..autograd import Tensor
from .promotion import get_default_dtype

__all__ = [  # what distgrad itself offers
    "Generator",
    "default_generator",
    "manual_seed",
    "rand",
    "randint",
    "randn",
    "randperm",
]


class Generator:
    """A stream of random numbers with a state that can be saved: ``torch.Generator``.

    Args:
        seed: where the stream starts.
    """

    def __init__(self, seed: int = 0) -> None:
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream anew from ``seed``."""
        self._seed = int(seed)
        self.stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(self._seed % 2**64)))
        return self

    def initial_seed(self) -> int:
        """The seed that the stream started from."""
        return self._seed

    def get_state(self) -> dict[str, Any]:
        """Where the stream stands, of integers, strings and integer arrays: what a checkpoint stores."""
        return {"seed": self._seed, "state": dict(self.stream.bit_generator.state)}

    def set_state(self, state: dict[str, Any]) -> Generator:
        """Continues where ``get_state`` was taken."""
        self._seed = int(state["seed"])
        self.stream.bit_generator.state = state["state"]
        return self


default_generator = Generator(int.from_bytes(os.urandom(7), "little"))


def manual_seed(seed: int) -> Generator:
    """Starts the default generator anew from ``seed`` and returns it."""
    return default_generator.manual_seed(seed)


def _size(size: tuple[Any, ...]) -> tuple[int, ...]:
    lengths = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else tuple(size)
    if any(length < 0 for length in lengths):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(lengths)}")
    return lengths


def _made(values: Any, dtype: Any, requires_grad: bool) -> Tensor:
    return Tensor(np.asarray(values, dtype=dtype or get_default_dtype()), requires_grad)


def _stream(generator: Generator | None) -> np.random.Generator:
    return (generator or default_generator).stream


def rand(*size: Any, generator: Generator | None = None, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1)."""
    dtype = np.dtype(dtype or get_default_dtype())
    # drawn in the target's own precision: a float64 below 1 may round to 1 in float32
    drawn = _stream(generator).random(_size(size), dtype=np.float64 if dtype == np.float64 else np.float32)
    return _made(drawn, dtype, requires_grad)


def randn(*size: Any, generator: Generator | None = None, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal with mean 0 and variance 1."""
    return _made(_stream(generator).standard_normal(_size(size)), dtype, requires_grad)


def randint(low: int, high: int, size: tuple[int, ...], *, generator: Generator | None = None) -> Tensor:
    """Integers in [low, high), int64."""
    return Tensor(np.asarray(_stream(generator).integers(low, high, tuple(size)), dtype=np.int64))


def randperm(n: int, *, generator: Generator | None = None) -> Tensor:
    """The integers below ``n`` in random order, int64."""
    return Tensor(_stream(generator).permutation(n).astype(np.int64))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None) -> Tensor:
    """Zeroes each element with probability ``p`` and scales the rest by 1 / (1 - p), while ``training``."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return input * 0.0
    kept = _stream(generator).random(input.shape, dtype=np.float32) >= p
    return input * Tensor(kept.astype(input.dtype) / input.dtype.type(1.0 - p))

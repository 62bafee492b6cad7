"""Streams of random numbers, and new tensors filled from them.

The stream is NumPy's Philox generator, so values differ from PyTorch's for the same seed.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from .arguments import check_device, dtype_or_default, integers, size_argument, tensor_argument
from .promotion import Dtype

__all__ = [  # what distgrad itself offers
    "Generator",
    "default_generator",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "seed",
    "set_rng_state",
]

# Streams -------------------------------------------------------------------------------------------------------------

# The state of a generator as 64-bit words: the seed, then the fields of NumPy's Philox and how many words each has.
_WORDS = (("seed", 1), ("counter", 4), ("key", 2), ("buffer", 4), ("buffer_pos", 1), ("has_uint32", 1), ("uinteger", 1))
_STATE_SIZE = 8 * sum(count for _, count in _WORDS)
_UNSEEDED = 67280421310721  # where a new generator starts, as in PyTorch


class Generator:
    """A stream of random numbers with a state that can be saved: ``torch.Generator``.

    Args:
        device: "cpu"; an integer is taken for the seed, as of ``manual_seed``.
    """

    def __init__(self, device: Any = "cpu") -> None:
        if not isinstance(device, int):
            check_device(device)
        self.manual_seed(device if isinstance(device, int) else _UNSEEDED)

    @property
    def device(self) -> str:
        """Where the numbers are made: "cpu"."""
        return "cpu"

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream anew from ``seed``, an integer of 64 bits; a negative one counts from 2**64."""
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"manual_seed(): the seed has to fit into 64 bits, {seed} does not")
        self._seed = seed % 2**64
        self.stream = np.random.Generator(np.random.Philox(np.random.SeedSequence(self._seed)))
        return self

    def seed(self) -> int:
        """Starts the stream anew from a seed that the operating system draws, and returns it."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed that the stream started from."""
        return self._seed

    def get_state(self) -> Tensor:
        """Where the stream stands: a vector of bytes (uint8)."""
        state: Any = self.stream.bit_generator.state
        fields = {"seed": self._seed, **state["state"], **{name: state[name] for name, _ in _WORDS if name in state}}
        words = [np.asarray(fields[name], np.uint64).reshape(-1) for name, _ in _WORDS]
        return Tensor(np.concatenate(words).view(np.uint8))

    def set_state(self, new_state: Any) -> Generator:
        """Continues where ``get_state`` was taken.

        Raises:
            TypeError: ``new_state`` is no vector of bytes.
            RuntimeError: it is of another length.
        """
        array = new_state._data if isinstance(new_state, Tensor) else new_state
        if not isinstance(array, np.ndarray):
            raise TypeError(f"expected a torch.ByteTensor, but got {type(new_state).__name__}")
        if array.dtype != np.uint8:
            raise TypeError(f"RNG state must be a torch.ByteTensor, not {array.dtype}")
        if array.shape != (_STATE_SIZE,):
            raise RuntimeError(
                f"Expected a generator's state of size {_STATE_SIZE} but found the input RNG state size to be "
                f"{array.size}"
            )
        words, start = np.ascontiguousarray(array).view(np.uint64), 0
        fields: dict[str, Any] = {}
        for name, count in _WORDS:
            fields[name] = words[start : start + count].copy() if count > 1 else int(words[start])
            start += count
        self._seed = fields.pop("seed")
        inner = {name: fields.pop(name) for name in ("counter", "key")}
        self.stream.bit_generator.state = {"bit_generator": "Philox", "state": inner, **fields}
        return self

    def clone_state(self) -> Generator:
        """A generator of its own that stands where this one stands."""
        return Generator().set_state(self.get_state())

    @classmethod
    def keyed(cls, key: Sequence[int], index: int, seed: int = 0) -> Generator:
        """The ``index``-th of many streams that share a key and never overlap.

        Args:
            key: two unsigned 64-bit words.
            index: an unsigned 64-bit word.
            seed: what ``initial_seed`` says.
        """
        made = cls.__new__(cls)
        made._seed = seed
        # Drawing advances the lowest word of the counter; the index sits above the carry of 2**128 blocks.
        counter = np.array([0, 0, index, 0], dtype=np.uint64)
        made.stream = np.random.Generator(np.random.Philox(key=np.array(key, dtype=np.uint64), counter=counter))
        return made


class _DefaultGenerator(Generator):
    """The generator of the process, or that which the calling thread has put in its place."""

    def __init__(self, seed: int) -> None:
        self._of_process = Generator(seed)

    @property
    def _present(self) -> Generator:
        return _of_context.get() or self._of_process

    @property
    def stream(self) -> np.random.Generator:
        return self._present.stream

    @stream.setter
    def stream(self, stream: np.random.Generator) -> None:
        self._present.stream = stream

    @property
    def _seed(self) -> int:
        return self._present._seed

    @_seed.setter
    def _seed(self, seed: int) -> None:
        self._present._seed = seed


_of_context: ContextVar[Generator | None] = ContextVar("distgrad_generator", default=None)
default_generator: Generator = _DefaultGenerator(int.from_bytes(os.urandom(7), "little"))


def replace_default(generator: Generator | None) -> Generator | None:
    """From now on the default generator of the calling thread is ``generator``, that of the process if it is None.

    Returns:
        What to put back later.
    """
    previous = _of_context.get()
    _of_context.set(generator)
    return previous


def manual_seed(seed: int) -> Generator:
    """Starts the default generator anew from ``seed`` and returns it."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Starts the default generator anew from a seed that the operating system draws, and returns it."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the default generator started from."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """Where the default generator stands: a vector of bytes (uint8)."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """The default generator continues where ``get_rng_state`` was taken."""
    default_generator.set_state(new_state)


def _stream(generator: Generator | None) -> np.random.Generator:
    """The stream to draw from, inside vmap numbers that all samples share; ``_draw`` can do more."""
    batching: Any = mode.state.batching
    if batching is not None:
        batching.check_random()
    return _any_stream(generator)


def _any_stream(generator: Generator | None) -> np.random.Generator:
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"argument 'generator' must be Generator, not {type(generator).__name__}")
    return (generator or default_generator).stream


def _draw(
    generator: Generator | None, size: tuple[int, ...], make: Callable[[np.random.Generator, tuple[int, ...]], Any]
) -> Tensor:
    """What ``make`` draws in shape ``size``; inside vmap with randomness "different" other numbers for each sample."""
    stream, batching = _any_stream(generator), _batching()
    if batching is None:
        return Tensor(np.asarray(make(stream, size)))
    out: Tensor
    if batching.captures:  # each run of what is captured draws anew, from where the generator stands then
        out = batching.drawn(lambda size: np.asarray(make(_any_stream(generator), size)), size)
        return out
    out = batching.draw(lambda lead: np.asarray(make(stream, (*lead, *size))))
    return out


def _draw_from(
    generator: Generator | None, parameter: Tensor, make: Callable[[np.random.Generator, Any], Any]
) -> Tensor:
    """What ``make`` draws for the values of ``parameter``, inside vmap those of all samples with the batches in
    front."""
    stream, batching = _any_stream(generator), _batching()
    if batching is None:
        return Tensor(np.asarray(make(stream, parameter._data)))
    out: Tensor = batching.draw_from(parameter, lambda values: np.asarray(make(stream, values)))
    return out


def _batching() -> Any:
    return mode.state.batching


# Draws ---------------------------------------------------------------------------------------------------------------


def _only_floating(name: str, dtype: Dtype) -> None:
    if dtype.kind != "f":
        raise NotImplementedError(f"{name}() is not implemented for {dtype}: it draws floating-point numbers")


def _uniform(stream: np.random.Generator, size: tuple[int, ...], dtype: Dtype) -> Any:
    """Uniform in [0, 1), drawn in the target's own precision: a larger one could round to 1."""
    if dtype == np.float16:
        return np.asarray(stream.integers(0, 2**11, size, np.uint16) / np.float32(2**11)).astype(dtype)
    return np.asarray(stream.random(size, dtype=dtype.type))


def _normal(stream: np.random.Generator, size: tuple[int, ...], dtype: Dtype) -> Any:
    """Normal with mean 0 and variance 1."""
    drawn = stream.standard_normal(size, dtype=np.float64 if dtype == np.float64 else np.float32)
    return np.asarray(drawn).astype(dtype, copy=False)


# The integers that a floating-point dtype holds without gaps.
_EXACT = {"float16": 2**11, "float32": 2**24, "float64": 2**53}


def _integers(name: str, stream: np.random.Generator, low: int, high: int, size: Any, dtype: Dtype) -> Any:
    """Integers in [low, high), which have to fit into ``dtype``."""
    if low >= high:
        raise RuntimeError(f"{name} expects 'from' to be less than 'to', but got from={low} >= to={high}")
    if dtype.kind == "f":
        least, most = int(np.finfo(dtype).min), int(np.finfo(dtype).max)
    elif dtype.kind == "b":
        least, most = 0, 1
    else:
        least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if low < least:
        raise RuntimeError(f"{name}: from is out of bounds for {dtype}, got {low}")
    if high - 1 > most:
        raise RuntimeError(f"{name}: to - 1 is out of bounds for {dtype}, got {high - 1}")
    return np.asarray(stream.integers(low, high, size, np.int64)).astype(dtype, copy=False)


def rand(
    *args: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform in [0, 1), of the default dtype unless given; sizes one by one or as a sequence."""
    check_device(device)
    kind = dtype_or_default(dtype)
    _only_floating("rand", kind)
    drawn = _draw(generator, size_argument(args, size, "rand"), lambda stream, shape: _uniform(stream, shape, kind))
    return drawn.requires_grad_() if requires_grad else drawn


def randn(
    *args: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal with mean 0 and variance 1, of the default dtype unless given; sizes one by one or as a sequence."""
    check_device(device)
    kind = dtype_or_default(dtype)
    _only_floating("randn", kind)
    drawn = _draw(generator, size_argument(args, size, "randn"), lambda stream, shape: _normal(stream, shape, kind))
    return drawn.requires_grad_() if requires_grad else drawn


def _bounds(name: str, given: tuple[Any, ...], low: Any, high: Any) -> tuple[int, int]:
    """``(high)`` or ``(low, high)``, by position or by name."""
    if len(given) == 2:
        low, high = given
    elif len(given) == 1 and high is None:
        high = given[0]
    elif given:
        low = given[0]
    if high is None:
        raise TypeError(f"{name}() needs `high`, below which the integers lie")
    return operator.index(0 if low is None else low), operator.index(high)


def randint(
    *args: Any,
    low: Any = None,
    high: Any = None,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers in [low, high): ``randint(high, size)`` or ``randint(low, high, size)``; int64 unless given.

    Args:
        args: ``high`` and ``size``, or ``low``, ``high`` and ``size``.
        low: the smallest, 0 unless given.
        high: one more than the largest.
        size: the shape, a sequence.
        generator: where the numbers come from, ``default_generator`` without it.
        dtype: of the result.
        device: "cpu".
        requires_grad: whether it is a leaf that collects a gradient.

    Raises:
        RuntimeError: there is no such integer, or the dtype does not hold all of them.
        TypeError: no size or no ``high``, or something else than integers.
    """
    check_device(device)
    if size is None:
        if not args or not isinstance(args[-1], (tuple, list)):
            raise TypeError("randint() takes (high, size) or (low, high, size), size a sequence of integers")
        *args, size = args  # type: ignore[assignment]
    least, end = _bounds("randint", tuple(args), low, high)
    kind = np.dtype(np.int64 if dtype is None else dtype)
    shape = size_argument((), size, "randint")
    drawn = _draw(generator, shape, lambda stream, shape: _integers("random_", stream, least, end, shape, kind))
    return drawn.requires_grad_() if requires_grad else drawn


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The integers below ``n`` in random order, int64 unless given.

    Raises:
        RuntimeError: ``n`` is negative, or the dtype does not hold all of them.
    """
    check_device(device)
    (count,) = integers((n,), "randperm", "n")
    kind = np.dtype(np.int64 if dtype is None else dtype)
    if kind.kind == "b":
        raise NotImplementedError("randperm() is not implemented for bool")
    if count < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {count}: [{count}]")
    limit = _EXACT[kind.name] if kind.kind == "f" else int(np.iinfo(kind).max)
    if count - 1 > limit:
        raise RuntimeError(f"randperm(): value cannot be converted to type {kind} without overflow: {count - 1}")
    drawn = _draw(generator, (count,), lambda stream, shape: _permutations(stream, shape).astype(kind))
    return drawn.requires_grad_() if requires_grad else drawn


def _permutations(stream: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Along the last dimension; of one line as ``Generator.permutation`` gives it."""
    if len(shape) == 1:
        return stream.permutation(shape[0])
    return stream.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)


def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``rand`` in the shape, and the dtype unless given, of ``input``."""
    like = tensor_argument(input, "rand_like")
    kind = like.dtype if dtype is None else dtype
    return rand(size=like.shape, generator=generator, dtype=kind, device=device, requires_grad=requires_grad)


def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``randn`` in the shape, and the dtype unless given, of ``input``."""
    like = tensor_argument(input, "randn_like")
    kind = like.dtype if dtype is None else dtype
    return randn(size=like.shape, generator=generator, dtype=kind, device=device, requires_grad=requires_grad)


def randint_like(
    input: Tensor,
    *args: Any,
    low: Any = None,
    high: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``randint`` in the shape, and the dtype unless given, of ``input``: ``randint_like(input, high)`` or
    ``randint_like(input, low, high)``."""
    check_device(device)
    like = tensor_argument(input, "randint_like")
    least, end = _bounds("randint_like", args, low, high)
    kind = like.dtype if dtype is None else np.dtype(dtype)
    size = tuple(like.shape)
    drawn = _draw(generator, size, lambda stream, shape: _integers("random_", stream, least, end, shape, kind))
    return drawn.requires_grad_() if requires_grad else drawn

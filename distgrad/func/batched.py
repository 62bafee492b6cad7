"""A tensor with a hidden dimension, and what becomes of the primitives that meet one.

Inside ``vmap`` a function sees ``Batched`` tensors: their shape is that of one sample, their values (``_value``) have
the batch in front. A primitive that meets one is handed over (``Interpreter``) to a rule that computes all samples at
once (``rules``), or else to a loop over them. Levels nest: the value of one may be batched itself, by an outer vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Function, Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive
from . import indexing
from .pytree import flatten, unflatten
from .rules import RULES
from .rules.common import looped

_ESCAPED = "a tensor from inside a vmap is used after that vmap has ended; return it instead"


class _Placeholder(np.ndarray[Any, Any]):
    """The shape and dtype of one sample; whoever reads values from it is told that there are many."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        if mode.state.batching is None:
            raise RuntimeError(_ESCAPED)
        raise RuntimeError(
            "vmap: this operation looks at the values of a tensor, and inside vmap there are those of many samples. "
            "Data-dependent shapes and control flow (item(), bool(), nonzero(), masks) cannot be batched."
        )

    __array_ufunc__ = __array_function__ = copy = astype = tolist = item = __bool__ = __float__ = __int__ = _refuse
    all = any = max = min = sum = nonzero = argsort = sort = _refuse


class Batched(Tensor):
    """One sample of many, to look at."""

    _batched = True
    _value: Tensor
    _level: int

    def __init__(self, value: Tensor, level: int) -> None:
        dtype = value._data.dtype
        # What slips through all the same: no number, no valid index.
        filler = np.nan if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind == "i" else 1
        placeholder = np.broadcast_to(np.full((), filler, dtype), value._data.shape[1:]).view(_Placeholder)
        super().__init__(placeholder)
        self._value = value
        self._level = level
        self._requires_grad = value.requires_grad

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient of the samples is wanted."""
        return self._value.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._value.requires_grad = value
        self._requires_grad = value

    def detach(self) -> Tensor:
        """The same samples without history."""
        return Batched(self._value.detach(), self._level)

    def stride(self, dim: int | None = None) -> Any:
        """Of one sample."""
        array = physical(self)._data
        strides = tuple(s // array.itemsize for s in array.strides[array.ndim - self.ndim :])
        return strides if dim is None else strides[dim]

    def is_contiguous(self) -> bool:
        """Whether the elements of a sample lie in row-major order without gaps."""
        step = 1
        for n, found in zip(reversed(self._data.shape), reversed(self.stride()), strict=True):
            if n != 1 and found != step:
                return not self._data.size
            step *= n
        return True

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "vmap: this looks at the values of a tensor (item(), bool(), numpy(), tolist()), and inside vmap there are "
            "those of many samples. Use torch.where and the like instead of data-dependent control flow."
        )

    numpy = item = tolist = data_ptr = __bool__ = __float__ = __int__ = __index__ = __array__ = _refuse

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """Not inside vmap: use ``func.grad``."""
        raise RuntimeError("backward() called inside a functorch transform is not supported: use func.grad or func.vjp")

    def __repr__(self) -> str:
        return f"Batched(level={self._level}, size={self._value._data.shape[0]}, of={self._value!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        raise RuntimeError("a tensor inside vmap cannot be copied: clone() it")


class Interpreter:
    """What ``mode.state.batching`` is while a vmap runs on this thread: the levels that are open, outermost first."""

    captures = False  # a capture of ``compiler`` stands in the same place

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.randomness: dict[int, str] = {}

    def __call__(self, primitive: Primitive, operands: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Runs ``primitive`` on all samples of the innermost level among the operands."""
        level = max((x._level for x in operands if isinstance(x, Batched)), default=None)
        if level is None:
            return self.outside(lambda: primitive(*operands, **keywords))
        size = self._size(level)
        flags = tuple(isinstance(x, Batched) and x._level == level for x in operands)
        values = tuple(x._value if flag else x for x, flag in zip(operands, flags, strict=True))
        rule = RULES.get(primitive.name, looped)
        result = rule(primitive, size, values, flags, keywords)
        if isinstance(result, tuple):
            return tuple(Batched(part, level) for part in result)
        return Batched(result, level)

    def _size(self, level: int) -> int:
        size = self.sizes.get(level)
        if size is None:
            raise RuntimeError(_ESCAPED)
        return size

    def outside(self, call: Callable[[], Any]) -> Any:
        """``call()`` as if no vmap were running."""
        state = mode.state
        state.batching = None
        try:
            return call()
        finally:
            state.batching = self

    def with_batches_of(self, input: Tensor, tensor: Tensor) -> Tensor:
        """``tensor`` with memory of its own for each sample at the levels of ``input``."""
        for level in levels_of(input):
            tensor = batched_at(tensor, level, self._size(level))
        return ops.clone(tensor)

    def each_sample(self, operation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``operation`` of one sample after the other, at the innermost level among the arguments."""
        leaves, structure = flatten((args, kwargs))
        level = max(x._level for x in leaves if isinstance(x, Batched))
        size = self._size(level)
        if size == 0:
            raise RuntimeError("vmap over no samples: an operation without a batching rule cannot tell the shape")
        results = []
        for k in range(size):
            sample = [x._value[k] if isinstance(x, Batched) and x._level == level else x for x in leaves]
            some, named = unflatten(sample, structure)
            results.append(operation(*some, **named))
        outs = [flatten(result)[0] for result in results]
        together = [Batched(ops.stack(parts), level) for parts in zip(*outs, strict=True)]
        return unflatten(together, flatten(results[0])[1])

    def function(self, cls: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``cls.apply`` of a user's own Function, at the innermost level among the arguments."""
        from .custom_function import VmapInfo, applied  # which is made of vmap, and so of this file

        level = max(x._level for x in args if isinstance(x, Batched))
        size = self._size(level)
        flags = tuple(isinstance(x, Batched) and x._level == level for x in args)
        values = tuple(x._value if flag else x for x, flag in zip(args, flags, strict=True))
        leaves, structure = applied(cls, values, kwargs, flags, VmapInfo(size, self.randomness[level]))
        return unflatten([Batched(x, level) if isinstance(x, Tensor) else x for x in leaves], structure)

    # Indexing --------------------------------------------------------------------------------------------------------

    has_batched_positions = staticmethod(indexing.has_batched_positions)
    getitem = staticmethod(indexing.getitem)
    setitem = staticmethod(indexing.setitem)
    index_put = staticmethod(indexing.index_put)

    # Random numbers --------------------------------------------------------------------------------------------------

    def check_random(self) -> None:
        """Before an operation draws numbers that all samples share.

        Raises:
            RuntimeError: ``randomness`` does not allow it.
        """
        self._refuse_error()
        if "different" in self.randomness.values():
            raise RuntimeError(
                "vmap: this random operation cannot draw different numbers for each sample. Use randomness='same', or "
                "draw them outside of vmap."
            )

    def _refuse_error(self) -> None:
        if "error" in self.randomness.values():
            raise RuntimeError(
                "vmap: called random operation while in randomness error mode. Please either use the 'same' or "
                "'different' randomness flags on vmap or perform the randomness operation out of vmap"
            )

    def draw(self, make: Callable[[tuple[int, ...]], Any]) -> Tensor:
        """Numbers from ``make``, which is told the dimensions to put in front: of the levels where samples differ."""
        self._refuse_error()
        levels = [level for level in self.sizes if self.randomness[level] == "different"]
        return _wrapped(Tensor(make(tuple(self.sizes[level] for level in levels))), levels)

    def draw_from(self, parameter: Tensor, make: Callable[[Any], Any]) -> Tensor:
        """Numbers whose distribution depends on ``parameter``, an array for ``make`` with all batches in front."""
        self._refuse_error()
        if any(self.randomness[level] == "same" for level in levels_of(parameter)):
            raise RuntimeError(
                "vmap: numbers cannot be the same for all samples when the parameters of their distribution differ "
                "from sample to sample; use randomness='different'"
            )
        for level, size in self.sizes.items():
            if self.randomness[level] == "different":
                parameter = batched_at(parameter, level, size)
        return _wrapped(Tensor(make(physical(parameter)._data)), levels_of(parameter))

    def everywhere(self, tensor: Tensor) -> Tensor:
        """``tensor`` with the dimension of every open level, so that each sample has a gradient of its own."""
        for level, size in self.sizes.items():
            tensor = batched_at(tensor, level, size)
        return tensor


def batched_at(tensor: Tensor, level: int, size: int) -> Tensor:
    """``tensor`` batched at ``level``, expanded where it was not."""
    if isinstance(tensor, Batched):
        if tensor._level == level:
            return tensor
        if tensor._level > level:
            inner = tensor._value  # the batch of tensor's own level in front
            lowered = batched_at(ops.movedim(inner, 0, -1), level, size)
            return Batched(ops.movedim(lowered, -1, 0), tensor._level)
    return Batched(ops.unsqueeze(tensor, 0).expand(size, *tensor.shape), level)


def physical(tensor: Tensor) -> Tensor:
    """The tensor under all levels, whose first dimensions are those of the batches, outermost first."""
    while isinstance(tensor, Batched):
        tensor = tensor._value
    return tensor


def levels_of(tensor: Tensor) -> tuple[int, ...]:
    """The levels at which ``tensor`` is batched, outermost first: the order of the first dimensions of the physical."""
    levels = []
    while isinstance(tensor, Batched):
        levels.append(tensor._level)
        tensor = tensor._value
    return tuple(reversed(levels))


def _wrapped(value: Tensor, levels: Sequence[int]) -> Tensor:
    """``value`` whose first dimensions are the batches of ``levels``, outermost first."""
    for level in levels:
        value = Batched(value, level)
    return value


def lowered(tensor: Tensor, levels: Sequence[int]) -> Tensor:
    """``tensor`` with its dimensions of ``levels`` in plain sight, in front; it stays batched at its other levels."""
    own = levels_of(tensor)
    rest = [level for level in own if level not in levels]
    order = [own.index(level) for level in (*rest, *levels)]
    value = physical(tensor)
    moved = ops.permute(value, (*order, *range(len(own), value.ndim)))
    return _wrapped(moved, rest)


def raised(tensor: Tensor, levels: Sequence[int]) -> Tensor:
    """Undoes ``lowered``: the first dimensions become batches of ``levels`` again."""
    own = (*levels_of(tensor), *levels)
    order = sorted(range(len(own)), key=lambda place: own[place])
    value = physical(tensor)
    moved = ops.permute(value, (*order, *range(len(own), value.ndim)))
    return _wrapped(moved, sorted(own))

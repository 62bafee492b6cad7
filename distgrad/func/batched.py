"""A tensor with a hidden dimension, and what becomes of the primitives that meet one.

Inside ``vmap`` a function sees ``Batched`` tensors: their shape is that of one sample, their values (``_value``) have
the batch in front. A primitive that meets one is handed over (``Interpreter``) to a rule that computes all samples at
once (``batching``), or else to a loop over them. Levels nest: the value of one may be batched itself, by an outer vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive

Rule = Callable[[Primitive, int, tuple[Any, ...], tuple[bool, ...], dict[str, Any]], Any]
RULES: dict[str, Rule] = {}  # by the primitive's name; filled by ``batching``


class _Placeholder(np.ndarray[Any, Any]):
    """The shape and dtype of one sample; whoever reads values from it is told that there are many."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
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

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "vmap: this looks at the values of a tensor (item(), bool(), numpy(), tolist()), and inside vmap there are "
            "those of many samples. Use torch.where and the like instead of data-dependent control flow."
        )

    numpy = item = tolist = __bool__ = __float__ = __int__ = __index__ = __array__ = _refuse

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """Not inside vmap: use ``func.grad``."""
        raise RuntimeError("backward() called inside a functorch transform is not supported: use func.grad or func.vjp")

    def __repr__(self) -> str:
        return f"Batched(level={self._level}, size={self._value._data.shape[0]}, of={self._value!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        raise RuntimeError("a tensor inside vmap cannot be copied: clone() it")


class Interpreter:
    """What ``mode.state.batching`` is while a vmap runs on this thread: the levels that are open, outermost first."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.randomness: list[str] = []

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
            raise RuntimeError("a tensor from inside a vmap is used after that vmap has ended; return it instead")
        return size

    def outside(self, call: Callable[[], Any]) -> Any:
        """``call()`` as if no vmap were running."""
        state = mode.state
        state.batching = None
        try:
            return call()
        finally:
            state.batching = self

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


def looped(
    primitive: Primitive, size: int, values: tuple[Any, ...], flags: tuple[bool, ...], keywords: dict[str, Any]
) -> Any:
    """One sample after the other: right for every primitive, and the slow way."""
    if size == 0:
        raise RuntimeError(f"vmap over no samples: {primitive.name} has no batching rule that could tell the shape")
    results = [
        primitive(*(x[k] if flag else x for x, flag in zip(values, flags, strict=True)), **keywords)
        for k in range(size)
    ]
    if isinstance(results[0], tuple):
        return tuple(ops.stack(parts) for parts in zip(*results, strict=True))
    return ops.stack(results)

"""Indexing inside vmap, with positions that differ from sample to sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Tensor
from ..ops.indexing import _index, _index_put, _index_put_add, _slice, parse_index
from ..ops.inplace import copy_
from ..ops.promotion import cast
from ..ops.samples import all_values, is_batched
from ..ops.slices import _counted_from_front


def _parts(index: Any) -> list[Any]:
    """The parts of an index; as in PyTorch a list of tensors counts as a tuple."""
    if isinstance(index, tuple) or (isinstance(index, list) and any(isinstance(part, Tensor) for part in index)):
        return list(index)
    return [index]


def has_batched_positions(index: Any) -> bool:
    """Whether a part of ``index`` differs from sample to sample."""
    return is_batched(*_parts(index))


class _Places:
    """An index in two steps, as ``parse_index`` takes it: a view of the input, and positions in that."""

    def __init__(self, input: Tensor, index: Any) -> None:
        own: dict[int, Tensor] = {}
        parts, without_dims = [], True
        for part in _parts(index):
            if is_batched(part):
                if part.dtype.kind == "b" or part.dtype == np.uint8:
                    raise RuntimeError(
                        "vmap: We do not support batching operators that can support dynamic shape. Attempting to "
                        "batch over indexing with a boolean mask: use where() or masked_fill() instead."
                    )
                if part.dtype not in (np.int32, np.int64):
                    raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors: {part.dtype}")
                # 0 is a position wherever there is any; a position alone is a line of one
                place = np.zeros(tuple(part.shape) or (1,), np.int64)
                own[id(place)] = cast(part if part.ndim else ops.reshape(part, (1,)), np.int64)
                without_dims = without_dims and not part.ndim
                parts.append(place)
            else:
                parts.append(part)
                counts = isinstance(part, (list, np.ndarray, range)) or (isinstance(part, Tensor) and part.ndim > 0)
                without_dims = without_dims and not counts
        basic, advanced = parse_index(tuple(parts), tuple(input.shape))
        self.view: Tensor = input if basic is None else _slice(input, index=basic)
        self.advanced = advanced
        self.dims: list[int] = []  # of the view, that positions are for
        self.positions: list[Any] = []
        self.single = without_dims and bool(own)  # the positions have no dimensions
        for d, array in enumerate(advanced or ()):
            if isinstance(array, slice):
                continue
            self.dims.append(d)
            positions = own.get(id(array))
            self.positions.append(Tensor(array) if positions is None else _checked(positions, d, self.view.shape[d]))

    def in_front(self) -> tuple[int, ...]:
        """The order of the view's dimensions in which those of the positions are first."""
        return (*self.dims, *(d for d in range(self.view.ndim) if d not in self.dims))

    def rest(self) -> tuple[int, ...]:
        """The lengths of the dimensions of the view without positions."""
        return tuple(n for d, n in enumerate(self.view.shape) if d not in self.dims)

    def table(self) -> Tensor:
        """The view with the dimensions that positions are for as one, in front."""
        count = math.prod(self.view.shape[d] for d in self.dims)
        return ops.reshape(ops.permute(self.view, self.in_front()), (count, *self.rest()))

    def rows(self) -> Tensor:
        """Which rows of the table the positions mean, one after the other."""
        number: Any = 0
        for d, positions in zip(self.dims, self.positions, strict=True):
            number = number * self.view.shape[d] + positions
        return ops.reshape(ops.broadcast_to(number, self.common()), (-1,))

    def common(self) -> tuple[int, ...]:
        """The shape of the positions."""
        return np.broadcast_shapes(*(tuple(x.shape) for x in self.positions))

    def place(self) -> int:
        """Where the dimensions of the positions stand in the result: where theirs were if those are neighbours."""
        return self.dims[0] if self.dims[-1] - self.dims[0] == len(self.dims) - 1 else 0

    def picked_shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        if not self.dims:
            return tuple(self.view.shape)
        if not is_batched(*self.positions):
            return np.broadcast_to(np.empty((), np.bool_), tuple(self.view.shape))[self.advanced].shape
        rest = self.rest()
        common = () if self.single else self.common()
        return (*rest[: self.place()], *common, *rest[self.place() :])


def _checked(positions: Tensor, d: int, length: int) -> Tensor:
    values = all_values(positions)
    if values.size and (values.min() < -length or values.max() >= length):
        wrong = values.min() if values.min() < -length else values.max()
        raise IndexError(f"index {wrong} is out of bounds for dimension {d} with size {length}")
    return _counted_from_front(positions, length)


def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]``.

    Raises:
        RuntimeError: a mask that differs from sample to sample, which would give results of several shapes.
        IndexError: as outside of vmap.
    """
    places = _Places(input, index)
    if places.advanced is None:
        return places.view
    if not is_batched(*places.positions):
        picked: Tensor = _index(places.view, index=places.advanced)
        return picked
    found = ops.index_select(places.table(), 0, places.rows())
    found = ops.reshape(found, (*places.common(), *places.rest()))
    count, first = len(places.common()), places.place()
    if first:
        found = ops.movedim(found, list(range(count)), list(range(first, first + count)))
    return ops.squeeze(found, first) if places.single else found


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value``; raises as ``getitem``, and where samples that differ write into a shared ``input``."""
    places = _Places(input, index)
    source = value if isinstance(value, Tensor) else Tensor(np.asarray(value))
    source = cast(source, input.dtype)
    while source.ndim > len(places.picked_shape()) and source.shape[0] == 1:
        source = source[0]
    copy_(places.view, source if places.advanced is None else _written(places, source, accumulate=False))


def index_put(input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool) -> Tensor:
    """A copy of ``input`` with ``values`` at the places."""
    listed = tuple(ops.reshape(x, (1,)) if not x.ndim else x for x in indices)
    return _written(_Places(input, listed), values, accumulate)


def _written(places: _Places, values: Tensor, accumulate: bool) -> Tensor:
    shape = places.picked_shape()
    if tuple(values.shape) != shape:
        try:
            values = ops.broadcast_to(values, shape)
        except RuntimeError:
            raise RuntimeError(
                f"shape mismatch: value tensor of shape {list(values.shape)} cannot be broadcast to indexing result of "
                f"shape {list(shape)}"
            ) from None
    if not is_batched(*places.positions):
        out: Tensor = (_index_put_add if accumulate else _index_put)(places.view, values, index=places.advanced)
        return out
    order, first = places.in_front(), places.place()
    if places.single:
        values = ops.unsqueeze(values, first)
    count = len(places.common())
    if first:
        values = ops.movedim(values, list(range(first, first + count)), list(range(count)))
    table = places.table()
    write = ops.index_add if accumulate else ops.index_copy
    written = write(table, 0, places.rows(), ops.reshape(values, (-1, *places.rest())))
    shape = tuple(places.view.shape[d] for d in order)
    return ops.permute(ops.reshape(written, shape), tuple(int(d) for d in np.argsort(order)))

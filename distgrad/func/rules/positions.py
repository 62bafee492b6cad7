"""Primitives that take or write elements at positions, which may differ from sample to sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops
from ...autograd import Tensor
from ...autograd.primitive import PRIMITIVES, Primitive
from .common import Flags, Keywords, Values, everywhere, rule, sample_shape, with_batch

# Positions that all samples share -------------------------------------------------------------------------------------


def _order(index: tuple[Any, ...], ndim: int) -> tuple[int, ...] | None:
    """Where NumPy leaves the dimensions of what arrays apart from each other pick: theirs first, then the batch. The
    permutation that brings the batch to the front; None where it is there."""
    found = [d for d, part in enumerate(index) if not isinstance(part, slice)]
    if found[-1] - found[0] == len(found) - 1:
        return None
    common = np.broadcast_shapes(*(index[d].shape for d in found))
    return (len(common), *range(len(common)), *range(len(common) + 1, ndim))


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(d) for d in np.argsort(order))


@rule("Index")
def picked(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The batch is taken whole."""
    index = (slice(None), *keywords["index"])
    out = primitive(values[0], index=index)
    order = _order(index, out.ndim)
    return out if order is None else ops.permute(out, order)


@rule("IndexAdjoint")
def put_back(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """What ``Index`` picked."""
    index, g = (slice(None), *keywords["index"]), values[0]
    order = _order(index, g.ndim)
    g = g if order is None else ops.permute(g, _inverse(order))
    return primitive(g, shape=(size, *keywords["shape"]), index=index)


@rule("IndexPut IndexPutAdd")
def written(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Values in the shape of what the index picks."""
    index = (slice(None), *keywords["index"])
    input, source = values
    sample = sample_shape(input, flags[0])
    shape = np.broadcast_to(np.empty((), np.bool_), sample)[keywords["index"]].shape
    source = source if isinstance(source, Tensor) else Tensor(np.asarray(source))
    lead = (1,) * (len(shape) - len(sample_shape(source, flags[1])))
    if flags[1]:
        source = ops.reshape(source, (size, *lead, *source.shape[1:]))
    source = source.expand(size, *shape)
    order = _order(index, source.ndim)
    source = source if order is None else ops.permute(source, _inverse(order))
    return primitive(with_batch(input, flags[0], size), source, index=index)


# Positions of each sample's own ---------------------------------------------------------------------------------------


@rule("Gather ScatterAdd Scatter ScatterProd ScatterAmax ScatterAmin")
def along_an_index(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Each sample picks or writes along its own lines."""
    input, index, *rest = values
    whole = everywhere((input, index), flags[:2], size)
    for source in rest:
        if sample_shape(source, flags[2]):
            whole.append(with_batch(source, flags[2], size))
        elif flags[2]:  # a number of each sample's own
            shape = tuple(whole[1].shape)
            whole.append(ops.reshape(source, (size,) + (1,) * (len(shape) - 1)).expand(*shape))
        else:
            whole.append(source)
    return primitive(*whole, dim=keywords["dim"] + 1)


def _as_rows(x: Any, dim: int) -> Any:
    """(B, ..., n, ...) as (B * n, ...), so that the slices of all samples are rows of one table."""
    moved = ops.movedim(x, dim + 1, 1)
    return ops.reshape(moved, (moved.shape[0] * moved.shape[1], *moved.shape[2:]))


def _from_rows(x: Any, size: int, dim: int) -> Any:
    return ops.movedim(ops.reshape(x, (size, x.shape[0] // size if size else 0, *x.shape[1:])), 1, dim + 1)


def _row_numbers(index: Any, length: int) -> Any:
    """Positions (B, k), each in a sample of ``length`` slices, as numbers of rows in the table of all."""
    first = Tensor(np.arange(index.shape[0])[:, None] * length)
    return ops.reshape(index + first, (-1,))


@rule("IndexSelect")
def slices_picked(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The same slices of all samples, or others of each."""
    (input, index), dim = values, keywords["dim"]
    if not flags[1]:
        return primitive(input, index, dim=dim + 1)
    if not flags[0]:  # more slices of one table
        picked = primitive(input, ops.reshape(index, (-1,)), dim=dim)
        lead, rest = tuple(picked.shape[:dim]), tuple(picked.shape[dim + 1 :])
        return ops.movedim(ops.reshape(picked, (*lead, size, index.shape[1], *rest)), dim, 0)
    numbers = _row_numbers(index, input.shape[dim + 1])
    return _from_rows(primitive(_as_rows(input, dim), numbers, dim=0), size, dim)


@rule("IndexSelectAdjoint")
def slices_put_back(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """What ``IndexSelect`` picked."""
    (g, index), dim, shape = values, keywords["dim"], keywords["shape"]
    if not flags[1]:
        return primitive(g, index, shape=(size, *shape), dim=dim + 1)
    rows = (size * shape[dim], *shape[:dim], *shape[dim + 1 :])
    added = primitive(_as_rows(with_batch(g, flags[0], size), dim), _row_numbers(index, shape[dim]), shape=rows, dim=0)
    return _from_rows(added, size, dim)


@rule("IndexAdd IndexCopy IndexFill")
def slices_written(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The same slices of all samples, or others of each."""
    (input, index, source), dim = values, keywords["dim"]
    whole = with_batch(input, flags[0], size)
    shape = tuple(whole.shape[1:])
    if primitive.name == "IndexFill" and flags[2]:  # a number of each sample's own
        slices = (*shape[:dim], index.shape[-1], *shape[dim + 1 :])
        source = ops.reshape(source, (size,) + (1,) * len(shape)).expand(size, *slices)
        primitive = PRIMITIVES["IndexCopy"]
    elif primitive.name != "IndexFill":
        source = with_batch(source, flags[2], size)
    if not flags[1]:
        return primitive(whole, index, source, dim=dim + 1)
    if primitive.name != "IndexFill":
        source = _as_rows(source, dim)
    return _from_rows(primitive(_as_rows(whole, dim), _row_numbers(index, shape[dim]), source, dim=0), size, dim)

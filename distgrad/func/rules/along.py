"""Primitives that work along dimensions named by their keywords: reductions, scans, sorting, pieces."""

from __future__ import annotations

from typing import Any

from ... import ops
from ...autograd.primitive import Primitive
from .common import Flags, Keywords, Values, everywhere, merged, rule, sample_shape

_DIMENSIONS = ("dim", "dims", "dim1", "dim2")


def _one_further_back(keywords: Keywords, size: int) -> Keywords:
    """Dimensions are counted from the front, where the batch is now; and so is it in a shape."""
    moved = dict(keywords)
    for name in _DIMENSIONS:
        if name in moved:
            at = moved[name]
            moved[name] = at + 1 if isinstance(at, int) else tuple(d + 1 for d in at)
    if "shape" in moved:
        moved["shape"] = (size, *moved["shape"])
    return moved


def _of_single_elements(primitive: Primitive, size: int, values: list[Any], keywords: Keywords) -> Any:
    """Samples without dimensions: each is a line of one element."""
    moved = dict(keywords)
    for name in _DIMENSIONS:
        if name in moved:
            moved[name] = (1,) if isinstance(moved[name], tuple) else 1
    if "keepdim" in moved:
        moved["keepdim"] = True
    if "shape" in moved:
        moved["shape"] = (size, 1)
    out = primitive(*(x if x is None else ops.reshape(x, (size, 1)) for x in values), **moved)
    return ops.reshape(out, (size,))


@rule(
    "Sum Nansum Mean Prod Var Std Any All CountNonzero Amax Amin Logsumexp PNorm",
    "Softmax SoftmaxAdjoint LogSoftmax LogSoftmaxAdjoint Glu",
    "Cumsum Cumprod Logcumsumexp LinearRecurrence Shift Argcummax Argcummin Cummax Cummin RunningExtremumAdjoint",
    "Argsort Argtopk KthvalueIndex MedianIndex NanmedianIndex ModeIndex",
    "Max Min Sort Topk Kthvalue Median Nanmedian Mode PickAdjoint",
    "Flip Unfold UnfoldAdjoint Diagonal DiagonalAdjoint Narrow NarrowAdjoint Select Unbind Split",
)
def along_dimensions(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Each dimension that is named is one further back now."""
    whole = everywhere(values, flags, size)
    shape = keywords["shape"] if "shape" in keywords else sample_shape(values[0], flags[0])
    if shape == ():
        return _of_single_elements(primitive, size, whole, keywords)
    return primitive(*whole, **_one_further_back(keywords, size))


@rule("MaxOfAll MinOfAll")
def of_all_elements(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """The extremum of a whole sample, as that along a line."""
    extremum = ops.amax if primitive.name == "MaxOfAll" else ops.amin
    return extremum(ops.reshape(values[0], (size, -1)), 1)


@rule("Argmax Argmin")
def places_of_extremes(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Along a dimension, or in the flattened sample."""
    if keywords["dim"] is not None:
        return along_dimensions(primitive, size, values, flags, keywords)
    places = primitive(ops.reshape(values[0], (size, -1)), dim=1, keepdim=False)
    kept = (1,) * (values[0].ndim - 1) if keywords["keepdim"] else ()
    return ops.reshape(places, (size, *kept))


@rule("Roll")
def rolled(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Along dimensions, or in the flattened sample."""
    if keywords["dims"] is not None:
        return along_dimensions(primitive, size, values, flags, keywords)
    flat = primitive(ops.reshape(values[0], (size, -1)), shifts=keywords["shifts"], dims=(1,))
    return ops.reshape(flat, tuple(values[0].shape))


@rule("Permute")
def permuted(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Other dimensions change places behind the batch."""
    return primitive(values[0], dims=(0, *(d + 1 for d in keywords["dims"])))


@rule("Repeat")
def tiled(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """``reps`` may name more dimensions than a sample has: those come behind the batch."""
    (x,), reps = values, keywords["reps"]
    shape = sample_shape(x, True)
    lead = (1,) * (len(reps) - len(shape))
    return primitive(ops.reshape(x, (size, *lead, *shape)), reps=(1, *reps))


@rule("ConstantPadNd")
def padded(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Nothing is added to the batch."""
    return primitive(values[0], **(keywords | {"pads": ((0, 0), *keywords["pads"])}))


@rule("ChannelWindow")
def windows_of_channels(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """(N, C, ...): batches of batches are one batch."""
    return ops.reshape(primitive(merged(values[0]), **keywords), tuple(values[0].shape))


@rule("Cat")
def concatenated(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Pieces one behind the other."""
    return primitive(*everywhere(values, flags, size), dim=keywords["dim"] + 1)

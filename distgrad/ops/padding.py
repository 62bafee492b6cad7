"""Padding: with a constant, or with the input's own values.

Padding with a constant is affine, and its adjoint is the same with the signs of the widths changed: what was added is
cut off and what was cut off comes back as zeros. The other modes copy pixels, each along one dimension after the other.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels.layout import empty_in_order_of
from ..kernels.resample import LinearMap, resample
from .elementwise import clone

__all__ = [  # what distgrad itself offers
    "constant_pad_nd",
]

Pads = tuple[tuple[int, int], ...]


def _constant_pad_forward(input: Any, pads: Pads, value: Any) -> Any:
    lengths = tuple(n + before + after for n, (before, after) in zip(input.shape, pads, strict=True))
    kept = tuple(
        slice(max(0, -before), n + min(0, after)) for n, (before, after) in zip(input.shape, pads, strict=True)
    )
    places = tuple(slice(max(0, before), n - max(0, after)) for n, (before, after) in zip(lengths, pads, strict=True))
    out = empty_in_order_of(input, lengths, input.dtype)
    for axis, (place, n) in enumerate(zip(places, lengths, strict=True)):
        inside = places[:axis]  # the dimensions before were filled outside of it
        out[(*inside, slice(0, place.start))] = value
        out[(*inside, slice(place.stop, n))] = value
    out[places] = input[kept]
    return out


_constant_pad: Primitive = define(
    "ConstantPadNd",
    _constant_pad_forward,
    ("input",),
    input=lambda g, pads: _constant_pad(g, pads=tuple((-before, -after) for before, after in pads), value=0),
)
resample_primitive: Primitive = define(
    "Resample",
    resample,
    ("input",),
    input=lambda g, maps: resample_primitive(g, maps=tuple(None if m is None else m.T for m in maps)),
)


def _reflected(place: Any, size: int) -> Any:
    place = np.abs(place)
    return np.where(place < size, place, 2 * (size - 1) - place)


_SOURCES: dict[str, Callable[[Any, int], Any]] = {  # of positions from -before on: where the value comes from
    "reflect": _reflected,
    "replicate": lambda place, size: np.clip(place, 0, size - 1),
    "circular": lambda place, size: place % size,
}


def _map(mode: str, size: int, before: int, after: int) -> LinearMap | None:
    if before == after == 0:
        return None
    rows = np.arange(size + before + after)
    return LinearMap((len(rows), size), rows, _SOURCES[mode](rows - before, size))


def _pairs(pad: Sequence[int], ndim: int) -> Pads:
    """PyTorch's list, which begins with the last dimension, as (before, after) of each dimension in order."""
    if isinstance(pad, (int, np.integer)) or not all(hasattr(n, "__index__") for n in pad):
        raise TypeError(f"pad must be a tuple of ints, two for each dimension from the last one on, not {pad!r}")
    widths = [operator.index(n) for n in pad]
    if len(widths) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, but pad={tuple(widths)} has {len(widths)} numbers")
    if len(widths) > 2 * ndim:
        raise RuntimeError(
            "Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(widths)} and input of dimension {ndim}"
        )
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    return ((0, 0),) * (ndim - len(pairs)) + tuple(reversed(pairs))


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """``input`` with ``value`` around it, or cut where a width is negative. As ``torch.constant_pad_nd``.

    Args:
        input: any shape.
        pad: widths before and after the last dimension, then the one before it, and so on.
        value: what to add, in the input's dtype.

    Raises:
        RuntimeError: an odd number of widths, more than there are dimensions, or nothing left of a dimension.
        TypeError: widths that are no whole numbers.
    """
    pads = _pairs(pad, input.ndim)
    for axis, (n, (before, after)) in enumerate(zip(input.shape, pads, strict=True)):
        if min(0, before) + min(0, after) + n < 0 or before + after + n < 0:
            raise RuntimeError(
                f"The input size {n}, plus negative padding {before} and {after}, resulted in a negative output size, "
                f"which is invalid. Check dimension {axis} of your input of size {list(input.shape)}."
            )
    if not any(map(any, pads)):
        return clone(input)
    out: Tensor = _constant_pad(input, pads=pads, value=value)
    return out


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """``input`` with more around it, as ``torch.nn.functional.pad``; a negative width cuts.

    Args:
        input: any shape with ``mode="constant"``. For the other modes, which pad all dimensions behind the channels:
            (N, C, L), (N, C, H, W) or (N, C, D, H, W), or without N.
        pad: widths before and after the last dimension, then the one before it, and so on.
        mode: "constant"; "reflect" (mirrored at the edge pixel, which is not repeated); "replicate" (the edge pixel);
            "circular" (from the other end).
        value: the constant, 0 without it.

    Raises:
        RuntimeError: widths that are too many, or too large for the mode; a value with another mode than "constant".
        NotImplementedError: an unknown mode, or dimensions that it does not pad.
        TypeError: widths that are no whole numbers.
    """
    if mode == "constant":
        return constant_pad_nd(input, pad, 0 if value is None else value)
    if mode not in _SOURCES:
        raise NotImplementedError(
            f"Unrecognised padding mode {mode}: one of 'constant', 'reflect', 'replicate', 'circular'"
        )
    if value:
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    pads = _pairs(pad, input.ndim)
    dims = len(pad) // 2
    if not 1 <= dims <= 3 or input.ndim not in (dims + 1, dims + 2):
        raise NotImplementedError(
            f"Padding size {len(pad)} is not supported for {input.ndim}D input tensor: mode {mode!r} takes 2 widths "
            "for (N, C, L), 4 for (N, C, H, W) and 6 for (N, C, D, H, W), or without N"
        )
    if 0 in input.shape[-dims - 1 :]:
        raise RuntimeError(
            f"pad: only the batch may be empty with mode {mode!r}, but got input of size {list(input.shape)}"
        )
    if mode == "circular":  # what is left after cutting goes round
        input = constant_pad_nd(input, [min(0, operator.index(n)) for n in pad])
        pads = tuple((max(0, before), max(0, after)) for before, after in pads)
    sizes = input.shape[-dims:]
    limit = {"reflect": [n - 1 for n in sizes], "circular": sizes}.get(mode)
    for axis, (n, (before, after)) in enumerate(zip(sizes, pads[-dims:], strict=True)):
        if limit is not None and max(before, after) > limit[axis]:
            raise RuntimeError(
                f"Padding size should be at most {limit[axis]} for a dimension of length {n} and mode {mode!r}, but "
                f"got: padding ({before}, {after}) at dimension {input.ndim - dims + axis} of input "
                f"{list(input.shape)}"
            )
        if n + before + after < 1:
            raise RuntimeError(
                f"pad: input {list(input.shape)} is too small: padding ({before}, {after}) leaves nothing of dimension "
                f"{input.ndim - dims + axis}"
            )
    maps = tuple(_map(mode, n, *widths) for n, widths in zip(sizes, pads[-dims:], strict=True))
    out: Tensor = resample_primitive(input, maps=maps)
    return out

"""Interpolation between the pixels of (N, C, L), (N, C, H, W) or (N, C, D, H, W).

Every mode is a linear map along each dimension by itself: which pixels an output pixel is made of, and with which
weights. The maps are built here, PyTorch's conventions and all; ``kernels.resample`` applies them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..kernels.resample import LinearMap
from .padding import resample_primitive

__all__: list[str] = []  # what distgrad itself offers

Array = np.ndarray[Any, Any]

_DIMS = {"linear": (1,), "bilinear": (2,), "bicubic": (2,), "trilinear": (3,), "lanczos": (2,)}  # of the others, any
_ALIGNED = ("linear", "bilinear", "bicubic", "trilinear")  # modes with a choice of align_corners
_MODES = ("nearest", "nearest-exact", *_DIMS, "area")

# Maps ---------------------------------------------------------------------------------------------------------------


def _step(size: int, target: int, scale: float | None, align_corners: bool, dtype: Any) -> Any:
    """How many input pixels an output pixel is wide, in the precision that PyTorch computes it in."""
    if align_corners:
        return dtype(size - 1) / dtype(target - 1) if target > 1 else dtype(0)
    return dtype(1.0 / scale) if scale is not None and scale > 0 else dtype(size) / dtype(target)


def _nearest(size: int, target: int, scale: float | None, exact: bool, dims: int, dtype: Any) -> LinearMap:
    places = np.arange(target)
    if dims == 2 and not exact and target in (size, 2 * size):  # whatever the scale says
        source = places * size // target
    else:
        # Of a tie that rounding decides, as PyTorch: two dimensions are computed in float32, then all rounded to it.
        dtype = np.float32 if dims == 2 else dtype
        step = _step(size, target, scale, False, dtype)
        place = (places.astype(dtype) + dtype(0.5 if exact else 0)) * step
        source = np.floor(place.astype(np.float32)).astype(np.intp)
    return LinearMap((target, size), places, np.minimum(source, size - 1))


def _coordinates(size: int, target: int, scale: float | None, align_corners: bool, dtype: Any) -> Array:
    """Where in the input the centre of each output pixel lies; 0 is the centre of the first."""
    step = _step(size, target, scale, align_corners, dtype)
    places = np.arange(target, dtype=dtype)
    coordinates: Array = step * places if align_corners else step * (places + dtype(0.5)) - dtype(0.5)
    return coordinates


def _map_of_taps(size: int, target: int, first: Array, weights: Sequence[Array]) -> LinearMap:
    """Tap t of output pixel i is input pixel first[i] + t, or that of the edge beyond it."""
    rows = np.tile(np.arange(target), len(weights))
    columns = np.concatenate([first + t for t in range(len(weights))])
    return LinearMap((target, size), rows, np.clip(columns, 0, size - 1), np.concatenate(weights))


def _linear(size: int, target: int, scale: float | None, align_corners: bool, dtype: Any) -> LinearMap:
    place = np.maximum(_coordinates(size, target, scale, align_corners, dtype), 0)
    first = np.minimum(np.floor(place).astype(np.intp), size - 1)
    share = np.clip(place - first.astype(dtype), 0, 1)
    return _map_of_taps(size, target, first, (1 - share, share))


def _cubic_kernel(distance: Array, a: float) -> Array:
    """Keys' kernel (1981): cubic on [0, 1] and on [1, 2], with slope ``a`` at 1."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0)).astype(distance.dtype)


def _cubic(size: int, target: int, scale: float | None, align_corners: bool, dtype: Any) -> LinearMap:
    place = _coordinates(size, target, scale, align_corners, dtype)
    first = np.floor(place)
    share = place - first
    weights = [_cubic_kernel(share - dtype(t), -0.75) for t in (-1, 0, 1, 2)]
    return _map_of_taps(size, target, first.astype(np.intp) - 1, weights)


def _area(size: int, target: int) -> LinearMap:
    """The windows of adaptive average pooling."""
    starts = np.arange(target) * size // target
    counts = -(-(np.arange(target) + 1) * size // target) - starts
    return _map_of_windows(size, starts, counts, np.repeat(1 / counts, counts))


def _map_of_windows(size: int, starts: Array, counts: Array, weights: Array) -> LinearMap:
    """Output pixel i is made of the ``counts[i]`` input pixels from ``starts[i]`` on."""
    rows = np.repeat(np.arange(len(starts)), counts)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts - starts, counts)
    return LinearMap((len(starts), size), rows, columns, weights)


def _sinc_window(distance: Array) -> Array:
    """Lanczos' kernel of three lobes on each side."""
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)


_FILTERS: dict[str, tuple[int, Callable[[Array], Array]]] = {  # reach on each side in output pixels, and the filter
    "bilinear": (1, lambda distance: np.maximum(0, 1 - np.abs(distance))),
    "bicubic": (2, lambda distance: _cubic_kernel(distance, -0.5)),
    "lanczos": (3, _sinc_window),
}


def _antialiased(size: int, target: int, scale: float | None, align_corners: bool, mode: str, dtype: Any) -> LinearMap:
    """A filter as wide as an output pixel where that is wider than an input pixel; its weights sum to one."""
    reach, kernel = _FILTERS[mode]
    step = _step(size, target, scale, align_corners, dtype)
    width = max(step, dtype(1))
    centre = step * (np.arange(target, dtype=dtype) + dtype(0.5))
    starts = np.maximum((centre - reach * width + dtype(0.5)).astype(np.intp), 0)
    counts = np.minimum((centre + reach * width + dtype(0.5)).astype(np.intp), size) - starts
    unweighted = _map_of_windows(size, starts, counts, np.empty(0))
    distance = (unweighted.column.astype(dtype) - centre[unweighted.row] + dtype(0.5)) / width
    weights = kernel(distance)
    weights = weights / np.bincount(unweighted.row, weights, target)[unweighted.row]
    return LinearMap((target, size), unweighted.row, unweighted.column, weights)


def _map(
    mode: str,
    size: int,
    target: int,
    scale: float | None,
    align_corners: bool,
    antialias: bool,
    dims: int,
    dtype: Any,
) -> LinearMap | None:
    if mode.startswith("nearest"):
        return _nearest(size, target, scale, mode == "nearest-exact", dims, dtype)
    if size == target and (scale is None or antialias or mode != "bicubic"):
        return None  # whatever the scale says
    if mode == "area":
        return _area(size, target)
    if antialias:
        return _antialiased(size, target, scale, align_corners, mode, dtype)
    return (_cubic if mode == "bicubic" else _linear)(size, target, scale, align_corners, dtype)


# The function -------------------------------------------------------------------------------------------------------


def _per_dimension(value: Any, what: str, name: str, sizes: Sequence[int]) -> list[Any]:
    """``value`` for each of the dimensions, checked against their number."""
    if not isinstance(value, (tuple, list)):
        return [value] * len(sizes)
    if len(value) != len(sizes):
        raise ValueError(
            f"Input and {what} must have the same number of spatial dimensions, but got input with spatial dimensions "
            f"of {list(sizes)} and {what} of {tuple(value)}. Please provide input tensor in (N, C, d1, d2, ...,dK) "
            f"format and {name} as one number or one for each of d1 to dK."
        )
    return list(value)


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """``input`` at another resolution, as ``torch.nn.functional.interpolate``.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W), of floating point, or uint8 with the modes "nearest" and
            "nearest-exact".
        size: lengths of the result behind the channels, or one for all of them.
        scale_factor: instead of ``size``: how many times longer the result is, rounded down.
        mode: "nearest" (PyTorch's old choice, up to a pixel off), "nearest-exact", "linear" (one dimension),
            "bilinear" (two), "bicubic" (two), "trilinear" (three), "area" (adaptive average pooling) or "lanczos" (two,
            only with ``antialias``).
        align_corners: of the linear and cubic modes, whether the centres of the corner pixels keep their places, rather
            than the outer edges.
        recompute_scale_factor: with ``scale_factor``, whether the positions follow from the rounded lengths rather than
            from the factor as given.
        antialias: of "bilinear", "bicubic" and "lanczos": when shrinking, filter away what the result cannot show.

    Returns:
        (N, C, *size), of the input's dtype.

    Raises:
        ValueError: neither or both of ``size`` and ``scale_factor``, a wrong number of them, or an option that the mode
            doesn't have.
        NotImplementedError: an unknown mode, one that is not for so many dimensions, or a dtype that it is not for.
        RuntimeError: a result without pixels.
        TypeError: a size that is not made of whole numbers.
    """
    sizes = tuple(input.shape[2:])
    if align_corners is not None and mode not in _ALIGNED:
        raise ValueError(
            f"align_corners option can only be set with the interpolating modes {', '.join(_ALIGNED)}, not with {mode}"
        )
    if (size is None) == (scale_factor is None):
        which = "either" if size is None else "only one of"
        raise ValueError(f"{which} size or scale_factor should be defined")
    if size is not None and recompute_scale_factor:
        raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
    scales: list[float | None] = [None] * len(sizes)
    if size is not None:
        given = _per_dimension(size, "output size", "size", sizes)
        try:
            target = tuple(operator.index(n) for n in given)
        except TypeError:
            raise TypeError(f"interpolate: size must be an int or a tuple of ints, not {size!r}") from None
    else:
        factors = [float(s) for s in _per_dimension(scale_factor, "scale_factor", "scale_factor", sizes)]
        target = tuple(math.floor(n * s) for n, s in zip(sizes, factors, strict=True))
        if not recompute_scale_factor:
            scales = [*factors]
    if mode not in _MODES or len(sizes) not in _DIMS.get(mode, (1, 2, 3)):
        expected = _DIMS.get(mode)
        needs = f", but {mode} mode needs {expected[0] + 2}D input" if expected else f" and the mode {mode!r}"
        raise NotImplementedError(
            f"Got {input.ndim}D input{needs}: there are {', '.join(_MODES)} for 3D (N, C, L), 4D or 5D inputs"
        )
    if antialias and mode not in _FILTERS:
        raise ValueError(f"Anti-alias option is restricted to the modes {', '.join(_FILTERS)}, not {mode}")
    if mode == "lanczos" and not antialias:
        raise ValueError("Lanczos mode requires antialias=True")
    if min(*sizes, *target) < 1 or input.shape[1] == 0:
        raise RuntimeError(
            f"Input and output sizes should be greater than 0, but got input {list(input.shape)} and output size "
            f"{list(target)}"
        )
    if input.dtype.kind != "f" and not (mode.startswith("nearest") and input.dtype == np.uint8):
        raise NotImplementedError(
            f'"interpolate" with mode {mode!r} not implemented for {input.dtype}; call float() first'
        )
    dtype = np.float64 if input.dtype == np.float64 else np.float32
    maps = tuple(
        _map(mode, n, wanted, scale, bool(align_corners), antialias, len(sizes), dtype)
        for n, wanted, scale in zip(sizes, target, scales, strict=True)
    )
    out: Tensor = resample_primitive(input, maps=maps)
    return out

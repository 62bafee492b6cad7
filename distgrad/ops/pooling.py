"""Pooling over windows of (N, C, H, W), or of (N, C, L) as images of height 1."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode
from ..autograd.primitive import Primitive, define
from ..kernels import adaptive_pooling
from ..kernels import pooling as kernels
from ..kernels.pixel_pooling import Window
from .convolution import Lengths, lengths
from .elementwise import where
from .positions import gather, scatter
from .promotion import cast
from .samples import all_values, is_batched
from .shape import reshape

__all__ = [  # what distgrad itself offers
    "adaptive_avg_pool1d",
    "adaptive_max_pool1d",
    "avg_pool1d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
]

Sizes = int | Sequence[int | None] | None


def _max_pool2d_forward(
    input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Any, tuple[Any, bool]]:
    window = kernel_size, stride, padding, dilation, ceil_mode
    if kernels.has_runs(input) and not mode.enabled:  # nobody will ask for a gradient
        return kernels.max_pool2d_values(input, *window), (None, True)
    output, places = kernels.max_pool2d_places(input, *window)
    return output, (places, kernels.has_runs(input))


def _avg_pool2d_forward(input: Any, window: Any) -> tuple[Any, tuple[bool]]:
    return kernels.avg_pool2d(input, *window), (kernels.has_runs(input),)


def _avg_pool2d_adjoint_forward(input: Any, shape: Any, window: Any, hwnc: bool) -> Any:
    kernel_size, stride, padding, ceil_mode, include, divisor = window
    return kernels.avg_pool2d_adjoint(input, shape, kernel_size, stride, padding, ceil_mode, include, divisor, hwnc)


def _adaptive_avg_pool2d_forward(input: Any, output_size: Any) -> tuple[Any, tuple[bool]]:
    return adaptive_pooling.adaptive_avg_pool2d(input, output_size), (kernels.has_runs(input),)


# A gradient has the memory order of what it is the gradient of: ``hwnc``.
_max_pool2d: Primitive = define(
    "MaxPool2D",
    _max_pool2d_forward,
    ("input",),
    residuals=("places", "hwnc"),
    input=lambda g, places, hwnc, input_shape, kernel_size, stride, padding, dilation: _max_pool2d_adjoint(
        g,
        places=places,
        shape=input_shape,
        window=Window(kernel_size, stride, padding, dilation),
        hwnc=hwnc,
    ),
)
_max_pool2d_adjoint: Primitive = define(
    "MaxPool2DAdjoint",
    lambda input, places, shape, window, hwnc: kernels.max_pool2d_adjoint(input, places, shape, window, hwnc),
    ("input",),
    input=lambda g, places, window, hwnc: _max_pool2d_at(g, places=places, window=window, hwnc=hwnc),
)
_max_pool2d_at: Primitive = define(
    "MaxPool2DAt",
    lambda input, places, window, hwnc: kernels.max_pool2d_at(input, places, window),
    ("input",),
    input=lambda g, places, window, hwnc, input_shape: _max_pool2d_adjoint(
        g, places=places, shape=input_shape, window=window, hwnc=hwnc
    ),
)
_max_pool2d_indices: Primitive = define(  # places alone
    "MaxPool2DIndices",
    lambda input, kernel_size, stride, padding, dilation, ceil_mode: kernels.max_pool2d(
        input, kernel_size, stride, padding, dilation, ceil_mode
    )[1],
    ("input",),
)
_adaptive_max_pool2d_indices: Primitive = define(
    "AdaptiveMaxPool2DIndices",
    lambda input, output_size: adaptive_pooling.adaptive_max_pool2d(input, output_size)[1],
    ("input",),
)
_scatter: Primitive = define(
    "MaxPool2DScatter",
    lambda input, indices, shape: kernels.max_pool2d_scatter(input, indices, shape),
    ("input",),
    input=lambda g, indices: _gather(g, indices=indices),
)
_gather: Primitive = define(
    "MaxPool2DGather",
    lambda input, indices: kernels.max_pool2d_gather(input, indices),
    ("input",),
    input=lambda g, indices, input_shape: _scatter(g, indices=indices, shape=input_shape),
)
_max_unpool2d: Primitive = define(
    "MaxUnpool2D",
    lambda input, indices, output_size: kernels.max_unpool2d(input, indices, output_size),
    ("input",),
    input=lambda g, indices: _gather(g, indices=indices),
)
_avg_pool2d: Primitive = define(
    "AvgPool2D",
    _avg_pool2d_forward,
    ("input",),
    residuals=("hwnc",),
    input=lambda g, input_shape, window, hwnc: _avg_pool2d_adjoint(g, shape=input_shape, window=window, hwnc=hwnc),
)
_avg_pool2d_adjoint: Primitive = define(
    "AvgPool2DAdjoint",
    _avg_pool2d_adjoint_forward,
    ("input",),
    input=lambda g, window: _avg_pool2d(g, window=window),
)
_adaptive_avg_pool2d: Primitive = define(
    "AdaptiveAvgPool2D",
    _adaptive_avg_pool2d_forward,
    ("input",),
    residuals=("hwnc",),
    input=lambda g, input_shape, hwnc: _adaptive_avg_pool2d_adjoint(g, shape=input_shape, hwnc=hwnc),
)
_adaptive_avg_pool2d_adjoint: Primitive = define(
    "AdaptiveAvgPool2DAdjoint",
    lambda input, shape, hwnc: adaptive_pooling.adaptive_avg_pool2d_adjoint(input, shape, hwnc),
    ("input",),
    input=lambda g, input_shape: _adaptive_avg_pool2d(g, output_size=input_shape[2:]),
)

# Arguments ----------------------------------------------------------------------------------------------------------


def _images(name: str, dims: int, input: Tensor, floating: bool = True) -> Tensor:
    """The input as (N, C, H, W), with N = 1 for one image and H = 1 for rows."""
    if input.ndim not in (dims + 1, dims + 2) or 0 in input.shape[-dims - 1 :]:
        layout = "(N, C, L) or (C, L)" if dims == 1 else "(N, C, H, W) or (C, H, W)"
        raise RuntimeError(
            f"{name}: Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with optional 0 dim batch size for "
            f"input, {layout}, but got: {list(input.shape)}"
        )
    if input.dtype.kind == "b" or (floating and input.dtype.kind != "f"):
        raise NotImplementedError(f'"{name}" not implemented for {input.dtype}; call float() first')
    batch = tuple(input.shape) if input.ndim == dims + 2 else (1, *input.shape)
    shape = (*batch[:2], 1, *batch[2:]) if dims == 1 else batch
    return input if shape == input.shape else reshape(input, shape)


def _like(output: Tensor, input: Tensor, dims: int) -> Tensor:
    """What ``_images`` added, taken away from a result."""
    shape = (*input.shape[:-dims], *output.shape[-dims:])
    return output if shape == output.shape else reshape(output, shape)


def _pair(values: tuple[int, ...], neutral: int) -> tuple[int, int]:
    """The values of two dimensions; of one, those of a row as an image."""
    vertical, horizontal = (neutral, *values)[-2:]
    return vertical, horizontal


def _window(
    name: str,
    dims: int,
    images: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None,
    padding: Lengths,
    dilation: Lengths,
    ceil_mode: bool,
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel size, stride, padding and dilation as pairs, which fit the images."""
    kernel = lengths(kernel_size, f"{name}: kernel_size", dims)
    # an empty list is no stride either
    step = lengths(stride, f"{name}: stride", dims) if isinstance(stride, int) or stride else kernel
    paddings = lengths(padding, f"{name}: padding", dims, least=0)
    dilations = lengths(dilation, f"{name}: dilation", dims)
    for size, p in zip(kernel, paddings, strict=True):
        if p > size // 2:
            raise RuntimeError(
                f"{name}: pad should be at most half of kernel size, but got pad={p} and kernel_size={size}"
            )
    pairs = _pair(kernel, 1), _pair(step, 1), _pair(paddings, 0), _pair(dilations, 1)
    found = tuple(images.shape[-dims:])
    sizes = kernels.pool2d_output_shape(tuple(images.shape), *pairs, ceil_mode)[-dims:]
    if min(sizes) < 1:
        raise RuntimeError(
            f"{name}: Given input size: {list(found)} and kernel size: {list(kernel)}. Calculated output size: "
            f"{list(sizes)}. Output size is too small"
        )
    for n, k, s, p, d in zip(found, kernel, step, paddings, dilations, strict=True):
        if any((start % d) >= n for start in range(-p, 0, s)):
            raise RuntimeError(
                f"{name}: with kernel_size={k}, padding={p} and dilation={d} a window over a dimension of length {n} "
                "holds nothing but padding. Use a smaller padding or dilation."
            )
    return pairs


def _output_size(name: str, dims: int, input: Tensor, output_size: Any) -> tuple[int, int]:
    """The size of an adaptive pooling, with the input's own lengths for None."""
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * dims
    try:
        sizes = [None if n is None and dims > 1 else operator.index(n) for n in given]
    except TypeError:
        raise TypeError(f"{name}: output_size must be a tuple of {dims} ints, not {output_size!r}") from None
    if len(sizes) != dims or any(n is not None and n < 0 for n in sizes):
        raise RuntimeError(
            f"{name}: output_size must be one or {dims} lengths, each greater than or equal to 0, not {output_size!r}"
        )
    found = tuple(n if size is None else size for size, n in zip(sizes, input.shape[-dims:], strict=True))
    return _pair(found, 1)


# Maxima -------------------------------------------------------------------------------------------------------------


def _max_pool(name: str, dims: int, input: Tensor, *window: Any) -> Tensor:
    images = _images(name, dims, input, floating=False)
    kernel, stride, padding, dilation = _window(name, dims, images, *window)
    out = _max_pool2d(
        images, kernel_size=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=window[-1]
    )
    return _like(out, input, dims)


def _max_pool_with_indices(name: str, dims: int, input: Tensor, *window: Any) -> tuple[Tensor, Tensor]:
    images = _images(name, dims, input, floating=False)
    kernel, stride, padding, dilation = _window(name, dims, images, *window)
    indices = _max_pool2d_indices(
        images.detach(), kernel_size=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=window[-1]
    )
    return _chosen(images, indices, input, dims)


def _chosen(images: Tensor, indices: Tensor, input: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    values = _at_places(images, indices) if is_batched(indices) else _gather(images, indices=indices._data)
    return _like(values, input, dims), _like(cast(indices, np.int64), input, dims)


def _planes(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, C, H * W)."""
    return reshape(x, (*x.shape[:2], x.shape[2] * x.shape[3]))


def _at_places(images: Tensor, indices: Tensor) -> Tensor:
    """What ``_gather`` does, with places that differ from sample to sample of a vmap."""
    return reshape(gather(_planes(images), 2, _planes(cast(indices, np.int64))), tuple(indices.shape))


def max_pool1d(
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    dilation: Lengths = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """``max_pool2d`` over one dimension: (N, C, L) or (C, L)."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    dilation: Lengths = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest element of each window; at a tie the gradient goes to the first.

    Args:
        input: (N, C, H, W) or (C, H, W), of any dtype but bool.
        kernel_size: the window.
        stride: its step, the window itself without it.
        padding: minus infinities on each side, at most half the window.
        dilation: distance between the elements of a window.
        ceil_mode: also count a last window that reaches over the edge.

    Raises:
        RuntimeError: an input of other dimensions, or a window that does not fit it.
        NotImplementedError: an input of bools.
        TypeError: a kernel size, stride, padding or dilation that is not made of whole numbers.
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    dilation: Lengths = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """``max_pool1d``, and where in its row each maximum was, int64."""
    return _max_pool_with_indices("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    dilation: Lengths = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """``max_pool2d``, and where in its plane each maximum was: y * W + x, int64."""
    return _max_pool_with_indices("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)


def _adaptive_max_pool(name: str, dims: int, input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    images = _images(name, dims, input)
    indices = _adaptive_max_pool2d_indices(images.detach(), output_size=_output_size(name, dims, input, output_size))
    return _chosen(images, indices, input, dims)


def adaptive_max_pool1d(input: Tensor, output_size: Sizes) -> tuple[Tensor, Tensor]:
    """``adaptive_max_pool2d`` over one dimension: (N, C, L) or (C, L)."""
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size)


def adaptive_max_pool2d(input: Tensor, output_size: Sizes) -> tuple[Tensor, Tensor]:
    """The largest element of each of the windows that divide a plane into ``output_size`` (None keeps a length), and
    where in its plane it was: y * W + x, int64.

    Args:
        input: (N, C, H, W) or (C, H, W), of floating point.
        output_size: height and width of the results, or one number for both.

    Raises:
        RuntimeError: an input of other dimensions, or a negative size.
        NotImplementedError: an input that is not of floating point.
        TypeError: a size that is not made of whole numbers.
    """
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size)


def _max_unpool(
    name: str,
    dims: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None,
    padding: Lengths,
    output_size: Sequence[int] | None,
) -> Tensor:
    images = _images(name, dims, input, floating=False)
    if indices.dtype != np.int64:
        raise RuntimeError(f"{name}: elements in indices should be type int64 but got: {indices.dtype}")
    if indices.shape != input.shape:
        raise RuntimeError(
            f"{name}: Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got "
            f"indices tensor with shape: {list(indices.shape)}"
        )
    kernel = lengths(kernel_size, f"{name}: kernel_size", dims)
    step = lengths(stride, f"{name}: stride", dims) if isinstance(stride, int) or stride else kernel
    paddings = lengths(padding, f"{name}: padding", dims, least=0)
    smallest = tuple(
        (n - 1) * s + k - 2 * p for n, s, k, p in zip(input.shape[-dims:], step, kernel, paddings, strict=True)
    )
    sizes = smallest if output_size is None else tuple(map(operator.index, output_size))
    if len(sizes) == dims + 2:
        sizes = sizes[-dims:]
    if len(sizes) != dims:
        raise ValueError(
            f"{name}: output_size should be a sequence containing {dims} or {dims + 2} elements, but it has a length "
            f"of '{len(sizes)}'"
        )
    for axis, (size, default, s) in enumerate(zip(sizes, smallest, step, strict=True)):
        if output_size is not None and not default - s < size < default + s:
            raise ValueError(
                f'{name}: invalid output_size "{tuple(sizes)}" (dim {axis} must be between {default - s} and '
                f"{default + s})"
            )
    pixels = int(np.prod(sizes))
    places = all_values(indices)
    if places.size and (places.min() < 0 or places.max() >= pixels):
        wrong = places.min() if places.min() < 0 else places.max()
        raise RuntimeError(
            f"{name}: Found an invalid max index: {wrong} (output volumes are of size {'x'.join(map(str, sizes))})"
        )
    if is_batched(indices):
        empty = Tensor(np.zeros((*images.shape[:2], pixels), images.dtype))
        filled = scatter(empty, 2, _planes(reshape(indices, tuple(images.shape))), _planes(images))
        return _like(reshape(filled, (*images.shape[:2], *_pair(sizes, 1))), input, dims)
    kept = places.astype(kernels.index_dtype(pixels)).reshape(images.shape)
    return _like(_max_unpool2d(images, indices=kept, output_size=_pair(sizes, 1)), input, dims)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """``max_unpool2d`` over one dimension: (N, C, L) or (C, L)."""
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """The maxima back where they were, and zeros elsewhere; of several for one place the last stays.

    Args:
        input: (N, C, H, W) or (C, H, W), maxima of ``max_pool2d_with_indices``.
        indices: of the same shape, from there as well.
        kernel_size: as there.
        stride: as there.
        padding: as there.
        output_size: the size of the planes that were pooled, since several give maxima of the same size; the smallest
            of them without it.

    Raises:
        RuntimeError: shapes that do not fit together, or indices outside the output.
        ValueError: an ``output_size`` that cannot have been pooled to the input's.
        TypeError: a kernel size, stride or padding that is not made of whole numbers.
    """
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


# Means --------------------------------------------------------------------------------------------------------------


def _avg_pool(
    name: str,
    dims: int,
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None,
    padding: Lengths,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
) -> Tensor:
    if divisor == 0:
        raise RuntimeError(f"{name}: divisor must be not zero, but got divisor_override=0")
    images = _images(name, dims, input)
    kernel, step, paddings, _ = _window(name, dims, images, kernel_size, stride, padding, 1, ceil_mode)
    out = _avg_pool2d(images, window=(kernel, step, paddings, ceil_mode, count_include_pad, divisor))
    return _like(out, input, dims)


def avg_pool1d(
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """``avg_pool2d`` over one dimension: (N, C, L) or (C, L)."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window.

    Args:
        input: (N, C, H, W) or (C, H, W), of floating point.
        kernel_size: the window.
        stride: its step, the window itself without it.
        padding: zeros on each side, at most half the window.
        ceil_mode: also count a last window that reaches over the edge.
        count_include_pad: whether the zeros of the padding count in the mean.
        divisor_override: what to divide the sum of a window by, instead of how many elements it has.

    Raises:
        RuntimeError: an input of other dimensions, or a window that does not fit it; a divisor of 0.
        NotImplementedError: an input that is not of floating point.
        TypeError: a kernel size, stride or padding that is not made of whole numbers.
    """
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _adaptive_avg_pool(name: str, dims: int, input: Tensor, output_size: Any) -> Tensor:
    images = _images(name, dims, input)
    out = _adaptive_avg_pool2d(images, output_size=_output_size(name, dims, input, output_size))
    return _like(out, input, dims)


def adaptive_avg_pool1d(input: Tensor, output_size: Sizes) -> Tensor:
    """``adaptive_avg_pool2d`` over one dimension: (N, C, L) or (C, L)."""
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Sizes) -> Tensor:
    """The mean over windows that divide each plane into ``output_size`` (None keeps a length).

    Args:
        input: (N, C, H, W) or (C, H, W), of floating point.
        output_size: height and width of the result, or one number for both.

    Raises:
        RuntimeError: an input of other dimensions, or a negative size.
        NotImplementedError: an input that is not of floating point.
        TypeError: a size that is not made of whole numbers.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def _lp_pool(
    name: str,
    dims: int,
    input: Tensor,
    norm_type: float,
    kernel_size: Lengths,
    stride: Lengths | None,
    ceil_mode: bool,
) -> Tensor:
    if norm_type == 0:
        raise ZeroDivisionError(f"{name}: there is no norm of norm_type 0")
    elements = int(np.prod(lengths(kernel_size, f"{name}: kernel_size", dims)))
    mean = _avg_pool(name, dims, input**norm_type, kernel_size, stride, 0, ceil_mode, True)
    # The slope of a root at 0 is infinite; PyTorch gives such a window no gradient.
    mean = where(mean != 0, mean, 0.0)
    out: Tensor = (mean * float(elements)) ** (1.0 / norm_type)
    return out


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Lengths, stride: Lengths | None = None, ceil_mode: bool = False
) -> Tensor:
    """``lp_pool2d`` over one dimension: (N, C, L) or (C, L)."""
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Lengths, stride: Lengths | None = None, ceil_mode: bool = False
) -> Tensor:
    """The p-norm of each window, (sum of x^p)^(1/p), without absolute values: for an odd p the sum may be negative.

    Args:
        input: (N, C, H, W) or (C, H, W), of floating point.
        norm_type: p; 1 gives sums, infinity is not the maximum here.
        kernel_size: the window.
        stride: its step, the window itself without it.
        ceil_mode: also count a last window that reaches over the edge, as if its mean were that of a whole one.

    Raises:
        RuntimeError: an input of other dimensions, or a window that does not fit it.
        NotImplementedError: an input that is not of floating point.
        ZeroDivisionError: a ``norm_type`` of 0.
    """
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)

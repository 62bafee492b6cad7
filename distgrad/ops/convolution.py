"""Convolution over one, two or three dimensions: three operations that are one another's derivatives, so that any order
of derivative closes over them.

With y = conv(x, w), each is linear in both operands: the gradient of x is ``conv_input(g, w)``, that of w is
``conv_weight(x, g)``, and the VJPs of those two are again among the three. A transposed convolution is ``conv_input``
itself. A bias is added where the result is made, without a second array of its size.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels import convolution_nd as kernels
from .padding import _constant_pad
from .reduction import _sum
from .shape import reshape

__all__ = [  # what distgrad itself offers
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

Lengths = int | Sequence[int]


def _per_channel(g: Any) -> Any:
    return _sum(g, dims=(0, *range(2, g.ndim)), keepdim=False, dtype=g.dtype)


_conv: Primitive = define(
    "Convolution",
    lambda input, weight, bias, stride, padding, dilation, groups: kernels.conv(
        input, weight, stride, padding, dilation, groups, bias
    ),
    ("input", "weight", "bias"),
    input=lambda g, weight, input_shape, stride, padding, dilation, groups: _conv_input(
        g, weight, None, input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
    weight=lambda g, input, weight_shape, stride, padding, dilation, groups: _conv_weight(
        input, g, weight_shape=weight_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
    bias=lambda g: _per_channel(g),
)
_conv_input: Primitive = define(
    "ConvolutionInput",
    lambda grad_output, weight, bias, input_shape, stride, padding, dilation, groups: kernels.biased(
        kernels.conv_input(grad_output, weight, input_shape, stride, padding, dilation, groups), bias
    ),
    ("grad_output", "weight", "bias"),
    grad_output=lambda g, weight, stride, padding, dilation, groups: _conv(
        g, weight, None, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
    weight=lambda g, grad_output, weight_shape, stride, padding, dilation, groups: _conv_weight(
        g, grad_output, weight_shape=weight_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
    bias=lambda g: _per_channel(g),
)
_conv_weight: Primitive = define(
    "ConvolutionWeight",
    lambda input, grad_output, weight_shape, stride, padding, dilation, groups: kernels.conv_weight(
        input, grad_output, weight_shape, stride, padding, dilation, groups
    ),
    ("input", "grad_output"),
    input=lambda g, grad_output, input_shape, stride, padding, dilation, groups: _conv_input(
        grad_output, g, None, input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
    grad_output=lambda g, input, stride, padding, dilation, groups: _conv(
        input, g, None, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
)


def lengths(value: Any, name: str, dims: int, least: int = 1) -> tuple[int, ...]:
    """One number for all of ``dims`` dimensions, or one for each of them.

    Raises:
        RuntimeError: another number of numbers, or one that is less than ``least``.
        TypeError: something that is no whole number.
    """
    try:
        given = tuple(map(operator.index, value)) if isinstance(value, (tuple, list)) else (operator.index(value),)
    except TypeError:
        raise TypeError(f"{name} must be an int or a tuple of {dims} ints, not {value!r}") from None
    values = given * dims if len(given) == 1 else given
    if len(values) != dims or any(v < least for v in values):
        raise RuntimeError(f"{name} must be an int or a tuple of {dims} ints, each at least {least}, not {value!r}")
    return values


def _check_operands(name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """What has to hold of every convolution and its transpose."""
    if input.ndim not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got input of size: "
            f"{list(input.shape)}"
        )
    if weight.ndim != dims + 2:
        raise RuntimeError(
            f"{name} expects a weight of {dims + 2} dimensions, channels first, but got weight of size "
            f"{list(weight.shape)}"
        )
    if groups < 1:
        raise RuntimeError(f"non-positive groups is not supported, but got groups={groups}")
    if weight.shape[0] % groups or weight.shape[0] == 0:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least 1 and divisible by {groups} at dimension 0, but "
            f"got weight of size {list(weight.shape)} instead"
        )
    if min(weight.shape[2:]) < 1:
        raise RuntimeError(f"kernel size should be greater than zero, but got weight of size {list(weight.shape)}")
    operands = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    for operand, tensor in operands.items():
        if input.dtype != tensor.dtype or input.dtype.kind == "b":
            raise RuntimeError(
                f"{name}: Input type ({input.dtype}) and {operand} type ({tensor.dtype}) should be the same"
            )


def _check_channels(
    input: Tensor, weight: Tensor, bias: Tensor | None, given: str, channels: int, filters: int, dims: int
) -> None:
    found = input.shape[-dims - 1]
    if found != channels:
        raise RuntimeError(
            f"Given {given}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have {channels} "
            f"channels, but got {found} channels instead"
        )
    if bias is not None and tuple(bias.shape) != (filters,):
        raise RuntimeError(
            f"Given {given}, weight of size {list(weight.shape)}, expected bias to be 1-dimensional with {filters} "
            f"elements, but got bias of size {list(bias.shape)} instead"
        )


def _convolve(
    name: str,
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Lengths,
    padding: Lengths | str,
    dilation: Lengths,
    groups: int,
) -> Tensor:
    _check_operands(name, dims, input, weight, bias, groups)
    strides, dilations = lengths(stride, "stride", dims), lengths(dilation, "dilation", dims)
    extents = tuple(d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True))
    uneven = (0,) * dims
    if not isinstance(padding, str):
        paddings = lengths(padding, "padding", dims, least=0)
    elif padding == "valid":
        paddings = (0,) * dims
    elif padding == "same":
        if strides != (1,) * dims:
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        # An odd sum means one zero less in front: the first window of an even padding is left out.
        paddings, uneven = tuple((e + 1) // 2 for e in extents), tuple(e % 2 for e in extents)
    else:
        raise RuntimeError(f"Invalid padding string: {padding!r}, should be one of 'valid', 'same'")
    _check_channels(input, weight, bias, f"groups={groups}", weight.shape[1] * groups, weight.shape[0], dims)
    padded = [n + 2 * p for n, p in zip(input.shape[-dims:], paddings, strict=True)]
    if any(n <= e for n, e in zip(padded, extents, strict=True)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({_by(padded)}). Kernel size: ({_by(e + 1 for e in extents)}). "
            "Kernel size can't be greater than actual input size"
        )
    batch = input if input.ndim == dims + 2 else reshape(input, (1, *input.shape))
    out: Tensor = _conv(batch, weight, bias, stride=strides, padding=paddings, dilation=dilations, groups=groups)
    if any(uneven):
        out = _constant_pad(out, pads=((0, 0), (0, 0), *((-u, 0) for u in uneven)), value=0)
    return out if batch is input else reshape(out, tuple(out.shape[1:]))


def _by(numbers: Any) -> str:
    return " x ".join(map(str, numbers))


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths | str = 0,
    dilation: Lengths = 1,
    groups: int = 1,
) -> Tensor:
    """``conv2d`` over one dimension: (N, C, L) or (C, L) with a weight (K, C / groups, k) to (N, K, Lo) or (K, Lo)."""
    return _convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths | str = 0,
    dilation: Lengths = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation in two dimensions, as ``torch.nn.functional.conv2d``.

    Args:
        input: (N, C, H, W), or (C, H, W) for one image.
        weight: (K, C / groups, kh, kw), of the input's dtype.
        bias: (K,), of the input's dtype.
        stride: step of the window.
        padding: zeros on each side, or "valid" (none) or "same" (output as large as the input; stride 1 only; where an
            odd number of zeros is needed, the last one lies behind the input).
        dilation: distance between the taps of the kernel.
        groups: input and output channels are split into this many independent convolutions.

    Returns:
        (N, K, Ho, Wo) with Ho = (H + 2 padding - dilation (kh - 1) - 1) // stride + 1.

    Raises:
        RuntimeError: shapes or dtypes that do not fit together; the message shows the arithmetic.
        TypeError: a stride, padding or dilation that is not made of whole numbers.
    """
    return _convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths | str = 0,
    dilation: Lengths = 1,
    groups: int = 1,
) -> Tensor:
    """``conv2d`` over three dimensions: (N, C, D, H, W) or (C, D, H, W), and a weight (K, C / groups, kd, kh, kw)."""
    return _convolve("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def _convolve_transposed(
    name: str,
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Lengths,
    padding: Lengths,
    output_padding: Lengths,
    groups: int,
    dilation: Lengths,
) -> Tensor:
    _check_operands(name, dims, input, weight, bias, groups)
    strides, dilations = lengths(stride, "stride", dims), lengths(dilation, "dilation", dims)
    paddings = lengths(padding, "padding", dims, least=0)
    extra = lengths(output_padding, "output_padding", dims, least=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise RuntimeError(
            f"output padding must be smaller than either stride or dilation, but got output_padding={extra}, "
            f"stride={strides}, dilation={dilations}"
        )
    filters = weight.shape[1] * groups
    _check_channels(input, weight, bias, f"transposed=1, groups={groups}", weight.shape[0], filters, dims)
    found = input.shape[-dims:]
    if min(found) < 1:
        raise RuntimeError(f"{name}: only the batch may be empty, but got input of size: {list(input.shape)}")
    sizes = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(found, strides, paddings, dilations, weight.shape[2:], extra, strict=True)
    )
    if min(sizes) < 1:
        raise RuntimeError(
            f"Given input size per channel: ({_by(found)}). Calculated output size per channel: ({_by(sizes)}). Output "
            "size is too small"
        )
    batch = input if input.ndim == dims + 2 else reshape(input, (1, *input.shape))
    # Where the output is longer by whole strides, it is that of an input with so many zeros behind it.
    behind = tuple(e // s for e, s in zip(extra, strides, strict=True))
    padded = _constant_pad(batch, pads=((0, 0), (0, 0), *((0, b) for b in behind)), value=0) if any(behind) else batch
    shape = (batch.shape[0], filters, *sizes)
    out: Tensor = _conv_input(
        padded, weight, bias, input_shape=shape, stride=strides, padding=paddings, dilation=dilations, groups=groups
    )
    return out if batch is input else reshape(out, shape[1:])


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths = 0,
    output_padding: Lengths = 0,
    groups: int = 1,
    dilation: Lengths = 1,
) -> Tensor:
    """``conv_transpose2d`` over one dimension: (N, C, L) or (C, L), and a weight (C, K / groups, k)."""
    return _convolve_transposed(
        "conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths = 0,
    output_padding: Lengths = 0,
    groups: int = 1,
    dilation: Lengths = 1,
) -> Tensor:
    """The transpose of ``conv2d`` as a linear map, as ``torch.nn.functional.conv_transpose2d``: each pixel adds its
    multiple of the kernel to the output.

    Args:
        input: (N, C, H, W), or (C, H, W) for one image.
        weight: (C, K / groups, kh, kw), of the input's dtype.
        bias: (K,), of the input's dtype.
        stride: distance in the output of neighbouring pixels.
        padding: how much of the output is cut off at each side.
        output_padding: how much of it is left on at the end, less than the stride or the dilation.
        groups: input and output channels are split into this many independent convolutions.
        dilation: distance between the taps of the kernel.

    Returns:
        (N, K, Ho, Wo) with Ho = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1.

    Raises:
        RuntimeError: shapes or dtypes that do not fit together; the message shows the arithmetic.
        TypeError: a stride, padding, output_padding or dilation that is not made of whole numbers.
    """
    return _convolve_transposed(
        "conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths = 0,
    output_padding: Lengths = 0,
    groups: int = 1,
    dilation: Lengths = 1,
) -> Tensor:
    """``conv_transpose2d`` over three dimensions: (N, C, D, H, W) or (C, D, H, W)."""
    return _convolve_transposed(
        "conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )

"""Convolution: three operations that are one another's derivatives, so that any order of derivative closes over them.

With y = conv2d(x, w), each is linear in both operands: the gradient of x is ``conv2d_input(g, w)``, that of w is
``conv2d_weight(x, g)``, and the VJPs of those two are again among the three.
"""

from __future__ import annotations

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels import convolution as kernels
from .shape import reshape

__all__ = [  # what distgrad itself offers
    "conv2d",
]

Pair = int | tuple[int, int]

_conv2d: Primitive = define(
    "Convolution",
    lambda input, weight, stride, padding, dilation, groups: kernels.conv2d(
        input, weight, stride, padding, dilation, groups
    ),
    ("input", "weight"),
    input=lambda g, weight, input_shape, stride, padding, dilation, groups: _conv2d_input(
        g, weight, input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
    weight=lambda g, input, weight_shape, stride, padding, dilation, groups: _conv2d_weight(
        input, g, weight_shape=weight_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
)
_conv2d_input: Primitive = define(
    "ConvolutionInput",
    lambda grad_output, weight, input_shape, stride, padding, dilation, groups: kernels.conv2d_input(
        grad_output, weight, input_shape, stride, padding, dilation, groups
    ),
    ("grad_output", "weight"),
    grad_output=lambda g, weight, stride, padding, dilation, groups: _conv2d(
        g, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
    weight=lambda g, grad_output, weight_shape, stride, padding, dilation, groups: _conv2d_weight(
        g, grad_output, weight_shape=weight_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
)
_conv2d_weight: Primitive = define(
    "ConvolutionWeight",
    lambda input, grad_output, weight_shape, stride, padding, dilation, groups: kernels.conv2d_weight(
        input, grad_output, weight_shape, stride, padding, dilation, groups
    ),
    ("input", "grad_output"),
    input=lambda g, grad_output, input_shape, stride, padding, dilation, groups: _conv2d_input(
        grad_output, g, input_shape=input_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
    grad_output=lambda g, input, stride, padding, dilation, groups: _conv2d(
        input, g, stride=stride, padding=padding, dilation=dilation, groups=groups
    ),
)


def pair(value: Pair, name: str, least: int = 1) -> tuple[int, int]:
    """One number for both directions, or a pair (vertical, horizontal)."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or any(not isinstance(v, int) or v < least for v in values):
        raise ValueError(f"{name} must be an int or a pair of ints, each at least {least}, not {value!r}")
    return values[0], values[1]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation in two dimensions, as ``torch.nn.functional.conv2d``.

    Args:
        input: (N, C, H, W), or (C, H, W) for one image.
        weight: (K, C / groups, kh, kw).
        bias: (K,).
        stride: step of the window.
        padding: zeros on each side, or "valid" (none) or "same" (output as large as the input; stride 1 only).
        dilation: distance between the taps of the kernel.
        groups: input and output channels are split into this many independent convolutions.

    Returns:
        (N, K, Ho, Wo) with Ho = (H + 2 padding - dilation (kh - 1) - 1) // stride + 1.

    Raises:
        RuntimeError: shapes or dtypes that do not fit together; the message shows the arithmetic.
    """
    if input.ndim == 3:
        out = conv2d(reshape(input, (1, *input.shape)), weight, bias, stride, padding, dilation, groups)
        return reshape(out, tuple(out.shape[1:]))
    strides, dilations = pair(stride, "stride"), pair(dilation, "dilation")
    if input.ndim != 4 or weight.ndim != 4:
        raise RuntimeError(
            f"conv2d: expected an input (N, C, H, W) or (C, H, W) and a weight (K, C / groups, kh, kw), got "
            f"{list(input.shape)} and {list(weight.shape)}"
        )
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"Invalid padding string {padding!r}, should be one of 'valid', 'same'")
        if padding == "same" and strides != (1, 1):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        extents = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        if padding == "same" and any(extent % 2 for extent in extents):
            raise RuntimeError(
                f"padding='same' with a kernel of even extent {list(weight.shape[2:])} would need unequal padding on "
                "the two sides; pad the input yourself"
            )
        paddings = (0, 0) if padding == "valid" else (extents[0] // 2, extents[1] // 2)
    else:
        paddings = pair(padding, "padding", least=0)
    channels, per_group, filters = input.shape[1], weight.shape[1], weight.shape[0]
    if groups < 1 or filters % groups or channels != per_group * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{per_group * groups} channels, but got {channels} channels instead"
            + (f"; and {filters} filters must be divisible by the groups" if groups < 1 or filters % groups else "")
        )
    if input.dtype != weight.dtype or input.dtype.kind != "f":
        raise RuntimeError(
            f"Input type ({input.dtype}) and weight type ({weight.dtype}) should be the same floating-point type"
        )
    for axis, name in ((0, "height"), (1, "width")):
        padded = input.shape[2 + axis] + 2 * paddings[axis]
        extent = dilations[axis] * (weight.shape[2 + axis] - 1) + 1
        if padded < extent:
            raise RuntimeError(
                f"Calculated padded input size per channel: {padded}. Kernel size: {extent}. Kernel size can't be "
                f"greater than actual input size ({name} of input {list(input.shape)}, padding {paddings[axis]})"
            )
    if bias is not None and tuple(bias.shape) != (filters,):
        raise RuntimeError(
            f"Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with {filters} elements, "
            f"but got bias of size {list(bias.shape)} instead"
        )
    result: Tensor = _conv2d(input, weight, stride=strides, padding=paddings, dilation=dilations, groups=groups)
    return result if bias is None else result + reshape(bias, (1, filters, 1, 1))

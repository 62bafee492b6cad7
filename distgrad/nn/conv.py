"""Convolutional layers."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from ..ops.convolution import Pair, pair
from ..ops.creation import empty
from . import functional as F
from .linear import reset_weight_and_bias
from .module import Module
from .parameter import Parameter


class Conv2d(Module):
    """Cross-correlation in two dimensions: (N, in_channels, H, W) -> (N, out_channels, Ho, Wo).

    Args:
        in_channels: of the input.
        out_channels: of the output, one for each filter.
        kernel_size: height and width of the filters.
        stride: step of the window.
        padding: zeros on each side, or "valid" (none) or "same" (output as large as the input; stride 1 only).
        dilation: distance between the taps of a filter.
        groups: input and output channels are split into this many independent convolutions.
        bias: whether to add one.
        padding_mode: "zeros", the only one here.
        dtype: of the parameters, the default dtype without it.

    Weight (out_channels, in_channels / groups, kh, kw) and bias (out_channels,) start uniform in ±1/sqrt(fan_in), where
    fan_in = in_channels / groups * kh * kw.

    Raises:
        ValueError: groups that do not divide the channels, or an unknown padding.
        NotImplementedError: another padding mode.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if groups <= 0:
            raise ValueError(f"groups must be a positive integer, got {groups}")
        if in_channels % groups:
            raise ValueError(f"in_channels must be divisible by groups, got {in_channels} and {groups}")
        if out_channels % groups:
            raise ValueError(f"out_channels must be divisible by groups, got {out_channels} and {groups}")
        if padding_mode in ("reflect", "replicate", "circular"):
            raise NotImplementedError(f"padding_mode={padding_mode!r} is not supported: pad the input yourself")
        if padding_mode != "zeros":
            raise ValueError(
                "padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', but got "
                f"padding_mode={padding_mode!r}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.dilation = pair(dilation, "dilation")
        self.groups = groups
        self.padding: tuple[int, int] | str
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of 'same', 'valid'")
            if padding == "same" and self.stride != (1, 1):
                raise ValueError("padding='same' is not supported for strided convolutions")
            self.padding = padding
        else:
            self.padding = pair(padding, "padding", least=0)
        self.weight = Parameter(empty(out_channels, in_channels // groups, *self.kernel_size, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        reset_weight_and_bias(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, Ho, Wo), or without N."""
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """The arguments that are not the default."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else f"{text}, bias=False"

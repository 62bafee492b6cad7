"""Convolutional layers, and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor
from ..ops.convolution import Lengths, lengths
from . import functional as F
from .linear import reset_weight_and_bias
from .module import Module
from .parameter import Parameter, new_parameter

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all of them share: the arguments, and parameters of the weight's shape."""

    dims: int
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Lengths,
        stride: Lengths,
        padding: Lengths | str,
        output_padding: Lengths,
        dilation: Lengths,
        groups: int,
        bias: bool,
        padding_mode: str,
        transposed: bool,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        if groups <= 0:
            raise ValueError(f"groups must be a positive integer, got {groups}")
        if in_channels % groups:
            raise ValueError(f"in_channels must be divisible by groups, got {in_channels} and {groups}")
        if out_channels % groups:
            raise ValueError(f"out_channels must be divisible by groups, got {out_channels} and {groups}")
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {_PADDING_MODES}, but got padding_mode={padding_mode!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = lengths(kernel_size, "kernel_size", self.dims)
        self.stride = lengths(stride, "stride", self.dims)
        self.dilation = lengths(dilation, "dilation", self.dims)
        self.output_padding = lengths(output_padding, "output_padding", self.dims, least=0)
        self.padding: tuple[int, ...] | str
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of 'same', 'valid'")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
            self.padding = padding
        else:
            self.padding = lengths(padding, "padding", self.dims, least=0)
        self.groups = groups
        self.padding_mode = padding_mode
        self.transposed = transposed
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = new_parameter((first, second // groups, *self.kernel_size), device, dtype)
        self.register_parameter("bias", new_parameter((out_channels,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        reset_weight_and_bias(self.weight, self.bias)

    def extra_repr(self) -> str:
        """The arguments that are not the default."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.dims:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.dims:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.dims:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"


class _Conv(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Lengths,
        stride: Lengths = 1,
        padding: Lengths | str = 0,
        dilation: Lengths = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            0,
            dilation,
            groups,
            bias,
            padding_mode,
            False,
            device,
            dtype,
        )

    def _widths(self) -> list[int]:
        """The padding as ``F.pad`` takes it, from the last dimension on."""
        widths: list[int] = []
        for axis in reversed(range(self.dims)):
            if isinstance(self.padding, str):
                total = self.dilation[axis] * (self.kernel_size[axis] - 1) if self.padding == "same" else 0
                widths += [total // 2, total - total // 2]
            else:
                widths += [self.padding[axis]] * 2
        return widths

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, *size) -> (N, out_channels, *output size), or without N."""
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.dims - 1]
        padding: tuple[int, ...] | str | int = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._widths(), self.padding_mode), 0
        return convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Lengths,
        stride: Lengths = 1,
        padding: Lengths = 0,
        output_padding: Lengths = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Lengths = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}, not {padding_mode!r}')
        if isinstance(padding, str):
            raise TypeError(f"{type(self).__name__}: padding must be an int or a tuple of ints, not {padding!r}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            dilation,
            groups,
            bias,
            padding_mode,
            True,
            device,
            dtype,
        )

    def _output_padding(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """What to leave on at the end for ``output_size``, which may begin with batch and channels."""
        if output_size is None:
            return self.output_padding
        found, wanted = tuple(input.shape[-self.dims :]), tuple(output_size)
        lead = input.ndim - self.dims
        if len(wanted) == self.dims + lead:
            wanted = wanted[lead:]
        if len(wanted) != self.dims:
            raise ValueError(
                f"{type(self).__name__}: for {input.ndim}D input, output_size must have {self.dims} or "
                f"{self.dims + lead} elements (got {len(wanted)})"
            )
        assert not isinstance(self.padding, str)
        smallest = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(found, self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        )
        largest = tuple(n + s - 1 for n, s in zip(smallest, self.stride, strict=True))
        if any(not low <= n <= high for low, n, high in zip(smallest, wanted, largest, strict=True)):
            raise ValueError(
                f"requested an output size of {wanted}, but valid sizes range from {list(smallest)} to {list(largest)} "
                f"(for an input of {list(found)})"
            )
        return tuple(n - low for n, low in zip(wanted, smallest, strict=True))

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, *size) -> (N, out_channels, *output size), or without N.

        Args:
            input: what to convolve.
            output_size: of the result, with or without (N, out_channels); decides among the sizes that a strided
                convolution would bring to that of the input. Without it ``output_padding`` does.
        """
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.dims - 1]
        extra = self._output_padding(input, output_size)
        assert not isinstance(self.padding, str)
        return convolve(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)


class Conv1d(_Conv):
    """Cross-correlation in one dimension: (N, in_channels, L) -> (N, out_channels, Lo); arguments as of ``Conv2d``."""

    dims = 1


class Conv2d(_Conv):
    """Cross-correlation in two dimensions: (N, in_channels, H, W) -> (N, out_channels, Ho, Wo).

    Args:
        in_channels: of the input.
        out_channels: of the output, one for each filter.
        kernel_size: height and width of the filters.
        stride: step of the window.
        padding: pixels added on each side, or "valid" (none) or "same" (output as large as the input; stride 1 only).
        dilation: distance between the taps of a filter.
        groups: input and output channels are split into this many independent convolutions.
        bias: whether to add one.
        padding_mode: what is added: "zeros", or as in ``F.pad`` "reflect", "replicate" or "circular".
        device: "cpu" or None.
        dtype: of the parameters, the default dtype without it.

    Weight (out_channels, in_channels / groups, kh, kw) and bias (out_channels,) start uniform in ±1/sqrt(fan_in), where
    fan_in = in_channels / groups * kh * kw.

    Raises:
        ValueError: groups that do not divide the channels, or an unknown padding or mode.
        RuntimeError: another number of lengths, or one that is too small.
    """

    dims = 2


class Conv3d(_Conv):
    """Cross-correlation in three dimensions: (N, in_channels, D, H, W) -> (N, out_channels, Do, Ho, Wo).

    Arguments as of ``Conv2d``.
    """

    dims = 3


class ConvTranspose1d(_ConvTranspose):
    """The transpose of ``Conv1d``: (N, in_channels, L) -> (N, out_channels, Lo).

    Arguments as of ``ConvTranspose2d``.
    """

    dims = 1


class ConvTranspose2d(_ConvTranspose):
    """The transpose of ``Conv2d``, each pixel of the input adding its multiple of the filters to the output:
    (N, in_channels, H, W) -> (N, out_channels, Ho, Wo).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: height and width of the filters.
        stride: distance in the output of neighbouring pixels.
        padding: how much of the output is cut off at each side.
        output_padding: how much of it is left on at the end, less than the stride or the dilation.
        groups: input and output channels are split into this many independent convolutions.
        bias: whether to add one.
        dilation: distance between the taps of a filter.
        padding_mode: "zeros", the only one.
        device: "cpu" or None.
        dtype: of the parameters, the default dtype without it.

    Weight (in_channels, out_channels / groups, kh, kw) and bias (out_channels,) start uniform in ±1/sqrt(fan_in), where
    fan_in = out_channels / groups * kh * kw, as in PyTorch.

    Raises:
        ValueError: groups that do not divide the channels, or another padding mode.
        RuntimeError: another number of lengths, or one that is too small.
    """

    dims = 2


class ConvTranspose3d(_ConvTranspose):
    """The transpose of ``Conv3d``: (N, in_channels, D, H, W) -> (N, out_channels, Do, Ho, Wo).

    Arguments as of ``ConvTranspose2d``.
    """

    dims = 3

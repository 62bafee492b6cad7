"""Pooling layers, of (N, C, H, W) or (C, H, W), and in one dimension of (N, C, L) or (C, L)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor
from ..ops.convolution import Lengths, lengths
from ..ops.pooling import Sizes
from . import functional as F
from .module import Module


class _MaxPool(Module):
    def __init__(
        self,
        kernel_size: Lengths,
        stride: Lengths | None = None,
        padding: Lengths = 0,
        dilation: Lengths = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def _window(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window along the last dimension; arguments as of ``MaxPool2d``."""

    def forward(self, input: Tensor) -> Any:
        """(N, C, L) -> (N, C, Lo), and the indices where they were asked for."""
        return F.max_pool1d(input, *self._window())


class MaxPool2d(_MaxPool):
    """The largest element of each window.

    Args:
        kernel_size: the window.
        stride: its step, the window itself without it.
        padding: minus infinities on each side, at most half the window.
        dilation: distance between the elements of a window.
        return_indices: also give where in its plane each maximum was, which ``MaxUnpool2d`` takes.
        ceil_mode: also count a last window that reaches over the edge.
    """

    def forward(self, input: Tensor) -> Any:
        """(N, C, H, W) -> (N, C, Ho, Wo), and the indices where they were asked for."""
        return F.max_pool2d(input, *self._window())


class _MaxUnpool(Module):
    dims: int

    def __init__(self, kernel_size: Lengths, stride: Lengths | None = None, padding: Lengths = 0) -> None:
        super().__init__()
        self.kernel_size = lengths(kernel_size, "kernel_size", self.dims)
        self.stride = self.kernel_size if stride is None else lengths(stride, "stride", self.dims)
        self.padding = lengths(padding, "padding", self.dims, least=0)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Maxima of ``MaxPool1d`` back where they were, zeros elsewhere; arguments as of ``MaxUnpool2d``."""

    dims = 1

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, C, L) and indices of that shape -> (N, C, Lo)."""
        return F.max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(_MaxUnpool):
    """Maxima of ``MaxPool2d`` back where they were, zeros elsewhere.

    Args:
        kernel_size: of the pooling.
        stride: of the pooling, the window itself without it.
        padding: of the pooling.
    """

    dims = 2

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, C, H, W) and indices of that shape -> (N, C, Ho, Wo), the smallest that fits without ``output_size``."""
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class AvgPool1d(Module):
    """The mean of each window along the last dimension; arguments as of ``AvgPool2d``."""

    def __init__(
        self,
        kernel_size: Lengths,
        stride: Lengths | None = None,
        padding: Lengths = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = lengths(kernel_size, "kernel_size", 1)
        self.stride = self.kernel_size if stride is None else lengths(stride, "stride", 1)
        self.padding = lengths(padding, "padding", 1, least=0)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) -> (N, C, Lo)."""
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(Module):
    """The mean of each window.

    Args:
        kernel_size: the window.
        stride: its step, the window itself without it.
        padding: zeros on each side, at most half the window.
        ceil_mode: also count a last window that reaches over the edge.
        count_include_pad: whether the zeros of the padding count in the mean.
        divisor_override: what to divide the sum of a window by, instead of how many elements it has.
    """

    def __init__(
        self,
        kernel_size: Lengths,
        stride: Lengths | None = None,
        padding: Lengths = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, Ho, Wo)."""
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        """The arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptivePool(Module):
    def __init__(self, output_size: Sizes) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"


class _AdaptiveMaxPool(_AdaptivePool):
    def __init__(self, output_size: Sizes, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices


class AdaptiveAvgPool1d(_AdaptivePool):
    """The mean over windows that divide the last dimension into a given number.

    Args:
        output_size: length of the output.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) -> (N, C, output_size)."""
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptivePool):
    """The mean over windows that divide each plane into a given number.

    Args:
        output_size: height and width of the output; None keeps the input's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, *output_size)."""
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest element of windows that divide the last dimension into a given number.

    Args:
        output_size: length of the output.
        return_indices: also give where in its row each maximum was.
    """

    def forward(self, input: Tensor) -> Any:
        """(N, C, L) -> (N, C, output_size), and the indices where they were asked for."""
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest element of windows that divide each plane into a given number.

    Args:
        output_size: height and width of the output; None keeps the input's.
        return_indices: also give where in its plane each maximum was.
    """

    def forward(self, input: Tensor) -> Any:
        """(N, C, H, W) -> (N, C, *output_size), and the indices where they were asked for."""
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class _LPPool(Module):
    def __init__(
        self, norm_type: float, kernel_size: Lengths, stride: Lengths | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The p-norm of each window along the last dimension; arguments as of ``LPPool2d``."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) -> (N, C, Lo)."""
        return F.lp_pool1d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool2d(_LPPool):
    """The p-norm of each window, without absolute values.

    Args:
        norm_type: p.
        kernel_size: the window.
        stride: its step, the window itself without it.
        ceil_mode: also count a last window that reaches over the edge.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, Ho, Wo)."""
        return F.lp_pool2d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

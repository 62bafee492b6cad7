"""Layers between images and the columns of their windows."""

from __future__ import annotations

from ..autograd import Tensor
from ..ops.convolution import Lengths
from . import functional as F
from .module import Module


class Unfold(Module):
    """Each window of the images as a column: (N, C, H, W) -> (N, C * kh * kw, windows).

    Args:
        kernel_size: the window.
        dilation: distance between the elements of a window.
        padding: zeros on each side.
        stride: step of the window.
    """

    def __init__(self, kernel_size: Lengths, dilation: Lengths = 1, padding: Lengths = 0, stride: Lengths = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C * kh * kw, windows), or without N."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Module):
    """Columns added up to images, the adjoint of ``Unfold``: (N, C * kh * kw, windows) -> (N, C, H, W).

    Args:
        output_size: height and width of the images.
        kernel_size: the window.
        dilation: distance between the elements of a window.
        padding: zeros on each side, which are left out of the result.
        stride: step of the window.
    """

    def __init__(
        self,
        output_size: Lengths,
        kernel_size: Lengths,
        dilation: Lengths = 1,
        padding: Lengths = 0,
        stride: Lengths = 1,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        """(N, C * kh * kw, windows) -> (N, C, H, W), or without N."""
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )

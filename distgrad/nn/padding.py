"""Layers that put something around their input; an int as ``padding`` is the width on all sides."""

from __future__ import annotations

from ..autograd import Tensor
from . import functional as F
from .module import Module


class _Pad(Module):
    """What the padding layers share: their widths, and how many dimensions these are for."""

    dims: int
    mode: str
    value: float | None = None

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self.dims) if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        """The input with its last dimensions padded."""
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The widths."""
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        """The arguments."""
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_Pad):
    mode = "constant"
    value = 0.0


class _CircularPad(_Pad):
    mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        """The input with its last dimensions padded."""
        if input.ndim not in (self.dims + 1, self.dims + 2):
            raise ValueError(f"expected {self.dims + 1}D or {self.dims + 2}D input (got {input.ndim}D input)")
        return super().forward(input)


class ConstantPad1d(_ConstantPad):
    """``value`` around the last dimension.

    Args:
        padding: (left, right), or one number for both; negative numbers cut.
        value: what to add.
    """

    dims = 1


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two dimensions.

    Args:
        padding: (left, right, top, bottom), or one number for all; negative numbers cut.
        value: what to add.
    """

    dims = 2


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three dimensions.

    Args:
        padding: (left, right, top, bottom, front, back), or one number for all; negative numbers cut.
        value: what to add.
    """

    dims = 3


class ZeroPad1d(_ZeroPad):
    """Zeros around the last dimension; ``padding`` as in ``ConstantPad1d``."""

    dims = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two dimensions; ``padding`` as in ``ConstantPad2d``."""

    dims = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three dimensions; ``padding`` as in ``ConstantPad3d``."""

    dims = 3


class ReflectionPad1d(_Pad):
    """(N, C, L) mirrored at its edge elements, each width less than the length; as in ``ConstantPad1d``."""

    dims, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """(N, C, H, W) mirrored at its edge pixels, each width less than the length; as in ``ConstantPad2d``."""

    dims, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """(N, C, D, H, W) mirrored at its edge voxels, each width less than the length; as in ``ConstantPad3d``."""

    dims, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The edge elements of (N, C, L) repeated; ``padding`` as in ``ConstantPad1d``."""

    dims, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The edge pixels of (N, C, H, W) repeated; ``padding`` as in ``ConstantPad2d``."""

    dims, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The edge voxels of (N, C, D, H, W) repeated; ``padding`` as in ``ConstantPad3d``."""

    dims, mode = 3, "replicate"


class CircularPad1d(_CircularPad):
    """(N, C, L) continued from its other end, each width at most the length; as in ``ConstantPad1d``."""

    dims = 1


class CircularPad2d(_CircularPad):
    """(N, C, H, W) continued from the opposite edges, each width at most the length; as in ``ConstantPad2d``."""

    dims = 2


class CircularPad3d(_CircularPad):
    """(N, C, D, H, W) continued from the opposite faces, each width at most the length; as in ``ConstantPad3d``."""

    dims = 3

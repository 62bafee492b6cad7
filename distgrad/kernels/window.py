"""Where the windows of a convolution or pooling lie, along one dimension."""

from __future__ import annotations


def window_count(size: int, kernel_size: int, stride: int, padding: int, dilation: int, ceil_mode: bool = False) -> int:
    """How many windows fit along a dimension of ``size`` pixels: PyTorch's rule for convolution and pooling.

    ``(size + 2*padding - dilation*(kernel_size - 1) - 1) / stride + 1``, rounded down, or up if ``ceil_mode``; a last
    window that rounding up would start in the padding behind the input is left out. Not positive if none fits.
    """
    span = size + 2 * padding - dilation * (kernel_size - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def overlap(count: int, start: int, step: int, size: int) -> tuple[slice, slice]:
    """Which positions ``start + i*step``, ``0 <= i < count``, lie in ``[0, size)``: a slice of ``i``, a slice of them.

    Both slices have the same length and non-negative ends; that of ``i`` has step 1.
    """
    first = min(count, max(0, -(start // step)))
    last = max(first, min(count, (size - 1 - start) // step + 1))
    if first == last:
        return slice(0, 0), slice(0, 0)
    return slice(first, last), slice(start + first * step, start + (last - 1) * step + 1, step)

"""Pooling over windows of (N, C, H, W)."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels import pooling as kernels
from .convolution import Pair, pair
from .shape import reshape


def _max_pool2d_forward(
    input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Any, tuple[Any]]:
    output, indices = kernels.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)
    return output, (indices,)


_max_pool2d: Primitive = define(
    "MaxPool2D",
    _max_pool2d_forward,
    ("input",),
    residuals=("indices",),
    input=lambda g, indices, input_shape: _scatter(g, indices=indices, shape=input_shape),
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
_avg_pool2d: Primitive = define(
    "AvgPool2D",
    lambda input, window: kernels.avg_pool2d(input, *window),
    ("input",),
    input=lambda g, input_shape, window: _avg_pool2d_adjoint(g, shape=input_shape, window=window),
)
_avg_pool2d_adjoint: Primitive = define(
    "AvgPool2DAdjoint",
    lambda input, shape, window: kernels.avg_pool2d_adjoint(input, shape, *window),
    ("input",),
    input=lambda g, window: _avg_pool2d(g, window=window),
)
_adaptive_avg_pool2d: Primitive = define(
    "AdaptiveAvgPool2D",
    lambda input, output_size: kernels.adaptive_avg_pool2d(input, output_size),
    ("input",),
    input=lambda g, input_shape: _adaptive_avg_pool2d_adjoint(g, shape=input_shape),
)
_adaptive_avg_pool2d_adjoint: Primitive = define(
    "AdaptiveAvgPool2DAdjoint",
    lambda input, shape: kernels.adaptive_avg_pool2d_adjoint(input, shape),
    ("input",),
    input=lambda g, input_shape: _adaptive_avg_pool2d(g, output_size=input_shape[2:]),
)


def _batched(input: Tensor, name: str) -> Tensor:
    if input.ndim == 3:
        return reshape(input, (1, *input.shape))
    if input.ndim != 4:
        raise RuntimeError(f"{name}: expected an input (N, C, H, W) or (C, H, W), got {list(input.shape)}")
    return input


def _like(output: Tensor, input: Tensor) -> Tensor:
    return reshape(output, tuple(output.shape[1:])) if input.ndim == 3 else output


def _check_window(
    name: str,
    input: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    ceil_mode: bool,
) -> None:
    for axis in (0, 1):
        if padding[axis] > kernel[axis] // 2:
            raise RuntimeError(
                f"{name}: pad should be at most half of effective kernel size, but got pad={padding[axis]} and "
                f"kernel_size={kernel[axis]}"
            )
    sizes = kernels.pool2d_output_shape(tuple(input.shape), kernel, stride, padding, dilation, ceil_mode)[2:]
    if min(sizes) < 1:
        raise RuntimeError(
            f"{name}: Given input size {list(input.shape)} and kernel {list(kernel)}, the calculated output size "
            f"{list(sizes)} is too small"
        )


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest element of each window; at a tie the gradient goes to the first. (N, C, H, W) or (C, H, W).

    Args:
        input: what to pool.
        kernel_size: the window.
        stride: its step, the window itself without it.
        padding: minus infinities on each side, at most half the window.
        dilation: distance between the elements of a window.
        ceil_mode: also count a last window that reaches over the edge.
    """
    kernel = pair(kernel_size, "kernel_size")
    paddings, dilations = pair(padding, "padding", least=0), pair(dilation, "dilation")
    step = kernel if stride is None else pair(stride, "stride")
    batched = _batched(input, "max_pool2d")
    _check_window("max_pool2d", batched, kernel, step, paddings, dilations, ceil_mode)
    out = _max_pool2d(
        batched,
        kernel_size=kernel,
        stride=step,
        padding=paddings,
        dilation=dilations,
        ceil_mode=ceil_mode,
    )
    return _like(out, input)


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window. Arguments as ``max_pool2d``; ``count_include_pad`` counts the zeros of the padding."""
    kernel, paddings = pair(kernel_size, "kernel_size"), pair(padding, "padding", least=0)
    step = kernel if stride is None else pair(stride, "stride")
    batched = _batched(input, "avg_pool2d")
    _check_window("avg_pool2d", batched, kernel, step, paddings, (1, 1), ceil_mode)
    return _like(_avg_pool2d(batched, window=(kernel, step, paddings, ceil_mode, count_include_pad)), input)


def adaptive_avg_pool2d(input: Tensor, output_size: int | tuple[int | None, int | None]) -> Tensor:
    """The mean over windows that divide each plane into ``output_size`` (None keeps a length)."""
    batched = _batched(input, "adaptive_avg_pool2d")
    sizes = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(sizes) != 2 or any(size is not None and size < 1 for size in sizes):
        raise RuntimeError(
            f"adaptive_avg_pool2d: output_size must be one or two positive lengths (or None), not {output_size!r}"
        )
    target = tuple(n if size is None else size for size, n in zip(sizes, input.shape[-2:], strict=True))
    return _like(_adaptive_avg_pool2d(batched, output_size=target), input)

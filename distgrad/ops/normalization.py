"""Normalization: of channels over the batch, of groups within a sample, and of neighbouring channels.

The work is in two kernels: ``kernels.batch_norm`` and, for everything that normalizes within a sample,
``kernels.group_norm``. Their backward passes are not differentiable, so each primitive names a decomposition for
recorded ones. Half precision is computed in float32 by both.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.grad_mode import mode, no_grad
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from ..kernels import batch_norm as kernels
from ..kernels import group_norm as group_kernels
from .elementwise import sqrt
from .inplace import copy_
from .promotion import cast
from .reduction import mean, var
from .samples import is_batched
from .shape import reshape

# Batch normalization ------------------------------------------------------------------------------------------------

# One pass over the gradient gives those of the input, the weight and the bias: 0, 1 and 2. They are asked for one after
# another, so those that come later wait here, with the gradient that they are of, until their turn.
_Later = dict[int, tuple["weakref.ref[Array]", Array]]


def _train_forward(
    input: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: float,
) -> tuple[Array, tuple[Array, Array, _Later]]:
    """Normalizes with the batch's statistics and moves the running ones towards them, in place, as PyTorch does."""
    output, batch_mean, invstd, biased = kernels.batch_norm_train(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        count = input.size // input.shape[1]
        kernels.move_statistics(running_mean, running_var, batch_mean, biased, count, momentum)
    return output, (batch_mean, invstd, {})


def _eval_forward(
    input: Array, weight: Array | None, bias: Array | None, running_mean: Array, running_var: Array, eps: float
) -> tuple[Array, tuple[Array, Array, _Later]]:
    output = kernels.batch_norm_eval(input, weight, bias, running_mean, running_var, eps)
    return output, (running_mean, kernels.inverse_deviation(running_var.astype(np.float64), eps), {})


def _per_channel(x: Tensor, ndim: int) -> Tensor:
    return reshape(x, (1, -1) + (1,) * (ndim - 2))


def _affine(normalized: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        normalized = normalized * _per_channel(weight, normalized.ndim)
    return normalized if bias is None else normalized + _per_channel(bias, normalized.ndim)


def _in_single(*tensors: Tensor | None) -> list[Tensor | None]:
    """Half precision as float32, for a decomposition to compute in."""
    return [cast(x, np.float32) if x is not None and x.dtype == np.float16 else x for x in tensors]


def _train_decomposition(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, **running: Any
) -> Tensor:
    x, scale, shift = _in_single(input, weight, bias)
    assert x is not None
    dims = (0, *range(2, x.ndim))
    centred = x - mean(x, dims, keepdim=True)
    out = _affine(centred / sqrt(var(x, dims, correction=0, keepdim=True) + eps), scale, shift)
    return cast(out, input.dtype)  # type: ignore[no-any-return]


def _eval_decomposition(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Array, running_var: Array, eps: float
) -> Tensor:
    x, scale, shift = _in_single(input, weight, bias)
    assert x is not None
    centre, spread = (_per_channel(Tensor(v.astype(x.dtype)), x.ndim) for v in (running_mean, running_var))
    return cast(_affine((x - centre) / sqrt(spread + eps), scale, shift), input.dtype)  # type: ignore[no-any-return]


def _gradient(which: int, g: Array, input: Array, weight: Any, mean: Array, invstd: Array, later: _Later) -> Array:
    """That of the input, the weight or the bias."""
    waiting = later.pop(which, None)
    if waiting is not None and waiting[0]() is g:
        return waiting[1]
    found = kernels.batch_norm_train_backward(g, input, weight, mean, invstd, (which == 0, which <= 1, True))
    reference = weakref.ref(g)
    for following in range(which + 1, 3):
        later[following] = reference, found[following]  # type: ignore[assignment]
    return found[which]  # type: ignore[return-value]


def _grad_weight(g: Any, input: Any, weight: Any, mean: Any, invstd: Any, later: Any, weight_dtype: Any) -> Any:
    return _gradient(1, g, input, weight, mean, invstd, later).astype(weight_dtype, copy=False)


def _grad_bias(g: Any, input: Any, weight: Any, mean: Any, invstd: Any, later: Any, bias_dtype: Any) -> Any:
    return _gradient(2, g, input, weight, mean, invstd, later).astype(bias_dtype, copy=False)


_train: Primitive = define(
    "NativeBatchNorm",
    _train_forward,
    ("input", "weight", "bias"),
    residuals=("mean", "invstd", "later"),
    decomposition=_train_decomposition,
    input=lambda g, input, weight, mean, invstd, later: _gradient(0, g, input, weight, mean, invstd, later),
    weight=_grad_weight,
    bias=_grad_bias,
)
_eval: Primitive = define(
    "BatchNormEval",
    _eval_forward,
    ("input", "weight", "bias"),
    residuals=("mean", "invstd", "later"),
    decomposition=_eval_decomposition,
    input=lambda g, weight, invstd: kernels.batch_norm_scale(g, invstd if weight is None else invstd * weight),
    weight=_grad_weight,
    bias=_grad_bias,
)


def _check_channels(input: Tensor, **tensors: Tensor | None) -> int:
    """The number of channels of ``input``, which all tensors have to have as their length."""
    channels = input.shape[1]
    for name, tensor in tensors.items():
        if tensor is not None and tuple(tensor.shape) != (channels,):
            raise RuntimeError(
                f"{name} should contain {channels} elements not {tensor.numel()} (input {list(input.shape)})"
            )
    return channels


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes each channel to mean 0 and variance 1, then scales and shifts it; ``torch.nn.functional.batch_norm``.

    Args:
        input: (N, C, ...).
        running_mean: (C,), used in evaluation and moved, in place, towards the batch's in training.
        running_var: (C,), likewise; it is moved towards the unbiased variance.
        weight: (C,) scale.
        bias: (C,) shift.
        training: normalize with the statistics of this batch.
        momentum: how far the running statistics move.
        eps: added to the variance.

    Raises:
        ValueError: training with one value per channel, whose variance does not exist.
        RuntimeError: a parameter whose length is not C; evaluation without running statistics; integers.
    """
    _check_floating("batch_norm", input)
    if input.ndim < 2:
        raise RuntimeError(f"batch_norm: expected an input (N, C, ...), got {list(input.shape)}")
    channels = _check_channels(input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if training and input.numel() == channels:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    if running_mean is not None and running_var is not None and is_batched(running_mean, running_var):
        return _with_batched_statistics(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if training:
        out: Tensor = _train(
            input,
            weight,
            bias,
            eps=eps,
            running_mean=None if running_mean is None else running_mean._data,
            running_var=None if running_var is None else running_var._data,
            momentum=momentum,
        )
        for statistic in (running_mean, running_var):
            if statistic is not None:
                statistic._changed()
        return out
    if running_mean is None or running_var is None:
        raise RuntimeError("Expected running_mean and running_var to be defined when training=False")
    statistics = running_mean._data, running_var._data
    # A recorded call keeps them, and they may have moved by the time of its backward pass.
    needs = any(x is not None and x.requires_grad for x in (input, weight, bias))
    if needs and mode.enabled and mode.state.batching is None:
        statistics = statistics[0].copy(), statistics[1].copy()
    out = _eval(input, weight, bias, running_mean=statistics[0], running_var=statistics[1], eps=eps)
    return out


def _with_batched_statistics(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """``batch_norm`` inside vmap with running statistics of each sample's own."""
    if not training:
        x, scale, shift = _in_single(input, weight, bias)
        assert x is not None
        centre, spread = (_per_channel(cast(v, x.dtype), x.ndim) for v in (running_mean, running_var))
        evaluated: Tensor = cast(_affine((x - centre) / sqrt(spread + eps), scale, shift), input.dtype)
        return evaluated
    dims = (0, *range(2, input.ndim))
    with no_grad():
        for running, of_batch in ((running_mean, mean(input, dims)), (running_var, var(input, dims))):
            copy_(running, running + momentum * (of_batch - running))
    out: Tensor = _train(input, weight, bias, eps=eps, running_mean=None, running_var=None, momentum=momentum)
    return out


# Normalization within a sample --------------------------------------------------------------------------------------


def _group_decomposition(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    layout: tuple[int, int, int, int],
    eps: float,
    centred: bool,
) -> Tensor:
    x, scale, shift = _in_single(input, weight, bias)
    assert x is not None
    x = reshape(x, layout)
    if centred:
        x = x - mean(x, (2, 3), keepdim=True)
    x = x / sqrt(mean(x * x, (2, 3), keepdim=True) + eps)
    if scale is not None:
        x = x * reshape(scale, (*layout[1:3], 1))
    if shift is not None:
        x = x + reshape(shift, (*layout[1:3], 1))
    return cast(reshape(x, tuple(input.shape)), input.dtype)  # type: ignore[no-any-return]


def _group_forward(input: Any, weight: Any, bias: Any, layout: Any, eps: float, centred: bool) -> tuple[Any, Any]:
    output, mean, rstd = group_kernels.group_norm(input, weight, bias, layout, eps, centred)
    return output, (mean, rstd)


def _define_group_norm(name: str) -> Primitive:
    return define(
        name,
        _group_forward,
        ("input", "weight", "bias"),
        residuals=("mean", "rstd"),
        decomposition=_group_decomposition,
        input=lambda g, input, weight, mean, rstd, layout: group_kernels.group_norm_backward_input(
            g, input, weight, mean, rstd, layout
        ),
        weight=lambda g, input, mean, rstd, layout, weight_shape, weight_dtype: (
            group_kernels.group_norm_backward_weight(g, input, mean, rstd, layout)
            .reshape(weight_shape)
            .astype(weight_dtype)
        ),
        bias=lambda g, layout, bias_shape, bias_dtype: (
            group_kernels.group_norm_backward_bias(g, layout).reshape(bias_shape).astype(bias_dtype)
        ),
    )


_layer_norm = _define_group_norm("NativeLayerNorm")
_group_norm = _define_group_norm("NativeGroupNorm")
_rms_norm = _define_group_norm("FusedRmsNorm")


def _check_floating(name: str, input: Tensor) -> None:
    if not input.is_floating_point():
        raise RuntimeError(f"{name} is not defined for {input.dtype} tensors; convert the input with .float()")


def _check_parameter(name: str, what: str, parameter: Tensor | None, shape: tuple[int, ...], input: Tensor) -> None:
    if parameter is None:
        return
    if tuple(parameter.shape) != shape:
        raise RuntimeError(
            f"{name}: expected {what} to be of same shape as normalized_shape, but got {what} of shape "
            f"{list(parameter.shape)} and normalized_shape = {list(shape)}"
        )
    _check_parameter_dtype(name, what, parameter, input)


def _check_parameter_dtype(name: str, what: str, parameter: Tensor, input: Tensor) -> None:
    if parameter.dtype not in (input.dtype, np.float32 if input.dtype == np.float16 else input.dtype):
        raise RuntimeError(f"{name}: the {what} is {parameter.dtype} and the input {input.dtype}; make them the same")


def _normalized_rows(
    name: str, input: Tensor, normalized_shape: Sequence[int], **parameters: Tensor | None
) -> tuple[int, int, int, int]:
    """The layout of normalizing the last dimensions, which must be ``normalized_shape``."""
    _check_floating(name, input)
    if isinstance(normalized_shape, int):
        raise TypeError(f"{name}(): argument 'normalized_shape' (position 2) must be tuple of ints, not int")
    shape = tuple(int(n) for n in normalized_shape)
    if not shape:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
            "normalized_shape = []"
        )
    for what, parameter in parameters.items():
        _check_parameter(name, what, parameter, shape, input)
    if tuple(input.shape[-len(shape) :]) != shape:
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape [*, {', '.join(map(str, shape))}], but "
            f"got input of size {list(input.shape)}"
        )
    return math.prod(input.shape[: -len(shape)]), 1, math.prod(shape), 1


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes the last dimensions of each sample to mean 0 and variance 1, then scales and shifts (Ba et al., 2016).

    Args:
        input: (..., *normalized_shape).
        normalized_shape: the last dimensions.
        weight: of that shape, a scale.
        bias: of that shape, a shift.
        eps: added to the (biased) variance.

    Raises:
        RuntimeError: shapes that do not fit, or integers.
    """
    layout = _normalized_rows("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    out: Tensor = _layer_norm(input, weight, bias, layout=layout, eps=eps, centred=True)
    return out


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divides the last dimensions of each sample by the root of their mean square (Zhang and Sennrich, 2019).

    Args:
        input: (..., *normalized_shape).
        normalized_shape: the last dimensions.
        weight: of that shape, a scale.
        eps: added to the mean square; without it the distance from 1 to the next number of the dtype.

    Raises:
        RuntimeError: shapes that do not fit, or integers.
    """
    layout = _normalized_rows("rms_norm", input, normalized_shape, weight=weight)
    if eps is None:
        eps = float(np.finfo(np.float64 if input.dtype == np.float64 else np.float32).eps)
    out: Tensor = _rms_norm(input, weight, None, layout=layout, eps=eps, centred=False)
    return out


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalizes groups of channels of each sample, then scales and shifts each channel (Wu and He, 2018).

    Args:
        input: (N, C, ...).
        num_groups: how many groups of neighbouring channels; divides C.
        weight: (C,) scale.
        bias: (C,) shift.
        eps: added to the (biased) variance.

    Raises:
        ValueError: one value in all that is normalized.
        RuntimeError: shapes that do not fit, or integers.
    """
    _check_floating("group_norm", input)
    if input.ndim < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.ndim}")
    batch, channels = input.shape[:2]
    if num_groups <= 0 or channels % num_groups:
        raise RuntimeError(
            f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={num_groups}"
        )
    for what, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            if tuple(parameter.shape) != (channels,):
                raise RuntimeError(
                    f"Expected {what} to be a vector of size equal to the number of channels in input, but got {what} "
                    f"of shape {list(parameter.shape)} and input of shape {list(input.shape)}"
                )
            _check_parameter_dtype("group_norm", what, parameter, input)
    if batch * (channels // num_groups) * math.prod(input.shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(input.shape)}")
    return _by_groups(input, num_groups, weight, bias, eps)


def _by_groups(input: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    layout = (input.shape[0], groups, input.shape[1] // groups, math.prod(input.shape[2:]))
    out: Tensor = _group_norm(input, weight, bias, layout=layout, eps=eps, centred=True)
    return out


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes each channel of each sample, then scales and shifts it (Ulyanov et al., 2016).

    Args:
        input: (N, C, ...).
        running_mean: (C,), moved, in place, towards the mean of the samples'.
        running_var: (C,), likewise, towards the mean of the samples' unbiased variances.
        weight: (C,) scale.
        bias: (C,) shift.
        use_input_stats: normalize with the statistics of each sample; without it with the running ones.
        momentum: how far the running statistics move.
        eps: added to the variance.

    Raises:
        ValueError: samples with one value per channel.
        RuntimeError: a parameter whose length is not C; neither kind of statistics; integers.
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when use_input_stats is false")
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    _check_floating("instance_norm", input)
    if input.ndim < 2:
        raise RuntimeError(f"instance_norm: expected an input (N, C, ...), got {list(input.shape)}")
    channels = _check_channels(input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    size = math.prod(input.shape[2:])
    if size == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    if running_mean is None or running_var is None or not input.numel():
        return _by_groups(input, channels, weight, bias, eps)
    if is_batched(input, running_mean, running_var):
        dims = tuple(range(2, input.ndim))
        with no_grad():
            for running, new in ((running_mean, mean(input, dims)), (running_var, var(input, dims))):
                copy_(running, running + momentum * (mean(new, 0) - running))
    else:
        single = input._data.reshape(1, input.shape[0] * channels, size)
        means, biased = (v.reshape(-1, channels).mean(0) for v in kernels.batch_norm_statistics(single))
        for statistic, new in ((running_mean, means), (running_var, biased * (size / (size - 1)))):
            statistic._data[...] += momentum * (new - statistic._data)
            statistic._changed()
    return _by_groups(input, channels, weight, bias, eps)


# Neighbouring channels ----------------------------------------------------------------------------------------------


def _window_sum(input: Array, before: int, after: int) -> Array:
    """The sum of each channel, ``before`` channels in front of it and ``after`` behind it, as far as there are any."""
    channels = input.shape[1]
    out = input.copy()
    for offset in range(1, min(before, channels - 1) + 1):
        out[:, offset:] += input[:, :-offset]
    for offset in range(1, min(after, channels - 1) + 1):
        out[:, :-offset] += input[:, offset:]
    return out


_channel_window: Primitive = define(
    "ChannelWindow",
    _window_sum,
    ("input",),
    input=lambda g, before, after: _channel_window(g, before=after, after=before),
)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divides by ``(k + alpha * m) ** beta``, m the mean square of the ``size`` nearest channels (Krizhevsky, 2012).

    Channels beyond the first and the last count as 0.

    Args:
        input: (N, C, ...), with at least three dimensions.
        size: how many channels; of an even number one more lies in front than behind.
        alpha: how much the mean square counts.
        beta: the exponent.
        k: what is added.

    Raises:
        ValueError: fewer than three dimensions.
        RuntimeError: a ``size`` that is not positive.
    """
    if input.ndim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {input.ndim} dimensions)")
    if size <= 0:
        raise RuntimeError(f"local_response_norm: size should be greater than zero, but got {size}")
    total: Tensor = _channel_window(input * input, before=size // 2, after=(size - 1) // 2)
    return input / (total * (alpha / size) + k) ** beta

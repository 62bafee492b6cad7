"""Rectifiers: activation functions in pieces. At a kink the gradient is the one that PyTorch's kernels choose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels.select import select
from .activation import _activated, _check_floating
from .comparison import gt
from .elementwise import _check_tensor, _exp, _where, mul, sum_to, where
from .random import Generator, _draw
from .shape import reshape

__all__ = [  # what distgrad itself offers
    "celu",
    "hardshrink",
    "prelu",
    "rrelu",
    "selu",
    "threshold",
]
METHODS = "hardshrink prelu".split()  # what a Tensor offers

# In pieces ----------------------------------------------------------------------------------------------------------


def _leaky_relu_forward(input: Any, negative_slope: float) -> Any:
    out = np.multiply(input, negative_slope, out=np.empty_like(input))
    if 0 < negative_slope <= 1:
        return np.maximum(input, out, out=out)
    return select(input > 0, input, out)


_leaky_relu: Primitive = define(
    "LeakyRelu",
    _leaky_relu_forward,
    ("input",),
    input=lambda g, input, negative_slope: _where(input > 0, g, g * negative_slope),
)


def _elu_forward(input: Any, alpha: float, scale: float, input_scale: float) -> Any:
    # of the two terms one is 0
    out = np.minimum(input, 0, out=np.empty_like(input))
    if input_scale != 1:
        out *= input_scale
    np.expm1(out, out=out)
    out *= alpha
    out += np.maximum(input, 0)
    if scale != 1:
        out *= scale
    return out


def _elu_vjp(g: Any, input: Any, alpha: float, scale: float, input_scale: float) -> Any:
    # the choice inside keeps exp from overflowing on the right, and makes the second derivative at 0 that of PyTorch
    left = _exp(_where(input < 0, input, 0.0) * input_scale)
    return _where(input <= 0, g * (scale * alpha * input_scale * left), g * scale)


_elu: Primitive = define("Elu", _elu_forward, ("input",), input=_elu_vjp)

_hardtanh: Primitive = define(
    "Hardtanh",
    lambda input, min_val, max_val: np.clip(input, min_val, max_val),
    ("input",),
    input=lambda g, input, min_val, max_val: _where((input <= min_val) | (input >= max_val), 0.0, g),
)


def _six(input: Any) -> Any:
    """relu6(input + 3) in an array of its own."""
    out = np.add(input, 3, out=np.empty_like(input))
    return np.clip(out, 0, 6, out=out)


def _hardsigmoid_forward(input: Any) -> Any:
    out = _six(input)
    out /= 6
    return out


def _hardswish_forward(input: Any) -> Any:
    out = _six(input)
    out *= input
    out /= 6
    return out


_hardsigmoid: Primitive = define(
    "Hardsigmoid",
    _hardsigmoid_forward,
    ("input",),
    input=lambda g, input: _where((input > -3) & (input < 3), g * (1 / 6), 0.0),
)
_hardswish: Primitive = define(
    "Hardswish",
    _hardswish_forward,
    ("input",),
    input=lambda g, input: _where(input <= -3, 0.0, _where(input < 3, g * (input / 3.0 + 0.5), g)),
)
_threshold: Primitive = define(
    "Threshold",
    lambda input, threshold, value: select(input <= threshold, value, input),
    ("input",),
    input=lambda g, input, threshold: _where(input <= threshold, 0.0, g),
)
_hardshrink: Primitive = define(
    "Hardshrink",
    lambda input, lambd: select((input >= -lambd) & (input <= lambd), 0, input),
    ("input",),
    input=lambda g, input, lambd: _where((input >= -lambd) & (input <= lambd), 0.0, g),
)


def _softshrink_forward(input: Any, lambd: float) -> Any:
    out = np.clip(input, -lambd, lambd, out=np.empty_like(input))
    return np.subtract(input, out, out=out)


_softshrink: Primitive = define(
    "Softshrink",
    _softshrink_forward,
    ("input",),
    input=lambda g, input, lambd: _where((input >= -lambd) & (input <= lambd), 0.0, g),
)
_prelu: Primitive = define(
    "Prelu",
    lambda input, weight: select(input > 0, input, input * weight),
    ("input", "weight"),
    input=lambda g, input, weight: _where(input > 0, g, g * weight),
    weight=lambda g, input, weight_shape: sum_to(_where(input > 0, 0.0, g * input), weight_shape),
)

# Public functions ---------------------------------------------------------------------------------------------------


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """``input`` where it is positive, else negative_slope * input; the gradient at 0 is ``negative_slope``."""
    return _activated("leaky_relu", _leaky_relu, input, negative_slope=negative_slope)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """``input`` where it is positive, else weight * input, with a learned ``weight``.

    Args:
        input: (N, C, ...) or of any shape.
        weight: of one element, or (C,) with one for each channel; in the dtype of ``input``.

    Raises:
        RuntimeError: the dtypes differ or are not floating-point, or ``weight`` does not fit the channels.

    He et al., "Delving Deep into Rectifiers" (2015).
    """
    _check_floating("prelu", input)
    _check_tensor("prelu", weight, "weight")
    if input.dtype != weight.dtype:
        raise RuntimeError(f"prelu: Type promoting not supported. Got {input.dtype} and {weight.dtype}")
    if weight.ndim > 1:
        raise RuntimeError(f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}")
    if weight.numel() == 1:
        weight = reshape(weight, (1,) * input.ndim)
    else:
        channels = input.shape[1] if input.ndim > 1 else 1
        if weight.numel() != channels:
            raise RuntimeError(
                "prelu: Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{weight.numel()} and channel size = {channels}"
            )
        weight = reshape(weight, (1, channels) + (1,) * (input.ndim - 2))
    out: Tensor = _prelu(input, weight)
    return out


def rrelu(
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """``input`` where it is positive, else a multiple of it: while training a random one for each element.

    Args:
        input: a floating-point tensor.
        lower: the least multiple.
        upper: the largest; the multiples are uniform between the two. Without ``training`` each is their mean.
        training: whether to draw at all.
        generator: where the random numbers come from, ``distgrad.default_generator`` without it.

    Raises:
        RuntimeError: ``lower`` is greater than ``upper``, or one of them not finite.

    Xu et al., "Empirical Evaluation of Rectified Activations in Convolutional Network" (2015).
    """
    for bound, value in (("lower", lower), ("upper", upper)):
        if not math.isfinite(value):
            raise RuntimeError(f"rrelu: {bound} bound must be finite, got {value}")
    if lower > upper:
        raise RuntimeError(
            f"rrelu: Lower bound should be less than or equal to the upper bound, but they are {lower} and {upper}"
        )
    if not training:
        return _activated("rrelu", _leaky_relu, input, negative_slope=(lower + upper) / 2)
    _check_floating("rrelu", input)
    slopes = _draw(
        generator,
        tuple(input.shape),
        lambda stream, size: (lower + (upper - lower) * np.asarray(stream.random(size, dtype=np.float32))).astype(
            input.dtype
        ),
    )
    out: Tensor = where(gt(input, 0), input, mul(input, slopes))
    return out


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """``input`` where it is positive, else alpha * (exp(input) - 1); the gradient at 0 is ``alpha``.

    Clevert et al., "Fast and Accurate Deep Network Learning by Exponential Linear Units (ELUs)" (2015).
    """
    return _activated("elu", _elu, input, alpha=alpha, scale=1.0, input_scale=1.0)


def selu(input: Tensor) -> Tensor:
    """``elu`` with the scale and alpha that keep mean 0 and variance 1 from layer to layer.

    Klambauer et al., "Self-Normalizing Neural Networks" (2017).
    """
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return _activated("selu", _elu, input, alpha=alpha, scale=scale, input_scale=1.0)


def celu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """``input`` where it is positive, else alpha * (exp(input / alpha) - 1); the gradient at 0 is 1 for every alpha.

    Barron, "Continuously Differentiable Exponential Linear Units" (2017).
    """
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _activated("celu", _elu, input, alpha=alpha, scale=1.0, input_scale=1.0 / alpha)


def _limited(name: str, input: Tensor, low: float, high: float) -> Tensor:
    _check_tensor(name, input)
    if low > high:
        raise ValueError(f"{name}: min_val cannot be greater than max_val, but they are {low} and {high}")
    if input.dtype == np.bool_:
        raise RuntimeError(f"Bool inputs not supported for {name}")
    number = float if input.is_floating_point() else int
    low, high = number(low), number(high)
    if input.dtype.kind == "u" and (low < 0 or high < 0):
        raise RuntimeError(f"cannot do {name} on an unsigned type ({input.dtype}) with negative limits")
    out: Tensor = _hardtanh(input, min_val=low, max_val=high)
    return out


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Elements limited to [min_val, max_val], also of integers; the gradient is 1 inside, 0 outside and at the limits.

    Raises:
        ValueError: ``min_val`` is greater than ``max_val``.
        RuntimeError: ``input`` is bool, or unsigned while a limit is negative.
    """
    return _limited("hardtanh", input, min_val, max_val)


def relu6(input: Tensor) -> Tensor:
    """``hardtanh`` with the limits 0 and 6."""
    return _limited("relu6", input, 0.0, 6.0)


def hardsigmoid(input: Tensor) -> Tensor:
    """relu6(input + 3) / 6; the gradient at the kinks -3 and 3 is 0.

    Howard et al., "Searching for MobileNetV3" (2019), as are ``hardswish`` and its kinks.
    """
    return _activated("hardsigmoid", _hardsigmoid, input)


def hardswish(input: Tensor) -> Tensor:
    """The product input * relu6(input + 3) / 6; the gradient at the kinks is 0 at -3 and 1 at 3."""
    return _activated("hardswish", _hardswish, input)


def threshold(input: Tensor, threshold: float, value: float) -> Tensor:
    """``input`` where it is above ``threshold`` (or NaN), else ``value``, also of integers; the gradient there is 0.

    Raises:
        RuntimeError: ``input`` is bool.
    """
    _check_tensor("threshold", input)
    if input.dtype == np.bool_:
        raise RuntimeError("threshold is not defined for bool tensors; convert the input with .to()")
    number = float if input.is_floating_point() else int
    threshold, value = number(threshold), number(value)
    out: Tensor = _threshold(input, threshold=threshold, value=value)
    return out


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """0 from -lambd to lambd, elsewhere ``input``; the gradient at both is 0."""
    return _activated("hardshrink", _hardshrink, input, lambd=lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """``input`` drawn towards 0 by ``lambd``, which is not negative, but not beyond; the gradient at both kinks is 0.

    Raises:
        RuntimeError: ``lambd`` is negative or beyond the largest number of the dtype, or ``input`` not floating-point.
    """
    _check_floating("softshrink", input)
    limit = np.finfo(input.dtype).max
    if not 0 <= lambd <= limit:
        raise RuntimeError(f"softshrink: lambda must be in range [0, {limit}] for {input.dtype}, but found {lambd}")
    return _activated("softshrink", _softshrink, input, lambd=lambd)

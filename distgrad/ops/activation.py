"""Activation functions. At a kink the gradient is the one that PyTorch's kernels choose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .elementwise import _clamp, _exp, _sigmoid, _stable_sigmoid, _tanh, _where
from .transcendental import _erfc, _erfc_forward

# Smooth -------------------------------------------------------------------------------------------------------------


def _log1pexp(x: Any) -> Any:
    """log(1 + exp(x)): exp of minus the magnitude never overflows."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_logsigmoid: Primitive = define(
    "LogSigmoid", lambda input: -_log1pexp(-input), ("input",), input=lambda g, input: g * _sigmoid(-input)
)


def _softplus_forward(input: Any, beta: float, threshold: float) -> Any:
    scaled = input * beta
    return np.where(scaled > threshold, input, _log1pexp(scaled) / beta)


_softplus: Primitive = define(
    "Softplus",
    _softplus_forward,
    ("input",),
    input=lambda g, input, beta, threshold: _where(input * beta > threshold, g, g * _sigmoid(input * beta)),
)


def _silu_slope(x: Any) -> Any:
    # sigmoid(-x) rather than 1 - sigmoid(x), which loses all its digits on the right
    return _sigmoid(x) + x * (_sigmoid(x) * _sigmoid(-x))


_silu: Primitive = define(
    "Silu",
    lambda input: input * _stable_sigmoid(input),
    ("input",),
    input=lambda g, input: g * _silu_slope(input),
)


def _mish_slope(x: Any) -> Any:
    bounded = _tanh(_softplus(x, beta=1.0, threshold=20.0))
    return bounded + x * ((1.0 - bounded * bounded) * _sigmoid(x))


_mish: Primitive = define(
    "Mish",
    lambda input: input * np.tanh(_log1pexp(input)),
    ("input",),
    input=lambda g, input: g * _mish_slope(input),
)

_CUBIC = 0.044715  # of the paper's approximation: Phi(x) is about sigmoid(2 * sqrt(2/pi) * (x + 0.044715 * x**3))


def _gelu_forward(input: Any, approximate: str) -> Any:
    if approximate == "tanh":
        # (1 + tanh(u)) / 2 = sigmoid(2 * u)
        return input * _stable_sigmoid(2 * math.sqrt(2 / math.pi) * input * (1 + _CUBIC * input * input))
    # erfc keeps the left tail, where 1 + erf is 0 long before it should be
    return 0.5 * input * _erfc_forward(-math.sqrt(0.5) * input)


def _gelu_slope(x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        # beyond 20 the slope is 0 or 1 to 250 digits, but a square in it could overflow (in float16 from 256 on)
        x = _clamp(x, min=-20.0, max=20.0)
        twice = 2 * math.sqrt(2 / math.pi)
        exponent = twice * (x + _CUBIC * (x * x * x))
        return _sigmoid(exponent) + x * (_sigmoid(exponent) * _sigmoid(-exponent)) * (
            twice * (1.0 + 3 * _CUBIC * (x * x))
        )
    return 0.5 * _erfc(-math.sqrt(0.5) * x) + x * (_exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi)))


_gelu: Primitive = define(
    "Gelu",
    _gelu_forward,
    ("input",),
    input=lambda g, input, approximate: g * _gelu_slope(input, approximate),
)

# In pieces ----------------------------------------------------------------------------------------------------------

_leaky_relu: Primitive = define(
    "LeakyRelu",
    lambda input, negative_slope: np.where(input > 0, input, input * negative_slope),
    ("input",),
    input=lambda g, input, negative_slope: _where(input > 0, g, g * negative_slope),
)


def _elu_forward(input: Any, alpha: float, scale: float) -> Any:
    return np.where(input > 0, scale * input, scale * alpha * np.expm1(np.minimum(input, 0)))


def _elu_vjp(g: Any, input: Any, alpha: float, scale: float) -> Any:
    # the choice inside keeps exp from overflowing on the right, and makes the second derivative at 0 that of PyTorch
    left = _exp(_where(input < 0, input, 0.0))
    return _where(input <= 0, g * (scale * alpha * left), g * scale)


_elu: Primitive = define("Elu", _elu_forward, ("input",), input=_elu_vjp)

_hardtanh: Primitive = define(
    "Hardtanh",
    lambda input, min_val, max_val: np.clip(input, min_val, max_val),
    ("input",),
    input=lambda g, input, min_val, max_val: _where((input <= min_val) | (input >= max_val), 0.0, g),
)
_hardsigmoid: Primitive = define(
    "Hardsigmoid",
    lambda input: np.clip(input + 3, 0, 6) / 6,
    ("input",),
    input=lambda g, input: _where((input > -3) & (input < 3), g * (1 / 6), 0.0),
)
_hardswish: Primitive = define(
    "Hardswish",
    lambda input: input * np.clip(input + 3, 0, 6) / 6,
    ("input",),
    input=lambda g, input: _where(input <= -3, 0.0, _where(input < 3, g * (input / 3.0 + 0.5), g)),
)

# Public functions ---------------------------------------------------------------------------------------------------


def _check_tensor(name: str, input: Any) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")


def _activated(name: str, primitive: Primitive, input: Any, **keywords: Any) -> Tensor:
    _check_tensor(name, input)
    if not input.is_floating_point():
        raise RuntimeError(f"{name} is not defined for {input.dtype} tensors; convert the input with .float()")
    out: Tensor = primitive(input, **keywords)
    return out


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(input)), without overflow."""
    return _activated("logsigmoid", _logsigmoid, input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * input)) / beta, a smooth ReLU; ``input`` itself where beta * input > threshold."""
    return _activated("softplus", _softplus, input, beta=beta, threshold=threshold)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """``input`` where it is positive, else negative_slope * input; the gradient at 0 is ``negative_slope``."""
    return _activated("leaky_relu", _leaky_relu, input, negative_slope=negative_slope)


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """``input`` where it is positive, else alpha * (exp(input) - 1); the gradient at 0 is ``alpha``.

    Clevert et al., "Fast and Accurate Deep Network Learning by Exponential Linear Units (ELUs)" (2015).
    """
    return _activated("elu", _elu, input, alpha=alpha, scale=1.0)


def selu(input: Tensor) -> Tensor:
    """``elu`` with the scale and alpha that keep mean 0 and variance 1 from layer to layer.

    Klambauer et al., "Self-Normalizing Neural Networks" (2017).
    """
    return _activated(
        "selu", _elu, input, alpha=1.6732632423543772848170429916717, scale=1.0507009873554804934193349852946
    )


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """The product input * Phi(input), with the distribution function Phi of the standard normal distribution.

    Args:
        input: a floating-point tensor.
        approximate: "none", or "tanh" for 0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3))).

    Hendrycks and Gimpel, "Gaussian Error Linear Units (GELUs)" (2016).
    """
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"gelu: approximate argument must be either none or tanh, not {approximate!r}")
    return _activated("gelu", _gelu, input, approximate=approximate)


def silu(input: Tensor) -> Tensor:
    """The product input * sigmoid(input), also called swish."""
    return _activated("silu", _silu, input)


def mish(input: Tensor) -> Tensor:
    """The product input * tanh(softplus(input)).

    Misra, "Mish: A Self Regularized Non-Monotonic Activation Function" (2019).
    """
    return _activated("mish", _mish, input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Elements limited to [min_val, max_val], also of integers; the gradient is 1 inside, 0 outside and at the limits.

    Raises:
        ValueError: ``min_val`` is greater than ``max_val``.
        RuntimeError: ``input`` is bool, or unsigned while a limit is negative.
    """
    _check_tensor("hardtanh", input)
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val cannot be greater than max_val, but they are {min_val} and {max_val}")
    if input.dtype == np.bool_:
        raise RuntimeError("Bool inputs not supported for hardtanh")
    if input.dtype.kind == "u" and (min_val < 0 or max_val < 0):
        raise RuntimeError(f"cannot do hardtanh on an unsigned type ({input.dtype}) with negative limits")
    if not input.is_floating_point():
        min_val, max_val = int(min_val), int(max_val)
    out: Tensor = _hardtanh(input, min_val=min_val, max_val=max_val)
    return out


def hardsigmoid(input: Tensor) -> Tensor:
    """relu6(input + 3) / 6; the gradient at the kinks -3 and 3 is 0.

    Howard et al., "Searching for MobileNetV3" (2019), as are ``hardswish`` and its kinks.
    """
    return _activated("hardsigmoid", _hardsigmoid, input)


def hardswish(input: Tensor) -> Tensor:
    """The product input * relu6(input + 3) / 6; the gradient at the kinks is 0 at -3 and 1 at 3."""
    return _activated("hardswish", _hardswish, input)

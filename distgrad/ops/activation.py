"""Smooth activation functions and gates. Those with kinks are in ``rectifier``."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels import erf as kernels
from ..kernels.select import select
from .elementwise import (
    _abs,
    _check_tensor,
    _logistic,
    _one_plus_decay,
    _sigmoid,
    _tanh,
    _where,
)
from .exponentials import softmax
from .extremum import _clamp
from .largest import _argmax, _put
from .promotion import promoted
from .random import Generator, _draw
from .special import _erfc

# Smooth -------------------------------------------------------------------------------------------------------------


def _log1pexp(x: Any) -> Any:
    """log(1 + exp(x)): exp of minus the magnitude never overflows."""
    out = np.abs(x, out=np.empty_like(x))
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.log1p(out, out=out)
    out += np.maximum(x, 0)
    return out


def _logsigmoid_forward(input: Any) -> Any:
    out = _log1pexp(-input)
    return np.negative(out, out=out)


_logsigmoid: Primitive = define(
    "LogSigmoid", _logsigmoid_forward, ("input",), input=lambda g, input: g * _sigmoid(-input)
)


def _softplus_forward(input: Any, beta: float, threshold: float) -> Any:
    scaled = input * beta
    return select(scaled > threshold, input, _log1pexp(scaled) / beta)


_softplus: Primitive = define(
    "Softplus",
    _softplus_forward,
    ("input",),
    input=lambda g, input, beta, threshold: _where(input * beta > threshold, g, g * _sigmoid(input * beta)),
)


def _silu_forward(input: Any) -> Any:
    out = _one_plus_decay(input)
    return np.divide(input, out, out=out).astype(input.dtype, copy=False)


def _silu_vjp(g: Any, input: Any) -> Any:
    # s * (1 + x * (1 - s)), in the memory of two arrays
    share = _logistic(input)
    out = np.subtract(1, share, out=np.empty_like(share))
    out *= input
    out += 1
    out *= share
    out *= g
    return out


_silu: Primitive = define(
    "Silu", _silu_forward, ("input",), input=_silu_vjp, decomposition=lambda input: input * _sigmoid(input)
)


def _mish_slope(x: Any) -> Any:
    bounded = _tanh(_softplus(x, beta=1.0, threshold=20.0))
    return bounded + x * ((1.0 - bounded * bounded) * _sigmoid(x))


def _mish_forward(input: Any) -> Any:
    out = _log1pexp(input)
    np.tanh(out, out=out)
    out *= input
    return out


_mish: Primitive = define("Mish", _mish_forward, ("input",), input=lambda g, input: g * _mish_slope(input))

# Of the paper's approximation: Phi(x) is about sigmoid(2 * sqrt(2/pi) * (x + 0.044715 * x**3)), for (1 + tanh(u)) / 2
# is sigmoid(2 * u).
_CUBIC = 0.044715
_TWICE = 2 * math.sqrt(2 / math.pi)


def _gelu_exponent(x: Any) -> Any:
    return _TWICE * (x + _CUBIC * (x * x * x))


def _gelu_forward(input: Any, approximate: str) -> Any:
    if approximate == "none":
        return kernels.gelu(input)
    wide = input.astype(np.float32) if input.dtype == np.float16 else input
    out = np.multiply(wide, wide, out=np.empty_like(wide))
    out *= -_TWICE * _CUBIC
    out -= _TWICE
    out *= wide
    np.exp(out, out=out)
    out += 1
    return np.divide(wide, out, out=out).astype(input.dtype, copy=False)


def _gelu_vjp(g: Any, input: Any, approximate: str) -> Any:
    if approximate == "none":
        return kernels.gelu_backward(g, input)
    # beyond 20 the slope is 0 or 1 to 250 digits, but a square in it could overflow (in float16 from 256 on)
    x = np.clip(input, -20, 20)
    share = _logistic(_gelu_exponent(x))
    return g * (share + x * (share * (1 - share)) * (_TWICE + 3 * _TWICE * _CUBIC * (x * x)))


def _gelu_decomposition(input: Any, approximate: str) -> Any:
    if approximate == "none":
        return 0.5 * input * _erfc(-math.sqrt(0.5) * input)
    return input * _sigmoid(_gelu_exponent(_clamp(input, min=-20.0, max=20.0)))


_gelu: Primitive = define("Gelu", _gelu_forward, ("input",), input=_gelu_vjp, decomposition=_gelu_decomposition)


def _softsign_forward(input: Any) -> Any:
    out = np.abs(input, out=np.empty_like(input))
    out += 1
    return np.divide(input, out, out=out)


def _softsign_slope(x: Any) -> Any:
    share = 1.0 / (1.0 + _abs(x))
    return share * share


_softsign: Primitive = define(
    "Softsign", _softsign_forward, ("input",), input=lambda g, input: g * _softsign_slope(input)
)


def _tanhshrink_forward(input: Any) -> Any:
    out = np.tanh(input, out=np.empty_like(input))
    return np.subtract(input, out, out=out)


def _squared_tanh(x: Any) -> Any:
    return _tanh(x) * _tanh(x)


_tanhshrink: Primitive = define(
    "Tanhshrink", _tanhshrink_forward, ("input",), input=lambda g, input: g * _squared_tanh(input)
)

# Gates --------------------------------------------------------------------------------------------------------------


def _glu_forward(input: Any, dim: int) -> Any:
    values, gates = np.split(input, 2, axis=dim)
    out = _logistic(gates)
    out *= values
    return out


def _glu_vjp(g: Any, input: Any, dim: int) -> Any:
    values, gates = np.split(input, 2, axis=dim)
    share = _logistic(gates)
    of_gates = (1 - share) * share
    of_gates *= values
    of_gates *= g
    share *= g
    return np.concatenate((share, of_gates), axis=dim)


def _glu_decomposition(input: Tensor, dim: int) -> Tensor:
    half = input.shape[dim] // 2
    out: Tensor = input.narrow(dim, 0, half) * _sigmoid(input.narrow(dim, half, half))
    return out


_glu: Primitive = define("Glu", _glu_forward, ("input",), input=_glu_vjp, decomposition=_glu_decomposition)

# Public functions ---------------------------------------------------------------------------------------------------


def _check_floating(name: str, input: Any, argument: str = "input") -> None:
    _check_tensor(name, input, argument)
    if not input.is_floating_point():
        raise RuntimeError(f"{name} is not defined for {input.dtype} tensors; convert the {argument} with .float()")


def _activated(name: str, primitive: Primitive, input: Any, **keywords: Any) -> Tensor:
    _check_floating(name, input)
    # a number of NumPy would widen the result
    keywords = {key: value.item() if isinstance(value, np.generic) else value for key, value in keywords.items()}
    out: Tensor = primitive(input, **keywords)
    return out


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(input)), without overflow."""
    return _activated("logsigmoid", _logsigmoid, input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * input)) / beta, a smooth ReLU; ``input`` itself where beta * input > threshold."""
    return _activated("softplus", _softplus, input, beta=beta, threshold=threshold)


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


def _of_numbers(name: str, primitive: Primitive, input: Any) -> Tensor:
    _check_tensor(name, input)
    if input.dtype == np.bool_:
        raise RuntimeError(f"{name} is not defined for bool tensors; convert the input with .float()")
    (input,) = promoted(input, floating=True)
    out: Tensor = primitive(input)
    return out


def tanhshrink(input: Tensor) -> Tensor:
    """``input - tanh(input)``, of integers in the default floating-point dtype."""
    return _of_numbers("tanhshrink", _tanhshrink, input)


def softsign(input: Tensor) -> Tensor:
    """``input / (1 + abs(input))``, of integers in the default floating-point dtype."""
    return _of_numbers("softsign", _softsign, input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of ``input`` along ``dim`` times the sigmoid of the second half.

    Raises:
        RuntimeError: the length along ``dim`` is odd, or ``input`` has no dimension or is not floating-point.
        IndexError: there is no such dimension.

    Dauphin et al., "Language Modeling with Gated Convolutional Networks" (2016).
    """
    _check_tensor("glu", input)
    if input.ndim == 0:
        raise RuntimeError("glu does not support scalars because halving size must be even")
    if not -input.ndim <= dim < input.ndim:
        raise IndexError(
            f"glu: Dimension out of range (expected to be in range of [{-input.ndim}, {input.ndim - 1}], but got {dim})"
        )
    if input.shape[dim] % 2:
        raise RuntimeError(
            f"glu: Halving dimension must be even, but dimension {dim % input.ndim} is size {input.shape[dim]}"
        )
    return _activated("glu", _glu, input, dim=dim % input.ndim)


def gumbel_softmax(
    logits: Tensor,
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """A sample from the Gumbel-softmax distribution: a soft choice along ``dim`` that gradients pass through.

    Args:
        logits: unnormalized log-probabilities, floating-point.
        tau: the temperature; the lower, the nearer to a choice of one.
        hard: gives that choice, 1 at the largest and 0 elsewhere, with the gradient of the soft one.
        eps: has no effect and is deprecated, as in PyTorch.
        dim: along which one is chosen.
        generator: where the random numbers come from, ``distgrad.default_generator`` without it.

    Jang et al., "Categorical Reparameterization with Gumbel-Softmax" (2016).
    """
    _check_floating("gumbel_softmax", logits, "logits")
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    smallest = np.finfo(np.float64).tiny  # the stream may give an exact 0
    noise = _draw(
        generator,
        tuple(logits.shape),
        lambda stream, size: -np.log(np.maximum(stream.standard_exponential(size), smallest)).astype(logits.dtype),
    )
    soft = softmax((logits + noise) / tau, dim)
    if not hard or not soft.numel():
        return soft
    axis = dim % max(soft.ndim, 1)
    places = _argmax(soft.detach(), dim=axis, keepdim=True)
    ones = Tensor(np.ones(tuple(places.shape), soft.dtype))
    choice: Tensor = _put(ones, places, shape=tuple(soft.shape), dim=axis, keepdim=True)
    return choice - soft.detach() + soft

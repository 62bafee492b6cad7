"""The activation functions that take ``inplace``, and their forms that end in an underscore.

With ``inplace`` the result is written over the input, which is returned. Other than ``relu`` none of them saves memory
by it; the argument is there for models that rely on the input being changed.
"""

from __future__ import annotations

from ..autograd import Tensor
from ..ops import activation, elementwise, rectifier
from ..ops.inplace import in_place
from ..ops.random import Generator

relu_ = in_place(elementwise.relu, "relu_")
leaky_relu_ = in_place(rectifier.leaky_relu, "leaky_relu_")
rrelu_ = in_place(rectifier.rrelu, "rrelu_")
elu_ = in_place(rectifier.elu, "elu_")
selu_ = in_place(rectifier.selu, "selu_")
celu_ = in_place(rectifier.celu, "celu_")
hardtanh_ = in_place(rectifier.hardtanh, "hardtanh_")
threshold_ = in_place(rectifier.threshold, "threshold_")
_relu6_ = in_place(rectifier.relu6, "relu6_")
_hardsigmoid_ = in_place(rectifier.hardsigmoid, "hardsigmoid_")
_hardswish_ = in_place(rectifier.hardswish, "hardswish_")
_silu_ = in_place(activation.silu, "silu_")
_mish_ = in_place(activation.mish, "mish_")


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0); with ``inplace`` written over the input, which is returned."""
    return relu_(input) if inplace else elementwise.relu(input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """``input`` limited to [0, 6]; see ``relu`` for ``inplace``."""
    return (_relu6_ if inplace else rectifier.relu6)(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``input`` where it is positive, ``negative_slope * input`` elsewhere; see ``relu`` for ``inplace``."""
    return (leaky_relu_ if inplace else rectifier.leaky_relu)(input, negative_slope)


def rrelu(
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``leaky_relu`` with a slope for each element that is drawn from [``lower``, ``upper``) while ``training``.

    Args:
        input: floating-point, of any shape.
        lower: the least slope.
        upper: the largest; without ``training`` every slope is the mean of the two.
        training: whether to draw.
        inplace: write the result over the input.
        generator: where the random numbers come from, ``distgrad.default_generator`` without it.
    """
    return (rrelu_ if inplace else rectifier.rrelu)(input, lower, upper, training, generator)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` where it is positive, ``alpha * (exp(input) - 1)`` elsewhere; see ``relu`` for ``inplace``."""
    return (elu_ if inplace else rectifier.elu)(input, alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """``elu`` scaled so that mean and variance stay (Klambauer et al., 2017); see ``relu`` for ``inplace``."""
    return (selu_ if inplace else rectifier.selu)(input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` where it is positive, ``alpha * (exp(input / alpha) - 1)`` elsewhere; see ``relu`` for ``inplace``."""
    return (celu_ if inplace else rectifier.celu)(input, alpha)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * sigmoid(input)``, also called swish; see ``relu`` for ``inplace``."""
    return (_silu_ if inplace else activation.silu)(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * tanh(softplus(input))``; see ``relu`` for ``inplace``."""
    return (_mish_ if inplace else activation.mish)(input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` limited to [``min_val``, ``max_val``]; see ``relu`` for ``inplace``."""
    return (hardtanh_ if inplace else rectifier.hardtanh)(input, min_val, max_val)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """``input`` where it is above ``threshold``, ``value`` elsewhere; see ``relu`` for ``inplace``."""
    return (threshold_ if inplace else rectifier.threshold)(input, threshold, value)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``input / 6 + 1 / 2`` limited to [0, 1]; see ``relu`` for ``inplace``."""
    return (_hardsigmoid_ if inplace else rectifier.hardsigmoid)(input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * hardsigmoid(input)``; see ``relu`` for ``inplace``."""
    return (_hardswish_ if inplace else rectifier.hardswish)(input)

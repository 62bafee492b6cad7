"""Activation functions as layers."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from ..ops.creation import full
from . import functional as F
from .init import constant_
from .module import Module
from .parameter import Parameter


class _InPlace(Module):
    """A layer with PyTorch's ``inplace`` argument.

    Args:
        inplace: write the result over the input. This engine saves no memory by it; it is there for models that rely
            on the input being changed.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The argument, if set."""
        return "inplace=True" if self.inplace else ""

    def _described(self, arguments: str) -> str:
        return f"{arguments}, inplace=True" if self.inplace else arguments


class ReLU(_InPlace):
    """max(x, 0); its gradient at 0 is 0."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.relu(input, self.inplace)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.tanh(input)


class Softsign(Module):
    """``x / (1 + abs(x))``."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.softsign(input)


class Tanhshrink(Module):
    """``x - tanh(x)``."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.tanhshrink(input)


class Softmax(Module):
    """exp(x) over its sum along ``dim``.

    Args:
        dim: along which the results sum to 1; leaving it out is deprecated in PyTorch, and warns.
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The argument."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """The logarithm of ``Softmax``, computed without it.

    Args:
        dim: along which the probabilities sum to 1; leaving it out is deprecated in PyTorch, and warns.
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The argument."""
        return f"dim={self.dim}"


class Softmin(Module):
    """``Softmax`` of ``-x``.

    Args:
        dim: along which the results sum to 1; leaving it out is deprecated in PyTorch, and warns.
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.softmin(input, self.dim)

    def extra_repr(self) -> str:
        """The argument."""
        return f"dim={self.dim}"


class Softmax2d(Module):
    """``Softmax`` over the channels of images."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) or (C, H, W), which does not change.

        Raises:
            ValueError: another number of dimensions.
        """
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return F.softmax(input, -3)


class SELU(_InPlace):
    """The scaled exponential linear unit (Klambauer et al., 2017)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.selu(input, self.inplace)


class SiLU(_InPlace):
    """``x * sigmoid(x)``, also called swish."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.silu(input, self.inplace)


class Mish(_InPlace):
    """``x * tanh(softplus(x))`` (Misra, 2019)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.mish(input, self.inplace)


class Hardsigmoid(_InPlace):
    """``x / 6 + 1 / 2`` limited to [0, 1]."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.hardsigmoid(input, self.inplace)

    def extra_repr(self) -> str:
        """Nothing, as in PyTorch."""
        return ""


class Hardswish(_InPlace):
    """``x * hardsigmoid(x)`` (Howard et al., 2019)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.hardswish(input, self.inplace)

    def extra_repr(self) -> str:
        """Nothing, as in PyTorch."""
        return ""


class LogSigmoid(Module):
    """log(sigmoid(x)), without overflow."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.logsigmoid(input)


class LeakyReLU(_InPlace):
    """x where it is positive, a small multiple of it elsewhere.

    Args:
        negative_slope: the multiple.
        inplace: write the result over the input.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """The arguments."""
        return self._described(f"negative_slope={self.negative_slope}")


class RReLU(_InPlace):
    """x where it is positive, elsewhere a random multiple of it in training and the mean one in evaluation.

    Args:
        lower: the least multiple.
        upper: the largest.
        inplace: write the result over the input.

    Xu et al., "Empirical Evaluation of Rectified Activations in Convolutional Network" (2015).
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower = lower
        self.upper = upper

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        """The arguments."""
        return self._described(f"lower={self.lower}, upper={self.upper}")


class PReLU(Module):
    """x where it is positive, elsewhere ``weight`` times it, which is learned (He et al., 2015).

    Args:
        num_parameters: 1, or as many as the input has channels in its second dimension.
        init: the weight to start from.
        dtype: of the weight, the default dtype without it.
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), float(init), dtype=dtype))

    def reset_parameters(self) -> None:
        """Sets the weight to ``init`` again."""
        constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change; (N, num_parameters, ...) where there are several."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """The argument."""
        return f"num_parameters={self.num_parameters}"


class ELU(_InPlace):
    """x where it is positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al., 2016).

    Args:
        alpha: minus the limit on the left.
        inplace: write the result over the input.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """The arguments."""
        return self._described(f"alpha={self.alpha}")


class CELU(_InPlace):
    """x where it is positive, ``alpha * (exp(x / alpha) - 1)`` elsewhere (Barron, 2017).

    Args:
        alpha: minus the limit on the left.
        inplace: write the result over the input.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.celu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """The arguments."""
        return self._described(f"alpha={self.alpha}")


class Hardtanh(_InPlace):
    """x limited to an interval.

    Args:
        min_val: its lower end.
        max_val: its upper end.
        inplace: write the result over the input.

    Raises:
        ValueError: ``max_val`` is not greater than ``min_val``.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        if not max_val > min_val:
            raise ValueError(f"Hardtanh: max_val ({max_val}) must be greater than min_val ({min_val})")
        self.min_val = min_val
        self.max_val = max_val

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """The arguments."""
        return self._described(f"min_val={self.min_val}, max_val={self.max_val}")


class ReLU6(Hardtanh):
    """x limited to [0, 6].

    Args:
        inplace: write the result over the input.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        """The argument, if set."""
        return "inplace=True" if self.inplace else ""


class Threshold(_InPlace):
    """x where it is above a threshold, a value elsewhere.

    Args:
        threshold: above which x stays.
        value: what stands elsewhere.
        inplace: write the result over the input.
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold = threshold
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        """The arguments."""
        return self._described(f"threshold={self.threshold}, value={self.value}")


class Hardshrink(Module):
    """0 from -lambd to lambd, x elsewhere.

    Args:
        lambd: half the width of the gap.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """The argument."""
        return str(self.lambd)


class Softshrink(Module):
    """x drawn towards 0 by ``lambd``, but not beyond.

    Args:
        lambd: how far, not negative.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """The argument."""
        return str(self.lambd)


class GLU(Module):
    """The first half of x along ``dim`` times the sigmoid of the second (Dauphin et al., 2016).

    Args:
        dim: which dimension is halved.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Any shape of even length along ``dim``, which is halved."""
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        """The argument."""
        return f"dim={self.dim}"


class Softplus(Module):
    """``log(1 + exp(beta * x)) / beta``.

    Args:
        beta: how sharp the bend is.
        threshold: x itself where ``beta * x`` is above it.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"beta={self.beta}, threshold={self.threshold}"


class GELU(Module):
    """``x * Phi(x)``, Phi the normal distribution (Hendrycks and Gimpel, 2016).

    Args:
        approximate: ``"tanh"`` for the formula with tanh.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"approximate={self.approximate!r}"

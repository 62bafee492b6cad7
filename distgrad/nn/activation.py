"""Activation functions as layers."""

from __future__ import annotations

from ..autograd import Tensor
from . import functional as F
from .module import Module


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


class Hardswish(_InPlace):
    """``x * hardsigmoid(x)`` (Howard et al., 2019)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.hardswish(input, self.inplace)


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


class Hardtanh(_InPlace):
    """x limited to an interval.

    Args:
        min_val: its lower end.
        max_val: its upper end.
        inplace: write the result over the input.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.min_val = min_val
        self.max_val = max_val

    def forward(self, input: Tensor) -> Tensor:
        """Any shape, which does not change."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """The arguments."""
        return self._described(f"min_val={self.min_val}, max_val={self.max_val}")


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

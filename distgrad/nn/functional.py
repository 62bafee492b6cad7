"""The layers as functions of their tensors, with the names of ``torch.nn.functional``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..ops import activation, elementwise, random, reduction
from ..ops.activation import gelu, logsigmoid, softplus
from ..ops.convolution import conv2d
from ..ops.elementwise import sigmoid, tanh
from ..ops.inplace import in_place
from ..ops.linalg import linear
from ..ops.loss import cross_entropy, mse_loss, nll_loss
from ..ops.normalization import batch_norm
from ..ops.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from ..ops.random import Generator

_relu_ = in_place(elementwise.relu, "relu_")
_leaky_relu_ = in_place(activation.leaky_relu, "leaky_relu_")
_elu_ = in_place(activation.elu, "elu_")
_selu_ = in_place(activation.selu, "selu_")
_silu_ = in_place(activation.silu, "silu_")
_mish_ = in_place(activation.mish, "mish_")
_hardtanh_ = in_place(activation.hardtanh, "hardtanh_")
_hardsigmoid_ = in_place(activation.hardsigmoid, "hardsigmoid_")
_hardswish_ = in_place(activation.hardswish, "hardswish_")
_dropout_ = in_place(random.dropout, "dropout_")


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0); with ``inplace`` written over the input, which is returned."""
    return _relu_(input) if inplace else elementwise.relu(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``input`` where it is positive, ``negative_slope * input`` elsewhere; see ``relu`` for ``inplace``."""
    return (_leaky_relu_ if inplace else activation.leaky_relu)(input, negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` where it is positive, ``alpha * (exp(input) - 1)`` elsewhere; see ``relu`` for ``inplace``."""
    return (_elu_ if inplace else activation.elu)(input, alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """``elu`` scaled so that mean and variance stay (Klambauer et al., 2017); see ``relu`` for ``inplace``."""
    return (_selu_ if inplace else activation.selu)(input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * sigmoid(input)``, also called swish; see ``relu`` for ``inplace``."""
    return (_silu_ if inplace else activation.silu)(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * tanh(softplus(input))``; see ``relu`` for ``inplace``."""
    return (_mish_ if inplace else activation.mish)(input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``input`` limited to [``min_val``, ``max_val``]; see ``relu`` for ``inplace``."""
    return (_hardtanh_ if inplace else activation.hardtanh)(input, min_val, max_val)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``input / 6 + 1 / 2`` limited to [0, 1]; see ``relu`` for ``inplace``."""
    return (_hardsigmoid_ if inplace else activation.hardsigmoid)(input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``input * hardsigmoid(input)``; see ``relu`` for ``inplace``."""
    return (_hardswish_ if inplace else activation.hardswish)(input)


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Zeroes each element with probability ``p`` and scales the rest by 1 / (1 - p), while ``training``.

    Args:
        input: any shape.
        p: the probability.
        training: whether to do so at all.
        inplace: write the result over the input.
        generator: where the random numbers come from, ``distgrad.default_generator`` without it.

    Raises:
        ValueError: ``p`` is not in [0, 1].
    """
    return (_dropout_ if inplace else random.dropout)(input, p, training, generator=generator)


def _implicit_dim(name: str, ndim: int) -> int:
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=3,
    )
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """exp(input) over its sum along ``dim``; without ``dim``, PyTorch's old choice of it and a warning."""
    return reduction.softmax(input, _implicit_dim("softmax", input.ndim) if dim is None else dim, dtype=dtype)


def log_softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """The logarithm of ``softmax``, computed without it."""
    return reduction.log_softmax(input, _implicit_dim("log_softmax", input.ndim) if dim is None else dim, dtype=dtype)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A 1 at each class index and 0 elsewhere, int64: (*) -> (*, num_classes).

    Args:
        tensor: class indices, int64.
        num_classes: how many there are, one more than the largest index without it.

    Raises:
        RuntimeError: indices that are not int64, negative or too large, or none to count the classes of.
    """
    indices = tensor._data
    if indices.dtype != np.int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type int64, not {indices.dtype}")
    if num_classes < 0:
        if indices.size == 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        num_classes = int(indices.max()) + 1
    if indices.size and (indices.min() < 0 or indices.max() >= num_classes):
        wrong = indices.min() if indices.min() < 0 else indices.max()
        raise RuntimeError(f"one_hot: class value {wrong} is out of bounds: there are {num_classes} classes")
    return Tensor((indices[..., None] == np.arange(num_classes)).astype(np.int64))


__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "dropout",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "max_pool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]

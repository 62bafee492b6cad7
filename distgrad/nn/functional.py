"""The layers as functions of their tensors, with the names of ``torch.nn.functional``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..ops import elementwise, random, reduction
from ..ops.convolution import conv2d
from ..ops.elementwise import sigmoid, tanh
from ..ops.inplace import in_place
from ..ops.linalg import linear
from ..ops.loss import cross_entropy, mse_loss, nll_loss
from ..ops.normalization import batch_norm
from ..ops.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from ..ops.random import Generator

_relu_ = in_place(elementwise.relu, "relu_")
_dropout_ = in_place(random.dropout, "dropout_")


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0); with ``inplace`` written over the input, which is returned."""
    return _relu_(input) if inplace else elementwise.relu(input)


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
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
